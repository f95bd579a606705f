"""The customer's pages in Chromium, as a person uses them: by keyboard, with and without JavaScript, on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, Request, expect

from demo_server import Demo, Person, wait_for
from shared_record.clock import period_of

pytestmark = pytest.mark.xdist_group("demo")

POLICIES = {"TWO_TIER": "acme", "GATED": "borealis", "OPEN": "copperline"}
WIDTHS = (320, 360, 1280)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Tab:
    """A page, and everything that went wrong in it."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._requested)
        self.page.on("requestfailed", self._failed)

    def _requested(self, request: Request) -> None:
        if not request.url.startswith(self.origin + "/"):
            self.wrong.append(f"request to {request.url}")

    def _failed(self, request: Request) -> None:
        # The browser itself breaks off what it needs no longer: a page that becomes a download, an icon of a page that
        # is left. Whatever the server refuses has another name.
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"{request.url}: {request.failure}")

    def check(self) -> None:
        """Look at the page as it stands: one heading, nothing wider than the screen."""
        assert self.page.locator("h1").count() == 1
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 740})
            assert self.page.evaluate(OVERFLOW) <= 0, f"{self.page.url} at {width}"
        assert self.wrong == []

    def press_tab_to(self, selector: str) -> None:
        """Reach an element with the Tab key alone."""
        wanted = self.page.locator(selector).first
        expect(wanted).to_be_visible()
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if wanted.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"{selector} cannot be reached by keyboard on {self.page.url}")


@contextmanager
def tab(chromium: Chromium, url: str, *, javascript: bool = True) -> Iterator[Tab]:
    context = chromium.new_context(java_script_enabled=javascript, accept_downloads=True)
    context.set_default_timeout(10_000)
    try:
        parts = urlsplit(url)
        opened = Tab(context.new_page(), f"{parts.scheme}://{parts.netloc}")
        opened.watch()
        opened.page.goto(url)
        yield opened
    finally:
        context.close()


def unlock_by_keyboard(opened: Tab, person: Person) -> None:
    """Go from the landing page to the open activity page, never touching a mouse."""
    page = opened.page
    if (gated := page.get_by_role("link", name="Continue")).count():
        opened.press_tab_to("a.button")
        assert gated.evaluate("element => element === document.activeElement")
    elif page.get_by_text("Anyone with this link can see the whole record.").count():
        page.goto(f"{person.url}/unlock?next={urlsplit(person.url).path}/activity")
    else:
        opened.press_tab_to('nav a[href$="/activity"]')
    if not page.url.partition("?")[0].endswith("/unlock"):
        page.keyboard.press("Enter")
        page.wait_for_url("**/unlock*")
    opened.check()
    if page.get_by_role("radio").count():
        opened.press_tab_to("input[type=radio]")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        page.wait_for_url("**method=access_code*")
        opened.check()
    opened.press_tab_to("input[type=text]")
    page.keyboard.type(f"{person.code[:3]}-{person.code[3:]}".lower())
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/unlock" not in url)
    expect(page.get_by_role("button", name="Close record")).to_be_visible()


@pytest.mark.parametrize("javascript", [False, True], ids=["plain", "javascript"])
@pytest.mark.parametrize("policy", POLICIES)
def test_l04_the_journey(chromium: Chromium, demo: Demo, policy: str, javascript: bool, tmp_path: Path) -> None:
    person = demo.seeded(POLICIES[policy])
    with tab(chromium, person.url, javascript=javascript) as opened:
        page = opened.page
        opened.check()
        unlock_by_keyboard(opened, person)

        page.goto(person.url)
        opened.check()
        page.set_viewport_size({"width": 360, "height": 740})
        box = page.locator(".total").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 740
        expect(page.get_by_text("Recorded this period")).to_be_visible()

        page.get_by_role("link", name="Activity").click()
        expect(page.locator("tbody tr")).to_have_count(50)
        opened.check()
        first = page.locator("tbody tr").first.get_attribute("id")
        page.get_by_role("link", name="Older").click()
        expect(page.locator("tbody tr")).to_have_count(50)
        assert page.locator("tbody tr").first.get_attribute("id") != first
        page.get_by_role("link", name="Newer").click()
        assert page.locator("tbody tr").first.get_attribute("id") == first

        reference = f"{period_of(datetime.now(UTC))}-00007"
        page.locator("details.filters summary").click()
        page.get_by_label("Reference").fill(reference)
        page.get_by_role("button", name="Show").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody .reference")).to_have_text(reference)
        expect(page.locator("tfoot")).to_contain_text("1 record, net")
        opened.check()

        page.get_by_role("link", name="All periods").click()
        expect(page.locator("tbody tr")).to_have_count(2)
        opened.check()
        page.get_by_role("link", name="Compare").click()
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("tfoot")).to_contain_text("Difference")
        opened.check()
        page.get_by_role("link", name="Export").click()
        opened.check()
        page.locator("input[value=json]").check()
        with page.expect_download() as downloading:
            page.get_by_role("button", name="Download").click()
        saved = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(saved)
        assert json.loads(saved.read_text())["format"] == "shared-record/export@v1"

        page.get_by_role("button", name="Close record").click()
        page.wait_for_url(person.url)
        assert page.get_by_role("button", name="Close record").count() == 0
        assert opened.wrong == []


def test_l08_going_back_after_closing_shows_nothing_of_the_record(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("acme", 2)
    with tab(chromium, person.url, javascript=True) as opened:
        page = opened.page
        unlock_by_keyboard(opened, person)
        page.goto(f"{person.url}/activity")
        expect(page.locator("tbody tr").first).to_be_visible()
        page.get_by_role("link", name="Access log").click()
        expect(page.get_by_role("heading", name="Access log", level=1)).to_be_visible()
        opened.check()
        page.get_by_role("button", name="Close record").click()
        page.wait_for_url(person.url)
        for _ in range(2):
            page.go_back()
            expect(page.locator("input[type=text]")).to_be_visible()
            assert page.locator("tbody tr").count() == 0


def test_a_wrong_code_says_so_at_the_top_and_at_the_field(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("borealis", 2)
    with tab(chromium, f"{person.url}/unlock?method=access_code") as opened:
        page = opened.page
        page.get_by_label("Access code").fill("AAAAAA")
        page.get_by_role("button", name="Continue").click()
        summary = page.get_by_role("alert")
        expect(summary).to_contain_text("There is a problem")
        expect(summary).to_be_focused()
        field_ = page.get_by_label("Access code")
        expect(field_).to_have_attribute("aria-invalid", "true")
        described = (field_.get_attribute("aria-describedby") or "").split()
        assert "does not match this record" in " ".join(page.locator(f"#{one}").inner_text() for one in described)
        assert page.title().startswith("Error: ")
        summary.get_by_role("link").click()
        expect(field_).to_be_focused()


def test_an_unknown_link_is_a_plain_page_of_ours(chromium: Chromium, demo: Demo) -> None:
    origin = demo.seeded("acme").url.partition("/c/")[0]
    with tab(chromium, f"{origin}/c/{'0' * 26}") as opened:
        opened.wrong.clear()  # the browser itself notes the 404
        opened.check()


SHAPE = """row => {
  const look = element => {
    const style = getComputedStyle(element);
    return [element.tagName, element.className, style.color, style.fontWeight, style.fontStyle, style.fontSize,
      style.backgroundColor, style.textDecorationLine, style.opacity, style.borderBottom].join("|");
  };
  return [row, ...row.querySelectorAll("*")].map(look).join("\\n");
}"""


def test_rows_look_the_same_in_each_of_the_three_states(chromium: Chromium, demo: Demo) -> None:
    slug = "copperline"
    person = demo.new_customer(slug, "browser-rows")
    shapes: dict[str, set[str]] = {}
    with tab(chromium, person.url) as opened:

        def all_three() -> bool:
            demo.emit(slug, person.customer_id, "3")
            opened.page.reload()
            for row in opened.page.locator("table.recent tbody tr").all()[:5]:
                shapes.setdefault(row.locator(".state").inner_text(), set()).add(row.evaluate(SHAPE))
            return set(shapes) == {"recording", "recorded", "verified"}

        wait_for("rows of all three states", all_three, 40)
        opened.check()
    assert len(set.union(*shapes.values())) == 1
