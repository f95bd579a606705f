from __future__ import annotations

import json

from shared_record_export_jsonl import JsonLines, register_export_formats

from export_rows import HOSTILE_TEXTS, export, row
from shared_record.plugin import ExportSummary


def test_x04_one_object_per_delta_with_amounts_as_text_and_a_manifest_at_the_end() -> None:
    data, summary = export(
        JsonLines,
        [
            row(1, "0.1", "0.1", used_at="2026-11-01T00:00:00.000000001Z", metadata_json='{"a":[1.50,"ü"]}'),
            row(2, "-12345678901234567890", "-12345678901234567889.9", adjusts="rec_1", reason=None),
        ],
    )
    first, second, last = data.decode().splitlines()
    assert first == (
        '{"recordId":"rec_1","sequenceInPeriod":1,"recordedAt":"2026-11-22T12:00:00.123Z",'
        '"usedAt":"2026-11-01T00:00:00.000000001Z","amount":"0.1","unit":"call","runningTotal":"0.1",'
        '"state":"recorded","referenceId":null,"reason":"r","metadata":{"a":[1.50,"ü"]},"adjusts":null,'
        f'"receiptId":"0x{"ab" * 32}"}}'
    )
    assert json.loads(second)["amount"] == "-12345678901234567890"
    assert json.loads(second)["adjusts"] == "rec_1"
    assert json.loads(last)["manifest"] == {
        "format": "shared-record/jsonl@v1",
        "vendor": "Acme",
        "customerRef": "s0-0123456789abcdef",
        "period": "2026-11",
        "unit": "call",
        "asOf": "2026-11-22T12:00:00.123Z",
        "rows": 2,
        "total": "-12345678901234567889.9",
        "firstId": "rec_1",
        "lastId": "rec_2",
        "covered": {"size": 0, "total": "0"},
        "root": None,
    }
    assert summary == ExportSummary(2, "-12345678901234567889.9", "rec_1", "rec_2")


def test_no_text_breaks_a_line() -> None:
    rows = [row(n, reason=text, reference=text) for n, text in enumerate(HOSTILE_TEXTS, 1)]
    data, _ = export(JsonLines, rows)
    lines = data.decode().split("\n")
    assert len(lines) == len(rows) + 2
    assert [json.loads(line)["reason"] for line in lines[:-2]] == list(HOSTILE_TEXTS)


def test_no_rows() -> None:
    data, summary = export(JsonLines, [])
    assert json.loads(data)["manifest"]["rows"] == 0
    assert summary == ExportSummary(0, "0", None, None)


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [JsonLines]
    assert (JsonLines.slug, JsonLines.extension) == ("jsonl", "jsonl")
