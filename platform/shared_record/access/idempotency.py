"""Idempotency keys: a request that is repeated gets the first answer, and its effect happens once.

The row of a request is inserted before its effect and gets its answer in the same transaction, so whatever is killed
leaves both or neither. A repetition that comes while the first is still at work waits for it at the unique key: on
SQLite for the one write lock there is, on PostgreSQL for up to ``PATIENCE``.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import IntegrityError, OperationalError

from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import kept_answer
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError
from shared_record.keys import KeyRing
from shared_record.tenancy.tenants import tenant_key

KEPT = timedelta(days=30)
PATIENCE = 2
"""Seconds that a repetition waits for the first to be done."""

_LOCK_NOT_AVAILABLE = "55P03"
_MINE = (
    kept_answer.c.tenant_id == bindparam("t"),
    kept_answer.c.owner == bindparam("of_owner"),
    kept_answer.c.route == bindparam("of_route"),
    kept_answer.c.key == bindparam("of_key"),
)
_FIND = select(kept_answer.c.digest, kept_answer.c.code, kept_answer.c.body).where(*_MINE)
_INSERT = kept_answer.insert()
_FINISH = kept_answer.update().where(*_MINE).values(code=bindparam("new_code"), body=bindparam("new_body"))
_PURGE = kept_answer.delete().where(
    kept_answer.c.tenant_id == bindparam("t"), kept_answer.c.created_at < bindparam("before")
)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer: its HTTP status and the bytes of its body."""

    code: int
    body: bytes


class TakenError(Exception):
    """Another transaction has carried this request out; ``Claim.find`` has its answer."""


class PendingError(Exception):
    """Another transaction is still carrying this request out."""


class Claim:
    """One request with an idempotency key. ``request`` is everything that a repetition must share, in canonical form.

    The key is unique for the plane, the ``owner`` of the API key, and the ``route``.
    """

    def __init__(
        self, keys: KeyRing, clock: Clock, scope: Scope, *, owner: str, route: str, key: str, request: bytes
    ) -> None:
        self._keys, self._clock, self._scope, self._request = keys, clock, scope, request
        self._owner, self._route, self._key = owner, route, key
        self._mine: dict[str, Any] = {"t": scope.plane, "of_owner": owner, "of_route": route, "of_key": key}
        self._digest: bytes | None = None
        self.is_kept = False
        """Whether an answer was kept in a transaction of this claim. One that was not committed raised."""

    def find(self, db: Database) -> Kept | None:
        """Return the first answer, if there is one; ``ConflictError`` if it was to another request."""
        with db.read(self._scope) as connection:
            row = connection.execute(_FIND, self._mine).one_or_none()
            digest = self._digest_of(connection)
        if row is None:
            return None
        if not hmac.compare_digest(row.digest, digest):
            raise ConflictError(
                "This Idempotency-Key was used before, for a request with other content.", code="IDEMPOTENCY_CONFLICT"
            )
        return Kept(row.code, row.body)

    def begin(self, connection: Connection) -> None:
        """Take the key within the transaction of the effect; ``TakenError`` or ``PendingError`` if another has it."""
        self.is_kept = False
        row = {
            "tenant_id": self._scope.plane,
            "owner": self._owner,
            "route": self._route,
            "key": self._key,
            "digest": self._digest_of(connection),
            "created_at": self._clock.now(),
        }
        limited = connection.dialect.name == "postgresql"
        if limited:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
        try:
            connection.execute(_INSERT, row)
        except IntegrityError as error:
            raise TakenError from error
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise PendingError from error
            raise
        if limited:
            connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")

    def finish(self, connection: Connection, answer: Kept) -> None:
        """Keep the answer, in the transaction that ``begin`` was called in."""
        connection.execute(_FINISH, self._mine | {"new_code": answer.code, "new_body": answer.body})
        self.is_kept = True

    def keep(self, db: Database, answer: Kept) -> None:
        """Keep the answer of a request whose effect, if any, is one that can be had twice; raises as ``begin`` does."""
        with db.write(self._scope) as connection:
            self.begin(connection)
            self.finish(connection, answer)

    def _digest_of(self, connection: Connection) -> bytes:
        if self._digest is None:
            secret = tenant_key(connection, self._keys, self._scope)
            self._digest = hmac.digest(secret, b"request\0" + self._request, hashlib.sha256)
        return self._digest


def purge_answers(db: Database, clock: Clock, scope: Scope, *, retention_days: int | None = None) -> int:
    """Remove what was kept for 30 days, or for the tenant's retention if that is shorter; return how many."""
    days = KEPT if retention_days is None else min(KEPT, timedelta(days=retention_days))
    with db.write(scope) as connection:
        return connection.execute(_PURGE, {"t": scope.plane, "before": clock.now() - days}).rowcount
