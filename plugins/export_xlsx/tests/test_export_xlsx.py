from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from shared_record_export_xlsx import COLUMNS, Xlsx, register_export_formats

from export_rows import HOSTILE_TEXTS, export, row
from shared_record.plugin import ExportRow, ExportSummary

NAMES = [name for name, _ in COLUMNS]


def read(data: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """Return the cells of each sheet as another library reads them, and refuse any active one."""
    found = {}
    for sheet in load_workbook(io.BytesIO(data)).worksheets:
        cells = [cell for line in sheet.iter_rows() for cell in line]
        assert {cell.data_type for cell in cells} <= {"s", "n", "inlineStr"}
        assert not any(cell.hyperlink for cell in cells)
        found[sheet.title] = list(sheet.iter_rows(values_only=True))
    return found


def test_numbers_of_15_digits_are_numbers_and_longer_ones_text() -> None:
    amounts = ["123456789012345", "1234567890123456", "-0.000000000000000000000001", "12345678901234500000", "0.1"]
    data, summary = export(Xlsx, [row(n, amount, amount) for n, amount in enumerate(amounts, 1)])
    sheets = read(data)
    assert list(sheets) == ["Summary", "Rows 1"]
    cells = [line[NAMES.index("amount")] for line in sheets["Rows 1"][1:]]
    assert [type(cell) is str for cell in cells] == [False, True, False, False, False]
    assert [Decimal(str(cell)) for cell in cells] == [Decimal(amount) for amount in amounts]
    assert dict(line[:2] for line in sheets["Summary"]) == {
        "vendor": "Acme",
        "customer_ref": "s0-0123456789abcdef",
        "period": "2026-11",
        "start": "2026-11-01T00:00:00.000Z",
        "end": "2026-12-01T00:00:00.000Z",
        "unit": "call",
        "as_of": "2026-11-22T12:00:00.123Z",
        "rows": "5",
        "total": summary.total,
        "first_id": "rec_1",
        "last_id": "rec_5",
        "covered_rows": "0",
        "covered_total": "0",
        "root": None,
    }


def test_no_digit_of_a_number_is_lost() -> None:
    chance = random.Random(15)
    amounts = []
    for _ in range(3_000):
        digits, point = chance.randrange(1, 10 ** chance.randrange(1, 16)), chance.randrange(-5, 25)
        amounts.append(f"{Decimal(digits).scaleb(-point).normalize():f}")
    data, _ = export(Xlsx, [row(n, amount) for n, amount in enumerate(amounts, 1)])
    xml = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet2.xml").decode()
    written = re.findall(r'<c r="E\d+"><v>([^<]+)</v>', xml)
    assert [Decimal(text) for text in written] == [Decimal(amount) for amount in amounts]


def test_x02_text_that_looks_like_markup_stays_text() -> None:
    data, _ = export(Xlsx, [row(n, reason=text, reference=text) for n, text in enumerate(HOSTILE_TEXTS, 1)])
    read(data)
    xml = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet2.xml")
    assert not re.search(rb"<f[ >/]|<r>|<hyperlink", xml)


def test_a_new_sheet_every_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Xlsx.rows_per_sheet == 1_000_000
    monkeypatch.setattr(Xlsx, "rows_per_sheet", 3)
    for count, sheets in ((3, 1), (4, 2), (7, 3)):
        found = read(export(Xlsx, [row(n) for n in range(1, count + 1)])[0])
        assert list(found) == ["Summary", *(f"Rows {n}" for n in range(1, sheets + 1))]
        ids = [line[0] for name, lines in found.items() if name != "Summary" for line in lines[1:]]
        assert ids == [f"rec_{n}" for n in range(1, count + 1)]
        assert all(lines[0] == tuple(NAMES) for name, lines in found.items() if name != "Summary")


def test_no_rows() -> None:
    data, summary = export(Xlsx, [])
    assert list(read(data)) == ["Summary"]
    assert summary == ExportSummary(0, "0", None, None)


def test_x04_a_text_that_does_not_fit_or_rows_that_end_early_leave_no_workbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken() -> Iterator[ExportRow]:
        yield row(1)
        raise ConnectionError

    for rows, error in (([row(reason="x" * 32_768)], ValueError), (broken(), ConnectionError)):
        out = io.BytesIO()
        with pytest.raises(error):
            export(Xlsx, rows)
        assert out.getvalue() == b""
    assert list(tmp_path.iterdir()) == []


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Xlsx]
    assert (Xlsx.slug, Xlsx.extension) == ("xlsx", "xlsx")
