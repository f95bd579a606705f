"""Webhooks: endpoints under ``/api/v1/webhooks``; deliveries and retry under ``/api/v1/balance/webhooks``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from sqlalchemy import Connection

from shared_record.access import audit
from shared_record.access.apikeys import RECORD_READ, WEBHOOK_MANAGE
from shared_record.clock import rfc3339
from shared_record.delivery import log
from shared_record.delivery import webhooks as endpoints
from shared_record.delivery.egress import MAX_URL, Egress
from shared_record.delivery.events import DELTA_VERIFIED, EVENTS
from shared_record.delivery.webhooks import MAX_DESCRIPTION
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.shapes import Answer, Body, Count, Moment, Query

URL = "https://billing.acme.example/hooks"

webhooks = blueprint("webhooks", "/api/v1/webhooks")
deliveries = blueprint("deliveries", "/api/v1/balance/webhooks")

Url = Annotated[str, Field(min_length=1, max_length=MAX_URL, examples=[URL])]
EventName = Annotated[str, Field(max_length=64, json_schema_extra={"enum": list(EVENTS)})]
EventFilter = Annotated[list[EventName], Field(min_length=1, max_length=len(EVENTS))]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]
DeliveryState = Literal["PENDING", "DELIVERED", "FAILED"]
State = Annotated[DeliveryState, BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)]


class EndpointBody(Body):
    """A new endpoint. Without ``events`` it gets every event."""

    url: Url
    description: Description = ""
    events: EventFilter | None = None


class EndpointChange(Body):
    """What to change; what is absent stays. ``events`` null means every event."""

    url: Url | None = None
    description: Description | None = None
    events: EventFilter | None = None
    enabled: bool | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What was given; null says something of ``events`` only."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in given.items() if value is not None or name == "events"}


class RotateBody(Body):
    """How to rotate. With ``overlap`` the former secret signs too for 24 hours."""

    overlap: bool = True


class SampleBody(Body):
    """Which event to send a sample of."""

    event: EventName = DELTA_VERIFIED


class RetryBody(Body):
    """Nothing."""


class WebhookAnswer(Answer):
    """One endpoint. ``enabled`` and ``active`` are the same; ``events`` null means every event."""

    id: str
    url: str
    description: str
    events: list[str] | None
    enabled: bool
    active: bool
    disabled_reason: str | None
    created_at: Moment
    former_secret_until: Moment | None
    last_triggered: Moment | None
    success_count: int
    failure_count: int


class CreatedWebhook(WebhookAnswer):
    """A new endpoint with its secret, which is shown this once."""

    secret: str


class WebhookList(Answer):
    """The endpoints of the data plane, oldest first."""

    webhooks: list[WebhookAnswer]


class RemovedWebhook(Answer):
    """An endpoint that is no more."""

    id: str
    deleted: bool


class RotatedSecret(Answer):
    """The new secret of an endpoint, which is shown this once."""

    id: str
    secret: str
    former_secret_until: Moment | None


class QueuedTest(Answer):
    """The sample that was queued: its delivery is listed once it was sent."""

    event_id: str
    event: str
    queued: bool


class DeliveryQuery(Query):
    """Which deliveries to list. ``eventId``: one event, by any id of a range."""

    status: State | None = None
    webhook_id: Annotated[str, Field(max_length=40)] | None = None
    event_id: Annotated[str, Field(max_length=48)] | None = None
    limit: Annotated[Count, Field(ge=1, le=1_000)] = 50
    offset: Annotated[Count, Field(le=1_000_000_000)] = 0


class DeliveryAnswer(Answer):
    """What became of one event at one endpoint."""

    event_id: str
    event: str
    webhook_id: str
    delivery_status: DeliveryState
    attempts: int
    last_response_code: int | None
    last_error: str | None
    created_at: Moment
    last_attempt_at: Moment | None
    next_attempt_at: Moment | None


class Slice(Answer):
    """Where a list was cut."""

    limit: int
    offset: int
    total: int


class DeliveryList(Answer):
    """Deliveries, newest event first. An event is listed from its first attempt on."""

    deliveries: list[DeliveryAnswer]
    pagination: Slice


class QueuedRetry(Answer):
    """An event that is sent again, under its own id."""

    event_id: str
    queued: bool


@operation(
    webhooks,
    "GET",
    "",
    Operation("List the webhook endpoints", answer=WebhookList, scope=WEBHOOK_MANAGE),
)
def webhook_list(call: Call) -> dict[str, Any]:
    """Return every endpoint of the data plane. Secrets are not shown again."""
    with call.app.db.read(call.scope) as connection:
        found = endpoints.list_endpoints(connection, call.scope)
    return {"webhooks": [one.document for one in found]}


@operation(
    webhooks,
    "POST",
    "",
    Operation(
        "Make a webhook endpoint",
        answer=CreatedWebhook,
        status=201,
        scope=WEBHOOK_MANAGE,
        body=EndpointBody,
        errors=("URL_NOT_ALLOWED", "UNKNOWN_EVENT", "TOO_MANY_ENDPOINTS"),
        examples={"all events": {"url": URL}, "some": {"url": URL, "events": ["delta.verified", "customer.created"]}},
    ),
)
def webhook_create(call: Call) -> dict[str, Any]:
    """Make an endpoint and return it with its secret, which is shown this once."""
    body: EndpointBody = call.body
    with call.app.db.write(call.scope) as connection:
        made, secret = endpoints.create_endpoint(
            connection,
            call.app.keys,
            call.app.clock,
            call.scope,
            _egress(call),
            url=body.url,
            description=body.description,
            wanted=body.events,
        )
        _audit(call, connection, "webhook.created", made.endpoint_id)
    return made.document | {"secret": secret}


@operation(
    webhooks,
    "GET",
    "/<webhook_id>",
    Operation("One webhook endpoint", answer=WebhookAnswer, scope=WEBHOOK_MANAGE, errors=("NOT_FOUND",)),
)
def webhook_detail(call: Call, webhook_id: str) -> dict[str, Any]:
    """Return one endpoint. Its secret is not shown again."""
    with call.app.db.read(call.scope) as connection:
        return endpoints.require_endpoint(connection, call.scope, webhook_id).document


@operation(
    webhooks,
    "PATCH",
    "/<webhook_id>",
    Operation(
        "Change a webhook endpoint",
        answer=WebhookAnswer,
        scope=WEBHOOK_MANAGE,
        body=EndpointChange,
        errors=("URL_NOT_ALLOWED", "UNKNOWN_EVENT", "NOT_FOUND"),
        examples={"stop": {"enabled": False}, "every event": {"events": None}},
    ),
)
def webhook_update(call: Call, webhook_id: str) -> dict[str, Any]:
    """Change what is given. An endpoint that is enabled again gets what was waiting for it."""
    changes = call.body.changes
    with call.app.db.write(call.scope) as connection:
        changed = endpoints.update_endpoint(connection, call.scope, _egress(call), webhook_id, changes)
        _audit(call, connection, "webhook.updated", webhook_id, changed=sorted(changes))
    return changed.document


@operation(
    webhooks,
    "DELETE",
    "/<webhook_id>",
    Operation("Remove a webhook endpoint", answer=RemovedWebhook, scope=WEBHOOK_MANAGE, errors=("NOT_FOUND",)),
)
def webhook_delete(call: Call, webhook_id: str) -> dict[str, Any]:
    """Remove an endpoint and what was to be sent to it. The log of its deliveries stays."""
    with call.app.db.write(call.scope) as connection:
        endpoints.delete_endpoint(connection, call.scope, webhook_id)
        _audit(call, connection, "webhook.deleted", webhook_id)
    return {"id": webhook_id, "deleted": True}


@operation(
    webhooks,
    "POST",
    "/<webhook_id>/rotate-secret",
    Operation(
        "Give a webhook endpoint a new secret",
        answer=RotatedSecret,
        scope=WEBHOOK_MANAGE,
        body=RotateBody,
        errors=("NOT_FOUND",),
        examples={"with overlap": {}, "at once": {"overlap": False}},
    ),
)
def webhook_rotate(call: Call, webhook_id: str) -> dict[str, Any]:
    """Return a new secret, shown this once. With overlap the former one signs too for 24 hours."""
    overlap = call.body.overlap
    with call.app.db.write(call.scope) as connection:
        secret = endpoints.rotate_secret(
            connection, call.app.keys, call.app.clock, call.scope, webhook_id, overlap=overlap
        )
        _audit(call, connection, "webhook.rotated", webhook_id, overlap=overlap)
        until = endpoints.require_endpoint(connection, call.scope, webhook_id).former_secret_until
    return {"id": webhook_id, "secret": secret, "formerSecretUntil": rfc3339(until) if until else None}


@operation(
    webhooks,
    "POST",
    "/<webhook_id>/test",
    Operation(
        "Send a sample event to a webhook endpoint",
        answer=QueuedTest,
        status=201,
        scope=WEBHOOK_MANAGE,
        body=SampleBody,
        errors=("UNKNOWN_EVENT", "NOT_FOUND", "ENDPOINT_DISABLED"),
        examples={"the usual": {}, "another": {"event": "customer.created"}},
    ),
)
def webhook_test(call: Call, webhook_id: str) -> dict[str, Any]:
    """Queue a sample of an event for one endpoint, whatever it subscribes to; the worker sends it."""
    event = call.body.event
    with call.app.db.write(call.scope) as connection:
        event_id = endpoints.send_test(connection, call.app.clock, call.scope, webhook_id, event)
        _audit(call, connection, "webhook.tested", webhook_id)
    return {"eventId": event_id, "event": event, "queued": True}


@operation(
    deliveries,
    "GET",
    "",
    Operation("List webhook deliveries", answer=DeliveryList, scope=RECORD_READ, query=DeliveryQuery),
)
def delivery_list(call: Call) -> dict[str, Any]:
    """Return deliveries, newest event first; or what became of one event, by any id of a range."""
    query: DeliveryQuery = call.query
    with call.app.db.read(call.scope) as connection:
        if query.event_id is not None:
            found = log.find_event(connection, call.scope, query.event_id)
            found = [one for one in found if query.status in (None, one.state)]
            total, found = len(found), found[query.offset : query.offset + query.limit]
        else:
            found, total = log.list_deliveries(
                connection,
                call.scope,
                state=query.status,
                endpoint_id=query.webhook_id,
                limit=query.limit,
                offset=query.offset,
            )
    return {
        "deliveries": [one.document for one in found],
        "pagination": {"limit": query.limit, "offset": query.offset, "total": total},
    }


@operation(
    deliveries,
    "POST",
    "/<event_id>/retry",
    Operation(
        "Send an event again",
        answer=QueuedRetry,
        scope=WEBHOOK_MANAGE,
        body=RetryBody,
        errors=("NOT_FOUND", "NO_ENDPOINT"),
        examples={"always": {}},
    ),
)
def delivery_retry(call: Call, event_id: str) -> dict[str, Any]:
    """Have one event sent again, whether or not it was accepted before, by any id of a range."""
    with call.app.db.write(call.scope) as connection:
        log.retry_event(connection, call.app.clock, call.scope, event_id)
    return {"eventId": event_id, "queued": True}


def _egress(call: Call) -> Egress:
    return Egress(call.app.settings.egress_allow)


def _audit(call: Call, connection: Connection, event: str, webhook_id: str, **detail: object) -> None:
    actor = f"key:{call.key.public_id}"
    audit.record(connection, call.scope, call.app.clock, event, actor=actor, detail={"webhook": webhook_id} | detail)
