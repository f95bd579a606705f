"""Tenants, their settings, and their customers."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from shared_record.db.schema.base import (
    ACROSS_TENANTS,
    CONFIG,
    GLOBAL,
    PLANE,
    epoch_column,
    metadata,
    tenant_column,
    within_tenant,
)
from shared_record.db.types import Instant

installation = Table(
    "installation",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Integer, nullable=False),
    info=GLOBAL,
)
"""Counters of the installation, e.g. ``host_generation``."""

tenant = Table(
    "tenant",
    metadata,
    tenant_column(),
    Column("config_of", Uuid, ForeignKey("tenant.tenant_id")),
    Column("slug", String(63), nullable=False),
    Column("public_id", String(32), nullable=False),
    Column("name", String(200), nullable=False),
    Column("state", String(16), nullable=False, server_default="active"),
    epoch_column(),
    Column("policy", String(16), nullable=False, server_default="TWO_TIER"),
    Column("theme", String(63), nullable=False, server_default="default"),
    Column("zone", String(64), nullable=False, server_default="UTC"),
    Column("language", String(35)),
    Column("unit", String(64), nullable=False, server_default="units"),
    Column("contact", String(200), nullable=False, server_default=""),
    Column("hide_amounts", Boolean, nullable=False, server_default="0"),
    Column("checkpoint_seconds", Integer),
    Column("retention_days", Integer),
    Column("api_rate", Integer, nullable=False, server_default="100"),
    Column("api_burst", Integer, nullable=False, server_default="200"),
    Column("witnesses", JSON, nullable=False, server_default="[]"),
    Column("witness_quorum", Integer, nullable=False, server_default="0"),
    Column("anchors", JSON, nullable=False, server_default="[]"),
    Column("anchor_seconds", Integer, nullable=False, server_default="600"),
    Column("export_formats", JSON, nullable=False),
    Column("embed_origins", JSON, nullable=False, server_default="[]"),
    Column("breakdowns", JSON, nullable=False, server_default="[]"),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("next_slot", Integer, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Index("uq_tenant_slug", "slug", unique=True, info=ACROSS_TENANTS),
    Index(
        "uq_tenant_config_of",
        "config_of",
        unique=True,
        sqlite_where=text("config_of IS NOT NULL"),
        postgresql_where=text("config_of IS NOT NULL"),
        info=ACROSS_TENANTS,
    ),
    Index("uq_tenant_public_id", "public_id", unique=True, info=ACROSS_TENANTS),
    info=PLANE | {"scope": "either"},
)
"""One row per data plane. The test plane's row has ``config_of`` set and takes all settings from that live row."""

tenant_method = Table(
    "tenant_method",
    metadata,
    tenant_column(),
    Column("slug", String(63), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("settings", JSON, nullable=False),
    epoch_column(),
    within_tenant(table="tenant"),
    info=CONFIG,
)

tenant_manifest = Table(
    "tenant_manifest",
    metadata,
    tenant_column(),
    Column("applied", JSON, nullable=False),
    Column("applied_at", Instant, nullable=False),
    within_tenant(table="tenant"),
    info=CONFIG,
)
"""The values of ``tenants/<slug>.toml`` as last applied: what tells an edit of the file from drift in the database."""

NEXT_HEAD = text("next_head IS NOT NULL")
GONE = text("slot_epoch IS NULL AND sealed_key IS NULL")

customer = Table(
    "customer",
    metadata,
    tenant_column(),
    Column("customer_id", Uuid, primary_key=True),
    Column("external_id", String(128), nullable=False),
    Column("display_name", String(200)),
    Column("language", String(35)),
    Column("unit", String(64)),
    Column("slot", Integer, nullable=False),
    Column("ref", String(40), nullable=False),
    Column("sealed_key", LargeBinary),
    Column("home_host", String(253)),
    Column("policy", String(16)),
    epoch_column(),
    epoch_column("code_epoch"),
    Column("code_version", Integer, nullable=False, server_default="1"),
    Column("code_kid", String(32), nullable=False),
    Column("former_code_kid", String(32)),
    Column("former_code_until", Instant),
    Column("head", Text),
    Column("next_head", Text),
    Column("head_epoch", BigInteger),
    Column("slot_epoch", BigInteger),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "external_id"),
    UniqueConstraint("tenant_id", "slot"),
    Index("ix_customer_next_head", "tenant_id", "slot", sqlite_where=NEXT_HEAD, postgresql_where=NEXT_HEAD),
    Index("ix_customer_gone", "tenant_id", "slot", sqlite_where=GONE, postgresql_where=GONE),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""``home_host``, ``policy``, ``unit`` and ``language`` are the customer's own; null means the tenant's. ``head`` is the
part of the customer's head that only its own deltas and closes change, as of the newest published epoch; ``next_head``
replaces it from the next epoch on, after a period was closed. ``head_epoch`` is the epoch that last stated this
customer's periods; ``sealed_key`` is null once erased; ``slot_epoch`` is null from then until an epoch has given its
slot a random leaf."""
