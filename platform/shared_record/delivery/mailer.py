"""The queue of mails: written in the transaction of what they tell of, sent by the worker, at least once.

A worker takes one mail at a time: while it is being sent its next attempt lies in the future, so a worker that is
killed leaves it to be sent again. What is past its time is dropped; a code that came too late would be of no use.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, Connection, Row, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema import mail
from shared_record.db.scope import Scope
from shared_record.delivery.mail import Letter, MailError, MailRefusedError, Post
from shared_record.errors import SharedRecordError
from shared_record.keys import KeyRing

LEASE = timedelta(minutes=2)
RETRIES = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 120, 300, 900, 1_800, 3_600))
"""What is waited after each failed attempt; the last one again and again until the mail is past its time."""
SLICE = 5
"""Mails of one tenant that are sent before it is another tenant's turn."""
KEPT = timedelta(days=7)
"""How long it is known, without address and content, that a mail was sent."""

_log = logging.getLogger("shared_record.mail")
_T: BindParameter[UUID] = bindparam("t")
_SWEEP = mail.delete().where(
    mail.c.tenant_id == _T, mail.c.customer_id == bindparam("who"), mail.c.created_at < bindparam("before")
)
_NEXT = (
    select(mail)
    .where(mail.c.tenant_id == _T, mail.c.due_at <= bindparam("now"))
    .order_by(mail.c.due_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_MINE = (mail.c.tenant_id == _T) & (mail.c.mail_id == bindparam("which"))
_TAKE = mail.update().where(_MINE).values(attempts=mail.c.attempts + 1, due_at=bindparam("until"))
_AGAIN = mail.update().where(_MINE, mail.c.attempts == bindparam("tried")).values(due_at=bindparam("next_try"))
_END = (
    mail.update()
    .where(_MINE, mail.c.due_at.is_not(None))
    .values(state=bindparam("outcome"), due_at=None, sealed_message=None, sent_at=bindparam("sent"))
)


def queue(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    customer_id: UUID,
    purpose: str,
    letter: Letter,
    *,
    valid_for: timedelta,
    withheld: bool = False,
) -> None:
    """Write one mail. ``withheld``: one that is never sent, at the same cost, so that nobody can tell."""
    now, mail_id = clock.now(), uuid4()
    sealed = keys.seal(json.dumps(asdict(letter)).encode(), tenant=scope.plane, place=_place(mail_id))
    connection.execute(_SWEEP, {"t": scope.plane, "who": customer_id, "before": now - KEPT})
    connection.execute(
        mail.insert(),
        {
            "tenant_id": scope.plane,
            "mail_id": mail_id,
            "customer_id": customer_id,
            "purpose": purpose,
            "state": "withheld" if withheld else "waiting",
            "sealed_message": bytes(len(sealed)) if withheld else sealed,
            "created_at": now,
            "due_at": None if withheld else now,
            "expires_at": now + valid_for,
        },
    )


@dataclass
class Mailer:
    """Sends what is due for every tenant. Any number may run."""

    db: Database
    keys: KeyRing
    clock: Clock
    post: Post

    def run(self, stop: threading.Event, poll_seconds: float = 1.0) -> None:
        """Send until ``stop`` is set; what is under way is finished first."""
        while not stop.is_set():
            started = time.monotonic()
            try:
                self.run_once(stop)
            except SQLAlchemyError as error:
                _log.error("database unavailable: %s", type(error).__name__)
            stop.wait(max(0.0, poll_seconds - (time.monotonic() - started)))

    def run_once(self, stop: threading.Event | None = None) -> int:
        """Send everything that is due now; return how many attempts were made."""
        attempts = 0
        while tenants := lookup.list_mail_due(self.db, self.clock.now()):
            before = attempts
            for tenant in tenants:
                for _ in range(SLICE):
                    if stop is not None and stop.is_set():
                        return attempts
                    if not self._send_next(tenant.scope):
                        break
                    attempts += 1
            if attempts == before:
                break  # others are at what is left
        return attempts

    def _send_next(self, scope: Scope) -> bool:
        now = self.clock.now()
        with self.db.write(scope) as connection:
            row = connection.execute(_NEXT, {"t": scope.plane, "now": now}).one_or_none()
            if row is None:
                return False
            if row.expires_at <= now:
                self._end(connection, scope, row, "expired")
                return True
            connection.execute(_TAKE, {"t": scope.plane, "which": row.mail_id, "until": now + LEASE})
        outcome = self._attempt(scope, row)
        with self.db.write(scope) as connection:
            if outcome is not None:
                self._end(connection, scope, row, outcome)
            else:
                pause = RETRIES[min(row.attempts, len(RETRIES) - 1)]
                next_try = min(self.clock.now() + pause, row.expires_at)
                parameters = {"which": row.mail_id, "tried": row.attempts + 1, "next_try": next_try}
                connection.execute(_AGAIN, {"t": scope.plane} | parameters)
        return True

    def _attempt(self, scope: Scope, row: Row[*tuple[Any, ...]]) -> str | None:
        """Try to send one mail; return what is final about it, if anything."""
        which = f"mail={row.mail_id} purpose={row.purpose} attempt={row.attempts + 1}"
        try:
            opened = self.keys.open(row.sealed_message, tenant=scope.plane, place=_place(row.mail_id))
            fields: Mapping[str, str] = json.loads(opened)
            self.post.send(Letter(**fields), str(row.mail_id), self.clock.now())
        except MailRefusedError as error:
            _log.error("mail.refused %s: %s", which, error)
            return "refused"
        except MailError as error:
            _log.error("mail.failed %s: %s", which, error)
            return None
        except SharedRecordError as error:
            _log.error("mail.unreadable %s: %s", which, error)
            return "refused"
        _log.info("mail.sent %s", which)
        return "sent"

    def _end(self, connection: Connection, scope: Scope, row: Row[*tuple[Any, ...]], outcome: str) -> None:
        sent = self.clock.now() if outcome == "sent" else None
        connection.execute(_END, {"t": scope.plane, "which": row.mail_id, "outcome": outcome, "sent": sent})
        if outcome == "expired":
            _log.error("mail.expired mail=%s purpose=%s attempts=%d", row.mail_id, row.purpose, row.attempts)


def _place(mail_id: UUID) -> str:
    return f"mail.sealed_message/{mail_id}"
