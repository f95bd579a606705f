from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from shared_record_export_csv import COLUMNS, Csv, register_export_formats, text_cell

from shared_record.plugin import ExportOptions, ExportRow, ExportSummary, RecordFacts

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
DANGEROUS = "=+-@|%\t\r\n\0＝＋－＠｜％"


def facts() -> RecordFacts:
    return RecordFacts(
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


def row(
    seq: int = 1, amount: str = "1", total: str = "1", reason: str | None = "r", reference: str | None = None
) -> ExportRow:
    return ExportRow(
        seq=seq,
        record_id=f"rec_{seq}",
        receipt_id="0x" + "ab" * 32,
        recorded_at=NOON,
        used_at=None,
        amount=amount,
        running_total=total,
        unit="call",
        state="recorded",
        adjusts=None,
        reference=reference,
        reason=reason,
        metadata_json=None,
        detail_salt=None,
        entry="{}",
    )


def export(*rows: ExportRow) -> tuple[bytes, ExportSummary]:
    out = io.BytesIO()
    summary = Csv().write(iter(rows), out, ExportOptions(facts()))
    return out.getvalue(), summary


def test_rows_are_rfc_4180_with_exact_numbers() -> None:
    data, summary = export(
        row(1, "0.000000000000000000000001", "0.000000000000000000000001", 'a "quoted", text'),
        row(2, "-12345678901234567890", "-12345678901234567889.999999999999999999999999", None, "ö\r\nx"),
    )
    lines = data.decode().split("\r\n")
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1] == (
        "rec_1,1,2026-11-22T12:00:00.123Z,,0.000000000000000000000001,call,0.000000000000000000000001,recorded,,"
        f'"a ""quoted"", text",,0x{"ab" * 32}'
    )
    assert lines[2].startswith(
        "rec_2,2,2026-11-22T12:00:00.123Z,,-12345678901234567890,call,-12345678901234567889.9999"
    )
    assert data.endswith(b"\r\n")
    assert summary == ExportSummary(2, "-12345678901234567889.999999999999999999999999", "rec_1", "rec_2")


def test_no_rows() -> None:
    data, summary = export()
    assert data == (",".join(COLUMNS) + "\r\n").encode()
    assert summary == ExportSummary(0, "0", None, None)


@given(st.text(st.characters(exclude_categories=("Cs",))))
@example("=cmd|' /C calc'!A0")
@example("＝1+1")
@example("\0=1")
def test_text_cells_never_start_a_formula_and_lose_nothing(text: str) -> None:
    data, _ = export(row(reason=text))
    cells = list(csv.reader(io.StringIO(data.decode(), newline="")))[1]
    cell = cells[COLUMNS.index("reason")]
    assert not cell.startswith(tuple(DANGEROUS))
    assert cell.removeprefix("'") == text.removeprefix("'")
    assert cells[COLUMNS.index("amount")] == "1"


def test_every_dangerous_first_character_is_covered() -> None:
    assert all(text_cell(c + "x") == f"'{c}x" for c in DANGEROUS)
    assert text_cell("a=b") == "a=b"


def test_the_hook_names_the_format() -> None:
    assert register_export_formats() == [Csv]
    assert (Csv.slug, Csv.extension) == ("csv", "csv")
