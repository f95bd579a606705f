"""PDF statements: what they state and attach, in which look and language, and what hostile texts do in them."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pypdf import PdfReader
from shared_record_export_pdf import MOST_ROWS, Pdf, register_export_formats

from export_rows import FACTS, HOSTILE_TEXTS, row
from pdf_files import assert_passive, canary, declares_archival, hostile, markup, objects, words
from shared_record.exports import statement
from shared_record.exports.look import FONTS, Look
from shared_record.exports.statement import StatementFacts, statement_data, write_statement
from shared_record.exports.wording import amount, breakable, in_column, legible
from shared_record.languages import LANGUAGES, speak
from shared_record.plugin import ExportOptions, ExportRow, RecordFacts, RecordProof

URL = "https://usage.acme.example/c/" + "0" * 26
PROOF = RecordProof(
    size=2,
    root=bytes(range(32)),
    head="{}",
    slot_index=0,
    slot_count=1,
    slot_path=(),
    epoch="{}",
    log_index=0,
    log_size=1_234,
    log_path=(),
    checkpoint="app.example/log/t1\n1234\n\n",
    vkeys=(),
)


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    yield
    speak("en")


def record(size: int, total: str = "12.25", **fields: Any) -> RecordFacts:
    return replace(FACTS, size=size, total=total, unit="API credits", **fields)


def about(facts: RecordFacts, **fields: Any) -> StatementFacts:
    return StatementFacts(facts, csv="usage-2026-11-01234567.csv", url=URL, **fields)


def three() -> list[ExportRow]:
    return [
        row(1, "5", "5", reason="Chat completion", reference="job-1", state="verified"),
        row(2, "-0.125", "4.875", reason="Correction", adjusts="rec_1", state="verified"),
        row(3, "7.375", "12.25"),
    ]


def test_it_states_the_period_and_attaches_the_same_as_data() -> None:
    facts = record(3, covered_size=2, covered_total="4.875", proof=PROOF, zone="Europe/Berlin")
    pdf = write_statement(about(facts, customer="Beta", through=datetime(2026, 11, 21, 9, 41, tzinfo=UTC)), three())
    reader = PdfReader(io.BytesIO(pdf))
    assert (reader.metadata.title, reader.root_object["/Lang"]) == ("Statement for November 2026 – Acme", "en")
    assert reader.root_object["/MarkInfo"]["/Marked"]
    assert declares_archival(reader)
    text = words(pdf)
    for wanted in (
        "12.25 API credits",
        "1 to 30 November 2026 (UTC).",
        "3 records",
        "Verified through 21 November 2026, 10:41 CET.",
        "The checkpoint covers 2 of 3 records, 4.875 API credits.",
        "Customer Beta",
        "Customer reference s0-0123456789abcdef",
        "Fingerprint 000G-40R4",
        "Proof root over 2 records 00010203 04050607",
        "app.example/log/t1 1,234",
        "Recorded (Europe/Berlin)",
        "1 22 Nov 2026, 13:00 Chat completion job-1 verified 5.00 5.00",
        "Adjusts rec_1 verified -0.125 4.875",
        "All 3 records are listed.",
        URL,
    ):
        assert wanted in text
    assert list(reader.attachments) == ["record.json"]
    attached = json.loads(reader.attachments["record.json"][0])
    assert attached == json.loads(json.dumps(statement_data(facts, three())))
    assert (attached["total"], attached["size"], attached["rowsLeftOut"]) == ("12.25", 3, 0)
    assert attached["covered"] == {"size": 2, "total": "4.875"}
    assert (attached["fingerprint"], attached["checkpoint"]) == ("000G-40R4", PROOF.checkpoint)
    assert_passive(reader, {URL})


def test_before_a_checkpoint_and_without_rows_it_says_so() -> None:
    pdf = write_statement(replace(about(record(0, "0"), test=True), url=""), [])
    text = words(pdf)
    assert "No checkpoint yet." in text
    assert "Test data" in text
    assert "Records" not in text
    assert "Fingerprint 0" not in text
    assert_passive(PdfReader(io.BytesIO(pdf)), set())


def test_all_rows_are_counted_and_at_most_1_500_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_ROWS == 1_500
    monkeypatch.setattr("shared_record_export_pdf.MOST_ROWS", 20)
    for size, end in (
        (20, "All 20 records are listed."),
        (
            1_021,
            "The first 20 of 1,021 records are listed; 1,001 are left out."
            " The file usage-2026-11-01234567.csv holds them all.",
        ),
    ):
        given: list[int] = []
        facts = about(record(size, str(size)))

        def make(rows: Any, facts: StatementFacts = facts, given: list[int] = given) -> bytes:
            given.append(len(rows))
            return write_statement(facts, rows)

        out = io.BytesIO()
        rows = (row(n, "1", str(n)) for n in range(1, size + 1))
        summary = Pdf().write(rows, out, ExportOptions(facts.record, statement=make))
        assert (summary.rows, summary.total, given) == (size, str(size), [20])
        assert end in words(out.getvalue())


def test_the_most_rows_of_the_longest_texts_fit_in_memory_and_time() -> None:
    long = row(1, "-12345678901234567890.123456789012345678901234", "-" + "9" * 20, reason="x" * 500, adjusts="r" * 30)
    pdf = write_statement(about(record(5_000)), [long] * MOST_ROWS)
    attached = json.loads(PdfReader(io.BytesIO(pdf)).attachments["record.json"][0])
    assert 500 < len(attached["rows"]) < MOST_ROWS
    assert attached["rowsLeftOut"] == 5_000 - len(attached["rows"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_speaks_the_language_in_use(language: str) -> None:
    speak(language)
    pdf = write_statement(about(record(3)), three())
    reader = PdfReader(io.BytesIO(pdf))
    assert reader.root_object["/Lang"] == language
    assert declares_archival(reader)
    text = words(pdf)
    assert ("Statement for" in text) == (language == "en")
    # Figures read from left to right, sign first, also in a sentence from right to left.
    assert {"en": "-0.125", "de": "-0,125", "es": "-0,125", "ar": "-0.125"}[language] in text
    assert "s0-0123456789abcdef" in text


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80\x20\x20" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_it_follows_the_theme() -> None:
    facts = about(record(3), look=Look(FONTS["mono"], accent="#8c1c1c", logo=png(60, 20)))
    reader = PdfReader(io.BytesIO(write_statement(facts, three())))
    first = reader.pages[0]
    fonts = {str(font.get_object()["/BaseFont"]) for font in first["/Resources"]["/Font"].values()}
    assert fonts
    assert all("DejaVuSansMono" in font for font in fonts)
    pictures = [one for one in objects(reader) if one.get("/Subtype") == "/Image"]
    assert [(one["/Width"], one["/Height"]) for one in pictures] == [(60, 20)]
    used = re.findall(
        r"(0\.\d+) (0\.\d+) (0\.\d+) (?:scn?|SCN?|rg|RG)", first.get_contents().get_data().decode("latin-1")
    )
    accent = [0x8C / 255, 0x1C / 255, 0x1C / 255]
    assert any(all(abs(float(a) - b) < 0.003 for a, b in zip(colour, accent, strict=True)) for colour in used)


def test_x06_hostile_texts_stay_text(soak: bool) -> None:
    with canary() as address:
        texts = hostile((250 if soak else 30) * 4, address)
        for vendor, unit, reason, reference in zip(*[iter(texts)] * 4, strict=True):
            facts = about(replace(record(2), vendor=vendor, unit=unit), customer=reference)
            rows = [row(1, reason=reason, reference=reference, adjusts=vendor), row(2, reason=unit)]
            reader = PdfReader(io.BytesIO(write_statement(facts, rows)))
            assert list(reader.attachments) == ["record.json"]
            attached = json.loads(reader.attachments["record.json"][0])
            assert attached == json.loads(json.dumps(statement_data(facts.record, rows)))
            assert_passive(reader, {URL})


def test_x06_markup_is_printed_as_it_was_written() -> None:
    with canary() as address:
        texts = markup(address)
        rows = [row(n, reason=text, reference=text) for n, text in enumerate(texts, 1)]
        pdf = write_statement(about(replace(record(len(rows)), vendor=texts[1], unit=texts[8])), rows)
    shown = re.sub(r"\s", "", words(pdf))
    for text in texts:
        assert shown.count(re.sub(r"\s", "", text[: statement.LONGEST_REFERENCE - 1])) >= 2, text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" two\t\n lines ", "two lines"),
        ("a\x00\x1b\ue000b", "a\ufffd\ufffd\ufffdb"),
        ("\u202egnp.exe\u202c", "\ufffdgnp.exe\ufffd"),
        ("soft\u00adhyphen\u200b\ufeff", "softhyphen"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", ""),
    ],
)
def test_what_paper_cannot_show_is_replaced(text: str, shown: str) -> None:
    assert legible(text) == shown


def test_long_texts_are_cut_and_long_words_may_break_but_not_before_an_accent() -> None:
    assert legible("abc def", 5) == "abc…"
    assert legible("abcde", 5) == "abcde"
    assert breakable("x" * 22) == "x" * 22
    assert breakable("x" * 45) == "\u200b".join(["x" * 16, "x" * 16, "x" * 13])
    assert breakable("x" * 16 + "\u0301" + "y" * 6) == "x" * 16 + "\u0301\u200b" + "y" * 6
    for text in HOSTILE_TEXTS:
        assert breakable(legible(text)).replace("\u200b", "") == legible(text)


def test_amounts_keep_every_digit_in_the_way_of_the_language() -> None:
    exact = "-12345678901234567890.123456789012345678901234"
    assert amount(exact) == "-12,345,678,901,234,567,890.123456789012345678901234"
    assert in_column("5", 3) == ("5.00", "0")
    assert in_column("5", 0) == ("5", "")
    speak("de")
    assert amount(exact) == "-12.345.678.901.234.567.890,123456789012345678901234"
    speak("ar")
    assert amount("-1234.5") == "-1,234.5"


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Pdf]
    assert (Pdf.slug, Pdf.extension, Pdf.media_type) == ("pdf", "pdf", "application/pdf")
