"""New origins of logs, slot trees that change in part, and the outcome of the nightly audit."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Instant

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("log", sa.Column("audited_at", Instant(), nullable=True))
    op.add_column("log", sa.Column("audit_findings", sa.Integer(), nullable=True))
    op.add_column("log", sa.Column("audit_problem", sa.Text(), nullable=True))
    op.create_table(
        "former_log",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("last", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["log.tenant_id"], name=op.f("fk_former_log_log")),
        sa.PrimaryKeyConstraint("tenant_id", "start", name=op.f("pk_former_log")),
    )
    op.add_column("epoch", sa.Column("reblinded", sa.BigInteger(), nullable=True))
    op.create_index("ix_slot_tile_place", "slot_tile", ["tenant_id", "level", "idx", "epoch"])
    op.add_column("customer", sa.Column("head_epoch", sa.BigInteger(), nullable=True))
    op.add_column("customer", sa.Column("slot_epoch", sa.BigInteger(), nullable=True))
    for name, where in (
        ("ix_customer_next_head", sa.text("next_head IS NOT NULL")),
        ("ix_customer_unhashed", sa.text("slot_epoch IS NULL")),
    ):
        op.create_index(name, "customer", ["tenant_id", "slot"], sqlite_where=where, postgresql_where=where)
    _audit_jobs()
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE former_log ENABLE ROW LEVEL SECURITY")
        op.execute("CREATE POLICY tenant_scope ON former_log USING (tenant_id = sr_plane())")
        op.execute("GRANT SELECT, INSERT ON former_log TO sr_app")
        # The application may not delete what an epoch says; of an abandoned checkpoint this does it, and of no other.
        op.execute(
            "CREATE FUNCTION sr_forget_abandoned() RETURNS void LANGUAGE sql SECURITY DEFINER"
            " SET search_path = pg_catalog, public AS $$ DELETE FROM epoch_member m USING checkpoint c"
            " WHERE m.tenant_id = sr_plane() AND c.tenant_id = m.tenant_id AND c.size = m.epoch + 1"
            " AND c.state = 'abandoned' $$"
        )
        op.execute("REVOKE ALL ON FUNCTION sr_forget_abandoned FROM PUBLIC")
        op.execute("GRANT EXECUTE ON FUNCTION sr_forget_abandoned TO sr_app")


def _audit_jobs() -> None:
    """Give every log that there is the job of its audit, due at once."""
    log = sa.table("log", sa.column("tenant_id", sa.Uuid()))
    job = sa.table(
        "job",
        sa.column("tenant_id", sa.Uuid()),
        sa.column("kind", sa.String()),
        sa.column("due_at", Instant()),
    )
    due = sa.bindparam("due", datetime.now(UTC).replace(microsecond=0), type_=Instant())
    chosen = sa.select(log.c.tenant_id, sa.literal("audit"), due)
    op.execute(job.insert().from_select(["tenant_id", "kind", "due_at"], chosen))
