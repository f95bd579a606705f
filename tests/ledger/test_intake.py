"""Intake: dense sequences, exact totals, one delta per reference, all or nothing; alone and from many threads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import chain, count, pairwise
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from proofs_of import prove
from shared_record.clock import SteppedClock, period_of, rfc3339
from shared_record.db.engine import Database
from shared_record.db.schema import customer, day_counter, delta_detail, leaf, link, metadata, period_tree, tenant
from shared_record.keys import KeyRing
from shared_record.ledger import intake
from shared_record.ledger.amounts import canonical
from shared_record.ledger.entry import detail_hash, parse_entry
from shared_record.ledger.intake import Accepted, Delta, Rejected, record_deltas
from shared_record.ledger.merkle import leaf_hash
from world import Shop, open_shop

DIGITS = st.integers(0, 24)
AMOUNTS = st.builds(
    lambda unscaled, places: canonical(Decimal(unscaled).scaleb(-places)),
    st.integers(-(10**20) + 1, 10**20 - 1).filter(bool),
    DIGITS,
) | st.sampled_from(
    ["99999999999999999999.999999999999999999999999", "-99999999999999999999.999999999999999999999999", "1e-24"]
).map(lambda text: canonical(Decimal(text)))
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 3), AMOUNTS), min_size=1, max_size=6), min_size=1, max_size=6)
_examples = count()
FIXTURES_STAY = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def exact_sum(amounts: Sequence[str]) -> str:
    with localcontext(prec=80):
        return canonical(sum((Decimal(amount) for amount in amounts), Decimal(0)))


def trees_of(shop: Shop, name: str) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(period_tree, customer.c.external_id)
            .join(
                customer,
                (customer.c.tenant_id == period_tree.c.tenant_id)
                & (customer.c.customer_id == period_tree.c.customer_id),
            )
            .where(period_tree.c.tenant_id == shop.scope.plane, customer.c.external_id == name)
            .order_by(period_tree.c.period)
        ).all()


def leaves_of(shop: Shop, tree: Any) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(leaf)
            .where(leaf.c.tenant_id == shop.scope.plane, leaf.c.tree_id == tree.tree_id)
            .order_by(leaf.c.seq)
        ).all()


def rows_in(shop: Shop) -> dict[str, int]:
    """Return how many rows every table has."""
    return {
        table.name: shop_count(shop, table) for table in metadata.sorted_tables if table.info["scope"] == "plane"
    } | {"next_slot": next_slot(shop)}


def shop_count(shop: Shop, table: Any) -> int:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(func.count()).select_from(table).where(table.c.tenant_id == shop.scope.plane)
        ).scalar_one()


def next_slot(shop: Shop) -> int:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(tenant.c.next_slot).where(tenant.c.tenant_id == shop.scope.plane)).scalar_one()


def check_sound(shop: Shop, name: str) -> list[Any]:
    """Check I1, I5, the counters and every leaf of one customer; return the leaves of all periods."""
    every: list[Any] = []
    for tree in trees_of(shop, name):
        rows = leaves_of(shop, tree)
        assert tree.size >= tree.vsize >= tree.psize >= 0
        assert [row.seq for row in rows] == list(range(1, tree.size + 1))
        assert tree.base == len(every)
        assert tree.total == exact_sum([row.qty for row in rows])
        with shop.db.read(shop.scope) as connection:
            days = connection.execute(
                select(day_counter).where(
                    day_counter.c.tenant_id == shop.scope.plane, day_counter.c.tree_id == tree.tree_id
                )
            ).all()
        assert sum(day.size for day in days) == tree.size
        assert exact_sum([day.total for day in days]) == tree.total
        for day in days:
            of_day = [row.qty for row in rows if row.rx.date() == day.day]
            assert (day.size, day.total) == (len(of_day), exact_sum(of_day))
        running: list[str] = []
        for row in rows:
            running.append(row.qty)
            entry = parse_entry(row.entry)
            assert leaf_hash(row.entry.encode()) == row.hash == hashlib.sha256(b"\0" + row.entry.encode()).digest()
            assert (entry.rec, entry.seq, entry.mseq, entry.period) == (tree.tree_id, row.seq, row.seq, tree.period)
            assert (entry.qty, entry.id, entry.rx) == (row.qty, row.record_id, rfc3339(row.rx))
            assert entry.total == row.total == exact_sum(running)
            assert (entry.unit, entry.at, entry.adj) == (tree.unit, row.at, row.adjusts)
        assert all(one.rx <= other.rx for one, other in pairwise(rows))
        if rows:
            assert (tree.last_rx, tree.last_leaf) == (rows[-1].rx, rows[-1].hash)
        every += rows
    assert len({parse_entry(row.entry).salt for row in every}) == len(every)
    return every


@FIXTURES_STAY
@given(batches=BATCHES)
def test_sequences_are_dense_and_totals_exact(shop: Shop, batches: list[list[tuple[int, str]]]) -> None:
    run = next(_examples)
    sent: dict[str, list[str]] = {}
    for batch in batches:
        deltas = [Delta(f"c-{run}-{who}", amount, "usage") for who, amount in batch]
        results = shop.record_many(deltas)
        for delta, result in zip(deltas, results, strict=True):
            sent.setdefault(delta.customer_id, []).append(delta.amount)
            assert isinstance(result, Accepted)
            assert (result.customer_id, result.amount, result.replayed) == (delta.customer_id, delta.amount, False)
            assert result.sequence == len(sent[delta.customer_id])
    for name, amounts in sent.items():
        assert [row.qty for row in check_sound(shop, name)] == amounts
    shop.checkpoint()
    for name, amounts in sent.items():
        assert prove(shop, name, period_of(shop.clock.now())).size == len(amounts)


def test_a_leaf_commits_to_its_details_and_its_receipt(shop: Shop) -> None:
    shop.record("cust_a", "1")
    (made,) = shop.record_many(
        [
            Delta(
                "cust_a",
                "-0.5",
                "reason",
                reference_id="ref",
                metadata='{"a":1}',
                occurred_at="2026-10-31T23:59:59.123456789Z",
            )
        ]
    )
    assert isinstance(made, Accepted)
    row = check_sound(shop, "cust_a")[1]
    assert made.receipt_id == "0x" + row.hash.hex()
    assert (made.record_id, made.sequence, made.created_at) == (row.record_id, 2, shop.clock.now())
    with shop.db.read(shop.scope) as connection:
        kept = connection.execute(
            select(delta_detail).where(
                delta_detail.c.tenant_id == shop.scope.plane,
                delta_detail.c.tree_id == row.tree_id,
                delta_detail.c.seq == 2,
            )
        ).one()
    entry = parse_entry(row.entry)
    assert (kept.reason, kept.reference, kept.metadata) == ("reason", "ref", '{"a":1}')
    assert entry.mh == detail_hash(kept.salt, "reason", "ref", '{"a":1}')
    assert entry.at == "2026-10-31T23:59:59.123456789Z"
    for secret in ("reason", "ref", kept.salt.hex()):
        assert secret not in row.entry.replace('"rec"', "")


# --- References ------------------------------------------------------------------------------------------------------


def test_a_reference_is_recorded_once_wherever_it_comes_back(shop: Shop) -> None:
    one = Delta("cust_a", "5", "usage", reference_id="r1", metadata='{"x":1}')
    first, same = shop.record_many([one, one])
    (later,) = shop.record_many([one])
    shop.clock.advance(days=12)  # December
    turned, fresh = shop.record_many([one, Delta("cust_a", "5", "usage", reference_id="r2")])
    shop.checkpoint()
    shop.close()
    shop.checkpoint()
    (closed,) = shop.record_many([one])
    for replay in (same, later, turned, closed):
        assert isinstance(replay, Accepted)
        assert replay.replayed
        assert (replay.record_id, replay.receipt_id, replay.created_at, replay.sequence) == (
            first.record_id,
            first.receipt_id,
            first.created_at,
            1,
        )
    assert (first.replayed, fresh.replayed, fresh.sequence) == (False, False, 2)
    assert [row.qty for row in check_sound(shop, "cust_a")] == ["5", "5"]


OTHER_CONTENT: tuple[dict[str, Any], ...] = (
    {"amount": "6"},
    {"reason": "other"},
    {"metadata": '{"x":2}'},
    {"metadata": None},
    {"occurred_at": "2026-11-01T00:00:00Z"},
    {"adjusts_reference": "r0"},
)


def test_a_reference_with_other_content_is_a_conflict(shop: Shop) -> None:
    base: dict[str, Any] = {"customer_id": "cust_a", "amount": "5", "reason": "usage", "metadata": '{"x":1}'}
    shop.record_many([Delta("cust_a", "1", "usage", reference_id="r0")])
    shop.record_many([Delta(**base, reference_id="r1")])
    for number, change in enumerate(OTHER_CONTENT):
        before = rows_in(shop)
        (result,) = shop.record_many([Delta(**base | change, reference_id="r1")])
        assert isinstance(result, Rejected), change
        assert (result.code, result.field) == ("REFERENCE_CONFLICT", "referenceId")
        assert rows_in(shop) == before
        twice = f"twice-{number}"
        within = shop.record_many([Delta(**base, reference_id=twice), Delta(**base | change, reference_id=twice)])
        assert [type(one) for one in within] == [Accepted, Rejected], change


def test_a_reference_belongs_to_its_customer_and_plane(shop: Shop) -> None:
    (one,) = shop.record("cust_a", "5", reference_id="r1")
    (two,) = shop.record("cust_b", "7", reference_id="r1")
    twin = record_deltas(
        shop.db, shop.keys, shop.clock, shop.test_scope, [Delta("cust_a", "9", "u", reference_id="r1")]
    )
    assert len({result.record_id for result in (one, two, *twin)}) == 3


# --- Adjustments -----------------------------------------------------------------------------------------------------


def test_adjusting_names_a_record_of_the_same_customer(shop: Shop) -> None:
    (first,) = shop.record("cust_a", "5", reference_id="r1")
    shop.record("cust_b", "5", reference_id="rb")
    by_record, by_reference, in_batch, after = shop.record_many(
        [
            Delta("cust_a", "-1", "fix", adjusts_record=first.record_id),
            Delta("cust_a", "-1", "fix", adjusts_reference="r1"),
            Delta("cust_a", "2", "usage", reference_id="r2"),
            Delta("cust_a", "-2", "fix", adjusts_reference="r2"),
        ]
    )
    rows = check_sound(shop, "cust_a")
    assert [row.adjusts for row in rows] == [None, first.record_id, first.record_id, None, in_batch.record_id]
    assert {by_record.sequence, by_reference.sequence, after.sequence} == {2, 3, 5}
    for fields in (
        {"adjusts_record": "rec_unknown"},
        {"adjusts_reference": "unknown"},
        {"adjusts_reference": "rb"},
    ):
        (refused,) = shop.record_many([Delta("cust_a", "-1", "fix", **fields)])
        assert refused == Rejected("ADJUSTS_NOT_FOUND", "no delta of this customer matches `adjusts`.", "adjusts")
    (foreign,) = shop.record_many([Delta("cust_b", "-1", "fix", adjusts_record=first.record_id)])
    assert isinstance(foreign, Rejected)
    assert len(check_sound(shop, "cust_b")) == 1


@pytest.mark.parametrize("kind", ["adjusts_record", "adjusts_reference"])
def test_rejected_deltas_write_nothing_at_all(shop: Shop, kind: str) -> None:
    before = rows_in(shop)
    rejected = Delta("nobody", "1", "fix", **{kind: "rec_x"})
    assert isinstance(shop.record_many([rejected])[0], Rejected)
    assert rows_in(shop) == before
    results = shop.record_many([rejected, Delta("cust_a", "1", "usage"), rejected])
    assert [type(one) for one in results] == [Rejected, Accepted, Rejected]
    after = rows_in(shop)
    assert (after["customer"], after["link"], after["period_tree"], after["next_slot"]) == (1, 1, 1, 1)


def test_a_replay_alone_begins_no_period(shop: Shop) -> None:
    old = Delta("cust_a", "1", "usage", reference_id="r")
    shop.record_many([old])
    shop.clock.advance(days=12)
    results = shop.record_many([old, Delta("cust_b", "1", "usage"), Delta("cust_a", "2", "usage", reference_id="r")])
    assert [type(one) for one in results] == [Accepted, Accepted, Rejected]
    assert [tree.period for tree in trees_of(shop, "cust_a")] == ["2026-11"]
    assert [tree.period for tree in trees_of(shop, "cust_b")] == ["2026-12"]


# --- Time ------------------------------------------------------------------------------------------------------------


def test_recorded_time_never_goes_back_when_the_clock_does(shop: Shop) -> None:
    (one,) = shop.record("cust_a", "1")
    shop.clock.advance(hours=-3)
    (two,) = shop.record("cust_a", "1")
    shop.clock.advance(days=-30)  # a month before
    (three,) = shop.record("cust_a", "1")
    assert one.created_at == two.created_at == three.created_at
    shop.clock.advance(days=31)
    (four,) = shop.record("cust_a", "1")
    assert four.created_at > one.created_at
    assert len(check_sound(shop, "cust_a")) == 4
    assert [tree.period for tree in trees_of(shop, "cust_a")] == ["2026-11"]


class TurningClock(SteppedClock):
    """A clock on which the month turns while the first transaction waits for its locks."""

    def now(self) -> datetime:
        moment = super().now()
        self.set(datetime(2026, 12, 1, 0, 0, 0, 5000, UTC))
        return moment


@pytest.mark.parametrize("known", [False, True], ids=["new customer", "known customer"])
def test_a_delta_is_in_the_month_of_its_recorded_time(shop: Shop, known: bool) -> None:
    shop.clock.set(datetime(2026, 11, 30, 23, 59, 0, tzinfo=UTC))
    if known:
        shop.record("cust_a", "1")
    turning = TurningClock(datetime(2026, 11, 30, 23, 59, 59, 999_000, UTC))
    (made,) = record_deltas(shop.db, shop.keys, turning, shop.scope, [Delta("cust_a", "2", "usage")])
    (tree,) = [tree for tree in trees_of(shop, "cust_a") if tree.last_leaf.hex() == made.receipt_id[2:]]
    assert tree.period == period_of(made.created_at) == "2026-12"
    check_sound(shop, "cust_a")


def test_the_unit_of_a_period_is_frozen_and_the_next_one_takes_the_new(shop: Shop) -> None:
    shop.record("cust_a", "1")
    with shop.db.write(shop.scope) as connection:
        connection.execute(tenant.update().where(tenant.c.tenant_id == shop.scope.plane).values(unit="GB"))
    shop.record("cust_a", "1")
    shop.clock.advance(days=12)
    shop.record("cust_a", "1")
    assert [(tree.unit, tree.size, tree.base) for tree in trees_of(shop, "cust_a")] == [
        ("API credits", 2, 0),
        ("GB", 1, 2),
    ]
    check_sound(shop, "cust_a")


# --- All or nothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["_write", "_count_days", "_load_references"])
def test_a_transaction_that_fails_leaves_nothing(shop: Shop, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.record("cust_a", "1")
    before = rows_in(shop)

    def fail(*_args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(intake._Intake, step, fail)
        with pytest.raises(MemoryError):
            shop.record_many([Delta("cust_a", "1", "u", reference_id="r"), Delta("cust_b", "1", "u")])
    assert rows_in(shop) == before
    assert shop.record("cust_a", "1", reference_id="r")[0].sequence == 2
    check_sound(shop, "cust_a")


# --- Many at once ----------------------------------------------------------------------------------------------------


def together(shop: Shop, batches: Sequence[Sequence[Delta]], threads: int) -> list[list[Accepted | Rejected]]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(shop.record_many, batches))


def test_eight_threads_lose_nothing_and_leave_no_gap(shop: Shop) -> None:
    batches = [
        [
            Delta(f"cust_{(number * 7 + place) % 5}", canonical(Decimal(number - 40) / 8 or Decimal(1)), "usage")
            for place in range(number % 3 + 1)
        ]
        for number in range(96)
    ]
    results = together(shop, batches, 8)
    answered: dict[str, set[str]] = {}
    sent: dict[str, list[str]] = {}
    for delta, result in zip(chain(*batches), chain(*results), strict=True):
        assert isinstance(result, Accepted)
        answered.setdefault(delta.customer_id, set()).add(result.record_id)
        sent.setdefault(delta.customer_id, []).append(delta.amount)
    assert shop_count(shop, customer) == shop_count(shop, link) == next_slot(shop) == 5
    for name, ids in answered.items():
        rows = check_sound(shop, name)
        assert {row.record_id for row in rows} == ids
        assert sorted(row.qty for row in rows) == sorted(sent[name])


def test_a_request_retried_by_sixteen_threads_is_recorded_once(shop: Shop) -> None:
    batch = [Delta(f"cust_{i % 2}", "1.5", "usage", reference_id=f"r{i}") for i in range(4)]
    results = together(shop, [batch if i % 2 else batch[::-1] for i in range(16)], 16)
    for i, delta in enumerate(batch):
        same = [result[i if turn % 2 else 3 - i] for turn, result in enumerate(results)]
        assert len({(one.record_id, one.receipt_id, one.sequence, one.created_at) for one in same}) == 1, delta
        assert sum(not one.replayed for one in same) == 1
    assert [len(check_sound(shop, name)) for name in ("cust_0", "cust_1")] == [2, 2]


def test_new_customers_and_new_months_in_any_order_do_not_lock_each_other_out(
    db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Any
) -> None:
    shop = open_shop(db, keys, clock, tmp_path)
    shop.record_many([Delta(f"old_{i}", "1", "u") for i in range(6)])
    clock.advance(days=12)
    batches = [
        [Delta(f"old_{(i + place * 5) % 6}", "1", "u") for place in range(3)]
        + [Delta(f"new_{i % 9}", "1", "u")] * (i % 2)
        for i in range(48)
    ]
    results = together(shop, batches, 8)
    assert all(isinstance(one, Accepted) for result in results for one in result)
    for name in {delta.customer_id for batch in batches for delta in batch}:
        extra = 1 if name.startswith("old") else 0
        assert len(check_sound(shop, name)) == sum(d.customer_id == name for batch in batches for d in batch) + extra


def test_publishing_goes_on_beside_intake(shop: Shop) -> None:
    names = [f"cust_{i}" for i in range(6)]
    shop.record_many([Delta(name, "1", "u") for name in names])
    batches = [[Delta(name, "1", "u") for name in (names if i % 2 else names[::-1])] for i in range(30)]
    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(lambda part: [shop.record_many(b) for b in part], batches[i::4]) for i in range(4)]
        sizes = [shop.checkpoint() for _ in range(6)]
        assert all(isinstance(one, Accepted) for w in writers for result in w.result() for one in result)
    assert sizes == list(range(1, 7))
    shop.checkpoint()
    for name in names:
        assert len(check_sound(shop, name)) == prove(shop, name).size == 31


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_deadlocks_are_tried_again(
    db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two customers locked in opposite orders: PostgreSQL ends one transaction, and its request goes on."""
    shop = open_shop(db, keys, clock, tmp_path)
    both = [Delta("cust_a", "1", "u"), Delta("cust_b", "1", "u")]
    shop.record_many(both)
    barrier, turns = Barrier(2), count()
    lock = intake._Intake._locked

    def crosswise(self: Any, wanted: list[Any]) -> Any:
        turn = next(turns)
        if turn < 2:
            lock(self, [sorted(wanted)[turn]])
            barrier.wait(10)
        return lock(self, wanted)

    monkeypatch.setattr(intake._Intake, "_locked", crosswise)
    results = together(shop, [both, both], 2)
    assert all(isinstance(one, Accepted) for result in results for one in result)
    assert next(turns) > 2
    assert [len(check_sound(shop, name)) for name in ("cust_a", "cust_b")] == [3, 3]


def test_time_between_requests_is_kept(shop: Shop) -> None:
    moments = []
    for _ in range(3):
        shop.clock.advance(days=1, milliseconds=1)
        moments.append(shop.record("cust_a", "1")[0].created_at)
    assert [b - a for a, b in pairwise(moments)] == [timedelta(days=1, milliseconds=1)] * 2
    check_sound(shop, "cust_a")
