"""What customers look at: counted in memory while pages are made, written at most once a minute.

A request that only reads writes nothing itself. Views become one row per customer, tier and hour; downloads become rows
of the audit trail. What was counted in the last minute before a process is killed is lost.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import view_count
from shared_record.db.scope import Scope

FLUSH_SECONDS = 60.0
MOST = 10_000
"""Counters, and downloads, that are kept while the database cannot be written; beyond it new ones are dropped."""
OUTER, INNER = "outer", "inner"
KEPT = timedelta(days=400)
"""How long counts are kept."""

_log = logging.getLogger("shared_record.access")
_PLACE = (
    (view_count.c.tenant_id == bindparam("t"))
    & (view_count.c.customer_id == bindparam("who"))
    & (view_count.c.hour == bindparam("at", type_=view_count.c.hour.type))
    & (view_count.c.tier == bindparam("of_tier"))
)
_ADD = view_count.update().where(_PLACE).values(views=view_count.c.views + bindparam("more"))
_LIST = (
    select(view_count.c.hour, view_count.c.tier, view_count.c.views)
    .where(view_count.c.tenant_id == bindparam("t"), view_count.c.customer_id == bindparam("who"))
    .order_by(view_count.c.hour.desc(), view_count.c.tier)
    .limit(bindparam("most"))
)
_SWEEP = view_count.delete().where(
    view_count.c.tenant_id == bindparam("t"), view_count.c.hour < bindparam("before", type_=view_count.c.hour.type)
)


@dataclass(frozen=True, slots=True)
class Views:
    """How often pages of one record were looked at in the hour that began at ``hour``."""

    hour: datetime
    tier: str
    views: int


@dataclass(frozen=True, slots=True)
class _Download:
    scope: Scope
    customer_id: UUID
    detail: Mapping[str, Any]


_Key = tuple[Scope, UUID, datetime, str]


class ViewCounts:
    """The counters of one process; thread-safe. Its thread begins with the first thing that is counted."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock
        self._counts: Counter[_Key] = Counter()
        self._downloads: list[_Download] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def count(self, scope: Scope, customer_id: UUID, tier: str) -> None:
        """Count one look at a page of a record."""
        key = (scope, customer_id, self._clock.now().replace(minute=0, second=0, microsecond=0), tier)
        with self._lock:
            if key in self._counts or len(self._counts) < MOST:
                self._counts[key] += 1
            self._start()

    def download(self, scope: Scope, customer_id: UUID, detail: Mapping[str, Any]) -> None:
        """Note that a file of a record was sent."""
        with self._lock:
            if len(self._downloads) < MOST:
                self._downloads.append(_Download(scope, customer_id, dict(detail)))
            self._start()

    def flush(self) -> int:
        """Write what was counted; return how many rows that were. What cannot be written now is kept for later."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            downloads, self._downloads = self._downloads, []
        written = 0
        for scope in {*(key[0] for key in counts), *(one.scope for one in downloads)}:
            # Every process takes a tenant's rows in one order, so that none waits for another in a circle.
            mine = sorted((key for key in counts if key[0] == scope), key=lambda key: (key[1].bytes, *key[2:]))
            files = [one for one in downloads if one.scope == scope]
            try:
                with self._db.write(scope) as connection:
                    self._write(connection, scope, {key: counts[key] for key in mine}, files)
                written += len(mine) + len(files)
            except SQLAlchemyError as error:
                _log.warning("views not written: %s", type(error).__name__)
                with self._lock:
                    self._counts.update({key: counts[key] for key in mine})
                    self._downloads = files + self._downloads
        return written

    def _write(
        self, connection: Connection, scope: Scope, counts: Mapping[_Key, int], downloads: list[_Download]
    ) -> None:
        for (_, customer_id, hour, tier), more in counts.items():
            of = {"t": scope.plane, "who": customer_id, "at": hour, "of_tier": tier, "more": more}
            if connection.execute(_ADD, of).rowcount:
                continue
            row = {"tenant_id": scope.plane, "customer_id": customer_id, "hour": hour, "tier": tier, "views": more}
            try:
                with connection.begin_nested():
                    connection.execute(view_count.insert(), row)
            except IntegrityError:  # another process was first
                connection.execute(_ADD, of)
        for one in downloads:
            audit.record(
                connection,
                scope,
                self._clock,
                "export.delivered",
                actor="customer",
                customer_id=one.customer_id,
                detail=one.detail,
            )

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="views", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(FLUSH_SECONDS)
            self.flush()


def list_views(connection: Connection, scope: Scope, customer_id: UUID, most: int) -> list[Views]:
    """Return how often a record was looked at, by hour, newest first."""
    rows = connection.execute(_LIST, {"t": scope.plane, "who": customer_id, "most": most})
    return [Views(row.hour, row.tier, row.views) for row in rows]


def sweep(db: Database, clock: Clock, scope: Scope) -> int:
    """Delete counts that are older than ``KEPT``; return how many."""
    with db.write(scope) as connection:
        return connection.execute(_SWEEP, {"t": scope.plane, "before": clock.now() - KEPT}).rowcount
