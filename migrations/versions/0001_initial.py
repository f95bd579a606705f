"""initial"""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Amount, Instant

revision = "0001"
down_revision = None

RIGHTS = {
    "leaf": "SELECT, INSERT, UPDATE (entry)",
    "audit_event": "SELECT, INSERT",
    "epoch": "SELECT, INSERT",
    "epoch_member": "SELECT, INSERT",
    "checkpoint": "SELECT, INSERT, UPDATE",
    "statement": "SELECT, INSERT",
}

LOOKUPS = {
    "sr_find_host": (
        "p_host text",
        "tenant_id uuid, host text, role text, epoch integer, target text, twin uuid",
        "SELECT h.tenant_id, h.host, h.role, h.epoch, p.host AS target, t.tenant_id AS twin FROM "
        "host h LEFT JOIN host p ON p.tenant_id = h.tenant_id AND p.is_primary AND p.role = "
        "'serving' LEFT JOIN tenant t ON t.config_of = h.tenant_id WHERE h.host = p_host AND "
        "h.role <> 'released'",
    ),
    "sr_find_link": (
        "p_digest bytea",
        "tenant_id uuid, config_of uuid, customer_id uuid",
        "SELECT l.tenant_id, t.config_of, l.customer_id FROM link l JOIN tenant t ON t.tenant_id = "
        "l.tenant_id WHERE l.digest = p_digest AND l.revoked_at IS NULL",
    ),
    "sr_find_api_key": (
        "p_public_id text",
        "tenant_id uuid, config_of uuid, public_id text, secret_hash bytea, scopes json, "
        "revoked_at timestamptz, state text",
        "SELECT k.tenant_id, t.config_of, k.public_id, k.secret_hash, k.scopes, k.revoked_at, "
        "c.state FROM api_key k JOIN tenant t ON t.tenant_id = k.tenant_id JOIN tenant c ON "
        "c.tenant_id = coalesce(t.config_of, t.tenant_id) WHERE k.public_id = p_public_id",
    ),
    "sr_find_tenant": (
        "p_slug text",
        "tenant_id uuid, config_of uuid, slug text, public_id text, state text",
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE t.slug = p_slug",
    ),
    "sr_list_tenants": (
        "",
        "tenant_id uuid, config_of uuid, slug text, public_id text, state text",
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t ORDER BY t.slug",
    ),
    "sr_list_due": (
        "p_now timestamptz",
        "tenant_id uuid, config_of uuid, slug text, public_id text, state text",
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS "
        "(SELECT 1 FROM period_tree p WHERE p.tenant_id = t.tenant_id AND (p.size > p.vsize OR "
        "p.vsize > p.psize OR p.status = 'closing')) OR EXISTS (SELECT 1 FROM job j WHERE "
        "j.tenant_id = t.tenant_id AND j.due_at <= p_now) ORDER BY t.slug",
    ),
    "sr_list_log_keys": (
        "",
        "origin text, vkey text",
        "SELECT g.origin, s.vkey FROM signing_key s JOIN log g ON g.tenant_id = s.tenant_id "
        "ORDER BY g.origin, s.since_size",
    ),
}


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )
    op.create_table(
        "tenant",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("config_of", sa.Uuid(), nullable=True),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="active", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("policy", sa.String(length=16), server_default="TWO_TIER", nullable=False),
        sa.Column("theme", sa.String(length=63), server_default="default", nullable=False),
        sa.Column("zone", sa.String(length=64), server_default="UTC", nullable=False),
        sa.Column("unit", sa.String(length=64), server_default="units", nullable=False),
        sa.Column("contact", sa.String(length=200), server_default="", nullable=False),
        sa.Column("hide_amounts", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("checkpoint_seconds", sa.Integer(), nullable=True),
        sa.Column("export_formats", sa.JSON(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("next_slot", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["config_of"], ["tenant.tenant_id"], name=op.f("fk_tenant_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant")),
    )
    op.create_index(
        "uq_tenant_config_of",
        "tenant",
        ["config_of"],
        unique=True,
        sqlite_where=sa.text("config_of IS NOT NULL"),
        postgresql_where=sa.text("config_of IS NOT NULL"),
    )
    op.create_index("uq_tenant_public_id", "tenant", ["public_id"], unique=True)
    op.create_index("uq_tenant_slug", "tenant", ["slug"], unique=True)
    op.create_table(
        "api_key",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_api_key_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "public_id", name=op.f("pk_api_key")),
    )
    op.create_index("ix_api_key_public_id", "api_key", ["public_id"], unique=False)
    op.create_table(
        "audit_event",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_audit_event_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name=op.f("pk_audit_event")),
    )
    op.create_index("ix_audit_event_at", "audit_event", ["tenant_id", "at", "event_id"], unique=False)
    op.create_table(
        "customer",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=True),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("ref", sa.String(length=40), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=True),
        sa.Column("home_host", sa.String(length=253), nullable=True),
        sa.Column("policy", sa.String(length=16), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("code_epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("code_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("code_kid", sa.String(length=32), nullable=False),
        sa.Column("former_code_kid", sa.String(length=32), nullable=True),
        sa.Column("former_code_until", Instant(), nullable=True),
        sa.Column("head", sa.Text(), nullable=True),
        sa.Column("next_head", sa.Text(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_customer_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", name=op.f("pk_customer")),
        sa.UniqueConstraint("tenant_id", "external_id", name=op.f("uq_customer_tenant_id_external_id")),
        sa.UniqueConstraint("tenant_id", "slot", name=op.f("uq_customer_tenant_id_slot")),
    )
    op.create_table(
        "host",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("display", sa.String(length=253), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_host_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "host", name=op.f("pk_host")),
    )
    op.create_index(
        "uq_host_active",
        "host",
        ["host"],
        unique=True,
        sqlite_where=sa.text("role <> 'released'"),
        postgresql_where=sa.text("role <> 'released'"),
    )
    op.create_index(
        "uq_host_primary",
        "host",
        ["tenant_id"],
        unique=True,
        sqlite_where=sa.text("is_primary"),
        postgresql_where=sa.text("is_primary"),
    )
    op.create_table(
        "job",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=True),
        sa.Column("lease_until", Instant(), nullable=True),
        sa.Column("due_at", Instant(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_job_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name=op.f("pk_job")),
    )
    op.create_table(
        "log",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("halted", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_log_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_log")),
    )
    op.create_index("ix_log_origin", "log", ["origin"], unique=False)
    op.create_table(
        "tenant_manifest",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("applied", sa.JSON(), nullable=False),
        sa.Column("applied_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_tenant_manifest_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_manifest")),
    )
    op.create_table(
        "tenant_method",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_tenant_method_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "slug", name=op.f("pk_tenant_method")),
    )
    op.create_table(
        "checkpoint",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["log.tenant_id"], name=op.f("fk_checkpoint_log")),
        sa.PrimaryKeyConstraint("tenant_id", "size", name=op.f("pk_checkpoint")),
    )
    op.create_index(
        "ix_checkpoint_unpublished",
        "checkpoint",
        ["tenant_id", "size"],
        unique=False,
        sqlite_where=sa.text("state <> 'published'"),
        postgresql_where=sa.text("state <> 'published'"),
    )
    op.create_table(
        "epoch",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("slot_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("ts", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["log.tenant_id"], name=op.f("fk_epoch_log")),
        sa.PrimaryKeyConstraint("tenant_id", "n", name=op.f("pk_epoch")),
    )
    op.create_table(
        "link",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("link_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kid", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("issued_at", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"], ["customer.tenant_id", "customer.customer_id"], name=op.f("fk_link_customer")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", name=op.f("pk_link")),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_link_tenant_id_digest")),
        sa.UniqueConstraint("tenant_id", "link_id", name=op.f("uq_link_tenant_id_link_id")),
    )
    op.create_index("ix_link_digest", "link", ["digest"], unique=False)
    op.create_table(
        "log_node",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["log.tenant_id"], name=op.f("fk_log_node_log")),
        sa.PrimaryKeyConstraint("tenant_id", "level", "idx", name=op.f("pk_log_node")),
    )
    op.create_table(
        "period_tree",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("unit", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=8), server_default="open", nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total", Amount(), server_default="0", nullable=False),
        sa.Column("last_rx", Instant(), nullable=True),
        sa.Column("last_leaf", sa.LargeBinary(length=32), nullable=True),
        sa.Column("vsize", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("psize", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("proot", sa.LargeBinary(length=32), nullable=True),
        sa.Column("ptotal", Amount(), server_default="0", nullable=False),
        sa.Column("pepoch", sa.BigInteger(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customer.tenant_id", "customer.customer_id"],
            name=op.f("fk_period_tree_customer"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", name=op.f("pk_period_tree")),
        sa.UniqueConstraint(
            "tenant_id", "customer_id", "period", name=op.f("uq_period_tree_tenant_id_customer_id_period")
        ),
    )
    op.create_index(
        "ix_period_tree_behind",
        "period_tree",
        ["tenant_id", "tree_id"],
        unique=False,
        sqlite_where=sa.text("size > vsize OR vsize > psize OR status = 'closing'"),
        postgresql_where=sa.text("size > vsize OR vsize > psize OR status = 'closing'"),
    )
    op.create_table(
        "session",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("sid_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("method", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=200), server_default="", nullable=False),
        sa.Column("tenant_epoch", sa.Integer(), nullable=False),
        sa.Column("host_epoch", sa.Integer(), nullable=False),
        sa.Column("link_epoch", sa.Integer(), nullable=False),
        sa.Column("code_epoch", sa.Integer(), nullable=False),
        sa.Column("customer_epoch", sa.Integer(), nullable=False),
        sa.Column("method_epoch", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customer.tenant_id", "customer.customer_id"],
            name=op.f("fk_session_customer"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "sid_hash", name=op.f("pk_session")),
    )
    op.create_index("ix_session_customer", "session", ["tenant_id", "customer_id"], unique=False)
    op.create_table(
        "signing_key",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("vkey", sa.String(length=400), nullable=False),
        sa.Column("sealed_seed", sa.LargeBinary(), nullable=False),
        sa.Column("since_size", sa.BigInteger(), nullable=False),
        sa.Column("until_size", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["log.tenant_id"], name=op.f("fk_signing_key_log")),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name=op.f("pk_signing_key")),
    )
    op.create_table(
        "day_counter",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("total", Amount(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id"],
            ["period_tree.tenant_id", "period_tree.tree_id"],
            name=op.f("fk_day_counter_period_tree"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", "day", name=op.f("pk_day_counter")),
    )
    op.create_table(
        "epoch_member",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("total", Amount(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "epoch"], ["epoch.tenant_id", "epoch.n"], name=op.f("fk_epoch_member_epoch")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id"],
            ["period_tree.tenant_id", "period_tree.tree_id"],
            name=op.f("fk_epoch_member_period_tree"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "epoch", "tree_id", name=op.f("pk_epoch_member")),
    )
    op.create_index("ix_epoch_member_tree", "epoch_member", ["tenant_id", "tree_id", "epoch"], unique=False)
    op.create_table(
        "leaf",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("record_id", sa.String(length=40), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("rx", Instant(), nullable=False),
        sa.Column("at", sa.String(length=40), nullable=True),
        sa.Column("qty", Amount(), nullable=False),
        sa.Column("total", Amount(), nullable=False),
        sa.Column("adjusts", sa.String(length=40), nullable=True),
        sa.Column("entry", sa.Text(), nullable=True),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("reference_key", sa.LargeBinary(length=32), nullable=True),
        sa.Column("payload_key", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id"], ["period_tree.tenant_id", "period_tree.tree_id"], name=op.f("fk_leaf_period_tree")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", "seq", name=op.f("pk_leaf")),
        sa.UniqueConstraint("tenant_id", "record_id", name=op.f("uq_leaf_tenant_id_record_id")),
        sa.UniqueConstraint("tenant_id", "reference_key", name=op.f("uq_leaf_tenant_id_reference_key")),
    )
    op.create_table(
        "node",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id"], ["period_tree.tenant_id", "period_tree.tree_id"], name=op.f("fk_node_period_tree")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", "level", "idx", name=op.f("pk_node")),
    )
    op.create_table(
        "slot_tile",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "epoch"], ["epoch.tenant_id", "epoch.n"], name=op.f("fk_slot_tile_epoch")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "epoch", "level", "idx", name=op.f("pk_slot_tile")),
    )
    op.create_table(
        "statement",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id"],
            ["period_tree.tenant_id", "period_tree.tree_id"],
            name=op.f("fk_statement_period_tree"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", name=op.f("pk_statement")),
    )
    op.create_table(
        "delta_detail",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("salt", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id", "seq"],
            ["leaf.tenant_id", "leaf.tree_id", "leaf.seq"],
            name=op.f("fk_delta_detail_leaf"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", "seq", name=op.f("pk_delta_detail")),
    )
    op.execute("INSERT INTO installation (name, value) VALUES ('host_generation', 0)")
    if op.get_bind().dialect.name == "postgresql":
        _postgresql()


def _postgresql() -> None:
    """Row-level security, the application's rights, and the look-ups that need no scope."""
    tables = {
        "plane": (
            "link",
            "session",
            "api_key",
            "job",
            "period_tree",
            "leaf",
            "delta_detail",
            "day_counter",
            "node",
            "log",
            "log_node",
            "epoch",
            "epoch_member",
            "slot_tile",
            "checkpoint",
            "statement",
            "signing_key",
            "customer",
        ),
        "config": ("host", "tenant_method", "tenant_manifest"),
        "either": ("audit_event", "tenant"),
    }
    op.execute("""
        CREATE FUNCTION sr_plane() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
        AS $$ SELECT nullif(current_setting('sr.plane', true), '')::uuid $$""")
    op.execute("""
        CREATE FUNCTION sr_config() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
        AS $$ SELECT nullif(current_setting('sr.config', true), '')::uuid $$""")
    condition = {
        "plane": "tenant_id = sr_plane()",
        "config": "tenant_id = sr_config()",
        "either": "tenant_id IN (sr_plane(), sr_config())",
    }
    for scope, names in tables.items():
        for name in names:
            op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY tenant_scope ON {name} USING ({condition[scope]})")
            op.execute(f"GRANT {RIGHTS.get(name, 'SELECT, INSERT, UPDATE, DELETE')} ON {name} TO sr_app")
    # What a leaf says is never written anew: the one change there is is to erase it.
    op.execute("CREATE POLICY erased_only ON leaf AS RESTRICTIVE FOR UPDATE USING (true) WITH CHECK (entry IS NULL)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON installation TO sr_app")
    op.execute("GRANT SELECT ON alembic_version TO sr_app")
    for name, (arguments, result, body) in LOOKUPS.items():
        op.execute(
            f"CREATE FUNCTION {name}({arguments}) RETURNS TABLE ({result}) LANGUAGE sql STABLE SECURITY DEFINER"
            f" SET search_path = pg_catalog, public AS $$ {body} $$"
        )
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO sr_app")
