"""The metadata all tables share, and the column shapes that repeat."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Integer, MetaData, Uuid

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

PLANE = {"scope": "plane"}
CONFIG = {"scope": "config"}
GLOBAL = {"scope": "global"}
ACROSS_TENANTS = {"across_tenants": True}


def tenant_column() -> Column[Any]:
    """Return the leading key column of every tenant table."""
    return Column("tenant_id", Uuid, primary_key=True)


def epoch_column(name: str = "epoch") -> Column[Any]:
    """Return a counter whose rise ends every session that was issued under an earlier value."""
    return Column(name, Integer, nullable=False, server_default="0")


def within_tenant(*columns: str, table: str, target: tuple[str, ...] = ()) -> ForeignKeyConstraint:
    """Return a foreign key to ``table`` that cannot leave the tenant: ``(tenant_id, *columns)``."""
    return ForeignKeyConstraint(
        ["tenant_id", *columns], [f"{table}.{name}" for name in ("tenant_id", *(target or columns))]
    )
