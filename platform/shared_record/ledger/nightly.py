"""The daily audit of each log by the worker: its outcome is kept, and what it finds raises an alarm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, Connection, bindparam

from shared_record.clock import Clock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.schema import audit_event, log
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger.audit import Finding, audit
from shared_record.ledger.audit_log import find_contradiction
from shared_record.ledger.audit_reading import UNREADABLE, Reader, Wrong
from shared_record.ledger.locks import LockStore

SAMPLE: Final = 200
"""Period trees looked into each day, picked at random; everything above them is looked at in full."""
MAX_FINDINGS: Final = 100
LEASE: Final = timedelta(hours=6)
"""How long one audit may take before another worker begins anew: it reads the whole log."""

_T: BindParameter[UUID] = bindparam("t")
_STORE = (
    log.update()
    .where(log.c.tenant_id == _T)
    .values(audited_at=bindparam("at"), audit_findings=bindparam("findings"), audit_problem=bindparam("problem"))
)
_HALT = log.update().where(log.c.tenant_id == _T, log.c.halted.is_(None)).values(halted=bindparam("reason"))
_log = logging.getLogger("shared_record.audit")


def audit_log(
    db: Database, keys: KeyRing, clock: Clock, locks: LockStore, lease: Lease, pause: Callable[[], None]
) -> list[Finding]:
    """Audit one log under its lease and keep the outcome; return what was found.

    Each finding is an ``integrity.alarm``: an error in the worker's log; the first is an event in the audit trail.
    ``pause`` is called between pages of rows; what it raises ends the audit, which then leaves nothing behind.
    """
    scope = lease.scope
    found: list[Finding] = []
    for finding in audit(db, keys, locks, scope, sample=SAMPLE, pause=pause):
        found.append(finding)
        _log.error("integrity.alarm: %s: %s", finding.place, finding.problem, extra={"tenant": str(scope.plane)})
        if len(found) == MAX_FINDINGS:
            break
    reason = _contradiction(db, scope, pause) if found else None
    with db.write(scope) as connection:
        leases.check_fence(connection, lease)
        first = found[0].problem if found else None
        outcome = {"at": clock.now(), "findings": len(found), "problem": first and _storable(first)}
        connection.execute(_STORE, {"t": scope.plane} | outcome)
        if found:
            _raise_alarm(connection, clock, scope, found, reason)
    return found


def _contradiction(db: Database, scope: Scope, pause: Callable[[], None]) -> str | None:
    """Return why the log must not be signed any further, or ``None``.

    Only one thing is made worse by going on: when what is stored no longer leads to the newest published checkpoint,
    the next one would be a fork, signed. A leaf, tile or counter that is wrong stays exactly as wrong, and halting
    for it would take every other customer's deltas the proof that they are recorded; so it is an alarm, and no halt.
    """
    try:
        with db.read(scope, snapshot=True) as connection:
            return find_contradiction(Reader(scope, pause), connection)
    except (Wrong, *UNREADABLE) as error:
        return f"The epochs of the log cannot be read ({error})."


def _raise_alarm(connection: Connection, clock: Clock, scope: Scope, found: list[Finding], reason: str | None) -> None:
    halted = False
    if reason is not None:
        text = f"The audit found that the log must not be continued: {reason} Run: shared-record ledger audit"
        halted = connection.execute(_HALT, {"t": scope.plane, "reason": text}).rowcount == 1
    first = found[0]
    detail = {"place": first.place, "problem": _storable(first.problem), "findings": len(found), "halted": halted}
    row = {"tenant_id": scope.plane, "event_id": uuid4(), "at": clock.now(), "event": "integrity.alarm"}
    connection.execute(audit_event.insert(), row | {"actor": "audit", "customer_id": None, "detail": detail})


def _storable(problem: str) -> str:
    """Return a finding, which may quote damaged text, as text that any database takes."""
    return "".join(c if c.isprintable() else "?" for c in problem[:2000])
