"""Customers by API key: the list, its counts, and one customer with recent activity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection

from shared_record.access.apikeys import CUSTOMER_READ
from shared_record.clock import rfc3339
from shared_record.db.scope import Scope
from shared_record.ledger.directory import Listed, Profile, Totals, count_all, find_profile, list_customers
from shared_record.ledger.records import Period, Record, coverage
from shared_record.ledger.windows import Part, read_page
from shared_record.web.api.models import STATES
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.shapes import (
    Answer,
    Count,
    CustomerId,
    ExactText,
    JsonNumber,
    Moment,
    PeriodName,
    Query,
    RecordId,
    exact,
)

customers = blueprint("customers", "/api/v1/balance/customers")


class CustomersQuery(Query):
    """A page of the list."""

    page: Annotated[Count, Field(ge=1, le=1_000_000)] = 1
    limit: Annotated[Count, Field(ge=1, le=100)] = 25
    search: Annotated[str, Field(max_length=128, description="Any part of the id, in any case.")] = ""


class Pagination(Answer):
    """Where a page stands in its list."""

    total: int
    page: int
    limit: int
    total_pages: int


class CustomerRow(Answer):
    """One customer of the list."""

    customer_id: CustomerId
    display_name: str | None
    customer_reference: str
    total_deltas: int
    first_delta_at: Moment | None
    last_delta_at: Moment | None


class CustomerList(Answer):
    """A page of customers, in the order in which they were made."""

    customers: list[CustomerRow]
    pagination: Pagination


class CustomerCounts(Answer):
    """Counts over all customers of the data plane."""

    total_customers: int
    active_customers: int
    total_deltas: int
    verified_deltas: int
    unverified_deltas: int
    verified_through: Moment | None


class CustomerQuery(Query):
    """Which of a customer's deltas to show."""

    delta_page: Annotated[Count, Field(ge=1, le=1_000_000)] = 1
    delta_limit: Annotated[Count, Field(ge=1, le=100)] = 20
    period: PeriodName | None = None


class ActivityItem(Answer):
    """One delta of a customer."""

    record_id: RecordId
    delta: JsonNumber
    delta_exact: ExactText
    reason: str | None
    reference_id: str | None
    status: str
    time: Moment
    verification_reference: str | None


class RecentActivity(Answer):
    """A page of deltas, newest first."""

    items: list[ActivityItem]
    pagination: Pagination


class CustomerDetail(Answer):
    """One customer. ``computedBalance`` is the verified sum of all its deltas, ``recordedBalance`` the accepted one."""

    customer_id: CustomerId
    display_name: str | None
    customer_reference: str
    customer_partition: str
    total_deltas: int
    computed_balance: JsonNumber
    computed_balance_exact: ExactText
    recorded_balance: JsonNumber
    recorded_balance_exact: ExactText
    latest_checkpoint: str | None
    last_active_period: str | None
    recent_activity: RecentActivity


@operation(
    customers, "GET", "", Operation("List customers", answer=CustomerList, scope=CUSTOMER_READ, query=CustomersQuery)
)
def list_all(call: Call) -> dict[str, Any]:
    """Return a page of the customers of this data plane."""
    query: CustomersQuery = call.query
    with call.app.db.read(call.scope, snapshot=True) as connection:
        found, total = list_customers(
            connection, call.app.keys, call.scope, page=query.page, limit=query.limit, search=query.search
        )
    return {
        "customers": [_row(one) for one in found],
        "pagination": pagination(total, query.page, query.limit),
    }


@operation(
    customers, "GET", "/summary", Operation("Counts over all customers", answer=CustomerCounts, scope=CUSTOMER_READ)
)
def customers_summary(call: Call) -> dict[str, Any]:
    """Return how many customers and deltas there are, and how many of them a checkpoint covers."""
    with call.app.db.read(call.scope, snapshot=True) as connection:
        counts: Totals = count_all(connection, call.app.clock, call.scope)
        through = coverage(connection, call.scope, []).through
    return {
        "totalCustomers": counts.customers,
        "activeCustomers": counts.active,
        "totalDeltas": counts.deltas,
        "verifiedDeltas": counts.verified,
        "unverifiedDeltas": counts.deltas - counts.verified,
        "verifiedThrough": rfc3339(through) if through and counts.deltas == counts.verified else None,
    }


@operation(
    customers,
    "GET",
    "/<customer_id>",
    Operation(
        "One customer with recent activity",
        answer=CustomerDetail,
        scope=CUSTOMER_READ,
        query=CustomerQuery,
        errors=("CUSTOMER_NOT_FOUND",),
    ),
)
def customer_detail(call: Call, customer_id: str) -> dict[str, Any]:
    """Return one customer, its balance over all periods, and a page of its deltas, newest first."""
    query: CustomerQuery = call.query
    with call.app.db.read(call.scope, snapshot=True) as connection:
        profile = find_profile(connection, call.app.keys, call.scope, customer_id)
        wanted = [one for one in reversed(profile.periods) if query.period in (None, one.period)]
        parts = [Part(one, 0, one.size) for one in wanted if one.size]
        rows = newest_first(connection, call.scope, parts, page=query.delta_page, limit=query.delta_limit)
    return _detail(profile, rows, sum(part.last for part in parts), query)


def newest_first(connection: Connection, scope: Scope, parts: Sequence[Part], *, page: int, limit: int) -> list[Record]:
    """Return page ``page`` (from 1) of the deltas of ``parts`` (oldest first), newest first."""
    end = sum(part.last - part.first for part in parts) - (page - 1) * limit
    start = max(end - limit, 0)
    if end <= 0:
        return []
    return list(reversed(read_page(connection, scope, parts, limit=end - start, offset=start)))


def pagination(total: int, page: int, limit: int) -> dict[str, int]:
    """Return where page ``page`` (from 1) stands in a list of ``total``."""
    return {"total": total, "page": page, "limit": limit, "totalPages": -(-total // limit)}


def _row(one: Listed) -> dict[str, Any]:
    return {
        "customerId": one.external_id,
        "displayName": one.display_name,
        "customerReference": one.reference,
        "totalDeltas": one.deltas,
        "firstDeltaAt": rfc3339(one.first_at) if one.first_at else None,
        "lastDeltaAt": rfc3339(one.last_at) if one.last_at else None,
    }


def _detail(profile: Profile, rows: Sequence[Record], total: int, query: CustomerQuery) -> dict[str, Any]:
    one = profile.listed
    return {
        "customerId": one.external_id,
        "displayName": one.display_name,
        "customerReference": one.reference,
        "customerPartition": str(one.slot),
        "totalDeltas": one.deltas,
        **exact("computedBalance", profile.verified_balance),
        **exact("recordedBalance", profile.recorded_balance),
        "latestCheckpoint": profile.receipt_id,
        "lastActivePeriod": _last_active(profile.periods),
        "recentActivity": {
            "items": [_item(row) for row in rows],
            "pagination": pagination(total, query.delta_page, query.delta_limit),
        },
    }


def _last_active(periods: tuple[Period, ...]) -> str | None:
    return next((period.period for period in periods if period.size), None)


def _item(row: Record) -> dict[str, Any]:
    return {
        "recordId": row.record_id,
        **exact("delta", row.amount),
        "reason": row.reason,
        "referenceId": row.reference_id,
        "status": STATES[row.state],
        "time": rfc3339(row.recorded_at),
        "verificationReference": row.receipt_id if row.state == "verified" else None,
    }
