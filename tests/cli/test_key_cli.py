"""``shared-record key`` as an operator meets it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from shared_record.cli import cli
from shared_record.cli.context import Installation
from shared_record.db.schema import audit_event, customer
from shared_record.keys import KeyRing
from shared_record.settings import Settings
from world import Shop


@pytest.fixture
def installed(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop as the installation that the command line opens, with a key ring in a file."""
    installation = Installation(Settings(data_dir=tmp_path / "data"), shop.clock)
    vars(installation).update(db=shop.db)
    shop.keys.save(tmp_path / "data" / "keys.json")
    monkeypatch.setattr("shared_record.cli.key.open_installation", lambda: installation)
    return shop


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["key", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(*arguments: str) -> dict:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_list_counts_what_uses_each_root_key_and_shows_no_secret(installed: Shop, tmp_path: Path) -> None:
    installed.record("cust_a", "1")
    installed.record("cust_b", "1")
    run("rotate")
    listed = as_json("list")
    none = {"links": 0, "codes": 0, "formerCodes": 0, "sealed": 0}
    assert listed["roots"] == [
        {"kid": "k1", "active": False, "missing": False, "links": 2, "codes": 2, "formerCodes": 0, "sealed": 6},
        {"kid": "k2", "active": True, "missing": False, **none},
    ]
    assert [log["tenant"] for log in listed["logs"]] == ["acme", "acme~test"]
    [key] = listed["logs"][0]["keys"]
    assert key["vkey"].startswith(f"localhost/log/acme+{key['id']}+")
    assert (key["since"], key["until"]) == (0, None)
    one = as_json("list", "--tenant", "acme~test")
    assert [(root["links"], root["sealed"]) for root in one["roots"]] == [(0, 2), (0, 0)]
    assert [log["origin"] for log in one["logs"]] == ["localhost/log/acme-test"]
    text = run("list").stdout
    assert text.splitlines()[:2] == [
        "k1  older: links 2, codes 2, sealed values 6",
        "k2  active: links 0, codes 0, sealed values 0",
    ]
    assert f"  {key['id']}  signs from size 0\n" in text
    ring = KeyRing.load(tmp_path / "data" / "keys.json")
    assert not any(root.hex() in text for root in ring.roots.values())


def test_a_key_that_the_database_needs_and_the_ring_lacks_is_named(installed: Shop) -> None:
    installed.record("cust_a", "1")
    with installed.db.write(installed.scope) as connection:
        connection.execute(customer.update().where(customer.c.tenant_id == installed.scope.plane).values(code_kid="k0"))
    assert "k0  MISSING from the key ring: links 0, codes 1, sealed values 0" in run("list").stdout


def test_a_signing_key_is_added_and_the_older_one_retired(installed: Shop) -> None:
    installed.checkpoint()
    [old] = as_json("list", "--tenant", "acme")["logs"][0]["keys"]
    assert run("retire", "--log", old["id"], "--tenant", "acme").exit_code == 7
    added = run("rotate", "--log", "--tenant", "acme")
    assert added.exit_code == 0
    new = as_json("list", "--tenant", "acme")["logs"][0]["keys"][1]
    assert new["since"] == 2
    assert f"{new['id']} signs localhost/log/acme from size 2 on, beside the older key" in added.stdout
    assert f"shared-record key retire --log {old['id']} --tenant acme" in added.stdout
    early = run("retire", "--log", old["id"], "--tenant", "acme")
    assert early.exit_code == 7
    assert "Wait for it" in early.stderr
    installed.checkpoint()
    done = as_json("retire", "--log", old["id"], "--tenant", "acme")
    assert done == {"tenant": "acme", "origin": "localhost/log/acme", "id": old["id"], "until": 3}
    assert f"{old['id']}  signs from size 0, retired: below size 3" in run("list", "--tenant", "acme").stdout
    query = select(audit_event.c.event, audit_event.c.actor, audit_event.c.detail).where(
        audit_event.c.tenant_id == installed.scope.plane, audit_event.c.event.in_(["key.rotated", "key.retired"])
    )
    with installed.db.read(installed.scope) as connection:
        found = {row.event: (row.actor, row.detail) for row in connection.execute(query)}
    assert found == {
        "key.rotated": ("cli", {"log": "localhost/log/acme", "key": new["id"], "since": 2}),
        "key.retired": ("cli", {"log": "localhost/log/acme", "key": old["id"], "until": 3}),
    }
    unknown = run("retire", "--log", "00000000", "--tenant", "acme")
    assert unknown.exit_code == 1
    assert old["id"] in unknown.stderr


def test_a_backup_is_private_exact_and_never_overwrites(installed: Shop, tmp_path: Path) -> None:
    original = tmp_path / "data" / "keys.json"
    copy = tmp_path / "copy.json"
    result = run("backup", str(copy))
    assert (result.exit_code, copy.read_bytes()) == (0, original.read_bytes())
    assert copy.stat().st_mode & 0o777 == 0o600
    assert result.stdout == f"{hashlib.sha256(original.read_bytes()).hexdigest()}  {copy}\n"
    assert KeyRing.load(copy) == installed.keys
    copy.write_text("mine")
    again = run("backup", str(copy))
    assert (again.exit_code, copy.read_text()) == (7, "mine")
    assert "is not overwritten" in again.stderr
    nowhere = run("backup", str(tmp_path / "none" / "copy.json"))
    assert nowhere.exit_code == 2
    assert "cannot be written: No such file or directory" in nowhere.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("rotate", "--log"),
        ("rotate", "--tenant", "acme"),
        ("retire",),
        ("retire", "k1", "--tenant", "acme"),
        ("retire", "k1", "--log", "00000000", "--tenant", "acme"),
        ("retire", "--log", "00000000"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_options_that_do_not_belong_together(
    installed: Shop, tmp_path: Path, arguments: tuple[str, ...], database_url: str
) -> None:
    before = (tmp_path / "data" / "keys.json").read_bytes()
    assert run(*arguments).exit_code == 2
    assert (tmp_path / "data" / "keys.json").read_bytes() == before


def test_unknown_keys_and_tenants_are_named(installed: Shop) -> None:
    assert "Its keys: k1." in run("retire", "k7").stderr
    assert run("retire", "k7").exit_code == 1
    active = run("retire", "k1")
    assert (active.exit_code, "shared-record key rotate" in active.stderr) == (7, True)
    assert run("rotate", "--log", "--tenant", "amce").exit_code == 1
