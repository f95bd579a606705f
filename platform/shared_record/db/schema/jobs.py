"""Background work: one row per (tenant, kind), with a lease and a fencing number."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table, Text

from shared_record.db.schema.base import PLANE, metadata, tenant_column, within_tenant
from shared_record.db.types import Instant

job = Table(
    "job",
    metadata,
    tenant_column(),
    Column("kind", String(32), primary_key=True),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("holder", String(64)),
    Column("lease_until", Instant),
    Column("due_at", Instant, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""``fence`` rises with each lease; a write made under an older fence is refused."""
