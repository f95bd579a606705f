"""API keys that expire and rotate, rate limits, and answers kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0007"
down_revision = "0006"

FIND_API_KEY = (
    "SELECT k.tenant_id, t.config_of, k.public_id, k.kind, coalesce(k.owner, k.public_id) AS owner, k.secret_hash,"
    " k.scopes, k.expires_at, k.revoked_at, k.last_used_at, c.state, c.api_rate AS rate, c.api_burst AS burst"
    " FROM api_key k JOIN tenant t ON t.tenant_id = k.tenant_id"
    " JOIN tenant c ON c.tenant_id = coalesce(t.config_of, t.tenant_id) WHERE k.public_id = p_public_id"
)
RESULT = (
    "tenant_id uuid, config_of uuid, public_id text, kind text, owner text, secret_hash bytea, scopes json,"
    " expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz, state text, rate integer, burst integer"
)


def upgrade() -> None:
    op.add_column("api_key", sa.Column("kind", sa.String(length=8), nullable=False, server_default="key"))
    op.add_column("api_key", sa.Column("owner", sa.String(length=32), nullable=True))
    op.add_column("api_key", sa.Column("expires_at", Instant(), nullable=True))
    op.add_column("api_key", sa.Column("last_used_at", Instant(), nullable=True))
    op.add_column("tenant", sa.Column("api_rate", sa.Integer(), nullable=False, server_default="100"))
    op.add_column("tenant", sa.Column("api_burst", sa.Integer(), nullable=False, server_default="200"))
    op.create_table(
        "kept_answer",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("route", sa.String(length=120), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.tenant_id"], name=op.f("fk_kept_answer_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "owner", "route", "key", name=op.f("pk_kept_answer")),
    )
    op.create_index("ix_kept_answer_at", "kept_answer", ["tenant_id", "created_at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE kept_answer ENABLE ROW LEVEL SECURITY")
        op.execute("CREATE POLICY tenant_scope ON kept_answer USING (tenant_id = sr_plane())")
        op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON kept_answer TO sr_app")
        op.execute("DROP FUNCTION sr_find_api_key(text)")  # it returns more now
        op.execute(
            f"CREATE FUNCTION sr_find_api_key(p_public_id text) RETURNS TABLE ({RESULT}) LANGUAGE sql STABLE"
            f" SECURITY DEFINER SET search_path = pg_catalog, public AS $$ {FIND_API_KEY} $$"
        )
        op.execute("REVOKE ALL ON FUNCTION sr_find_api_key FROM PUBLIC")
        op.execute("GRANT EXECUTE ON FUNCTION sr_find_api_key TO sr_app")
