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
    csv_text,
    hookimpl,
    utc_text,
)

COLUMNS = (
    "record_id",
    "sequence_in_period",
    "recorded_at",
    "used_at",
    "amount",
    "unit",
    "running_total",
    "state",
    "reference",
    "reason",
    "adjusts",
    "receipt_id",
)
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

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write header, ``rows`` and last line; that has no amount, so the sum of the column stays what it was."""
        tally = Tally()
        _write_line(out, COLUMNS)
        for row in rows:
            _write_line(
                out,
                (
                    row.record_id,
                    str(row.seq),
                    utc_text(row.recorded_at),
                    row.used_at or "",
                    row.amount,
                    csv_text(row.unit),
                    row.running_total,
                    row.state,
                    csv_text(row.reference),
                    csv_text(row.reason),
                    row.adjusts or "",
                    row.receipt_id,
                ),
            )
            tally.add(row)
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
