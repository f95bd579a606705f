"""A customer's own unit."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("customer", sa.Column("unit", sa.String(length=64), nullable=True))
    # What corrects another delta, and what happened to a link, are listed per customer.
    op.create_index(
        "ix_leaf_adjusts",
        "leaf",
        ["tenant_id", "customer_id", "rx"],
        sqlite_where=sa.text("adjusts IS NOT NULL"),
        postgresql_where=sa.text("adjusts IS NOT NULL"),
    )
    op.create_index(
        "ix_audit_event_customer",
        "audit_event",
        ["tenant_id", "customer_id", "at"],
        sqlite_where=sa.text("customer_id IS NOT NULL"),
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.create_index("ix_period_tree_period", "period_tree", ["tenant_id", "period"])
