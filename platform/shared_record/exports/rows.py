"""The rows of one period as export formats get them: ready texts, or ready lines of CSV, streamed, page by page.

A page is one statement, so none runs long, whoever reads slowly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import cache
from itertools import chain, cycle, islice, repeat
from operator import add
from typing import Any

from sqlalchemy import Connection, Select, String, bindparam, case, func, literal, select, true
from sqlalchemy.sql import ColumnElement

from shared_record.db.copied import csv_cell, hex_text, instant_text, stream, streaming
from shared_record.db.plain import Row
from shared_record.db.schema import delta_detail, leaf
from shared_record.db.scope import Scope
from shared_record.db.types import Amount, amount_text
from shared_record.ledger.records import Period, Record
from shared_record.plugin import FREE_TEXTS, CsvBlock, CsvRows, ExportRow, csv_blocks, utc_text

PAGE = 20_000
BLOCK = 1_000
"""Rows whose lines PostgreSQL sends as one."""

_SEQ, _TEXT = leaf.c.seq.type, leaf.c.record_id.type
_AFTER, _UPTO = bindparam("after", type_=_SEQ), bindparam("upto", type_=_SEQ)
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "seq": leaf.c.seq,
    "record_id": leaf.c.record_id,
    "receipt_id": literal("0x").concat(hex_text(leaf.c.hash)),
    "recorded": instant_text(leaf.c.rx),
    "used_at": leaf.c.at,
    "amount": leaf.c.qty,
    "running_total": leaf.c.total,
    "unit": bindparam("unit", type_=_TEXT),
    "state": case(
        (leaf.c.seq <= bindparam("psize", type_=_SEQ), "verified"),
        (leaf.c.seq <= bindparam("vsize", type_=_SEQ), "recorded"),
        else_="recording",
    ),
    "adjusts": leaf.c.adjusts,
    "reference": delta_detail.c.reference,
    "reason": delta_detail.c.reason,
    "metadata_json": delta_detail.c.metadata,
    "detail_salt": hex_text(delta_detail.c.salt),
    "entry": func.coalesce(leaf.c.entry, ""),
}
"""Each field of ``ExportRow``, in order."""
_LEFT_OUT: tuple[str | None, ...] = (None, None, "")
"""What stands in the last fields of a row for a format that is ``lean``."""


class PeriodRows(CsvRows, Iterable[ExportRow]):
    """Every delta of a period in order, to be read once: row by row, or as lines of CSV.

    ``lean``: without metadata, detail salt and entry. ``beside`` opens another transaction that sees the same state, by
    which PostgreSQL makes one page while another is read. ``progress`` is told after each page how many there were.
    """

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        period: Period,
        *,
        lean: bool = False,
        beside: Callable[[], AbstractContextManager[Connection]] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._connection, self._lean, self._beside, self._progress = connection, lean, beside, progress
        self._size, self._open = period.size, ExitStack()
        self._fixed = {
            "t": scope.plane,
            "tree": period.tree_id,
            "unit": period.unit,
            "psize": period.psize,
            "vsize": period.vsize,
        }

    def close(self) -> None:
        """End what is not read to its end, as must be done before the transaction ends."""
        self._open.close()

    def __iter__(self) -> Iterator[ExportRow]:
        return self._open.enter_context(closing(self._rows()))

    def _rows(self) -> Generator[ExportRow]:
        query = _rows_query(lean=self._lean)
        for page in self._pages():
            rows = stream(self._connection, query, page)
            yield from map(ExportRow._make, map(add, rows, repeat(_LEFT_OUT)) if self._lean else rows)

    def csv_blocks(self, fields: Sequence[str]) -> Iterator[CsvBlock]:
        """Yield the lines that ``plugin.csv_blocks`` makes of these rows, from PostgreSQL as it writes them itself.

        ``ValueError`` where a field is one that a lean format does without.
        """
        if self._lean and not set(fields).isdisjoint(ExportRow._fields[-len(_LEFT_OUT) :]):
            raise ValueError("a format that is lean reads neither metadata nor detail salt nor entry")
        if self._connection.dialect.name != "postgresql":
            return csv_blocks(iter(self), fields)
        made = self._open.enter_context(closing(self._made_ahead(_lines_query(tuple(fields)))))
        return (
            CsvBlock(f"{lines}\r\n".encode(), amounts.split(","), first_id, last_id)
            for lines, amounts, first_id, last_id in made
        )

    def _made_ahead(self, query: Select[Any]) -> Generator[Row]:
        """Yield the rows of page after page. Two connections take turns, each with a page begun while one is read."""
        with ExitStack() as stack:
            connections = [self._connection]
            if self._beside is not None and self._size > PAGE:
                connections.append(stack.enter_context(self._beside()))
                stack.enter_context(streaming(connections[-1]))
            begun: deque[Iterator[Row]] = deque()
            for page, connection in zip(self._pages(), cycle(connections), strict=False):
                rows = stream(connection, query, page)
                stack.callback(rows.close)  # a page that is left early ends before its transaction does
                begun.append(chain(list(islice(rows, 1)), rows))
                if len(begun) == len(connections):
                    yield from begun.popleft()
            while begun:
                yield from begun.popleft()

    def _pages(self) -> Iterator[Mapping[str, Any]]:
        for after in range(0, self._size, PAGE):
            upto = min(after + PAGE, self._size)
            yield self._fixed | {"after": after, "upto": upto}
            if self._progress is not None:
                self._progress(upto)


def row_of(record: Record) -> ExportRow:
    """Return a delta that a page shows as export formats get it."""
    return ExportRow(
        seq=record.seq,
        record_id=record.record_id,
        receipt_id=record.receipt_id,
        recorded=utc_text(record.recorded_at),
        used_at=record.occurred_at,
        amount=record.amount,
        running_total=record.running_total,
        unit=record.period.unit,
        state=record.state,
        adjusts=record.adjusts,
        reference=record.reference_id,
        reason=record.reason,
        metadata_json=record.metadata,
        detail_salt=record.salt.hex() if record.salt else None,
        entry=record.entry or "",
    )


@cache
def _rows_query(*, lean: bool) -> Select[Any]:
    if tuple(_COLUMNS) != ExportRow._fields:
        raise TypeError("the columns are not the fields of a row")
    named = [column.label(name) for name, column in _COLUMNS.items()]
    if lean:
        named = named[: -len(_LEFT_OUT)]
    return _select(named, _AFTER, _UPTO).order_by(leaf.c.seq)


@cache
def _lines_query(fields: tuple[str, ...]) -> Select[Any]:
    """Select a page as blocks: their lines, their amounts, and the ids of their first and last row.

    Each block is an aggregate of its own over a range of the primary keys, so nothing is sorted, and the first one is
    sent while the next is made.
    """
    starts = select(func.generate_series(_AFTER, _UPTO - 1, literal(BLOCK), type_=_SEQ).label("start"))
    start = starts.order_by("start").subquery("block").c.start
    end = func.least(start + BLOCK, _UPTO, type_=_SEQ)
    line = func.concat_ws(",", *(_csv_cell_of(name) for name in fields))
    texts = [_joined(line, "\r\n").label("lines"), _joined(amount_text(leaf.c.qty), ",").label("amounts")]
    block = _select(texts, start, end).lateral("made")
    return (
        select(block, _record_id_at(start + 1).label("first_id"), _record_id_at(end).label("last_id"))
        .select_from(start.table.join(block, true()))
        .where(block.c.lines.is_not(None))
        .order_by(start)
    )


def _record_id_at(seq: ColumnElement[int]) -> ColumnElement[str]:
    one = leaf.alias()
    of_period = one.c.tenant_id == bindparam("t"), one.c.tree_id == bindparam("tree")
    return select(one.c.record_id).where(*of_period, one.c.seq == seq).scalar_subquery()


def _csv_cell_of(field: str) -> ColumnElement[Any]:
    column = _COLUMNS[field]
    if field in FREE_TEXTS:
        return csv_cell(column)
    if isinstance(column.type, Amount):
        return amount_text(column)
    return func.coalesce(column, "") if isinstance(column.type, String) else column


def _joined(texts: ColumnElement[str], separator: str) -> Any:
    return func.string_agg(texts, separator, type_=_TEXT).aggregate_order_by(leaf.c.seq)


def _select(columns: Sequence[ColumnElement[Any]], after: ColumnElement[int], upto: ColumnElement[int]) -> Select[Any]:
    """Select of the deltas of one period after a place up to another, with their details."""
    # The range stands in the condition too: without it PostgreSQL reads all details of the period for each page.
    details = leaf.outerjoin(
        delta_detail,
        (delta_detail.c.tenant_id == leaf.c.tenant_id)
        & (delta_detail.c.tree_id == leaf.c.tree_id)
        & (delta_detail.c.seq == leaf.c.seq)
        & (delta_detail.c.seq > after)
        & (delta_detail.c.seq <= upto),
    )
    return (
        select(*columns)
        .select_from(details)
        .where(
            leaf.c.tenant_id == bindparam("t"),
            leaf.c.tree_id == bindparam("tree"),
            leaf.c.seq > after,
            leaf.c.seq <= upto,
        )
    )
