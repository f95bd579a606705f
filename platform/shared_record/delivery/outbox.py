"""The outbox: an event is written in the transaction of the change it tells of, or not at all.

Nothing is written where no endpoint of the plane subscribes: one look at an indexed table of a few rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import webhook_delivery, webhook_endpoint, webhook_event, webhook_task
from shared_record.db.scope import Scope
from shared_record.delivery import events
from shared_record.identifiers import base32, new_identifier

SHARED_OUT = 500
"""Events that one transaction gives to their endpoints."""

_T: BindParameter[UUID] = bindparam("t")
_SUBSCRIBERS = select(webhook_endpoint.c.endpoint_id, webhook_endpoint.c.events, webhook_endpoint.c.created_at).where(
    webhook_endpoint.c.tenant_id == _T, webhook_endpoint.c.enabled
)
_NEW = (
    select(webhook_event)
    .where(webhook_event.c.tenant_id == _T, webhook_event.c.state == "new")
    .order_by(webhook_event.c.created_at)
    .limit(SHARED_OUT)
    .with_for_update(skip_locked=True)
)
_ANY_NEW = (
    select(webhook_event.c.event_id).where(webhook_event.c.tenant_id == _T, webhook_event.c.state == "new").limit(1)
)
_EXISTS = select(webhook_event.c.event_id).where(
    webhook_event.c.tenant_id == _T, webhook_event.c.event_id == bindparam("id")
)
_HELD = select(webhook_event.c.event_id, webhook_event.c.data).where(
    webhook_event.c.tenant_id == _T, webhook_event.c.state == "held"
)
_SET_STATE = (
    webhook_event.update()
    .where(webhook_event.c.tenant_id == _T, webhook_event.c.event_id == bindparam("id"))
    .values(state=bindparam("new_state"))
)
_RELEASE = (
    webhook_event.update()
    .where(webhook_event.c.tenant_id == _T, webhook_event.c.event_id == bindparam("id"))
    .values(state="new", created_at=bindparam("now"), data=bindparam("new_data"))
)
_OF_CUSTOMER = select(webhook_event.c.event_id).where(
    webhook_event.c.tenant_id == _T, webhook_event.c.customer_id == bindparam("who")
)


@dataclass(frozen=True, slots=True)
class DeltaRange:
    """The deltas ``first`` to ``last`` of one period tree, which one epoch covers for the first time."""

    tree_id: str
    customer_id: UUID
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Held:
    """An event that waits until what it tells of is covered by a checkpoint."""

    event_id: str
    data: str


def subscribed(connection: Connection, scope: Scope, *names: str) -> bool:
    """Tell whether an endpoint of the plane wants any of the events ``names``."""
    return any(
        row.events is None or not set(names).isdisjoint(row.events)
        for row in connection.execute(_SUBSCRIBERS, {"t": scope.plane})
    )


def emit(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    event: str,
    data: Mapping[str, Any],
    customer_id: UUID | None = None,
) -> None:
    """Write one event, if anybody subscribes. ``data`` never holds an access code or a handle."""
    emit_many(connection, clock, scope, event, [(customer_id, data)])


def emit_many(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    event: str,
    items: Iterable[tuple[UUID | None, Mapping[str, Any]]],
    *,
    held: bool = False,
) -> None:
    """Write events of one name about several customers. ``held``: they are not sent before ``release``."""
    if not subscribed(connection, scope, event):
        return
    now = clock.now()
    rows = [
        {
            "tenant_id": scope.plane,
            "event_id": new_identifier("evt"),
            "event": event,
            "state": "held" if held else "new",
            "customer_id": customer_id,
            "data": events.data_text(data),
            "created_at": now,
        }
        for customer_id, data in items
    ]
    if rows:
        connection.execute(webhook_event.insert(), rows)


def emit_daily(
    connection: Connection, clock: Clock, scope: Scope, event: str, data: Mapping[str, Any], customer_id: UUID
) -> None:
    """Write one event unless this customer already has one of this name today (UTC).

    Two processes may find none at the same moment; the second then fails with ``IntegrityError``, and nothing is lost.
    """
    now = clock.now()
    name = f"{scope.plane}/{customer_id}/{event}/{now:%Y-%m-%d}".encode()
    event_id = "evt_" + base32(int.from_bytes(hashlib.sha256(name).digest()), 26)
    if not subscribed(connection, scope, event):
        return
    if connection.execute(_EXISTS, {"t": scope.plane, "id": event_id}).first() is None:
        connection.execute(
            webhook_event.insert(),
            {
                "tenant_id": scope.plane,
                "event_id": event_id,
                "event": event,
                "state": "new",
                "customer_id": customer_id,
                "data": events.data_text(data),
                "created_at": now,
            },
        )


def emit_deltas(connection: Connection, clock: Clock, scope: Scope, ranges: Iterable[DeltaRange]) -> None:
    """Write ``delta.verified`` for every delta of ``ranges``: one row per range, if anybody subscribes."""
    if not subscribed(connection, scope, events.DELTA_VERIFIED):
        return
    now = clock.now()
    rows = [
        {
            "tenant_id": scope.plane,
            "event_id": new_identifier("evt"),
            "event": events.DELTA_VERIFIED,
            "state": "new",
            "customer_id": one.customer_id,
            "tree_id": one.tree_id,
            "first": one.first,
            "last": one.last,
            "created_at": now,
        }
        for one in ranges
    ]
    if rows:
        connection.execute(webhook_event.insert(), rows)


def held_events(connection: Connection, scope: Scope) -> list[Held]:
    """Return the events that wait for a checkpoint."""
    return [Held(row.event_id, row.data) for row in connection.execute(_HELD, {"t": scope.plane})]


def release(connection: Connection, clock: Clock, scope: Scope, ready: Mapping[str, str]) -> None:
    """Let held events go now, with their final data (JSON text), by event id."""
    now = clock.now()
    changes = [{"t": scope.plane, "id": event_id, "now": now, "new_data": data} for event_id, data in ready.items()]
    if changes:
        connection.execute(_RELEASE, changes)


def share_out(db: Database, scope: Scope) -> int:
    """Give new events to the endpoints that subscribe now and did when they happened; return how many events."""
    with db.read(scope) as connection:
        if connection.execute(_ANY_NEW, {"t": scope.plane}).first() is None:
            return 0
    with db.write(scope) as connection:
        found = connection.execute(_NEW, {"t": scope.plane}).all()
        if not found:
            return 0
        endpoints = connection.execute(_SUBSCRIBERS, {"t": scope.plane}).all()
        tasks = [
            task_row(scope, one.endpoint_id, row.event_id, row.first, row.last, row.created_at)
            for row in found
            for one in endpoints
            if (one.events is None or row.event in one.events) and one.created_at <= row.created_at
        ]
        if tasks:
            connection.execute(webhook_task.insert(), tasks)
        connection.execute(_SET_STATE, [{"t": scope.plane, "id": row.event_id, "new_state": "sent"} for row in found])
    return len(found)


def task_row(
    scope: Scope, endpoint_id: str, event_id: str, first: int | None, last: int | None, created_at: datetime
) -> dict[str, Any]:
    """Return the row that has ``event_id``, or a part of a range, sent to an endpoint."""
    return {
        "tenant_id": scope.plane,
        "task_id": new_identifier("task"),
        "endpoint_id": endpoint_id,
        "event_id": event_id,
        "first": first,
        "last": last,
        "created_at": created_at,
    }


def erase_customer(connection: Connection, scope: Scope, customer_id: UUID) -> None:
    """Delete every event about a customer, sent or not, with the log of its deliveries."""
    of = {"t": scope.plane, "who": customer_id}
    for table in (webhook_task, webhook_delivery):
        connection.execute(table.delete().where(table.c.tenant_id == _T, table.c.event_id.in_(_OF_CUSTOMER)), of)
    connection.execute(
        webhook_event.delete().where(webhook_event.c.tenant_id == _T, webhook_event.c.customer_id == bindparam("who")),
        of,
    )
