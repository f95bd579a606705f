"""Statements that go past SQLAlchemy: the same values, the same refusals and the same errors."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Select, bindparam, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared_record.db.prepared import execute_one, fetch_all
from shared_record.db.schema import customer, day_counter, leaf, log_node, period_tree, tenant
from shared_record.db.scope import TenantScopeError
from shared_record.ledger.intake import Delta
from world import Shop

ADD = log_node.insert()
CHANGE = (
    log_node.update()
    .where(log_node.c.tenant_id == bindparam("t"), log_node.c.level == 9, log_node.c.idx == bindparam("at"))
    .values(hash=bindparam("new"))
)
NODES = select(log_node.c.idx, log_node.c.hash).where(
    log_node.c.tenant_id == bindparam("t"), log_node.c.idx.in_(bindparam("some", expanding=True))
)


def whole(table: object) -> Select[tuple[object, ...]]:
    return select(table).where(table.c.tenant_id == bindparam("t"))  # type: ignore[attr-defined, call-overload, no-any-return]


@pytest.mark.parametrize("table", [tenant, customer, period_tree, leaf, day_counter])
def test_rows_are_those_of_sqlalchemy(shop: Shop, table: object) -> None:
    shop.record_many([Delta("one", "-1.50", "r", reference_id="a"), Delta("two", "3", "r", metadata='{"a":1}')])
    mine = {"t": shop.scope.plane}
    with shop.db.read(shop.scope) as connection:
        expected = [row._mapping for row in connection.execute(whole(table), mine)]
        found = [row._asdict() for row in fetch_all(connection, whole(table), mine)]
    assert found == [dict(row) for row in expected]
    assert [[type(value) for value in row.values()] for row in found] == [
        [type(value) for value in row.values()] for row in expected
    ]


def test_lists_of_any_length_stand_for_expanding_parameters(shop: Shop) -> None:
    plane = shop.scope.plane
    with shop.db.write(shop.scope) as connection:
        for n in range(4):
            row = {"tenant_id": plane, "level": 9, "idx": n, "hash": bytes([n]) * 32}
            assert execute_one(connection, ADD, row) == 1
        for some in ([], [2], [0, 3], [3, 2, 1, 0], [7]):
            rows = fetch_all(connection, NODES, {"t": plane, "some": some})
            assert sorted(row.idx for row in rows) == sorted(set(some) & set(range(4)))
            assert all(row.hash == bytes([row.idx]) * 32 for row in rows)
        assert execute_one(connection, CHANGE, {"t": plane, "at": 1, "new": b"\xff" * 32}) == 1
        assert execute_one(connection, CHANGE, {"t": plane, "at": 9, "new": b"\xff" * 32}) == 0


def test_another_tenant_is_refused(shop: Shop) -> None:
    other = uuid4()
    row = {"tenant_id": other, "level": 9, "idx": 0, "hash": b"\0" * 32}
    with shop.db.write(shop.scope) as connection:
        with pytest.raises(TenantScopeError):
            execute_one(connection, ADD, row)
        with pytest.raises(TenantScopeError):
            execute_one(connection, CHANGE, {"t": other, "at": 1, "new": b""})
        with pytest.raises(TenantScopeError):
            fetch_all(connection, NODES, {"t": other, "some": [1]})


def test_errors_are_those_of_sqlalchemy_and_hold_no_values(shop: Shop) -> None:
    row = {"tenant_id": shop.scope.plane, "level": 9, "idx": 0, "hash": b"secret".ljust(32)}
    with pytest.raises(IntegrityError) as caught, shop.db.write(shop.scope) as connection:  # noqa: PT012
        execute_one(connection, ADD, row)
        execute_one(connection, ADD, row)
    assert "secret" not in str(caught.value)
    with shop.db.read(shop.scope) as connection:
        assert fetch_all(connection, NODES, {"t": shop.scope.plane, "some": [0]}) == []


def test_a_connection_that_is_gone_is_not_used_again(shop: Shop) -> None:
    if not shop.db.is_postgresql:
        pytest.skip("nothing can cut a connection to SQLite")
    mine = {"t": shop.scope.plane, "some": [0]}
    with pytest.raises(DBAPIError) as caught, shop.db.read(shop.scope) as connection:  # noqa: PT012
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.pgconn.finish()
        fetch_all(connection, NODES, mine)
    assert caught.value.connection_invalidated
    with shop.db.read(shop.scope) as connection:
        assert fetch_all(connection, NODES, mine) == []
