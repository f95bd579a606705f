"""The rows of one period as export formats get them: ready texts, streamed, page by page.

A page is one statement, so none runs long, whoever reads slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import repeat
from operator import add
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, func, literal, select
from sqlalchemy.sql import ColumnElement

from shared_record.db.copied import hex_text, instant_text, stream
from shared_record.db.schema import delta_detail, leaf
from shared_record.db.scope import Scope
from shared_record.ledger.records import Period, Record
from shared_record.plugin import ExportRow, utc_text

PAGE = 20_000

_AFTER, _UPTO = bindparam("after", type_=leaf.c.seq.type), bindparam("upto", type_=leaf.c.seq.type)
# The range stands in the condition too: without it PostgreSQL reads all details of the period for each page.
_DETAILS = leaf.outerjoin(
    delta_detail,
    (delta_detail.c.tenant_id == leaf.c.tenant_id)
    & (delta_detail.c.tree_id == leaf.c.tree_id)
    & (delta_detail.c.seq == leaf.c.seq)
    & (delta_detail.c.seq > _AFTER)
    & (delta_detail.c.seq <= _UPTO),
)
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "seq": leaf.c.seq,
    "record_id": leaf.c.record_id,
    "receipt_id": literal("0x").concat(hex_text(leaf.c.hash)),
    "recorded": instant_text(leaf.c.rx),
    "used_at": leaf.c.at,
    "amount": leaf.c.qty,
    "running_total": leaf.c.total,
    "unit": bindparam("unit", type_=leaf.c.record_id.type),
    "state": case(
        (leaf.c.seq <= bindparam("psize", type_=leaf.c.seq.type), "verified"),
        (leaf.c.seq <= bindparam("vsize", type_=leaf.c.seq.type), "recorded"),
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


def stream_rows(
    connection: Connection,
    scope: Scope,
    period: Period,
    *,
    lean: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ExportRow]:
    """Yield every delta of ``period`` in order; ``lean``: without metadata, detail salt and entry.

    ``progress`` is told after each page how many there were so far.
    """
    query = _query(lean=lean)
    fixed = {
        "t": scope.plane,
        "tree": period.tree_id,
        "unit": period.unit,
        "psize": period.psize,
        "vsize": period.vsize,
    }
    for after in range(0, period.size, PAGE):
        upto = min(after + PAGE, period.size)
        rows = stream(connection, query, fixed | {"after": after, "upto": upto})
        yield from map(ExportRow._make, map(add, rows, repeat(_LEFT_OUT)) if lean else rows)
        if progress is not None:
            progress(upto)


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
def _query(*, lean: bool) -> Select[Any]:
    if tuple(_COLUMNS) != ExportRow._fields:
        raise TypeError("the columns are not the fields of a row")
    named = [column.label(name) for name, column in _COLUMNS.items()]
    if lean:
        named = named[: -len(_LEFT_OUT)]
    return (
        select(*named)
        .select_from(_DETAILS)
        .where(
            leaf.c.tenant_id == bindparam("t"),
            leaf.c.tree_id == bindparam("tree"),
            leaf.c.seq > _AFTER,
            leaf.c.seq <= _UPTO,
        )
        .order_by(leaf.c.seq)
    )
