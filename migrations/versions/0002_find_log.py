"""the look-up of a log by its public id"""

from alembic import op

revision = "0002"
down_revision = "0001"

NAME = "sr_find_log"
RESULT = "tenant_id uuid, config_of uuid"
BODY = "SELECT t.tenant_id, t.config_of FROM tenant t WHERE t.public_id = p_public_id"


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return  # there the text in shared_record.db.lookup runs as it stands
    op.execute(
        f"CREATE FUNCTION {NAME}(p_public_id text) RETURNS TABLE ({RESULT}) LANGUAGE sql STABLE SECURITY DEFINER"
        f" SET search_path = pg_catalog, public AS $$ {BODY} $$"
    )
    op.execute(f"REVOKE ALL ON FUNCTION {NAME} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {NAME} TO sr_app")
