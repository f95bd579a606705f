"""JSON Lines exports for Shared Record: one object per delta, and a manifest that says what the lines hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import BinaryIO, ClassVar

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    RecordFacts,
    Tally,
    hookimpl,
    in_batches,
    utc_text,
)

FORMAT = "shared-record/jsonl@v1"
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class JsonLines(ExportFormat):
    """One line per delta with amounts as text; the last line is the manifest, so a file without it was cut off."""

    slug: ClassVar[str] = "jsonl"
    title: ClassVar[str] = "JSON Lines"
    media_type: ClassVar[str] = "application/jsonl"
    extension: ClassVar[str] = "jsonl"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write a line for each row, then the manifest. Metadata goes in verbatim: it is canonical JSON on one line."""
        tally = Tally()
        for batch in in_batches(rows):
            out.write("".join(map(_line, batch)).encode())
            tally.add_all(batch)
        summary = tally.summary
        out.write(f"{_json({'manifest': _manifest(options.record, summary)})}\n".encode())
        return summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer JSON Lines."""
    return [JsonLines]


def _line(row: ExportRow) -> str:
    return (
        f'{{"recordId":{_json(row.record_id)},"sequenceInPeriod":{row.seq},"recordedAt":"{row.recorded}",'
        f'"usedAt":{_json(row.used_at)},"amount":"{row.amount}","unit":{_json(row.unit)},'
        f'"runningTotal":"{row.running_total}","state":"{row.state}","referenceId":{_json(row.reference)},'
        f'"reason":{_json(row.reason)},"metadata":{row.metadata_json or "null"},"adjusts":{_json(row.adjusts)},'
        f'"receiptId":"{row.receipt_id}"}}\n'
    )


def _manifest(record: RecordFacts, summary: ExportSummary) -> dict[str, object]:
    return {
        "format": FORMAT,
        "vendor": record.vendor,
        "customerRef": record.customer_ref,
        "period": record.period,
        "unit": record.unit,
        "asOf": utc_text(record.as_of),
        "rows": summary.rows,
        "total": summary.total,
        "firstId": summary.first_id,
        "lastId": summary.last_id,
        "covered": {"size": record.covered_size, "total": record.covered_total},
        "root": base64.b64encode(record.proof.root).decode("ascii") if record.proof else None,
    }
