"""Anchors of checkpoints, and the witnesses that a tenant asks."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tenant", sa.Column("witnesses", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("tenant", sa.Column("witness_quorum", sa.Integer(), server_default="0", nullable=False))
    op.add_column("tenant", sa.Column("anchors", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("tenant", sa.Column("anchor_seconds", sa.Integer(), server_default="600", nullable=False))
    op.create_table(
        "anchor",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("stored_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_anchor_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "digest", name=op.f("pk_anchor")),
    )
    op.create_index("ix_anchor_newest", "anchor", ["tenant_id", "stored_at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE anchor ENABLE ROW LEVEL SECURITY")
        op.execute("CREATE POLICY tenant_scope ON anchor USING (tenant_id = sr_plane())")
        op.execute("GRANT SELECT, INSERT ON anchor TO sr_app")
