"""The job loop: for each tenant with something to do, close periods, integrate new deltas, publish checkpoints.

Every step is a transaction under a fenced lease, so a worker can be killed at any instruction and any number of them
can run.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from shared_record.clock import Clock, period_bounds, period_of
from shared_record.db import leases, lookup
from shared_record.db.engine import Database
from shared_record.db.lookup import TenantRow
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError, SharedRecordError
from shared_record.keys import KeyRing
from shared_record.ledger import logs
from shared_record.ledger.checkpoints import HEARTBEAT, Agenda, agenda, make_checkpoint
from shared_record.ledger.erasure import purge_details
from shared_record.ledger.integrate import integrate
from shared_record.ledger.locks import LockStore
from shared_record.ledger.periods import close_periods
from shared_record.tenancy.tenants import TenantSettings, read_tenant

LEASE = timedelta(minutes=1)
"""How long a worker that was killed keeps its tenants to itself. One that is merely slow is stopped by the fence."""
POLL_SECONDS = 1.0
RETRY = timedelta(seconds=30)
RETENTION = timedelta(days=1)
"""How often details that are past a tenant's ``retention_days`` are looked for."""

_log = logging.getLogger("shared_record.worker")


@dataclass
class Worker:
    """One worker process or thread."""

    db: Database
    keys: KeyRing
    clock: Clock
    locks: LockStore
    checkpoint_seconds: float
    name: str = field(default_factory=lambda: f"worker-{secrets.token_hex(4)}")
    _not_before: dict[Scope, datetime] = field(default_factory=dict)
    _purged: dict[Scope, datetime] = field(default_factory=dict)

    def run(self, stop: threading.Event, poll_seconds: float = POLL_SECONDS) -> None:
        """Work until ``stop`` is set."""
        while not stop.is_set():
            started = time.monotonic()
            try:
                self.run_once()
            except SQLAlchemyError as error:
                _log.error("database unavailable: %s", type(error).__name__)
            stop.wait(max(0.0, poll_seconds - (time.monotonic() - started)))

    def run_once(self) -> int:
        """Do what is due for every tenant now; return for how many something was done."""
        now = self.clock.now()
        done = 0
        for tenant in lookup.list_due(self.db, now):
            done += self.serve(tenant)
        return done

    def serve(self, tenant: TenantRow) -> bool:
        """Do what is due for one tenant now; return whether anything was done."""
        scope = tenant.scope
        with self.db.read(scope) as connection:
            settings = read_tenant(connection, scope)
        self._purge(scope, settings)
        wanted = agenda(self.db, self.clock, scope, self._interval(settings))
        if self._not_before.get(scope, self.clock.now()) > self.clock.now():
            wanted = replace(wanted, publish=False)  # what failed is given time; recording and integrating go on
        if not (wanted.anything or wanted.overdue):
            return False
        lease = leases.acquire(self.db, self.clock, scope, logs.SEQUENCER, self.name, LEASE)
        if lease is None:
            return False
        try:
            self._work(lease, wanted)
        except (SharedRecordError, OSError) as error:
            level = logging.INFO if isinstance(error, ConflictError) else logging.ERROR
            _log.log(level, "tenant %s: %s", tenant.slug, error)
            self._not_before[scope] = self.clock.now() + RETRY
            leases.fail(self.db, lease, self.clock.now() + RETRY, str(error))
            return False
        next_month = period_bounds(period_of(self.clock.now()))[1]
        leases.release(self.db, lease, min(next_month, self.clock.now() + HEARTBEAT))
        return wanted.anything

    def _work(self, lease: leases.Lease, wanted: Agenda) -> None:
        if wanted.close:
            close_periods(self.db, self.clock, lease)
        integrate(self.db, lease)
        if wanted.publish:
            make_checkpoint(self.db, self.keys, self.clock, self.locks, lease)

    def _purge(self, scope: Scope, settings: TenantSettings) -> None:
        """Remove details that are past retention, once a day. It needs no lease: twice does nothing more than once."""
        now = self.clock.now()
        last = self._purged.get(scope)
        if settings.retention_days is None or (last is not None and now - last < RETENTION):
            return
        purge_details(self.db, self.clock, scope, now - timedelta(days=settings.retention_days))
        self._purged[scope] = now

    def _interval(self, settings: TenantSettings) -> timedelta:
        own = settings.checkpoint_seconds
        return timedelta(seconds=self.checkpoint_seconds if own is None else own)
