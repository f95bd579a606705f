"""The audit trail: what changed, by whom, written in the transaction of the change itself. It holds no secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from shared_record.clock import Clock
from shared_record.db.schema import audit_event
from shared_record.db.scope import Scope

_INSERT = audit_event.insert()


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
