"""What every page's script does in Chromium: the back button, paper, its weight, and that nothing breaks the policy."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Response, expect

from browser.test_pages import Tab, tab, unlock_by_keyboard
from chromium import EXECUTABLE
from demo_server import Demo, Person
from shared_record.clock import period_of

pytestmark = pytest.mark.xdist_group("demo")

MOST_SCRIPT = 15 * 1024
MOST_VERIFIER = 40 * 1024
MILLIMETRE = 96 / 25.4
PRINTED = ("", "/periods/{period}", "/compare", "{receipt}")


def month() -> str:
    return period_of(datetime.now(UTC))


# --- Weight and policy -----------------------------------------------------------------------------------------------


def pages_of(opened: Tab, person: Person) -> Iterator[str]:
    """Open every kind of page of a record, one after the other; give the address of each."""
    page, base = opened.page, person.url
    paths = ["", "/activity", "/periods", f"/periods/{month()}", "/compare", "/reconcile", "/export", "/timeline"]
    paths += ["/receipts", "/verify", "/access-log", "/unlock", "/nothing"]
    for path in paths:
        yield f"{base}{path}"
    page.goto(f"{base}/activity")
    yield page.locator("tbody a").first.evaluate("link => link.href")
    page.goto(f"{base}/receipts")
    yield page.locator("tbody a[href^='/receipt/']").first.evaluate("link => link.href")


def test_t08_every_page_is_light_and_keeps_the_policy(chromium: Chromium, demo: Demo) -> None:
    person, seen = demo.seeded("acme", 2), 0
    with tab(chromium, person.url) as opened:
        unlock_by_keyboard(opened, person)
        scripts: dict[str, int] = {}

        def weigh(response: Response) -> None:
            if response.request.resource_type == "script":
                scripts[urlsplit(response.url).path.rpartition("/")[2]] = len(gzip.compress(response.body()))

        opened.page.on("response", weigh)
        for url in pages_of(opened, person):
            scripts.clear()
            opened.page.goto(url)
            opened.page.wait_for_load_state("networkidle")
            assert scripts.pop("verify.js", 0) <= MOST_VERIFIER, url
            assert sum(scripts.values()) <= MOST_SCRIPT, (url, scripts)
            assert [one for one in opened.wrong if "404" not in one] == [], url
            seen += 1
    assert seen == 15


# --- The back button -------------------------------------------------------------------------------------------------


@pytest.fixture
def keeping(chromium: Chromium) -> Iterator[Chromium]:
    """A browser that keeps left pages in memory, as people's browsers do and the others here do not."""
    browser = chromium.browser_type.launch(
        executable_path=EXECUTABLE,
        args=["--no-sandbox", "--enable-features=CacheControlNoStoreEnterBackForwardCache"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


def test_l08_a_closed_record_does_not_come_back_from_memory(keeping: Chromium, demo: Demo) -> None:
    person = demo.seeded("acme", 1)
    with tab(keeping, person.url) as opened:
        page = opened.page
        unlock_by_keyboard(opened, person)
        for path in ("/activity", "/periods"):
            page.goto(f"{person.url}{path}")
            expect(page.locator("tbody tr").first).to_be_visible()
        elsewhere = page.context.new_page()
        elsewhere.goto(person.url)
        elsewhere.get_by_role("button", name="Close record").click()
        elsewhere.wait_for_url(person.url)
        page.goto(f"{person.url}?left")
        for _ in range(2):
            page.go_back()
            expect(page.get_by_label("Access code")).to_be_visible()
            assert page.locator("tbody tr").count() == 0


def test_l08_a_page_that_was_kept_is_hidden_and_asked_for_anew(chromium: Chromium, demo: Demo) -> None:
    """The two events that a browser sends to such a page, where it cannot be made to keep one."""
    person = demo.seeded("acme", 1)
    with tab(chromium, person.url) as opened:
        page = opened.page
        unlock_by_keyboard(opened, person)
        page.goto(f"{person.url}/activity")
        page.evaluate("() => { globalThis.kept = true; dispatchEvent(new PageTransitionEvent('pagehide')); }")
        expect(page.locator("main")).to_be_hidden()
        with page.expect_navigation():
            page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        expect(page.locator("main")).to_be_visible()
        assert page.evaluate("() => globalThis.kept") is None


# --- Paper -----------------------------------------------------------------------------------------------------------


def addresses(opened: Tab, person: Person) -> list[str]:
    origin = person.url.partition("/c/")[0]
    opened.page.goto(f"{person.url}/receipts")
    receipt = opened.page.locator("tbody a[href^='/receipt/']").first.get_attribute("href") or ""
    return [
        f"{origin}{receipt}" if "receipt" in path else f"{person.url}{path.format(period=month())}" for path in PRINTED
    ]


@pytest.mark.parametrize("javascript", [False, True], ids=["plain", "javascript"])
@pytest.mark.parametrize("slug", ["copperline", "borealis"])
def test_paper_says_what_it_is(chromium: Chromium, demo: Demo, slug: str, javascript: bool) -> None:
    person = demo.seeded(slug, 1)
    with tab(chromium, person.url, javascript=javascript) as opened:
        page = opened.page
        unlock_by_keyboard(opened, person)
        for url in addresses(opened, person):
            page.emulate_media(media="screen", color_scheme="dark")
            page.goto(url)
            expect(page.locator("#sheet")).to_be_hidden()
            page.emulate_media(media="print", color_scheme="dark")
            sheet = page.locator("#sheet")
            expect(sheet).to_be_visible()
            if javascript:
                page.evaluate("dispatchEvent(new Event('beforeprint'))")
            begins = "Printed " if javascript else "This page was made on "
            assert re.match(begins + r"\d{1,2} \w+ \d{4}, \d\d:\d\d [A-Z]+\. Records as of ", sheet.inner_text())
            expect(sheet.locator(".code")).to_have_text(url if "/receipt/" in url else person.url)
            assert person.code not in page.content()
            for gone in ("nav", "form", ".languages", ".updates", "button"):
                assert not any(one.is_visible() for one in page.locator(gone).all()), gone
            colours = page.evaluate("(() => { const s = getComputedStyle(document.body); return [s.color]; })()")
            assert colours == ["rgb(0, 0, 0)"]
            code = sheet.locator("svg")
            modules = float((code.get_attribute("viewBox") or "").split()[2])
            box = code.bounding_box()
            assert box is not None
            assert box["width"] * (modules - 8) / modules >= 20 * MILLIMETRE  # the code without its margin
            assert re.match(r"M4 4\.5h7", code.locator("path").get_attribute("d") or "")  # four modules of margin
        assert opened.wrong == []


def test_links_are_spelled_out_and_rows_stay_whole_on_paper(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("copperline", 1)
    with tab(chromium, f"{person.url}/periods/{month()}") as opened:
        page = opened.page
        page.emulate_media(media="print")
        after = page.locator("main p a[href]").first.evaluate("link => getComputedStyle(link, '::after').content")
        assert urlsplit(person.url).path in after
        row = page.locator("tbody tr").first
        assert row.evaluate("row => getComputedStyle(row).breakInside") == "avoid"
        head = page.locator("thead").first
        assert head.evaluate("head => getComputedStyle(head).display") == "table-header-group"
