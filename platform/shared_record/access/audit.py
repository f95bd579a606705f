"""The audit trail: what changed, by whom, written in the transaction of the change itself. It holds no secret.

A row is written without a place, so no two changes wait for each other. ``access.chain`` gives it one afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, bindparam, select

from shared_record.clock import Clock
from shared_record.db.schema import audit_event
from shared_record.db.scope import Scope

_INSERT = audit_event.insert()
_OF_CUSTOMER = (
    select(audit_event.c.at, audit_event.c.event, audit_event.c.actor, audit_event.c.detail)
    .where(
        audit_event.c.tenant_id == bindparam("t"),
        audit_event.c.customer_id == bindparam("who"),
        audit_event.c.event.in_(bindparam("events", expanding=True)),
    )
    .order_by(audit_event.c.at.desc())
    .limit(bindparam("most"))
)


def record(
    connection: Connection,
    scope: Scope,
    clock: Clock,
    event: str,
    *,
    actor: str,
    customer_id: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one event. ``event`` is a name such as ``code.rotated``; ``actor`` says who: ``cli``, ``key:<public id>``."""
    connection.execute(
        _INSERT,
        {
            "tenant_id": scope.plane,
            "event_id": uuid4(),
            "at": clock.now(),
            "event": event,
            "actor": actor,
            "customer_id": customer_id,
            "detail": dict(detail or {}),
        },
    )


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the trail."""

    at: datetime
    event: str
    actor: str
    detail: dict[str, Any]


def of_customer(
    connection: Connection, scope: Scope, customer_id: UUID, events: Sequence[str], most: int
) -> list[Event]:
    """Return the newest of these ``events`` that concern one customer, newest first."""
    rows = connection.execute(
        _OF_CUSTOMER, {"t": scope.plane, "who": customer_id, "events": list(events), "most": most}
    )
    return [Event(row.at, row.event, row.actor, row.detail) for row in rows]
