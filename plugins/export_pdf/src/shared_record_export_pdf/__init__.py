"""PDF statements for Shared Record: the figures of a period and its first records, typeset by the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, ClassVar

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    Tally,
    hookimpl,
    in_batches,
    mark,
)

MOST_ROWS = 1_500
"""Rows of the table: 40 to 60 pages. Nobody reads more on paper, and the typesetter's memory has an end."""


class Pdf(ExportFormat):
    """A statement to print, to file and to forward. Every row is counted; the first 1,500 are listed."""

    slug: ClassVar[str] = "pdf"
    title: ClassVar[str] = mark("PDF statement")
    media_type: ClassVar[str] = "application/pdf"
    extension: ClassVar[str] = "pdf"
    without: ClassVar[frozenset[str]] = frozenset({"metadata_json", "detail_salt", "entry"})

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write the statement; its figures are the record's own, which the core compares with what was counted."""
        tally = Tally()
        listed: list[ExportRow] = []
        for batch in in_batches(rows):
            listed += batch[: MOST_ROWS - len(listed)]
            tally.add_all(batch)
        out.write(options.statement(listed))
        return tally.summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer PDF."""
    return [Pdf]
