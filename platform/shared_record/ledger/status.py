"""Where a log stands: what is published, what waits, why it is halted, and whether the lock store agrees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from shared_record.db.engine import Database
from shared_record.db.schema import awaits_epoch, checkpoint, former_log, job, log, period_tree
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.ledger.locks import LockStore
from shared_record.ledger.logs import SEQUENCER
from shared_record.ledger.note import parse_checkpoint
from shared_record.ledger.origin import number_of, start_of

_T: BindParameter[UUID] = bindparam("t")
_LOG = select(log).where(log.c.tenant_id == _T)
_NEWEST = (
    select(checkpoint.c.size, checkpoint.c.created_at)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published", checkpoint.c.size > bindparam("start"))
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)
_FORMER = select(former_log.c.origin).where(former_log.c.tenant_id == _T).order_by(former_log.c.start)
_BODY = select(checkpoint.c.body).where(checkpoint.c.tenant_id == _T, checkpoint.c.size == bindparam("size"))
_BEHIND = (
    select(func.count())
    .select_from(period_tree)
    .where(period_tree.c.tenant_id == _T, period_tree.c.status != "erased", awaits_epoch)
)
_JOB = select(job.c.holder, job.c.lease_until, job.c.failures, job.c.last_error).where(
    job.c.tenant_id == _T, job.c.kind == bindparam("kind")
)
_CLEAR = log.update().where(log.c.tenant_id == _T, log.c.halted == bindparam("reason")).values(halted=None)


class StoreState(StrEnum):
    """How the lock store and the database stand to each other."""

    AGREES = "agrees"
    AHEAD = "ahead"
    BEHIND = "behind"
    DIFFERS = "differs"
    UNREACHABLE = "unreachable"


class StoreCheck(NamedTuple):
    """What the lock store holds, next to the database; ``problem`` is ``None`` when both agree."""

    state: StoreState
    problem: str | None


def compare_with_store(db: Database, locks: LockStore, scope: Scope) -> StoreCheck:
    """Tell whether lock store and database agree (invariant I7), also while checkpoints are being made.

    The database is read before and after the store: a body is in the database before it can be in the store, and in
    the store before it can be published.
    """
    with db.read(scope) as connection:
        state = connection.execute(_LOG, {"t": scope.plane}).one()
        origin, start = state.origin, start_of(state.size)
        newest = connection.execute(_NEWEST, {"t": scope.plane, "start": start}).one_or_none()
        published = number_of(newest.size) if newest else 0
    try:
        stored = locks.read(origin)
    except (OSError, UnavailableError) as error:
        return StoreCheck(StoreState.UNREACHABLE, f"The lock store cannot be read: {error}.")
    if stored is None:
        if published == 0:
            return StoreCheck(StoreState.AGREES, None)
        return StoreCheck(
            StoreState.BEHIND, f"The lock store holds nothing for {origin}, of which {published} are published."
        )
    try:
        size = parse_checkpoint(stored).size
    except ValueError as error:
        return StoreCheck(StoreState.DIFFERS, f"The lock store holds what is no checkpoint: {error}.")
    with db.read(scope) as connection:
        known = connection.execute(_LOG, {"t": scope.plane}).one().size - start
        body = connection.execute(_BODY, {"t": scope.plane, "size": start + size}).scalar_one_or_none()
    if size > known:
        return StoreCheck(StoreState.AHEAD, f"The lock store holds size {size} of {origin}, the database only {known}.")
    if stored != body:
        return StoreCheck(
            StoreState.DIFFERS, f"Lock store and database hold two different checkpoints of size {size} of {origin}."
        )
    if size < published:
        return StoreCheck(
            StoreState.BEHIND, f"The lock store holds size {size} of {origin}, but {published} is published."
        )
    return StoreCheck(StoreState.AGREES, None)


@dataclass(frozen=True, slots=True)
class LogStatus:
    """One log as its operator needs to see it. ``behind`` counts the period trees that no checkpoint covers in full.

    ``audited_at``, ``audit_findings`` and ``audit_problem``: when the worker's last audit ended, how many places it
    found wrong, and the first of them. ``former`` are the origins that the log had before.
    """

    origin: str
    size: int
    newest_at: datetime | None
    unfinished: int
    behind: int
    halted: str | None
    holder: str | None
    lease_until: datetime | None
    failures: int
    last_error: str | None
    store: StoreCheck
    audited_at: datetime | None
    audit_findings: int | None
    audit_problem: str | None
    former: tuple[str, ...]


def read_status(db: Database, locks: LockStore, scope: Scope) -> LogStatus:
    """Return where the log of ``scope`` stands; the lock store is asked, nothing is changed."""
    of_tenant = {"t": scope.plane}
    with db.read(scope, snapshot=True) as connection:
        state = connection.execute(_LOG, of_tenant).one()
        newest = connection.execute(_NEWEST, of_tenant | {"start": start_of(state.size)}).one_or_none()
        former = tuple(connection.execute(_FORMER, of_tenant).scalars())
        behind = connection.execute(_BEHIND, of_tenant).scalar_one()
        work = connection.execute(_JOB, of_tenant | {"kind": SEQUENCER}).one_or_none()
    size = number_of(newest.size) if newest else 0
    return LogStatus(
        origin=state.origin,
        size=size,
        newest_at=newest.created_at if newest else None,
        unfinished=number_of(state.size) - size,
        behind=behind,
        halted=state.halted,
        holder=work.holder if work else None,
        lease_until=work.lease_until if work else None,
        failures=work.failures if work else 0,
        last_error=work.last_error if work else None,
        store=compare_with_store(db, locks, scope),
        audited_at=state.audited_at,
        audit_findings=state.audit_findings,
        audit_problem=state.audit_problem,
        former=former,
    )


def clear_halt(connection: Connection, scope: Scope, reason: str) -> bool:
    """Let the log be signed again if ``reason`` is still why it is halted; tell whether it was.

    The caller has made sure that lock store and database agree: the checkpointer compares them once more before each
    signature, and halts again if they do not.
    """
    return connection.execute(_CLEAR, {"t": scope.plane, "reason": reason}).rowcount == 1
