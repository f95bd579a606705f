"""Exports that are too large to be built in a request."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, String, Table, Uuid

from shared_record.db.schema.base import PLANE, metadata, tenant_column, within_tenant
from shared_record.db.types import Instant

export_job = Table(
    "export_job",
    metadata,
    tenant_column(),
    Column("export_id", String(40), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("period", String(7), nullable=False),
    Column("format", String(63), nullable=False),
    Column("language", String(35), nullable=False),
    Column("link_epoch", Integer),
    Column("state", String(9), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("written", BigInteger, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("file", String(100)),
    Column("filename", String(100)),
    Column("length", BigInteger),
    Column("sha256", LargeBinary(32)),
    Column("manifest", JSON(none_as_null=True)),
    Index("ix_export_job_customer", "tenant_id", "customer_id"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""``state``: ``preparing``, ``ready`` or ``failed``. ``rows``: in the period when it was asked for, ``written``: those
that were read so far. It is good only while ``link_epoch`` is that of the customer's link. ``file`` is its name in the
folder of the plane; that name, ``length`` and ``sha256`` are set together, once the file is complete."""
