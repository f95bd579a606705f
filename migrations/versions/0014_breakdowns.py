"""Breakdowns: usage counted by keys of its metadata, and looking up what corrects a delta."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Amount

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("tenant", sa.Column("breakdowns", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("period_tree", sa.Column("breakdowns", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "breakdown",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("tree_id", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=128), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("total", Amount(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tree_id"],
            ["period_tree.tenant_id", "period_tree.tree_id"],
            name=op.f("fk_breakdown_period_tree"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tree_id", "key", "value", name=op.f("pk_breakdown")),
    )
    op.create_index(
        "ix_leaf_adjusted",
        "leaf",
        ["tenant_id", "customer_id", "adjusts"],
        sqlite_where=sa.text("adjusts IS NOT NULL"),
        postgresql_where=sa.text("adjusts IS NOT NULL"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE breakdown ENABLE ROW LEVEL SECURITY")
        op.execute("CREATE POLICY tenant_scope ON breakdown USING (tenant_id = sr_plane())")
        op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON breakdown TO sr_app")
