"""``shared-record customer erase`` and ``record erase`` as a vendor meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shared_record.cli import cli
from shared_record.cli.context import Installation
from shared_record.errors import NotFoundError
from shared_record.ledger.records import find_delta
from shared_record.settings import Settings
from world import Shop


@pytest.fixture
def installed(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop as the installation that the command line opens, with one customer."""
    installation = Installation(Settings(lock_dir=tmp_path / "locks"), shop.clock)
    vars(installation).update(db=shop.db, keys=shop.keys)
    for module in ("customer", "record"):
        monkeypatch.setattr(f"shared_record.cli.{module}.open_installation", lambda: installation)
    shop.record("cust_a", "1", "2")
    return shop


def run(*arguments: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(cli, [*arguments, "--tenant", "acme"], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_customer_is_erased_with_yes(installed: Shop) -> None:
    result = run("customer", "erase", "cust_a", "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("cust_a is erased, with the content of 2 deltas. In its place: erased-")
    again = run("customer", "erase", "cust_a", "--yes")
    assert again.exit_code == 1
    assert "there is no customer 'cust_a'" in again.stderr
    assert run("customer", "list").stdout == "acme has no customers yet.\n"


def test_in_json(installed: Shop) -> None:
    form = json.loads(run("customer", "erase", "cust_a", "--yes", "--json").stdout)
    assert form.pop("erased_as").startswith("erased-")
    assert form == {"tenant": "acme", "customer_id": "cust_a", "deltas": 2}


def test_a_person_is_asked_and_told_what_follows(installed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_record.cli.customer.is_terminal", lambda: True)
    unknown = run("customer", "erase", "cust_x", answer="y\n")
    assert unknown.exit_code == 1
    assert "Erase?" not in unknown.output
    kept = run("customer", "erase", "cust_a", answer="n\n")
    assert kept.exit_code != 0
    assert "Nothing brings it back but a backup" in kept.stderr
    assert installed.link("cust_a").handle is not None
    assert run("customer", "erase", "cust_a", answer="y\n").exit_code == 0
    with pytest.raises(NotFoundError):
        installed.link("cust_a")


def test_where_nobody_can_be_asked_yes_must_be_said(installed: Shop) -> None:
    result = run("customer", "erase", "cust_a")
    assert result.exit_code == 2
    assert "nothing was erased: add --yes" in result.stderr
    assert installed.link("cust_a").handle is not None


def test_the_details_of_one_delta_are_erased(installed: Shop) -> None:
    (accepted,) = installed.record("cust_a", "3")
    result = run("record", "erase", accepted.record_id)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"The details of {accepted.record_id} are erased.\n"
    assert find_delta(installed.db, installed.scope, accepted.record_id).purged
    assert run("record", "erase", accepted.record_id).stdout == f"{accepted.record_id} has no details any more.\n"
    form = json.loads(run("record", "erase", accepted.record_id, "--json").stdout)
    assert form == {"tenant": "acme", "record_id": accepted.record_id, "erased": False}
    unknown = run("record", "erase", "rec_nothing")
    assert unknown.exit_code == 1
    assert "there is no delta 'rec_nothing'" in unknown.stderr
