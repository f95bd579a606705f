"""The few questions that may be asked before a tenant is known.

Each returns the tenant and what is needed to decide, never data. On PostgreSQL they are ``SECURITY DEFINER`` functions,
because the application's role sees no row without a scope; on SQLite the same text runs as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Integer, LargeBinary, String, TextClause, Uuid, bindparam, text
from sqlalchemy.types import TypeEngine

from shared_record.db.engine import Database
from shared_record.db.prepared import fetch_all
from shared_record.db.scope import Scope
from shared_record.db.types import Instant


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One data plane."""

    tenant_id: UUID
    config_of: UUID | None
    slug: str
    public_id: str
    state: str

    @property
    def scope(self) -> Scope:
        """The scope of this plane."""
        return Scope.of(self.tenant_id, self.config_of)


@dataclass(frozen=True, slots=True)
class HostRow:
    """An active host and its (live) tenant; ``target`` is the tenant's primary host, ``twin`` its test plane."""

    tenant_id: UUID
    host: str
    role: str
    epoch: int
    target: str | None
    twin: UUID | None


@dataclass(frozen=True, slots=True)
class LinkRow:
    """Whose link a handle's digest is."""

    tenant_id: UUID
    config_of: UUID | None
    customer_id: UUID

    @property
    def scope(self) -> Scope:
        """The scope of the link's plane."""
        return Scope.of(self.tenant_id, self.config_of)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Whose session an id's digest is, ended or not."""

    tenant_id: UUID
    host: str


@dataclass(frozen=True, slots=True)
class LogRow:
    """Whose log a public id names."""

    tenant_id: UUID
    config_of: UUID | None

    @property
    def scope(self) -> Scope:
        """The scope of the log's plane."""
        return Scope.of(self.tenant_id, self.config_of)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key or token: its plane, its verifier, and the tenant's state and rate limit.

    ``owner`` is what it shares with the keys it was rotated from and to.
    """

    tenant_id: UUID
    config_of: UUID | None
    public_id: str
    kind: str
    owner: str
    secret_hash: bytes
    scopes: list[str]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str
    rate: int
    burst: int

    @property
    def scope(self) -> Scope:
        """The scope of the key's plane."""
        return Scope.of(self.tenant_id, self.config_of)


@dataclass(frozen=True, slots=True)
class ProofRow:
    """What a public id or root stands for: ``kind`` is ``delta`` or ``receipt``, ``id`` its record or receipt id."""

    tenant_id: UUID
    config_of: UUID | None
    kind: str
    id: str

    @property
    def scope(self) -> Scope:
        """The scope of the plane it belongs to."""
        return Scope.of(self.tenant_id, self.config_of)


_TENANT_COLUMNS = {"tenant_id": Uuid, "config_of": Uuid, "slug": String, "public_id": String, "state": String}
_HOST_COLUMNS = {
    "tenant_id": Uuid,
    "host": String,
    "role": String,
    "epoch": Integer,
    "target": String,
    "twin": Uuid,
}
_LINK_COLUMNS = {"tenant_id": Uuid, "config_of": Uuid, "customer_id": Uuid}
_KEY_COLUMNS = {
    "tenant_id": Uuid,
    "config_of": Uuid,
    "public_id": String,
    "kind": String,
    "owner": String,
    "secret_hash": LargeBinary,
    "scopes": JSON,
    "expires_at": Instant,
    "revoked_at": Instant,
    "last_used_at": Instant,
    "state": String,
    "rate": Integer,
    "burst": Integer,
}

LOOKUPS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "sr_find_host": (
        {"p_host": String},
        _HOST_COLUMNS,
        "SELECT h.tenant_id, h.host, h.role, h.epoch, p.host AS target, t.tenant_id AS twin FROM host h"
        " LEFT JOIN host p ON p.tenant_id = h.tenant_id AND p.is_primary AND p.role = 'serving'"
        " LEFT JOIN tenant t ON t.config_of = h.tenant_id"
        " WHERE h.host = :p_host AND h.role <> 'released'",
    ),
    "sr_find_link": (
        {"p_digest": LargeBinary},
        _LINK_COLUMNS,
        "SELECT l.tenant_id, t.config_of, l.customer_id FROM link l"
        " JOIN tenant t ON t.tenant_id = l.tenant_id WHERE l.digest = :p_digest AND l.revoked_at IS NULL",
    ),
    "sr_find_challenge": (
        {"p_digest": LargeBinary},
        _LINK_COLUMNS,
        "SELECT c.tenant_id, t.config_of, c.customer_id FROM challenge c"
        " JOIN tenant t ON t.tenant_id = c.tenant_id WHERE c.digest = :p_digest",
    ),
    "sr_find_session": (
        {"p_digest": LargeBinary},
        {"tenant_id": Uuid, "host": String},
        "SELECT s.tenant_id, s.host FROM session s WHERE s.sid_hash = :p_digest",
    ),
    "sr_list_unsealed": (
        {},
        _TENANT_COLUMNS,
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
        " FROM audit_event a WHERE a.tenant_id = t.tenant_id AND a.position IS NULL) ORDER BY t.slug",
    ),
    "sr_find_api_key": (
        {"p_public_id": String},
        _KEY_COLUMNS,
        "SELECT k.tenant_id, t.config_of, k.public_id, k.kind, coalesce(k.owner, k.public_id) AS owner, k.secret_hash,"
        " k.scopes, k.expires_at, k.revoked_at, k.last_used_at, c.state, c.api_rate AS rate, c.api_burst AS burst"
        " FROM api_key k JOIN tenant t ON t.tenant_id = k.tenant_id"
        " JOIN tenant c ON c.tenant_id = coalesce(t.config_of, t.tenant_id)"
        " WHERE k.public_id = :p_public_id",
    ),
    "sr_find_receipt": (
        {"p_receipt_id": String},
        {"tenant_id": Uuid, "config_of": Uuid, "receipt_id": String},
        "SELECT r.tenant_id, t.config_of, r.receipt_id FROM receipt r"
        " JOIN tenant t ON t.tenant_id = r.tenant_id WHERE r.receipt_id = :p_receipt_id",
    ),
    "sr_find_proof": (
        {"p_hash": LargeBinary},
        {"tenant_id": Uuid, "config_of": Uuid, "kind": String, "id": String},
        "SELECT l.tenant_id, t.config_of, 'delta' AS kind, l.record_id AS id FROM leaf l"
        " JOIN tenant t ON t.tenant_id = l.tenant_id WHERE l.hash = :p_hash"
        " UNION ALL SELECT r.tenant_id, t.config_of, 'receipt', r.receipt_id FROM receipt r"
        " JOIN tenant t ON t.tenant_id = r.tenant_id WHERE r.proof_root = :p_hash",
    ),
    "sr_find_tenant": (
        {"p_slug": String},
        _TENANT_COLUMNS,
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE t.slug = :p_slug",
    ),
    "sr_list_tenants": (
        {},
        _TENANT_COLUMNS,
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t ORDER BY t.slug",
    ),
    "sr_list_due": (
        {"p_now": Instant},
        _TENANT_COLUMNS,
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
        " FROM period_tree p WHERE p.tenant_id = t.tenant_id AND p.status <> 'erased'"
        " AND (p.size > p.psize OR p.status = 'closing'))"
        " OR EXISTS (SELECT 1 FROM job j WHERE j.tenant_id = t.tenant_id AND j.due_at <= :p_now) ORDER BY t.slug",
    ),
    "sr_list_webhooks_due": (
        {"p_now": Instant},
        _TENANT_COLUMNS,
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
        " FROM webhook_event e WHERE e.tenant_id = t.tenant_id AND e.state = 'new')"
        " OR EXISTS (SELECT 1 FROM webhook_endpoint w WHERE w.tenant_id = t.tenant_id AND w.enabled"
        " AND (w.not_before IS NULL OR w.not_before <= :p_now) AND (w.lease_until IS NULL OR w.lease_until <= :p_now)"
        " AND (EXISTS (SELECT 1 FROM webhook_task k WHERE k.tenant_id = w.tenant_id AND k.endpoint_id = w.endpoint_id)"
        " OR EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.tenant_id = w.tenant_id"
        " AND d.endpoint_id = w.endpoint_id AND d.state = 'PENDING' AND d.next_attempt_at <= :p_now)))"
        " ORDER BY t.slug",
    ),
    "sr_list_mail_due": (
        {"p_now": Instant},
        _TENANT_COLUMNS,
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
        " FROM mail m WHERE m.tenant_id = t.tenant_id AND m.due_at <= :p_now) ORDER BY t.slug",
    ),
    "sr_find_log": (
        {"p_public_id": String},
        {"tenant_id": Uuid, "config_of": Uuid},
        "SELECT t.tenant_id, t.config_of FROM tenant t WHERE t.public_id = :p_public_id",
    ),
    "sr_list_log_keys": (
        {},
        {"origin": String, "vkey": String},
        "SELECT g.origin, s.vkey FROM signing_key s JOIN log g ON g.tenant_id = s.tenant_id"
        " ORDER BY g.origin, s.since_size",
    ),
}
"""Name -> (parameters, result columns, body). The migrations create the same bodies as functions on PostgreSQL."""


def find_host(db: Database, host: str) -> HostRow | None:
    """Return the active claim of ``host`` (normalised), or ``None``."""
    rows = _ask(db, "sr_find_host", p_host=host)
    return HostRow(*rows[0]) if rows else None


def find_link(db: Database, digest: bytes) -> LinkRow | None:
    """Return whose unrevoked link has this SHA-256 ``digest``, or ``None``."""
    rows = _ask(db, "sr_find_link", p_digest=digest)
    return LinkRow(*rows[0]) if rows else None


def find_challenge(db: Database, digest: bytes) -> LinkRow | None:
    """Return whose step-up is waiting under this SHA-256 ``digest``, or ``None``."""
    rows = _ask(db, "sr_find_challenge", p_digest=digest)
    return LinkRow(*rows[0]) if rows else None


def find_session(db: Database, digest: bytes) -> SessionRow | None:
    """Return whose session has this SHA-256 ``digest``: to tell of a cookie that came to the wrong host."""
    rows = _ask(db, "sr_find_session", p_digest=digest)
    return SessionRow(*rows[0]) if rows else None


def find_api_key(db: Database, public_id: str) -> KeyRow | None:
    """Return the key with this public id, revoked or not, or ``None``."""
    rows = _ask(db, "sr_find_api_key", p_public_id=public_id)
    return KeyRow(*rows[0]) if rows else None


def find_receipt(db: Database, receipt_id: str) -> ProofRow | None:
    """Return whose receipt document this id is, or ``None``."""
    rows = _ask(db, "sr_find_receipt", p_receipt_id=receipt_id)
    return ProofRow(rows[0].tenant_id, rows[0].config_of, "receipt", rows[0].receipt_id) if rows else None


def find_proof(db: Database, digest: bytes) -> ProofRow | None:
    """Return what a leaf hash or proof root stands for; of several equal ones the newest document, or ``None``."""
    rows = _ask(db, "sr_find_proof", p_hash=digest)
    return ProofRow(*rows[-1]) if rows else None


def find_tenant(db: Database, slug: str) -> TenantRow | None:
    """Return the plane with this slug (a test plane's is ``<slug>~test``), or ``None``."""
    rows = _ask(db, "sr_find_tenant", p_slug=slug)
    return TenantRow(*rows[0]) if rows else None


def list_tenants(db: Database) -> list[TenantRow]:
    """Return every plane, by slug."""
    return [TenantRow(*row) for row in _ask(db, "sr_list_tenants")]


def list_due(db: Database, now: datetime) -> list[TenantRow]:
    """Return the planes in which the worker has something to do: new deltas, or a job that is due."""
    return [TenantRow(*row[:5]) for row in _ask(db, "sr_list_due", p_now=now)]


def list_unsealed(db: Database) -> list[TenantRow]:
    """Return the planes whose audit trail has rows that are not chained yet."""
    return [TenantRow(*row) for row in _ask(db, "sr_list_unsealed")]


def list_webhooks_due(db: Database, now: datetime) -> list[TenantRow]:
    """Return the planes that have events to share out, or an endpoint to which something is to be sent now."""
    return [TenantRow(*row[:5]) for row in _ask(db, "sr_list_webhooks_due", p_now=now)]


def list_mail_due(db: Database, now: datetime) -> list[TenantRow]:
    """Return the planes that have a mail to send now."""
    return [TenantRow(*row) for row in _ask(db, "sr_list_mail_due", p_now=now)]


def find_log(db: Database, public_id: str) -> LogRow | None:
    """Return the plane with this public id, or ``None``."""
    rows = _ask(db, "sr_find_log", p_public_id=public_id)
    return LogRow(*rows[0]) if rows else None


def list_all_log_keys(db: Database) -> dict[str, list[str]]:
    """Return the verifier keys (vkey) of every log of this installation, by origin, oldest first."""
    keys: dict[str, list[str]] = {}
    for origin, vkey in _ask(db, "sr_list_log_keys"):
        keys.setdefault(origin, []).append(vkey)
    return keys


def _ask(db: Database, name: str, **parameters: Any) -> list[Any]:
    with db.look_up() as connection:
        return fetch_all(connection, _STATEMENTS[name, db.is_postgresql], parameters)


def _statement(name: str, *, as_function: bool) -> Any:
    parameters, columns, body = LOOKUPS[name]
    if as_function:
        arguments = ", ".join(f":{parameter}" for parameter in parameters)
        body = f"SELECT {', '.join(columns)} FROM {name}({arguments})"  # noqa: S608  constants of this module
    statement: TextClause = text(body).bindparams(*(bindparam(key, type_=kind) for key, kind in parameters.items()))
    kinds: dict[str, TypeEngine[Any]] = {key: kind() for key, kind in columns.items()}
    return statement.columns(**kinds)


_STATEMENTS = {(name, pg): _statement(name, as_function=pg) for name in LOOKUPS for pg in (False, True)}
