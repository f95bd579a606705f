"""The reconcile page in Chromium: files as books write them, and as nobody should."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Request, expect

from browser.test_pages import Tab, tab
from demo_server import Demo, Person

pytestmark = pytest.mark.xdist_group("demo")

TINY = "0.000000000000000000000001"
RECORDED = {
    "INV-1": "0.1",
    "INV-2": "1234.5",
    "INV-3": "-7.25",
    "INV-4": TINY,
    'a "quoted"; one': "3",
    "Grüße": "2.5",
    "=1+1": "4",
}
SUMMARY = """() => Object.fromEntries(["matched", "different", "yours", "recorded", "all"].map((kind) => [kind,
    ["count", "mine", "theirs"].map((name) => document.getElementById(`${kind}-${name}`)?.textContent ?? "")]))"""


@pytest.fixture(scope="module")
def person(demo: Demo) -> Person:
    person = demo.new_customer("copperline", "browser-reconcile", "10")  # the first one has no reference
    last = [demo.emit("copperline", person.customer_id, amount, referenceId=key) for key, amount in RECORDED.items()]
    demo.wait_verified("copperline", last[-1]["recordId"])
    return person


@contextmanager
def page_of(chromium: Chromium, person: Person) -> Iterator[Tab]:
    with tab(chromium, f"{person.url}/reconcile") as opened:
        expect(opened.page.get_by_label("Your file")).to_be_visible()
        yield opened


def choose(opened: Tab, data: bytes | str, name: str = "mine.csv") -> None:
    content = data.encode() if isinstance(data, str) else data
    opened.page.locator("#file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def table(rows: Sequence[Sequence[str]], delimiter: str = ",", end: str = "\r\n") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(rows)
    return out.getvalue()


def match(opened: Tab, timeout: float = 10_000) -> dict[str, list[str]]:
    """Press the button; return count, own sum and recorded sum of each group."""
    expect(opened.page.locator("#choices")).to_be_visible()
    opened.page.get_by_role("button", name="Match").click()
    expect(opened.page.locator("#outcome-title")).to_be_focused(timeout=timeout)
    found: dict[str, list[str]] = opened.page.evaluate(SUMMARY)
    return found


def result(opened: Tab, folder: Path) -> list[list[str]]:
    with opened.page.expect_download() as downloading:
        opened.page.get_by_role("link", name="Save the result").click()
    downloading.value.save_as(folder / "result.csv")
    return list(csv.reader(io.StringIO((folder / "result.csv").read_text(encoding="utf-8-sig"), newline="")))


ALL = [["Reference", "Amount"], *([key, amount] for key, amount in RECORDED.items())]
"""A file that says the same as the record."""
EVERYTHING = ["7", "1,236.850000000000000000000001"]


def comma(rows: list[list[str]]) -> list[list[str]]:
    return [[key, amount.replace(".", ",")] for key, amount in rows]


SAME = {
    "plain": table(ALL).encode(),
    "own export": (
        b"record_id,sequence_in_period,amount,running_total,reference\r\n"
        + table([["rec_x", str(n), one[1], "99", one[0]] for n, one in enumerate(ALL[1:])]).encode()
        + b"total,7,,1236.85,\r\n"
    ),
    "semicolons, decimal commas, byte order mark": b"\xef\xbb\xbf" + table(comma(ALL), ";").encode(),
    "tabs, line feeds": table(ALL, "\t", "\n").encode(),
    "carriage returns": table(ALL, ",", "\r").encode(),
    "no names, no end of line, empty lines": ("\n\n" + table(ALL[1:], ",", "\n").strip()).encode(),
    "UTF-16": table(ALL).encode("utf-16"),
    "UTF-16, the other end first": b"\xfe\xff" + table(ALL).encode("utf-16-be"),
    "Windows-1252": table(ALL).encode("cp1252"),
    "more columns, amount first": table([[a, "2026-11-22", k, "", "text, with comma"] for k, a in ALL]).encode(),
    "a cell over two lines": table([[*ALL[0], "Note"], *([*one, 'two\r\nlines "here"'] for one in ALL[1:])]).encode(),
    "guarded cells": table([[f"'{k}" if k.startswith("=") else k, a] for k, a in ALL]).encode(),
    "signs as books write them": table(
        [*ALL[:2], ["INV-2", " 1,234.50 "], ["INV-3", "(7.25)"], *ALL[4:]], end="\n"
    ).encode(),
    "minus sign and thin spaces": table(
        [*ALL[:2], ["INV-2", "1\u202f234.5"], ["INV-3", "\u22127.25"], *ALL[4:]]
    ).encode(),
    "two halves": table([*ALL[:2], ["INV-2", "1000.25"], ["INV-2", "234.25"], *ALL[3:]]).encode(),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_matches_however_it_is_written(chromium: Chromium, person: Person, how: str) -> None:
    with page_of(chromium, person) as opened:
        choose(opened, SAME[how])
        found = match(opened)
        assert found["matched"] == [*EVERYTHING, EVERYTHING[1]]
        assert found["recorded"] == ["1", "", "10.00"]  # the one without a reference
        assert (found["different"][0], found["yours"][0]) == ("0", "0")
        assert found["all"] == ["8", EVERYTHING[1], "1,246.850000000000000000000001"]
        assert opened.wrong == []


def test_four_groups_and_nothing_leaves_the_browser(chromium: Chromium, person: Person, tmp_path: Path) -> None:
    rows = [*ALL[:2], ["INV-2", "1234.50"], ["INV-3", "7.25"], ["=cmd|' /C calc'!A0", "1.5"], ["", "9"], ["INV-9", "?"]]
    with page_of(chromium, person) as opened:
        sent: list[Request] = []
        opened.page.on("request", lambda one: sent.append(one))
        choose(opened, table(rows))
        found = match(opened)
        assert found == {
            "matched": ["2", "1,234.60", "1,234.60"],
            "different": ["1", "7.25", "-7.25"],
            "yours": ["2", "10.50", ""],
            "recorded": ["5", "", "19.500000000000000000000001"],
            "all": ["10", "1,252.35", "1,246.850000000000000000000001"],
        }
        expect(opened.page.locator("#different-rows")).to_contain_text("+14.50")
        expect(opened.page.locator("#notes")).to_contain_text("could be read: 1. They are not in the result. Lines: 7.")
        expect(opened.page.locator("#recorded-rows")).to_contain_text("without a reference")
        opened.check()
        saved = result(opened, tmp_path)
        assert {(one.method, one.post_data) for one in sent} == {("GET", None)}
        assert all("INV" not in one.url and "/activity.json?" in one.url for one in sent if "blob:" not in one.url)
    assert saved[0][:3] == ["result", "reference", "your_amount"]
    assert ["matched", "INV-1", "0.1", "0.1", "0", "1", "1"] in saved
    assert ["different", "INV-3", "7.25", "-7.25", "14.5", "1", "1"] in saved
    assert ["recorded", "INV-4", "", TINY, "", "0", "1"] in saved
    assert ["yours", "'=cmd|' /C calc'!A0", "1.5", "", "", "1", "0"] in saved  # X02: no formula
    assert ["recorded", "'=1+1", "", "4", "", "0", "1"] in saved
    assert len(saved) == 11


def test_what_the_file_leaves_open_is_asked(chromium: Chromium, person: Person) -> None:
    with page_of(chromium, person) as opened:
        choose(opened, "Reference;Amount\nINV-2;1,234\nINV-1;2.345\n")
        page = opened.page
        expect(page.get_by_text("The file does not tell")).to_be_visible()
        expect(page.get_by_label("Decimals are written")).to_have_value("")
        page.get_by_role("button", name="Match").click()
        expect(page.locator("#outcome")).to_be_hidden()
        page.get_by_label("Decimals are written").select_option(",")
        assert match(opened)["all"][1] == "2,346.234"
        page.get_by_label("Decimals are written").select_option(".")
        assert match(opened)["all"][1] == "1,236.345"
        page.get_by_label("Amount", exact=True).select_option("0")
        page.get_by_role("button", name="Match").click()
        expect(page.get_by_role("alert")).to_have_text("Choose two different columns for reference and amount.")


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "There is nothing in this file."),
        (b"\r\n \r\n", "There is nothing in this file."),
        (zipped(), "This is not a text file."),
        (b"a,b\0c\n", "This is not a text file."),
        (b"one\ntwo\n", "Only one column was found"),
        (b'Reference,Amount\nINV-1,1\n"INV-2,2\nINV-3,3\n', "A quotation mark that opens on line 3 is never closed."),
        (b"Reference,Amount\n" + b"x" * 70_000 + b",1\n", "too long for a table"),
        (b"," * 2000 + b"\n", "too long for a table"),
    ],
    ids=["empty", "blank", "workbook", "binary", "one column", "open quote", "long cell", "many columns"],
)
def test_a_file_that_is_no_table_is_said_so(chromium: Chromium, person: Person, data: bytes, says: str) -> None:
    with page_of(chromium, person) as opened:
        choose(opened, data)
        expect(opened.page.get_by_role("alert")).to_contain_text(says)
        expect(opened.page.locator("#choices")).to_be_hidden()
        choose(opened, table(ALL))  # and the next one is read
        assert match(opened)["matched"][0] == "7"
        expect(opened.page.locator("#trouble")).to_have_text("")
        assert opened.wrong == []


def test_a_large_file_is_read_in_pieces(chromium: Chromium, person: Person, tmp_path: Path) -> None:
    count = 300_000
    path = tmp_path / "large.csv"
    with path.open("w") as out:
        out.write("Reference,Amount\n")
        out.writelines(f"OWN-{number},0.01\n" for number in range(count))
    with page_of(chromium, person) as opened:
        opened.page.locator("#file").set_input_files(path)
        found = match(opened, 60_000)
        assert found["yours"] == ["300,000", "3,000.00", ""]
        expect(opened.page.locator("#yours-rows tr")).to_have_count(200)
        opened.page.locator("#yours summary").click()
        expect(opened.page.get_by_text("The first 200 of 300,000.")).to_be_visible()
        assert opened.wrong == []


def test_there_is_an_end_to_what_is_kept(chromium: Chromium, person: Person, tmp_path: Path) -> None:
    path = tmp_path / "endless.csv"
    with path.open("w") as out:
        out.write("Reference,Amount\n")
        out.writelines(f"{number:07},1\n" for number in range(1_000_001))
    with page_of(chromium, person) as opened:
        opened.page.locator("#file").set_input_files(path)
        opened.page.get_by_label("Reference", exact=True).select_option("0")
        opened.page.get_by_label("Amount", exact=True).select_option("1")
        opened.page.get_by_role("button", name="Match").click()
        says = "There are more than 1,000,000 references."
        expect(opened.page.get_by_role("alert")).to_contain_text(says, timeout=60_000)
        expect(opened.page.locator("#outcome")).to_be_hidden()


AMOUNTS = [
    ("1,234.50", ".", "1234.5"),
    ("1.234,50", ",", "1234.5"),
    ("1'234.50", ".", "1234.5"),
    (".5", ".", "0.5"),
    ("12.", ".", "12"),
    ("+3", ".", "3"),
    ("12-", ".", "-12"),
    ("-0", ".", "0"),
    ("0" * 30 + "7", ".", "7"),
    ("9" * 20 + "." + "9" * 24, ".", "9" * 20 + "." + "9" * 24),
    ("1,5", ".", None),
    ("1.5", ",", None),
    ("12,34.5", ".", None),
    ("1.2.3", ".", None),
    ("1e3", ".", None),
    ("--1", ".", None),
    ("", ".", None),
    ("-", ".", None),
    (".", ".", None),
    ("1" * 21, ".", None),
    ("0." + "0" * 24 + "1", ".", None),
    ("١٢", ".", None),
    ("12 EUR", ".", None),
]
MARKS = [
    (["12.5", "3"], "."),
    (["12,5", "3"], ","),
    (["1,234.5"], "."),
    (["1.234,5"], ","),
    (["1,234,567"], "."),
    (["1.234.567"], ","),
    (["1,234", "12"], ""),
    (["1.234", "12.50"], "."),
    (["0.125"], "."),
    (["1234.567"], "."),
    (["12", "-7"], "."),
    (["12.5", "12,5"], None),
]


def test_amounts_are_read_exactly_or_not_at_all(chromium: Chromium, person: Person) -> None:
    read = """([cell, mark]) => {
        const found = sharedRecordReconcile.amount(cell, mark);
        return found === null ? null : sharedRecordReconcile.plain(found);
    }"""
    with page_of(chromium, person) as opened:
        for cell, mark, expected in AMOUNTS:
            assert opened.page.evaluate(read, [cell, mark]) == expected, (cell, mark)
        for cells, expected in MARKS:
            assert opened.page.evaluate("cells => sharedRecordReconcile.decimalMark(cells)", cells) == expected, cells


def test_without_javascript_the_command_does_it(chromium: Chromium, demo: Demo, person: Person, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(table([*ALL[:3], ["INV-3", "7.25"], *ALL[4:], ["INV-9", "1"]]))
    with tab(chromium, f"{person.url}/reconcile", javascript=False) as opened:
        page = opened.page
        expect(page.get_by_text("Matching here needs JavaScript.")).to_be_visible()
        expect(page.get_by_label("Your file")).to_be_hidden()
        with page.expect_download() as downloading:
            page.get_by_role("link", name=".csv").click()
        exported = page.locator("#command").inner_text().split()[2]
        downloading.value.save_as(tmp_path / exported)
        script = page.locator("#command").inner_text()
        opened.check()
    command = script.replace("mine.csv reference amount", "mine.csv Reference Amount").replace(
        "python3", sys.executable
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    differing = {line.partition(" ")[0] for line in done.stdout.splitlines()}
    assert differing == {"''", "'INV-3'", "'INV-9'"}
