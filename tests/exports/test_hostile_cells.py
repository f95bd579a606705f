"""Cells that try to be formulas, links, markup or other cells, through the formats that spreadsheets open."""

from __future__ import annotations

import csv
import io
import random
import re
import zipfile

import pytest
from openpyxl import load_workbook
from openpyxl.utils.escape import unescape
from shared_record_export_csv import Csv
from shared_record_export_focus import Focus
from shared_record_export_xlsx import Xlsx

from export_rows import HOSTILE_STARTS, HOSTILE_TEXTS, export, row
from shared_record.plugin import ExportFormat, ExportRow

STARTS = tuple(HOSTILE_STARTS)
ALPHABET = HOSTILE_STARTS + "\"',;<>&/'AZ09_x \x01\x7fé漢\u202e"
IN_XLSX = {"reference": 8, "reason": 9, "amount": 4}


@pytest.fixture(scope="session")
def hostile_rows(soak: bool) -> list[ExportRow]:
    """Rows with 50,000 hostile cells; a tenth of them without ``--soak``."""
    chance = random.Random(6)

    def cell() -> str:
        made = "".join(chance.choices(ALPHABET, k=chance.randrange(1, 12)))
        known = chance.choice(HOSTILE_TEXTS)
        return chance.choice([made, known, known + made, f"<r>{known}</r>"])

    count = (50_000 if soak else 5_000) // 2
    return [row(n, f"-{n}", f"-{n}", reference=cell(), reason=cell()) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Csv, ("reference", "reason", "amount")),
        (Focus, ("x_Reference", "ChargeDescription", "ConsumedQuantity")),
    ],
)
def test_x02_no_hostile_cell_of_a_csv_file_is_active(
    hostile_rows: list[ExportRow], kind: type[ExportFormat], names: tuple[str, str, str]
) -> None:
    text = export(kind, hostile_rows)[0].decode()
    found = [line for line in csv.DictReader(io.StringIO(text, newline=""), strict=True) if line[names[2]]]
    for sent, cells in zip(hostile_rows, found, strict=True):
        assert cells[names[2]] == sent.amount
        assert None not in cells
        for plain, cell in ((sent.reference, cells[names[0]]), (sent.reason, cells[names[1]])):
            assert not cell.startswith(STARTS)
            assert cell == (f"'{plain}" if str(plain).startswith(STARTS) else plain)


def test_x02_no_hostile_cell_of_a_workbook_is_active(hostile_rows: list[ExportRow]) -> None:
    data, _ = export(Xlsx, hostile_rows)
    package = zipfile.ZipFile(io.BytesIO(data))
    assert not any("vba" in name or "externalLink" in name for name in package.namelist())
    for name in package.namelist():
        assert not re.search(rb"<f[ >/]|<hyperlink|<r>|TargetMode", package.read(name)), name
    lines = load_workbook(io.BytesIO(data), read_only=True)["Rows 1"].iter_rows(min_row=2)
    for sent, cells in zip(hostile_rows, lines, strict=True):
        assert cells[IN_XLSX["amount"]].value == int(sent.amount)
        for name in ("reference", "reason"):
            cell = cells[IN_XLSX[name]]
            assert cell.data_type in ("s", "inlineStr")
            assert broken_alike(unescape(str(cell.value))) == broken_alike(getattr(sent, name))


def broken_alike(text: str) -> str:
    """XML knows one line break only."""
    return re.sub(r"\r\n?", "\n", text)
