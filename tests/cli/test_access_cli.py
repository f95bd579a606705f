"""Secrets of methods, and links and codes printed elsewhere, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shared_record.access import method_secrets
from shared_record.cli import cli
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def run(shop: Shop, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    shop.keys.save(tmp_path / "data" / "keys.json")
    monkeypatch.setenv("SHARED_RECORD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SHARED_RECORD_DATABASE_URL", database_url)
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")

    def run(*arguments: str, text: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--tenant", "acme"], input=text)

    return run


def secrets_of(shop: Shop) -> dict[str, bytes]:
    with shop.db.read(shop.scope) as connection:
        who = shop.link("cust_a").customer_id
        return method_secrets.of_customer(connection, shop.keys, shop.scope, who)


def test_a_secret_is_read_set_and_removed_and_never_shown(shop: Shop, run: Any) -> None:
    done = run("access", "secret", "cust_a", "--method", "totp_device", "--json", text=b"JBSWY3DPEHPK3PXP\n")
    assert done.exit_code == 0, done.output
    assert "JBSWY" not in done.output
    assert json.loads(done.stdout)["secret"] == "set"
    assert secrets_of(shop) == {"totp_device": b"JBSWY3DPEHPK3PXP"}
    assert run("access", "secret", "cust_a", "--method", "totp_device", "--remove").exit_code == 0
    assert secrets_of(shop) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("cust_a", "--method", "nothing_installed"),
        ("--method", "totp_device"),
        ("cust_a", "--method", "totp_device", "--name", "x"),
        ("--method", "totp_device", "--name", "../x"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Any, arguments: tuple[str, ...]) -> None:
    assert run("access", "secret", *arguments, text=b"x").exit_code == 2


def test_codes_and_links_are_imported_and_what_is_wrong_is_told_by_line(shop: Shop, run: Any, tmp_path: Path) -> None:
    codes = tmp_path / "codes.csv"
    codes.write_text("customer,code\ncust_a,PX47-9QRT\nnobody,PX47-9QRX\ncust_b,AAAAAAAA\n")
    done = run("code", "import", str(codes), "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {"tenant": "acme", "imported": 1, "refused": 2}
    assert f"{codes}:3" in done.stderr
    assert f"{codes}:4" in done.stderr
    assert "AAAAAAAA" not in done.stderr
    printed = tmp_path / "links.csv"
    printed.write_text("handle,customer\nold-portal-4f9c2b7a1e6d8035,cust_b\n")
    assert run("link", "import", str(printed)).exit_code == 0
    assert shop.link("cust_b").handle == "old-portal-4f9c2b7a1e6d8035"


@pytest.mark.parametrize(
    "text", ["", "customer\n", "customer,code,more\n", "customer,code\ncust_a\n", "customer,code\na,b,c\n"]
)
def test_a_file_of_another_form_changes_nothing(run: Any, tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    assert run("code", "import", str(file)).exit_code == 2
