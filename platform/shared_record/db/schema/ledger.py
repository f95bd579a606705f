"""The ledger: deltas, period trees, heads, epochs, the tenant log and its checkpoints."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    literal,
    text,
)

from shared_record.db.schema.base import PLANE, metadata, tenant_column, within_tenant
from shared_record.db.types import Amount, Instant

period_tree = Table(
    "period_tree",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("period", String(7), nullable=False),
    Column("unit", String(64), nullable=False),
    Column("status", String(8), nullable=False, server_default="open"),
    Column("base", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("total", Amount, nullable=False, server_default="0"),
    Column("last_rx", Instant),
    Column("last_leaf", LargeBinary(32)),
    Column("vsize", BigInteger, nullable=False, server_default="0"),
    Column("frontier", LargeBinary, nullable=False),
    Column("psize", BigInteger, nullable=False, server_default="0"),
    Column("proot", LargeBinary(32)),
    Column("ptotal", Amount, nullable=False, server_default="0"),
    Column("pepoch", BigInteger),
    Column("breakdowns", JSON(none_as_null=True)),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "customer_id", "period"),
    Index("ix_period_tree_period", "tenant_id", "period"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""One customer's tree for one UTC month. ``base`` counts the customer's deltas of earlier periods. ``size``/``total``
belong to intake, ``vsize``/``frontier`` (complete subtree roots, 32 bytes each, largest first) to *integrate*, ``p*``
to the newest published epoch. ``status`` goes from ``open`` to ``closing`` to ``closed``; one that is ``erased``, with
its customer, stays as it stands. ``breakdowns``: the metadata keys by which its deltas are counted, frozen when it is
begun as ``unit`` is, so that what is counted is the whole of it; null where there are none."""

awaits_epoch = (period_tree.c.size > period_tree.c.psize) | (
    period_tree.c.status == literal("closing", literal_execute=True)
)
"""Whether an epoch has something to say yet of a period tree, integrated (``psize <= vsize <= size``) or not.

Both engines use the index of these only for queries that have the condition among theirs, and word for word. It does
not speak of ``vsize``: *integrate* would move each tree within the index.
"""
Index(
    "ix_period_tree_behind",
    period_tree.c.tenant_id,
    period_tree.c.tree_id,
    sqlite_where=awaits_epoch,
    postgresql_where=awaits_epoch,
)

leaf = Table(
    "leaf",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("record_id", String(40), nullable=False),
    Column("customer_id", Uuid, nullable=False),
    Column("rx", Instant, nullable=False),
    Column("at", String(40)),
    Column("qty", Amount, nullable=False),
    Column("total", Amount, nullable=False),
    Column("adjusts", String(40)),
    Column("entry", Text),
    Column("hash", LargeBinary(32), nullable=False),
    Column("reference_key", LargeBinary(32)),
    Column("payload_key", LargeBinary(32), nullable=False),
    UniqueConstraint("tenant_id", "record_id"),
    UniqueConstraint("tenant_id", "reference_key"),
    Index("ix_leaf_hash", "hash"),
    Index(
        "ix_leaf_adjusts",
        "tenant_id",
        "customer_id",
        "rx",
        sqlite_where=text("adjusts IS NOT NULL"),
        postgresql_where=text("adjusts IS NOT NULL"),
    ),
    Index(
        "ix_leaf_adjusted",
        "tenant_id",
        "customer_id",
        "adjusts",
        sqlite_where=text("adjusts IS NOT NULL"),
        postgresql_where=text("adjusts IS NOT NULL"),
    ),
    within_tenant("tree_id", table="period_tree"),
    info=PLANE,
)
"""One delta. ``seq`` starts at 1 within its tree. Append-only: nothing but
``entry`` may ever change, and that only to null. ``reference_key`` = HMAC(tenant key, customer, referenceId) and
``payload_key`` = HMAC(tenant key, payload) outlive the erasure of what they were made from."""

delta_detail = Table(
    "delta_detail",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("reference", Text),
    Column("metadata", Text),
    Column("salt", LargeBinary(16), nullable=False),
    within_tenant("tree_id", "seq", table="leaf"),
    info=PLANE,
)
"""What retention may remove: reason, referenceId, metadata (JCS text) and the salt of their hash ``mh``."""

day_counter = Table(
    "day_counter",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("total", Amount, nullable=False),
    within_tenant("tree_id", table="period_tree"),
    info=PLANE,
)

breakdown = Table(
    "breakdown",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", String(128), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("total", Amount, nullable=False),
    within_tenant("tree_id", table="period_tree"),
    info=PLANE,
)
"""How many deltas of a period have ``value`` under ``key`` in their metadata, and their sum. The empty ``value`` counts
what came after the most values that are told apart; deltas without a value are in no row."""

node = Table(
    "node",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
    within_tenant("tree_id", table="period_tree"),
    info=PLANE,
)
"""Roots of complete subtrees of a period tree at levels 8, 16 and 24 (2^level leaves)."""

log = Table(
    "log",
    metadata,
    tenant_column(),
    Column("origin", String(300), nullable=False),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("frontier", LargeBinary, nullable=False),
    Column("halted", Text),
    Column("audited_at", Instant),
    Column("audit_findings", Integer),
    Column("audit_problem", Text),
    Index("ix_log_origin", "origin"),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""The tenant log: one leaf per epoch. ``halted`` holds the reason while nothing may be signed. ``size`` is a serial
(``ledger.origin``), as are ``epoch.n``, ``checkpoint.size`` and every column that names an epoch. ``audit_*`` is the
outcome of the last audit by the worker: when it ended, how many places it found wrong, and the first."""

former_log = Table(
    "former_log",
    metadata,
    tenant_column(),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("origin", String(300), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("last", Text),
    Column("reason", Text, nullable=False),
    Column("ended_at", Instant, nullable=False),
    within_tenant(table="log"),
    info=PLANE,
)
"""An origin that a log had before: ``size`` and ``frontier`` as they stood when it ended, ``start`` its first serial.
``last`` is the body of its last checkpoint as the lock store knew it, which the next origin's first epoch carries."""

log_node = Table(
    "log_node",
    metadata,
    tenant_column(),
    Column("level", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
    within_tenant(table="log"),
    info=PLANE,
)

epoch = Table(
    "epoch",
    metadata,
    tenant_column(),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("slot_root", LargeBinary(32), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("customers", Integer),
    Column("ts", Instant, nullable=False),
    Column("reblinded", BigInteger),
    within_tenant(table="log"),
    info=PLANE,
)
"""``customers``: how many slots had been given away, so that one above is new to the next epoch; null in epochs older
than the column, but for the newest of each log. ``reblinded``: the epoch that last hashed the heads of all customers
anew; null where this one did."""

epoch_member = Table(
    "epoch_member",
    metadata,
    tenant_column(),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("tree_id", String(20), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("total", Amount, nullable=False),
    Column("final", Boolean, nullable=False),
    Index("ix_epoch_member_tree", "tenant_id", "tree_id", "epoch"),
    within_tenant("epoch", table="epoch", target=("n",)),
    within_tenant("tree_id", table="period_tree"),
    sqlite_with_rowid=False,
    info=PLANE,
)
"""What an epoch says of each period tree that changed in it: published columns are set from here alone."""

slot_tile = Table(
    "slot_tile",
    metadata,
    tenant_column(),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("level", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("hashes", LargeBinary, nullable=False),
    Index("ix_slot_tile_place", "tenant_id", "level", "idx", "epoch"),
    within_tenant("epoch", table="epoch", target=("n",)),
    info=PLANE,
)
"""The slot trees of the newest epochs, up to 256 hashes of level 0, 8 or 16 per row (C2SP tlog-tiles shape). The tile
of an epoch is the newest version at or below it: an epoch stores only the tiles that it changes."""

checkpoint = Table(
    "checkpoint",
    metadata,
    tenant_column(),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("note", Text),
    Column("state", String(10), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    within_tenant(table="log"),
    Index(
        "ix_checkpoint_unpublished",
        "tenant_id",
        "size",
        sqlite_where=text("state <> 'published'"),
        postgresql_where=text("state <> 'published'"),
    ),
    info=PLANE,
)
"""``state``: ``prepared`` (body stored), ``locked`` (the lock store has it), ``published``; or ``abandoned``, where a
new origin was declared before it was published."""

anchor = Table(
    "anchor",
    metadata,
    tenant_column(),
    Column("kind", String(63), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("proof", LargeBinary, nullable=False),
    Column("at", Instant, nullable=False),
    Column("stored_at", Instant, nullable=False),
    Index("ix_anchor_newest", "tenant_id", "stored_at"),
    within_tenant(table="tenant"),
    info=PLANE,
)
"""What a service outside attests of a published checkpoint: ``digest`` is SHA-256 of its note, ``at`` its time."""

statement = Table(
    "statement",
    metadata,
    tenant_column(),
    Column("tree_id", String(20), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("head", Text, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("path", LargeBinary, nullable=False),
    within_tenant("tree_id", table="period_tree"),
    info=PLANE,
)
"""The final head of a closed period and its slot path, kept for ever."""

signing_key = Table(
    "signing_key",
    metadata,
    tenant_column(),
    Column("key_id", String(8), primary_key=True),
    Column("vkey", String(400), nullable=False),
    Column("sealed_seed", LargeBinary, nullable=False),
    Column("since_size", BigInteger, nullable=False),
    Column("until_size", BigInteger),
    within_tenant(table="log"),
    info=PLANE,
)

receipt = Table(
    "receipt",
    metadata,
    tenant_column(),
    Column("receipt_id", String(40), primary_key=True),
    Column("customer_id", Uuid, nullable=False),
    Column("start", Instant, nullable=False),
    Column("end", Instant, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("spans", JSON, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("opening", Amount, nullable=False),
    Column("closing", Amount, nullable=False),
    Column("unit", String(64), nullable=False),
    Column("proof_root", LargeBinary(32), nullable=False),
    Column("issued_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "customer_id", "start", "end", "revision"),
    Index("ix_receipt_receipt_id", "receipt_id"),
    Index("ix_receipt_proof_root", "proof_root"),
    within_tenant("customer_id", table="customer"),
    info=PLANE,
)
"""A document for one customer and one window, half-open in recorded time. ``spans``: per period
``{"tree", "period", "from", "to"}``, the deltas after ``from`` up to ``to``. Never changed: later deltas make a later
revision."""
