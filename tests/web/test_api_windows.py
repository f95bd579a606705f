"""Scopes of time: which combinations are a window, and every mistake named at once, by pointer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from shared_record.web.api.json_body import Number, invalid
from shared_record.web.api.shapes import Body, Count, Query, read_document, read_query
from shared_record.web.api.windows import Interval, Scoped, Since, Starting

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOVEMBER = Interval(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
ROOT = "0x" + "ab" * 32


class AnyQuery(Starting, Query):
    """A call that takes every way to state a window."""

    limit: Count = 1


class DatedBody(Scoped, Body):
    """A call that takes no starting checkpoint."""


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def scope_of(**given: str) -> Any:
    query, details = read_query(AnyQuery, MultiDict(given), NOW)
    assert query is not None, details
    return query.scope


def mistakes(**given: str) -> list[tuple[str, str]]:
    query, details = read_query(AnyQuery, MultiDict(given), NOW)
    assert query is None
    return sorted((detail.pointer, detail.code) for detail in details)


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        ({}, NOVEMBER),
        ({"timePreset": "current_month"}, NOVEMBER),
        ({"period": "2026-11"}, NOVEMBER),
        ({"period": "2025-02"}, Interval(day("2025-02-01"), day("2025-03-01"))),
        ({"startDate": "2026-11-01", "endDate": "2026-12-01"}, NOVEMBER),
        ({"startDate": "2026-11-01", "endDate": "2026-12-01", "timePreset": "custom"}, NOVEMBER),
        ({"startDate": "2026-11-01T00:00:00Z", "endDate": "2026-11-30T23:00:00-01:00"}, NOVEMBER),
        (
            {"startDate": "2026-11-01t02:00:00.0000001z", "endDate": "2028-11-01"},
            Interval(datetime(2026, 11, 1, 2, 0, 0, 1000, tzinfo=UTC), day("2028-11-01")),
        ),
        ({"startingCheckpoint": ROOT}, Since(digest=b"\xab" * 32)),
        ({"startingCheckpoint": "AB" * 32, "startingCheckpointType": "itemsRoot"}, Since(digest=b"\xab" * 32)),
        ({"startingCheckpoint": "rec_1", "startingCheckpointType": "anchorId"}, Since(record_id="rec_1")),
        ({"startingCheckpoint": "rec_1"}, Since(record_id="rec_1")),
    ],
)
def test_one_mode_is_a_window(given: dict[str, str], scope: Any) -> None:
    assert scope_of(**given) == scope


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({"period": "2026-10", "timePreset": "current_month"}, ["/timePreset"]),
        ({"period": "2026-10", "startDate": "2026-10-01", "endDate": "2026-11-01"}, ["/endDate", "/startDate"]),
        ({"timePreset": "current_month", "startDate": "2026-11-01"}, ["/startDate"]),
        ({"timePreset": "custom"}, ["/endDate", "/startDate"]),
        ({"timePreset": "custom", "endDate": "2026-11-01"}, ["/startDate"]),
        ({"startDate": "2026-11-01"}, ["/endDate"]),
        ({"startingCheckpoint": ROOT, "period": "2026-11"}, ["/period"]),
        ({"startingCheckpoint": ROOT, "timePreset": "current_month"}, ["/timePreset"]),
        ({"startingCheckpointType": "proofRoot"}, ["/startingCheckpointType"]),
    ],
)
def test_two_modes_are_an_invalid_combination(given: dict[str, str], pointers: list[str]) -> None:
    assert mistakes(**given) == [(pointer, "INVALID_SCOPE_COMBINATION") for pointer in pointers]
    _, details = read_query(AnyQuery, MultiDict(given), NOW)
    assert invalid(details).code == "INVALID_SCOPE_COMBINATION"


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"period": "2026-12"}, "/period"),
        ({"period": "2026-13"}, "/period"),
        ({"period": "9999-12"}, "/period"),
        ({"period": "0000-01"}, "/period"),
        ({"period": "2026-1"}, "/period"),
        ({"period": ""}, "/period"),
        ({"timePreset": "last_month"}, "/timePreset"),
        ({"startDate": "2026-11-31", "endDate": "2026-12-01"}, "/startDate"),
        ({"startDate": "1 November", "endDate": "2026-12-01"}, "/startDate"),
        ({"startDate": "0001-01-01T00:00:00+01:00", "endDate": "2026-12-01"}, "/startDate"),
        ({"startDate": "2026-11-01", "endDate": "9999-12-31"}, "/endDate"),
        ({"startDate": "2026-11-01T10:00:00", "endDate": "2026-12-01"}, "/startDate"),
        ({"startDate": "2026-11-01", "endDate": "2026-11-01"}, "/endDate"),
        ({"startDate": "2026-11-02", "endDate": "2026-11-01"}, "/endDate"),
        ({"startingCheckpoint": "a b"}, "/startingCheckpoint"),
        ({"startingCheckpoint": "rec_1", "startingCheckpointType": "proofRoot"}, "/startingCheckpoint"),
        ({"startingCheckpoint": ROOT, "startingCheckpointType": "recordId"}, "/startingCheckpoint"),
        ({"startingCheckpoint": ROOT, "startingCheckpointType": "root"}, "/startingCheckpointType"),
    ],
)
def test_a_value_that_cannot_be_read(given: dict[str, str], pointer: str) -> None:
    assert mistakes(**given) == [(pointer, "VALIDATION_ERROR")]


@pytest.mark.parametrize(
    ("end", "fits"),
    [("2026-02-01", True), ("2026-02-01T00:00:00.001Z", False), ("2026-01-31", True), ("2027-01-01", False)],
)
def test_a_window_is_at_most_24_months_wide(end: str, fits: bool) -> None:
    given = {"startDate": "2024-02-01", "endDate": end}
    if fits:
        assert scope_of(**given).end == datetime.fromisoformat(end).replace(tzinfo=UTC)
    else:
        assert mistakes(**given) == [("/endDate", "SCOPE_TOO_WIDE")]


def test_all_mistakes_of_a_call_are_told_together() -> None:
    found = mistakes(period="2027-01", endDate="never", limit="x", color="red", startingCheckpointType="root")
    assert found == [
        ("/color", "VALIDATION_ERROR"),
        ("/endDate", "INVALID_SCOPE_COMBINATION"),
        ("/endDate", "VALIDATION_ERROR"),
        ("/limit", "VALIDATION_ERROR"),
        ("/period", "VALIDATION_ERROR"),
        ("/startingCheckpointType", "INVALID_SCOPE_COMBINATION"),
        ("/startingCheckpointType", "VALIDATION_ERROR"),
    ]


def test_a_body_states_a_window_in_the_same_way() -> None:
    body, _ = read_document(DatedBody, {"period": None, "timePreset": "current_month"}, NOW)
    assert body is not None
    assert body.scope == NOVEMBER
    _, details = read_document(
        DatedBody, {"period": Number("5"), "startDate": "2026-11-01", "startingCheckpoint": "x"}, NOW
    )
    assert sorted((detail.pointer, detail.code) for detail in details) == [
        ("/period", "VALIDATION_ERROR"),
        ("/startDate", "INVALID_SCOPE_COMBINATION"),
        ("/startingCheckpoint", "VALIDATION_ERROR"),
    ]
    assert read_document(DatedBody, [], NOW)[0] is None
