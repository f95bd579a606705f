"""Branded hosts."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, String, Table, text

from shared_record.db.schema.base import ACROSS_TENANTS, CONFIG, epoch_column, metadata, tenant_column, within_tenant
from shared_record.db.types import Instant

host = Table(
    "host",
    metadata,
    tenant_column(),
    Column("host", String(253), primary_key=True),
    Column("display", String(253), nullable=False),
    Column("role", String(16), nullable=False),
    Column("is_primary", Boolean, nullable=False),
    epoch_column(),
    Column("created_at", Instant, nullable=False),
    within_tenant(table="tenant"),
    Index(
        "uq_host_active",
        "host",
        unique=True,
        sqlite_where=text("role <> 'released'"),
        postgresql_where=text("role <> 'released'"),
        info=ACROSS_TENANTS,
    ),
    Index(
        "uq_host_primary",
        "tenant_id",
        unique=True,
        sqlite_where=text("is_primary"),
        postgresql_where=text("is_primary"),
    ),
    info=CONFIG,
)
"""``role``: ``serving``, ``alias``, ``suspended`` or ``released``. ``host`` is the A-label, ``display`` for people."""
