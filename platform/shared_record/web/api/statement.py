"""The record behind a link as JSON, ``/api/v1/c/{handle}/…``, and by the vendor's key, ``/api/v1/middleware/…``.

Both answer with the same data. By handle, the tenant's policy decides what opens without a session; a key sees
everything of its plane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from flask import Response, jsonify, request
from pydantic import BaseModel, Field, RootModel

from shared_record.access import links
from shared_record.access.apikeys import CUSTOMER_READ, RECORD_READ
from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.clock import period_of, rfc3339
from shared_record.db.scope import Scope
from shared_record.delivery.events import COMPARE_RUN, EXPORT_DOWNLOADED, RECORD_VIEWED
from shared_record.errors import AccessDeniedError, ConflictError, NotFoundError
from shared_record.exports import jobs
from shared_record.exports.jobs import Export
from shared_record.ledger.records import Period, find_period
from shared_record.plugin import ExportFormat
from shared_record.tenancy.customers import require_customer
from shared_record.tenancy.tenants import public_id, read_tenant
from shared_record.web import csrf
from shared_record.web.api.envelope import success
from shared_record.web.api.operations import Call, Operation, blueprint, checked, described, operation
from shared_record.web.api.shapes import (
    Answer,
    Body,
    Count,
    CustomerId,
    ExactText,
    Moment,
    PeriodName,
    Query,
    RecordId,
)
from shared_record.web.record import data
from shared_record.web.record.data import Subject
from shared_record.web.record.files import prepare, require_format, send_export, send_prepared
from shared_record.web.record.visits import enter
from shared_record.web.runtime import runtime
from shared_record.web.told import tell

statement = blueprint("statement", "/api/v1/c")
middleware = blueprint("middleware", "/api/v1/middleware")

State = Literal["recording", "recorded", "verified"]
PeriodState = Literal["open", "closing", "closed"]
PeriodOrReceipt = Annotated[str, Field(min_length=1, max_length=40, examples=["2026-11"])]


# --- Shapes ----------------------------------------------------------------------------------------------------------


class Boundaries(Answer):
    """A half-open interval."""

    start: Moment
    end: Moment
    zone: str


class AsOf(Answer):
    """The cut at which figures were taken: accepted and covered deltas of the period, and the checkpoint's size."""

    time: Moment
    size: int
    psize: int
    checkpoint: int | None


class Time(Answer):
    """When an answer was made."""

    time: Moment


class Covered(Answer):
    """A part of the deltas: those that a published checkpoint covers, or those of one value."""

    total: ExactText
    records: int


class RecentRow(Answer):
    """One delta in the outer tier; without an amount where the tenant hides it."""

    recorded_at: Moment
    state: State
    amount: ExactText | None = None


class Live(Answer):
    """The current period as it stands."""

    vendor: str
    period: PeriodName
    boundaries: Boundaries
    total: ExactText
    unit: str
    records: int
    verified: Covered
    verified_through: Moment | None
    as_of: AsOf
    recent: list[RecentRow]


class PeriodFigures(Answer):
    """What one period came to."""

    period: PeriodName
    state: PeriodState
    total: ExactText
    records: int


class PeriodRow(PeriodFigures):
    """One period with what covers it."""

    boundaries: Boundaries
    unit: str
    verified: Covered
    verified_through: Moment | None
    proof_root: str | None
    fingerprint: str | None
    receipt_id: str | None


class PeriodList(Answer):
    """All periods, newest first."""

    periods: list[PeriodRow]
    as_of: Time


class Day(Answer):
    """One UTC day with records."""

    day: str
    total: ExactText
    records: int


class Value(Covered):
    """The deltas that have one value under a key of their metadata."""

    value: str


class Breakdown(Answer):
    """A period by one key: the values told apart, all others, and the deltas without one. They come to the period."""

    key: str
    values: list[Value]
    other: Covered
    without: Covered


class Correction(Answer):
    """A delta that corrects another, whose id it gives; or a period that was closing when it was recorded."""

    record_id: RecordId
    period: PeriodName
    recorded_at: Moment
    amount: ExactText
    unit: str
    corrects: str | None


class PeriodDetail(PeriodRow):
    """One period, its days, what it breaks down into by the keys that the vendor chose, and later corrections of it."""

    days: list[Day]
    breakdowns: list[Breakdown]
    corrections: list[Correction]
    as_of: AsOf


class Row(Answer):
    """One delta with all of its fields."""

    record_id: RecordId
    receipt_id: str
    seq: int
    recorded_at: Moment
    used_at: Moment | None
    amount: ExactText
    running_total: ExactText
    unit: str
    state: State
    reference: str | None
    reason: str | None
    adjusts: str | None


class Activity(Answer):
    """A page of deltas, newest first; ``count`` and ``total`` are of all that match."""

    period: PeriodName
    count: int
    total: ExactText
    unit: str
    as_of: AsOf
    records: list[Row]
    newer: str | None
    older: str | None


class ActivityQuery(Query):
    """Which deltas. ``newer`` and ``older`` are the positions that the page before gave."""

    period: PeriodName | None = None
    limit: Annotated[Count, Field(ge=1, le=500)] = 50
    newer: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}\.[0-9]{1,15}$")] | None = None
    older: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}\.[0-9]{1,15}$")] | None = None
    reference: Annotated[str, Field(max_length=255)] | None = None


class Difference(Answer):
    """The second minus the first."""

    total: ExactText
    records: int


class Comparison(Answer):
    """Two periods side by side."""

    first: PeriodFigures
    second: PeriodFigures
    difference: Difference
    unit: str


class ComparePeriodsBody(Body):
    """Two periods, each a month or the id of a receipt."""

    first: PeriodOrReceipt
    second: PeriodOrReceipt


class Fact(Answer):
    """One dated fact."""

    at: Moment
    kind: str
    period: PeriodName | None
    detail: dict[str, str]


class Timeline(Answer):
    """Dated facts, newest first; ``older`` is the position to go on from."""

    facts: list[Fact]
    older: str | None


class TimelineQuery(Query):
    """Which facts. ``older`` is the position that the page before gave."""

    limit: Annotated[Count, Field(ge=1, le=500)] = 200
    older: Annotated[str, Field(pattern=f"^{data.FACT_POSITION}$")] | None = None


class ExportQuery(Query):
    """Which file."""

    format: Annotated[str, Field(min_length=1, max_length=63)] = "json"
    period: PeriodName | None = None


class ExportBody(Body):
    """Which file to prepare."""

    format: Annotated[str, Field(min_length=1, max_length=63)] = "json"
    period: PeriodName | None = None


class PreparedFile(Answer):
    """A file on its way: `ready` once it can be fetched. `written`: how many of its rows are read so far."""

    period: PeriodName
    format: str
    state: Literal["preparing", "ready", "failed"]
    records: int
    written: int
    bytes: int | None
    sha256: str | None
    expires_at: Moment | None


class File(RootModel[str]):
    """The file itself, in the media type of its format."""


class BareHistory(Answer):
    """A bare object, without the envelope."""

    schema_: Annotated[str, Field(alias="schema")]
    entries: list[str]


class AccessLink(Answer):
    """A customer's link, its host and policy, and whether an access code opens it."""

    customer_id: CustomerId
    url: str | None
    host: str | None
    policy: str
    own_policy: str
    has_access_code: bool
    issued_at: Moment
    revoked_at: Moment | None


EXPORT_EXAMPLE = {"CSV": {"format": "csv", "period": "2026-11"}}
COMPARE_EXAMPLE = {"two months": {"first": "2026-10", "second": "2026-11"}}


# --- By handle -------------------------------------------------------------------------------------------------------

View = TypeVar("View", bound=Callable[..., object])


def by_handle(method: str, path: str, declared: Operation) -> Callable[[View], View]:
    """Mount a view of a link's record: it gets the visit, the query and the body, once policy let the caller in."""

    def declare(view: View) -> View:
        @described(declared)
        @wraps(view)
        def handle(handle: str, **parts: str) -> Response:
            seen = enter(handle, Surface(declared.tier))
            if method == "POST" and not csrf.is_same_origin(request, runtime().settings, seen.host):
                raise AccessDeniedError("This call came from a page of another site.", code="FOREIGN_ORIGIN")
            query, body = checked(declared, runtime().clock.now())
            result = view(seen, query, body, **parts)
            return result if isinstance(result, Response) else success(result, declared.status)

        statement.add_url_rule(path, view.__name__, handle, methods=[method], strict_slashes=False)
        return view

    return declare


def _inner(summary: str, answer: type[BaseModel], **more: Any) -> Operation:
    return Operation(summary, answer=answer, tier=Surface.DETAIL, **more)


@by_handle("GET", "/<handle>", Operation("The current period", answer=Live, tier=Surface.LANDING))
def summary(seen: Visit, _query: Query, _body: None) -> Mapping[str, Any]:
    """Return the current period as it stands: what the landing page shows."""
    tell(seen, RECORD_VIEWED)
    return data.live(Subject.of_visit(seen))


@by_handle("GET", "/<handle>/live", Operation("The current period", answer=Live, tier=Surface.LANDING))
def live(seen: Visit, _query: Query, _body: None) -> Mapping[str, Any]:
    """Return the current period as it stands, under the name that the vendor's API uses."""
    tell(seen, RECORD_VIEWED)
    return data.live(Subject.of_visit(seen))


@by_handle("GET", "/<handle>/periods", _inner("All periods", PeriodList))
def periods(seen: Visit, _query: Query, _body: None) -> Mapping[str, Any]:
    """Return all periods, newest first."""
    return data.periods(Subject.of_visit(seen))


@by_handle("GET", "/<handle>/periods/<period>", _inner("One period", PeriodDetail, errors=("PERIOD_NOT_FOUND",)))
def period(seen: Visit, _query: Query, _body: None, period: str) -> Mapping[str, Any]:
    """Return one period, by its month or by the id of a receipt for it, with its figures by day."""
    return data.period(Subject.of_visit(seen), period)


@by_handle("GET", "/<handle>/activity", _inner("The deltas of a period", Activity, query=ActivityQuery))
def activity(seen: Visit, query: ActivityQuery, _body: None) -> Mapping[str, Any]:
    """Return a page of a period's deltas, newest first."""
    return _activity(Subject.of_visit(seen), query)


@by_handle("GET", "/<handle>/timeline", _inner("Dated facts of the record", Timeline, query=TimelineQuery))
def timeline(seen: Visit, query: TimelineQuery, _body: None) -> Mapping[str, Any]:
    """Return when periods began and closed, receipts were issued, corrections recorded and the link changed."""
    return data.timeline(Subject.of_visit(seen), limit=query.limit, older=query.older)


@by_handle(
    "POST",
    "/<handle>/compare",
    _inner(
        "Compare two periods",
        Comparison,
        body=ComparePeriodsBody,
        examples=COMPARE_EXAMPLE,
        errors=("PERIOD_NOT_FOUND",),
    ),
)
def compare(seen: Visit, _query: Query, body: ComparePeriodsBody) -> Mapping[str, Any]:
    """Return two periods and the second minus the first."""
    compared = data.compare(Subject.of_visit(seen), body.first, body.second)
    tell(seen, COMPARE_RUN, first=body.first, second=body.second)
    return compared


@by_handle(
    "GET",
    "/<handle>/export",
    _inner(
        "One period as a file",
        File,
        query=ExportQuery,
        errors=("FORMAT_NOT_FOUND", "PERIOD_NOT_FOUND", "EXPORT_NOT_PREPARED"),
        media_type="*/*",
    ),
)
def export(seen: Visit, query: ExportQuery, _body: None) -> Response:
    """Return one period in a format that the tenant enabled.

    A period of more than 50,000 records is prepared first: POST to the same address, then ask again here. While it is
    being prepared the answer is 202 with how far it is.
    """
    kind = require_format(query.format, seen.row.export_formats)
    answer = _file(seen.scope, seen.customer_id, _month(query.period), kind)
    if answer.status_code == 200:
        tell(seen, EXPORT_DOWNLOADED, period=_month(query.period), format=kind.slug)
    return answer


@by_handle(
    "POST",
    "/<handle>/export",
    _inner(
        "Prepare a file",
        PreparedFile,
        status=202,
        body=ExportBody,
        examples=EXPORT_EXAMPLE,
        errors=("FORMAT_NOT_FOUND", "PERIOD_NOT_FOUND", "EXPORT_BUSY"),
    ),
)
def export_prepare(seen: Visit, _query: Query, body: ExportBody) -> Mapping[str, Any]:
    """Have a large file prepared; a small one is ready at once. It is kept for 24 hours."""
    kind = require_format(body.format, seen.row.export_formats)
    return _prepared(seen.scope, seen.customer_id, _month(body.period), kind, "customer")


@by_handle(
    "GET",
    "/<handle>/history",
    _inner("The record for clients of record disclosure", BareHistory, media_type="application/json"),
)
def history(_seen: Visit, _query: Query, _body: None) -> Response:
    """Return a small bare object: records here hold usage, which has a history of its own under ``/activity``."""
    return jsonify({"schema": "shared-record/usage@v1", "entries": []})


@by_handle("GET", "/<handle>/disclosure", _inner("Sealed disclosures", BareHistory, media_type="application/json"))
def disclosure(_seen: Visit, _query: Query, _body: None) -> Response:
    """Answer 404: a usage record has no sealed disclosure."""
    raise NotFoundError("This record has no sealed disclosure.", code="NOT_FOUND")


# --- By API key ------------------------------------------------------------------------------------------------------


def _keyed(method: str, path: str, summary: str, answer: type[BaseModel], **more: Any) -> Callable[[View], View]:
    declared = Operation(summary, answer=answer, scope=RECORD_READ, errors=("CUSTOMER_NOT_FOUND",), **more)
    return operation(middleware, method, f"/customers/<customer_id>{path}", declared)


@_keyed("GET", "/live", "The current period of a customer", Live)
def customer_live(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return the current period of a customer as it stands."""
    return data.live(_subject(call, customer_id))


@_keyed("GET", "/periods", "All periods of a customer", PeriodList)
def customer_periods(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return all periods of a customer, newest first."""
    return data.periods(_subject(call, customer_id))


@_keyed("GET", "/periods/<period>", "One period of a customer", PeriodDetail)
def customer_period(call: Call, customer_id: str, period: str) -> Mapping[str, Any]:
    """Return one period, by its month or by the id of a receipt for it, with its figures by day."""
    return data.period(_subject(call, customer_id), period)


@_keyed("GET", "/period/<period>", "One period of a customer", PeriodDetail)
def customer_one_period(call: Call, customer_id: str, period: str) -> Mapping[str, Any]:
    """Return one period, under the other spelling of its address."""
    return data.period(_subject(call, customer_id), period)


@_keyed("GET", "/activity", "The deltas of a customer's period", Activity, query=ActivityQuery)
def customer_activity(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return a page of a period's deltas, newest first."""
    return _activity(_subject(call, customer_id), call.query)


@_keyed("GET", "/timeline", "Dated facts of a customer's record", Timeline, query=TimelineQuery)
def customer_timeline(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return when periods began and closed, receipts were issued, corrections recorded and the link changed."""
    return data.timeline(_subject(call, customer_id), limit=call.query.limit, older=call.query.older)


@_keyed("POST", "/compare", "Compare two periods", Comparison, body=ComparePeriodsBody, examples=COMPARE_EXAMPLE)
def customer_compare(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return two periods and the second minus the first."""
    return data.compare(_subject(call, customer_id), call.body.first, call.body.second)


@_keyed("GET", "/export", "One period as a file", File, query=ExportQuery, media_type="*/*")
def customer_export(call: Call, customer_id: str) -> Response:
    """Return one period in a format that the tenant enabled."""
    query: ExportQuery = call.query
    subject, kind = _subject(call, customer_id), _enabled(call, query.format)
    return _file(call.scope, subject.customer_id, _month(query.period), kind)


@_keyed("POST", "/export", "Prepare a file", PreparedFile, status=202, body=ExportBody, examples=EXPORT_EXAMPLE)
def customer_export_prepare(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Have a large file prepared; a small one is ready at once. It is kept for 24 hours."""
    body: ExportBody = call.body
    subject, kind = _subject(call, customer_id), _enabled(call, body.format)
    return _prepared(call.scope, subject.customer_id, _month(body.period), kind, f"key:{call.key.public_id}")


@operation(
    middleware,
    "GET",
    "/customers/<customer_id>/access-link",
    Operation("A customer's link", answer=AccessLink, scope=CUSTOMER_READ, errors=("CUSTOMER_NOT_FOUND",)),
)
def customer_access_link(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return the link, its host, the policy in force, and whether an access code opens it. Never the code itself."""
    settings = call.app.settings
    with call.app.db.read(call.scope) as connection:
        found = links.show_link(connection, call.app.keys, call.scope, customer_id)
        tenant = read_tenant(connection, call.scope)
    return {
        "customerId": customer_id,
        "url": settings.url_for_host(found.host or settings.platform_hosts[0], found.path) if found.path else None,
        "host": found.host,
        "policy": tenant.policy.value if found.policy == links.INHERIT else found.policy,
        "ownPolicy": found.policy,
        "hasAccessCode": found.revoked_at is None,
        "issuedAt": rfc3339(found.issued_at),
        "revokedAt": rfc3339(found.revoked_at) if found.revoked_at else None,
    }


@operation(
    middleware,
    "GET",
    "/vendors/<vendor_id>/customers/<customer_id>/record",
    Operation("The current period by vendor account", answer=Live, scope=RECORD_READ, errors=("CUSTOMER_NOT_FOUND",)),
)
def vendor_record(call: Call, vendor_id: str, customer_id: str) -> Mapping[str, Any]:
    """Return the current period of a customer; a tenant that records for itself is its own one vendor account."""
    with call.app.db.read(call.scope) as connection:
        own = public_id(connection, call.scope)
    if vendor_id != own:
        raise NotFoundError("there is no such vendor account.", code="NOT_FOUND")
    return data.live(_subject(call, customer_id))


def _subject(call: Call, customer_id: str) -> Subject:
    with call.app.db.read(call.scope) as connection:
        found = require_customer(connection, call.scope, customer_id)
        tenant = read_tenant(connection, call.scope)
    return Subject(call.scope, found.customer_id, tenant.name, found.unit or tenant.unit)


def _enabled(call: Call, slug: str) -> type[ExportFormat]:
    with call.app.db.read(call.scope) as connection:
        return require_format(slug, read_tenant(connection, call.scope).export_formats)


def _file(scope: Scope, customer_id: UUID, month: str, kind: type[ExportFormat]) -> Response:
    """Return the file; 202 while it is being prepared."""
    if not jobs.is_large(_period(scope, customer_id, month)):
        return send_export(scope, customer_id, month, kind)
    with runtime().db.read(scope) as connection:
        found = jobs.find_file(connection, runtime().clock, scope, customer_id, month, kind.slug)
    if found is not None and found.state == jobs.PREPARING:
        return success(_told(found), 202, {"Retry-After": "10"})
    answer = None if found is None else send_prepared(scope, found, kind)
    if answer is None:
        raise ConflictError(
            f"This period has more than {jobs.AT_ONCE:,} records: POST to this address to have the file prepared.",
            code="EXPORT_NOT_PREPARED",
        )
    return answer


def _prepared(scope: Scope, customer_id: UUID, month: str, kind: type[ExportFormat], actor: str) -> Mapping[str, Any]:
    period = _period(scope, customer_id, month)
    if jobs.is_large(period):
        return _told(prepare(scope, customer_id, month, kind, actor))
    small = {"period": month, "format": kind.slug, "state": jobs.READY, "records": period.size, "written": period.size}
    return small | {"bytes": None, "sha256": None, "expiresAt": None}


def _period(scope: Scope, customer_id: UUID, month: str) -> Period:
    with runtime().db.read(scope) as connection:
        found = find_period(connection, scope, customer_id, month)
    if found is None:
        raise NotFoundError(f"nothing is recorded in {month}.", code="PERIOD_NOT_FOUND")
    return found


def _told(found: Export) -> Mapping[str, Any]:
    return {
        "period": found.period,
        "format": found.format,
        "state": found.state,
        "records": found.rows,
        "written": found.written,
        "bytes": found.length,
        "sha256": found.sha256.hex() if found.sha256 else None,
        "expiresAt": rfc3339(found.expires_at),
    }


def _activity(subject: Subject, query: ActivityQuery) -> Mapping[str, Any]:
    return data.activity(
        subject,
        _month(query.period),
        limit=query.limit,
        newer=query.newer,
        older=query.older,
        reference=query.reference,
    )


def _month(period: str | None) -> str:
    return period or period_of(runtime().clock.now())
