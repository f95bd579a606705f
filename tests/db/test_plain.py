"""Statements over many rows as plain tuples: checked as any other, and refused alike."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import bindparam, select

from shared_record.db.plain import TOGETHER, execute_rows, fetch
from shared_record.db.schema import log_node
from shared_record.db.scope import TenantScopeError
from world import Shop

ADD = log_node.insert()
CHANGE = (
    log_node.update()
    .where(log_node.c.tenant_id == bindparam("t"), log_node.c.level == 9, log_node.c.idx == bindparam("at"))
    .values(hash=bindparam("new"))
)
ALL = (
    select(log_node.c.idx, log_node.c.hash)
    .where(log_node.c.tenant_id == bindparam("t"), log_node.c.level == 9)
    .order_by(log_node.c.idx)
)
NAMES = ("level", "idx", "hash")


def test_rows_are_written_and_read(shop: Shop) -> None:
    count = TOGETHER + 1
    mine = {"t": shop.scope.plane}
    with shop.db.write(shop.scope) as connection:
        execute_rows(
            connection, ADD, {"tenant_id": shop.scope.plane}, NAMES, [(9, n, b"\0" * 32) for n in range(count)]
        )
        execute_rows(connection, ADD, {"tenant_id": shop.scope.plane}, NAMES, [])
        assert list(fetch(connection, ALL, mine)) == [(n, b"\0" * 32) for n in range(count)]


def test_another_tenant_is_refused(shop: Shop) -> None:
    other = uuid4()
    with shop.db.write(shop.scope) as connection:
        with pytest.raises(TenantScopeError):
            execute_rows(connection, ADD, {"tenant_id": other}, NAMES, [(9, 0, b"\0" * 32)])
        with pytest.raises(TenantScopeError):
            execute_rows(connection, CHANGE, {"t": other}, ("at", "new"), [(0, b"\1" * 32)])
        with pytest.raises(TenantScopeError):
            list(fetch(connection, ALL, {"t": other}))
        with pytest.raises(ValueError, match="fixed or differs"):
            execute_rows(connection, ADD, {"tenant_id": shop.scope.plane}, ("tenant_id", *NAMES), [(other, 9, 0, b"")])
