"""The log of deliveries, and sending again by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, func, select

from shared_record.clock import Clock, rfc3339
from shared_record.db.engine import Database
from shared_record.db.schema import webhook_delivery, webhook_endpoint, webhook_event, webhook_task
from shared_record.db.scope import Scope
from shared_record.delivery import events, outbox
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError

STATES = ("PENDING", "DELIVERED", "FAILED")
PAGE = 500
"""Events that a retry of a range reads at a time."""
KEPT = timedelta(days=30)
"""How long what was delivered, or failed for good, stays in the log and can be sent again."""

_T: BindParameter[UUID] = bindparam("t")
_LOG = select(webhook_delivery).where(webhook_delivery.c.tenant_id == _T)
_COUNT = select(func.count()).select_from(webhook_delivery).where(webhook_delivery.c.tenant_id == _T)
_EVENT = select(webhook_event).where(
    webhook_event.c.tenant_id == _T, webhook_event.c.event_id == bindparam("id"), webhook_event.c.state == "sent"
)
_BETWEEN = (
    select(webhook_event.c.event_id, webhook_event.c.event, webhook_event.c.first, webhook_event.c.last)
    .where(
        webhook_event.c.tenant_id == _T,
        webhook_event.c.state == "sent",
        webhook_event.c.created_at >= bindparam("since"),
        webhook_event.c.created_at < bindparam("until"),
        webhook_event.c.event_id > bindparam("after"),
    )
    .order_by(webhook_event.c.event_id)
    .limit(PAGE)
)
_ENDPOINTS = select(webhook_endpoint.c.endpoint_id, webhook_endpoint.c.events).where(
    webhook_endpoint.c.tenant_id == _T, webhook_endpoint.c.enabled
)
_WAITING = select(webhook_task).where(webhook_task.c.tenant_id == _T, webhook_task.c.event_id == bindparam("id"))
_PAST = (
    select(webhook_event.c.event_id)
    .where(
        webhook_event.c.tenant_id == _T,
        webhook_event.c.state == "sent",
        webhook_event.c.created_at < bindparam("before"),
        ~select(webhook_task.c.task_id)
        .where(webhook_task.c.tenant_id == _T, webhook_task.c.event_id == webhook_event.c.event_id)
        .exists(),
        ~select(webhook_delivery.c.delivery_id)
        .where(
            webhook_delivery.c.tenant_id == _T,
            webhook_delivery.c.event_id == webhook_event.c.event_id,
            webhook_delivery.c.state == "PENDING",
        )
        .exists(),
    )
    .limit(PAGE)
)
_DROP_DELIVERIES = webhook_delivery.delete().where(
    webhook_delivery.c.tenant_id == _T, webhook_delivery.c.event_id.in_(bindparam("ids", expanding=True))
)
_DROP_EVENTS = webhook_event.delete().where(
    webhook_event.c.tenant_id == _T, webhook_event.c.event_id.in_(bindparam("ids", expanding=True))
)
_WAKE = (
    webhook_endpoint.update()
    .where(webhook_endpoint.c.tenant_id == _T, webhook_endpoint.c.endpoint_id == bindparam("id"))
    .values(not_before=None)
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one event at one endpoint. Without attempts it still waits for its first one."""

    event_id: str
    event: str
    endpoint_id: str
    state: str
    attempts: int
    last_code: int | None
    last_error: str | None
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None

    @property
    def document(self) -> dict[str, Any]:
        """The delivery as JSON answers have it."""
        return {
            "eventId": self.event_id,
            "event": self.event,
            "webhookId": self.endpoint_id,
            "deliveryStatus": self.state,
            "attempts": self.attempts,
            "lastResponseCode": self.last_code,
            "lastError": self.last_error,
            "createdAt": rfc3339(self.created_at),
            "lastAttemptAt": rfc3339(self.last_attempt_at) if self.last_attempt_at else None,
            "nextAttemptAt": rfc3339(self.next_attempt_at) if self.next_attempt_at else None,
        }


def list_deliveries(
    connection: Connection,
    scope: Scope,
    *,
    state: str | None = None,
    endpoint_id: str | None = None,
    limit: int = 50,
    offset: int = 0,
) -> tuple[list[Delivery], int]:
    """Return deliveries, newest event first, and how many match; an event is in the log from its first attempt on."""
    of: dict[str, Any] = {"t": scope.plane}
    query, count = _LOG, _COUNT
    for column, value in ((webhook_delivery.c.state, state), (webhook_delivery.c.endpoint_id, endpoint_id)):
        if value is not None:
            query, count = (one.where(column == bindparam(column.key)) for one in (query, count))
            of[column.key] = value
    newest = query.order_by(webhook_delivery.c.created_at.desc(), webhook_delivery.c.delivery_id.desc())
    rows = connection.execute(newest.limit(limit).offset(offset), of)
    return [_delivery(row) for row in rows], connection.execute(count, of).scalar_one()


def find_event(connection: Connection, scope: Scope, text: str) -> list[Delivery]:
    """Return what became of one event, by its id or any id of a range; ``NotFoundError`` for one that does not exist.

    It also tells of endpoints that wait for its first attempt; of a whole range, of those attempted so far.
    """
    row, seq = _event(connection, scope, text)
    query: Select[Any] = _LOG.where(webhook_delivery.c.event_id == bindparam("id"))
    of: dict[str, Any] = {"t": scope.plane, "id": row.event_id}
    if seq is not None:
        query = query.where(webhook_delivery.c.delivery_id == bindparam("one"))
        of["one"] = text
    found = [_delivery(one) for one in connection.execute(query, of)]
    tried = {one.endpoint_id for one in found}
    for task in connection.execute(_WAITING, {"t": scope.plane, "id": row.event_id}):
        within = seq is None or task.first <= seq <= task.last
        if within and task.endpoint_id not in tried:
            found.append(
                Delivery(text, row.event, task.endpoint_id, "PENDING", 0, None, None, row.created_at, None, None)
            )
    return found


def retry_event(connection: Connection, clock: Clock, scope: Scope, text: str, endpoint_id: str | None = None) -> int:
    """Have one event sent again, by its id or any id of a range; return to how many endpoints.

    Without ``endpoint_id`` it goes to those that subscribe now, and to those that it was sent to before.
    """
    row, seq = _event(connection, scope, text)
    first, last = (row.first, row.last) if seq is None else (seq, seq)
    attempted = select(webhook_delivery.c.endpoint_id).where(
        webhook_delivery.c.tenant_id == _T, webhook_delivery.c.event_id == bindparam("id")
    )
    before = set(connection.execute(attempted, {"t": scope.plane, "id": row.event_id}).scalars())
    chosen = _chosen(connection, scope, endpoint_id)
    targets = [name for name, wanted in chosen.items() if endpoint_id or name in before or row.event in wanted]
    if not targets:
        raise ConflictError("No enabled endpoint gets this event.", code="NO_ENDPOINT")
    _send(connection, clock, scope, [(name, row.event_id, first, last) for name in targets])
    return len(targets)


def retry_range(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    since: datetime,
    until: datetime,
    endpoint_id: str | None = None,
    *,
    failed_only: bool = False,
) -> int:
    """Have every event that happened from ``since`` on and before ``until`` sent again; return how many.

    ``failed_only``: only what an endpoint never accepted, to that endpoint. A range of deltas counts each of them.
    """
    if until <= since:
        raise InvalidInputError("The range ends before it begins.")
    chosen = _chosen(connection, scope, endpoint_id)
    tasks: list[tuple[str, str, int | None, int | None]] = []
    if failed_only:
        tasks = [
            (row.endpoint_id, row.event_id, row.seq, row.seq)
            for row in _failed(connection, scope, since, until)
            if row.endpoint_id in chosen
        ]
    else:
        tasks = [
            (name, row.event_id, row.first, row.last)
            for row in _events(connection, scope, since, until)
            for name, wanted in chosen.items()
            if row.event in wanted
        ]
    _send(connection, clock, scope, tasks)
    return sum(1 if first is None or last is None else last - first + 1 for _, _, first, last in tasks)


def purge(db: Database, scope: Scope, now: datetime) -> int:
    """Remove events that are done and older than ``KEPT``, with their deliveries; return how many events."""
    done = 0
    while True:
        with db.write(scope) as connection:
            found = connection.execute(_PAST, {"t": scope.plane, "before": now - KEPT}).scalars().all()
            if not found:
                return done
            of_these = {"t": scope.plane, "ids": list(found)}
            connection.execute(_DROP_DELIVERIES, of_these)
            connection.execute(_DROP_EVENTS, of_these)
        done += len(found)


def _chosen(connection: Connection, scope: Scope, endpoint_id: str | None) -> dict[str, set[str]]:
    """Return the enabled endpoints (or the one that is named) with the events that each wants."""
    rows = connection.execute(_ENDPOINTS, {"t": scope.plane})
    found = {
        row.endpoint_id: set(events.EVENTS if row.events is None else row.events)
        for row in rows
        if endpoint_id in (None, row.endpoint_id)
    }
    if endpoint_id is not None and not found:
        raise NotFoundError("No such webhook endpoint, or it is disabled.")
    return found


def _send(
    connection: Connection, clock: Clock, scope: Scope, tasks: list[tuple[str, str, int | None, int | None]]
) -> None:
    now = clock.now()
    if tasks:
        connection.execute(webhook_task.insert(), [outbox.task_row(scope, *task, now) for task in tasks])
        # One who sends by hand does not want to wait out a pause that followed earlier failures.
        connection.execute(_WAKE, [{"t": scope.plane, "id": name} for name in {task[0] for task in tasks}])


def _events(connection: Connection, scope: Scope, since: datetime, until: datetime) -> Iterator[Row[*tuple[Any, ...]]]:
    after = ""
    while True:
        of = {"t": scope.plane, "since": since, "until": until, "after": after}
        rows = connection.execute(_BETWEEN, of).all()
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1].event_id


def _failed(connection: Connection, scope: Scope, since: datetime, until: datetime) -> list[Row[*tuple[Any, ...]]]:
    query = _LOG.where(
        webhook_delivery.c.state != "DELIVERED",
        webhook_delivery.c.created_at >= bindparam("since"),
        webhook_delivery.c.created_at < bindparam("until"),
    )
    return list(connection.execute(query, {"t": scope.plane, "since": since, "until": until}))


def _event(connection: Connection, scope: Scope, text: str) -> tuple[Row[*tuple[Any, ...]], int | None]:
    split = events.split_id(text)
    row = None
    if split is not None:
        row = connection.execute(_EVENT, {"t": scope.plane, "id": split[0]}).one_or_none()
    seq = split[1] if split else None
    if row is None or (seq is not None and not (row.first is not None and row.first <= seq <= row.last)):
        raise NotFoundError("No such event.")
    return row, seq


def _delivery(row: Row[*tuple[Any, ...]]) -> Delivery:
    return Delivery(
        row.delivery_id,
        row.event,
        row.endpoint_id,
        row.state,
        row.attempts,
        row.last_code,
        row.last_error,
        row.created_at,
        row.last_attempt_at,
        row.next_attempt_at,
    )
