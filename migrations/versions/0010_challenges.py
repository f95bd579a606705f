"""Challenges of step-up methods, trusted devices, secrets of methods, and what was printed elsewhere."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0010"
down_revision = "0009"

TABLES = {
    "challenge": "tenant_id = sr_plane()",
    "trusted_device": "tenant_id = sr_plane()",
    "spent_answer": "tenant_id = sr_plane()",
    "customer_secret": "tenant_id = sr_plane()",
    "method_secret": "tenant_id IN (sr_plane(), sr_config())",
    "imported_code": "tenant_id = sr_plane()",
}
FIND_CHALLENGE = (
    "SELECT c.tenant_id, t.config_of, c.customer_id FROM challenge c"
    " JOIN tenant t ON t.tenant_id = c.tenant_id WHERE c.digest = p_digest"
)


def upgrade() -> None:
    op.add_column("link", sa.Column("sealed_handle", sa.LargeBinary(), nullable=True))
    op.create_table(
        "challenge",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("method", sa.String(length=63), nullable=False),
        sa.Column("choice", sa.String(length=63), nullable=False),
        sa.Column("binding", sa.LargeBinary(length=32), nullable=False),
        sa.Column("tenant_epoch", sa.Integer(), nullable=False),
        sa.Column("host_epoch", sa.Integer(), nullable=False),
        sa.Column("link_epoch", sa.Integer(), nullable=False),
        sa.Column("code_epoch", sa.Integer(), nullable=False),
        sa.Column("customer_epoch", sa.Integer(), nullable=False),
        sa.Column("method_epoch", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        _of_customer("challenge"),
        sa.PrimaryKeyConstraint("tenant_id", "digest", name=op.f("pk_challenge")),
    )
    op.create_index("ix_challenge_digest", "challenge", ["digest"])
    op.create_index("ix_challenge_customer", "challenge", ["tenant_id", "customer_id"])
    op.create_table(
        "trusted_device",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("link_epoch", sa.Integer(), nullable=False),
        sa.Column("code_epoch", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        _of_customer("trusted_device"),
        sa.PrimaryKeyConstraint("tenant_id", "digest", name=op.f("pk_trusted_device")),
    )
    op.create_index("ix_trusted_device_customer", "trusted_device", ["tenant_id", "customer_id"])
    op.create_table(
        "spent_answer",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("method", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        _of_customer("spent_answer"),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "method", "digest", name=op.f("pk_spent_answer")),
    )
    op.create_table(
        "customer_secret",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("secret_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("method", sa.String(length=63), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        _of_customer("customer_secret"),
        sa.PrimaryKeyConstraint("tenant_id", "secret_id", name=op.f("pk_customer_secret")),
        sa.UniqueConstraint(
            "tenant_id", "customer_id", "method", name=op.f("uq_customer_secret_tenant_id_customer_id_method")
        ),
    )
    op.create_table(
        "method_secret",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("secret_id", sa.Uuid(), nullable=False),
        sa.Column("method", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_method_secret_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "secret_id", name=op.f("pk_method_secret")),
        sa.UniqueConstraint("tenant_id", "method", "name", name=op.f("uq_method_secret_tenant_id_method_name")),
    )
    op.create_table(
        "imported_code",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("code_version", sa.Integer(), nullable=False),
        sa.Column("sealed_pepper", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.String(length=200), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        _of_customer("imported_code"),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", name=op.f("pk_imported_code")),
    )
    if op.get_bind().dialect.name == "postgresql":
        for name, condition in TABLES.items():
            op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY tenant_scope ON {name} USING ({condition})")
            op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO sr_app")
        op.execute(
            "CREATE FUNCTION sr_find_challenge(p_digest bytea) RETURNS TABLE (tenant_id uuid, config_of uuid,"
            " customer_id uuid) LANGUAGE sql STABLE SECURITY DEFINER"
            f" SET search_path = pg_catalog, public AS $$ {FIND_CHALLENGE} $$"
        )
        op.execute("REVOKE ALL ON FUNCTION sr_find_challenge FROM PUBLIC")
        op.execute("GRANT EXECUTE ON FUNCTION sr_find_challenge TO sr_app")


def _of_customer(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "customer_id"],
        ["customer.tenant_id", "customer.customer_id"],
        name=op.f(f"fk_{table}_customer"),
    )
