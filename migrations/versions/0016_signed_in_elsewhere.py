"""By which way a session was opened, and what another site calls the sign-in behind it."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("session", sa.Column("choice", sa.String(length=63), server_default="", nullable=False))
    op.add_column("session", sa.Column("account", sa.LargeBinary(length=32), nullable=True))
    op.add_column("session", sa.Column("elsewhere", sa.LargeBinary(length=32), nullable=True))


def downgrade() -> None:
    for name in ("elsewhere", "account", "choice"):
        op.drop_column("session", name)
