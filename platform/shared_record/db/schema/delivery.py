"""Webhooks: endpoints, the outbox of events, what is still to be sent, and the log of deliveries."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text, Uuid, text

from shared_record.db.schema.base import PLANE, metadata, tenant_column, within_tenant
from shared_record.db.types import Instant

WAITING = text("state <> 'sent'")
PENDING = text("state = 'PENDING'")

webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    tenant_column(),
    Column("endpoint_id", String(40), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("description", String(200), nullable=False, server_default=""),
    Column("events", JSON),
    Column("enabled", Boolean, nullable=False, server_default="1"),
    Column("disabled_reason", String(200)),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("sealed_former", LargeBinary),
    Column("former_until", Instant),
    Column("created_at", Instant, nullable=False),
    Column("last_attempt_at", Instant),
    Column("successes", BigInteger, nullable=False, server_default="0"),
    Column("failures", BigInteger, nullable=False, server_default="0"),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("lease_until", Instant),
    Column("not_before", Instant),
    Column("failing", Integer, nullable=False, server_default="0"),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""Where a tenant wants its events. ``events``: a list of names, or null for all. The secrets are sealed. One worker at
a time sends to an endpoint: ``fence`` and ``lease_until`` are its lease. After ``failing`` rounds in a row without one
success nothing is sent before ``not_before``."""

webhook_event = Table(
    "webhook_event",
    metadata,
    tenant_column(),
    Column("event_id", String(40), primary_key=True),
    Column("event", String(64), nullable=False),
    Column("state", String(4), nullable=False),
    Column("customer_id", Uuid),
    Column("tree_id", String(20)),
    Column("first", BigInteger),
    Column("last", BigInteger),
    Column("data", Text),
    Column("created_at", Instant, nullable=False),
    Index("ix_webhook_event_at", "tenant_id", "created_at", "event_id"),
    Index("ix_webhook_event_customer", "tenant_id", "customer_id"),
    Index(
        "ix_webhook_event_waiting",
        "tenant_id",
        "state",
        "created_at",
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    ),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""The outbox, written in the transaction of the change. ``state``: ``held`` until a checkpoint covers what it tells of,
``new`` until it is shared out to endpoints, then ``sent``. One event has ``data`` (JSON text); a range of deltas has
``tree_id`` and the positions ``first`` to ``last``, and is expanded when it is sent."""

webhook_task = Table(
    "webhook_task",
    metadata,
    tenant_column(),
    Column("task_id", String(40), primary_key=True),
    Column("endpoint_id", String(40), nullable=False),
    Column("event_id", String(40), nullable=False),
    Column("first", BigInteger),
    Column("last", BigInteger),
    Column("created_at", Instant, nullable=False),
    Index("ix_webhook_task_endpoint", "tenant_id", "endpoint_id", "created_at", "task_id"),
    within_tenant("endpoint_id", table="webhook_endpoint"),
    within_tenant("event_id", table="webhook_event"),
    info=PLANE,
)
"""What is still to be sent to an endpoint for the first time, or again by hand; of a range, what is left of it."""

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    tenant_column(),
    Column("delivery_id", String(48), primary_key=True),
    Column("endpoint_id", String(40), primary_key=True),
    Column("event_id", String(40), nullable=False),
    Column("seq", BigInteger),
    Column("event", String(64), nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_code", Integer),
    Column("last_error", String(200)),
    Column("created_at", Instant, nullable=False),
    Column("last_attempt_at", Instant, nullable=False),
    Column("next_attempt_at", Instant),
    Index("ix_webhook_delivery_at", "tenant_id", "created_at", "delivery_id"),
    Index(
        "ix_webhook_delivery_due",
        "tenant_id",
        "endpoint_id",
        "next_attempt_at",
        sqlite_where=PENDING,
        postgresql_where=PENDING,
    ),
    within_tenant("event_id", table="webhook_event"),
    info=PLANE,
)
"""The log, from the first attempt on: ``PENDING`` (tried, to be tried again), ``DELIVERED`` or ``FAILED``.
``delivery_id`` is the ``evt_`` id that the receiver sees; ``seq`` its position in a range. It outlives its endpoint."""
