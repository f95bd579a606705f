"""``bundle``, ``readiness``, ``customer create`` and ``completion`` as a vendor meets them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from shared_record.cli import cli
from shared_record.cli.context import Installation
from shared_record.db.schema import customer
from shared_record.settings import Settings
from world import Shop

MONTH = ("--period", "2026-11")


@pytest.fixture
def installed(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop as the installation that the command line opens, with two customers."""
    installation = Installation(Settings(lock_dir=tmp_path / "locks"), shop.clock)
    vars(installation).update(db=shop.db, keys=shop.keys)
    for module in ("billing", "customer"):
        monkeypatch.setattr(f"shared_record.cli.{module}.open_installation", lambda: installation)
    shop.record("cust_a", "1", "2")
    shop.record("cust:b", "0.5")
    return shop


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, [*arguments, "--tenant", "acme"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_one_bundle_to_stdout(installed: Shop) -> None:
    found = json.loads(run("bundle", "cust_a", *MONTH, "--json").stdout)
    assert (found["records"], found["total"]["amount"], found["access_code"]) == (2, "3", None)
    revealed = json.loads(run("bundle", "cust_a", *MONTH, "--reveal-code").stdout)
    assert revealed["access_code"].replace("-", "") == installed.code("cust_a")


def test_all_bundles_into_a_folder(installed: Shop, tmp_path: Path) -> None:
    for kind in ("json", "zip", "html"):
        result = run("bundle", "--all", *MONTH, "--format", kind, "--output", str(tmp_path / kind))
        assert result.exit_code == 0, result.output
        names = sorted(path.name for path in (tmp_path / kind).iterdir())
        assert names == [f"invoice-cust%3Ab-2026-11.{kind}", f"invoice-cust_a-2026-11.{kind}"]


def test_one_customer_or_all_but_not_both(installed: Shop) -> None:
    assert run("bundle", *MONTH).exit_code == 2
    assert run("bundle", "cust_a", "--all", *MONTH).exit_code == 2
    assert run("bundle", "cust_a", "--period", "2026-13").exit_code == 2
    assert run("bundle", "nobody", *MONTH).exit_code == 1


def test_readiness_is_a_gate(installed: Shop) -> None:
    shown = run("readiness", *MONTH)
    assert shown.exit_code == 0
    assert "0 of 2 ready" in shown.stdout
    assert "period_open" in shown.stdout
    assert run("readiness", *MONTH, "--fail-on", "blockers").exit_code == 3
    installed.clock.set(datetime(2026, 12, 1, 0, 5, tzinfo=UTC))
    installed.close()
    installed.checkpoint()
    ready = run("readiness", *MONTH, "--fail-on", "blockers", "--json")
    assert ready.exit_code == 0
    assert json.loads(ready.stdout)["ready"] == 2
    assert json.loads(run("readiness", "--json").stdout)["period"] == "2026-11", "last month, where none is named"
    assert run("readiness", "--period", "2026-01").stdout == "Nothing is recorded in 2026-01.\n"


def test_a_customer_is_made_before_its_first_delta(installed: Shop) -> None:
    made = run("customer", "create", "cust_new", "--name", "New Ltd", "--unit", "calls", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["url"]
    installed.record("cust_new", "4")
    assert json.loads(run("bundle", "cust_new", *MONTH).stdout)["total"] == {"amount": "4", "unit": "calls"}
    again = run("customer", "create", "cust_new")
    assert again.exit_code == 7
    assert "already" in again.stderr
    assert run("customer", "create", "no spaces").exit_code == 2
    assert run("customer", "rename", "cust_new", "Newer Ltd").stdout == "cust_new is now called Newer Ltd.\n"
    assert json.loads(run("bundle", "cust_new", *MONTH).stdout)["display_name"] == "Newer Ltd"


def test_a_customer_has_a_language_of_its_own(installed: Shop) -> None:
    assert run("customer", "create", "cust_new", "--language", "de").exit_code == 0
    assert language_of(installed, "cust_new") == "de"
    said = run("customer", "language", "cust_new", "ar")
    assert said.stdout == "The pages of cust_new are in العربية.\n"
    assert language_of(installed, "cust_new") == "ar"
    back = run("customer", "language", "cust_new", "tenant", "--json")
    assert json.loads(back.stdout) == {"customer_id": "cust_new", "language": None}
    assert language_of(installed, "cust_new") is None
    assert run("customer", "language", "cust_new", "xx").exit_code == 2
    assert run("customer", "language", "nobody", "de").exit_code == 1


def language_of(shop: Shop, customer_id: str) -> str | None:
    with shop.db.read(shop.scope) as connection:
        asked = select(customer.c.language).where(
            customer.c.tenant_id == shop.scope.plane, customer.c.external_id == customer_id
        )
        return connection.execute(asked).scalar_one()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="shared-record")
    assert result.exit_code == 0
    assert "_SHARED_RECORD_COMPLETE" in result.stdout
