"""Many rows in one statement: what comes out is what went in, and only the active tenant's rows go in."""

from __future__ import annotations

from decimal import Decimal
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url, select

from shared_record.db.bulk import insert_rows
from shared_record.db.schema import delta_detail, leaf
from shared_record.db.scope import TenantScopeError
from shared_record.ledger.intake import Accepted, Delta
from world import Shop

TEXTS = ("plain", 'quote " and \\ and \n', "größer ☃ 𝄞", "\\x00", "{}", "null", "%s %(t)s :t")
AMOUNTS = ("1", "-99999999999999999999.123456789012345678901234", "0.000000000000000000000001", "20", "-5", "3", "4")


def test_every_kind_of_column_keeps_its_value(shop: Shop) -> None:
    deltas = [
        Delta("cust", amount, text, reference_id=text, metadata=None if n % 2 else '{"a":"\\"b\\""}')
        for n, (amount, text) in enumerate(zip(AMOUNTS, TEXTS, strict=True))
    ]
    accepted = shop.record_many(deltas)
    joined = select(leaf, delta_detail).where(
        leaf.c.tenant_id == shop.scope.plane,
        delta_detail.c.tenant_id == leaf.c.tenant_id,
        delta_detail.c.tree_id == leaf.c.tree_id,
        delta_detail.c.seq == leaf.c.seq,
    )
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(joined.order_by(leaf.c.seq)).all()
    for row, delta, told in zip(rows, deltas, accepted, strict=True):
        assert isinstance(told, Accepted)
        assert (row.reason, row.reference, row.metadata) == (delta.reason, delta.reference_id, delta.metadata)
        assert Decimal(row.qty) == Decimal(delta.amount)
        assert (row.rx, f"0x{row.hash.hex()}") == (told.created_at, told.receipt_id)
        assert (row.adjusts, len(row.salt)) == (None, 16)


def test_one_row_of_another_tenant_keeps_all_of_them_out(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        row = {"tree_id": "r_0", "seq": 1, "reason": "x", "salt": bytes(16)}
        rows = [row | {"tenant_id": tenant} for tenant in (shop.scope.plane, uuid4())]
        with pytest.raises(TenantScopeError):
            insert_rows(connection, delta_detail, rows)
        mine = select(delta_detail.c.seq).where(delta_detail.c.tenant_id == shop.scope.plane)
        assert connection.execute(mine).all() == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_pooled_connection_that_the_server_closed_is_replaced(shop: Shop, database_url: str) -> None:
    shop.record("cust", "1")
    server = make_url(database_url).set(drivername="postgresql").render_as_string()
    with psycopg.connect(server, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchall()
    assert ended
    assert all(one for (one,) in ended)
    [accepted] = shop.record("cust", "2")
    assert isinstance(accepted, Accepted)
    assert accepted.sequence == 2
