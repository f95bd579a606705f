"""A log that cannot go on begins anew under another origin: a declared break, and nothing recorded is lost."""

from __future__ import annotations

import io

import pytest
from sqlalchemy import func, select

from client import Visitor, serve
from proofs_of import prove
from shared_record.db import leases
from shared_record.db.schema import checkpoint, former_log, leaf, signing_key, tenant
from shared_record.errors import ConflictError
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins
from shared_record.ledger import checkpoints, logs
from shared_record.ledger.audit import audit
from shared_record.ledger.checkpoints import LogHaltedError
from shared_record.ledger.entry import parse_epoch, parse_head
from shared_record.ledger.new_origin import NewOrigin, declare_origin
from shared_record.ledger.note import VerifierKey, parse_checkpoint
from shared_record.ledger.origin import is_later_origin, name_origin, number_of, ordinal_of, start_of_ordinal
from shared_record.ledger.proofs import newest_checkpoint, prove_record, write_receipt
from shared_record.ledger.receipts import Span
from shared_record.ledger.records import find_period
from shared_record.ledger.status import StoreState, read_status
from shared_record.ledger.successor import open_successor
from shared_record.verifier.checks import Result, check_export
from shared_record.verifier.receipts import check_receipt
from shared_record.verifier.watch import look
from shared_record.worker import Worker
from world import Shop

ORIGIN = "localhost/log/acme"
SECOND = f"{ORIGIN}/2"


def declare(shop: Shop, *, new_key: bool = False) -> NewOrigin:
    lease = shop.lease()
    with shop.db.write(shop.scope) as connection:
        done = declare_origin(connection, shop.keys, shop.clock, shop.locks, lease, reason="a test", new_key=new_key)
    leases.release(shop.db, lease, shop.clock.now())
    return done


def findings(shop: Shop) -> list[str]:
    return [one.problem for one in audit(shop.db, shop.keys, shop.locks, shop.scope)]


def vkeys(shop: Shop, origin: str) -> tuple[str, ...]:
    with shop.db.read(shop.scope) as connection:
        return logs.read_vkeys(connection, shop.scope, origin)


def receipt(shop: Shop, customer: str, period: str = "2026-11") -> str:
    with shop.db.read(shop.scope, snapshot=True) as connection:
        found = find_period(connection, shop.scope, shop.link(customer).customer_id, period)
        assert found is not None
        span = Span(found.tree_id, found.period, 0, found.psize)
        text = write_receipt(connection, shop.keys, shop.scope, [span], window=True)
    assert text is not None
    return text


def export(shop: Shop, customer: str, period: str = "2026-11"):
    kind, file = load_plugins().export_formats["json"], io.BytesIO()
    who = shop.link(customer).customer_id
    build_export(shop.db, shop.keys, shop.clock, shop.scope, who, period, kind, file)
    file.seek(0)
    return file


def restore_the_lock_store_ahead(shop: Shop, size: int) -> str:
    """As after a backup was restored: the store holds a size that the database does not know."""
    body = shop.locks.read(ORIGIN)
    assert body is not None
    ahead = body.replace(f"\n{parse_checkpoint(body).size}\n", f"\n{size}\n")
    assert shop.locks.swap(ORIGIN, body, ahead) == ahead
    return ahead


# --- Names and numbers -----------------------------------------------------------------------------------------------


def test_origins_are_numbered_and_their_serials_stand_apart() -> None:
    assert [name_origin(ORIGIN, n) for n in (1, 2, 3)] == [ORIGIN, SECOND, f"{ORIGIN}/3"]
    serial = start_of_ordinal(3) + 7
    assert (number_of(serial), ordinal_of(serial)) == (7, 3)
    assert is_later_origin(SECOND, ORIGIN)
    assert is_later_origin(f"{ORIGIN}/3", SECOND)
    for origin, of in ((ORIGIN, SECOND), (SECOND, SECOND), (SECOND, f"{ORIGIN}/3"), (f"{ORIGIN}/1", ORIGIN)):
        assert not is_later_origin(origin, of)
    assert not is_later_origin(f"{ORIGIN}x/2", ORIGIN)


# --- After a restore -------------------------------------------------------------------------------------------------


def test_a_log_whose_database_fell_behind_goes_on_under_a_new_origin(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.record("cust_b", "5")
    shop.checkpoint()
    old = receipt(shop, "cust_a")
    ahead = restore_the_lock_store_ahead(shop, 9)
    shop.record("cust_a", "3")
    with pytest.raises(LogHaltedError):
        shop.checkpoint()
    done = declare(shop)
    assert (done.former, done.origin, done.last, done.abandoned) == (ORIGIN, SECOND, ahead, 1)
    assert findings(shop) == []
    status = read_status(shop.db, shop.locks, shop.scope)
    assert (status.origin, status.size, status.halted, status.former) == (SECOND, 0, None, (ORIGIN,))
    assert status.store.state is StoreState.AGREES
    prove(shop, "cust_a")  # until the new origin has published, by the former one
    assert shop.checkpoint() == 1
    proof = prove(shop, "cust_a")
    first = parse_epoch(proof.epoch)
    assert (first.epoch, first.prev, first.former) == (0, b"", ahead)
    assert (proof.size, parse_head(proof.head).epoch) == (3, 0)
    assert prove(shop, "cust_b").size == 1  # nothing new of it, and stated anew all the same
    shop.record("cust_b", "6")
    assert shop.checkpoint() == 2
    for name in ("cust_a", "cust_b"):
        assert check_export(export(shop, name)).result is Result.MATCHES
    known = {ORIGIN: vkeys(shop, ORIGIN), SECOND: vkeys(shop, SECOND)}
    assert check_receipt(old, [("known", known)]).result is Result.MATCHES
    assert check_receipt(receipt(shop, "cust_a"), [("known", known)]).result is Result.MATCHES
    assert findings(shop) == []
    with shop.db.read(shop.scope) as connection:
        count = select(func.count()).select_from(leaf).where(leaf.c.tenant_id == shop.scope.plane)
        assert connection.execute(count).scalar_one() == 5


def test_the_same_key_goes_on_under_the_new_name_or_a_fresh_one_in_its_place(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    (old,) = map(VerifierKey.parse, vkeys(shop, ORIGIN))
    declare(shop)
    (second,) = map(VerifierKey.parse, vkeys(shop, SECOND))
    assert (second.public_key, second.id != old.id) == (old.public_key, True)
    shop.checkpoint()
    done = declare(shop, new_key=True)
    assert done.vkeys[0].public_key != old.public_key
    shop.checkpoint()
    assert parse_checkpoint(done.last or "").origin == SECOND
    prove(shop, "cust_a")
    assert findings(shop) == []
    with shop.db.read(shop.scope) as connection:
        ends = select(signing_key.c.until_size).where(signing_key.c.tenant_id == shop.scope.plane)
        assert sorted(connection.execute(ends).scalars(), key=str) == [2, start_of_ordinal(2) + 2, None]


def test_a_period_closed_before_is_proved_by_the_former_origin_for_ever(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    shop.clock.advance(days=10)
    shop.close()
    shop.record("cust_a", "4")
    shop.checkpoint()
    statement = prove(shop, "cust_a")
    declare(shop, new_key=True)
    for _ in range(5):
        shop.record("cust_a", "1")
        shop.checkpoint()
    november, december = prove(shop, "cust_a"), prove(shop, "cust_a", "2026-12")
    assert november == statement
    assert november.checkpoint.startswith(f"{ORIGIN}\n2\n")
    assert december.checkpoint.startswith(f"{SECOND}\n5\n")
    previous = parse_head(december.head).prev
    assert previous is not None
    assert (previous.period, previous.root, previous.epoch) == ("2026-11", november.root, 1)
    for period in ("2026-11", "2026-12"):
        assert check_export(export(shop, "cust_a", period)).result is Result.MATCHES
    shop.clock.advance(days=31)
    shop.close()
    shop.checkpoint()
    prove(shop, "cust_a", "2026-12")
    assert findings(shop) == []


def test_more_than_256_epochs_of_two_origins_do_not_mix(shop: Shop) -> None:
    shop.record("cust_a", "1")
    lease = shop.lease()
    args = (shop.db, shop.keys, shop.clock, shop.locks)
    for _ in range(257):
        checkpoints.make_checkpoint(*args, lease)
    declare(shop)
    lease = shop.lease()
    for _ in range(258):
        checkpoints.make_checkpoint(*args, lease)
    assert prove(shop, "cust_a").log_size == 258
    assert findings(shop) == []


def test_an_origin_that_the_lock_store_knows_is_never_used_again(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    later = f"{SECOND}\n4\n{'A' * 43}=\n"
    shop.locks.swap(SECOND, None, later)  # declared after the backup that this database is
    done = declare(shop)
    assert (done.origin, done.last) == (f"{ORIGIN}/3", later)
    shop.checkpoint()
    prove(shop, "cust_a")
    assert findings(shop) == []


def test_the_worker_goes_on_at_once_under_the_new_origin(shop: Shop) -> None:
    worker = Worker(shop.db, shop.keys, shop.clock, shop.locks, 3600)
    shop.record("cust_a", "1")
    worker.run_once()
    declare(shop)
    assert worker.run_once() == 1
    assert prove(shop, "cust_a").checkpoint.startswith(f"{SECOND}\n1\n")
    assert worker.run_once() == 0


def test_nobody_declares_while_another_holds_the_lease(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    stale = shop.lease()
    shop.lease()
    with shop.db.write(shop.scope) as connection, pytest.raises(ConflictError, match="overtaken"):
        declare_origin(connection, shop.keys, shop.clock, shop.locks, stale, reason="x", new_key=False)
    with shop.db.read(shop.scope) as connection:
        assert connection.execute(select(former_log).where(former_log.c.tenant_id == shop.scope.plane)).all() == []


@pytest.mark.parametrize("closing", [False, True])
def test_a_checkpoint_under_way_is_abandoned_and_never_signed(shop: Shop, closing: bool) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    shop.record("cust_a", "2")
    if closing:
        shop.clock.advance(days=10)
        shop.close()
    lease = shop.lease()
    checkpoints.integrate(shop.db, lease)
    checkpoints._prepare(shop.db, shop.keys, shop.clock, lease)
    declare(shop)
    shop.checkpoint()
    with shop.db.read(shop.scope) as connection:
        query = select(checkpoint.c.state, checkpoint.c.note).where(checkpoint.c.tenant_id == shop.scope.plane)
        rows = connection.execute(query.order_by(checkpoint.c.size)).all()
    assert [row.state for row in rows] == ["published", "abandoned", "published"]
    assert rows[1].note is None
    assert prove(shop, "cust_a").size == 2
    assert findings(shop) == []


# --- In public -------------------------------------------------------------------------------------------------------


def fetch_from(shop: Shop, below: str = ""):
    with shop.db.read(shop.scope) as connection:
        public = connection.execute(
            select(tenant.c.public_id).where(tenant.c.tenant_id == shop.scope.plane)
        ).scalar_one()
    visitor = Visitor(serve(shop))

    def fetch(path: str, most: int) -> bytes:
        response = visitor.get(f"localhost/log/{public}{below}/{path}")
        if response.status_code != 200:
            raise OSError(f"{path}: the server answers {response.status_code}")
        assert len(response.data) <= most
        return response.data

    return fetch


@pytest.mark.parametrize("new_key", [False, True])
def test_both_origins_are_served_and_a_watcher_is_told_of_the_break(shop: Shop, new_key: bool) -> None:
    for _ in range(3):
        shop.record("cust_a", "1")
        shop.checkpoint()
    seen = look(fetch_from(shop), None).seen
    assert seen is not None
    declare(shop, new_key=new_key)
    assert look(fetch_from(shop), seen).result is Result.MATCHES  # declared, not yet published
    shop.checkpoint()
    shop.checkpoint()
    report = look(fetch_from(shop), seen)
    assert report.result is Result.DIFFERS
    assert f"the log declared a new origin, {SECOND}, signed by" in (report.reason or "")
    assert ("a new key" in (report.reason or "")) == new_key
    assert "it carries over what was shown up to size 3" in (report.reason or "")
    assert f"declared a new origin, {SECOND}" in (look(fetch_from(shop), None).reason or "")
    fresh = look(fetch_from(shop, "/2"), None)
    assert (fresh.result, fresh.size) == (Result.MATCHES, 2)
    moved = look(fetch_from(shop, "/2"), seen)
    assert f"declared a new origin: this is {SECOND}, no longer {ORIGIN}" in (moved.reason or "")


def test_what_a_new_origin_leaves_out_is_named(shop: Shop) -> None:
    for _ in range(2):
        shop.record("cust_a", "1")
        shop.checkpoint()
    seen = look(fetch_from(shop), None).seen
    assert seen is not None
    (file,) = shop.locks._folder.glob("*.checkpoint")
    with shop.db.read(shop.scope) as connection:
        bodies = select(checkpoint.c.body).where(checkpoint.c.tenant_id == shop.scope.plane)
        file.write_text(connection.execute(bodies.order_by(checkpoint.c.size)).scalars().first() or "")
    declare(shop)
    shop.checkpoint()
    reason = look(fetch_from(shop), seen).reason or ""
    assert "what it carries over ends at size 1 and contradicts size 2, seen before" in reason


def test_the_proof_of_a_new_origin_is_believed_only_whole(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    declare(shop)
    shop.checkpoint()
    text = fetch_from(shop)("successor", 100_000).decode()
    assert open_successor(text).origin == SECOND
    for position in range(0, len(text), 7):
        spoiled = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        with pytest.raises(ValueError, match=r"."):
            open_successor(spoiled)


def test_a_verifier_that_knows_the_former_origin_says_that_a_new_one_was_declared(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    known = ("the known-logs file", {ORIGIN: vkeys(shop, ORIGIN)})
    declare(shop)
    shop.checkpoint()
    outcome = check_receipt(receipt(shop, "cust_a"), [known])
    assert (outcome.result, outcome.reason) == (
        Result.UNKNOWN,
        f"the log {ORIGIN} declared a new origin, {SECOND}, of which no key is known yet",
    )
    outcome = check_export(export(shop, "cust_a"), [known])
    assert outcome.result is Result.MATCHES
    assert any(f"The log declared a new origin: it is {SECOND}" in line for line in outcome.checked)


def test_the_newest_checkpoint_of_each_origin_is_kept(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    declare(shop)
    shop.checkpoint()
    with shop.db.read(shop.scope, snapshot=True) as connection:
        found = [newest_checkpoint(connection, shop.scope, start_of_ordinal(n)) for n in (1, 2, 3)]
        tree = find_period(connection, shop.scope, shop.link("cust_a").customer_id, "2026-11")
        assert tree is not None
        assert prove_record(connection, shop.keys, shop.scope, tree.tree_id) is not None
    assert [(one.origin, one.size) if one else None for one in found] == [(ORIGIN, 1), (SECOND, 1), None]
