"""Counted views: in memory first, one row per customer, tier and hour, and nothing lost while the database is away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from shared_record.access import audit, views
from shared_record.access.views import INNER, OUTER, ViewCounts
from shared_record.db.schema import view_count
from world import Shop


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


@pytest.fixture
def counts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> ViewCounts:
    monkeypatch.setattr(ViewCounts, "_start", lambda self: None)  # written when a test says so
    return ViewCounts(shop.db, shop.clock)


def stored(shop: Shop) -> list[tuple[Any, ...]]:
    query = select(view_count.c.hour, view_count.c.tier, view_count.c.views)
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(query.where(view_count.c.tenant_id == shop.scope.plane)).all()
    return sorted((row.hour.isoformat(), row.tier, row.views) for row in rows)


def test_one_row_per_customer_tier_and_hour(shop: Shop, counts: ViewCounts) -> None:
    a, b = shop.link("cust_a").customer_id, shop.link("cust_b").customer_id
    for _ in range(3):
        counts.count(shop.scope, a, OUTER)
    counts.count(shop.scope, a, INNER)
    counts.count(shop.scope, b, OUTER)
    shop.clock.advance(hours=1)
    counts.count(shop.scope, a, OUTER)
    assert stored(shop) == []  # a page that is looked at writes nothing
    assert (counts.flush(), counts.flush()) == (4, 0)
    at = ["2026-11-22T12:00:00+00:00", "2026-11-22T13:00:00+00:00"]
    assert stored(shop) == [(at[0], INNER, 1), (at[0], OUTER, 1), (at[0], OUTER, 3), (at[1], OUTER, 1)]
    counts.count(shop.scope, a, OUTER)
    counts.flush()
    with shop.db.read(shop.scope) as connection:
        found = views.list_views(connection, shop.scope, a, 10)
    assert [(one.hour.hour, one.tier, one.views) for one in found] == [(13, OUTER, 2), (12, INNER, 1), (12, OUTER, 3)]


def test_processes_that_write_at_once_lose_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ViewCounts, "_start", lambda self: None)
    who = [shop.link(name).customer_id for name in ("cust_a", "cust_b")]
    several = [ViewCounts(shop.db, shop.clock) for _ in range(6)]
    barrier = threading.Barrier(len(several))

    def work(one: ViewCounts) -> None:
        for _ in range(5):
            for customer_id in who:
                one.count(shop.scope, customer_id, OUTER)
            barrier.wait(10)
            one.flush()

    with ThreadPoolExecutor(len(several)) as pool:
        list(pool.map(work, several))
    assert [row[2] for row in stored(shop)] == [30, 30]


def test_what_cannot_be_written_now_is_written_later(shop: Shop, counts: ViewCounts) -> None:
    who = shop.link("cust_a").customer_id

    def broken(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("gone"))

    counts.count(shop.scope, who, OUTER)
    counts.download(shop.scope, who, {"period": "2026-11", "format": "csv"})
    event.listen(shop.db.engine, "before_cursor_execute", broken)
    assert counts.flush() == 0
    counts.count(shop.scope, who, OUTER)
    event.remove(shop.db.engine, "before_cursor_execute", broken)
    assert counts.flush() == 2
    assert [row[2] for row in stored(shop)] == [2]
    with shop.db.read(shop.scope) as connection:
        events = audit.of_customer(connection, shop.scope, who, ["export.delivered"], 10)
    assert [one.detail for one in events] == [{"period": "2026-11", "format": "csv"}]


def test_memory_is_bounded_while_nothing_can_be_written(
    shop: Shop, counts: ViewCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MOST", 2)
    who = shop.link("cust_a").customer_id
    for _ in range(5):
        counts.count(shop.scope, who, OUTER)
        counts.download(shop.scope, who, {})
        shop.clock.advance(hours=1)
    assert counts.flush() == 4


def test_the_thread_writes_without_being_asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "FLUSH_SECONDS", 0.01)
    counts = ViewCounts(shop.db, shop.clock)
    counts.count(shop.scope, shop.link("cust_a").customer_id, OUTER)
    pause = threading.Event()
    while not stored(shop):
        pause.wait(0.01)
    assert [row[2] for row in stored(shop)] == [1]


def test_counts_are_kept_for_400_days(shop: Shop, counts: ViewCounts) -> None:
    counts.count(shop.scope, shop.link("cust_a").customer_id, OUTER)
    counts.flush()
    shop.clock.advance(days=399)
    assert views.sweep(shop.db, shop.clock, shop.scope) == 0
    shop.clock.advance(days=2)
    assert views.sweep(shop.db, shop.clock, shop.scope) == 1
