"""The PDF of a receipt: what hostile texts do in it, what it declares, and what happens when it cannot be made."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pypdf import PdfReader

from pdf_files import assert_passive, canary, hostile, words
from shared_record.errors import UnavailableError
from shared_record.exports.receipt_pdf import PaperReceipt, write_receipt_pdf
from shared_record.exports.typeset import typeset

URL = "https://usage.acme.example/receipt/chk_00000000000000000000000000"
ISSUED = datetime(2026, 11, 22, 9, 41, tzinfo=UTC)
PAPER = PaperReceipt(
    vendor="Acme",
    heading="Receipt for October 2026",
    label="Recorded in this period",
    total=("12.25", "API credits"),
    boundaries="1 to 31 October 2026 (UTC).",
    records="2 records",
    state="Recorded. The next checkpoint covers it.",
    facts=(("Customer", "Beta", False), ("Receipt", "chk_" + "0" * 26, True)),
    url=URL,
    later=None,
    issued=ISSUED,
)
RECORD = b'{"a":1}'


def test_the_page_is_tagged_text_and_declares_its_standards() -> None:
    pdf = write_receipt_pdf(replace(PAPER, later=("chk_" + "1" * 26, URL[:-1] + "1")), RECORD)
    reader = PdfReader(io.BytesIO(pdf))
    assert len(reader.pages) == 1
    assert (reader.metadata.title, reader.root_object["/Lang"]) == ("Receipt for October 2026 – Acme", "en")
    assert reader.root_object["/MarkInfo"]["/Marked"]
    assert reader.root_object["/ViewerPreferences"]["/DisplayDocTitle"]
    declared = reader.root_object["/Metadata"].get_object().get_data().decode()
    assert "<pdfaid:part>3<" in declared
    assert "<pdfaid:conformance>A<" in declared
    assert "<pdfuaid:part>1<" in declared
    assert dict(reader.attachments) == {"record.json": [RECORD]}
    for text in ("12.25 API credits", "2 records", "A later receipt exists: chk_1", "What a check proves", URL):
        assert text in words(pdf)


def test_the_same_receipt_gives_the_same_bytes() -> None:
    assert write_receipt_pdf(PAPER, RECORD) == write_receipt_pdf(PAPER, RECORD)


@pytest.mark.parametrize(
    "name", ["שלום", "شركة", "漢字", "\U0001f600", "\ue000", "\x00\x07", "\u202eevil\u202c", "a" * 200]
)
def test_any_name_can_be_printed(name: str) -> None:
    reader = PdfReader(io.BytesIO(write_receipt_pdf(replace(PAPER, vendor=name), RECORD)))
    assert reader.root_object["/MarkInfo"]["/Marked"]
    assert dict(reader.attachments) == {"record.json": [RECORD]}


def test_x06_hostile_texts_stay_text(soak: bool) -> None:
    with canary() as address:
        for text in hostile(250 if soak else 20, address):
            paper = replace(
                PAPER, vendor=text, total=("1", text), facts=(("Customer", text, False), ("Receipt", text, True))
            )
            reader = PdfReader(io.BytesIO(write_receipt_pdf(paper, RECORD)))
            assert dict(reader.attachments) == {"record.json": [RECORD]}
            assert_passive(reader, {URL})


def test_x06_markup_is_printed_as_it_was_written() -> None:
    assert '#read("/etc/passwd") *b*' in words(
        write_receipt_pdf(replace(PAPER, vendor='#read("/etc/passwd") *b*'), b"{}")
    )


@pytest.mark.parametrize(
    ("template", "seconds"),
    [
        ("#let n = 0\n#while true { n = n + 1 }", 1.0),
        ('#let a = "x" * 100000000\n#let b = range(40).map(i => a + str(i))\n#b.len()', 20.0),
        ('#read("/etc/hostname")', 20.0),
        ("#panic()", 20.0),
    ],
    ids=["time", "memory", "files", "error"],
)
def test_x06_a_document_that_takes_too_much_ends_alone(template: str, seconds: float) -> None:
    with pytest.raises(UnavailableError) as caught:
        typeset(template, {}, ISSUED, seconds=seconds)
    assert caught.value.code == "PDF_UNAVAILABLE"
