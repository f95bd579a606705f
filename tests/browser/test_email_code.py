"""The whole way in by e-mail code: Chromium by keyboard, the real server, worker and mail server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from demo_server import STOP_SECONDS, wait_for
from live_server import serving
from mail_server import mail_server
from shared_record.access import entitlements
from shared_record.tenancy.methods import put_methods
from world import Shop

ANNA = "anna@northwind.example"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize("javascript", [False, True], ids=["plain", "javascript"])
def test_a_person_opens_the_record_by_a_mailed_code(
    shop: Shop, chromium: Chromium, tmp_path: Path, javascript: bool
) -> None:
    shop.record("cust_a", "7")
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("access_code", {}), ("email_otp", {})])
        rule = entitlements.email(ANNA)
        entitlements.allow(connection, shop.keys, shop.clock, shop.scope, "cust_a", rule, "test")
    with mail_server() as mails:
        sending = {"smtp_url": f"smtp+plain://127.0.0.1:{mails.port}", "mail_from": "Records <records@host.example>"}
        with serving(shop, tmp_path, **sending) as server, working(shop, tmp_path, sending):
            context = chromium.new_context(java_script_enabled=javascript)
            context.set_default_timeout(10_000)
            page = context.new_page()
            wrong: list[str] = []
            page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
            link = f"http://{shop.hosts[0]}:{server.port}{shop.link('cust_a').path}"
            page.goto(f"{link}/unlock?next={shop.link('cust_a').path}/activity")
            page.get_by_label("Code by email").check()
            page.keyboard.press("Enter")
            page.get_by_label("Your email address").fill(ANNA.upper())
            page.keyboard.press("Enter")
            field = page.get_by_label("Code from the email")
            expect(field).to_have_attribute("autocomplete", "one-time-code")
            expect(page.get_by_role("button", name="Send again")).to_be_visible()
            assert ANNA not in page.content().lower()
            page.set_viewport_size({"width": 320, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
            wait_for("the mail", lambda: mails.received)
            found = re.search(r"Your code: (\d{4} \d{4})", mails.mails[0].get_content())
            assert found
            field.fill(found[1])
            page.keyboard.press("Enter")
            page.wait_for_url("**/activity")
            expect(page.get_by_role("button", name="Close record")).to_be_visible()
            assert wrong == []
            context.close()
        logs = server.log.read_text() + (tmp_path / "worker.log").read_text()
    assert "northwind" not in logs.lower()
    assert found[1] not in logs


class working:
    """A real ``shared-record worker`` over a test tenant's database."""

    def __init__(self, shop: Shop, folder: Path, settings: dict[str, str]) -> None:
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
        self._environ = quiet | {f"SHARED_RECORD_{name.upper()}": value for name, value in settings.items()}
        self._line = [sys.executable, "-m", "shared_record", "worker", "--data-dir", str(folder)]
        self._line += ["--database-url", shop.db.url]
        self._log = folder / "worker.log"

    def __enter__(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._line, env=self._environ, stdout=log, stderr=log)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.wait(STOP_SECONDS) == 0, self._log.read_text()
