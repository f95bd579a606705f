"""Checkpoints of the vendor API: ``/api/v1/balance/checkpoint``, their list, and what lies between two.

A checkpoint here is a receipt document: asking for one closes nothing and forces no epoch.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from shared_record.access.apikeys import CHECKPOINT_WRITE, RECORD_READ
from shared_record.db.scope import Scope
from shared_record.errors import Detail
from shared_record.ledger.receipts import (
    Receipt,
    end_of,
    find_receipt,
    find_receipt_by_root,
    is_covered,
    issue_receipt,
    list_covered,
    page_receipts,
)
from shared_record.ledger.records import recorded_between
from shared_record.ledger.windows import list_active, measure, read_page
from shared_record.web.api import checkpoint_models as models
from shared_record.web.api.json_body import invalid
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.reading import counted, known_customer, read_rows, unknown_checkpoint
from shared_record.web.api.shapes import exact
from shared_record.web.api.windows import ERRORS, Interval

checkpoints = blueprint("checkpoints", "/api/v1/balance")

CUSTOMERS_A_CALL = 500
"""Customers whose documents one call makes, each in a transaction of its own: none waits for another's lock."""
MAX_ADDED = 100

_ROOT = re.compile(r"(?:0x)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)


@operation(
    checkpoints,
    "POST",
    "/checkpoint",
    Operation(
        "Ask for a checkpoint of a window",
        answer=models.CheckpointOrAll,
        status=201,
        scope=CHECKPOINT_WRITE,
        body=models.CheckpointBody,
        errors=(*ERRORS, "CUSTOMER_NOT_FOUND"),
        idempotent=True,
        examples={
            "all customers, this month": {},
            "one customer": {"customerId": "cust_northwind", "timePreset": "current_month"},
        },
    ),
)
def checkpoint(call: Call) -> dict[str, Any]:
    """Return the receipt document of a window as it now stands: the same one while nothing is new.

    It is QUEUED until a published checkpoint of the log covers its last delta.
    """
    body: models.CheckpointBody = call.body
    if body.customer_id is not None:
        with call.app.db.read(call.scope) as connection:
            who = known_customer(connection, call.scope, body.customer_id)
        return _made(call, body.customer_id, who, body.scope)
    after = body.after_customer_id or ""
    scope: Interval = body.scope
    with call.app.db.read(call.scope) as connection:
        found = list_active(connection, call.scope, scope.start, scope.end, after=after, most=CUSTOMERS_A_CALL + 1)
    page = found[:CUSTOMERS_A_CALL]
    made = [_made(call, external_id, who, scope) for external_id, who in page]
    following = page[-1][0] if len(found) > len(page) else None
    return models.checkpoints_data(scope, [one for one in made if one["checkpointId"]], following)


def _made(call: Call, external_id: str, who: UUID, scope: Interval) -> dict[str, Any]:
    with call.app.db.write(call.scope) as connection:
        receipt = issue_receipt(connection, call.app.clock, call.scope, who, scope.start, scope.end)
        if receipt is not None:
            covered = is_covered(connection, call.scope, receipt)
            return models.checkpoint_data(external_id, receipt, covered=covered)
        balance = measure(connection, call.scope, who, scope.start, scope.end).opening
        return models.empty_checkpoint(external_id, scope, balance)


@operation(
    checkpoints,
    "GET",
    "/checkpoints",
    Operation(
        "List checkpoints",
        answer=models.CheckpointList,
        scope=RECORD_READ,
        query=models.CheckpointsQuery,
        errors=(*ERRORS, "CUSTOMER_NOT_FOUND"),
    ),
)
def list_checkpoints(call: Call) -> dict[str, Any]:
    """Return checkpoints, newest first: those of one customer, or whose windows lie in one window."""
    query: models.CheckpointsQuery = call.query
    scope: Interval | None = query.scope
    with call.app.db.read(call.scope, snapshot=True) as connection:
        who = None if query.customer_id is None else known_customer(connection, call.scope, query.customer_id)
        found, total = page_receipts(
            connection,
            call.scope,
            customer_id=who,
            within=(scope.start, scope.end) if scope else None,
            limit=query.limit,
            offset=query.offset,
        )
        covered = {one.receipt_id for one in list_covered(connection, call.scope, [one for _, one in found])}
    return {
        "checkpoints": [
            models.checkpoint_data(external_id, one, covered=one.receipt_id in covered) for external_id, one in found
        ],
        "pagination": {"limit": query.limit, "offset": query.offset, "total": total},
    }


@operation(
    checkpoints,
    "POST",
    "/checkpoints/compare",
    Operation(
        "What was recorded between two checkpoints",
        answer=models.CheckpointsCompared,
        scope=RECORD_READ,
        body=models.CheckpointsBody,
        errors=("CUSTOMER_NOT_FOUND", "CHECKPOINT_NOT_FOUND"),
        examples={
            "two revisions": {
                "customerId": "cust_northwind",
                "from": "chk_00000000000000000000000001",
                "to": "0x" + "00" * 32,
            }
        },
    ),
)
def compare_checkpoints(call: Call) -> dict[str, Any]:
    """Return what a customer's record gained after the last delta of one checkpoint up to the last of another."""
    body: models.CheckpointsBody = call.body
    with call.app.db.read(call.scope, snapshot=True) as connection:
        who = known_customer(connection, call.scope, body.customer_id)
        named = {"/from": body.from_, "/to": body.to}
        found = {pointer: _find(connection, call.scope, who, name) for pointer, name in named.items()}
        if missing := [pointer for pointer, one in found.items() if one is None]:
            raise unknown_checkpoint(*missing)
        earlier, later = (one for one in found.values() if one is not None)
        start, end = (end_of(one, _last_at(connection, call.scope, one)) for one in (earlier, later))
        if (start.period, start.seq) > (end.period, end.seq):
            raise invalid([Detail("/from", "VALIDATION_ERROR", "This checkpoint ends after the other; swap them.")])
        window = measure(connection, call.scope, who, start, end)
        added = read_rows(
            connection, call.scope, read_page(connection, call.scope, window.parts, limit=MAX_ADDED, offset=0)
        )
        covered = list_covered(connection, call.scope, [earlier, later])
    first, second = (models.checkpoint_data(body.customer_id, one, covered=one in covered) for one in (earlier, later))
    return {
        "customerId": body.customer_id,
        "from": first,
        "to": second,
        **exact("netChange", window.recorded.net),
        **counted(window.recorded.count),
        "added": added,
        "sameRoot": earlier.proof_root == later.proof_root,
    }


def _find(connection: Connection, scope: Scope, who: UUID, name: str) -> Receipt | None:
    """Return a customer's checkpoint by its id or root."""
    root = _ROOT.fullmatch(name)
    if root is not None:
        return find_receipt_by_root(connection, scope, who, bytes.fromhex(root[1]))
    found = find_receipt(connection, scope, name)
    return found if found is not None and found.customer_id == who else None


def _last_at(connection: Connection, scope: Scope, found: Receipt) -> Any:
    last = found.spans[-1]
    return recorded_between(connection, scope, last.tree_id, last.last, last.last)[1]
