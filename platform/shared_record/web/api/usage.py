"""Balances from the record: ``/api/v1/balance/`` usage, gaps, derive, limits and compare."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from shared_record.access.apikeys import RECORD_READ
from shared_record.clock import period_of, rfc3339
from shared_record.delivery import events, outbox
from shared_record.errors import Detail
from shared_record.ledger.windows import (
    Bucket,
    Granularity,
    Window,
    break_down,
    count_recorded,
    find_gaps,
    list_sequences,
    read_page,
)
from shared_record.tenancy.tenants import read_tenant
from shared_record.web.api import usage_models as models
from shared_record.web.api.json_body import invalid
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.reading import as_of, known_customer, read_rows, read_window
from shared_record.web.api.shapes import exact
from shared_record.web.api.windows import ERRORS, MAX_LAST_DAYS, MAX_SCOPE_MONTHS

usage = blueprint("usage", "/api/v1/balance")

STARTING_ERRORS = (*ERRORS, "CUSTOMER_NOT_FOUND", "CHECKPOINT_NOT_FOUND")


@operation(usage, "GET", "/usage", Operation("Deltas recorded this month", answer=models.Usage, scope=RECORD_READ))
def show_usage(call: Call) -> dict[str, Any]:
    """Return how many deltas of all customers this UTC month has; this server sets no allowance."""
    period = period_of(call.app.clock.now())
    with call.app.db.read(call.scope) as connection:
        count = count_recorded(connection, call.scope, period)
    return {
        "allowed": True,
        "remaining": models.NO_LIMIT,
        "plan": "unlimited",
        "period": period,
        "includedDeltas": None,
        "consumedDeltas": count,
        "overageCount": 0,
    }


@operation(
    usage,
    "GET",
    "/gaps/<customer_id>",
    Operation(
        "Sequence numbers that are missing",
        answer=models.Gaps,
        scope=RECORD_READ,
        query=models.GapsQuery,
        errors=("CUSTOMER_NOT_FOUND",),
    ),
)
def gaps(call: Call, customer_id: str) -> dict[str, Any]:
    """Return which of a customer's sequence numbers no delta has: those beyond the highest, if they are asked for."""
    query: models.GapsQuery = call.query
    first, last = query.from_sequence or 1, query.to_sequence
    if last is not None and first > last:
        raise invalid([Detail("/toSequence", "VALIDATION_ERROR", "toSequence is not below fromSequence.")])
    with call.app.db.read(call.scope) as connection:
        who = known_customer(connection, call.scope, customer_id)
        ranges = list_sequences(connection, call.scope, who)
    highest = ranges[-1][1] if ranges else 0
    last = highest if last is None else last
    found = find_gaps(ranges, first, last)
    return {
        "customerId": customer_id,
        "fromSequence": str(first),
        "toSequence": str(last),
        "highestSequence": str(highest),
        "gaps": [{"from": str(start), "to": str(end)} for start, end in found[: query.limit]],
        "gapCount": sum(end - start + 1 for start, end in found),
        "complete": not found,
    }


@operation(
    usage,
    "GET",
    "/derive/<customer_id>",
    Operation(
        "Derive a balance from the record",
        answer=models.Derived,
        scope=RECORD_READ,
        query=models.DeriveQuery,
        errors=STARTING_ERRORS,
    ),
)
def derive(call: Call, customer_id: str) -> dict[str, Any]:
    """Return a starting balance plus the verified deltas of a window, and a page of these, oldest first."""
    query: models.DeriveQuery = call.query
    with call.app.db.read(call.scope, snapshot=True) as connection:
        who = known_customer(connection, call.scope, customer_id)
        window, scope = read_window(connection, call.scope, who, query.scope)
        verified = [part.as_verified for part in window.parts]
        page = read_page(connection, call.scope, verified, limit=query.limit, offset=query.offset)
        rows = read_rows(connection, call.scope, page)
        count = window.verified.count
        latest = read_page(connection, call.scope, verified, limit=1, offset=count - 1) if count else ()
        buckets = _buckets(connection, call, window, query.granularity)
        cut = as_of(connection, call.scope, window)
    return {
        "customerId": customer_id,
        **exact("computedBalance", models.verified_balance(window, query.starting_balance)),
        **models.balances(window, query.starting_balance),
        "latestReceiptId": latest[0].receipt_id if latest else None,
        "scope": scope,
        "asOf": cut,
        "deltas": rows,
        "pagination": {"limit": query.limit, "offset": query.offset, "total": count},
        **models.breakdown(buckets),
    }


@operation(usage, "GET", "/limits", Operation("Limits of windows", answer=models.Limits, scope=RECORD_READ))
def limits(call: Call) -> dict[str, Any]:
    """Return how wide a window may be, and for how many days details are kept."""
    with call.app.db.read(call.scope) as connection:
        kept = read_tenant(connection, call.scope).retention_days
    return {"maxScopeMonths": MAX_SCOPE_MONTHS, "maxLastNDays": MAX_LAST_DAYS, "maxRetentionDays": kept}


@operation(
    usage,
    "POST",
    "/compare",
    Operation(
        "Compare two balances with the record",
        answer=models.Compared,
        status=201,
        scope=RECORD_READ,
        body=models.CompareBody,
        errors=STARTING_ERRORS,
        idempotent=True,
        examples={"this month": {"customerId": "cust_northwind", "yourBalance": -5, "theirBalance": "-5.5"}},
    ),
)
def compare(call: Call) -> dict[str, Any]:
    """Return whether two balances equal what the verified deltas of a window come to, and by how much they differ."""
    body: models.CompareBody = call.body
    with call.app.db.read(call.scope, snapshot=True) as connection:
        who = known_customer(connection, call.scope, body.customer_id)
        window, scope = read_window(connection, call.scope, who, body.scope)
        buckets = _buckets(connection, call, window, body.granularity)
        cut = as_of(connection, call.scope, window)
        wanted = outbox.subscribed(connection, call.scope, events.COMPARE_RUN)
    data = {**models.compared(window, body), "scope": scope, "asOf": cut, **models.breakdown(buckets)}
    if wanted:
        told = {"customerId": body.customer_id, "at": rfc3339(call.app.clock.now()), "scope": scope}
        with call.app.db.write(call.scope) as connection:
            outbox.emit(connection, call.app.clock, call.scope, events.COMPARE_RUN, told, who)
    return data


def _buckets(
    connection: Connection, call: Call, window: Window, granularity: Granularity | None
) -> list[Bucket] | None:
    return None if granularity is None else break_down(connection, call.scope, window, granularity)
