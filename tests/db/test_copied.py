"""Long results by ``COPY``: the same rows on both engines, within the tenant, and never a statement that runs long."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import bindparam, select
from sqlalchemy.exc import DataError

from shared_record.db.copied import hex_text, instant_text, stream, streaming
from shared_record.db.schema import leaf
from shared_record.db.scope import TenantScopeError
from world import Shop

ROWS = (
    select(leaf.c.seq, leaf.c.qty, hex_text(leaf.c.hash), instant_text(leaf.c.rx), hex_text(leaf.c.reference_key))
    .where(leaf.c.tenant_id == bindparam("t"), leaf.c.customer_id != bindparam("nobody"))
    .order_by(leaf.c.tree_id, leaf.c.seq)
)
EVERYBODY = select(leaf.c.seq)


def test_rows_come_as_texts_and_whole_numbers(shop: Shop) -> None:
    shop.record("cust_a", "5.5", "-1")
    with shop.db.read(shop.scope) as connection:
        hashes = connection.execute(select(leaf.c.hash).where(leaf.c.tenant_id == shop.scope.plane)).scalars().all()
        rows = list(stream(connection, ROWS, {"t": shop.scope.plane, "nobody": uuid4()}))
    assert [row[:2] for row in rows] == [(1, "5.5"), (2, "-1")]
    assert {row[2] for row in rows} == {digest.hex() for digest in hashes}
    assert [row[3:] for row in rows] == [("2026-11-22T12:00:00.000Z", None)] * 2


def test_another_tenants_rows_are_refused_before_the_driver_sees_the_statement(shop: Shop) -> None:
    shop.record("cust_a", "5")
    with shop.db.read(shop.scope) as connection:
        with pytest.raises(TenantScopeError):
            list(stream(connection, ROWS, {"t": uuid4(), "nobody": uuid4()}))
        with pytest.raises(TenantScopeError):
            list(stream(connection, EVERYBODY, {}))
    with shop.db.read(None) as connection, pytest.raises(TenantScopeError):
        list(stream(connection, ROWS, {"t": shop.scope.plane, "nobody": uuid4()}))


def test_row_level_security_holds_for_copies_too(shop: Shop) -> None:
    if not shop.db.is_postgresql:
        pytest.skip("SQLite has none")
    shop.record("cust_a", "5")
    with shop.db.read(shop.scope) as connection:
        connection.exec_driver_sql("SELECT set_config('sr.plane', %s, true)", (str(uuid4()),))
        assert list(stream(connection, ROWS, {"t": shop.scope.plane, "nobody": uuid4()})) == []


def test_what_the_driver_raises_is_what_any_statement_would_raise(shop: Shop) -> None:
    if not shop.db.is_postgresql:
        pytest.skip("SQLite's cursor is SQLAlchemy's")
    shop.record("cust_a", "5")
    broken = select(leaf.c.seq / bindparam("zero", type_=leaf.c.seq.type)).where(leaf.c.tenant_id == bindparam("t"))
    with pytest.raises(DataError) as caught, shop.db.read(shop.scope) as connection:
        list(stream(connection, broken, {"t": shop.scope.plane, "zero": 0}))
    assert "leaf" not in str(caught.value)


def test_x03_no_statement_of_an_export_takes_more_than_half_a_minute(shop: Shop) -> None:
    if not shop.db.is_postgresql:
        pytest.skip("SQLite has no such limit")
    with shop.db.read(shop.scope) as connection, streaming(connection):
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "30s"
    with shop.db.read(shop.scope) as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "0"


def test_x03_an_export_keeps_few_pages_of_sqlite_in_memory_and_others_keep_theirs(shop: Shop) -> None:
    if shop.db.is_postgresql:
        pytest.skip("PostgreSQL keeps none in this process")
    with shop.db.read(shop.scope) as connection:
        before = connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
        with streaming(connection):
            assert 0 > connection.exec_driver_sql("PRAGMA cache_size").scalar_one() > before
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == before


def test_a_result_that_is_left_early_leaves_the_connection_usable(shop: Shop) -> None:
    shop.record("cust_a", *["1"] * 50)
    with shop.db.read(shop.scope) as connection:
        rows = stream(connection, ROWS, {"t": shop.scope.plane, "nobody": uuid4()})
        assert next(rows)[0] == 1
        rows.close()
    with shop.db.read(shop.scope) as connection:
        assert len(list(stream(connection, ROWS, {"t": shop.scope.plane, "nobody": uuid4()}))) == 50
