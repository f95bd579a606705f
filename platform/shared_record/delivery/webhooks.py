"""Webhook endpoints of one plane: made, changed, given new secrets, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from shared_record.clock import Clock, rfc3339
from shared_record.db.schema import tenant, webhook_delivery, webhook_endpoint, webhook_event, webhook_task
from shared_record.db.scope import Scope
from shared_record.delivery import events, outbox, signing
from shared_record.delivery.egress import Egress
from shared_record.errors import ConflictError, Detail, InvalidInputError, NotFoundError
from shared_record.identifiers import new_identifier
from shared_record.keys import KeyRing

MAX_ENDPOINTS = 20
"""Endpoints of one plane."""
MAX_DESCRIPTION = 200
OVERLAP = timedelta(hours=signing.OVERLAP_HOURS)

_T: BindParameter[UUID] = bindparam("t")
_ALL = (
    select(webhook_endpoint)
    .where(webhook_endpoint.c.tenant_id == _T)
    .order_by(webhook_endpoint.c.created_at, webhook_endpoint.c.endpoint_id)
)
_LOCK_TENANT = select(tenant.c.tenant_id).where(tenant.c.tenant_id == _T).with_for_update()
_COUNT = select(func.count()).select_from(webhook_endpoint).where(webhook_endpoint.c.tenant_id == _T)
_ONE = select(webhook_endpoint).where(
    webhook_endpoint.c.tenant_id == _T, webhook_endpoint.c.endpoint_id == bindparam("id")
)
_MINE = (webhook_endpoint.c.tenant_id == _T) & (webhook_endpoint.c.endpoint_id == bindparam("id"))
_END_PAUSE = webhook_endpoint.update().where(_MINE).values(not_before=None)
_DROP_TASKS = webhook_task.delete().where(webhook_task.c.tenant_id == _T, webhook_task.c.endpoint_id == bindparam("id"))
_GIVE_UP = (
    webhook_delivery.update()
    .where(
        webhook_delivery.c.tenant_id == _T,
        webhook_delivery.c.endpoint_id == bindparam("id"),
        webhook_delivery.c.state == "PENDING",
    )
    .values(state="FAILED", next_attempt_at=None)
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. ``events`` is ``None`` for the whole catalogue. Its secret is shown only when it is made."""

    endpoint_id: str
    url: str
    description: str
    events: tuple[str, ...] | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    former_secret_until: datetime | None
    last_attempt_at: datetime | None
    successes: int
    failures: int

    @property
    def document(self) -> dict[str, Any]:
        """The endpoint as JSON answers have it; ``active`` is another name of ``enabled`` in the contract."""
        return {
            "id": self.endpoint_id,
            "url": self.url,
            "description": self.description,
            "events": None if self.events is None else list(self.events),
            "enabled": self.enabled,
            "active": self.enabled,
            "disabledReason": self.disabled_reason,
            "createdAt": rfc3339(self.created_at),
            "formerSecretUntil": rfc3339(self.former_secret_until) if self.former_secret_until else None,
            "lastTriggered": rfc3339(self.last_attempt_at) if self.last_attempt_at else None,
            "successCount": self.successes,
            "failureCount": self.failures,
        }


def create_endpoint(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    egress: Egress,
    *,
    url: str,
    description: str = "",
    wanted: Sequence[str] | None = None,
) -> tuple[Endpoint, str]:
    """Make an endpoint and return it with its secret, which cannot be shown again.

    ``wanted``: names of events; ``None`` for all. ``InvalidInputError`` for a URL that may not be reached and for
    names that do not exist; ``ConflictError`` above ``MAX_ENDPOINTS``.
    """
    _check(egress, url, description, wanted)
    connection.execute(_LOCK_TENANT, {"t": scope.plane})
    if connection.execute(_COUNT, {"t": scope.plane}).scalar_one() >= MAX_ENDPOINTS:
        raise ConflictError(f"There may be {MAX_ENDPOINTS} endpoints at most.", code="TOO_MANY_ENDPOINTS")
    endpoint_id, secret = new_identifier("wh"), signing.new_secret()
    connection.execute(
        webhook_endpoint.insert(),
        {
            "tenant_id": scope.plane,
            "endpoint_id": endpoint_id,
            "url": url,
            "description": description,
            "events": None if wanted is None else sorted(set(wanted)),
            "sealed_secret": _seal(keys, scope, endpoint_id, "sealed_secret", secret),
            "created_at": clock.now(),
        },
    )
    return require_endpoint(connection, scope, endpoint_id), secret


def list_endpoints(connection: Connection, scope: Scope) -> list[Endpoint]:
    """Return all endpoints of the plane, oldest first."""
    return [_endpoint(row) for row in connection.execute(_ALL, {"t": scope.plane})]


def require_endpoint(connection: Connection, scope: Scope, endpoint_id: str) -> Endpoint:
    """Return one endpoint, or raise ``NotFoundError``."""
    return _endpoint(_row(connection, scope, endpoint_id))


def update_endpoint(
    connection: Connection, scope: Scope, egress: Egress, endpoint_id: str, changes: dict[str, Any]
) -> Endpoint:
    """Change ``url``, ``description``, ``events`` (names, or ``None`` for all) or ``enabled``; the rest stays.

    An endpoint that is enabled again gets what was waiting for it, and its pause ends.
    """
    before = require_endpoint(connection, scope, endpoint_id)
    _check(
        egress,
        changes.get("url", before.url),
        changes.get("description", ""),
        changes.get("events"),
    )
    values = dict(changes)
    if values.get("events") is not None:
        values["events"] = sorted(set(values["events"]))
    if "enabled" in values:
        values |= {"disabled_reason": None if values["enabled"] else "by hand", "not_before": None, "failing": 0}
    if values:
        change = webhook_endpoint.update().where(_MINE).values(**values)
        connection.execute(change, {"t": scope.plane, "id": endpoint_id})
    return require_endpoint(connection, scope, endpoint_id)


def delete_endpoint(connection: Connection, scope: Scope, endpoint_id: str) -> None:
    """Remove an endpoint and what was to be sent to it; the log of its deliveries stays."""
    of = {"t": scope.plane, "id": endpoint_id}
    # Its row first: whoever sends to it holds it locked while writing what became of that.
    connection.execute(_ONE.with_for_update(), of)
    _row(connection, scope, endpoint_id)
    connection.execute(_DROP_TASKS, of)
    connection.execute(_GIVE_UP, of)
    connection.execute(webhook_endpoint.delete().where(_MINE), of)


def rotate_secret(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, endpoint_id: str, *, overlap: bool = True
) -> str:
    """Give an endpoint a new secret and return it. With ``overlap`` the former one signs too for 24 hours."""
    row = _row(connection, scope, endpoint_id)
    secret = signing.new_secret()
    values: dict[str, Any] = {
        "sealed_secret": _seal(keys, scope, endpoint_id, "sealed_secret", secret),
        "sealed_former": None,
        "former_until": None,
    }
    if overlap:
        former = _open(keys, scope, endpoint_id, "sealed_secret", row.sealed_secret)
        values["sealed_former"] = _seal(keys, scope, endpoint_id, "sealed_former", former)
        values["former_until"] = clock.now() + OVERLAP
    connection.execute(webhook_endpoint.update().where(_MINE).values(**values), {"t": scope.plane, "id": endpoint_id})
    return secret


def valid_secrets(keys: KeyRing, scope: Scope, row: Row[*tuple[Any, ...]], now: datetime) -> list[str]:
    """Return the secrets that sign for the endpoint ``row`` at ``now``, the current one first."""
    found = [_open(keys, scope, row.endpoint_id, "sealed_secret", row.sealed_secret)]
    if row.sealed_former is not None and now < row.former_until:
        found.append(_open(keys, scope, row.endpoint_id, "sealed_former", row.sealed_former))
    return found


def send_test(connection: Connection, clock: Clock, scope: Scope, endpoint_id: str, event: str) -> str:
    """Have a sample of ``event`` sent to one endpoint, whatever it subscribes to; return the event's id."""
    endpoint = require_endpoint(connection, scope, endpoint_id)
    if not endpoint.enabled:
        raise ConflictError("This endpoint is disabled. Enable it first.", code="ENDPOINT_DISABLED")
    if event not in events.EVENTS:
        message = f"There is no event {event[:80]!r}."
        raise InvalidInputError(message, details=(Detail("/event", "UNKNOWN_EVENT", message),))
    now, event_id = clock.now(), new_identifier("evt")
    connection.execute(
        webhook_event.insert(),
        {
            "tenant_id": scope.plane,
            "event_id": event_id,
            "event": event,
            "state": "sent",
            "data": events.sample(event, now),
            "created_at": now,
        },
    )
    connection.execute(webhook_task.insert(), outbox.task_row(scope, endpoint_id, event_id, None, None, now))
    connection.execute(_END_PAUSE, {"t": scope.plane, "id": endpoint_id})
    return event_id


def _check(egress: Egress, url: str, description: str, wanted: Sequence[str] | None) -> None:
    egress.check(url)
    if len(description) > MAX_DESCRIPTION or "\0" in description:
        message = f"A description has at most {MAX_DESCRIPTION} characters."
        raise InvalidInputError(message, details=(Detail("/description", "VALIDATION_ERROR", message),))
    _check_events(wanted or [])


def _check_events(names: Sequence[str]) -> None:
    unknown = tuple(
        Detail(f"/events/{index}", "UNKNOWN_EVENT", f"There is no event {name[:80]!r}.")
        for index, name in enumerate(names)
        if name not in events.EVENTS
    )
    if unknown:
        raise InvalidInputError(f"Events there are: {', '.join(events.EVENTS)}.", details=unknown)


def _row(connection: Connection, scope: Scope, endpoint_id: str) -> Row[*tuple[Any, ...]]:
    known = endpoint_id.isascii() and endpoint_id.isprintable()  # PostgreSQL refuses NUL in a parameter
    row = connection.execute(_ONE, {"t": scope.plane, "id": endpoint_id}).one_or_none() if known else None
    if row is None:
        raise NotFoundError("No such webhook endpoint.")
    return row


def _endpoint(row: Row[*tuple[Any, ...]]) -> Endpoint:
    return Endpoint(
        row.endpoint_id,
        row.url,
        row.description,
        None if row.events is None else tuple(row.events),
        row.enabled,
        row.disabled_reason,
        row.created_at,
        row.former_until,
        row.last_attempt_at,
        row.successes,
        row.failures,
    )


def _seal(keys: KeyRing, scope: Scope, endpoint_id: str, column: str, secret: str) -> bytes:
    return keys.seal(secret.encode(), tenant=scope.plane, place=f"webhook_endpoint.{column}/{endpoint_id}")


def _open(keys: KeyRing, scope: Scope, endpoint_id: str, column: str, sealed: bytes) -> str:
    return keys.open(sealed, tenant=scope.plane, place=f"webhook_endpoint.{column}/{endpoint_id}").decode()
