"""Erasing: retention per tenant, and ledgers of erased customers come to rest."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

LIST_DUE = (
    "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
    " FROM period_tree p WHERE p.tenant_id = t.tenant_id AND p.status <> 'erased'"
    " AND (p.size > p.vsize OR p.vsize > p.psize OR p.status = 'closing'))"
    " OR EXISTS (SELECT 1 FROM job j WHERE j.tenant_id = t.tenant_id AND j.due_at <= p_now) ORDER BY t.slug"
)


def upgrade() -> None:
    op.add_column("tenant", sa.Column("retention_days", sa.Integer(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        # The application may not delete statements; of an erased period this does it, and of no other.
        op.execute(
            "CREATE FUNCTION sr_erase_statement(p_tree text) RETURNS void LANGUAGE sql SECURITY DEFINER"
            " SET search_path = pg_catalog, public AS $$ DELETE FROM statement s USING period_tree p"
            " WHERE s.tenant_id = sr_plane() AND s.tree_id = p_tree AND p.tenant_id = s.tenant_id"
            " AND p.tree_id = s.tree_id AND p.status = 'erased' $$"
        )
        op.execute("REVOKE ALL ON FUNCTION sr_erase_statement FROM PUBLIC")
        op.execute("GRANT EXECUTE ON FUNCTION sr_erase_statement TO sr_app")
        op.execute(
            "CREATE OR REPLACE FUNCTION sr_list_due(p_now timestamptz) RETURNS TABLE (tenant_id uuid, config_of uuid,"
            " slug text, public_id text, state text) LANGUAGE sql STABLE SECURITY DEFINER"
            f" SET search_path = pg_catalog, public AS $$ {LIST_DUE} $$"
        )
