"""What holds for every export format."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from shared_record.plugin import (
    CsvBlock,
    CsvRows,
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    RecordFacts,
    csv_blocks,
    utc_text,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
AMOUNTS = (
    ("1", "1"),
    ("0.000000000000000000000001", "1.000000000000000000000001"),
    ("-12345678901234567890", "-12345678901234567888.999999999999999999999999"),
    ("12345678901234567889", "0.000000000000000000000001"),
)
"""Amounts with their running totals; a binary floating-point number holds none but the first."""
TEXTS = (None, "usage", "=1+1", 'a "quoted", text; ö\r\nsecond line', "<script>alert(1)</script>")


class InBlocks(CsvRows):
    """Rows as the core's own come from PostgreSQL, with ready lines, here one at a time."""

    def __init__(self, rows: Iterator[ExportRow]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[ExportRow]:
        return self._rows

    def csv_blocks(self, fields: Sequence[str]) -> Iterator[CsvBlock]:
        """Yield a block for each row."""
        for row in self._rows:
            yield from csv_blocks([row], fields)


class ExportFormatContract:
    """Subclass it as ``class TestMine(ExportFormatContract)`` and fill in ``format``."""

    format: ClassVar[type[ExportFormat]]

    def rows(self) -> Iterator[ExportRow]:
        """Yield rows with amounts and texts that are easily spoilt."""
        for seq, (amount, total) in enumerate(AMOUNTS, start=1):
            yield ExportRow(
                seq=seq,
                record_id=f"rec_{seq}",
                receipt_id="0x" + f"{seq:02x}" * 32,
                recorded=utc_text(NOON),
                used_at="2026-11-22T11:59:59.5Z" if seq % 2 else None,
                amount=amount,
                running_total=total,
                unit="call",
                state="verified" if seq == 1 else "recorded",
                adjusts="rec_1" if seq == 3 else None,
                reference=TEXTS[seq % len(TEXTS)],
                reason=TEXTS[(seq + 1) % len(TEXTS)],
                metadata_json='{"a":1}' if seq == 2 else None,
                detail_salt=None,
                entry="{}",
            )

    def options(self, size: int, total: str) -> ExportOptions:
        """Return what goes with ``size`` rows."""
        return ExportOptions(
            RecordFacts(
                vendor="Acme",
                log_origin="app.example/log/t1",
                customer_ref="s0-0123456789abcdef",
                tree_id="r_0123456789abcdef",
                period="2026-11",
                start=datetime(2026, 11, 1, tzinfo=UTC),
                end=datetime(2026, 12, 1, tzinfo=UTC),
                zone="UTC",
                unit="call",
                as_of=NOON,
                size=size,
                total=total,
                covered_size=0,
                covered_total="0",
                proof=None,
            )
        )

    def written(self, rows: list[ExportRow]) -> tuple[bytes, ExportSummary]:
        """Return the file of ``rows`` and its summary."""
        out = io.BytesIO()
        total = rows[-1].running_total if rows else "0"
        summary = self.format().write(iter(rows), out, self.options(len(rows), total))
        return out.getvalue(), summary

    def test_it_is_complete_and_named(self) -> None:
        """It can be registered, chosen in a tenant file, and sent."""
        assert not inspect.isabstract(self.format)
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.format.slug)
        assert self.format.title.strip()
        assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+(; [a-z]+=[a-z0-9-]+)*", self.format.media_type)
        assert re.fullmatch(r"[a-z0-9]+(\.[a-z0-9]+)*", self.format.extension)

    def test_the_summary_says_what_was_written(self) -> None:
        """The core refuses a file whose summary differs from the ledger."""
        rows = list(self.rows())
        data, summary = self.written(rows)
        assert data
        assert summary == ExportSummary(len(rows), rows[-1].running_total, rows[0].record_id, rows[-1].record_id)

    def test_no_rows_make_a_file_too(self) -> None:
        """An empty period can be exported."""
        _, summary = self.written([])
        assert summary == ExportSummary(0, "0", None, None)

    def test_the_same_rows_make_the_same_bytes(self) -> None:
        """A file can be compared with an earlier one."""
        assert self.written(list(self.rows())) == self.written(list(self.rows()))

    def test_ready_lines_make_the_same_bytes(self) -> None:
        """It makes no difference to a file whether the core or the database writes its lines of CSV."""
        rows, out = list(self.rows()), io.BytesIO()
        summary = self.format().write(InBlocks(iter(rows)), out, self.options(len(rows), rows[-1].running_total))
        assert (out.getvalue(), summary) == self.written(rows)

    def test_every_row_counts(self) -> None:
        """A row less, or another amount, makes another file."""
        rows = list(self.rows())
        whole, _ = self.written(rows)
        assert self.written(rows[:-1])[0] != whole
        assert self.written([*rows[:-1], rows[-1]._replace(amount="1", entry='{"q":1}')])[0] != whole

    def test_it_reads_the_rows_once_and_writes_as_it_goes(self) -> None:
        """A million rows need no more memory than a few: they come as a stream that cannot be rewound."""
        rows = self.rows()
        self.format().write(rows, io.BytesIO(), self.options(len(AMOUNTS), AMOUNTS[-1][1]))
        assert next(rows, None) is None
