"""Exports that are too large to be built in a request."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "export_job",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("export_id", sa.String(length=40), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("format", sa.String(length=63), nullable=False),
        sa.Column("language", sa.String(length=35), nullable=False),
        sa.Column("link_epoch", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("file", sa.String(length=100), nullable=True),
        sa.Column("filename", sa.String(length=100), nullable=True),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("manifest", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customer.tenant_id", "customer.customer_id"],
            name=op.f("fk_export_job_customer"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "export_id", name=op.f("pk_export_job")),
    )
    op.create_index("ix_export_job_customer", "export_job", ["tenant_id", "customer_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE export_job ENABLE ROW LEVEL SECURITY")
        op.execute("CREATE POLICY tenant_scope ON export_job USING (tenant_id = sr_plane())")
        op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON export_job TO sr_app")
