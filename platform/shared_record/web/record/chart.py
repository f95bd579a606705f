"""The chart of a period by day: where its bars stand. Pure; the template draws it, the stylesheet colours it.

Coordinates are whole numbers made from exact decimals. The drawing is stretched to its place, so it holds bars and the
line of zero alone; every word stands beside it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from shared_record.ledger.amounts import CONTEXT

STEP = 10
"""Width of a day; its bar is narrower, in the middle of it."""
BAR = 6
HEIGHT = 1_000
LEAST = 8
"""Height of the smallest bar: what is not zero is seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One day's bar."""

    x: int
    y: int
    height: int
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars on a ground of ``width`` by ``HEIGHT``, with the line of zero at ``zero``; and the words around them."""

    width: int
    zero: int
    bars: tuple[Bar, ...]
    first: str
    last: str
    title: str
    description: str
    height: int = HEIGHT
    bar_width: int = BAR


def draw(
    days: Sequence[str],
    totals: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    first: str,
    last: str,
    title: str,
    description: str,
) -> Chart:
    """Return the chart of ``totals`` (canonical decimals by day) over all ``days``; the rest are its texts."""
    values = {day: Decimal(total) for day, total in totals.items()}
    top = max([*values.values(), Decimal(0)])
    bottom = min([*values.values(), Decimal(0)])
    reach = CONTEXT.subtract(top, bottom)
    zero = _scaled(top, reach)
    bars = []
    for index, day in enumerate(days):
        value = values.get(day)
        if not value:
            continue
        height = max(_scaled(value.copy_abs(), reach), LEAST)
        y = zero - height if value > 0 else zero
        bars.append(Bar(STEP * index + (STEP - BAR) // 2, max(0, min(y, HEIGHT - height)), height, labels[day]))
    return Chart(STEP * len(days), zero, tuple(bars), first, last, title, description)


def _scaled(value: Decimal, reach: Decimal) -> int:
    """Return ``value`` of ``reach`` as a part of the height, rounded down."""
    return int(value * HEIGHT // reach) if reach else HEIGHT
