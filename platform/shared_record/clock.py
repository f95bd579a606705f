"""Time as a dependency: everything that asks for the time takes a ``Clock``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Protocol

_PERIOD = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])", re.ASCII)


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC, whole milliseconds."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC, cut to milliseconds (the resolution of ledger entries)."""
        return to_milliseconds(datetime.now(UTC))


class SteppedClock:
    """A clock that stands still until it is moved: for seeding the demo and for tests."""

    def __init__(self, start: datetime) -> None:
        self._now = to_milliseconds(start)

    def now(self) -> datetime:
        """Return the instant the clock was last set to."""
        return self._now

    def set(self, moment: datetime) -> None:
        """Move the clock to ``moment`` (aware)."""
        self._now = to_milliseconds(moment)

    def advance(self, **delta: float) -> None:
        """Move the clock on by a ``timedelta`` given in keywords, e.g. ``advance(minutes=5)``."""
        self.set(self._now + timedelta(**delta))


def to_milliseconds(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, cut (not rounded) to whole milliseconds; naive input is a ``ValueError``."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs a zone")
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """Format an aware ``moment`` as RFC 3339 in UTC with three decimals: ``2026-11-22T09:00:00.000Z``."""
    return to_milliseconds(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def period_of(moment: datetime) -> str:
    """Return the UTC calendar month of ``moment`` as ``YYYY-MM``."""
    return moment.astimezone(UTC).strftime("%Y-%m")


def is_month(text: str) -> bool:
    """Tell whether ``text`` is a month ``YYYY-MM`` that ``period_bounds`` takes."""
    try:
        period_bounds(text)
    except (ValueError, OverflowError):
        return False
    return True


def period_bounds(period: str) -> tuple[datetime, datetime]:
    """Return the half-open UTC interval ``[start, end)`` of the month ``YYYY-MM``; else ``ValueError``."""
    if not _PERIOD.fullmatch(period):
        raise ValueError(f"{period!r} is not a month YYYY-MM")
    start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    end = (start.replace(day=1) + timedelta(days=32)).replace(day=1)
    return start, end
