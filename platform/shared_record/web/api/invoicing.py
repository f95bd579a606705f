"""The invoice bundle and readiness by API key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.alias_generators import to_camel

from shared_record.access.apikeys import CODE_REVEAL, CUSTOMER_READ
from shared_record.clock import period_of
from shared_record.invoicing.bundle import InvoiceBundle, as_data, build_bundle, customers_of
from shared_record.web.api.customers import Pagination, pagination
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.shapes import Answer, Count, CustomerId, ExactText, Moment, PeriodName, Query
from shared_record.web.api.statement import Boundaries, middleware

invoicing = blueprint("invoicing", "/api/v1/customers")


class BundleQuery(Query):
    """Which period; the current month without."""

    period: PeriodName | None = None


class ReadinessQuery(BundleQuery):
    """Which period, and which page of its customers."""

    page: Annotated[Count, Field(ge=1, le=1_000_000)] = 1
    limit: Annotated[Count, Field(ge=1, le=100)] = 25


class AmountOfUnit(Answer):
    """An exact amount and its unit."""

    amount: ExactText
    unit: str


class CoveredAmount(Answer):
    """The part that a published checkpoint covers."""

    amount: ExactText
    records: int


class BlockerItem(Answer):
    """One thing that stands between a period and its invoice, and what settles it."""

    code: str
    message: str
    action: str


class Bundle(Answer):
    """Everything that one customer's invoice for one period says about the record.

    ``accessCode`` is null unless the key has the scope ``code:reveal``; each reveal is audited. ``verifyUrl`` is what
    to print: an opaque string.
    """

    customer_id: CustomerId
    display_name: str | None
    vendor: str
    period: PeriodName
    boundaries: Boundaries
    total: AmountOfUnit
    records: int
    verified: CoveredAmount
    verified_through: Moment | None
    fingerprint: str | None
    proof_root: str | None
    receipt_id: str | None
    checkpoint_size: int | None
    policy: str
    link: str | None
    link_host: str | None
    access_code: str | None
    receipt_url: str | None
    verify_url: str | None
    verification_api_url: str | None
    qr_svg: str | None
    text: dict[str, str]
    ready: bool
    blockers: list[BlockerItem]


class ReadinessRow(Answer):
    """One customer of a period."""

    customer_id: CustomerId
    ready: bool
    records: int
    verified_records: int
    total: AmountOfUnit
    blockers: list[BlockerItem]


class Readiness(Answer):
    """Who is ready to be invoiced, and what blocks the rest: a page of the customers with records in the period."""

    period: PeriodName
    customers: list[ReadinessRow]
    pagination: Pagination


@operation(
    invoicing,
    "GET",
    "/<customer_id>/invoice-bundle",
    Operation(
        "What goes on a customer's invoice",
        answer=Bundle,
        scope=CUSTOMER_READ,
        query=BundleQuery,
        errors=("CUSTOMER_NOT_FOUND", "PERIOD_NOT_FOUND"),
    ),
)
def invoice_bundle(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return totals, fingerprint, link, code, receipt, text blocks and QR code for one customer and month."""
    return _camel(as_data(_bundle(call, customer_id, reveal=CODE_REVEAL in call.key.scopes)))


@operation(
    middleware,
    "GET",
    "/customers/<customer_id>/close-package",
    Operation(
        "What goes on a customer's invoice",
        answer=Bundle,
        scope=CUSTOMER_READ,
        query=BundleQuery,
        errors=("CUSTOMER_NOT_FOUND", "PERIOD_NOT_FOUND"),
    ),
)
def close_package(call: Call, customer_id: str) -> Mapping[str, Any]:
    """Return the invoice bundle under the name that the middleware API uses."""
    return invoice_bundle(call, customer_id)


@operation(
    middleware,
    "GET",
    "/readiness",
    Operation("Who is ready to be invoiced", answer=Readiness, scope=CUSTOMER_READ, query=ReadinessQuery),
)
def readiness(call: Call) -> Mapping[str, Any]:
    """Return for a page of the customers with records in a month whether their invoice can go out."""
    query: ReadinessQuery = call.query
    month = _month(call)
    with call.app.db.read(call.scope) as connection:
        names = customers_of(connection, call.scope, month)
    chosen = names[(query.page - 1) * query.limit : query.page * query.limit]
    rows = [_bundle(call, name, reveal=False) for name in chosen]
    return {
        "period": month,
        "customers": [_row(one) for one in rows],
        "pagination": pagination(len(names), query.page, query.limit),
    }


def _bundle(call: Call, customer_id: str, *, reveal: bool) -> InvoiceBundle:
    app, settings = call.app, call.app.settings
    return build_bundle(
        app.db,
        app.keys,
        app.clock,
        call.scope,
        customer_id,
        _month(call),
        lambda host, path: settings.url_for_host(host or settings.platform_hosts[0], path),
        actor=f"key:{call.key.public_id}" if reveal else None,
    )


def _month(call: Call) -> str:
    return call.query.period or period_of(call.app.clock.now())


def _row(one: InvoiceBundle) -> Mapping[str, Any]:
    return {
        "customerId": one.customer_id,
        "ready": one.ready,
        "records": one.records,
        "verifiedRecords": one.verified_records,
        "total": {"amount": one.total, "unit": one.unit},
        "blockers": as_data(one)["blockers"],
    }


def _camel(data: Mapping[str, Any]) -> dict[str, Any]:
    return {to_camel(name): value for name, value in data.items()}
