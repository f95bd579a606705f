"""CSV exports for Shared Record: one line per delta (RFC 4180, UTF-8), safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, ClassVar

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    Tally,
    csv_blocks,
    csv_text,
    hookimpl,
)

_FIELDS = {
    "record_id": "record_id",
    "sequence_in_period": "seq",
    "recorded_at": "recorded",
    "used_at": "used_at",
    "amount": "amount",
    "unit": "unit",
    "running_total": "running_total",
    "state": "state",
    "reference": "reference",
    "reason": "reason",
    "adjusts": "adjusts",
    "receipt_id": "receipt_id",
}
"""Column -> the field of ``ExportRow`` that it holds."""
COLUMNS = tuple(_FIELDS)
END = "total"
"""First cell of the last line."""


class Csv(ExportFormat):
    """Comma-separated values: a header line, one line per delta, and a last line with their count and exact sum.

    Numbers are exact and never altered. A file without the last line was cut off.
    """

    slug: ClassVar[str] = "csv"
    title: ClassVar[str] = "CSV"
    media_type: ClassVar[str] = "text/csv; charset=utf-8; header=present"
    extension: ClassVar[str] = "csv"
    lean: ClassVar[bool] = True

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write header, ``rows`` and last line; that has no amount, so the sum of the column stays what it was."""
        tally = Tally()
        _write_line(out, COLUMNS)
        for block in csv_blocks(rows, tuple(_FIELDS.values())):
            out.write(block.lines)
            tally.add_block(block)
        found = tally.summary
        ending = {
            "record_id": END,
            "sequence_in_period": str(found.rows),
            "unit": csv_text(options.record.unit),
            "running_total": found.total,
        }
        _write_line(out, (ending.get(name, "") for name in COLUMNS))
        return found


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer CSV."""
    return [Csv]


def _write_line(out: BinaryIO, cells: Iterable[str]) -> None:
    out.write(f"{','.join(cells)}\r\n".encode())
