"""``shared-record webhook`` as an operator meets it."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from receiver import Receiver, receiving
from shared_record.cli import cli
from shared_record.cli import webhook as module
from shared_record.cli.context import Installation
from shared_record.cli.key import _seal_anew
from shared_record.db.schema import webhook_endpoint
from shared_record.delivery.deliver import Deliverer
from shared_record.delivery.egress import Egress
from shared_record.delivery.webhooks import valid_secrets
from shared_record.ledger.announce import expand
from shared_record.settings import Settings
from world import Shop

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def installed(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop as the installation that the command line opens."""
    installation = Installation(Settings(data_dir=tmp_path, egress_allow=LOOPBACK), shop.clock)
    vars(installation).update(db=shop.db, keys=shop.keys)
    monkeypatch.setattr("shared_record.cli.webhook.open_installation", lambda: installation)
    return shop


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def sender(shop: Shop) -> Iterator[Deliverer]:
    found = Deliverer(shop.db, shop.keys, shop.clock, Egress(LOOPBACK), expand)
    yield found
    found.close()


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["webhook", *arguments, "--tenant", "acme"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(*arguments: str) -> dict:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_an_endpoint_from_its_making_to_its_removal(installed: Shop, receiver: Receiver, sender: Deliverer) -> None:
    made = as_json("create", receiver.url, "--event", "delta.verified", "--description", "billing")
    assert made["secret"].startswith("whsec_")
    assert as_json("list")["webhooks"][0]["id"] == made["id"]
    installed.record("cust_a", "1", "2")
    installed.checkpoint()
    receiver.answer = 500
    sender.run_once()
    [failed] = as_json("deliveries", "--status", "pending")["deliveries"]
    assert (failed["attempts"], failed["lastResponseCode"]) == (1, 500)
    assert "PENDING" in run("deliveries").stdout
    receiver.answer = 200
    installed.clock.advance(minutes=6)
    sender.run_once()
    assert as_json("deliveries", "--status", "delivered")["total"] == 2
    first = receiver.ids[0]
    assert as_json("retry", "--event-id", first) == {"queued": 1}
    assert sender.run_once() == 1
    assert as_json("deliveries", "--event-id", first)["deliveries"][0]["attempts"] == 3
    assert as_json("retry", "--from", "2026-11-22", "--to", "2026-11-23") == {"queued": 2}
    assert sender.run_once() == 2
    assert as_json("retry", "--from", "2026-11-22", "--failed") == {"queued": 0}
    assert as_json("rotate", made["id"])["secret"] != made["secret"]
    changed = as_json("update", made["id"], "--disable", "--all-events")
    assert (changed["enabled"], changed["events"]) == (False, None)
    assert "disabled (by hand)" in run("list").stdout
    assert as_json("delete", made["id"]) == {"id": made["id"], "deleted": True}
    assert run("list").stdout == "acme has no webhook endpoints.\n"


def test_a_test_send_says_what_the_receiver_answered(
    installed: Shop, receiver: Receiver, sender: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = as_json("create", receiver.url)
    stop = threading.Event()
    worker = threading.Thread(target=sender.run, args=(stop, 0.02))
    worker.start()
    try:
        assert as_json("test", made["id"])["delivery"]["lastResponseCode"] == 200
        receiver.answer = 418
        result = run("test", made["id"], "--event", "customer.created")
        assert result.exit_code == 0
        assert "418" in result.stdout
    finally:
        stop.set()
        worker.join()
    monkeypatch.setattr(module, "TEST_WAIT", 0.1)
    result = run("test", made["id"])
    assert result.exit_code == 75
    assert "Is a worker running?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "http://10.0.0.1/"), 2),
        (("create", "https://127.1/"), 2),
        (("create", "https://example.com/", "--event", "delta.lost"), 2),
        (("update", "wh_x"), 2),
        (("update", "wh_x", "--disable"), 1),
        (("delete", "wh_x"), 1),
        (("rotate", "wh_x"), 1),
        (("retry",), 2),
        (("retry", "--event-id", "evt_x"), 1),
        (("retry", "--from", "yesterday"), 2),
        (("retry", "--from", "2026-11-02", "--to", "2026-11-01"), 2),
        (("deliveries", "--event-id", "evt_x"), 1),
    ],
)
def test_mistakes_have_exit_codes(installed: Shop, arguments: tuple[str, ...], code: int) -> None:
    assert run(*arguments).exit_code == code


def test_secrets_are_sealed_anew_when_a_root_key_is_retired(installed: Shop) -> None:
    made = as_json("create", "https://hooks.example/")
    fresh = as_json("rotate", made["id"])["secret"]
    ring = installed.keys.with_new_root()
    installation = Installation(Settings(), installed.clock)
    vars(installation).update(db=installed.db)
    assert _seal_anew(installation, ring, installed.scope, "k1") >= 2
    with installed.db.read(installed.scope) as connection:
        of = webhook_endpoint.c.tenant_id == installed.scope.plane
        row = connection.execute(select(webhook_endpoint).where(of)).one()
    alone = ring.without("k1")
    assert valid_secrets(alone, installed.scope, row, installed.clock.now()) == [fresh, made["secret"]]
