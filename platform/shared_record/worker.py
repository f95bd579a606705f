"""The job loop: for each tenant with something to do, close periods, integrate new deltas, publish checkpoints.

Every step is a transaction under a fenced lease, so a worker can be killed at any instruction and any number of them
can run.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from shared_record.access import audit, chain, challenges, devices, sessions, views
from shared_record.access.idempotency import purge_answers
from shared_record.clock import Clock, period_bounds, period_of
from shared_record.db import leases, lookup
from shared_record.db.engine import Database
from shared_record.db.lookup import TenantRow
from shared_record.db.scope import Scope
from shared_record.delivery import log as delivery_log
from shared_record.errors import ConflictError, SharedRecordError
from shared_record.exports import building, jobs
from shared_record.exports.building import Builder
from shared_record.keys import KeyRing
from shared_record.ledger import anchors, logs, nightly
from shared_record.ledger.agenda import HEARTBEAT, Agenda, agenda
from shared_record.ledger.checkpoints import make_checkpoint
from shared_record.ledger.erasure import purge_details
from shared_record.ledger.integrate import integrate
from shared_record.ledger.locks import LockStore
from shared_record.ledger.outbound import post
from shared_record.ledger.periods import close_periods
from shared_record.ledger.witnesses import Witnesses
from shared_record.plugin import CheckpointAnchor, Post
from shared_record.tenancy.tenants import TenantSettings, read_tenant

LEASE = timedelta(minutes=1)
"""How long a worker that was killed keeps its tenants to itself. One that is merely slow is stopped by the fence."""
POLL_SECONDS = 1.0
ANCHOR_POLLS = 10
"""Rounds of the other work to one look at what is to be anchored."""
RETRY = timedelta(seconds=30)
LONGEST_PAUSE = 5.0
"""Seconds that an audit waits between two pages of rows, at most, while a checkpoint is made."""
RETENTION = timedelta(days=1)
"""How often details that are past a tenant's ``retention_days`` are looked for."""
SWEEP_SECONDS = 600.0
"""How often what has expired is deleted."""

_log = logging.getLogger("shared_record.worker")


@dataclass
class Worker:
    """One worker process or thread. ``post`` is how it asks witnesses and anchors, ``exports`` what builds files."""

    db: Database
    keys: KeyRing
    clock: Clock
    locks: LockStore
    checkpoint_seconds: float
    checkpoint_anchors: Mapping[str, type[CheckpointAnchor]] = field(default_factory=dict)
    post: Post = post
    exports: Builder | None = None
    name: str = field(default_factory=lambda: f"worker-{secrets.token_hex(4)}")
    _not_before: dict[Scope, datetime] = field(default_factory=dict)
    _purged: dict[Scope, datetime] = field(default_factory=dict)
    _idle: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._idle.set()

    def run(self, stop: threading.Event, poll_seconds: float = POLL_SECONDS) -> None:
        """Work until ``stop`` is set."""
        slowly = ANCHOR_POLLS * poll_seconds
        anchoring = threading.Thread(target=self._repeat, args=(stop, self.anchor_once, slowly), daemon=True)
        anchoring.start()
        audits = threading.Thread(target=self._repeat, args=(stop, partial(self.audit_once, stop), slowly), daemon=True)
        audits.start()
        sealing = threading.Thread(target=self._repeat, args=(stop, self.seal_once, slowly), daemon=True)
        sealing.start()
        sweeping = threading.Thread(target=self._repeat, args=(stop, self.sweep_once, SWEEP_SECONDS), daemon=True)
        sweeping.start()
        exporting = threading.Thread(target=self._repeat, args=(stop, partial(self.export_once, stop), poll_seconds))
        exporting.daemon = True
        exporting.start()
        self._repeat(stop, self.run_once, poll_seconds)
        exporting.join(poll_seconds + building.BEAT_SECONDS)  # it ends at its next sign of life
        audits.join(poll_seconds)  # it ends at the next page of rows
        sealing.join(poll_seconds)
        sweeping.join(poll_seconds)
        anchoring.join(poll_seconds)  # one that waits for an answer is left behind; its lease ends by itself

    def _repeat(self, stop: threading.Event, work: Callable[[], int], poll_seconds: float) -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                work()
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

    def anchor_once(self) -> int:
        """Have checkpoints anchored where that is due, apart from all other work; return how many proofs there are."""
        return sum(self._anchor(tenant) for tenant in lookup.list_due(self.db, self.clock.now()))

    def audit_once(self, stop: threading.Event | None = None) -> int:
        """Audit each log whose day has come, apart from all other work; return how many were audited to the end."""
        return sum(self._audit(tenant, stop) for tenant in lookup.list_due(self.db, self.clock.now()))

    def export_once(self, stop: threading.Event | None = None) -> int:
        """Build the files that were asked for, apart from all other work; return how many."""
        return sum(self._export(tenant.scope, stop) for tenant in lookup.list_due(self.db, self.clock.now()))

    def seal_once(self) -> int:
        """Chain the new rows of every audit trail; return for how many trails there were any."""
        done = 0
        for tenant in lookup.list_unsealed(self.db):
            head = chain.seal(self.db, tenant.scope)
            if head is not None:  # noted outside the database too: what is removed from its end shows here
                _log.info("tenant %s: audit.sealed %s", tenant.slug, head)
                done += 1
        return done

    def sweep_once(self) -> int:
        """Delete what has expired of every tenant, in use or not; return how many rows. Twice is no more than once."""
        done = 0
        for tenant in lookup.list_tenants(self.db):
            scope = tenant.scope
            with self.db.read(scope) as connection:
                settings = read_tenant(connection, scope)
            done += challenges.sweep(self.db, self.clock, scope)
            done += devices.sweep(self.db, self.clock, scope)
            done += sessions.sweep(self.db, self.clock, scope)
            done += views.sweep(self.db, self.clock, scope)
            done += purge_answers(self.db, self.clock, scope, retention_days=settings.retention_days)
        return done

    def note_disabled(self, connection: Connection, scope: Scope, endpoint_id: str, reason: str) -> None:
        """Write into the audit trail that an endpoint was disabled, in the transaction that disabled it."""
        detail = {"endpoint": endpoint_id, "reason": reason}
        audit.record(connection, scope, self.clock, "webhook.disabled", actor="system", detail=detail)

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
        self._idle.clear()
        try:
            self._work(lease, wanted, settings)
        except (SharedRecordError, OSError) as error:
            level = logging.INFO if isinstance(error, ConflictError) else logging.ERROR
            _log.log(level, "tenant %s: %s", tenant.slug, error)
            self._not_before[scope] = self.clock.now() + RETRY
            leases.fail(self.db, lease, self.clock.now() + RETRY, str(error))
            return False
        finally:
            self._idle.set()
        if settings.anchors and _is_live(scope):
            anchors.ensure_job(self.db, self.clock, scope)
        next_month = period_bounds(period_of(self.clock.now()))[1]
        leases.release(self.db, lease, min(next_month, self.clock.now() + HEARTBEAT))
        return wanted.anything

    def _work(self, lease: leases.Lease, wanted: Agenda, settings: TenantSettings) -> None:
        if wanted.close:
            close_periods(self.db, self.clock, lease)
        integrate(self.db, lease)
        if wanted.publish:
            witnesses = None
            if settings.witnesses and _is_live(lease.scope):
                witnesses = Witnesses.of(settings.witnesses, settings.witness_quorum, self.post).cosign
            make_checkpoint(self.db, self.keys, self.clock, self.locks, lease, witnesses)

    def _audit(self, tenant: TenantRow, stop: threading.Event | None) -> bool:
        scope = tenant.scope
        with self.db.read(scope) as connection:
            due = leases.due_at(connection, scope, logs.AUDIT)
        lease = None
        if due <= self.clock.now():
            lease = leases.acquire(self.db, self.clock, scope, logs.AUDIT, self.name, nightly.LEASE)
        if lease is None:
            return False
        try:
            found = nightly.audit_log(self.db, self.keys, self.clock, self.locks, lease, partial(self._give_way, stop))
        except _Stopped:
            leases.release(self.db, lease, due)
            return False
        except (SharedRecordError, OSError) as error:
            _log.error("tenant %s: the audit could not be finished: %s", tenant.slug, error)
            leases.fail(self.db, lease, self.clock.now() + RETRY, str(error))
            return False
        if found:
            _log.error("tenant %s: integrity.alarm: %d places are wrong; see `ledger audit`", tenant.slug, len(found))
        leases.release(self.db, lease, self.clock.now() + logs.AUDIT_EVERY)
        return True

    def _export(self, scope: Scope, stop: threading.Event | None) -> int:
        if self.exports is None or not jobs.is_due(self.db, self.clock, scope):
            return 0
        lease = leases.acquire(self.db, self.clock, scope, jobs.EXPORT, self.name, building.LEASE)
        if lease is None:
            return 0
        try:
            return self.exports.serve(lease, partial(self._give_way, stop))
        except _Stopped:
            leases.release(self.db, lease, self.clock.now())
        except ConflictError as error:
            _log.info("exports: %s", error)
        return 0

    def _give_way(self, stop: threading.Event | None) -> None:
        """Hold an audit or export up while this worker makes a checkpoint: both would share one interpreter."""
        self._idle.wait(LONGEST_PAUSE)
        if stop is not None and stop.is_set():
            raise _Stopped

    def _anchor(self, tenant: TenantRow) -> int:
        scope = tenant.scope
        if not anchors.is_due(self.db, self.clock, scope):
            return 0
        lease = leases.acquire(self.db, self.clock, scope, anchors.ANCHOR, self.name, LEASE)
        if lease is None:
            return 0
        with self.db.read(scope) as connection:
            settings = read_tenant(connection, scope)
        enabled = anchors.Enabled(
            self.checkpoint_anchors,
            {one["anchor"]: one["settings"] for one in settings.anchors},
            timedelta(seconds=settings.anchor_seconds),
        )
        try:
            return len(anchors.anchor_newest(self.db, self.clock, lease, enabled, self.post))
        except ConflictError as error:
            _log.info("tenant %s: %s", tenant.slug, error)
            return 0

    def _purge(self, scope: Scope, settings: TenantSettings) -> None:
        """Remove what is past its time, once a day. It needs no lease: twice does no more than once."""
        now = self.clock.now()
        last = self._purged.get(scope)
        if last is not None and now - last < RETENTION:
            return
        delivery_log.purge(self.db, scope, now)
        if settings.retention_days is not None:
            purge_details(self.db, self.clock, scope, now - timedelta(days=settings.retention_days))
        self._purged[scope] = now

    def _interval(self, settings: TenantSettings) -> timedelta:
        own = settings.checkpoint_seconds
        return timedelta(seconds=self.checkpoint_seconds if own is None else own)


class _Stopped(building.Interrupted):
    """The worker ends; the audit or file in hand is begun anew by another."""


def _is_live(scope: Scope) -> bool:
    """Only the live log is witnessed and anchored: test data is of no concern to others."""
    return scope.plane == scope.config
