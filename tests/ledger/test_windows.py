"""Windows: their figures equal those counted row by row, whatever the window and however long the history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count, groupby
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

from shared_record.clock import period_bounds
from shared_record.db.schema import leaf, period_tree
from shared_record.ledger import merkle
from shared_record.ledger.amounts import canonical
from shared_record.ledger.intake import Delta
from shared_record.ledger.receipts import preview_receipt
from shared_record.ledger.windows import (
    Figures,
    Granularity,
    break_down,
    covered_at,
    find_gaps,
    find_place,
    list_active,
    list_sequences,
    measure,
    read_page,
)
from world import Shop

NAMES = count(1)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 59, 3_600, 86_400, 9 * 86_400, 40 * 86_400]),
        st.lists(st.sampled_from(["1", "-1", "0.1", "-2.75", "1000000000000.000000000001"]), min_size=1, max_size=4),
        st.sampled_from(["", "", "checkpoint", "close"]),
    ),
    min_size=1,
    max_size=6,
)


def build(shop: Shop, steps: list[tuple[int, list[str], str]]) -> str:
    """Record a history for a customer of its own; return its name."""
    name = f"c{next(NAMES)}"
    for seconds, amounts, then in steps:
        shop.clock.advance(seconds=seconds)
        shop.record(name, *amounts)
        if then == "close":
            shop.close()
        if then:
            shop.checkpoint()
    return name


def all_rows(shop: Shop, customer_id: UUID) -> list:
    """Return every delta of a customer with its period and how far that is covered, oldest first."""
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(leaf.c.rx, leaf.c.qty, leaf.c.seq, leaf.c.record_id, leaf.c.hash, period_tree.c.period)
            .add_columns(period_tree.c.psize)
            .join(
                period_tree, (period_tree.c.tenant_id == leaf.c.tenant_id) & (period_tree.c.tree_id == leaf.c.tree_id)
            )
            .where(
                leaf.c.tenant_id == shop.scope.plane,
                period_tree.c.tenant_id == shop.scope.plane,
                leaf.c.customer_id == customer_id,
            )
            .order_by(period_tree.c.period, leaf.c.seq)
        ).all()


def figures(rows: list) -> Figures:
    return Figures(len(rows), canonical(sum((Decimal(row.qty) for row in rows), Decimal(0))))


def covered(rows: list) -> list:
    return [row for row in rows if row.seq <= row.psize]


def name_of(row, granularity: Granularity) -> str:
    day = max(row.rx, period_bounds(row.period)[0]).date()
    if granularity is Granularity.WEEK:
        day -= timedelta(days=day.isoweekday() - 1)
    return day.isoformat()[:7] if granularity is Granularity.MONTH else day.isoformat()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, data=st.data())
def test_a_windows_figures_are_those_of_its_rows(shop: Shop, steps: list, data: st.DataObject) -> None:
    name = build(shop, steps)
    who = shop.link(name).customer_id
    rows = all_rows(shop, who)
    edges = sorted({row.rx for row in rows})
    near = st.sampled_from(edges).flatmap(
        lambda edge: st.sampled_from([-86_400_000, -1, 0, 1, 1_000, 40 * 86_400_000]).map(
            lambda shift: edge + timedelta(milliseconds=shift)
        )
    )
    for _ in range(4):
        start = data.draw(near)
        end = max(data.draw(near), start + timedelta(milliseconds=1))
        within = [row for row in rows if start <= row.rx < end]
        with shop.db.read(shop.scope, snapshot=True) as connection:
            window = measure(connection, shop.scope, who, start, end)
            assert (window.recorded, window.verified) == (figures(within), figures(covered(within)))
            assert window.opening == figures([row for row in rows if row.rx < start]).net
            assert window.closing == figures([row for row in rows if row.rx < end]).net
            assert (window.size, window.psize) == (len(rows), len(covered(rows)))
            for granularity in Granularity:
                groups = groupby(within, key=lambda row, by=granularity: name_of(row, by))
                expected = [(key, figures(part := list(group)), figures(covered(part))) for key, group in groups]
                found = break_down(connection, shop.scope, window, granularity)
                assert [(one.name, one.recorded, one.verified) for one in found] == expected
            offset, limit = data.draw(st.integers(0, len(rows))), data.draw(st.integers(1, 5))
            page = read_page(connection, shop.scope, window.parts, limit=limit, offset=offset)
            assert [one.record_id for one in page] == [row.record_id for row in within[offset : offset + limit]]
            times = covered_at(connection, shop.scope, page)
            assert set(times) == {row.record_id for row in covered(within[offset : offset + limit])}
            receipt = preview_receipt(connection, shop.clock, shop.scope, who, start, end)
            if within:
                assert receipt.proof_root == merkle.root(row.hash for row in within)
            else:
                assert receipt is None


def test_a_window_may_begin_after_a_delta_and_end_with_one(shop: Shop) -> None:
    name = build(shop, [(0, ["1", "2"], ""), (40 * 86_400, ["4", "8", "16"], "checkpoint")])
    other = shop.link(build(shop, [(0, ["1"], "")])).customer_id
    who = shop.link(name).customer_id
    rows = all_rows(shop, who)
    with shop.db.read(shop.scope, snapshot=True) as connection:
        second = find_place(connection, shop.scope, who, digest=rows[1].hash)
        fourth = find_place(connection, shop.scope, who, record_id=rows[3].record_id)
        assert measure(connection, shop.scope, who, second, None).verified == Figures(3, "28")
        between = measure(connection, shop.scope, who, second, fourth)
        assert (between.recorded, between.opening, between.closing) == (Figures(2, "12"), "3", "15")
        assert measure(connection, shop.scope, who, fourth, second).recorded == Figures()
        assert find_place(connection, shop.scope, who, record_id="rec_other") is None
        assert find_place(connection, shop.scope, other, digest=rows[1].hash) is None


def test_covered_at_names_the_first_checkpoint_of_each_delta(shop: Shop) -> None:
    moments = []
    for _ in range(12):
        shop.record("cust_a", "1", "2")
        shop.checkpoint()
        moments += [shop.clock.now()] * 2
    who = shop.link("cust_a").customer_id
    with shop.db.read(shop.scope, snapshot=True) as connection:
        window = measure(connection, shop.scope, who, *period_bounds("2026-11"))
        for offset in range(0, 24, 5):
            page = read_page(connection, shop.scope, window.parts, limit=7, offset=offset)
            times = covered_at(connection, shop.scope, page)
            assert [times[one.record_id] for one in page] == moments[offset : offset + 7]


@contextmanager
def counted_queries(shop: Shop) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection, _cursor, statement: str, *_rest) -> None:
        seen.append(statement)

    event.listen(shop.db.engine, "before_cursor_execute", note)
    yield seen
    event.remove(shop.db.engine, "before_cursor_execute", note)


def queries_of(shop: Shop, name: str, *, sorted_by: Granularity) -> int:
    who = shop.link(name).customer_id
    start = shop.clock.now() - timedelta(seconds=100, milliseconds=500)
    with shop.db.read(shop.scope, snapshot=True) as connection, counted_queries(shop) as seen:
        window = measure(connection, shop.scope, who, start, start + timedelta(seconds=50))
        break_down(connection, shop.scope, window, sorted_by)
        read_page(connection, shop.scope, window.parts, limit=10, offset=window.recorded.count // 2)
    assert window.recorded.count > 0
    return len(seen)


def test_a_longer_history_takes_at_most_a_few_more_queries(shop: Shop) -> None:
    shop.clock.set(datetime(2026, 11, 22, 12, tzinfo=UTC))
    for _ in range(40):
        shop.clock.advance(seconds=5)
        shop.record_many([Delta("short", "1", "usage")] + [Delta("long", "1", "usage")] * 60)
    short, long = (queries_of(shop, name, sorted_by=Granularity.DAY) for name in ("short", "long"))
    # Sixty times as many rows: one step more at each edge of the window.
    assert long <= short + 2
    assert long < 20


@pytest.mark.parametrize(
    ("ranges", "asked", "gaps"),
    [
        ([], (1, 0), []),
        ([], (1, 3), [(1, 3)]),
        ([(1, 5), (6, 9)], (1, 9), []),
        ([(1, 5), (6, 9)], (4, 12), [(10, 12)]),
        ([(1, 5), (8, 9)], (1, 9), [(6, 7)]),
        ([(3, 5), (8, 9), (20, 30)], (1, 25), [(1, 2), (6, 7), (10, 19)]),
        ([(3, 5), (20, 30)], (4, 10), [(6, 10)]),
        ([(20, 30)], (1, 10), [(1, 10)]),
        ([(1, 30)], (40, 50), [(40, 50)]),
    ],
)
def test_gaps_are_the_numbers_that_no_range_has(ranges: list, asked: tuple[int, int], gaps: list) -> None:
    assert find_gaps(ranges, *asked) == gaps


def test_sequences_go_on_over_periods(shop: Shop) -> None:
    name = build(shop, [(0, ["1", "2"], ""), (40 * 86_400, ["1"], "close"), (40 * 86_400, ["1", "2", "3"], "")])
    with shop.db.read(shop.scope) as connection:
        assert list_sequences(connection, shop.scope, shop.link(name).customer_id) == [(1, 2), (3, 3), (4, 6)]


def test_active_customers_are_those_with_a_period_in_the_window(shop: Shop) -> None:
    for name in ("b", "a", "d"):
        shop.record(name, "1")
    shop.clock.advance(days=10)
    shop.record("c", "1")
    with shop.db.read(shop.scope) as connection:
        month = period_bounds("2026-11")
        first = list_active(connection, shop.scope, *month, after="", most=2)
        assert [name for name, _ in first] == ["a", "b"]
        assert [name for name, _ in list_active(connection, shop.scope, *month, after="b", most=9)] == ["d"]
        both = list_active(connection, shop.scope, month[0], month[1] + timedelta(days=1), after="", most=9)
        assert [name for name, _ in both] == ["a", "b", "c", "d"]
