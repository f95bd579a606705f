"""API keys ``pk_{live|test}_{publicId}.{secret}`` and personal access tokens ``srp_{publicId}.{secret}``.

The prefix of a key chooses the data plane. Of a secret only a hash is stored, so each is shown once. A rotated key has
the same *owner* as the one it succeeds: what belongs to a key (its rate limit, its idempotency keys) belongs to both.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, select

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.lookup import KeyRow
from shared_record.db.schema import api_key
from shared_record.db.scope import Scope
from shared_record.errors import AccessDeniedError, ConflictError, InvalidInputError, NotFoundError
from shared_record.identifiers import base32

RECORD_WRITE, RECORD_READ = "record:write", "record:read"
CHECKPOINT_WRITE = "checkpoint:write"
CUSTOMER_READ, CUSTOMER_WRITE = "customer:read", "customer:write"
WEBHOOK_MANAGE = "webhook:manage"
CODE_REVEAL = "code:reveal"
ACCESS_MANAGE = "access:manage"

SCOPES = {
    RECORD_READ: "read deltas, balances, checkpoints, receipts and proofs",
    RECORD_WRITE: "record deltas",
    CHECKPOINT_WRITE: "ask for checkpoints",
    CUSTOMER_READ: "read customers, their links and invoice bundles",
    CUSTOMER_WRITE: "create customers",
    WEBHOOK_MANAGE: "webhook endpoints and deliveries",
    CODE_REVEAL: "see access codes; each is written to the audit trail",
    ACCESS_MANAGE: "policies, lists of who may open a record; revoke and reissue links, rotate codes",
}
"""Every scope there is, and what it lets a key do."""
DEFAULT_SCOPES = (RECORD_READ, RECORD_WRITE, CHECKPOINT_WRITE, CUSTOMER_READ, CUSTOMER_WRITE, WEBHOOK_MANAGE)
"""What a new key may do: all that the calls of an integration need, and nothing that opens or closes a link."""
TOKEN_SCOPES = (CUSTOMER_READ, CUSTOMER_WRITE)

KEY, TOKEN = "key", "token"
USE_NOTED = timedelta(minutes=1)
"""How far ``last_used_at`` may lag."""

_KEY_FORM = re.compile(r"pk_(live|test)_([0-9a-z]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)
_BEARER_FORM = re.compile(r"[Bb]earer +srp_([0-9a-z]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)

_MINE = (api_key.c.tenant_id == bindparam("t"), api_key.c.public_id == bindparam("id"))
_READ = select(api_key).where(*_MINE)
_LIST = (
    select(api_key)
    .where(api_key.c.tenant_id == bindparam("t"), api_key.c.kind == bindparam("of_kind"))
    .order_by(api_key.c.created_at, api_key.c.public_id)
)
_SUCCESSORS = select(api_key.c.public_id).where(
    api_key.c.tenant_id == bindparam("t"),
    api_key.c.owner == bindparam("line"),
    api_key.c.created_at > bindparam("since"),
    api_key.c.revoked_at.is_(None),
)
_END = api_key.update().where(*_MINE).values(expires_at=bindparam("until"), revoked_at=bindparam("revoked"))
_FIRST_USE = api_key.update().where(*_MINE, api_key.c.last_used_at.is_(None)).values(last_used_at=bindparam("now"))
_LATER_USE = (
    api_key.update().where(*_MINE, api_key.c.last_used_at <= bindparam("before")).values(last_used_at=bindparam("now"))
)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key or token as it may be shown."""

    public_id: str
    kind: str
    name: str
    environment: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def condition(self, now: datetime) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


# --- Making, changing, listing ---------------------------------------------------------------------------------------


def create_key(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    *,
    name: str,
    scopes: Sequence[str] = DEFAULT_SCOPES,
    actor: str,
    expires_at: datetime | None = None,
) -> str:
    """Make a key for the scope's plane and return it whole: it cannot be shown again."""
    return _create(connection, clock, scope, KEY, name, scopes, actor, expires_at)


def create_token(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    *,
    name: str,
    scopes: Sequence[str] = TOKEN_SCOPES,
    actor: str,
    expires_at: datetime | None = None,
) -> str:
    """Make a personal access token for the scope's plane and return it whole: it cannot be shown again."""
    return _create(connection, clock, scope, TOKEN, name, scopes, actor, expires_at)


def rotate_key(
    connection: Connection, clock: Clock, scope: Scope, public_id: str, *, overlap: timedelta, actor: str
) -> str:
    """Make the successor of a key and return it whole; the old one ends after ``overlap``, or now if that is zero.

    The successor has its name, scopes, owner and length of life. ``NotFoundError`` for an unknown key;
    ``ConflictError`` for one that has ended or was rotated before.
    """
    row, now = _require(connection, scope, public_id), clock.now()
    info = _info(scope, row)
    if row.kind != KEY or info.condition(now) != "active":
        raise ConflictError(f"the {row.kind} {public_id} cannot be rotated: it is {info.condition(now)}.")
    line = row.owner or row.public_id
    since = {"t": scope.plane, "line": line, "since": row.created_at}
    if successor := connection.execute(_SUCCESSORS, since).scalars().first():
        raise ConflictError(f"the key {public_id} was rotated already; its successor is {successor}.")
    expires_at = now + (row.expires_at - row.created_at) if row.expires_at is not None else None
    fresh = _create(connection, clock, scope, KEY, row.name, row.scopes, actor, expires_at, succeeds=row)
    until = min(now + overlap, row.expires_at or now + overlap)
    revoked = None if overlap else now
    connection.execute(_END, {"t": scope.plane, "id": public_id, "until": until, "revoked": revoked})
    return fresh


def revoke_key(connection: Connection, clock: Clock, scope: Scope, public_id: str, *, actor: str) -> None:
    """End a key or token with this transaction; ``NotFoundError`` for an unknown one. Twice does no more than once."""
    row = _require(connection, scope, public_id)
    if row.revoked_at is not None:
        return
    ended = {"t": scope.plane, "id": public_id, "until": row.expires_at, "revoked": clock.now()}
    connection.execute(_END, ended)
    audit.record(connection, scope, clock, f"{row.kind}.revoked", actor=actor, detail={"key": public_id})


def list_keys(connection: Connection, scope: Scope, kind: str = KEY) -> list[KeyInfo]:
    """Return the plane's keys (or tokens), ended ones included, oldest first."""
    rows = connection.execute(_LIST, {"t": scope.plane, "of_kind": kind})
    return [_info(scope, row) for row in rows]


def _create(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    kind: str,
    name: str,
    scopes: Sequence[str],
    actor: str,
    expires_at: datetime | None,
    succeeds: Any = None,
) -> str:
    if unknown := [one for one in scopes if one not in SCOPES]:
        raise InvalidInputError(f"there is no scope {unknown[0]!r}. Scopes: {', '.join(SCOPES)}.")
    public_id = base32(secrets.randbits(80), 16)
    secret = secrets.token_urlsafe(32)
    chosen = sorted(set(scopes), key=list(SCOPES).index)
    connection.execute(
        api_key.insert(),
        {
            "tenant_id": scope.plane,
            "public_id": public_id,
            "kind": kind,
            "owner": (succeeds.owner or succeeds.public_id) if succeeds is not None else None,
            "name": name,
            "secret_hash": hashlib.sha256(secret.encode()).digest(),
            "scopes": chosen,
            "created_at": clock.now(),
            "expires_at": expires_at,
        },
    )
    detail = {"key": public_id, "scopes": chosen}
    if succeeds is not None:
        detail["succeeds"] = succeeds.public_id
    event = f"{kind}.created" if succeeds is None else f"{kind}.rotated"
    audit.record(connection, scope, clock, event, actor=actor, detail=detail)
    prefix = f"pk_{_environment(scope)}" if kind == KEY else "srp"
    return f"{prefix}_{public_id}.{secret}"


def _require(connection: Connection, scope: Scope, public_id: str) -> Any:
    row = connection.execute(_READ.with_for_update(), {"t": scope.plane, "id": public_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no key or token {public_id!r} here.")
    return row


def _info(scope: Scope, row: Any) -> KeyInfo:
    return KeyInfo(
        row.public_id,
        row.kind,
        row.name,
        _environment(scope),
        tuple(row.scopes),
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.last_used_at,
    )


def _environment(scope: Scope) -> str:
    return "live" if scope.plane == scope.config else "test"


# --- Presenting ------------------------------------------------------------------------------------------------------


def authenticate(db: Database, clock: Clock, presented: str | None) -> KeyRow:
    """Return the key that was presented; else ``AccessDeniedError`` (401 ``INVALID_API_KEY``), always the same."""
    match = _KEY_FORM.fullmatch(presented or "")
    row = _find(db, clock, KEY, match[2] if match else None, match[3] if match else "")
    if match is None or row is None or (match[1] == "live") != (row.config_of is None):
        raise AccessDeniedError("The API key is missing or not valid.", code="INVALID_API_KEY", status=401)
    return row


def authenticate_bearer(db: Database, clock: Clock, authorization: str | None) -> KeyRow:
    """Return the token in ``Authorization: Bearer srp_…``; else ``AccessDeniedError`` (401 ``INVALID_TOKEN``)."""
    match = _BEARER_FORM.fullmatch(authorization or "")
    row = _find(db, clock, TOKEN, match[1] if match else None, match[2] if match else "")
    if row is None:
        raise AccessDeniedError(
            "The access token is missing or not valid.", code="INVALID_TOKEN", status=401, challenge="Bearer"
        )
    return row


def require_scope(key: KeyRow, scope: str) -> None:
    """Raise ``AccessDeniedError`` (403 ``FORBIDDEN_SCOPE``) unless the key has ``scope``."""
    if scope not in key.scopes:
        raise AccessDeniedError(f"This API key does not have the scope {scope}.", code="FORBIDDEN_SCOPE")


def _find(db: Database, clock: Clock, kind: str, public_id: str | None, secret: str) -> KeyRow | None:
    """Return the row of that id if the secret is its own and it is in force."""
    row = lookup.find_api_key(db, public_id) if public_id is not None else None
    digest = hashlib.sha256(secret.encode()).digest()
    fits = hmac.compare_digest(row.secret_hash if row else bytes(32), digest)
    if row is None or not fits or row.kind != kind or row.revoked_at is not None or row.state != "active":
        return None
    return None if row.expires_at is not None and row.expires_at <= clock.now() else row


# --- Use -------------------------------------------------------------------------------------------------------------


class KeyUses:
    """Decides, for one process, when a use is to be noted: at most once a minute for each key."""

    def __init__(self) -> None:
        self._noted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def is_due(self, key: KeyRow, now: datetime) -> bool:
        """Tell whether this use is to be noted; if so, the caller does it."""
        if key.last_used_at is not None and now - key.last_used_at < USE_NOTED:
            return False
        with self._lock:
            last = self._noted.get(key.public_id)
            if last is not None and now - last < USE_NOTED:
                return False
            self._noted[key.public_id] = now
            return True


def note_use(db: Database, clock: Clock, key: KeyRow) -> None:
    """Write that a key was used, and an audit event if it never was before."""
    mine: dict[str, Any] = {"t": key.tenant_id, "id": key.public_id, "now": clock.now()}
    with db.write(key.scope) as connection:
        if connection.execute(_LATER_USE, mine | {"before": mine["now"] - USE_NOTED}).rowcount:
            return
        if key.last_used_at is None and connection.execute(_FIRST_USE, mine).rowcount:
            actor = f"{key.kind}:{key.public_id}"
            detail = {"key": key.public_id}
            audit.record(connection, key.scope, clock, f"{key.kind}.used_first", actor=actor, detail=detail)
