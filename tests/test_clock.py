"""Time: whole milliseconds, always UTC, and months that are half-open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.clock import SteppedClock, SystemClock, period_bounds, period_of, rfc3339, to_milliseconds

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=ZONES)


def test_the_system_clock_is_aware_and_cut_to_milliseconds() -> None:
    before, now = datetime.now(UTC), SystemClock().now()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert timedelta(milliseconds=-1) < now - before < timedelta(seconds=10)


def test_the_stepped_clock_stands_still_until_it_is_moved() -> None:
    clock = SteppedClock(datetime(2026, 11, 22, 12, 0, 0, 1999, UTC))
    assert clock.now() == clock.now() == datetime(2026, 11, 22, 12, 0, 0, 1000, UTC)
    clock.advance(minutes=5, milliseconds=1)
    assert rfc3339(clock.now()) == "2026-11-22T12:05:00.002Z"
    clock.set(datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))))
    assert clock.now() == datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="zone"):
        clock.set(datetime(2020, 1, 1))


@given(MOMENTS)
def test_a_moment_is_cut_never_rounded_and_reads_back(moment: datetime) -> None:
    cut = to_milliseconds(moment)
    assert timedelta(0) <= moment - cut < timedelta(milliseconds=1)
    assert datetime.fromisoformat(rfc3339(moment)) == cut
    assert len(rfc3339(moment)) == len("2026-11-22T09:00:00.000Z")


@given(MOMENTS)
def test_a_moment_lies_in_its_utc_month(moment: datetime) -> None:
    start, end = period_bounds(period_of(moment))
    assert start <= moment < end
    assert (start.day, end.day) == (1, 1)
    assert period_of(end) != period_of(start) == period_of(end - timedelta(microseconds=1))


def test_a_month_turns_in_utc() -> None:
    midnight = datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert period_of(midnight) == "2026-11"
    assert period_bounds("2026-12") == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert period_bounds("2028-02")[1] - period_bounds("2028-02")[0] == timedelta(days=29)


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-13", "2026-00", "0000-01", "2026-011", "26-11", "2026-11 ", "2026/11"],
)
def test_anything_but_a_month_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        period_bounds(text)
