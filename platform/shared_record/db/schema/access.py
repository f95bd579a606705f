"""Links, sessions, challenges, secrets of methods, API keys and the audit trail."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    text,
)

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
    Column("sealed_handle", LargeBinary),
    UniqueConstraint("tenant_id", "digest"),
    UniqueConstraint("tenant_id", "link_id"),
    Index("ix_link_digest", "digest"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""``digest`` is SHA-256 of the handle, which is derived and never stored, except that one printed elsewhere is kept as
``sealed_handle``. ``tries`` counts wrong answers in a row, of devices that are not trusted."""

session = Table(
    "session",
    metadata,
    tenant_column(),
    Column("sid_hash", LargeBinary(32), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("host", String(253), nullable=False),
    Column("method", String(63), nullable=False),
    Column("subject", String(200), nullable=False, server_default=""),
    Column("choice", String(63), nullable=False, server_default=""),
    Column("account", LargeBinary(32)),
    Column("elsewhere", LargeBinary(32)),
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
    Index("ix_session_sid_hash", "sid_hash"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""``choice``: which way to use the method. ``account`` and ``elsewhere``: keyed digests of who signed in at another
site and of that site's own session, by which it can end this one."""

api_key = Table(
    "api_key",
    metadata,
    tenant_column(),
    Column("public_id", String(32), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("kind", String(8), nullable=False, server_default="key"),
    Column("owner", String(32)),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("last_used_at", Instant),
    Index("ix_api_key_public_id", "public_id"),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""``kind``: ``key`` (of the vendor API) or ``token`` (a person's). ``owner``: the first key of the line that this one
was rotated from; null where it is the first itself. ``last_used_at`` lags by up to a minute."""

kept_answer = Table(
    "kept_answer",
    metadata,
    tenant_column(),
    Column("owner", String(32), primary_key=True),
    Column("route", String(120), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("code", Integer),
    Column("body", LargeBinary),
    Column("created_at", Instant, nullable=False),
    Index("ix_kept_answer_at", "tenant_id", "created_at"),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""What was answered to a request with an ``Idempotency-Key``, written in the transaction of its effect: no other
transaction ever sees one without ``code`` and ``body``. ``digest`` is a keyed hash of the request."""

challenge = Table(
    "challenge",
    metadata,
    tenant_column(),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("host", String(253), nullable=False),
    Column("method", String(63), nullable=False),
    Column("choice", String(63), nullable=False),
    Column("binding", LargeBinary(32), nullable=False),
    Column("tenant_epoch", Integer, nullable=False),
    Column("host_epoch", Integer, nullable=False),
    Column("link_epoch", Integer, nullable=False),
    Column("code_epoch", Integer, nullable=False),
    Column("customer_epoch", Integer, nullable=False),
    Column("method_epoch", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Index("ix_challenge_digest", "digest"),
    Index("ix_challenge_customer", "tenant_id", "customer_id"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""A step-up that waits for its second answer. ``digest``: SHA-256 of its ticket; ``binding``: of the browser's cookie.
``sealed`` holds the method's state, where it was asked for and where it leads. It is deleted by whoever uses it up."""

trusted_device = Table(
    "trusted_device",
    metadata,
    tenant_column(),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("host", String(253), nullable=False),
    Column("link_epoch", Integer, nullable=False),
    Column("code_epoch", Integer, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Index("ix_trusted_device_customer", "tenant_id", "customer_id"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""A browser that passed once: limits that others use up do not bind it. ``tries``: its wrong answers in a row."""

spent_answer = Table(
    "spent_answer",
    metadata,
    tenant_column(),
    Column("customer_id", Uuid, primary_key=True),
    Column("method", String(63), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("at", Instant, nullable=False),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""What may count once only and was used up: SHA-256 of ``Passed.single_use``."""

customer_secret = Table(
    "customer_secret",
    metadata,
    tenant_column(),
    Column("secret_id", Uuid, primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("method", String(63), nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "customer_id", "method"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""What a method needs to know of one customer, e.g. the seed of a device; no other method is given it."""

method_secret = Table(
    "method_secret",
    metadata,
    tenant_column(),
    Column("secret_id", Uuid, primary_key=True),
    Column("method", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "method", "name"),
    within_tenant(table="tenant"),
    info=PLANE | {"scope": "either"},
)
"""What a method needs to know for a tenant, e.g. its secret at an identity provider. It belongs to the live plane."""

imported_code = Table(
    "imported_code",
    metadata,
    tenant_column(),
    Column("customer_id", Uuid, primary_key=True),
    Column("code_version", Integer, nullable=False),
    Column("sealed_pepper", LargeBinary, nullable=False),
    Column("hash", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""An access code that was printed elsewhere, as argon2id over a keyed hash of it. It counts as long as the derived code
of ``code_version`` does."""

UNSEALED = text("position IS NULL")

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
    Column("position", BigInteger),
    Column("hash", LargeBinary(32)),
    Index("ix_audit_event_at", "tenant_id", "at", "event_id"),
    Index("uq_audit_event_position", "tenant_id", "position", unique=True),
    Index("ix_audit_event_unsealed", "tenant_id", "at", "event_id", sqlite_where=UNSEALED, postgresql_where=UNSEALED),
    Index(
        "ix_audit_event_customer",
        "tenant_id",
        "customer_id",
        "at",
        "event_id",
        sqlite_where=text("customer_id IS NOT NULL"),
        postgresql_where=text("customer_id IS NOT NULL"),
    ),
    within_tenant(table="tenant"),
    info=PLANE | {"scope": "either"},
)
"""Written in the transaction of the change it tells of, without a ``position``: the worker gives it one afterwards, and
with it the ``hash`` that chains it to the row before. Append-only: these two are set once, nothing else is changed."""

view_count = Table(
    "view_count",
    metadata,
    tenant_column(),
    Column("customer_id", Uuid, primary_key=True),
    Column("hour", Instant, primary_key=True),
    Column("tier", String(5), primary_key=True),
    Column("views", Integer, nullable=False),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""How often pages of a record were looked at in an hour (UTC). ``tier``: ``outer``, or ``inner`` with a session."""
