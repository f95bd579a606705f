"""Leases with fencing numbers: at most one worker does a kind of work for a tenant, and a late one is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, or_, select

from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import job
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError

_T: BindParameter[UUID] = bindparam("t")
_KIND: BindParameter[str] = bindparam("k")
_MINE = (job.c.tenant_id == _T) & (job.c.kind == _KIND)
_TAKE = (
    job.update()
    .where(_MINE, or_(job.c.lease_until.is_(None), job.c.lease_until <= bindparam("now")))
    .values(holder=bindparam("me"), lease_until=bindparam("until"), fence=job.c.fence + 1)
    .returning(job.c.fence)
)
_DUE = select(job.c.due_at).where(_MINE)
_CHECK = select(job.c.fence).where(_MINE).with_for_update()
_GIVE_BACK = (
    job.update()
    .where(_MINE, job.c.fence == bindparam("f"))
    .values(holder=None, lease_until=None, due_at=bindparam("due"), failures=0, last_error=None)
)
_FAIL = (
    job.update()
    .where(_MINE, job.c.fence == bindparam("f"))
    .values(
        holder=None, lease_until=None, due_at=bindparam("due"), failures=job.c.failures + 1, last_error=bindparam("e")
    )
)
_EXTEND = job.update().where(_MINE, job.c.fence == bindparam("f")).values(lease_until=bindparam("until"))
_CALL = job.update().where(_MINE).values(due_at=bindparam("due"))
_INSERT = job.insert()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do one kind of work for one tenant until it ends or a higher ``fence`` is handed out."""

    scope: Scope
    kind: str
    fence: int


def create_job(connection: Connection, scope: Scope, kind: str, due_at: datetime) -> None:
    """Add the row that leases of this kind are taken on."""
    connection.execute(_INSERT, {"tenant_id": scope.plane, "kind": kind, "due_at": due_at})


def due_at(connection: Connection, scope: Scope, kind: str) -> datetime:
    """Return when this kind of work is due again."""
    found: datetime = connection.execute(_DUE, {"t": scope.plane, "k": kind}).scalar_one()
    return found


def find_due(connection: Connection, scope: Scope, kind: str) -> datetime | None:
    """Return when this kind of work is due; ``None`` where there has never been any."""
    found: datetime | None = connection.execute(_DUE, {"t": scope.plane, "k": kind}).scalar_one_or_none()
    return found


def call(connection: Connection, scope: Scope, kind: str, due_at: datetime) -> bool:
    """Say that this kind of work is due at ``due_at``; return whether there is such a job. It locks the job's row."""
    return connection.execute(_CALL, {"t": scope.plane, "k": kind, "due": due_at}).rowcount > 0


def acquire(db: Database, clock: Clock, scope: Scope, kind: str, holder: str, length: timedelta) -> Lease | None:
    """Take the lease, or return ``None`` while another holds it."""
    now = clock.now()
    with db.write(scope) as connection:
        fence = connection.execute(
            _TAKE, {"t": scope.plane, "k": kind, "now": now, "me": holder, "until": now + length}
        ).scalar_one_or_none()
    return None if fence is None else Lease(scope, kind, fence)


def check_fence(connection: Connection, lease: Lease) -> None:
    """Lock the job row and raise ``ConflictError`` unless ``lease`` is still the newest: call it before each write."""
    newest = connection.execute(_CHECK, {"t": lease.scope.plane, "k": lease.kind}).scalar_one()
    if newest != lease.fence:
        raise ConflictError(f"lease {lease.fence} on {lease.kind} was overtaken by {newest}.", code="LEASE_LOST")


def extend(connection: Connection, lease: Lease, until: datetime) -> None:
    """Keep a lease that is still the newest until ``until``; else ``ConflictError``."""
    check_fence(connection, lease)
    connection.execute(_EXTEND, {"t": lease.scope.plane, "k": lease.kind, "f": lease.fence, "until": until})


def release(db: Database, lease: Lease, due_at: datetime) -> None:
    """Give the lease back; the work is due again at ``due_at``."""
    with db.write(lease.scope) as connection:
        give_back(connection, lease, due_at)


def give_back(connection: Connection, lease: Lease, due_at: datetime) -> None:
    """Give the lease back within a transaction; the work is due again at ``due_at``."""
    connection.execute(_GIVE_BACK, {"t": lease.scope.plane, "k": lease.kind, "f": lease.fence, "due": due_at})


def fail(db: Database, lease: Lease, due_at: datetime, error: str) -> None:
    """Give the lease back after a failure, which is kept for the operator."""
    with db.write(lease.scope) as connection:
        connection.execute(
            _FAIL,
            {"t": lease.scope.plane, "k": lease.kind, "f": lease.fence, "due": due_at, "e": error[:2000]},
        )
