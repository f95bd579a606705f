"""A receipt in a frame, in Chromium: on the sites that the tenant named, and on no other (T05 to T07)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, Route

from chromium import EXECUTABLE
from live_server import serving
from shared_record.ledger.receipts import list_receipts
from shared_record.tenancy.tenants import update_tenant
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NAMED = "https://portal.acme.example"
OTHERS = (
    "http://portal.acme.example",
    "https://portal.acme.example:8443",
    "https://acme.example",
    "https://x.portal.acme.example",
    "https://portal.acme.example.evil.example",
    "https://evil-portal.acme.example",
    "https://usage.acme.example",
    "https://evil.example",
)


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    """A browser to which this machine is a place like any other: others keep sites from it before the policy does."""
    free = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
    browser = chromium.browser_type.launch(executable_path=EXECUTABLE, args=free)
    yield browser
    browser.close()


@pytest.fixture
def receipt(shop: Shop, tmp_path: Path) -> Iterator[str]:
    """The address of a receipt on a real server, and of the record it belongs to before it."""
    shop.record("cust_a", "12.25")
    shop.clock.advance(days=40)
    shop.close()
    shop.checkpoint()
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"embed_origins": [NAMED]})
        (found,) = list_receipts(connection, shop.scope, shop.link("cust_a").customer_id)
    with serving(shop, tmp_path) as server:
        yield f"http://{shop.hosts[0]}:{server.port}/receipt/{found.receipt_id}"


def framed(page: Page, parent: str, inside: str, within: str = "<iframe src='{}'></iframe>") -> str:
    """Return what the innermost frame of a page at ``parent`` shows."""

    def answer(route: Route) -> None:
        body = f"<!doctype html><title>Parent</title>{within.format(inside)}"
        route.fulfill(body=body, content_type="text/html")

    page.route(lambda url: "acme.localhost" not in url, answer)
    page.goto(f"{parent}/")
    page.wait_for_timeout(500)
    shown = page.frames[-1].locator("body").inner_text() if len(page.frames) > 1 else ""
    page.unroute_all()
    return shown


def test_t06_the_sites_that_were_named_show_a_receipt(shop: Shop, browser: Chromium, receipt: str) -> None:
    page = browser.new_page()
    assert "12.25" in framed(page, NAMED, receipt)
    assert "/c/" not in page.frames[-1].content()
    for other in OTHERS:
        assert "12.25" not in framed(page, other, receipt), other
    sandboxed = "<iframe sandbox='allow-scripts' srcdoc=\"<iframe src='{}'></iframe>\"></iframe>"
    assert "12.25" not in framed(page, NAMED, receipt, sandboxed)  # between them, a frame of origin null
    page.close()


def test_t05_no_site_shows_anything_else(shop: Shop, browser: Chromium, receipt: str) -> None:
    page, origin = browser.new_page(), receipt.partition("/receipt/")[0]
    record = f"{origin}{shop.link('cust_a').path}"
    for inside in (record, f"{record}/unlock", f"{record}/verify", receipt.replace("/receipt/", "/verify/")):
        for parent in (NAMED, "https://evil.example"):
            shown = framed(page, parent, inside)
            assert "refused to connect" in shown or shown == "Forbidden", (parent, inside, shown)
    page.close()


def test_t07_a_framed_receipt_sends_no_message_and_heeds_none(browser: Chromium, receipt: str) -> None:
    page = browser.new_page()
    listening = "<script>heard = []; addEventListener('message', one => heard.push(one.data))</script>"
    assert "12.25" in framed(page, NAMED, receipt, listening + "<iframe src='{}'></iframe>")
    inside = page.frames[-1]
    before = (inside.url, inside.content())
    page.evaluate("""() => {
      const sent = ["close", "<img src=x>", { type: "resize", height: 1 }, { type: "navigate", url: "//evil.example" }];
      for (const one of sent) frames[0].postMessage(one, "*");
    }""")
    page.wait_for_timeout(300)
    assert (inside.url, inside.content()) == before
    assert page.evaluate("heard") == []
    page.close()
