"""Webhook endpoints, events and deliveries."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0008"
down_revision = "0007"

LIST_WEBHOOKS_DUE = (
    "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
    " FROM webhook_event e WHERE e.tenant_id = t.tenant_id AND e.state = 'new')"
    " OR EXISTS (SELECT 1 FROM webhook_endpoint w WHERE w.tenant_id = t.tenant_id AND w.enabled"
    " AND (w.not_before IS NULL OR w.not_before <= p_now) AND (w.lease_until IS NULL OR w.lease_until <= p_now)"
    " AND (EXISTS (SELECT 1 FROM webhook_task k WHERE k.tenant_id = w.tenant_id AND k.endpoint_id = w.endpoint_id)"
    " OR EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.tenant_id = w.tenant_id AND d.endpoint_id = w.endpoint_id"
    " AND d.state = 'PENDING' AND d.next_attempt_at <= p_now))) ORDER BY t.slug"
)
TABLES = ("webhook_endpoint", "webhook_event", "webhook_task", "webhook_delivery")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.String(length=40), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("description", sa.String(length=200), server_default="", nullable=False),
        sa.Column("events", sa.JSON(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default="1", nullable=False),
        sa.Column("disabled_reason", sa.String(length=200), nullable=True),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_former", sa.LargeBinary(), nullable=True),
        sa.Column("former_until", Instant(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_attempt_at", Instant(), nullable=True),
        sa.Column("successes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", Instant(), nullable=True),
        sa.Column("not_before", Instant(), nullable=True),
        sa.Column("failing", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_webhook_endpoint_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "endpoint_id", name=op.f("pk_webhook_endpoint")),
    )
    op.create_table(
        "webhook_event",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=4), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("tree_id", sa.String(length=20), nullable=True),
        sa.Column("first", sa.BigInteger(), nullable=True),
        sa.Column("last", sa.BigInteger(), nullable=True),
        sa.Column("data", sa.Text(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_webhook_event_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name=op.f("pk_webhook_event")),
    )
    op.create_index("ix_webhook_event_at", "webhook_event", ["tenant_id", "created_at", "event_id"])
    op.create_index("ix_webhook_event_customer", "webhook_event", ["tenant_id", "customer_id"])
    op.create_index(
        "ix_webhook_event_waiting",
        "webhook_event",
        ["tenant_id", "state", "created_at"],
        sqlite_where=sa.text("state <> 'sent'"),
        postgresql_where=sa.text("state <> 'sent'"),
    )
    op.create_table(
        "webhook_task",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("endpoint_id", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=True),
        sa.Column("last", sa.BigInteger(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["webhook_endpoint.tenant_id", "webhook_endpoint.endpoint_id"],
            name=op.f("fk_webhook_task_webhook_endpoint"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "event_id"],
            ["webhook_event.tenant_id", "webhook_event.event_id"],
            name=op.f("fk_webhook_task_webhook_event"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "task_id", name=op.f("pk_webhook_task")),
    )
    op.create_index("ix_webhook_task_endpoint", "webhook_task", ["tenant_id", "endpoint_id", "created_at", "task_id"])
    op.create_table(
        "webhook_delivery",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.String(length=48), nullable=False),
        sa.Column("endpoint_id", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_code", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(length=200), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_attempt_at", Instant(), nullable=False),
        sa.Column("next_attempt_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "event_id"],
            ["webhook_event.tenant_id", "webhook_event.event_id"],
            name=op.f("fk_webhook_delivery_webhook_event"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "delivery_id", "endpoint_id", name=op.f("pk_webhook_delivery")),
    )
    op.create_index("ix_webhook_delivery_at", "webhook_delivery", ["tenant_id", "created_at", "delivery_id"])
    op.create_index(
        "ix_webhook_delivery_due",
        "webhook_delivery",
        ["tenant_id", "endpoint_id", "next_attempt_at"],
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    if op.get_bind().dialect.name == "postgresql":
        for name in TABLES:
            op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY tenant_scope ON {name} USING (tenant_id = sr_plane())")
            op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO sr_app")
        op.execute(
            "CREATE FUNCTION sr_list_webhooks_due(p_now timestamptz) RETURNS TABLE (tenant_id uuid, config_of uuid,"
            " slug text, public_id text, state text) LANGUAGE sql STABLE SECURITY DEFINER"
            f" SET search_path = pg_catalog, public AS $$ {LIST_WEBHOOKS_DUE} $$"
        )
        op.execute("REVOKE ALL ON FUNCTION sr_list_webhooks_due FROM PUBLIC")
        op.execute("GRANT EXECUTE ON FUNCTION sr_list_webhooks_due TO sr_app")
