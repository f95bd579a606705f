"""Lines of CSV that PostgreSQL writes are, byte for byte, those that Python writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, bindparam

from export_rows import HOSTILE_STARTS, HOSTILE_TEXTS
from shared_record.db.schema import delta_detail
from shared_record.exports import rows
from shared_record.exports.rows import PeriodRows
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.records import Period, find_period
from shared_record.plugin import CsvRows, ExportRow, Tally, csv_blocks
from world import Shop

AMOUNTS = ("0.000000000000000000000001", "-12345678901234567890", "100", "1", "7.5")
FIELDS = ExportRow._fields
NO_NUL = st.characters(exclude_categories=("Cs",), exclude_characters="\0")  # which PostgreSQL has no texts with
SPECIAL = HOSTILE_STARTS.replace("\0", "") + '""\',; aZ\\é漢\U0001f600\u200f\u202e\ufeff\x01\x7f'
TEXT = st.one_of(
    st.sampled_from([text for text in HOSTILE_TEXTS if "\0" not in text]),
    st.text(st.sampled_from(SPECIAL), max_size=6),
    st.text(NO_NUL),
)
DETAILS = st.tuples(TEXT, st.none() | TEXT, st.none() | TEXT)
"""Reason, reference and metadata."""
_OF_DELTA = (
    (delta_detail.c.tenant_id == bindparam("t"))
    & (delta_detail.c.tree_id == bindparam("tree"))
    & (delta_detail.c.seq == bindparam("of_seq"))
)
_SET = (
    delta_detail.update()
    .where(_OF_DELTA)
    .values(reason=bindparam("cell_1"), reference=bindparam("cell_2"), metadata=bindparam("cell_3"))
)
_ERASE = delta_detail.delete().where(_OF_DELTA)


@pytest.fixture
def recorded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Connection, Period]]:
    """A transaction that is not kept, and a period of six deltas in two pages, of two blocks and of one."""
    monkeypatch.setattr(rows, "PAGE", 4)
    monkeypatch.setattr(rows, "BLOCK", 3)
    rows._lines_query.cache_clear()
    first, *_ = shop.record("cust_a", *AMOUNTS)
    shop.checkpoint()
    late = Delta("cust_a", "2", "late", occurred_at="2026-11-22T11:59:59.5Z", adjusts_record=first.record_id)
    shop.record_many([late])
    with shop.db.write(shop.scope) as connection:
        found = find_period(connection, shop.scope, shop.link("cust_a").customer_id, "2026-11")
        assert found is not None
        yield connection, found
        connection.rollback()
    rows._lines_query.cache_clear()


def written(found: Any, fields: Sequence[str]) -> tuple[bytes, Tally]:
    """Return the lines of rows, and what was counted of them."""
    tally, lines = Tally(), []
    for block in csv_blocks(found, fields):
        lines.append(block.lines)
        tally.add_block(block)
    return b"".join(lines), tally


@given(st.lists(DETAILS, min_size=6, max_size=6), TEXT)
@example(
    [("", None, None), ("", "", ""), ('"', '""', "'"), ("=", '="', "＝"), (",", "\r\n", "\\"), ("é", "-", "\t")], "@"
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_x02_lines_are_the_same_bytes_whoever_writes_them(
    recorded: tuple[Connection, Period], shop: Shop, details: list[tuple[str | None, ...]], unit: str
) -> None:
    connection, period = recorded
    of_period = {"t": shop.scope.plane, "tree": period.tree_id}
    for seq, (reason, reference, metadata) in enumerate(details, start=1):
        cells = {"cell_1": reason, "cell_2": reference, "cell_3": metadata}
        connection.execute(_SET, of_period | {"of_seq": seq} | cells)
    own = PeriodRows(connection, shop.scope, replace(period, unit=unit))
    plain = list(own)
    assert [(row.reason, row.reference, row.metadata_json, row.unit) for row in plain] == [
        (*cells, unit) for cells in details
    ]
    assert isinstance(own, CsvRows)
    (ours, counted), (theirs, expected) = written(own, FIELDS), written(iter(plain), FIELDS)
    assert ours == theirs
    assert counted.summary == expected.summary


def test_details_that_were_removed_are_empty_cells(recorded: tuple[Connection, Period], shop: Shop) -> None:
    connection, period = recorded
    connection.execute(_ERASE, {"t": shop.scope.plane, "tree": period.tree_id, "of_seq": 4})
    own = PeriodRows(connection, shop.scope, period)
    fields = ("seq", "reason", "reference", "detail_salt", "state", "adjusts")
    lines, _ = written(own, fields)
    assert lines == written(list(own), fields)[0]
    assert lines.split(b"\r\n")[3] == b"4,,,,verified,"


def test_blocks_say_what_is_in_them(recorded: tuple[Connection, Period], shop: Shop) -> None:
    connection, period = recorded
    if not shop.db.is_postgresql:
        pytest.skip("on SQLite Python writes all lines, a thousand at a time")
    told: list[int] = []
    own = PeriodRows(connection, shop.scope, period, progress=told.append)
    ids = [row.record_id for row in own]
    blocks = list(own.csv_blocks(["record_id"]))
    assert [block.lines.decode().split() for block in blocks] == [ids[:3], ids[3:4], ids[4:]]
    assert [(block.first_id, block.last_id) for block in blocks] == [
        (ids[0], ids[2]),
        (ids[3], ids[3]),
        (ids[4], ids[5]),
    ]
    assert [tuple(block.amounts) for block in blocks] == [AMOUNTS[:3], AMOUNTS[3:4], (AMOUNTS[4], "2")]
    assert told == [4, 6, 4, 6]


def test_x07_pages_that_two_connections_read_in_turn_are_of_one_state(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shop.db.is_postgresql:
        pytest.skip("one connection reads all of SQLite")
    monkeypatch.setattr(rows, "PAGE", 4)
    accepted = [one.record_id for one in shop.record("cust_a", *["1"] * 30) if isinstance(one, Accepted)]
    with shop.db.read(shop.scope, snapshot=True) as connection:
        found = find_period(connection, shop.scope, shop.link("cust_a").customer_id, "2026-11")
        assert found is not None
        own = PeriodRows(connection, shop.scope, found, beside=partial(shop.db.read_beside, connection, shop.scope))
        blocks = own.csv_blocks(["record_id", "reason"])
        lines = next(blocks).lines
        with shop.db.write(shop.scope) as other:
            for seq in (13, 17, 30):  # on pages of both, which are not begun yet
                other.execute(_ERASE, {"t": shop.scope.plane, "tree": found.tree_id, "of_seq": seq})
        lines += b"".join(block.lines for block in blocks)
    assert lines.decode() == "".join(f'{one},"usage"\r\n' for one in accepted)


def read_one_block(shop: Shop) -> int:
    with shop.db.read(shop.scope, snapshot=True) as connection:
        found = find_period(connection, shop.scope, shop.link("cust_a").customer_id, "2026-11")
        assert found is not None
        beside = partial(shop.db.read_beside, connection, shop.scope)
        with closing(PeriodRows(connection, shop.scope, found, beside=beside)) as own:
            return len(next(own.csv_blocks(["seq"])).amounts)


def test_an_export_that_ends_early_leaves_all_connections_usable(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PAGE", 4)
    shop.record("cust_a", *["1"] * 30)
    assert {read_one_block(shop) for _ in range(20)} <= {4, 30}  # more often than the pool has connections
    assert len(shop.record("cust_a", "1")) == 1


def test_a_lean_format_gets_no_field_that_it_does_without(recorded: tuple[Connection, Period], shop: Shop) -> None:
    connection, period = recorded
    own = PeriodRows(connection, shop.scope, period, lean=True)
    with pytest.raises(ValueError, match="lean"):
        written(own, ("seq", "metadata_json"))
    assert written(own, ("seq",))[0] == b"1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n"


def test_x04_a_row_that_is_not_there_is_not_counted(recorded: tuple[Connection, Period], shop: Shop) -> None:
    connection, period = recorded
    _, tally = written(PeriodRows(connection, shop.scope, replace(period, size=20)), ("seq",))
    assert tally.rows == 6
