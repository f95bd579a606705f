"""From deltas to a signed checkpoint, and back from the checkpoint to every number."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from proofs_of import prove
from shared_record.db import leases
from shared_record.db.schema import checkpoint, leaf, period_tree
from shared_record.errors import ConflictError
from shared_record.ledger import logs, merkle
from shared_record.ledger.checkpoints import LogHaltedError, make_checkpoint
from shared_record.ledger.entry import parse_entry, parse_head
from shared_record.ledger.intake import Accepted
from shared_record.ledger.records import find_delta, list_periods
from world import Shop


def test_states_are_watermarks_and_the_proof_reaches_the_signature(shop: Shop) -> None:
    first, second = shop.record("cust_a", "5", "-1.25")
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert find_delta(shop.db, shop.scope, first.record_id).state == "recording"
    assert shop.checkpoint() == 1
    status = find_delta(shop.db, shop.scope, second.record_id)
    assert (status.state, status.epoch, status.previous_hash) == ("verified", 0, first.receipt_id)
    assert status.receipt_id == second.receipt_id
    prove(shop, "cust_a")


def test_proofs_hold_over_many_epochs_customers_and_sizes(shop: Shop) -> None:
    for epoch in range(12):
        for customer in range(epoch % 5 + 1):
            shop.record(f"cust_{customer}", *[str(n + 1) for n in range(epoch * 37 % 300 + 1)])
        shop.checkpoint()
    for customer in range(5):
        prove(shop, f"cust_{customer}")


def test_rows_recorded_after_the_checkpoint_are_not_yet_covered(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    shop.record("cust_a", "3")
    assert prove(shop, "cust_a").size == 2


def test_a_closed_period_keeps_its_statement_and_chains_to_the_next(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    shop.clock.advance(days=10)  # December
    assert shop.close() == 1
    shop.record("cust_a", "4")
    shop.checkpoint()
    with shop.db.read(shop.scope) as connection:
        periods = list_periods(connection, shop.scope, shop.link("cust_a").customer_id)
    assert [(p.period, p.status, p.total) for p in periods] == [("2026-12", "open", "4"), ("2026-11", "closed", "3")]
    for _ in range(5):
        shop.record("cust_b", "1")
        shop.checkpoint()
    old, new = prove(shop, "cust_a"), prove(shop, "cust_a", "2026-12")
    previous = parse_head(new.head).prev
    assert previous is not None
    assert (previous.period, previous.size, previous.root) == ("2026-11", 2, old.root)
    assert previous.leaf == merkle.leaf_hash(old.head.encode())


def test_a_delta_while_its_period_is_closing_goes_to_the_next_and_says_so(shop: Shop) -> None:
    shop.record("cust_a", "1")
    with shop.db.write(shop.scope) as connection:
        connection.execute(
            period_tree.update().where(period_tree.c.tenant_id == shop.scope.plane).values(status="closing")
        )
    (late,) = shop.record("cust_a", "7")
    with shop.db.read(shop.scope) as connection:
        row = connection.execute(
            select(leaf.c.entry).where(leaf.c.tenant_id == shop.scope.plane, leaf.c.record_id == late.record_id)
        ).scalar_one()
    entry = parse_entry(row)
    assert (entry.period, entry.adj, entry.seq, late.sequence) == ("2026-12", "2026-11", 1, 2)
    shop.checkpoint()
    prove(shop, "cust_a", "2026-12")
    prove(shop, "cust_a", "2026-11")


def test_an_idle_log_keeps_its_size_when_nothing_is_new_but_a_heartbeat_extends_it(shop: Shop) -> None:
    shop.record("cust_a", "1")
    assert [shop.checkpoint(), shop.checkpoint()] == [1, 2]
    prove(shop, "cust_a")


@pytest.mark.parametrize("state", ["prepared", "locked in the store"])
def test_a_half_done_checkpoint_is_finished_from_its_stored_body(shop: Shop, state: str, monkeypatch) -> None:
    shop.record("cust_a", "1")
    name = "_lock" if state == "prepared" else "_publish"
    with monkeypatch.context() as patched:
        patched.setattr(f"shared_record.ledger.checkpoints.{name}", _killed)
        with pytest.raises(KeyboardInterrupt):
            shop.checkpoint()
    body = shop_checkpoints(shop)[0].body
    shop.record("cust_a", "2")
    assert shop.checkpoint() == 2
    assert shop_checkpoints(shop)[0].body == body
    prove(shop, "cust_a")


def test_a_database_behind_the_lock_store_is_never_signed(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    ahead = shop_checkpoints(shop)[0].body.replace("\n1\n", "\n9\n")
    origin = ahead.splitlines()[0]
    assert shop.locks.swap(origin, shop.locks.read(origin), ahead) == ahead
    shop.record("cust_a", "2")
    for _ in range(2):
        with pytest.raises(LogHaltedError, match="size 9"):
            shop.checkpoint()
    assert [row.state for row in shop_checkpoints(shop)] == ["published", "prepared"]
    (accepted,) = shop.record("cust_a", "3")  # intake goes on
    assert find_delta(shop.db, shop.scope, accepted.record_id).state == "recording"


def test_a_lease_that_was_overtaken_writes_nothing(shop: Shop) -> None:
    shop.record("cust_a", "1")
    old = shop.lease()
    shop.lease()
    with pytest.raises(ConflictError, match="overtaken"):
        make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, old)
    assert shop_checkpoints(shop) == []
    assert leases.acquire(shop.db, shop.clock, shop.scope, logs.SEQUENCER, "third", shop_minutes()) is None


def shop_checkpoints(shop: Shop):
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(checkpoint).where(checkpoint.c.tenant_id == shop.scope.plane).order_by(checkpoint.c.size)
        ).all()


def shop_minutes():
    from datetime import timedelta

    return timedelta(minutes=1)


def _killed(*_args: object) -> None:
    raise KeyboardInterrupt
