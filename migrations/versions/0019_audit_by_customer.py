"""A customer's part of the audit trail is read in the order in which it is asked for, instead of the whole tenant's."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.drop_index("ix_audit_event_customer", "audit_event")
    op.create_index(
        "ix_audit_event_customer",
        "audit_event",
        ["tenant_id", "customer_id", "at", "event_id"],
        sqlite_where=sa.text("customer_id IS NOT NULL"),
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
