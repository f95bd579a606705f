"""The page that checks what the server shows now, in Chromium: proved, remembered, compared, and a fork found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from browser.test_pages import Tab, tab, unlock_by_keyboard
from demo_server import Demo, Person

pytestmark = pytest.mark.xdist_group("demo")

MEMORY = "Object.entries(localStorage).filter(([name]) => name.startsWith('shared-record:'))"
CHANGE = "([name, value]) => localStorage.setItem(name, value)"
PART = """async () => {
    const text = async (url) => (await fetch(url)).text();
    const proof = await text(location.pathname.replace("/verify", "/proof.tlog-proof?from=1&to=2"));
    const policy = await text(document.getElementById("live").dataset.log + "/policy");
    return sharedRecord.check(new Blob([proof]), sharedRecord.policy(policy));
}"""
MATCHES, DIFFERS, UNKNOWN = "✓ It matches", "✗ It does not match", "? It could not be checked"


@contextmanager
def verify_page(chromium: Chromium, person: Person) -> Iterator[Tab]:
    """Open a customer's record and go to the page that checks it, and let the check end."""
    with tab(chromium, person.url) as opened:
        unlock_by_keyboard(opened, person)
        opened.page.goto(f"{person.url}/verify")
        finished(opened)
        yield opened


def finished(opened: Tab) -> str:
    """Wait for the end of the check; return what is said."""
    expect(opened.page.get_by_role("button", name="Check again")).to_be_visible()
    return opened.page.locator("#live").inner_text()


def memory(opened: Tab) -> tuple[str, dict[str, Any]]:
    ((name, text),) = opened.page.evaluate(MEMORY)
    return name, json.loads(text)


def again(opened: Tab) -> str:
    opened.page.reload()
    return finished(opened)


def verified(demo: Demo, name: str) -> Person:
    """A customer with two covered deltas."""
    person = demo.new_customer("acme", name, "5")
    demo.wait_verified("acme", demo.emit("acme", name, "7.25")["recordId"])
    return person


def test_what_is_shown_is_proved_and_remembered(chromium: Chromium, demo: Demo) -> None:
    person = verified(demo, "browser-live")
    with verify_page(chromium, person) as opened:
        text = finished(opened)
        assert MATCHES in text
        assert "2 records of" in text
        assert "with a total of 12.25" in text
        assert "The record page shows the same count and total." in text
        assert "This browser now remembers this checkpoint." in text
        assert "Compare its fingerprint" in text
        opened.check()
        name, first = memory(opened)
        assert name.startswith("shared-record:/log/t_")
        assert set(first) == {"origin", "size", "root", "note", "seen", "records"}
        ((_, state),) = first["records"].items()
        assert state["size"] == 2
        assert urlsplit(person.url).path.rpartition("/")[2] not in json.dumps(first)

        demo.wait_verified("acme", demo.emit("acme", person.customer_id, "-0.25")["recordId"])
        text = again(opened)
        assert MATCHES in text
        assert "Everything this server showed you on" in text
        assert "is still in the log." in text
        assert "3 records of" in text
        _, second = memory(opened)
        assert second["size"] > first["size"]
        assert [state["size"] for state in second["records"].values()] == [3]
        opened.check()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"root": "A" * 43 + "="}, "is not part of the log that is shown now"),
        ({"size": 10**9}, "checkpoints, and now it has only"),
        ({"origin": "localhost/log/other"}, "and now it shows another one"),
    ],
)
def test_a_fork_does_not_match_and_stays_remembered(
    chromium: Chromium, demo: Demo, change: dict[str, Any], says: str
) -> None:
    person = verified(demo, f"browser-fork-{next(iter(change))}")
    with verify_page(chromium, person) as opened:
        name, before = memory(opened)
        demo.wait_verified("acme", demo.emit("acme", person.customer_id, "1")["recordId"])
        forked = json.dumps(before | change)
        opened.page.evaluate(CHANGE, [name, forked])
        text = again(opened)
        assert DIFFERS in text
        assert says in text
        assert "does not match what it shows now" in text
        assert memory(opened)[1] == json.loads(forked)
        opened.wrong[:] = [line for line in opened.wrong if "409" not in line]  # the browser itself notes the answer
        opened.check()
        opened.page.get_by_text("What this browser remembers", exact=True).click()
        expect(opened.page.locator("#live-notes")).to_contain_text("Shown on")
        opened.page.get_by_role("button", name="Forget").click()
        expect(opened.page.locator("#live-result")).to_have_text(MATCHES)
        assert memory(opened)[1]["origin"] == before["origin"]


def test_a_rewritten_record_does_not_match(chromium: Chromium, demo: Demo) -> None:
    person = verified(demo, "browser-rewritten")
    with verify_page(chromium, person) as opened:
        name, before = memory(opened)
        ((record, state),) = before["records"].items()
        forged = before | {"records": {record: state | {"root": "B" * 42 + "A="}}}
        opened.page.evaluate(CHANGE, [name, json.dumps(forged)])
        text = again(opened)
        assert DIFFERS in text
        assert "the beginning of the record of" in text


def test_a_memory_that_cannot_be_read_is_said_so(chromium: Chromium, demo: Demo) -> None:
    person = verified(demo, "browser-garbled")
    with verify_page(chromium, person) as opened:
        name, _ = memory(opened)
        opened.page.evaluate(CHANGE, [name, "{"])
        text = again(opened)
        assert UNKNOWN in text
        assert "cannot be read" in text


def test_a_server_that_lies_about_a_figure_does_not_match(chromium: Chromium, demo: Demo) -> None:
    person = verified(demo, "browser-lie")
    with verify_page(chromium, person) as opened:
        page = opened.page
        shown = page.evaluate("async () => (await fetch(document.querySelector('#live').dataset.figures)).json()")
        shown["data"]["total"] = "13.25"
        page.route("**/c/*.json", lambda route: route.fulfill(json=shown))
        text = again(opened)
        assert DIFFERS in text
        assert "the record page shows a total of 13.25" in text
        page.unroute("**/c/*.json")
        page.route("**/proof?*", lambda route: route.abort())
        text = again(opened)
        assert UNKNOWN in text
        assert "the server could not be reached" in text
        opened.wrong.clear()


def test_without_a_session_the_log_is_checked(chromium: Chromium, demo: Demo) -> None:
    person = verified(demo, "browser-outer")
    with tab(chromium, f"{person.url}/verify") as opened:
        text = finished(opened)
        assert MATCHES in text
        assert "12.25" not in text
        assert "open the record" in text
        opened.check()
        assert memory(opened)[1]["records"] == {}
        assert "is still in the log." in again(opened)


def test_without_javascript_it_says_what_to_use(chromium: Chromium, demo: Demo, tmp_path: Path) -> None:
    person = verified(demo, "browser-plain")
    with tab(chromium, person.url, javascript=False) as opened:
        unlock_by_keyboard(opened, person)
        page = opened.page
        page.goto(f"{person.url}/verify")
        expect(page.get_by_text("This check runs in the browser and needs JavaScript.")).to_be_visible()
        assert page.get_by_role("button", name="Check again").count() == 0
        for name in ("proof-", "log.policy", "verify.py"):
            with page.expect_download() as downloading:
                page.locator("#tools").get_by_role("link", name=name).first.click()
            downloading.value.save_as(tmp_path / downloading.value.suggested_filename)
        opened.check()
    (proof,) = tmp_path.glob("proof-*.tlog-proof")
    done = demo.cli("verify", "--policy", str(tmp_path / "log.policy"), str(proof))
    assert "2 rows, 12.25" in done.stdout


def test_a_file_is_checked_there_too(chromium: Chromium, demo: Demo, tmp_path: Path) -> None:
    person = verified(demo, "browser-file")
    with verify_page(chromium, person) as opened:
        page = opened.page
        for name in ("proof-", "log.policy"):
            with page.expect_download() as downloading:
                page.locator("#tools").get_by_role("link", name=name).first.click()
            downloading.value.save_as(tmp_path / downloading.value.suggested_filename)
        page.get_by_label("File to check").set_input_files(list(tmp_path.iterdir()))
        expect(page.locator("#result")).to_have_text(MATCHES)
        expect(page.locator("#result")).to_be_focused()
        opened.check()
        assert "The key was taken" not in page.locator("#key").inner_text()
        page.get_by_label("File to check").set_input_files(next(tmp_path.glob("proof-*")))
        expect(page.locator("#key")).to_contain_text("The key was taken from this server.")
        expect(page.locator("#result")).to_have_text(MATCHES)
        found = page.evaluate(PART)
        assert (found["result"], found["rows"], found["total"]) == ("matches", 1, "7.25")
        assert not [line for line in found["notChecked"] if "proof root" in line]


def test_the_check_is_reached_from_the_first_page(chromium: Chromium, demo: Demo) -> None:
    person = verified(demo, "browser-way")
    with tab(chromium, person.url) as opened:
        opened.page.get_by_text("What this means").click()
        opened.page.get_by_role("link", name="Check it").click()
        opened.page.wait_for_url("**/verify")
        assert MATCHES in finished(opened)


def test_a_past_period_is_checked_from_its_own_page(chromium: Chromium, demo: Demo) -> None:
    person = demo.seeded("acme")
    with tab(chromium, person.url) as opened:
        unlock_by_keyboard(opened, person)
        page = opened.page
        page.goto(f"{person.url}/periods")
        past = page.locator("tbody tr").nth(1).get_by_role("link").first
        month = past.inner_text()
        past.click()
        page.get_by_role("link", name="Check it").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Check this record: {month}")
        text = finished(opened)
        assert MATCHES in text
        assert f"records of {month} with a total of" in text
        assert "The record page shows the same count and total." in text
        opened.check()
