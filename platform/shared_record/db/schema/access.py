"""Links, sessions, API keys and the audit trail."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Integer, LargeBinary, String, Table, UniqueConstraint, Uuid

from shared_record.db.schema.base import PLANE, epoch_column, metadata, tenant_column, within_tenant
from shared_record.db.types import Instant

link = Table(
    "link",
    metadata,
    tenant_column(),
    Column("customer_id", Uuid, primary_key=True),
    Column("link_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kid", String(32), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    epoch_column(),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("issued_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    UniqueConstraint("tenant_id", "digest"),
    UniqueConstraint("tenant_id", "link_id"),
    Index("ix_link_digest", "digest"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""``digest`` is SHA-256 of the handle, which is derived and never stored. ``tries`` counts wrong codes in a row."""

session = Table(
    "session",
    metadata,
    tenant_column(),
    Column("sid_hash", LargeBinary(32), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("host", String(253), nullable=False),
    Column("method", String(63), nullable=False),
    Column("subject", String(200), nullable=False, server_default=""),
    Column("tenant_epoch", Integer, nullable=False),
    Column("host_epoch", Integer, nullable=False),
    Column("link_epoch", Integer, nullable=False),
    Column("code_epoch", Integer, nullable=False),
    Column("customer_epoch", Integer, nullable=False),
    Column("method_epoch", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_seen_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Index("ix_session_customer", "tenant_id", "customer_id"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)

api_key = Table(
    "api_key",
    metadata,
    tenant_column(),
    Column("public_id", String(32), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Index("ix_api_key_public_id", "public_id"),
    within_tenant(table="tenant"),
    info=PLANE,
)

audit_event = Table(
    "audit_event",
    metadata,
    tenant_column(),
    Column("event_id", Uuid, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("event", String(64), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("customer_id", Uuid),
    Column("detail", JSON, nullable=False),
    Index("ix_audit_event_at", "tenant_id", "at", "event_id"),
    within_tenant(table="tenant"),
    info=PLANE | {"scope": "either"},
)
"""Written in the transaction of the change it tells of. Append-only."""
