"""The sites that may show a tenant's receipts in a frame."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("tenant", sa.Column("embed_origins", sa.JSON(), server_default="[]", nullable=False))
