"""Who may step up, and mail that waits to be sent."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0011"
down_revision = "0010"

LIST_MAIL_DUE = (
    "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
    " FROM mail m WHERE m.tenant_id = t.tenant_id AND m.due_at <= p_now) ORDER BY t.slug"
)
TABLES = ("entitlement", "pinned_address", "mail", "mail_quota")


def upgrade() -> None:
    op.create_table(
        "entitlement",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("entitlement_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sealed_value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        _of_customer("entitlement"),
        sa.PrimaryKeyConstraint("tenant_id", "entitlement_id", name=op.f("pk_entitlement")),
        sa.UniqueConstraint(
            "tenant_id", "customer_id", "digest", name=op.f("uq_entitlement_tenant_id_customer_id_digest")
        ),
    )
    op.create_table(
        "pinned_address",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.LargeBinary(length=32), nullable=False),
        sa.Column("subject", sa.LargeBinary(length=32), nullable=False),
        sa.Column("entitlement_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "entitlement_id"],
            ["entitlement.tenant_id", "entitlement.entitlement_id"],
            name=op.f("fk_pinned_address_entitlement"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "address", name=op.f("pk_pinned_address")),
    )
    op.create_table(
        "mail",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("mail_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("sealed_message", sa.LargeBinary(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("due_at", Instant(), nullable=True),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("sent_at", Instant(), nullable=True),
        _of_customer("mail"),
        sa.PrimaryKeyConstraint("tenant_id", "mail_id", name=op.f("pk_mail")),
    )
    op.create_index("ix_mail_customer", "mail", ["tenant_id", "customer_id"])
    op.create_index(
        "ix_mail_due",
        "mail",
        ["tenant_id", "due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "mail_quota",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("last_at", Instant(), nullable=True),
        sa.Column("hour_at", Instant(), nullable=True),
        sa.Column("hour_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("day_at", Instant(), nullable=True),
        sa.Column("day_count", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_mail_quota_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "digest", name=op.f("pk_mail_quota")),
    )
    if op.get_bind().dialect.name == "postgresql":
        for name in TABLES:
            op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY tenant_scope ON {name} USING (tenant_id = sr_plane())")
            op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO sr_app")
        op.execute(
            "CREATE FUNCTION sr_list_mail_due(p_now timestamptz) RETURNS TABLE (tenant_id uuid, config_of uuid,"
            " slug text, public_id text, state text) LANGUAGE sql STABLE SECURITY DEFINER"
            f" SET search_path = pg_catalog, public AS $$ {LIST_MAIL_DUE} $$"
        )
        op.execute("REVOKE ALL ON FUNCTION sr_list_mail_due FROM PUBLIC")
        op.execute("GRANT EXECUTE ON FUNCTION sr_list_mail_due TO sr_app")


def _of_customer(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "customer_id"],
        ["customer.tenant_id", "customer.customer_id"],
        name=op.f(f"fk_{table}_customer"),
    )
