"""Breakdowns: what intake counts by keys of metadata agrees with the deltas themselves, whatever comes and goes."""

from __future__ import annotations

import json
import random
from datetime import timedelta

import pytest
from sqlalchemy import event, func, select

from shared_record.db.schema import breakdown
from shared_record.ledger import breakdowns
from shared_record.ledger.amounts import Total
from shared_record.ledger.breakdowns import OTHER, Part, read_breakdowns, values_of
from shared_record.ledger.entry import canonical_metadata
from shared_record.ledger.erasure import erase_customer, erase_details, purge_details
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.records import Filter, Page, Period, list_periods, search
from shared_record.tenancy.tenants import update_tenant
from world import Shop


def declare(shop: Shop, *keys: str) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"breakdowns": keys})


def delta(amount: str, customer: str = "cust_a", **metadata: object) -> Delta:
    return Delta(customer, amount, "usage", metadata=canonical_metadata(metadata) if metadata else None)


def periods_of(shop: Shop, customer: str = "cust_a") -> list[Period]:
    with shop.db.read(shop.scope) as connection:
        return list_periods(connection, shop.scope, shop.link(customer).customer_id)


def read(shop: Shop, customer: str = "cust_a", place: int = 0) -> list[breakdowns.Breakdown]:
    found = periods_of(shop, customer)[place]
    with shop.db.read(shop.scope) as connection:
        return read_breakdowns(connection, shop.scope, found.tree_id, found.breakdowns, found.size, found.total)


def find(shop: Shop, key: str, value: str, **more: object) -> Page:
    found = periods_of(shop)
    wanted = Filter(period=found[0].period, dimension=(key, value), **more)  # type: ignore[arg-type]
    with shop.db.read(shop.scope, snapshot=True) as connection:
        return search(connection, shop.scope, found, wanted, most=3)


VALUES = [
    ('{"m":"a"}', {"m": "a"}),
    ('{"m":"","r":"x"}', {"r": "x"}),
    ('{"m":12.5,"r":true}', {"m": "12.5", "r": "true"}),
    ('{"m":1e21}', {"m": "1e21"}),
    ('{"m":null,"r":["x"]}', {}),
    ('{"m":{"m":"x"}}', {}),
    (json.dumps({"m": "x" * 128, "r": "x" * 129}), {"m": "x" * 128}),
    (json.dumps({"m": "a\x00b", "r": "a\nb"}), {}),
    (None, {}),
]


@pytest.mark.parametrize(("metadata", "expected"), VALUES)
def test_a_value_is_a_short_text_a_number_or_a_truth_value(metadata: str | None, expected: dict[str, str]) -> None:
    assert values_of(metadata, ("m", "r")) == expected


def test_values_are_counted_with_exact_sums_largest_first(shop: Shop) -> None:
    declare(shop, "model", "region")
    small = "0.000000000000000000000001"
    shop.record_many([delta("99999999999999999999", model="big"), delta(small, model="big", region="eu")])
    shop.record_many([delta("-3", model="small"), delta("2.5"), delta("7", model=4)])
    model, region = read(shop)
    assert model.parts == (
        Part("big", 2, f"99999999999999999999.{small[2:]}"),
        Part("4", 1, "7"),
        Part("small", 1, "-3"),
    )
    assert (model.other, model.without) == (Part("", 0, "0"), Part("", 1, "2.5"))
    assert (region.parts, region.without.count) == ((Part("eu", 1, small),), 4)


@pytest.mark.parametrize("seed", range(3))
def test_later_values_than_the_most_are_counted_together(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(breakdowns, "MAX_VALUES", 4)
    declare(shop, "model")
    chance, expected, records = random.Random(seed), {}, []

    def expect(value: str | None, amount: str, by: int) -> None:
        named = [one for one in expected if one not in (OTHER, None)]
        room = value in expected or (len(named) < 4 and OTHER not in expected)
        count, total = expected.setdefault(value if value is None or room else OTHER, [0, Total()])
        total.add(amount)
        expected[value if value is None or room else OTHER][0] = count + by

    for _ in range(6):
        batch = []
        for _ in range(chance.randrange(1, 6)):
            value, amount = chance.choice([None, *"abcdefgh"]), str(chance.randrange(1, 99))
            batch.append(delta(amount, **({"model": value} if value else {})))
            expect(value, amount, 1)
        records += shop.record_many(batch)
    (found,) = read(shop)
    counted = {part.value: (part.count, part.total) for part in found.parts}
    assert counted == {
        value: (count, total.text) for value, (count, total) in expected.items() if value not in (OTHER, None)
    }
    for key, part in ((OTHER, found.other), (None, found.without)):
        count, total = expected.get(key, [0, Total()])
        assert (part.count, part.total) == (count, total.text)

    # Erased one by one, in any order, they leave nothing behind but deltas without a value.
    chance.shuffle(records)
    for number, record in enumerate(records):
        assert isinstance(record, Accepted)
        with shop.db.write(shop.scope) as connection:
            assert erase_details(connection, shop.clock, shop.scope, record.record_id, "test")
        (found,) = read(shop)
        assert sum(one.count for one in (*found.parts, found.other, found.without)) == len(records)
        assert found.without.count >= number + 1
    assert (found.parts, found.other.count) == ((), 0)
    assert found.without.total == periods_of(shop)[0].total


def test_keys_are_frozen_when_a_period_begins(shop: Shop) -> None:
    shop.record_many([delta("1", model="a")])
    declare(shop, "model")
    shop.record_many([delta("2", model="a")])
    assert read(shop) == []
    shop.clock.advance(days=10)
    shop.record_many([delta("4", model="a")])
    declare(shop)
    shop.record_many([delta("8", model="b")])
    assert [part.value for part in read(shop)[0].parts] == ["b", "a"]
    assert read(shop, place=1) == []


def test_a_batch_takes_the_same_statements_as_one_delta_and_none_without_keys(shop: Shop) -> None:
    said: list[str] = []
    event.listen(
        shop.db.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: said.append(statement) if "breakdown " in f"{statement} " else None,
    )

    def statements(count: int, first: int) -> int:
        said.clear()
        shop.record_many(
            [delta("1", "cust_b" if n % 2 else "cust_a", model=f"m{n}") for n in range(first, first + count)]
        )
        return len([one for one in said if " breakdown " in one.replace("(", " (").replace("\n", " ")])

    assert statements(5, 0) == 0
    declare(shop, "model")
    shop.clock.advance(days=10)
    shop.record_many([delta("1"), delta("1", "cust_b")])
    few = statements(2, 0)
    assert (few, statements(90, 2)) == (3, 3)  # look up, count, insert
    assert statements(90, 2) == 2  # look up, update


def test_the_filter_finds_what_is_counted(shop: Shop) -> None:
    declare(shop, "model")
    shop.record_many([delta(str(n), model="a%" if n % 2 else "b", note={"model": "a%"}) for n in range(1, 11)])
    shop.record_many([delta("100", model=5), delta("200", model="5"), delta("300", note='"model":5')])
    (found,) = read(shop)
    for part in found.parts:
        page = find(shop, "model", part.value)
        assert (page.count, page.total) == (part.count, part.total)
        assert all(values_of(row.metadata, ("model",)) == {"model": part.value} for row in page.records)
        assert len(page.records) == min(3, part.count)
        by_rows = find(shop, "model", part.value, since=shop.clock.now() - timedelta(days=30))
        assert (by_rows.count, by_rows.total) == (part.count, part.total)
    assert find(shop, "model", "a").count == 0
    assert find(shop, "note", "x").count == 0


def test_pages_of_a_filter_follow_each_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_record.ledger.records._AT_ONCE", 2)
    shop.record_many([delta(str(n), model="a" if n % 3 == 0 else "b", nested={"model": "a"}) for n in range(1, 31)])
    found, after, seen = periods_of(shop), None, []
    wanted = Filter(period=found[0].period, dimension=("model", "a"))
    while True:
        with shop.db.read(shop.scope, snapshot=True) as connection:
            page = search(connection, shop.scope, found, wanted, most=3, after=after)
        assert (page.count, page.total) == (10, "165")
        seen += [row.seq for row in page.records]
        if page.older is None:
            break
        period, _, seq = page.older.partition(".")
        after = (period, int(seq))
    assert seen == list(range(30, 0, -3))
    with shop.db.read(shop.scope, snapshot=True) as connection:
        newer = search(connection, shop.scope, found, wanted, most=3, before=(period, 9))
    assert [row.seq for row in newer.records] == [18, 15, 12]


def test_erasing_a_customer_removes_the_values_and_retention_keeps_the_counts(shop: Shop) -> None:
    declare(shop, "model")
    shop.record_many([delta("1", model="a"), delta("2", "cust_b", model="b")])
    shop.clock.advance(days=8)
    purge_details(shop.db, shop.clock, shop.scope, shop.clock.now() - timedelta(days=7))
    assert read(shop)[0].parts == (Part("a", 1, "1"),)
    assert find(shop, "model", "a").count == 0  # nothing tells its deltas apart any more
    with shop.db.write(shop.scope) as connection:
        erase_customer(connection, shop.clock, shop.scope, "cust_a", "test")
        left = connection.execute(
            select(func.count(), func.min(breakdown.c.value)).where(breakdown.c.tenant_id == shop.scope.plane)
        ).one()
    assert tuple(left) == (1, "b")
