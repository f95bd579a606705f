"""``POST /dashboard/customers``: a customer made by a person's access token, as existing vendor clients send it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import Field

from shared_record.access import audit, links
from shared_record.access.apikeys import CUSTOMER_WRITE, authenticate_bearer, require_scope
from shared_record.clock import rfc3339
from shared_record.db.lookup import KeyRow
from shared_record.db.scope import Scope
from shared_record.errors import AccessDeniedError
from shared_record.identifiers import new_identifier
from shared_record.ledger.directory import find_profile
from shared_record.tenancy.customers import create_customer
from shared_record.web.api.envelope import success
from shared_record.web.api.operations import Operation, blueprint, checked, count_key_miss, described, note_key_use
from shared_record.web.api.shapes import Answer, Body, CustomerId, Moment
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper

dashboard = blueprint("dashboard", "/dashboard")


class CreateCustomerBody(Body):
    """A new customer. ``sharingStateHint`` is its access policy; ``INHERIT`` is the tenant's."""

    display_name: Annotated[str, Field(min_length=1, max_length=200, examples=["Northwind Ltd"])]
    customer_id: CustomerId | None = None
    sharing_state_hint: Literal["INHERIT", "TWO_TIER", "GATED", "OPEN"] | None = None
    event_cadence: Literal["PER_EVENT"] | None = None
    unit_label: Annotated[str, Field(min_length=1, max_length=64, examples=["API credits"])] | None = None


class CreatedCustomer(Answer):
    """A customer and its link."""

    customer_id: CustomerId
    display_name: str
    customer_reference: str
    sharing_state_hint: str
    event_cadence: str
    unit_label: str | None
    customer_link_url: str | None
    customer_link_host: str | None
    created_at: Moment


CREATE = Operation(
    "Make a customer",
    answer=CreatedCustomer,
    status=201,
    tier=Gatekeeper.BEARER,
    body=CreateCustomerBody,
    errors=("CUSTOMER_EXISTS",),
    examples={"with an id": {"displayName": "Northwind Ltd", "customerId": "cust_northwind_ltd"}},
)


@dashboard.post("/customers", strict_slashes=False)
@described(CREATE)
def create() -> Response:
    """Make a customer before its first delta. Without ``customerId`` one is made up.

    The token's data plane is used; an ``X-Api-Key`` beside it changes nothing.
    """
    app, token = runtime(), _token()
    _, body = checked(CREATE, app.clock.now())
    name = body.customer_id or new_identifier("cus")
    with app.db.write(token.scope) as connection:
        made = create_customer(
            connection,
            app.keys,
            app.clock,
            token.scope,
            name,
            display_name=body.display_name,
            unit=body.unit_label,
        )
        actor = f"token:{token.public_id}"
        audit.record(connection, token.scope, app.clock, "customer.created", actor=actor, customer_id=made.customer_id)
        if body.sharing_state_hint not in (None, links.INHERIT):
            links.set_customer_policy(connection, app.clock, token.scope, name, body.sharing_state_hint, actor)
    return _created(token.scope, name, body)


def _created(scope: Scope, name: str, body: CreateCustomerBody) -> Response:
    app = runtime()
    with app.db.read(scope) as connection:
        profile = find_profile(connection, app.keys, scope, name)
        link = links.show_link(connection, app.keys, scope, name)
    host = link.host or app.settings.platform_hosts[0]
    data: dict[str, Any] = {
        "customerId": name,
        "displayName": profile.listed.display_name,
        "customerReference": profile.listed.reference,
        "sharingStateHint": link.policy,
        "eventCadence": "PER_EVENT",
        "unitLabel": body.unit_label,
        "customerLinkUrl": app.settings.url_for_host(host, link.path) if link.path else None,
        "customerLinkHost": host,
        "createdAt": rfc3339(profile.listed.created_at),
    }
    return success(data, 201, dashboard=True)


def _token() -> KeyRow:
    app = runtime()
    try:
        found = authenticate_bearer(app.db, app.clock, request.headers.get("Authorization"))
    except AccessDeniedError:
        count_key_miss()
        raise
    note_key_use(found)
    require_scope(found, CUSTOMER_WRITE)
    return found
