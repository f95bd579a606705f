"""Links and access codes that were printed elsewhere: taken over, so that invoices already sent keep working.

A link is kept as digest plus a sealed copy. A code is kept as argon2id over a hash keyed with a pepper that is sealed:
the database alone does not tell whether a guess is right. Hashing is slow on purpose, so only so many run at a time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.access import audit
from shared_record.access.links import handle_place, normalise_code, normalise_handle
from shared_record.access.sessions import Visit
from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema import customer, imported_code, link
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from shared_record.keys import KeyRing, handle_digest

SHORTEST_CODE = 8
"""For a code chosen elsewhere; those made here have six characters, all of them random."""
WAITING = 32
"""Hashes that may wait for a processor; one more is refused."""

_T: BindParameter[Any] = bindparam("t")
_RUNS = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "QWERTYUIOP", "ASDFGHJKL", "ZXCVBNM")
_OF_CUSTOMER = (customer.c.tenant_id == _T) & (customer.c.customer_id == bindparam("who"))
_FIND = select(customer.c.customer_id, customer.c.code_version).where(
    customer.c.tenant_id == _T, customer.c.external_id == bindparam("external_id"), customer.c.sealed_key.is_not(None)
)
_IMPORTED = select(imported_code.c.code_version, imported_code.c.sealed_pepper, imported_code.c.hash).where(
    imported_code.c.tenant_id == _T, imported_code.c.customer_id == bindparam("who")
)
_ANY_IMPORTED = select(imported_code.c.customer_id).where(imported_code.c.tenant_id == _T).limit(1)
_FORGET = imported_code.delete().where(imported_code.c.tenant_id == _T, imported_code.c.customer_id == bindparam("who"))


class HashGuard:
    """Lets as many hashes run as there are processors, and a bounded number wait."""

    def __init__(self, running: int = os.cpu_count() or 1, waiting: int = WAITING) -> None:
        self._running = threading.BoundedSemaphore(running)
        self._admitted = threading.BoundedSemaphore(running + waiting)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for a processor; ``UnavailableError`` at once where too many wait already."""
        if not self._admitted.acquire(blocking=False):
            raise UnavailableError("too many codes are being checked at the moment.")
        try:
            with self._running:
                yield
        finally:
            self._admitted.release()


class PrintedCodes:
    """Checks access codes that were printed elsewhere."""

    def __init__(self, db: Database, keys: KeyRing, guard: HashGuard | None = None) -> None:
        self._db = db
        self._keys = keys
        self._guard = guard or HashGuard()

    def matches(self, seen: Visit, code: str, now: datetime) -> bool:
        """Tell whether ``code`` (normalised) is an imported code now valid for this customer.

        Where a tenant has any imported code, one hash is computed for each of its customers, so that the time does not
        tell who has one.
        """
        of_customer = {"t": seen.scope.plane, "who": seen.customer_id}
        with self._db.read(seen.scope) as connection:
            row = connection.execute(_IMPORTED, of_customer).one_or_none()
            any_row = connection.execute(_ANY_IMPORTED, of_customer).one_or_none()  # asked in any case, for equal time
        if any_row is None:
            return False
        if row is None:
            return self._is_hash_of(b"", code.encode(), _decoy()) and False
        pepper = self._keys.open(row.sealed_pepper, tenant=seen.scope.plane, place=_pepper_place(seen.customer_id))
        equal = self._is_hash_of(pepper, _message(seen.scope, seen.customer_id, row.code_version, code), row.hash)
        return equal and row.code_version in _versions_now_valid(seen, now)

    def _is_hash_of(self, pepper: bytes, message: bytes, stored: str) -> bool:
        with self._guard.place():
            try:
                return _hasher().verify(stored, hmac.digest(pepper, message, hashlib.sha256))
            except VerificationError:
                return False


def import_code(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, code: str, actor: str
) -> None:
    """Let a code that was printed elsewhere open a customer's record, beside the derived one, until the next rotation.

    All sessions end. A code that is too easy to guess is an ``InvalidInputError``.
    """
    row = _customer(connection, scope, external_id)
    normal = normalise_code(code)
    problem = weakness(normal, external_id)
    if problem:
        raise InvalidInputError(f"the code of {external_id!r} {problem}.", code="WEAK_CODE")
    pepper = secrets.token_bytes(32)
    message = _message(scope, row.customer_id, row.code_version, normal)
    connection.execute(_FORGET, {"t": scope.plane, "who": row.customer_id})
    connection.execute(
        imported_code.insert(),
        {
            "tenant_id": scope.plane,
            "customer_id": row.customer_id,
            "code_version": row.code_version,
            "sealed_pepper": keys.seal(pepper, tenant=scope.plane, place=_pepper_place(row.customer_id)),
            "hash": _hasher().hash(hmac.digest(pepper, message, hashlib.sha256)),
            "created_at": clock.now(),
        },
    )
    connection.execute(
        customer.update().where(_OF_CUSTOMER).values(code_epoch=customer.c.code_epoch + 1),
        {"t": scope.plane, "who": row.customer_id},
    )
    audit.record(connection, scope, clock, "code.imported", actor=actor, customer_id=row.customer_id)


def weakness(code: str, external_id: str) -> str:
    """Return what makes a code (normalised) too easy to guess, as the rest of a sentence; empty if nothing does."""
    if len(code) < SHORTEST_CODE:
        return f"has not {SHORTEST_CODE} to 12 letters and digits"
    if len(set(code)) < 4:
        return "repeats too few characters"
    if any(code in run + run or code in (run + run)[::-1] for run in _RUNS):
        return "is a run of neighbouring characters"
    plain = re.sub(r"[^A-Z0-9]", "", external_id.upper())
    if plain and (code in plain or plain in code):
        return "says the customer's id"
    return ""


def import_link(
    db: Database,
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_id: str,
    handle: str,
    actor: str,
) -> None:
    """Make a handle that was printed elsewhere the customer's link; the link so far stops working, its sessions end.

    A handle that is none is an ``InvalidInputError``; one that is in use here already a ``ConflictError``.
    """
    row = _customer(connection, scope, external_id)
    normal = normalise_handle(handle)
    if normal is None or len(set(normal)) < 8:
        raise InvalidInputError(
            f"the handle of {external_id!r} is none: 20 to 64 of a-z, 0-9, _ and -, and not a few of them only.",
            code="WEAK_HANDLE",
        )
    digest = handle_digest(normal)
    used = lookup.find_link(db, digest)
    if used is not None and (used.tenant_id, used.customer_id) == (scope.plane, row.customer_id):
        return
    if used is not None:
        raise ConflictError(f"the handle of {external_id!r} is the link of another customer.", code="LINK_EXISTS")
    changed = link.update().where(link.c.tenant_id == _T, link.c.customer_id == bindparam("who"))
    connection.execute(
        changed.values(
            version=link.c.version + 1,
            digest=digest,
            sealed_handle=keys.seal(normal.encode(), tenant=scope.plane, place=handle_place(row.customer_id)),
            epoch=link.c.epoch + 1,
            tries=0,
            issued_at=clock.now(),
            revoked_at=None,
        ),
        {"t": scope.plane, "who": row.customer_id},
    )
    audit.record(connection, scope, clock, "link.imported", actor=actor, customer_id=row.customer_id)


def _customer(connection: Connection, scope: Scope, external_id: str) -> Any:
    row = connection.execute(_FIND, {"t": scope.plane, "external_id": external_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no customer {external_id!r}.", code="CUSTOMER_NOT_FOUND")
    return row


def _versions_now_valid(seen: Visit, now: datetime) -> tuple[int, ...]:
    row = seen.row
    former = row.former_code_until is not None and now < row.former_code_until
    return (row.code_version, row.code_version - 1) if former else (row.code_version,)


def _message(scope: Scope, customer_id: UUID, version: int, code: str) -> bytes:
    return b"\0".join((scope.plane.bytes, customer_id.bytes, version.to_bytes(8), code.encode()))


def _pepper_place(customer_id: UUID) -> str:
    return f"imported_code.sealed_pepper/{customer_id}"


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _decoy() -> str:
    """Return a hash of nothing that is ever asked for, with the parameters of the real ones."""
    return _hasher().hash(secrets.token_bytes(32))
