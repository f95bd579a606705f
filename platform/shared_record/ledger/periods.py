"""Closing periods: a period whose month is over takes no more deltas; the next checkpoint states it for good."""

from __future__ import annotations

from sqlalchemy import bindparam

from shared_record.clock import Clock, period_of
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.schema import period_tree

_CLOSE = (
    period_tree.update()
    .where(
        period_tree.c.tenant_id == bindparam("t"),
        period_tree.c.status == "open",
        period_tree.c.period < bindparam("current"),
    )
    .values(status="closing")
)


def close_periods(db: Database, clock: Clock, lease: Lease) -> int:
    """Mark every open period before the current UTC month as closing; return how many there were."""
    with db.write(lease.scope) as connection:
        leases.check_fence(connection, lease)
        return connection.execute(_CLOSE, {"t": lease.scope.plane, "current": period_of(clock.now())}).rowcount
