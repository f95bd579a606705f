from __future__ import annotations

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st
from shared_record_export_csv import COLUMNS, Csv, register_export_formats

from export_rows import HOSTILE_STARTS, export, row
from shared_record.plugin import ExportSummary, csv_text


def parse(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def test_x04_rows_are_rfc_4180_with_exact_numbers_and_a_last_line() -> None:
    data, summary = export(
        Csv,
        [
            row(1, "0.000000000000000000000001", "0.000000000000000000000001", reason='a "quoted", text'),
            row(2, "-12345678901234567890", "-12345678901234567889.999999999999999999999999", reason="ö\r\nx"),
        ],
    )
    assert data.decode() == (
        f"{','.join(COLUMNS)}\r\n"
        'rec_1,1,2026-11-22T12:00:00.123Z,,0.000000000000000000000001,"call",0.000000000000000000000001,recorded,,'
        f'"a ""quoted"", text",,0x{"ab" * 32}\r\n'
        'rec_2,2,2026-11-22T12:00:00.123Z,,-12345678901234567890,"call",-12345678901234567889.999999999999999999999999,'
        f'recorded,,"ö\r\nx",,0x{"ab" * 32}\r\n'
        'total,2,,,,"call",-12345678901234567889.999999999999999999999999,,,,,\r\n'
    )
    assert summary == ExportSummary(2, "-12345678901234567889.999999999999999999999999", "rec_1", "rec_2")


def test_no_rows() -> None:
    data, summary = export(Csv, [])
    assert parse(data) == [list(COLUMNS), ["total", "0", "", "", "", "call", "0", "", "", "", "", ""]]
    assert summary == ExportSummary(0, "0", None, None)


@given(st.text(st.characters(exclude_categories=("Cs",))))
@example("=cmd|' /C calc'!A0")
@example("＝1+1")
@example("\0=1")
def test_x02_text_cells_never_start_a_formula_and_lose_nothing(text: str) -> None:
    cells = parse(export(Csv, [row(reason=text)])[0])[1]
    cell = cells[COLUMNS.index("reason")]
    assert not cell.startswith(tuple(HOSTILE_STARTS))
    assert cell in (text, f"'{text}")
    assert cells[COLUMNS.index("amount")] == "1"


def test_x02_every_dangerous_first_character_is_covered() -> None:
    assert all(csv_text(c + "x") == f'"\'{c}x"' for c in HOSTILE_STARTS)
    assert csv_text("a=b") == '"a=b"'
    assert (csv_text(""), csv_text(None)) == ("", "")


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Csv]
    assert (Csv.slug, Csv.extension) == ("csv", "csv")
