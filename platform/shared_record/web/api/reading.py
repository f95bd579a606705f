"""What the calls about windows have in common: whose, which deltas, as of when, and how rows are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import Connection

from shared_record.clock import rfc3339
from shared_record.db.scope import Scope
from shared_record.errors import Detail, NotFoundError
from shared_record.ledger.proofs import newest_checkpoint
from shared_record.ledger.receipts import end_of, find_receipt_by_root
from shared_record.ledger.records import Record, recorded_between
from shared_record.ledger.windows import Place, Window, covered_at, find_place, measure
from shared_record.tenancy.customers import find_customers
from shared_record.web.api.models import STATES
from shared_record.web.api.shapes import (
    CUSTOMER_ID,
    Answer,
    Count,
    ExactText,
    Hash,
    JsonNumber,
    Moment,
    RecordId,
    exact,
)
from shared_record.web.api.windows import Interval, Since, TimeScope, scope_data

MAX_ROWS = 1_000
Limit = Annotated[Count, Field(ge=1, le=MAX_ROWS)]

_CUSTOMER = re.compile(CUSTOMER_ID, re.ASCII)


class DeltaRow(Answer):
    """One delta of a window. ``receiptId`` and ``itemHash`` are one value, its leaf hash."""

    record_id: RecordId
    receipt_id: Hash
    item_hash: Hash
    delta: JsonNumber
    delta_exact: ExactText
    reason: str | None
    reference_id: str | None
    occurred_at: Moment | None
    adjusts: RecordId | None
    status: Literal["QUEUED", "PROCESSING", "VERIFIED"]
    created_at: Moment
    verified_at: Moment | None


def known_customer(connection: Connection, scope: Scope, external_id: str) -> UUID:
    """Return the internal id of a customer; ``NotFoundError`` (``CUSTOMER_NOT_FOUND``) for any other text."""
    # PostgreSQL refuses NUL in a parameter; an id that cannot exist need not be asked for.
    known = find_customers(connection, scope, [external_id]) if _CUSTOMER.fullmatch(external_id) else {}
    found = known.get(external_id)
    if found is None:
        raise NotFoundError("There is no such customer.", code="CUSTOMER_NOT_FOUND")
    return found.customer_id


def read_window(
    connection: Connection, scope: Scope, customer_id: UUID, wanted: TimeScope
) -> tuple[Window, dict[str, object]]:
    """Return the window that a call asks for, and how its answer states it.

    ``NotFoundError`` (``CHECKPOINT_NOT_FOUND``) where this customer has no such starting checkpoint.
    """
    if isinstance(wanted, Interval):
        return measure(connection, scope, customer_id, wanted.start, wanted.end), scope_data(wanted)
    start = _place(connection, scope, customer_id, wanted)
    stated: dict[str, object] = {"period": None, "startDate": rfc3339(start.recorded_at), "endDate": None}
    return measure(connection, scope, customer_id, start, None), stated


def _place(connection: Connection, scope: Scope, customer_id: UUID, wanted: Since) -> Place:
    found = find_place(connection, scope, customer_id, record_id=wanted.record_id, digest=wanted.digest)
    if found is None and wanted.digest is not None:
        receipt = find_receipt_by_root(connection, scope, customer_id, wanted.digest)
        if receipt is not None:
            last = receipt.spans[-1]
            _, moment = recorded_between(connection, scope, last.tree_id, last.last, last.last)
            return end_of(receipt, moment)
    if found is None:
        raise unknown_checkpoint("/startingCheckpoint")
    return found


def unknown_checkpoint(*pointers: str) -> NotFoundError:
    """Return the error for a checkpoint that this customer does not have."""
    message = "This customer has no such record or checkpoint."
    details = tuple(Detail(pointer, "CHECKPOINT_NOT_FOUND", message) for pointer in pointers)
    return NotFoundError(message, code="CHECKPOINT_NOT_FOUND", details=details)


def as_of(connection: Connection, scope: Scope, window: Window) -> dict[str, object]:
    """Return the cut at which ``window`` was read."""
    newest = newest_checkpoint(connection, scope)
    return {"size": window.size, "psize": window.psize, "checkpoint": newest.size if newest else None}


def read_rows(connection: Connection, scope: Scope, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return deltas as rows of an answer; ``records`` in the order of ``read_page``."""
    times = covered_at(connection, scope, records)
    return [_row(record, times) for record in records]


def _row(record: Record, times: Mapping[str, datetime]) -> dict[str, Any]:
    verified_at = times.get(record.record_id)
    return {
        "recordId": record.record_id,
        "receiptId": record.receipt_id,
        "itemHash": record.receipt_id,
        **exact("delta", record.amount),
        "reason": record.reason,
        "referenceId": record.reference_id,
        "occurredAt": record.occurred_at,
        "adjusts": record.adjusts,
        "status": STATES[record.state],
        "createdAt": rfc3339(record.recorded_at),
        "verifiedAt": rfc3339(verified_at) if verified_at else None,
    }


def counted(count: int) -> dict[str, int]:
    """Return a count of deltas under both of its names."""
    return {"deltaCount": count, "deltasCount": count}
