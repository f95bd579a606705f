"""Exact decimals: how amounts are read, added and written. No float, no rounding, ever."""

from __future__ import annotations

import re
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

from shared_record.errors import Detail, InvalidInputError

MAX_INTEGER_DIGITS = 20
MAX_FRACTION_DIGITS = 24

CONTEXT = Context(prec=60, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Wide enough for 10^15 of the largest amounts; a result that does not fit raises instead of being rounded."""

# The JSON number grammar (RFC 8259, section 6), for strings too: one spelling of numbers everywhere.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?", re.ASCII)


def parse_amount(text: str, *, json_number: bool = False, pointer: str = "") -> Decimal:
    """Read an amount exactly, or raise ``InvalidInputError`` naming ``pointer``.

    Code ``AMOUNT_PRECISION`` for more than 20 integer or 24 fraction digits, else ``VALIDATION_ERROR`` (malformed, or
    zero). An exponent is allowed in a ``json_number`` if the expanded form fits; it is judged before it is expanded,
    so ``1e3000000`` costs nothing.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or (match[4] is not None and not json_number):
        raise _refused("VALIDATION_ERROR", "Write a decimal number, for example 12.5 or -3.", pointer)
    integer, fraction, sign, exponent = match[1], match[2] or "", match[3], (match[4] or "").lstrip("0") or "0"
    digits = integer + fraction
    significant = digits.lstrip("0")
    if not significant:
        raise _refused("VALIDATION_ERROR", "An amount of zero is not recorded.", pointer)
    fits = len(digits) + len(exponent) <= 2 * (MAX_INTEGER_DIGITS + MAX_FRACTION_DIGITS)
    if fits:
        shift = -int(exponent) if sign == "-" else int(exponent)
        point = len(integer) + shift - (len(digits) - len(significant))
        fits = point <= MAX_INTEGER_DIGITS and len(fraction) - shift <= MAX_FRACTION_DIGITS
    if not fits:
        raise _refused(
            "AMOUNT_PRECISION",
            f"An amount has at most {MAX_INTEGER_DIGITS} digits before the decimal point and "
            f"{MAX_FRACTION_DIGITS} after it.",
            pointer,
        )
    return CONTEXT.create_decimal(text)


def canonical(value: Decimal) -> str:
    """Return the one text of ``value``: no exponent, no trailing zero, no ``-0``."""
    if not value.is_finite():
        raise ValueError("not a finite number")
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def add(a: str, b: str) -> str:
    """Return the exact sum of two decimal texts, in canonical form."""
    return canonical(CONTEXT.add(Decimal(a), Decimal(b)))


def subtract(a: str, b: str) -> str:
    """Return the exact difference ``a - b`` of two decimal texts, in canonical form."""
    return canonical(CONTEXT.subtract(Decimal(a), Decimal(b)))


class Total:
    """A running total: exact, kept in canonical form."""

    __slots__ = ("_value",)

    def __init__(self, start: str = "0") -> None:
        self._value = Decimal(start)

    def add(self, amount: Decimal | str) -> str:
        """Add ``amount`` and return the new total."""
        self._value = CONTEXT.add(self._value, Decimal(amount))
        return canonical(self._value)

    @property
    def text(self) -> str:
        """The total in canonical form."""
        return canonical(self._value)


def _refused(code: str, message: str, pointer: str) -> InvalidInputError:
    return InvalidInputError(message, code=code, details=(Detail(pointer, code, message),))
