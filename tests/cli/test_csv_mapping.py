"""CSV rows as deltas: maps, strict reading, and references that survive a second run."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.cli.csv_mapping import MAX_LINE, Reader, Row, RowError, build_mapping, derived_reference
from shared_record.errors import InvalidInputError
from shared_record.ledger.amounts import Total

CSV = b"""\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
MAPS = ("delta=ContextTokens+GeneratedTokens", "reason='inference'")
REAL = Path(os.environ.get("SR_TEST_DATA") or Path(__file__).parents[3] / "shared/data") / "llm-inference-2023/conv.csv"


def documents(
    data: bytes, maps: Sequence[str] = MAPS, *, assume_utc: bool = False, customer: str = "c-17"
) -> list[dict[str, Any]]:
    reader = Reader(io.BytesIO(data))
    mapping = build_mapping(maps, reader.columns, customer, assume_utc=assume_utc)
    return [mapping.document(row) for row in reader]


def row_error(data: bytes, maps: Sequence[str] = MAPS, **options: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        documents(data, maps, **options)
    return caught.value


def map_error(*maps: str, columns: Sequence[str] = ("A", "B")) -> str:
    with pytest.raises(InvalidInputError) as caught:
        build_mapping(maps, columns, "c", assume_utc=False)
    return caught.value.message


def test_columns_summed_constants_templates_and_times() -> None:
    maps = (
        *MAPS,
        "occurredAt=TIMESTAMP",
        "referenceId='conv-{row}'",
        "metadata.model='m-1'",
        "metadata.prompt=ContextTokens",
        "metadata.note='{{{ContextTokens}}} of {row}'",
    )
    assert documents(CSV, maps, assume_utc=True)[1] == {
        "customerId": "c-17",
        "delta": "505",
        "reason": "inference",
        "occurredAt": "2023-11-16T18:15:50.9951690Z",
        "referenceId": "conv-2",
        "metadata": {"model": "m-1", "prompt": "396", "note": "{396} of 2"},
    }


def test_sums_are_exact() -> None:
    data = b"A,B,C\n0.1,0.2,0\n99999999999999999999,0.000000000000000000000001,-0.0\n"
    assert [d["delta"] for d in documents(data, ("delta=A + B + C", "reason='x'"))] == [
        "0.3",
        "99999999999999999999.000000000000000000000001",
    ]


def test_a_column_may_have_any_name() -> None:
    assert documents(b'"a+b",c d\n1,2\n', ("delta=a+b", "reason=c d"))[0]["delta"] == "1"


def test_empty_cells_of_optional_fields_are_absent() -> None:
    data = b"n,at,ref,adj,m\n1,,,,\n"
    maps = ("delta=n", "reason='x'", "occurredAt=at", "referenceId=ref", "adjusts.recordId=adj", "metadata.m=m")
    [document] = documents(data, maps)
    assert document.keys() == {"customerId", "delta", "reason", "referenceId"}
    assert document["referenceId"].startswith("import-")  # never without one, or a second run would add it again


# --- Maps ------------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_map() -> None:
    assert "expected FIELD=EXPR" in map_error("delta")
    assert "no field 'customerId'" in map_error("customerId=A")
    assert "no field 'metadata.a.b'" in map_error("metadata.a.b=A")
    assert "mapped twice" in map_error("delta=A", "delta=B")
    assert "map reason as well" in map_error("delta=A")
    assert "map delta and reason as well" in map_error("occurredAt=A")
    assert "no column 'C'. Columns: A, B." in map_error("delta=A+C", "reason='x'")
    assert "2 columns named 'A'" in map_error("delta=A", columns=("A", "A"))
    assert "no column 'nope'" in map_error("delta=A", "reason='{nope}'")
    assert "single brace" in map_error("delta=A", "reason='{A'")


def test_quotes_that_the_shell_removed_are_explained() -> None:
    assert "--map \"reason='inference'\"" in map_error("delta=A", "reason=inference")


# --- Rows ------------------------------------------------------------------------------------------------------------


def test_times_without_a_zone_need_to_be_stated_as_utc() -> None:
    maps = (*MAPS, "occurredAt=TIMESTAMP")
    error = row_error(CSV, maps)
    assert (error.line, error.column) == (2, "TIMESTAMP")
    assert "--assume-utc" in error.message
    zoned = CSV.replace(b".6805900", b"+01:00")
    assert documents(zoned[: zoned.index(b"\n2023-11-16 18:15:50") + 1], maps)[0]["occurredAt"].endswith("46+01:00")
    assert (
        "expected a time like"
        in row_error(CSV.replace(b"2023-11-16 18:15:50", b"16/11/2023"), maps, assume_utc=True).message
    )


@pytest.mark.parametrize("cell", [b"", b"1e3", b"1,5", b"12 000", b"x", b"NaN", b"+1", b"9" * 30])
def test_amounts_are_decimals(cell: bytes) -> None:
    error = row_error(CSV.replace(b"396", b'"' + cell + b'"'))
    assert (error.line, error.column) == (3, "ContextTokens")
    assert "expected a decimal number" in error.message


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"", 1, "header"),
        (b"\n", 1, "header"),
        (CSV + b"1,2\n", 4, "expected 3 columns, found 2"),
        (CSV + b"1,2,3,4\n", 4, "expected 3 columns, found 4"),
        (CSV + b'1,"2"x,3\n', 4, "expected CSV"),
        (CSV + b'1,"2', 4, "expected CSV"),
        (CSV + b"1,2\x00,3\n", 4, "U+0000"),
        (CSV + b"1,\xff,3\n", 4, "UTF-8"),
        (CSV.decode().encode("utf-16"), 1, "UTF-8"),
        (CSV + b"x" * (MAX_LINE + 1), 4, "lines of at most"),
    ],
)
def test_rows_of_another_form_stop_the_reading(data: bytes, line: int, what: str) -> None:
    error = row_error(data)
    assert error.line == line
    assert what in error.message


def test_reading_is_lazy_and_tells_how_far_it_is() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.given += 1
            return b"A,B,C\n"

    source = Endless()
    rows = iter(Reader(source))  # type: ignore[arg-type]
    assert [next(rows).number for _ in range(3)] == [1, 2, 3]
    assert source.given == 4
    assert [row.offset for row in Reader(io.BytesIO(CSV))][-1] == len(CSV)


# --- References ------------------------------------------------------------------------------------------------------


def references(data: bytes, **options: Any) -> list[str]:
    return [document["referenceId"] for document in documents(data, **options)]


def test_equal_rows_of_one_file_have_references_of_their_own() -> None:
    twice = CSV + CSV.splitlines(keepends=True)[1]
    assert len(set(references(twice))) == 3
    assert references(twice)[:2] == references(CSV)  # a file that grew keeps the references of its first rows


def test_references_survive_an_editor() -> None:
    for edited in (b"\xef\xbb\xbf" + CSV, CSV.replace(b"\n", b"\r\n"), CSV.replace(b"396", b'"396"'), CSV + b"\n"):
        assert references(edited) == references(CSV)


def test_references_differ_by_customer_and_content() -> None:
    assert not set(references(CSV)) & set(references(CSV, customer="c-18"))
    assert references(CSV)[1] != references(CSV.replace(b"109", b"110"))[1]


@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=2, max_size=2, unique_by=tuple))
def test_references_do_not_run_together(rows: list[list[str]]) -> None:
    one, other = (derived_reference("c", Row(1, 1, 1, tuple(values), {})) for values in rows)
    assert one != other


@pytest.mark.skipif(not REAL.exists(), reason="the real usage file is not on this machine")
def test_the_real_file() -> None:
    total, seen = Total(), set()
    with REAL.open("rb") as file:
        reader = Reader(file)
        mapping = build_mapping((*MAPS, "occurredAt=TIMESTAMP"), reader.columns, "c-17", assume_utc=True)
        for row in reader:
            document = mapping.document(row)
            total.add(document["delta"])
            seen.add(document["referenceId"])
    assert (row.number, total.text, len(seen)) == (19_366, "26450535", 19_366)
