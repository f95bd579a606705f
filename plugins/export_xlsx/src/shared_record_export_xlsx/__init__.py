"""XLSX exports for Shared Record: a summary and the deltas as typed cells, without a formula or a link."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import UTC
from decimal import Decimal
from typing import BinaryIO, ClassVar

import xlsxwriter
from xlsxwriter.worksheet import Worksheet

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    RecordFacts,
    Tally,
    forward_only,
    hookimpl,
    mark,
    utc_text,
)

COLUMNS = (
    ("record_id", 32),
    ("sequence_in_period", 12),
    ("recorded_at", 25),
    ("used_at", 25),
    ("amount", 18),
    ("unit", 14),
    ("running_total", 20),
    ("state", 11),
    ("reference", 24),
    ("reason", 40),
    ("adjusts", 32),
    ("receipt_id", 70),
)
EXACT_DIGITS = 15
"""Significant decimal digits that a spreadsheet keeps (IEEE 754 binary64)."""
_OPTIONS = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_numbers": False,
    "strings_to_urls": False,
    "use_zip64": True,
}


class Xlsx(ExportFormat):
    """A workbook whose text cells are strings whatever they hold, and whose numbers are all exact."""

    slug: ClassVar[str] = "xlsx"
    title: ClassVar[str] = mark("Excel workbook (XLSX)")
    media_type: ClassVar[str] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    extension: ClassVar[str] = "xlsx"
    lean: ClassVar[bool] = True
    rows_per_sheet: ClassVar[int] = 1_000_000
    """Below the 1,048,576 that the format allows."""

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write the workbook: XlsxWriter keeps the rows in temporary files until they are packed."""
        with tempfile.TemporaryDirectory() as folder:
            book = xlsxwriter.Workbook(forward_only(out), _OPTIONS | {"tmpdir": folder})
            book.set_properties(
                {"title": f"Usage {options.record.period}", "created": options.record.as_of.astimezone(UTC)}
            )
            try:
                summary = self._fill(book, rows, options.record)
            except BaseException:
                for sheet in book.worksheets():
                    sheet.row_data_fh.close()
                raise
            book.close()
        return summary

    def _fill(self, book: xlsxwriter.Workbook, rows: Iterable[ExportRow], record: RecordFacts) -> ExportSummary:
        overview, sheet, tally = book.add_worksheet("Summary", _Sheet), None, Tally()
        bold = book.add_format({"bold": True})
        for row in rows:
            place = tally.rows % self.rows_per_sheet
            if sheet is None or place == 0:
                sheet = _add_sheet(book, f"Rows {tally.rows // self.rows_per_sheet + 1}", bold)
            _write_row(sheet, place + 1, row)
            tally.add(row)
        _write_summary(overview, record, tally.summary)
        return tally.summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer XLSX."""
    return [Xlsx]


def _add_sheet(book: xlsxwriter.Workbook, name: str, bold: object) -> Worksheet:
    sheet = book.add_worksheet(name, _Sheet)
    for column, (_, width) in enumerate(COLUMNS):
        sheet.set_column(column, column, width)
    for column, (title, _) in enumerate(COLUMNS):
        sheet.write_string(0, column, title, bold)
    sheet.freeze_panes(1, 0)
    return sheet


def _write_row(sheet: Worksheet, line: int, row: ExportRow) -> None:
    texts = {
        0: row.record_id,
        2: row.recorded,
        3: row.used_at,
        5: row.unit,
        7: row.state,
        8: row.reference,
        9: row.reason,
        10: row.adjusts,
        11: row.receipt_id,
    }
    sheet.write_number(line, 1, row.seq)
    _write_amount(sheet, line, 4, row.amount)
    _write_amount(sheet, line, 6, row.running_total)
    for column, text in texts.items():
        if text:
            _write_text(sheet, line, column, text)


def _write_amount(sheet: Worksheet, line: int, column: int, amount: str) -> None:
    value = Decimal(amount)
    # The library prints 16 significant digits of whatever number it is given, and a decimal's without rounding first.
    if len(value.normalize().as_tuple().digits) <= EXACT_DIGITS:
        sheet.write_number(line, column, value)
    else:
        _write_text(sheet, line, column, amount)


def _write_text(sheet: Worksheet, line: int, column: int, text: str) -> None:
    if sheet.write_string(line, column, text) != 0:
        raise ValueError(f"cell {column} of row {line} takes no text of {len(text)} characters")


def _write_summary(sheet: Worksheet, record: RecordFacts, summary: ExportSummary) -> None:
    """Write names and values as text, so that no digit of a total is lost."""
    sheet.set_column(0, 0, 22)
    sheet.set_column(1, 1, 70)
    facts = {
        "vendor": record.vendor,
        "customer_ref": record.customer_ref,
        "period": record.period,
        "start": utc_text(record.start),
        "end": utc_text(record.end),
        "unit": record.unit,
        "as_of": utc_text(record.as_of),
        "rows": str(summary.rows),
        "total": summary.total,
        "first_id": summary.first_id or "",
        "last_id": summary.last_id or "",
        "covered_rows": str(record.covered_size),
        "covered_total": record.covered_total,
        "root": record.proof.root.hex() if record.proof else "",
    }
    for line, (name, value) in enumerate(facts.items()):
        sheet.write_string(line, 0, name)
        if value:
            _write_text(sheet, line, 1, value)


class _Sheet(Worksheet):
    """A sheet of plain text: the library lets any text from ``<r>`` to ``</r>`` pass as if it were its own markup."""

    def _xml_rich_inline_string(self, string: str, attributes: list[tuple[str, object]]) -> None:
        self._xml_inline_string(string, False, attributes)
