from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shared_record_export_parquet import Parquet, register_export_formats
from shared_record_export_parquet.writer import ROW_GROUP, SCHEMA

from export_rows import FACTS, HOSTILE_TEXTS, export, row
from shared_record.plugin import ExportOptions, ExportRow, ExportSummary


def manifest(data: bytes) -> dict[str, object]:
    return json.loads(pq.read_metadata(io.BytesIO(data)).metadata[b"shared_record.manifest"])


def test_typed_columns_exact_amounts_and_a_manifest() -> None:
    data, summary = export(
        Parquet,
        [
            row(1, "12345678901234567890.123456789012345678", "1", metadata_json='{"a":1}'),
            row(2, "-0.0000000000000000001", "1", adjusts="rec_1", reason=None),
        ],
    )
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.equals(SCHEMA)
    first, second = table.to_pylist()
    assert first["amount"] == str(first["amount_decimal"]) == "12345678901234567890.123456789012345678"
    assert first["recorded_at"] == datetime(2026, 11, 22, 12, 0, 0, 123000, tzinfo=UTC)
    assert (first["metadata"], first["used_at"]) == ('{"a":1}', None)
    assert (second["amount"], second["amount_decimal"], second["reason"]) == ("-0.0000000000000000001", None, None)
    assert summary.total == "12345678901234567890.1234567890123456779"
    assert manifest(data) == {
        "format": "shared-record/parquet@v1",
        "vendor": "Acme",
        "customerRef": "s0-0123456789abcdef",
        "period": "2026-11",
        "unit": "call",
        "asOf": "2026-11-22T12:00:00.123Z",
        "rows": 2,
        "total": summary.total,
        "firstId": "rec_1",
        "lastId": "rec_2",
        "covered": {"size": 0, "total": "0"},
        "root": None,
        "rowsWithoutAmountDecimal": 1,
    }


def test_row_groups_and_texts() -> None:
    count = ROW_GROUP + len(HOSTILE_TEXTS)
    data, _ = export(Parquet, (row(n, "0.5", reason=HOSTILE_TEXTS[n % len(HOSTILE_TEXTS)]) for n in range(count)))
    found = pq.ParquetFile(io.BytesIO(data))
    assert [found.metadata.row_group(n).num_rows for n in range(2)] == [ROW_GROUP, len(HOSTILE_TEXTS)]
    table = found.read(["amount_decimal", "reason", "sequence_in_period"])
    assert sum(table.column("amount_decimal").to_pylist()) == Decimal(count) / 2
    assert table.column("reason").to_pylist()[: len(HOSTILE_TEXTS)] == list(HOSTILE_TEXTS)
    assert table.column("sequence_in_period").to_pylist() == list(range(count))


def test_no_rows() -> None:
    data, summary = export(Parquet, [])
    assert pq.read_table(io.BytesIO(data)).num_rows == 0
    assert summary == ExportSummary(0, "0", None, None)


def test_x04_rows_that_end_early_leave_nothing_that_can_be_opened() -> None:
    def broken() -> Iterator[ExportRow]:
        yield from (row(n) for n in range(ROW_GROUP + 1))
        raise ConnectionError

    out = io.BytesIO()
    with pytest.raises(ConnectionError):
        Parquet().write(broken(), out, ExportOptions(FACTS))
    assert out.getvalue()
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(io.BytesIO(out.getvalue()))


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Parquet]
    assert (Parquet.slug, Parquet.extension) == ("parquet", "parquet")
