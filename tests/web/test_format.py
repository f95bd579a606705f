from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.web.record import format as fmt

NOON = datetime(2026, 11, 22, 9, 41, 30, tzinfo=UTC)
canonical = st.from_regex(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{0,23}[1-9])?", fullmatch=True).filter(lambda t: t != "-0")


@pytest.mark.parametrize(
    ("text", "locale", "shown"),
    [
        ("0", "en", "0"),
        ("12480.5", "en", "12,480.5"),
        ("-1234567", "en", "-1,234,567"),
        ("0.000000000000000000000001", "en", "0.000000000000000000000001"),
        (
            "12345678901234567890.123456789012345678901234",
            "en",
            "12,345,678,901,234,567,890.123456789012345678901234",
        ),
        ("1234567.5", "de", "1.234.567,5"),
        ("1234567.5", "en-IN", "12,34,567.5"),
        ("-1234567.5", "sv", "−1\u00a0234\u00a0567,5"),
        ("1234.5", "ar", "1,234.5"),
    ],
)
def test_amounts_keep_each_digit(text, locale, shown):
    got = fmt.format_amount(text, locale)
    assert got.replace("\u200e", "") == shown


@given(canonical)
def test_amounts_read_back_exactly(text):
    shown = fmt.format_amount(text)
    assert shown.replace(",", "") == text
    assert Decimal(fmt.format_total(text).replace(",", "")) == Decimal(text)


@given(st.lists(canonical, min_size=1, max_size=6))
def test_a_column_lines_up_and_its_text_is_the_number(texts):
    cells = fmt.amount_cells(texts)
    width = fmt.column_fraction(texts)
    for text, cell in zip(texts, cells, strict=True):
        assert Decimal(cell.text.replace(",", "")) == Decimal(text)
        decimals = len(cell.text.partition(".")[2]) + len(cell.pad)
        assert decimals == width or (cell.pad == "" and decimals > fmt.LONGEST_ALIGNED_FRACTION)
        assert set(cell.pad) <= {"0"}
        assert cell.pad == "" or "." in cell.text


def test_fractions_show_at_least_two_digits_in_a_column():
    assert [cell.text for cell in fmt.amount_cells(["1.5", "-3", "1000"])] == ["1.50", "-3.00", "1,000.00"]
    assert [cell.text for cell in fmt.amount_cells(["1", "2000"])] == ["1", "2,000"]
    assert fmt.amount_cells(["1.123456", "2"])[1] == fmt.AmountCell("2.00", "0000")
    assert (fmt.format_total("12480.5"), fmt.format_total("12480")) == ("12,480.50", "12,480")


def test_a_signed_amount_shows_plus_above_zero_only():
    assert [fmt.format_amount(text, signed=True) for text in ("5", "-5", "0")] == ["+5", "-5", "0"]


@pytest.mark.parametrize("text", ["", "-", "1e5", "1,5", "+1", "1.-2", "٣", "NaN", " 1"])
def test_what_is_no_canonical_decimal_is_an_error(text):
    with pytest.raises(ValueError, match="canonical"):
        fmt.format_amount(text)


def test_counts():
    assert fmt.format_records(1) == "1 record"
    assert fmt.format_records(0) == "0 records"
    assert fmt.format_records(318) == "318 records"
    assert fmt.format_records(1_200_000) == "1,200,000 records"


@pytest.mark.parametrize(
    ("zone", "locale", "shown"),
    [
        ("UTC", "en", "22 November 2026, 09:41 UTC"),
        ("Europe/Berlin", "en", "22 November 2026, 10:41 CET"),
        ("Asia/Kathmandu", "en", "22 November 2026, 15:26 UTC+05:45"),
        ("America/Sao_Paulo", "en", "22 November 2026, 06:41 UTC-03:00"),
        ("Pacific/Kiritimati", "en", "22 November 2026, 23:41 UTC+14:00"),
        ("UTC", "de", "22. November 2026, 09:41 UTC"),
    ],
)
def test_moments_name_their_zone(zone, locale, shown):
    assert fmt.format_moment(NOON, zone, locale) == shown


def test_a_naive_moment_is_an_error():
    with pytest.raises(ValueError, match="zone"):
        fmt.format_moment(datetime(2026, 11, 22))


def test_days_are_those_of_the_zone():
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    assert fmt.format_date(late, short=True) == "22 Nov 2026"
    assert fmt.day(late, "Asia/Tokyo") == fmt.Moment("23 November 2026", "2026-11-23")
    assert fmt.row_moment(late) == fmt.Moment("22 Nov 2026", "2026-11-22T23:30:00Z", "23:30")
    assert fmt.moment(late).iso == "2026-11-22T23:30:00Z"
    assert fmt.format_month("2026-11") == "November 2026"


@pytest.mark.parametrize(
    ("start", "end", "zone", "shown"),
    [
        ((2026, 11, 1), (2026, 12, 1), "UTC", "1 to 30 November 2026 (UTC)"),
        ((2026, 10, 15), (2026, 11, 15), "UTC", "15 October to 14 November 2026 (UTC)"),
        ((2026, 12, 1), (2027, 2, 1), "UTC", "1 December 2026 to 31 January 2027 (UTC)"),
        ((2026, 11, 1), (2026, 11, 2), "UTC", "1 November 2026 (UTC)"),
        (
            (2026, 11, 1),
            (2026, 12, 1),
            "Europe/Berlin",
            "1 November 2026, 01:00 to 1 December 2026, 01:00 (Europe/Berlin)",
        ),
    ],
)
def test_boundaries(start, end, zone, shown):
    assert fmt.format_boundaries(datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC), zone) == shown


def test_boundaries_that_are_midnight_abroad():
    start = datetime(2026, 10, 31, 23, tzinfo=UTC)
    shown = fmt.format_boundaries(start, start + timedelta(days=30), "Europe/Berlin")
    assert shown == "1 to 30 November 2026 (Europe/Berlin)"
