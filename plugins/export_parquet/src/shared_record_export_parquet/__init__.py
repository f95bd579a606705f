"""Parquet exports for Shared Record: typed columns, written row group by row group in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import BinaryIO, ClassVar

from shared_record.plugin import ExportFormat, ExportOptions, ExportRow, ExportSummary, hookimpl


class Parquet(ExportFormat):
    """A columnar file whose manifest is in its footer, which is written last."""

    slug: ClassVar[str] = "parquet"
    title: ClassVar[str] = "Parquet"
    media_type: ClassVar[str] = "application/vnd.apache.parquet"
    extension: ClassVar[str] = "parquet"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write row groups of 20,000, then the footer with the manifest."""
        # Said before it is loaded: its own allocator keeps tens of megabytes that are not needed again.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        # Only here: pyarrow takes some 50 MB, and each process of an installation loads every plugin.
        from shared_record_export_parquet.writer import write_parquet

        return write_parquet(rows, out, options.record)


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer Parquet."""
    return [Parquet]
