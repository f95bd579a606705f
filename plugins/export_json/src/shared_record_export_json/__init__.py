"""JSON exports for Shared Record: every row with its exact hashed text, and the proof that ties them to a checkpoint.

The file is one JSON document whose line breaks are fixed (``shared-record/export@v1``), so it is written and verified
row by row: format, ``record``, ``proof`` and ``rows`` each start a line, every row is one line, ``]}`` is the last.
"""

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
    RecordProof,
    Tally,
    hookimpl,
    in_batches,
    mark,
    utc_text,
)

FORMAT = "shared-record/export@v1"
_BETWEEN = ",\n"


class Json(ExportFormat):
    """The complete record: ``shared-record verify FILE`` checks it without asking anybody."""

    slug: ClassVar[str] = "json"
    title: ClassVar[str] = mark("JSON with proofs")
    media_type: ClassVar[str] = "application/json"
    extension: ClassVar[str] = "json"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write the document; entries and metadata go in verbatim, since their bytes are what was hashed."""
        proof = options.record.proof
        out.write(
            f'{{"format":{_json(FORMAT)},\n'
            f'"record":{_json(_record(options.record))},\n'
            f'"proof":{_json(_proof(proof) if proof else None)},\n'
            f'"rows":['.encode()
        )
        tally = Tally()
        for batch in in_batches(rows):
            out.write(f"{',' if tally.rows else ''}\n{_BETWEEN.join(map(_row, batch))}".encode())
            tally.add_all(batch)
        out.write(b"\n]}\n")
        return tally.summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer JSON."""
    return [Json]


def _row(row: ExportRow) -> str:
    return (
        f'{{"entry":{row.entry},"receiptId":{_json(row.receipt_id)},"state":{_json(row.state)},'
        f'"reason":{_json(row.reason)},"referenceId":{_json(row.reference)},'
        f'"metadata":{row.metadata_json or "null"},"detailSalt":{_json(row.detail_salt)}}}'
    )


def _record(record: RecordFacts) -> dict[str, object]:
    return {
        "vendor": record.vendor,
        "logOrigin": record.log_origin,
        "customerRef": record.customer_ref,
        "treeId": record.tree_id,
        "period": record.period,
        "start": utc_text(record.start),
        "end": utc_text(record.end),
        "zone": record.zone,
        "unit": record.unit,
        "asOf": utc_text(record.as_of),
        "size": record.size,
        "total": record.total,
        "covered": {"size": record.covered_size, "total": record.covered_total},
    }


def _proof(proof: RecordProof) -> dict[str, object]:
    return {
        "size": proof.size,
        "root": _base64(proof.root),
        "head": proof.head,
        "slot": {
            "index": proof.slot_index,
            "count": proof.slot_count,
            "path": [_base64(node) for node in proof.slot_path],
        },
        "epoch": proof.epoch,
        "log": {"index": proof.log_index, "size": proof.log_size, "path": [_base64(node) for node in proof.log_path]},
        "checkpoint": proof.checkpoint,
        "vkeys": list(proof.vkeys),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
