"""CSV exports for Shared Record: one line per delta (RFC 4180, UTF-8), safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import BinaryIO, ClassVar

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    Tally,
    csv_text,
    hookimpl,
    in_batches,
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
    lean: ClassVar[bool] = True

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write header, ``rows`` and last line; that has no amount, so the sum of the column stays what it was."""
        tally = Tally()
        _write_line(out, COLUMNS)
        for batch in in_batches(rows):
            out.write(_lines(batch).encode())
            tally.add_all(batch)
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


# Units and reasons are few and come again and again.
_known_text = lru_cache(maxsize=1_024)(csv_text)


def _lines(batch: list[ExportRow]) -> str:
    return "".join(
        [
            f"{record},{seq},{recorded},{used or ''},{amount},{_known_text(unit)},{total},{state},"
            f"{csv_text(ref)},{_known_text(reason)},{adjusts or ''},{receipt}\r\n"
            for seq, record, receipt, recorded, used, amount, total, unit, state, adjusts, ref, reason, *_ in batch
        ]
    )


def _write_line(out: BinaryIO, cells: Iterable[str]) -> None:
    out.write(f"{','.join(cells)}\r\n".encode())
