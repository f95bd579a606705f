"""Mails of step-up methods: put into the queue, with limits that nobody can see from outside.

What a method hands over costs the same whether it is sent, over a limit, or a decoy: the same statements, one row of
the queue, one event of the audit trail. Only the first mail ever to an address, or for a record, makes a counter.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select
from sqlalchemy.exc import IntegrityError

from shared_record.access import audit
from shared_record.access.offers import Mail
from shared_record.access.sessions import Visit
from shared_record.access.stepup import MailSink
from shared_record.clock import Clock
from shared_record.db.schema import mail_quota
from shared_record.delivery.mail import Letter, compared
from shared_record.delivery.mailer import queue
from shared_record.keys import KeyRing
from shared_record.tenancy.tenants import tenant_key

USEFUL_FOR = timedelta(minutes=10)
"""A mail of a step-up method that could not be sent for so long is dropped."""
DECOY = "nobody@decoy.invalid"

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_T: BindParameter[UUID] = bindparam("t")
_ROW = (mail_quota.c.tenant_id == _T) & (mail_quota.c.digest == bindparam("which"))
_LOCK = select(mail_quota).where(_ROW).with_for_update()
_COUNT = (
    mail_quota.update()
    .where(_ROW)
    .values({name: bindparam(f"new_{name}") for name in ("last_at", "hour_at", "hour_count", "day_at", "day_count")})
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How often mail may be sent: one each ``pause``, and so many in an hour and in a day from the first one on."""

    pause: timedelta
    hour: int
    day: int


PERSON = Allowance(timedelta(minutes=1), 5, 10)
"""To one address, and for one record."""
TENANT = Allowance(timedelta(0), 500, 2_000)
"""Of one data plane of a tenant, in all."""


def mail_sink(keys: KeyRing, clock: Clock) -> MailSink:
    """Return what puts a method's mail into the queue, in the transaction of the challenge it belongs to."""

    def put(connection: Connection, seen: Visit, method: str, mail: Mail) -> None:
        now, scope = clock.now(), seen.scope
        letter = Letter(mail.to or DECOY, mail.subject, mail.body)
        allowed = _spend(connection, keys, seen, None if mail.to is None else letter.to, now)
        queue(
            connection,
            keys,
            clock,
            scope,
            seen.customer_id,
            method,
            letter,
            valid_for=USEFUL_FOR,
            withheld=not (allowed and mail.to),
        )
        event = "otp.sent" if allowed and mail.to else "otp.suppressed"
        reason = "" if allowed and mail.to else "limit" if mail.to else "not listed"
        detail = {"method": method, "reason": reason}
        audit.record(connection, scope, clock, event, actor="customer", customer_id=seen.customer_id, detail=detail)

    return put


def _spend(connection: Connection, keys: KeyRing, seen: Visit, to: str | None, now: datetime) -> bool:
    """Count one mail against its limits, if all of them allow it; a decoy is held against counters of its own.

    The rows are locked in one order, so that mails that are put in at the same time are counted one by one.
    """
    secret = tenant_key(connection, keys, seen.scope)
    who = seen.customer_id.bytes
    of_record, of_address = (b"decoy\0" + who, b"decoy-to\0" + who) if to is None else (b"record\0" + who, _named(to))
    limits = {
        _digest(secret, of_record): PERSON,
        _digest(secret, of_address): PERSON,
        _digest(secret, b"tenant"): TENANT,
    }
    rows = {digest: _locked(connection, seen, digest) for digest in sorted(limits)}
    allowed = all(_allows(limits[digest], row, now) for digest, row in rows.items())
    for digest, row in rows.items():
        counted = allowed and (to is not None or limits[digest] is PERSON)
        connection.execute(_COUNT, {"t": seen.scope.plane, "which": digest} | _after(row, now, counted))
    return allowed


def _named(address: str) -> bytes:
    return b"address\0" + compared(address).encode()


def _digest(secret: bytes, what: bytes) -> bytes:
    return hmac.digest(secret, b"mail\0" + what, hashlib.sha256)


def _locked(connection: Connection, seen: Visit, digest: bytes) -> Any:
    """Return one counter, locked; the first mail makes it."""
    which = {"t": seen.scope.plane, "which": digest}
    row = connection.execute(_LOCK, which).one_or_none()
    if row is not None:
        return row
    try:
        with connection.begin_nested():
            connection.execute(mail_quota.insert(), {"tenant_id": seen.scope.plane, "digest": digest})
    except IntegrityError:
        pass  # another mail was faster by a moment, and is done now
    return connection.execute(_LOCK, which).one()


def _allows(limit: Allowance, row: Any, now: datetime) -> bool:
    after = _after(row, now, True)
    paused = row.last_at is not None and now - row.last_at < limit.pause
    return not paused and after["new_hour_count"] <= limit.hour and after["new_day_count"] <= limit.day


def _after(row: Any, now: datetime, counted: bool) -> dict[str, Any]:
    """Return the counters after one more mail, or as they are where it is not ``counted``."""
    values = {"last_at": now if counted else row.last_at}
    for name, length in (("hour", _HOUR), ("day", _DAY)):
        since, count = getattr(row, f"{name}_at"), getattr(row, f"{name}_count")
        if since is None or now - since >= length:
            since, count = (now, 0) if counted else (None, 0)
        values |= {f"{name}_at": since, f"{name}_count": count + int(counted)}
    return {f"new_{name}": value for name, value in values.items()}
