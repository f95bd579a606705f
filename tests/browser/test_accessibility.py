"""Each customer page of the running service by axe, in each policy; and the ways through it by keyboard alone.

The pages come from the route table: a new one without an entry here fails. Their looks in every theme and state are in
``test_styles.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
from flask import Flask
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from browser.axe import STRUCTURE, findings
from browser.test_pages import POLICIES, Tab, tab, unlock_by_keyboard
from demo_server import Demo, Person
from shared_record.app import SERVING

pytestmark = pytest.mark.xdist_group("demo")

WIDTHS = (360, 1280)
DATA = (".json", ".csv", ".pdf", ".tlog-proof")


Address = Callable[[Tab, str], str]


def below(path: str) -> Address:
    """Return a page at a fixed place below the link."""
    return lambda _opened, link: link + path


def linked(page: str, target: str) -> Address:
    """Return the last page that ``page`` leads to and whose address holds ``target``."""

    def address(opened: Tab, link: str) -> str:
        opened.page.goto(link + page)
        found = opened.page.locator(f'main a[href*="{target}"]').last.get_attribute("href")
        assert found
        return urljoin(link, found)

    return address


def of_a_root(opened: Tab, link: str) -> str:
    return linked("/receipts", "/receipt/")(opened, link).replace("/receipt/", "/verify/")


PAGES: dict[str, Address] = {
    "access_log.show": below("/access-log"),
    "export_jobs.export": below("/export"),
    "one_period.show": linked("/periods", "/periods/"),
    "one_record.show": linked("/activity", "/activity/"),
    "receipt_list.show": below("/receipts"),
    "receipts.receipt": linked("/receipts", "/receipt/"),
    "receipts.verify": of_a_root,
    "reconcile.show": below("/reconcile"),
    "record.activity": below("/activity"),
    "record.compare": below("/compare"),
    "record.landing": below(""),
    "record.periods": below("/periods"),
    "record.verify": below("/verify"),
    "timeline.show": below("/timeline"),
    "unlock.show": below("/unlock"),
}
NO_PAGES = {
    "export_jobs.export_file": "a file",
    "export_jobs.prepared": "for 50,000 records and more: its states are among the samples",
    "unlock.returned": "leads on at once",
}


def routes() -> dict[str, str]:
    """Every address of a branded host that a browser may be led to: endpoint -> rule."""
    app = Flask("routes", static_folder=None)
    for blueprint in SERVING:
        app.register_blueprint(blueprint)
    machine = ("/api/", "/log/", "/static/", "/.well-known/")
    return {
        rule.endpoint: rule.rule
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and not rule.rule.startswith(machine) and not rule.rule.endswith(DATA)
    }


def test_every_page_is_in_the_list() -> None:
    assert set(routes()) == PAGES.keys() | NO_PAGES.keys()


@pytest.mark.parametrize("policy", POLICIES)
def test_axe_finds_nothing_on_any_page_of_any_policy(chromium: Chromium, demo: Demo, policy: str) -> None:
    person, found = demo.seeded(POLICIES[policy]), {}
    with tab(chromium, person.url) as opened:
        found["before the step-up"] = findings(opened.page, STRUCTURE)
        unlock_by_keyboard(opened, person)
        for index, (endpoint, address) in enumerate(PAGES.items()):
            # Pairwise: each page at both widths, each policy at both.
            width = WIDTHS[(index + list(POLICIES).index(policy)) % 2]
            opened.page.set_viewport_size({"width": width, "height": 740})
            response = opened.page.goto(address(opened, person.url))
            assert response is not None
            assert response.ok, endpoint
            found[f"{endpoint} at {width}"] = findings(opened.page, STRUCTURE)
        assert opened.wrong == []
    assert {name: some for name, some in found.items() if some} == {}


# --- By keyboard alone -----------------------------------------------------------------------------------------------


def is_outlined(opened: Tab) -> bool:
    """Tell whether what has the focus shows it."""
    style = "const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement)"
    kind, width = opened.page.evaluate(f"() => {{ {style}; return [outlineStyle, outlineWidth]; }}")
    return kind != "none" and float(width.removesuffix("px")) >= 2


def press(opened: Tab, selector: str, key: str = "Enter") -> None:
    """Go to an element with Tab, see that it shows the focus, and use it."""
    opened.press_tab_to(selector)
    assert is_outlined(opened), selector
    opened.page.keyboard.press(key)


@pytest.mark.parametrize("javascript", [False, True], ids=["plain", "javascript"])
def test_filter_export_and_close_by_keyboard_alone(
    chromium: Chromium, demo: Demo, javascript: bool, tmp_path: Path
) -> None:
    person = demo.new_customer("acme", f"keyboard-{javascript}")
    for number in range(3):
        demo.emit("acme", person.customer_id, "2", referenceId=f"key-{number}")
    with tab(chromium, person.url, javascript=javascript) as opened:
        page = opened.page
        unlock_by_keyboard(opened, person)
        page.goto(f"{person.url}/activity")
        press(opened, "details.filters summary", "Space")
        opened.press_tab_to("#reference")
        page.keyboard.type("key-1")
        page.keyboard.press("Enter")
        page.wait_for_url("**reference=key-1*")
        expect(page.locator("tbody tr")).to_have_count(1)

        press(opened, 'nav a[href$="/export"]')
        page.wait_for_url("**/export")
        opened.press_tab_to("input[type=radio]")
        page.keyboard.press("ArrowDown")
        with page.expect_download() as downloading:
            page.keyboard.press("Enter")
        saved = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(saved)
        assert saved.stat().st_size > 0

        press(opened, "form.session button")
        page.wait_for_url(person.url)
        assert page.get_by_role("button", name="Close record").count() == 0


def test_the_skip_link_is_first_and_leads_past_the_masthead(chromium: Chromium, demo: Demo) -> None:
    with tab(chromium, demo.seeded("copperline").url) as opened:
        opened.page.keyboard.press("Tab")
        expect(opened.page.get_by_role("link", name="Skip to content")).to_be_focused()
        assert is_outlined(opened)
        opened.page.keyboard.press("Enter")
        assert opened.page.url.endswith("#content")
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_a_page_that_asks_for_too_much_is_told_where(chromium: Chromium, demo: Demo) -> None:
    """The error states of forms, by axe."""
    person: Person = demo.seeded("borealis", 1)
    with tab(chromium, f"{person.url}/unlock?method=access_code") as opened:
        opened.press_tab_to("input[type=text]")
        opened.page.keyboard.type("AAAAAA")
        opened.page.keyboard.press("Enter")
        expect(opened.page.get_by_role("alert")).to_be_focused()
        assert findings(opened.page, STRUCTURE) == []
