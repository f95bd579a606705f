from __future__ import annotations

import time
from decimal import Decimal, Inexact
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.errors import InvalidInputError
from shared_record.ledger import amounts

LARGEST = "99999999999999999999.999999999999999999999999"
SMALLEST = "0.000000000000000000000001"


def texts() -> st.SearchStrategy[str]:
    """Canonical amounts, zero included."""
    return st.builds(
        lambda sign, unscaled, places: amounts.canonical(Decimal((sign, tuple(map(int, str(unscaled))), -places))),
        st.integers(0, 1),
        st.integers(0, 10**20 - 1),
        st.integers(0, 24),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "1"),
        ("-1", "-1"),
        ("0.5", "0.5"),
        ("-0.50", "-0.5"),
        ("1200", "1200"),
        ("10.00", "10"),
        (LARGEST, LARGEST),
        ("-" + SMALLEST, "-" + SMALLEST),
    ],
)
def test_plain_amounts(text: str, expected: str) -> None:
    assert amounts.canonical(amounts.parse_amount(text)) == expected
    assert amounts.canonical(amounts.parse_amount(text, json_number=True)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("-2.50e-1", "-0.25"),
        ("1e19", "1" + "0" * 19),
        ("1e-24", SMALLEST),
        ("0.001e22", "1" + "0" * 19),
        ("1e0000000003", "1000"),
    ],
)
def test_exponents_in_json_numbers(text: str, expected: str) -> None:
    assert amounts.canonical(amounts.parse_amount(text, json_number=True)) == expected
    with pytest.raises(InvalidInputError) as caught:
        amounts.parse_amount(text, pointer="/delta")
    assert caught.value.code == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    "text",
    [
        "100000000000000000000",
        "0.0000000000000000000000001",
        "1.0000000000000000000000000",
        "1e20",
        "1e-25",
        "0.01e22",
        "1e3000000",
        "-1e-3000000",
        "1e" + "9" * 5000,
        "9" * 5000,
        "0." + "0" * 5000 + "1",
    ],
)
def test_too_long(text: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidInputError) as caught:
        amounts.parse_amount(text, json_number=True, pointer="/delta")
    assert time.process_time() - started < 0.1
    assert caught.value.code == "AMOUNT_PRECISION"
    assert [(detail.pointer, detail.code) for detail in caught.value.details] == [("/delta", "AMOUNT_PRECISION")]


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1\n", "+1", ".5", "1.", "01", "-", "--1", "1,5", "NaN", "Infinity", "1_000", "٣", "1e", "0x10"),
        *("0", "-0", "0.000", "0e5", "0e3000000", "1e" + "0" * 50_000 + "x"),
    ],
)
def test_malformed_or_zero(text: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidInputError) as caught:
        amounts.parse_amount(text, json_number=True)
    assert time.process_time() - started < 0.1
    assert caught.value.code == "VALIDATION_ERROR"


@given(texts())
def test_canonical_text_is_read_back_unchanged(text: str) -> None:
    if text == "0":
        return
    assert amounts.canonical(amounts.parse_amount(text)) == text


@given(st.text("0123456789.eE+-", max_size=60))
def test_any_text_is_exact_or_refused(text: str) -> None:
    try:
        value = amounts.parse_amount(text, json_number=True)
    except InvalidInputError:
        return
    assert Fraction(value) == Fraction(text)
    integer, _, fraction = amounts.canonical(value).lstrip("-").partition(".")
    assert len(integer) <= 20
    assert len(fraction) <= 24


@given(st.lists(texts(), max_size=30))
def test_sums_are_exact(parts: list[str]) -> None:
    total, text = amounts.Total(), "0"
    for part in parts:
        text = amounts.add(text, part)
        assert total.add(part) == text
    assert total.text == text
    assert Fraction(text) == sum(map(Fraction, parts), Fraction(0))


def test_canonical() -> None:
    assert amounts.canonical(Decimal("-0.00")) == "0"
    assert amounts.canonical(Decimal("1E+3")) == "1000"
    for text in ("NaN", "Infinity"):
        with pytest.raises(ValueError, match="finite"):
            amounts.canonical(Decimal(text))


def test_a_sum_that_does_not_fit_raises_instead_of_rounding() -> None:
    with pytest.raises(Inexact):
        amounts.add("1" + "0" * 60, SMALLEST)
