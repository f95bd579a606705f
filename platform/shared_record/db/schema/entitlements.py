"""Who may step up at a record besides the holder of its code, and the mails that step-up sends."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, UniqueConstraint, Uuid, text

from shared_record.db.schema.base import PLANE, metadata, tenant_column, within_tenant
from shared_record.db.types import Instant

WAITS = text("due_at IS NOT NULL")

entitlement = Table(
    "entitlement",
    metadata,
    tenant_column(),
    Column("entitlement_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("sealed_value", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "customer_id", "digest"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""One rule: a person or an e-mail domain. ``digest`` is an HMAC of the normal form under the customer's own key, so it
says nothing beyond this customer and nothing once the customer is erased."""

pinned_address = Table(
    "pinned_address",
    metadata,
    tenant_column(),
    Column("customer_id", Uuid, primary_key=True),
    Column("address", LargeBinary(32), primary_key=True),
    Column("subject", LargeBinary(32), nullable=False),
    Column("entitlement_id", Uuid, nullable=False),
    Column("created_at", Instant, nullable=False),
    within_tenant("entitlement_id", table="entitlement"),
    info=PLANE,
)
"""The person, as an identity provider names them, who first showed an address that a rule lets in; both as HMAC."""

mail = Table(
    "mail",
    metadata,
    tenant_column(),
    Column("mail_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("purpose", String(63), nullable=False),
    Column("state", String(10), nullable=False),
    Column("sealed_message", LargeBinary),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Column("due_at", Instant),
    Column("expires_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Index("ix_mail_customer", "tenant_id", "customer_id"),
    Index("ix_mail_due", "tenant_id", "due_at", sqlite_where=WAITS, postgresql_where=WAITS),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""Mails, written in the transaction of what they tell of. ``state``: ``waiting`` (the only one with ``due_at``),
``sent``, ``expired``, ``refused`` by the mail server, or ``withheld``. The message is sealed, and removed once it does
not wait any more."""

mail_quota = Table(
    "mail_quota",
    metadata,
    tenant_column(),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("last_at", Instant),
    Column("hour_at", Instant),
    Column("hour_count", Integer, nullable=False, server_default="0"),
    Column("day_at", Instant),
    Column("day_count", Integer, nullable=False, server_default="0"),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""How many mails went to one address, for one record, or of one tenant; ``digest`` is an HMAC of which."""
