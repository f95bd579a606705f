"""The audit trail: what changed, by whom, written in the transaction of the change itself. It holds no secret.

A row is written without a place, so no two changes wait for each other. ``access.chain`` gives it one afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, bindparam, or_, select

from shared_record.clock import Clock
from shared_record.db.schema import audit_event
from shared_record.db.scope import Scope

_INSERT = audit_event.insert()
_OF_CUSTOMER = (
    select(audit_event.c.event_id, audit_event.c.at, audit_event.c.event, audit_event.c.actor, audit_event.c.detail)
    .where(
        audit_event.c.tenant_id == bindparam("t"),
        audit_event.c.customer_id == bindparam("who"),
        audit_event.c.event.in_(bindparam("events", expanding=True)),
    )
    .order_by(audit_event.c.at.desc(), audit_event.c.event_id.desc())
    .limit(bindparam("most"))
)
_THEN = bindparam("then", type_=audit_event.c.at.type)
_OLDER = _OF_CUSTOMER.where(
    or_(
        audit_event.c.at < _THEN,
        (audit_event.c.at == _THEN) & (audit_event.c.event_id < bindparam("last", type_=audit_event.c.event_id.type)),
    )
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
    event_id: UUID


def of_customer(
    connection: Connection,
    scope: Scope,
    customer_id: UUID,
    events: Sequence[str],
    most: int,
    *,
    after: tuple[datetime, UUID] | None = None,
) -> list[Event]:
    """Return the newest of these ``events`` that concern one customer, newest first.

    ``after``: time and id of one; only those that are older, or of the same moment with a lesser id.
    """
    asked: dict[str, Any] = {"t": scope.plane, "who": customer_id, "events": list(events), "most": most}
    if after is not None:
        asked |= {"then": after[0], "last": after[1]}
    rows = connection.execute(_OF_CUSTOMER if after is None else _OLDER, asked)
    return [Event(row.at, row.event, row.actor, row.detail, row.event_id) for row in rows]
