"""Sending: the worker's side of webhooks, at least once, with ids that stay the same.

One worker at a time sends to an endpoint, under a lease with a fencing number. It takes a slice of what is due, sends
it over a few connections, and writes what became of it in one transaction; killed in between, it leaves the slice to
be sent again. Endpoints do not wait for each other.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, exists, or_, select
from sqlalchemy.exc import SQLAlchemyError

from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.lookup import TenantRow
from shared_record.db.schema import webhook_delivery, webhook_endpoint, webhook_event, webhook_task
from shared_record.db.scope import Scope
from shared_record.delivery import events, outbox, signing
from shared_record.delivery.egress import Channel, Egress, EgressError, parse_target
from shared_record.delivery.webhooks import valid_secrets
from shared_record.errors import SharedRecordError
from shared_record.keys import KeyRing

RETRIES = tuple(timedelta(seconds=seconds) for seconds in (60, 300, 1_800, 7_200, 28_800, 86_400, 145_440))
"""What is waited after each failed attempt of an event, less up to a tenth at random: 75 hours in all."""
LEASE = timedelta(seconds=60)
SLICE = 200
SLICE_SECONDS = 20.0
"""No further message of a slice is begun after this; with resolving and the last answer it ends within the lease."""
CONNECTIONS = 4
"""To one endpoint at a time; one where the last round failed."""
AT_ONCE, AT_ONCE_PER_TENANT = 16, 4
"""Endpoints that are sent to at the same time."""
LONGEST_PAUSE = timedelta(minutes=5)
GIVE_UP = 900
"""Rounds in a row without one success, with the longest pause after each 75 hours, after which it is disabled."""
GONE = 410

_log = logging.getLogger("shared_record.delivery")
_random = secrets.SystemRandom()

Expand = Callable[[Connection, Scope, str, int, int], Mapping[int, str]]
"""Returns the data of ``delta.verified`` for the deltas from … to … of a period tree, by position."""

_T: BindParameter[UUID] = bindparam("t")
_NOW: BindParameter[datetime] = bindparam("now", type_=webhook_endpoint.c.lease_until.type)
_ID: BindParameter[str] = bindparam("id")
_FREE = (
    webhook_endpoint.c.enabled,
    or_(webhook_endpoint.c.lease_until.is_(None), webhook_endpoint.c.lease_until <= _NOW),
    or_(webhook_endpoint.c.not_before.is_(None), webhook_endpoint.c.not_before <= _NOW),
)
_DUE = select(webhook_endpoint.c.endpoint_id).where(
    webhook_endpoint.c.tenant_id == _T,
    *_FREE,
    or_(
        exists().where(
            webhook_task.c.tenant_id == webhook_endpoint.c.tenant_id,
            webhook_task.c.endpoint_id == webhook_endpoint.c.endpoint_id,
        ),
        exists().where(
            webhook_delivery.c.tenant_id == webhook_endpoint.c.tenant_id,
            webhook_delivery.c.endpoint_id == webhook_endpoint.c.endpoint_id,
            webhook_delivery.c.state == "PENDING",
            webhook_delivery.c.next_attempt_at <= _NOW,
        ),
    ),
)
_MINE = (webhook_endpoint.c.tenant_id == _T) & (webhook_endpoint.c.endpoint_id == _ID)
_TAKE = (
    webhook_endpoint.update()
    .where(_MINE, *_FREE)
    .values(fence=webhook_endpoint.c.fence + 1, lease_until=bindparam("until"))
    .returning(webhook_endpoint.c.fence)
)
_ENDPOINT = select(webhook_endpoint).where(_MINE)
_AGAIN = (
    select(
        webhook_delivery.c.delivery_id,
        webhook_delivery.c.event_id,
        webhook_delivery.c.seq,
        webhook_event.c.event,
        webhook_event.c.tree_id,
        webhook_event.c.data,
        webhook_event.c.created_at,
    )
    .select_from(
        webhook_delivery.join(
            webhook_event,
            (webhook_event.c.tenant_id == webhook_delivery.c.tenant_id)
            & (webhook_event.c.event_id == webhook_delivery.c.event_id),
        )
    )
    .where(
        webhook_delivery.c.tenant_id == _T,
        webhook_delivery.c.endpoint_id == _ID,
        webhook_delivery.c.state == "PENDING",
        webhook_delivery.c.next_attempt_at <= _NOW,
    )
    .order_by(webhook_delivery.c.next_attempt_at)
    .limit(SLICE)
)
_TASKS = (
    select(
        webhook_task.c.task_id,
        webhook_task.c.first,
        webhook_task.c.last,
        webhook_event.c.event_id,
        webhook_event.c.event,
        webhook_event.c.tree_id,
        webhook_event.c.data,
        webhook_event.c.created_at,
    )
    .select_from(
        webhook_task.join(
            webhook_event,
            (webhook_event.c.tenant_id == webhook_task.c.tenant_id)
            & (webhook_event.c.event_id == webhook_task.c.event_id),
        )
    )
    .where(webhook_task.c.tenant_id == _T, webhook_task.c.endpoint_id == _ID)
    .order_by(webhook_task.c.created_at, webhook_task.c.task_id)
    .limit(SLICE)
)
_KNOWN = select(webhook_delivery.c.delivery_id, webhook_delivery.c.attempts).where(
    webhook_delivery.c.tenant_id == _T,
    webhook_delivery.c.endpoint_id == _ID,
    webhook_delivery.c.delivery_id.in_(bindparam("deliveries", expanding=True)),
)
_UPDATE = (
    webhook_delivery.update()
    .where(
        webhook_delivery.c.tenant_id == _T,
        webhook_delivery.c.endpoint_id == _ID,
        webhook_delivery.c.delivery_id == bindparam("which"),
    )
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("state", "attempts", "last_code", "last_error", "last_attempt_at", "next_attempt_at")
        }
    )
)
_ADVANCE = (
    webhook_task.update()
    .where(webhook_task.c.tenant_id == _T, webhook_task.c.task_id == bindparam("task"))
    .values(first=bindparam("new_first"))
)
_FINISH = webhook_task.delete().where(webhook_task.c.tenant_id == _T, webhook_task.c.task_id == bindparam("task"))
_LEFT_OUT = (
    webhook_delivery.update()
    .where(
        webhook_delivery.c.tenant_id == _T,
        webhook_delivery.c.endpoint_id == _ID,
        webhook_delivery.c.delivery_id == bindparam("which"),
    )
    .values(state="FAILED", last_error="erased", next_attempt_at=None)
)


@dataclass(frozen=True, slots=True)
class _Message:
    """One thing to post. ``body`` is ``None`` where what it told of was erased. ``task`` is ``None`` for a retry."""

    delivery_id: str
    event_id: str
    seq: int | None
    event: str
    created_at: datetime
    body: bytes | None
    task: str | None
    last_of_task: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one message: a status, or why there is none."""

    message: _Message
    at: datetime
    status: int | None
    error: str | None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class _Claim:
    """The right to send to one endpoint until the lease ends or a higher ``fence`` is handed out."""

    tenant: TenantRow
    endpoint_id: str
    fence: int

    @property
    def scope(self) -> Scope:
        return self.tenant.scope

    @property
    def key(self) -> dict[str, Any]:
        return {"t": self.scope.plane, "id": self.endpoint_id}


OnDisabled = Callable[[Connection, Scope, str, str], None]
"""Hears, in the transaction of it, that an endpoint was disabled, and why."""


@dataclass
class Deliverer:
    """Sends what is due for every tenant. Any number may run; ``run`` keeps one thread and a pool of its own busy."""

    db: Database
    keys: KeyRing
    clock: Clock
    egress: Egress
    expand: Expand
    on_disabled: OnDisabled | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _busy: dict[tuple[Scope, str], Future[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, "webhooks")
        self._connections = ThreadPoolExecutor(AT_ONCE * CONNECTIONS, "webhook-connections")

    def run(self, stop: threading.Event, poll_seconds: float = 1.0) -> None:
        """Send until ``stop`` is set; then finish what is under way, at most one answer per connection."""
        while not stop.is_set():
            self._wake.clear()
            try:
                self._dispatch()
            except SQLAlchemyError as error:
                _log.error("database unavailable: %s", type(error).__name__)
            self._wait(stop, poll_seconds)
        self.close()

    def run_once(self) -> int:
        """Send everything that is due now, and wait for it; return how many attempts were made."""
        attempts = 0
        while started := self._dispatch():
            wait(started)
            attempts += sum(future.result() for future in started)
        return attempts

    def close(self) -> None:
        """End the threads; what is not sent stays due."""
        self._stopping.set()
        self._pool.shutdown()
        self._connections.shutdown()

    def _wait(self, stop: threading.Event, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < limit and not self._wake.wait(min(0.1, seconds)):
            pass

    # --- Handing out -------------------------------------------------------------------------------------------------

    def _dispatch(self) -> list[Future[int]]:
        self._busy = {key: future for key, future in self._busy.items() if not future.done()}
        started = []
        tenants = lookup.list_webhooks_due(self.db, self.clock.now())
        _random.shuffle(tenants)
        for tenant in tenants:
            while outbox.share_out(self.db, tenant.scope) == outbox.SHARED_OUT:
                pass
            for endpoint_id in self._due(tenant.scope):
                if self._full(tenant.scope):
                    break
                claim = self._claim(tenant, endpoint_id)
                if claim is not None:
                    future = self._pool.submit(self._serve, claim)
                    self._busy[tenant.scope, endpoint_id] = future
                    future.add_done_callback(lambda _: self._wake.set())
                    started.append(future)
        return started

    def _due(self, scope: Scope) -> list[str]:
        with self.db.read(scope) as connection:
            found = connection.execute(_DUE, {"t": scope.plane, "now": self.clock.now()}).scalars().all()
        return [endpoint_id for endpoint_id in found if (scope, endpoint_id) not in self._busy]

    def _full(self, scope: Scope) -> bool:
        of_tenant = Counter(owner for owner, _ in self._busy)
        return len(self._busy) >= AT_ONCE or of_tenant[scope] >= AT_ONCE_PER_TENANT

    def _claim(self, tenant: TenantRow, endpoint_id: str) -> _Claim | None:
        now = self.clock.now()
        with self.db.write(tenant.scope) as connection:
            fence = connection.execute(
                _TAKE, {"t": tenant.scope.plane, "id": endpoint_id, "now": now, "until": now + LEASE}
            ).scalar_one_or_none()
        return None if fence is None else _Claim(tenant, endpoint_id, fence)

    # --- One slice ---------------------------------------------------------------------------------------------------

    def _serve(self, claim: _Claim) -> int:
        """Send one slice to one endpoint; return how many attempts were made."""
        try:
            with self.db.read(claim.scope) as connection:
                endpoint = connection.execute(_ENDPOINT, claim.key).one()
                messages = self._messages(connection, claim)
            outcomes = self._send(claim, endpoint, [one for one in messages if one.body is not None])
            self._settle(claim, messages, outcomes)
            return len(outcomes)
        except SQLAlchemyError as error:
            _log.error("webhook %s: database: %s", claim.endpoint_id, type(error).__name__)
        except SharedRecordError as error:
            _log.error("webhook %s: %s", claim.endpoint_id, error)
        return 0  # the lease runs out, and whoever comes next tries again

    def _messages(self, connection: Connection, claim: _Claim) -> list[_Message]:
        """Return what is due now: retries first, then tasks in the order of their events."""
        now = self.clock.now()
        again = connection.execute(_AGAIN, claim.key | {"now": now}).all()
        found = [self._retry(connection, claim, row) for row in again]
        for row in connection.execute(_TASKS, claim.key).all():
            if len(found) >= SLICE:
                break
            found += self._of_task(connection, claim, row, SLICE - len(found))
        return found

    def _retry(self, connection: Connection, claim: _Claim, row: Row[*tuple[Any, ...]]) -> _Message:
        data = row.data
        if row.tree_id is not None:
            data = self.expand(connection, claim.scope, row.tree_id, row.seq, row.seq).get(row.seq)
        return _message(claim, row, row.seq, data, task=None, last=True)

    def _of_task(self, connection: Connection, claim: _Claim, row: Row[*tuple[Any, ...]], most: int) -> list[_Message]:
        if row.tree_id is None:
            return [_message(claim, row, None, row.data, task=row.task_id, last=True)]
        upto = min(row.last, row.first + most - 1)
        data = self.expand(connection, claim.scope, row.tree_id, row.first, upto)
        return [
            _message(claim, row, seq, data.get(seq), task=row.task_id, last=seq == row.last)
            for seq in range(row.first, upto + 1)
        ]

    def _send(self, claim: _Claim, endpoint: Row[*tuple[Any, ...]], messages: Sequence[_Message]) -> list[_Outcome]:
        """Post ``messages`` in order until one fails or time is up; what was begun is a first part of them."""
        if not messages:
            return []
        valid = valid_secrets(self.keys, claim.scope, endpoint, self.clock.now())
        try:
            target = parse_target(endpoint.url)
            addresses = self.egress.addresses(target, time.monotonic() + self.egress.deadline)
        except SharedRecordError as error:
            return [_Outcome(messages[0], self.clock.now(), None, error.message)]
        queue, outcomes, stop = deque(messages), list[_Outcome](), threading.Event()
        limit = time.monotonic() + SLICE_SECONDS

        def work() -> None:
            connection = Channel(self.egress, target, addresses)
            try:
                while not (stop.is_set() or self._stopping.is_set()) and time.monotonic() < limit:
                    try:
                        message = queue.popleft()
                    except IndexError:
                        return
                    outcome = self._attempt(connection, message, valid)
                    outcomes.append(outcome)
                    if not outcome.accepted:
                        stop.set()
            finally:
                connection.close()

        wanted = 1 if endpoint.failing else min(CONNECTIONS, -(-len(messages) // 8))
        if wanted == 1:
            work()
        else:
            for future in [self._connections.submit(work) for _ in range(wanted)]:
                future.result()
        return outcomes

    def _attempt(self, connection: Channel, message: _Message, valid: Sequence[str]) -> _Outcome:
        body = message.body or b""
        now = self.clock.now()
        headers = signing.headers(valid, message.event, message.delivery_id, int(now.timestamp()), body)
        try:
            return _Outcome(message, now, connection.post(body, headers).status, None)
        except EgressError as error:
            return _Outcome(message, now, None, error.message[:200])

    # --- What became of it -------------------------------------------------------------------------------------------

    def _settle(self, claim: _Claim, messages: Sequence[_Message], outcomes: Sequence[_Outcome]) -> None:
        """Write the log, what is left of the tasks, and the endpoint's state; nothing if the lease was overtaken."""
        done = {id(outcome.message) for outcome in outcomes}
        settled = []
        for message in messages:
            if message.body is not None and id(message) not in done:
                break
            settled.append(message)
        with self.db.write(claim.scope) as connection:
            row = connection.execute(_ENDPOINT.with_for_update(), claim.key).one_or_none()
            if row is None or row.fence != claim.fence:
                return
            self._write_tasks(connection, claim, settled)  # in the order in which events are erased
            self._write_log(connection, claim, outcomes)
            values = _after_round(row, outcomes, self.clock.now())
            connection.execute(webhook_endpoint.update().where(_MINE).values(**values), claim.key)
            if self.on_disabled is not None and not values.get("enabled", True):
                self.on_disabled(connection, claim.scope, claim.endpoint_id, values["disabled_reason"])
        if not values.get("enabled", True):
            _log.warning("webhook.disabled %s: %s", claim.endpoint_id, values["disabled_reason"])

    def _write_log(self, connection: Connection, claim: _Claim, outcomes: Sequence[_Outcome]) -> None:
        names = [outcome.message.delivery_id for outcome in outcomes]
        known = {
            row.delivery_id: row.attempts
            for row in (connection.execute(_KNOWN, claim.key | {"deliveries": names}) if names else ())
        }
        fresh: dict[str, dict[str, Any]] = {}
        changed: list[dict[str, Any]] = []
        for outcome in outcomes:
            message = outcome.message
            attempts = known.get(message.delivery_id, 0) + 1
            known[message.delivery_id] = attempts
            values = _log_values(outcome, attempts)
            if attempts == 1 or message.delivery_id in fresh:  # an event may be in a slice twice, resent by hand
                fresh[message.delivery_id] = {
                    "tenant_id": claim.scope.plane,
                    "delivery_id": message.delivery_id,
                    "endpoint_id": claim.endpoint_id,
                    "event_id": message.event_id,
                    "seq": message.seq,
                    "event": message.event,
                    "created_at": message.created_at,
                    **values,
                }
            else:
                new = {f"new_{name}": value for name, value in values.items()}
                changed.append(claim.key | {"which": message.delivery_id} | new)
        if fresh:
            connection.execute(webhook_delivery.insert(), list(fresh.values()))
        if changed:
            connection.execute(_UPDATE, changed)

    def _write_tasks(self, connection: Connection, claim: _Claim, settled: Sequence[_Message]) -> None:
        of = {"t": claim.scope.plane}
        last = {message.task: message for message in settled if message.task is not None}
        finished = [of | {"task": task} for task, message in last.items() if message.last_of_task]
        begun = [
            of | {"task": task, "new_first": message.seq + 1}
            for task, message in last.items()
            if not message.last_of_task and message.seq is not None
        ]
        erased = [claim.key | {"which": one.delivery_id} for one in settled if one.task is None and one.body is None]
        for statement, rows in ((_FINISH, finished), (_ADVANCE, begun), (_LEFT_OUT, erased)):
            if rows:
                connection.execute(statement, rows)


def _message(
    claim: _Claim, row: Row[*tuple[Any, ...]], seq: int | None, data: str | None, *, task: str | None, last: bool
) -> _Message:
    name = events.delivery_id(row.event_id, seq)
    body = None
    if data is not None:
        body = events.body(name, row.event, claim.tenant.public_id, row.created_at, data)
    return _Message(name, row.event_id, seq, row.event, row.created_at, body, task, last)


def next_attempt(attempts: int, at: datetime) -> datetime | None:
    """Return when an event is tried again that failed ``attempts`` times, the last time ``at``; ``None``: no more."""
    if attempts > len(RETRIES):
        return None
    return at + RETRIES[attempts - 1] * (1 - _random.random() / 10)


def _log_values(outcome: _Outcome, attempts: int) -> dict[str, Any]:
    following = None
    if not outcome.accepted and outcome.status != GONE:
        following = next_attempt(attempts, outcome.at)
    state = "DELIVERED" if outcome.accepted else "PENDING" if following else "FAILED"
    return {
        "state": state,
        "attempts": attempts,
        "last_code": outcome.status,
        "last_error": outcome.error,
        "last_attempt_at": outcome.at,
        "next_attempt_at": following,
    }


def _after_round(row: Row[*tuple[Any, ...]], outcomes: Sequence[_Outcome], now: datetime) -> dict[str, Any]:
    """Return what a round changes in its endpoint: counts, the pause after failures, and whether it is disabled."""
    accepted = sum(outcome.accepted for outcome in outcomes)
    values: dict[str, Any] = {"lease_until": None}
    if not outcomes:
        return values
    failing = 0 if accepted else row.failing + 1
    pause = min(LONGEST_PAUSE, timedelta(seconds=2 ** min(failing, 20)))
    values |= {
        "last_attempt_at": max(outcome.at for outcome in outcomes),
        "successes": row.successes + accepted,
        "failures": row.failures + len(outcomes) - accepted,
        "failing": failing,
        "not_before": now + pause if failing else None,
    }
    if any(outcome.status == GONE for outcome in outcomes):
        values |= {"enabled": False, "disabled_reason": "it answered 410 Gone"}
    elif failing >= GIVE_UP:
        values |= {"enabled": False, "disabled_reason": "it accepted nothing for 75 hours"}
    return values
