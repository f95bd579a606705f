"""The chain of the audit trail, and counted views."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0012"
down_revision = "0011"

UNSEALED = sa.text("position IS NULL")
LOOKUPS = {
    "sr_find_session": (
        "p_digest bytea",
        "tenant_id uuid, host text",
        "SELECT s.tenant_id, s.host FROM session s WHERE s.sid_hash = p_digest",
    ),
    "sr_list_unsealed": (
        "",
        "tenant_id uuid, config_of uuid, slug text, public_id text, state text",
        "SELECT t.tenant_id, t.config_of, t.slug, t.public_id, t.state FROM tenant t WHERE EXISTS (SELECT 1"
        " FROM audit_event a WHERE a.tenant_id = t.tenant_id AND a.position IS NULL) ORDER BY t.slug",
    ),
}
SAME = " AND ".join(
    f"OLD.{name} IS NEW.{name}" for name in ("tenant_id", "event_id", "at", "event", "actor", "customer_id", "detail")
)


def upgrade() -> None:
    op.add_column("audit_event", sa.Column("position", sa.BigInteger(), nullable=True))
    op.add_column("audit_event", sa.Column("hash", sa.LargeBinary(length=32), nullable=True))
    op.create_index("uq_audit_event_position", "audit_event", ["tenant_id", "position"], unique=True)
    op.create_index(
        "ix_audit_event_unsealed",
        "audit_event",
        ["tenant_id", "at", "event_id"],
        sqlite_where=UNSEALED,
        postgresql_where=UNSEALED,
    )
    op.create_index("ix_session_sid_hash", "session", ["sid_hash"])
    op.create_table(
        "view_count",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("hour", Instant(), nullable=False),
        sa.Column("tier", sa.String(length=5), nullable=False),
        sa.Column("views", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customer.tenant_id", "customer.customer_id"],
            name=op.f("fk_view_count_customer"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "hour", "tier", name=op.f("pk_view_count")),
    )
    if op.get_bind().dialect.name == "postgresql":
        _postgresql()
    else:
        _sqlite()


def _postgresql() -> None:
    op.execute("ALTER TABLE view_count ENABLE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY tenant_scope ON view_count USING (tenant_id = sr_plane())")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON view_count TO sr_app")
    # An event is never written anew: the one change there is is to give it its place, once.
    op.execute("GRANT UPDATE (position, hash) ON audit_event TO sr_app")
    op.execute(
        "CREATE POLICY sealed_once ON audit_event AS RESTRICTIVE FOR UPDATE USING (position IS NULL)"
        " WITH CHECK (position IS NOT NULL AND hash IS NOT NULL)"
    )
    op.execute("CREATE POLICY unsealed_first ON audit_event AS RESTRICTIVE FOR INSERT WITH CHECK (position IS NULL)")
    for name, (arguments, result, body) in LOOKUPS.items():
        op.execute(
            f"CREATE FUNCTION {name}({arguments}) RETURNS TABLE ({result}) LANGUAGE sql STABLE SECURITY DEFINER"
            f" SET search_path = pg_catalog, public AS $$ {body} $$"
        )
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO sr_app")


def _sqlite() -> None:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
    op.execute(f"CREATE TRIGGER audit_event_kept BEFORE DELETE ON audit_event {refuse}")
    op.execute(
        "CREATE TRIGGER audit_event_sealed_once BEFORE UPDATE ON audit_event WHEN NOT (OLD.position IS NULL"
        f" AND NEW.position IS NOT NULL AND NEW.hash IS NOT NULL AND {SAME}) {refuse}"
    )
