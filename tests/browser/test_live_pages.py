"""Pages that look for changes by themselves, in Chromium with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Response, expect

from browser.test_pages import Tab, tab, unlock_by_keyboard
from demo_server import Demo, Person

pytestmark = pytest.mark.xdist_group("demo")

EVERY = 46_000
"""Milliseconds after which a page has looked again."""
TELLS = """() => {
    globalThis.told = [];
    new MutationObserver(() => told.push(document.getElementById("updates-status").textContent))
        .observe(document.getElementById("updates-status"), { childList: true });
}"""
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
SELECT = "() => getSelection().selectAllChildren(document.querySelector('.total'))"


@dataclass
class Live:
    """A page that stays the same document while its content changes, and what it asked for by itself."""

    tab: Tab
    answers: list[int] = field(default_factory=list)

    def pass_time(self, milliseconds: int = EVERY) -> None:
        self.tab.page.clock.fast_forward(milliseconds)

    def look(self) -> int:
        """Let the page look again; return the status of the answer."""
        before = len(self.answers)
        self.pass_time()
        self.tab.page.wait_for_function("() => true")
        deadline = 50
        while len(self.answers) == before and deadline:
            self.tab.page.wait_for_timeout(100)
            deadline -= 1
        assert len(self.answers) == before + 1, self.answers
        self.tab.page.wait_for_timeout(50)
        return self.answers[-1]

    def rests(self) -> None:
        """See that the page asks for nothing."""
        before = list(self.answers)
        self.pass_time(10 * EVERY)
        self.tab.page.wait_for_timeout(300)
        assert self.answers == before

    @property
    def status(self) -> str:
        return self.tab.page.locator("#updates-status").inner_text()


@contextmanager
def live(chromium: Chromium, person: Person, path: str = "", *, unlock: bool = False) -> Iterator[Live]:
    with tab(chromium, person.url) as opened:
        page = opened.page
        if unlock:
            unlock_by_keyboard(opened, person)
        page.clock.install()
        page.goto(f"{person.url}{path}")
        expect(page.locator("#updates")).to_be_visible()
        page.evaluate("() => { globalThis.same = true; }")
        found = Live(opened)

        def answered(response: Response) -> None:
            if response.request.resource_type == "xhr":
                found.answers.append(response.status)

        page.on("response", answered)
        yield found
        assert page.evaluate("() => globalThis.same") is True  # never loaded anew
        assert opened.wrong == []


def test_a_page_shows_what_was_recorded_meanwhile(chromium: Chromium, demo: Demo) -> None:
    person = demo.new_customer("acme", "browser-refresh", "5")
    demo.wait_verified("acme", demo.emit("acme", person.customer_id, "1")["recordId"])
    with live(chromium, person) as page:
        assert page.look() == 304
        assert page.status == ""
        expect(page.tab.page.locator("#updates-line")).to_contain_text("Last looked for changes at ")
        demo.wait_verified("acme", demo.emit("acme", person.customer_id, "6.5")["recordId"])
        page.tab.page.locator("summary").click()
        assert page.look() == 200
        expect(page.tab.page.locator(".figure")).to_have_text("12.50")
        assert page.status.startswith("Updated at ")
        expect(page.tab.page.locator("#content details")).to_have_attribute("open", "")
        assert page.look() == 304
        page.tab.check()


def test_one_announcement_a_minute_at_most(chromium: Chromium, demo: Demo) -> None:
    person = demo.new_customer("acme", "browser-told", "5")
    with live(chromium, person) as page:
        page.tab.page.evaluate(TELLS)
        for amount in ("1", "2"):
            demo.wait_verified("acme", demo.emit("acme", person.customer_id, amount)["recordId"])
            assert page.look() == 200
        expect(page.tab.page.locator(".figure")).to_have_text("8")
        assert len(page.tab.page.evaluate("told")) == 1  # 46 seconds later is too early for another one
        assert page.look() == 304
        assert len(page.tab.page.evaluate("told")) == 2  # made up for


def test_updates_can_be_paused_and_stay_so(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("copperline", 1)
    with live(chromium, person) as page:
        page.tab.press_tab_to("#updates-pause")
        page.tab.page.keyboard.press("Enter")
        expect(page.tab.page.get_by_role("button", name="Resume updates")).to_be_focused()
        page.rests()
        page.tab.page.reload()
        page.tab.page.evaluate("() => { globalThis.same = true; }")
        expect(page.tab.page.get_by_text("Updates are paused.")).to_be_visible()
        page.rests()
        page.tab.page.get_by_role("button", name="Resume updates").click()
        page.tab.page.clock.run_for(1000)
        page.tab.page.wait_for_timeout(500)
        assert len(page.answers) == 1
        page.tab.check()


def test_a_hidden_tab_asks_for_nothing(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("copperline", 1)
    with live(chromium, person) as page:
        page.tab.page.evaluate(HIDE, True)
        page.rests()
        page.tab.page.evaluate(HIDE, False)
        page.tab.page.clock.run_for(1000)
        page.tab.page.wait_for_timeout(500)
        assert len(page.answers) == 1


def test_whoever_types_or_marks_something_is_not_disturbed(chromium: Chromium, demo: Demo) -> None:
    person = demo.new_customer("copperline", "browser-busy", "5")
    with live(chromium, person, "/activity") as page:
        page.tab.page.locator("details.filters summary").click()
        page.tab.page.get_by_label("Reference").fill("half a ref")
        demo.emit("copperline", person.customer_id, "6")
        assert page.look() == 200
        expect(page.tab.page.get_by_label("Reference")).to_have_value("half a ref")
        expect(page.tab.page.locator("tbody tr")).to_have_count(1)
    with live(chromium, person) as page:
        page.tab.page.evaluate(SELECT)
        demo.emit("copperline", person.customer_id, "7")
        assert page.look() == 200
        expect(page.tab.page.locator(".figure")).to_have_text("11")
        page.tab.page.evaluate("getSelection().removeAllRanges()")
        assert page.look() == 200
        expect(page.tab.page.locator(".figure")).to_have_text("18")


def test_l08_a_page_whose_session_ended_says_so_and_shows_nothing_more(chromium: Chromium, demo: Demo) -> None:
    person = demo.new_customer("acme", "browser-ended", "5")
    with live(chromium, person, "/activity", unlock=True) as page:
        expect(page.tab.page.locator("tbody tr")).to_have_count(1)
        elsewhere = page.tab.page.context.new_page()
        elsewhere.goto(person.url)
        elsewhere.get_by_role("button", name="Close record").click()
        elsewhere.wait_for_url(person.url)
        elsewhere.close()
        page.pass_time()
        expect(page.tab.page.locator("#updates-status")).to_have_text("This page is not open in this browser any more.")
        assert page.tab.page.locator("tbody tr, h1, .session").count() == 0
        page.rests()
        again = page.tab.page.get_by_role("link", name="Open it again")
        assert urlsplit(again.evaluate("link => link.href")).path.endswith("/activity")


def test_only_the_newest_page_of_the_open_period_is_live(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("copperline")
    with tab(chromium, f"{person.url}/activity") as opened:
        page = opened.page
        expect(page.get_by_role("button", name="Pause updates")).to_be_visible()
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("link", name="Newer")).to_be_visible()
        assert page.get_by_role("button", name="Pause updates").count() == 0
        page.goto(f"{person.url}/periods")
        assert page.get_by_role("button", name="Pause updates").count() == 0


def test_without_javascript_there_is_nothing_to_pause(chromium: Chromium, demo: Demo) -> None:
    with tab(chromium, demo.seeded("copperline").url, javascript=False) as opened:
        assert opened.page.get_by_role("button", name="Pause updates").count() == 0
        assert "looks for changes" not in opened.page.locator("main").inner_text()
