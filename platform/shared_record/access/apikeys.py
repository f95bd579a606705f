"""API keys ``pk_{live|test}_{publicId}.{secret}``: the prefix chooses the data plane; only a hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from sqlalchemy import Connection

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.lookup import KeyRow
from shared_record.db.schema import api_key
from shared_record.db.scope import Scope
from shared_record.errors import AccessDeniedError
from shared_record.identifiers import base32

RECORD_WRITE, RECORD_READ = "record:write", "record:read"
DEFAULT_SCOPES = (RECORD_READ, RECORD_WRITE)

_FORM = re.compile(r"pk_(live|test)_([0-9a-z]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)


def create_key(
    connection: Connection, clock: Clock, scope: Scope, *, name: str, scopes: Sequence[str] = DEFAULT_SCOPES, actor: str
) -> str:
    """Make a key for the scope's plane and return it whole: it cannot be shown again."""
    public_id = base32(secrets.randbits(80), 16)
    secret = secrets.token_urlsafe(32)
    connection.execute(
        api_key.insert(),
        {
            "tenant_id": scope.plane,
            "public_id": public_id,
            "name": name,
            "secret_hash": hashlib.sha256(secret.encode()).digest(),
            "scopes": list(scopes),
            "created_at": clock.now(),
        },
    )
    audit.record(
        connection, scope, clock, "key.created", actor=actor, detail={"key": public_id, "scopes": list(scopes)}
    )
    plane = "live" if scope.plane == scope.config else "test"
    return f"pk_{plane}_{public_id}.{secret}"


def authenticate(db: Database, presented: str | None) -> KeyRow:
    """Return the key that was presented; else ``AccessDeniedError`` (401 ``INVALID_API_KEY``), always the same."""
    match = _FORM.fullmatch(presented or "")
    row = lookup.find_api_key(db, match[2]) if match else None
    digest = hashlib.sha256((match[3] if match else "").encode()).digest()
    fits = hmac.compare_digest(row.secret_hash if row else bytes(32), digest)
    if not (match and row and fits) or row.revoked_at is not None or row.state != "active":
        raise AccessDeniedError("The API key is missing or not valid.", code="INVALID_API_KEY", status=401)
    if (match[1] == "live") != (row.config_of is None):
        raise AccessDeniedError("The API key is missing or not valid.", code="INVALID_API_KEY", status=401)
    return row


def require_scope(key: KeyRow, scope: str) -> None:
    """Raise ``AccessDeniedError`` (403 ``FORBIDDEN_SCOPE``) unless the key has ``scope``."""
    if scope not in key.scopes:
        raise AccessDeniedError(f"This API key does not have the scope {scope}.", code="FORBIDDEN_SCOPE")
