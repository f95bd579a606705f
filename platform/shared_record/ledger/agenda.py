"""What a log needs now, found out without writing anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, select

from shared_record.clock import Clock, period_of
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.schema import awaits_epoch, checkpoint, epoch, log, period_tree
from shared_record.db.scope import Scope
from shared_record.ledger import logs
from shared_record.ledger.heads import CHANGED
from shared_record.ledger.origin import number_of

HEARTBEAT = timedelta(days=1)

_T: BindParameter[UUID] = bindparam("t")
_LOG = select(log.c.size, log.c.halted).where(log.c.tenant_id == _T)
_NEWEST = select(epoch.c.ts).where(epoch.c.tenant_id == _T, epoch.c.n == bindparam("n"))
_PENDING = (
    select(checkpoint.c.size)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state != "published", checkpoint.c.state != "abandoned")
    .limit(1)
)
_PAST_OPEN = (
    select(period_tree.c.tree_id)
    .where(period_tree.c.tenant_id == _T, period_tree.c.status == "open", period_tree.c.period < bindparam("current"))
    .limit(1)
)
_BEHIND = (
    select(period_tree.c.tree_id)
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.status != "erased",
        awaits_epoch,
        period_tree.c.size > period_tree.c.vsize,
    )
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a log needs now: ``close`` past periods, ``integrate`` new deltas, ``publish`` an epoch.

    ``overdue``: its job waits to be given a new date, whether or not there is work.
    """

    close: bool
    integrate: bool
    publish: bool
    overdue: bool

    @property
    def anything(self) -> bool:
        """Whether there is any work."""
        return self.close or self.integrate or self.publish


def agenda(db: Database, clock: Clock, scope: Scope, interval: timedelta) -> Agenda:
    """Look at what a log needs, writing nothing. A log that is halted gets no more epochs, everything else goes on.

    An epoch is due ``interval`` after the one before when there is something new, at once when one is half done or a
    new origin was declared, and once a day in any case.
    """
    of_tenant = {"t": scope.plane}
    now = clock.now()
    with db.read(scope) as connection:
        state = connection.execute(_LOG, of_tenant).one()
        newest = connection.execute(_NEWEST, of_tenant | {"n": state.size - 1}).one_or_none()
        close = connection.execute(_PAST_OPEN, of_tenant | {"current": period_of(now)}).first() is not None
        behind = connection.execute(_BEHIND, of_tenant).first() is not None
        pending = connection.execute(_PENDING, of_tenant).first() is not None
        overdue = leases.due_at(connection, scope, logs.SEQUENCER) <= now
        changed = behind or close or connection.execute(CHANGED.limit(1), of_tenant).first() is not None
        begins = state.size > 0 and number_of(state.size) == 0
    rested = newest is None or now - newest.ts >= interval
    beat = newest is not None and now - newest.ts >= HEARTBEAT
    publish = state.halted is None and (pending or beat or begins or (changed and rested))
    return Agenda(close, behind, publish, overdue)
