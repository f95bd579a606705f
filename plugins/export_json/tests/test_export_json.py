from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

from shared_record_export_json import Json, register_export_formats

from shared_record.plugin import ExportOptions, ExportRow, ExportSummary, RecordFacts, RecordProof, utc_text

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PROOF = RecordProof(
    size=1,
    root=b"\1" * 32,
    head='{"a":"b"}',
    slot_index=3,
    slot_count=4,
    slot_path=(b"\2" * 32, b"\3" * 32),
    epoch="{}",
    log_index=7,
    log_size=8,
    log_path=(b"\4" * 32,),
    checkpoint="app.example/log/t1\n8\nroot\n\n— sig\n",
    vkeys=("app.example/log/t1+00000000+AA==",),
)
FACTS = RecordFacts(
    vendor="Acmé",
    log_origin="app.example/log/t1",
    customer_ref="s3-0123456789abcdef",
    tree_id="r_0123456789abcdef",
    period="2026-11",
    start=datetime(2026, 11, 1, tzinfo=UTC),
    end=datetime(2026, 12, 1, tzinfo=UTC),
    zone="Europe/Vienna",
    unit="call",
    as_of=NOON,
    size=2,
    total="0.5",
    covered_size=1,
    covered_total="1",
    proof=PROOF,
)


def row(seq: int, amount: str, entry: str, **changes: str | None) -> ExportRow:
    base = ExportRow(
        seq=seq,
        record_id=f"rec_{seq}",
        receipt_id="0x00",
        recorded=utc_text(NOON),
        used_at=None,
        amount=amount,
        running_total="0",
        unit="call",
        state="verified",
        adjusts=None,
        reference=None,
        reason=None,
        metadata_json=None,
        detail_salt=None,
        entry=entry,
    )
    return base._replace(**changes)  # type: ignore[arg-type]


def export(facts: RecordFacts, *rows: ExportRow) -> tuple[str, ExportSummary]:
    out = io.BytesIO()
    summary = Json().write(iter(rows), out, ExportOptions(facts))
    return out.getvalue().decode(), summary


def test_one_document_and_one_line_per_row() -> None:
    entry = '{"b": 1,  "a":"é"}'
    text, summary = export(
        FACTS,
        row(1, "1", entry, reason="line\nbreak", reference="ref", metadata_json='{"n":0.10}', detail_salt="ff"),
        row(2, "-0.5", "{}", state="recorded"),
    )
    lines = text.split("\n")
    assert lines[0] == '{"format":"shared-record/export@v1",'
    assert lines[3] == '"rows":['
    assert lines[4] == (
        f'{{"entry":{entry},"receiptId":"0x00","state":"verified","reason":"line\\nbreak","referenceId":"ref",'
        '"metadata":{"n":0.10},"detailSalt":"ff"},'
    )
    assert lines[5].endswith('"reason":null,"referenceId":null,"metadata":null,"detailSalt":null}')
    assert lines[6:] == ["]}", ""]
    assert summary == ExportSummary(2, "0.5", "rec_1", "rec_2")

    document = json.loads(text)
    assert document["record"]["vendor"] == "Acmé"
    assert document["record"]["end"] == "2026-12-01T00:00:00.000Z"
    assert document["record"]["covered"] == {"size": 1, "total": "1"}
    assert document["proof"]["slot"]["index"] == 3
    assert len(document["proof"]["slot"]["path"]) == 2
    assert document["proof"]["checkpoint"] == PROOF.checkpoint


def test_empty_record_without_proof() -> None:
    text, summary = export(replace(FACTS, proof=None, size=0))
    document = json.loads(text)
    assert document["proof"] is None
    assert document["rows"] == []
    assert text.endswith('"rows":[\n]}\n')
    assert summary == ExportSummary(0, "0", None, None)


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Json]
    assert (Json.slug, Json.extension) == ("json", "json")
