"""Numbers, dates and moments as people read them. Amounts are handled as text: no float, no rounding.

Locale data is CLDR's, from Babel; where no ``locale`` is given, it is the language in use. Digits are 0 to 9 in every
language, so that a figure reads the same on a page, on the invoice and in a file. Times are always in 24 hours and
always name their zone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date as babel_date
from babel.dates import format_skeleton

from shared_record import languages
from shared_record.languages import gettext as _
from shared_record.languages import ngettext, spoken

LONGEST_ALIGNED_FRACTION = 8
"""A column is aligned on at most this many decimals, so that one very exact amount does not push the others away."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: ``text`` for people, ``iso`` for ``<time datetime>``, ``clock`` where the time stands apart."""

    text: str
    iso: str
    clock: str = ""


@dataclass(frozen=True, slots=True)
class AmountCell:
    """An amount in a column. ``pad`` is what the stylesheet adds unseen after it, so that decimal points line up.

    The cell's text stays the plain number: it is what is copied and what a screen reader says.
    """

    text: str
    pad: str = ""


def format_amount(canonical: str, locale: str | None = None, *, min_fraction: int = 0, signed: bool = False) -> str:
    """Group a canonical decimal (``-12480.5``), keeping each digit; fill its fraction with zeros to ``min_fraction``.

    ``signed`` writes the plus sign of an amount above zero.
    """
    known = _locale(locale)
    symbols = known.number_symbols["latn"]
    whole, _, fraction = canonical.removeprefix("-").partition(".")
    if not (whole.isascii() and whole.isdigit() and (fraction == "" or (fraction.isascii() and fraction.isdigit()))):
        raise ValueError(f"{canonical!r} is not a canonical decimal")
    fraction = fraction.ljust(min_fraction, "0")
    sign = ""
    if canonical.startswith("-"):
        sign = symbols["minusSign"]
    elif signed and (whole + fraction).strip("0"):
        sign = symbols["plusSign"]
    point = symbols["decimal"] if fraction else ""
    return f"{sign}{_grouped(whole, known)}{point}{fraction}"


def format_total(canonical: str, locale: str | None = None) -> str:
    """Format an amount that stands alone: whole, or with at least two decimals."""
    return format_amount(canonical, locale, min_fraction=min(2, column_fraction([canonical])))


def column_fraction(amounts: Iterable[str]) -> int:
    """Return how many decimals a column of canonical ``amounts`` is set on: none, or two and more."""
    longest = max((len(amount.partition(".")[2]) for amount in amounts), default=0)
    return min(max(2, longest), LONGEST_ALIGNED_FRACTION) if longest else 0


def amount_cell(canonical: str, fraction: int, locale: str | None = None, *, signed: bool = False) -> AmountCell:
    """Format an amount for a column that is set on ``fraction`` decimals (see ``column_fraction``)."""
    shown = max(len(canonical.partition(".")[2]), min(2, fraction))
    text = format_amount(canonical, locale, min_fraction=min(2, fraction), signed=signed)
    return AmountCell(text, "0" * max(0, fraction - shown))


def amount_cells(amounts: Iterable[str], locale: str | None = None, *, signed: bool = False) -> tuple[AmountCell, ...]:
    """Format one whole column."""
    column = tuple(amounts)
    fraction = column_fraction(column)
    return tuple(amount_cell(amount, fraction, locale, signed=signed) for amount in column)


def format_count(count: int, locale: str | None = None) -> str:
    """Format a whole number with grouping."""
    return format_amount(str(count), locale)


def format_records(count: int, locale: str | None = None) -> str:
    """Return ``1 record`` or ``318 records``."""
    return ngettext("%(count)s record", "%(count)s records", count) % {"count": format_count(count, locale)}


def records_noun(count: int) -> str:
    """Return what follows a count of records that is written apart: ``record`` or ``records``."""
    return ngettext("record", "records", abs(count))


def format_date(moment: datetime, zone: str = "UTC", locale: str | None = None, *, short: bool = False) -> str:
    """Format the day of an aware ``moment`` in ``zone``: ``22 November 2026``, short ``22 Nov 2026``."""
    day = _local(moment, zone)
    if short:
        return str(format_skeleton("yMMMd", day, locale=_locale(locale)))
    return babel_date(day.date(), "long", locale=_locale(locale))


def format_month(period: str, locale: str | None = None) -> str:
    """Format a period ``2026-11`` as ``November 2026``."""
    start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    return str(format_skeleton("yMMMM", start, locale=_locale(locale)))


def format_clock(moment: datetime, zone: str = "UTC") -> str:
    """Format the time of day with its zone: ``17:40 UTC``."""
    local = _local(moment, zone)
    return f"{local:%H:%M} {zone_name(zone, local)}"


def format_moment(moment: datetime, zone: str = "UTC", locale: str | None = None) -> str:
    """Format a moment to the minute: ``22 November 2026, 09:41 UTC``."""
    return _("%(day)s, %(time)s") % {"day": format_date(moment, zone, locale), "time": format_clock(moment, zone)}


def format_boundaries(start: datetime, end: datetime, zone: str = "UTC", locale: str | None = None) -> str:
    """Format the half-open ``[start, end)`` with its zone: ``1 to 30 November 2026 (UTC)``.

    Where a boundary is not midnight in ``zone``, both are given to the minute and ``end`` as it is.
    """
    first, after = _local(start, zone), _local(end, zone)
    if first.time() != time() or after.time() != time():
        days = (format_date(moment, zone, locale) for moment in (start, end))
        begin, until = (
            _("%(day)s, %(time)s") % {"day": day, "time": f"{at:%H:%M}"}
            for day, at in zip(days, (first, after), strict=True)
        )
        return f"{_('%(start)s to %(end)s') % {'start': begin, 'end': until}} ({zone})"
    return f"{_days(first, after - timedelta(days=1), _locale(locale))} ({zone})"


def zone_name(zone: str, local: datetime) -> str:
    """Return the short name of ``zone`` at ``local``; zones without letters are written as an offset from UTC."""
    name, offset = local.tzname() or zone, f"{local:%z}"
    return name if name.isalpha() else f"UTC{offset[:3]}:{offset[3:5]}"


def moment(at: datetime, zone: str = "UTC", locale: str | None = None) -> Moment:
    """Return a moment to the minute, for a sentence."""
    return Moment(format_moment(at, zone, locale), _iso(at))


def day(at: datetime, zone: str = "UTC", locale: str | None = None) -> Moment:
    """Return a whole day, for a sentence."""
    return Moment(format_date(at, zone, locale), _local(at, zone).date().isoformat())


def row_moment(at: datetime, zone: str = "UTC", locale: str | None = None) -> Moment:
    """Return a moment for a row: short date, and the time of day apart (the table names the zone)."""
    return Moment(format_date(at, zone, locale, short=True), _iso(at), f"{_local(at, zone):%H:%M}")


def _locale(locale: str | None) -> Locale:
    return languages.locale(spoken() if locale is None else locale.replace("_", "-"))


def _local(moment: datetime, zone: str) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a zone")
    target: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
    return moment.astimezone(target)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _grouped(digits: str, locale: Locale) -> str:
    nearest, further = locale.decimal_formats[None].grouping
    if len(digits) <= nearest:
        return digits
    head, groups = digits[:-nearest], [digits[-nearest:]]
    while head:
        groups.insert(0, head[-further:])
        head = head[:-further]
    return str(locale.number_symbols["latn"]["group"]).join(groups)


def _days(first: datetime, last: datetime, locale: Locale) -> str:
    end = babel_date(last.date(), "long", locale=locale)
    if first.date() == last.date():
        return end
    if (first.year, first.month) == (last.year, last.month):
        return _("%(first)d to %(last)s") % {"first": first.day, "last": end}
    same_year = first.year == last.year
    begin = format_skeleton("MMMMd", first, locale=locale) if same_year else babel_date(first, "long", locale=locale)
    return _("%(start)s to %(end)s") % {"start": begin, "end": end}
