"""The way in by a code from a device, a method that no tenant of the demo has: Chromium by keyboard alone."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect
from shared_record_example_totp import code_at

from live_server import serving
from shared_record.access.method_secrets import set_customer_secret
from shared_record.tenancy.methods import put_methods
from world import Shop

SEED = b"12345678901234567890"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize("javascript", [False, True], ids=["plain", "javascript"])
def test_a_person_opens_the_record_by_a_code_from_a_device(
    shop: Shop, chromium: Chromium, tmp_path: Path, javascript: bool
) -> None:
    shop.record("cust_a", "7")
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("access_code", {}), ("totp_device", {})])
        tools = connection, shop.keys, shop.clock, shop.scope
        set_customer_secret(*tools, "cust_a", "totp_device", base64.b32encode(SEED), "test")
    with serving(shop, tmp_path) as server:
        context = chromium.new_context(java_script_enabled=javascript)
        context.set_default_timeout(10_000)
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        path = shop.link("cust_a").path
        page.goto(f"http://{shop.hosts[0]}:{server.port}{path}/unlock?next={path}/activity")
        reach(page, "input[type=radio]")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**method=totp_device**")
        reach(page, "input[type=text]")
        page.keyboard.type(code_at(SEED, int(datetime.now(UTC).timestamp()) // 30))
        page.keyboard.press("Enter")
        page.wait_for_url("**/activity")
        expect(page.get_by_role("button", name="Close record")).to_be_visible()
        assert wrong == []
        context.close()


def reach(page: Page, selector: str) -> None:
    """Press Tab until what matches ``selector`` has the focus."""
    for _ in range(40):
        if page.locator(f"{selector}:focus").count():
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by keyboard on {page.url}")
