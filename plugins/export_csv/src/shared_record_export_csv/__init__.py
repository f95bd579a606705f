"""CSV exports for Shared Record: one line per delta (RFC 4180, UTF-8), safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact
from typing import BinaryIO, ClassVar

from shared_record.plugin import ExportFormat, ExportOptions, ExportRow, ExportSummary, hookimpl

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
_EXACT = Context(prec=60, traps=[Inexact])
# What a spreadsheet may take for the start of a formula or a command, and the fullwidth forms of the same.
_FORMULA_STARTS = tuple("=+-@|%\t\r\n\0＝＋－＠｜％")


class Csv(ExportFormat):
    """Comma-separated values: a header line, then one line per delta. Numbers are exact and never altered."""

    slug: ClassVar[str] = "csv"
    title: ClassVar[str] = "CSV"
    media_type: ClassVar[str] = "text/csv; charset=utf-8; header=present"
    extension: ClassVar[str] = "csv"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:  # noqa: ARG002
        """Write the header and ``rows``; a text cell that could run as a formula gets a leading apostrophe."""
        writer = csv.writer(_Utf8(out), lineterminator="\r\n")
        writer.writerow(COLUMNS)
        count, total = 0, Decimal(0)
        first_id: str | None = None
        last_id: str | None = None
        for row in rows:
            writer.writerow(
                (
                    text_cell(row.record_id),
                    row.seq,
                    _moment(row.recorded_at),
                    row.used_at or "",
                    row.amount,
                    text_cell(row.unit),
                    row.running_total,
                    text_cell(row.state),
                    text_cell(row.reference),
                    text_cell(row.reason),
                    text_cell(row.adjusts),
                    row.receipt_id,
                )
            )
            count += 1
            total = _EXACT.add(total, Decimal(row.amount))
            first_id, last_id = first_id or row.record_id, row.record_id
        return ExportSummary(count, f"{total.normalize(_EXACT):f}", first_id, last_id)


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer CSV."""
    return [Csv]


def text_cell(value: str | None) -> str:
    """Return ``value`` so that no spreadsheet runs it: an apostrophe goes before a formula's first character."""
    if value is None:
        return ""
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Utf8:
    """The text side of a binary stream: all that ``csv.writer`` needs, and it closes nothing."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        return self._out.write(text.encode())
