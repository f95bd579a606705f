"""Conditional GET, and that what a page fetches by itself is no view and keeps no session open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import TestResponse

from client import Visitor, serve, url_of
from shared_record.hosts.resolver import Role
from shared_record.ledger.receipts import list_receipts
from shared_record.tenancy.tenants import update_tenant
from shared_record.web.record.samples import landing
from shared_record.web.render import Renderer
from shared_record.web.runtime import EXTENSION
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

BY_ITSELF = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Accept": "*/*"}
PAGES = ("", "/activity", "/periods", "/periods/2026-11", "/compare", "/receipts", "/timeline", "/reconcile")
TWINS = (".json", "/activity.json", "/activity.csv", "/periods.json", "/periods/2026-11.json", "/receipts.json")


@pytest.fixture
def gate(shop: Shop) -> Any:
    shop.record("cust_a", "12.25")
    return serve(shop)


@pytest.fixture
def visitor(shop: Shop, gate: Any) -> Visitor:
    opened = Visitor(gate)
    assert opened.unlock(url_of(shop, "cust_a"), shop.code("cust_a")).status_code == 303
    return opened


def ask(visitor: Visitor, url: str, tag: str, **headers: str) -> TestResponse:
    return visitor.get(url, headers={"If-None-Match": tag, **headers})


@pytest.mark.parametrize("path", [*PAGES, *TWINS])
def test_what_shows_the_same_is_not_sent_again(shop: Shop, visitor: Visitor, path: str) -> None:
    url = f"{url_of(shop, 'cust_a')}{path}"
    first = visitor.get(url)
    tag = first.headers["ETag"]
    assert first.status_code == 200
    shop.clock.advance(minutes=3)
    again = ask(visitor, url, f'"other", {tag}')
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
    assert "no-store" in again.headers["Cache-Control"]
    assert "Cookie" in again.headers["Vary"]
    assert "Content-Type" not in again.headers
    shop.record("cust_a", "1")
    shop.checkpoint()
    changed = ask(visitor, url, tag)
    if path not in ("/compare", "/receipts", "/receipts.json"):  # those show only what is still the same
        assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)
        assert changed.data


def test_receipts_have_tags_too(shop: Shop, visitor: Visitor) -> None:
    shop.clock.advance(days=40)
    shop.close()
    shop.checkpoint()
    with shop.db.read(shop.scope) as connection:
        (receipt,) = list_receipts(connection, shop.scope, shop.link("cust_a").customer_id)
    for suffix in ("", ".json"):
        url = f"{shop.hosts[0]}/receipt/{receipt.receipt_id}{suffix}"
        assert ask(visitor, url, visitor.get(url).headers["ETag"]).status_code == 304


def test_the_tag_is_of_what_this_visitor_sees(shop: Shop, gate: Any, visitor: Visitor) -> None:
    url, stranger = url_of(shop, "cust_a"), Visitor(gate)
    tags = {stranger.get(url).headers["ETag"], visitor.get(url).headers["ETag"]}
    assert len(tags) == 2  # one says until when it is open
    tags.add(visitor.get(url, headers={"Accept-Language": "de"}).headers["ETag"])
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"theme": "nocturne"})
    tags.add(visitor.get(url).headers["ETag"])
    assert len(tags) == 4
    for tag in tags:
        assert tag.startswith('W/"')


def test_the_tag_is_of_the_themes_templates_too(gate: Any) -> None:
    app = gate._applications[Role.SERVING]
    theme = app.extensions[EXTENSION].themes["default"]
    changed = replace(theme, partials={**theme.partials, "masthead.html": "<h1>{{ shell.vendor }}</h1>"})
    with app.test_request_context("/"):
        tags = {
            Renderer({"default": one}).render(landing(), "default").headers["ETag"] for one in (theme, theme, changed)
        }
    assert len(tags) == 2


def test_p02_a_tag_opens_nothing(shop: Shop, gate: Any, visitor: Visitor) -> None:
    """Whoever may not see a page is told the same with its tag as without."""
    url = f"{url_of(shop, 'cust_a')}/activity"
    tag = visitor.get(url).headers["ETag"]
    assert ask(Visitor(gate), url, tag).status_code == 303
    assert ask(Visitor(gate), f"{url}.json", tag).status_code == 401
    assert ask(Visitor(gate), f"{url}.json", "*").status_code == 401


def test_errors_and_forms_have_no_tag(shop: Shop, visitor: Visitor) -> None:
    for path in ("/activity?period=x", "/unlock", "/nothing"):
        assert "ETag" not in visitor.get(f"{url_of(shop, 'cust_a')}{path}").headers


def views(gate: Any) -> int:
    written: int = gate._applications[Role.SERVING].extensions[EXTENSION].views.flush()
    return written


def test_l05_what_a_page_fetches_by_itself_is_no_view(shop: Shop, gate: Any, visitor: Visitor) -> None:
    views(gate)
    url = url_of(shop, "cust_a")
    for headers in (BY_ITSELF, {"Accept": "*/*"}):  # the second: a browser that sends no Fetch Metadata
        for path in ("", "/activity"):
            assert ask(visitor, f"{url}{path}", '"other"', **headers).status_code == 200
    assert views(gate) == 0
    visitor.get(url)
    assert views(gate) == 1


def test_s12_what_a_page_fetches_by_itself_keeps_no_session_open(shop: Shop, visitor: Visitor) -> None:
    url = f"{url_of(shop, 'cust_a')}/activity"
    for _ in range(2):
        shop.clock.advance(minutes=14)
        assert ask(visitor, url, '"other"', **BY_ITSELF).status_code == 200
    shop.clock.advance(minutes=4)
    assert ask(visitor, url, '"other"', **BY_ITSELF).status_code == 303


def test_s12_looking_keeps_it_open(shop: Shop, visitor: Visitor) -> None:
    url = f"{url_of(shop, 'cust_a')}/activity"
    for _ in range(3):
        shop.clock.advance(minutes=20)
        assert visitor.get(url).status_code == 200
