"""Rotating root keys: what is printed keeps working, what is new uses the new key, and no key goes while it is used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select

from client import Visitor, url_of
from shared_record.access import links
from shared_record.app import create_app
from shared_record.cli import cli
from shared_record.cli import key as commands
from shared_record.cli.context import Installation
from shared_record.db.schema import audit_event, customer, signing_key, tenant
from shared_record.errors import ConfigurationError, ConflictError
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing, changing, handle_digest
from shared_record.ledger.audit import audit
from shared_record.ledger.audit_reading import Tally
from shared_record.settings import Settings
from world import Shop

Key = Callable[..., Result]


@pytest.fixture
def path(shop: Shop, tmp_path: Path) -> Path:
    shop.keys.save(tmp_path / "data" / "keys.json")
    return tmp_path / "data" / "keys.json"


@pytest.fixture
def key(shop: Shop, path: Path, monkeypatch: pytest.MonkeyPatch) -> Key:
    """Run ``shared-record key`` on the shop; afterwards the shop has the key ring as a restarted server would."""
    installation = Installation(Settings(data_dir=path.parent), shop.clock)
    vars(installation).update(db=shop.db)
    monkeypatch.setattr("shared_record.cli.key.open_installation", lambda: installation)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, ["key", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        shop.keys = KeyRing.load(path)
        return result

    return run


def reissue(shop: Shop, *names: str) -> None:
    with shop.db.write(shop.scope) as connection:
        for name in names:
            links.reissue_link(connection, shop.keys, shop.clock, shop.scope, name, "test")


def new_code(shop: Shop, *names: str, overlap: timedelta = timedelta(0)) -> None:
    with shop.db.write(shop.scope) as connection:
        for name in names:
            links.rotate_code(connection, shop.keys, shop.clock, shop.scope, name, "test", overlap=overlap)


def seals(shop: Shop) -> list[bytes]:
    """The kid of every sealed value of both planes."""
    found = []
    for scope in (shop.scope, shop.test_scope):
        with shop.db.read(scope) as connection:
            for table, column in (
                (tenant, "sealed_key"),
                (customer, "sealed_key"),
                (signing_key, "sealed_seed"),
            ):
                query = select(table.c[column]).where(table.c.tenant_id == scope.plane)
                found += [value for value in connection.execute(query).scalars() if value is not None]
    return [value.partition(b"\0")[0] for value in found]


def events(shop: Shop, name: str) -> list[dict[str, object]]:
    query = select(audit_event.c.detail).where(audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == name)
    with shop.db.read(shop.scope) as connection:
        return list(connection.execute(query).scalars())


def opens(shop: Shop, url: str, code: str) -> bool:
    """Whether a customer gets in with this code, on a server that was started just now."""
    app = create_app(
        Settings(port=8000), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=load_plugins(strict=True)
    )
    browser = Visitor(app)
    form = browser.get(f"{url}/unlock").text
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))
    browser.post(f"{url}/unlock", data=hidden | {"field-code": code})
    return browser.get(f"{url}/activity").status_code == 200


# --- Rotate ----------------------------------------------------------------------------------------------------------


def test_z03_printed_links_and_codes_keep_working_and_new_versions_use_the_new_key(shop: Shop, key: Key) -> None:
    shop.record("cust_a", "5")
    link, code = shop.link("cust_a"), shop.code("cust_a")
    old = shop.keys
    result = key("rotate")
    assert result.exit_code == 0
    assert "k2 is the active root key; k1 still opens" in result.stdout
    assert "Restart every web server and worker" in result.stdout
    assert (shop.keys.active, shop.keys.roots["k1"]) == ("k2", old.roots["k1"])
    assert shop.link("cust_a") == link
    assert shop.code("cust_a") == code
    assert opens(shop, url_of(shop, "cust_a"), code)
    shop.record("cust_a", "6")  # what is sealed under k1 opens
    shop.checkpoint()
    shop.record("cust_b", "1")
    who = shop.link("cust_b").customer_id
    assert shop.link("cust_b").handle == shop.keys.handle("k2", shop.scope.plane, who, 1)
    reissue(shop, "cust_a")
    new_code(shop, "cust_a")
    assert shop.link("cust_a").handle == shop.keys.handle("k2", shop.scope.plane, link.customer_id, 2)
    assert shop.code("cust_a") == shop.keys.access_code("k2", shop.scope.plane, link.customer_id, 2)
    assert opens(shop, url_of(shop, "cust_a"), shop.code("cust_a"))
    assert events(shop, "key.rotated") == [{"kid": "k2", "former": "k1"}]


# --- Retire ----------------------------------------------------------------------------------------------------------


def test_a_key_is_retired_once_every_link_and_code_has_a_newer_one(shop: Shop, key: Key, path: Path) -> None:
    shop.record("cust_a", "5")
    shop.record("cust_b", "1")
    shop.checkpoint()
    assert key("retire", "k1").exit_code == 7  # the active one
    key("rotate")
    refused = key("retire", "k1")
    assert refused.exit_code == 7
    assert "k1 is still used; it stays in the key ring. Sealed anew under k2: 6." in refused.stderr
    assert "acme: links of cust_a, cust_b. Run for each: shared-record link reissue CUSTOMER --tenant acme" in (
        refused.stderr
    )
    assert "acme: access codes of cust_a, cust_b. Run for each: shared-record code rotate" in refused.stderr
    assert "k1" in shop.keys.roots
    assert set(seals(shop)) == {b"k2"}
    reissue(shop, "cust_a", "cust_b")
    refused = key("retire", "k1")
    assert "links of" not in refused.stderr
    assert refused.exit_code == 7
    new_code(shop, "cust_a", "cust_b", overlap=timedelta(days=30))
    refused = key("retire", "k1")
    assert refused.exit_code == 7
    assert "acme: 2 former codes count until 2026-12-22" in refused.stderr
    shop.clock.advance(days=31)
    done = key("retire", "k1")
    assert (done.exit_code, done.stderr) == (0, "")
    assert (shop.keys.active, set(shop.keys.roots)) == ("k2", {"k2"})
    assert path.stat().st_mode & 0o777 == 0o600
    # All goes on without it.
    assert opens(shop, url_of(shop, "cust_a"), shop.code("cust_a"))
    shop.record("cust_a", "6")
    shop.checkpoint()
    assert not list(audit(shop.db, shop.keys, shop.locks, shop.scope, tally=Tally()))
    assert events(shop, "key.retired") == [{"kid": "k1"}]
    assert key("retire", "k1").exit_code == 1


def test_a_link_that_was_revoked_holds_no_key_back(shop: Shop, key: Key) -> None:
    shop.record("cust_a", "5")
    key("rotate")
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")
    new_code(shop, "cust_a")
    assert key("retire", "k1").exit_code == 0
    with shop.db.write(shop.scope) as connection:
        again = links.issue_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")
    assert again.handle is not None
    query = select(func.count()).where(
        links.link.c.tenant_id == shop.scope.plane, links.link.c.digest == handle_digest(again.handle)
    )
    with shop.db.read(shop.scope) as connection:
        assert connection.execute(query).scalar_one() == 1


@pytest.mark.parametrize("at", ["second tenant", "file", "commit"])
def test_a_retirement_that_was_killed_is_run_again(
    shop: Shop, key: Key, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    shop.record("cust_a", "5")
    key("rotate")
    reissue(shop, "cust_a")
    new_code(shop, "cust_a")
    real_seal, real_replace, planes = commands._seal_anew, KeyRing.replace, []

    def seal(installation, ring, scope, kid):
        if planes:
            raise KeyboardInterrupt
        planes.append(scope)
        return real_seal(installation, ring, scope, kid)

    def replace(ring, path):
        if at == "commit":
            real_replace(ring, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if at == "second tenant":
            patched.setattr(commands, "_seal_anew", seal)
        else:
            patched.setattr(KeyRing, "replace", replace)
        runner = CliRunner()
        assert runner.invoke(cli, ["key", "retire", "k1"], standalone_mode=False).exit_code != 0
    if at == "second tenant":
        assert set(seals(shop)) == {b"k1", b"k2"}
    again = key("retire", "k1")
    assert again.exit_code == (1 if at == "commit" else 0)  # gone already
    assert set(shop.keys.roots) == {"k2"}
    assert set(seals(shop)) == {b"k2"}
    shop.record("cust_a", "6")
    shop.checkpoint()
    assert opens(shop, url_of(shop, "cust_a"), shop.code("cust_a"))


def test_an_erased_customers_key_does_not_come_back(shop: Shop, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.record("cust_a", "5")
    key("rotate")
    of_tenant = customer.c.tenant_id == shop.scope.plane
    with shop.db.write(shop.scope) as connection:
        connection.execute(customer.update().where(of_tenant).values(sealed_key=None))
    key("retire", "k1")
    with shop.db.read(shop.scope) as connection:
        assert connection.execute(select(customer.c.sealed_key).where(of_tenant)).scalars().all() == [None]


# --- The file --------------------------------------------------------------------------------------------------------


def test_a_new_root_never_takes_a_name_that_was_used() -> None:
    ring = KeyRing.generate().with_new_root().with_new_root()
    assert (ring.active, list(ring.roots)) == ("k3", ["k1", "k2", "k3"])
    assert len(set(ring.roots.values())) == 3
    assert ring.without("k2").with_new_root().active == "k4"
    assert KeyRing("main", {"main": b"x" * 32}).with_new_root().active == "k1"
    for kid in ("k3", "k9"):
        with pytest.raises(ValueError, match=kid):
            ring.without(kid)


def test_the_file_is_replaced_at_once_and_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    old = KeyRing.generate()
    old.save(path)
    (tmp_path / ".keys.json.new").write_text("left by a run that was killed")
    link = tmp_path / "link.json"
    link.symlink_to(path)
    before = os.umask(0)
    try:
        with changing(link) as ring:
            ring.with_new_root().replace(link)
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert KeyRing.load(path).active == "k2"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["keys.json", "link.json"]

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    content = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="No space left"):
            KeyRing.load(path).with_new_root().replace(path)
    assert path.read_bytes() == content
    assert sorted(file.name for file in tmp_path.iterdir()) == ["keys.json", "link.json"]


def test_only_one_command_changes_the_ring_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    KeyRing.generate().save(path)
    with changing(path), pytest.raises(ConflictError, match="another command"), changing(path):
        pass
    with changing(path) as ring:
        assert ring.active == "k1"
