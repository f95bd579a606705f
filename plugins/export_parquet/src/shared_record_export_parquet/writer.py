"""The columns of a Parquet export and how they are written."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shared_record.plugin import ExportRow, ExportSummary, RecordFacts, Tally, in_batches, utc_text

FORMAT = "shared-record/parquet@v1"
ROW_GROUP = 20_000
_BATCH = 1_000
"""Rows that are turned into columns at a time: as Python objects a whole group takes a hundred megabytes."""
DIGITS, DECIMALS = 38, 18
"""Of ``amount_decimal``: 38 digits are the most that Spark, DuckDB and Snowflake read."""
SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("sequence_in_period", pa.int64(), nullable=False),
        pa.field("recorded_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("used_at", pa.string()),
        pa.field("amount", pa.string(), nullable=False),
        pa.field("amount_decimal", pa.decimal128(DIGITS, DECIMALS)),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("running_total", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("reference", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("adjusts", pa.string()),
        pa.field("receipt_id", pa.string(), nullable=False),
    ]
)


def write_parquet(rows: Iterable[ExportRow], out: BinaryIO, record: RecordFacts) -> ExportSummary:
    """Write ``rows`` to ``out`` in row groups, then the footer with the manifest; it comes only if all went well."""
    tally, unfit, sink = Tally(), 0, _Sink(out)
    writer = pq.ParquetWriter(sink, SCHEMA, use_dictionary=["unit", "state"])
    try:
        for group in _groups(rows, tally):
            unfit += group.column("amount_decimal").null_count
            writer.write_table(group, row_group_size=ROW_GROUP)
        manifest = _manifest(record, tally.summary, unfit)
        writer.add_key_value_metadata({"shared_record.manifest": json.dumps(manifest, ensure_ascii=False)})
    except BaseException:
        sink.give_up()  # the writer adds a footer whatever happens, and a file with a footer looks whole
        raise
    finally:
        writer.close()
    return tally.summary


def _groups(rows: Iterable[ExportRow], tally: Tally) -> Iterator[pa.Table]:
    batches = []
    for batch in in_batches(rows, _BATCH):
        tally.add_all(batch)
        batches.append(_columns(batch))
        if len(batches) == ROW_GROUP // _BATCH:
            yield pa.Table.from_batches(batches, schema=SCHEMA)
            batches = []
    if batches:
        yield pa.Table.from_batches(batches, schema=SCHEMA)


def _columns(rows: list[ExportRow]) -> pa.RecordBatch:
    columns = (
        [row.record_id for row in rows],
        [row.seq for row in rows],
        [row.recorded_at for row in rows],
        [row.used_at for row in rows],
        [row.amount for row in rows],
        [_fitting(row.amount) for row in rows],
        [row.unit for row in rows],
        [row.running_total for row in rows],
        [row.state for row in rows],
        [row.reference for row in rows],
        [row.reason for row in rows],
        [row.metadata_json for row in rows],
        [row.adjusts for row in rows],
        [row.receipt_id for row in rows],
    )
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _fitting(amount: str) -> Decimal | None:
    """Return the amount if it has at most 18 decimals; the 20 digits before the point always fit."""
    return Decimal(amount) if len(amount.partition(".")[2]) <= DECIMALS else None


def _manifest(record: RecordFacts, summary: ExportSummary, unfit: int) -> dict[str, object]:
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
        "rowsWithoutAmountDecimal": unfit,
    }


class _Sink(io.RawIOBase):
    """``out`` as the library wants it: a file object that is written straight on and closes nothing."""

    def __init__(self, out: BinaryIO) -> None:
        self._out: BinaryIO | None = out
        self._written = 0

    def give_up(self) -> None:
        """Let nothing more through."""
        self._out = None

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        if self._out is not None:
            self._out.write(block)
        self._written += len(block)
        return len(block)

    def tell(self) -> int:
        return self._written
