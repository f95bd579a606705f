"""A new origin: how a log goes on that can no longer be continued as it was.

The database fell behind the lock store and nothing newer is left to restore, or the signing key is lost or known to
others. The log then begins anew under ``<origin>/2``, ``/3``, …: a tree of its own, whose first epoch states every
period that is not closed, with all that was recorded, and carries the last checkpoint of the former origin as the lock
store knows it. Customers see a declared break, not a silent one. Nothing of the former origin is changed or removed:
what was closed under it is still proved by it, and it is served as it stood.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from shared_record.clock import Clock
from shared_record.db import leases
from shared_record.db.leases import Lease
from shared_record.db.schema import checkpoint, epoch_member, former_log, log
from shared_record.errors import ConflictError
from shared_record.keys import KeyRing
from shared_record.ledger import logs
from shared_record.ledger.locks import LockStore
from shared_record.ledger.note import VerifierKey, parse_checkpoint
from shared_record.ledger.origin import name_origin, ordinal_of, start_of, start_of_ordinal

MAX_ORIGINS = 1_000

_T: BindParameter[UUID] = bindparam("t")
_LOG = select(log).where(log.c.tenant_id == _T)
_FIRST = select(former_log.c.origin).where(former_log.c.tenant_id == _T).order_by(former_log.c.start).limit(1)
_NEWEST_BODY = (
    select(checkpoint.c.body)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published", checkpoint.c.size > bindparam("start"))
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)
_ABANDON = (
    checkpoint.update()
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state.in_(("prepared", "locked")))
    .values(state="abandoned")
)
_ABANDONED = select(checkpoint.c.size - 1).where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "abandoned")
_FORGET = epoch_member.delete().where(epoch_member.c.tenant_id == _T, epoch_member.c.epoch.in_(_ABANDONED))
_FORGET_PG = select(func.sr_forget_abandoned())
"""There the application may delete none: the function does, of abandoned checkpoints of this plane only."""
_BEGIN = (
    log.update()
    .where(log.c.tenant_id == _T, log.c.origin == bindparam("former_origin"))
    .values(origin=bindparam("new_origin"), size=bindparam("start"), frontier=b"", halted=None)
)


class NewOrigin(NamedTuple):
    """What was declared: the origins before and after, the checkpoint that is carried over, and the new keys."""

    former: str
    origin: str
    last: str | None
    vkeys: tuple[VerifierKey, ...]
    abandoned: int


def last_known(locks: LockStore, first: str, ordinal: int, published: str | None) -> tuple[int, str | None]:
    """Return the first unused origin number after ``ordinal``, and the newest body that was locked before it.

    The lock store may know later origins than the database, which may be a copy from before they were declared. Where
    it knows nothing at all the newest ``published`` body stands in.
    """
    last = locks.read(name_origin(first, ordinal)) or published
    for following in range(ordinal + 1, MAX_ORIGINS):
        body = locks.read(name_origin(first, following))
        if body is None:
            return following, last
        last = body
    raise ConflictError(f"the lock store knows {MAX_ORIGINS} origins of {first}.")


def declare_origin(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    locks: LockStore,
    lease: Lease,
    *,
    reason: str,
    new_key: bool,
) -> NewOrigin:
    """Let the log begin anew under its next origin; all of it in the transaction of ``connection``.

    The same signing keys go on under the new name, or with ``new_key`` a fresh one in their place. A checkpoint that
    was not published is abandoned. ``lease`` must be the sequencer's, so that nobody is about to sign meanwhile. Errors
    of the lock store, which has to be reachable, pass through.
    """
    scope = lease.scope
    of_tenant = {"t": scope.plane}
    leases.check_fence(connection, lease)
    state = connection.execute(_LOG, of_tenant).one()
    first = connection.execute(_FIRST, of_tenant).scalar_one_or_none() or state.origin
    start = start_of(state.size)
    published = connection.execute(_NEWEST_BODY, of_tenant | {"start": start}).scalar_one_or_none()
    ordinal, last = last_known(locks, first, ordinal_of(state.size), published)
    origin = name_origin(first, ordinal)
    connection.execute(
        former_log.insert(),
        {
            "tenant_id": scope.plane,
            "start": start,
            "origin": state.origin,
            "size": state.size,
            "frontier": state.frontier,
            "last": last,
            "reason": reason,
            "ended_at": clock.now(),
        },
    )
    abandoned = connection.execute(_ABANDON, of_tenant).rowcount
    if abandoned:  # what they would have said of each period was never said to anybody
        connection.execute(_FORGET_PG if connection.dialect.name == "postgresql" else _FORGET, of_tenant)
    begin = start_of_ordinal(ordinal)
    # Of a former origin that the lock store knows longer than the database, every checkpoint stays checkable.
    ended = max(state.size, start + (size_of(last) if last and last.startswith(f"{state.origin}\n") else 0))
    vkeys = logs.begin_keys(connection, keys, scope, origin, begin, ended=ended, new_key=new_key)
    connection.execute(_BEGIN, of_tenant | {"former_origin": state.origin, "new_origin": origin, "start": begin})
    return NewOrigin(state.origin, origin, last, vkeys, abandoned)


def size_of(body: str | None) -> int:
    """Return the size that a stored body states; 0 for none."""
    return 0 if body is None else parse_checkpoint(body).size
