"""Receipts, and look-ups of public proof ids."""

import sqlalchemy as sa
from alembic import op

from shared_record.db.types import Amount, Instant

revision = "0003"
down_revision = "0002"

LOOKUPS = {
    "sr_find_receipt": (
        "p_receipt_id text",
        "tenant_id uuid, config_of uuid, receipt_id text",
        "SELECT r.tenant_id, t.config_of, r.receipt_id FROM receipt r"
        " JOIN tenant t ON t.tenant_id = r.tenant_id WHERE r.receipt_id = p_receipt_id",
    ),
    "sr_find_proof": (
        "p_hash bytea",
        "tenant_id uuid, config_of uuid, kind text, id text",
        "SELECT l.tenant_id, t.config_of, 'delta' AS kind, l.record_id AS id FROM leaf l"
        " JOIN tenant t ON t.tenant_id = l.tenant_id WHERE l.hash = p_hash"
        " UNION ALL SELECT r.tenant_id, t.config_of, 'receipt', r.receipt_id FROM receipt r"
        " JOIN tenant t ON t.tenant_id = r.tenant_id WHERE r.proof_root = p_hash",
    ),
}


def upgrade() -> None:
    op.create_table(
        "receipt",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("receipt_id", sa.String(length=40), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("start", Instant(), nullable=False),
        sa.Column("end", Instant(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("spans", sa.JSON(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("opening", Amount(), nullable=False),
        sa.Column("closing", Amount(), nullable=False),
        sa.Column("unit", sa.String(length=64), nullable=False),
        sa.Column("proof_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("issued_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customer.tenant_id", "customer.customer_id"],
            name=op.f("fk_receipt_customer"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "receipt_id", name=op.f("pk_receipt")),
        sa.UniqueConstraint(
            "tenant_id",
            "customer_id",
            "start",
            "end",
            "revision",
            name=op.f("uq_receipt_tenant_id_customer_id_start_end_revision"),
        ),
    )
    op.create_index("ix_receipt_receipt_id", "receipt", ["receipt_id"])
    op.create_index("ix_receipt_proof_root", "receipt", ["proof_root"])
    op.create_index("ix_leaf_hash", "leaf", ["hash"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE receipt ENABLE ROW LEVEL SECURITY")
        op.execute("CREATE POLICY tenant_scope ON receipt USING (tenant_id = sr_plane())")
        op.execute("GRANT SELECT, INSERT ON receipt TO sr_app")
        for name, (arguments, result, body) in LOOKUPS.items():
            op.execute(
                f"CREATE FUNCTION {name}({arguments}) RETURNS TABLE ({result}) LANGUAGE sql STABLE SECURITY DEFINER"
                f" SET search_path = pg_catalog, public AS $$ {body} $$"
            )
            op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
            op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO sr_app")
