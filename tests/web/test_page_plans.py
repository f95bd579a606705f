"""No page reads its way through what belongs to a whole tenant: SQLite finds every row of a page by an index."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event

from client import Visitor, serve, url_of
from shared_record.tenancy.tenants import update_tenant
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PAGES = (
    "", ".json", "/activity", "/periods", "/periods/2026-11", "/compare", "/receipts", "/timeline", "/reconcile",
    "/access-log", "/export", "/verify", "/unlock",
)  # fmt: skip
SMALL = {"tenant", "tenant_method", "log", "signing_key"}
"""Tables of which a tenant has one row or a handful."""
THROUGH_ALL = re.compile(r"SCAN (?!CONSTANT|\()(\w+)|SEARCH (\w+) USING (?:COVERING )?INDEX (\w+) \(tenant_id=\?\)")
FEW = {"uq_host_primary"}
"""Indices that hold one row of a tenant."""
UP_TO_THE_FIRST = {"serving_host", "epoch", "checkpoint"}
"""What is read in the order of its index and stops at the first row that will do."""


def plans(shop: Shop, url: str) -> list[tuple[str, str]]:
    """Request a page; return each statement with each line of its plan."""
    found: list[tuple[str, str]] = []

    def explain(connection: Any, _cursor: Any, sql: str, values: Any, *_rest: Any) -> None:
        if sql.startswith("SELECT"):
            driver = connection.connection.cursor()
            found.extend((sql, row[3]) for row in driver.execute(f"EXPLAIN QUERY PLAN {sql}", values))

    visitor = Visitor(serve(shop))
    event.listen(shop.db.engine, "before_cursor_execute", explain)
    try:
        assert visitor.get(url).status_code in (200, 303)
    finally:
        event.remove(shop.db.engine, "before_cursor_execute", explain)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_a_page_is_found_by_an_index(shop: Shop, page: str) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"policy": "OPEN"})
    shop.record("cust_a", "12.25", "3")
    shop.checkpoint()
    shop.record("cust_a", "1")
    found = plans(shop, url_of(shop, "cust_a") + page)
    assert found
    for sql, line in found:
        match = THROUGH_ALL.search(line)
        if match is None or match[3] in FEW or match[2] in UP_TO_THE_FIRST:
            continue
        assert (match[1] or match[2]) in SMALL, f"{line}: {sql}"
