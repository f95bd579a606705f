"""Receipts: fixed when issued, the same while nothing is new, a later revision when something is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared_record.clock import period_bounds
from shared_record.ledger import merkle
from shared_record.ledger.receipts import (
    find_receipt,
    is_covered,
    issue_receipt,
    later_revision,
    list_receipts,
    proof_root,
    tree_reader,
)
from shared_record.ledger.records import find_period
from world import Shop

NOVEMBER = period_bounds("2026-11")


def issue(shop: Shop, customer: str, start: datetime = NOVEMBER[0], end: datetime = NOVEMBER[1]):
    with shop.db.write(shop.scope) as connection:
        return issue_receipt(connection, shop.clock, shop.scope, shop.link(customer).customer_id, start, end)


def test_the_same_window_is_the_same_receipt_until_something_is_new(shop: Shop) -> None:
    shop.record("cust_a", "1", "2.5")
    first = issue(shop, "cust_a")
    assert issue(shop, "cust_a") == first
    assert (first.size, first.opening, first.closing, first.net, first.revision) == (2, "0", "3.5", "3.5", 1)
    shop.record("cust_a", "-1")
    second = issue(shop, "cust_a")
    assert (second.size, second.net, second.revision) == (3, "2.5", 2)
    assert second.receipt_id != first.receipt_id
    with shop.db.read(shop.scope) as connection:
        assert find_receipt(connection, shop.scope, first.receipt_id) == first
        assert later_revision(connection, shop.scope, first) == second
        assert later_revision(connection, shop.scope, second) is None


def test_an_empty_window_has_no_receipt(shop: Shop) -> None:
    shop.record("cust_a", "1")
    assert issue(shop, "cust_a", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)) is None


def test_a_whole_periods_root_is_its_record_root(shop: Shop) -> None:
    shop.record("cust_a", *[str(n + 1) for n in range(300)])
    receipt = issue(shop, "cust_a")
    with shop.db.read(shop.scope) as connection:
        assert not is_covered(connection, shop.scope, receipt)
    shop.checkpoint()
    with shop.db.read(shop.scope) as connection:
        assert is_covered(connection, shop.scope, receipt)
        period = find_period(connection, shop.scope, receipt.customer_id, "2026-11")
        read = tree_reader(connection, shop.scope, period.tree_id)
        assert receipt.proof_root == period.proot == merkle.range_root(0, 300, read)
        assert proof_root(connection, shop.scope, receipt.spans) == period.proot


def test_a_window_over_a_month_turn_takes_both_periods_in_order(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.clock.advance(days=5)
    middle = shop.clock.now()
    shop.record("cust_a", "2")
    shop.clock.advance(days=5)  # December
    shop.record("cust_a", "4", "8")
    receipt = issue(shop, "cust_a", middle, middle + timedelta(days=30))
    assert [(one.period, one.first, one.last) for one in receipt.spans] == [("2026-11", 1, 2), ("2026-12", 0, 2)]
    assert (receipt.size, receipt.opening, receipt.closing, receipt.net) == (3, "1", "15", "14")


def test_closing_a_period_issues_its_receipt_once(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.clock.advance(days=10)
    shop.close()
    shop.checkpoint()
    shop.record("cust_a", "9")
    shop.checkpoint()
    with shop.db.read(shop.scope) as connection:
        (receipt,) = list_receipts(connection, shop.scope, shop.link("cust_a").customer_id)
        assert (receipt.start, receipt.end) == NOVEMBER
        assert is_covered(connection, shop.scope, receipt)
    assert issue(shop, "cust_a") == receipt
