"""The language of a tenant's pages, and a customer's own."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("tenant", sa.Column("language", sa.String(length=35), nullable=True))
    op.add_column("customer", sa.Column("language", sa.String(length=35), nullable=True))


def downgrade() -> None:
    op.drop_column("customer", "language")
    op.drop_column("tenant", "language")
