"""Figures and moments on paper, in the language in use. Amounts are handled as text: no float, no rounding."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_skeleton

from shared_record import languages
from shared_record.languages import gettext as _
from shared_record.languages import spoken

LONGEST_ALIGNED_FRACTION = 8
"""A column is aligned on at most this many decimals, so that one very exact amount does not push the others away."""
LONGEST_WORD, PIECE = 22, 16
"""Characters of a word that is set as one; in a longer one a line may end after each piece."""
BREAK = "\u200b"
"""Where a line may end; templates set it as nothing, so that it is in no copied text."""
_MARKS = "\u200e\u200f\u061c"
_INVISIBLE = dict.fromkeys(map(ord, f"\u00ad\u2060\ufeff{BREAK}{_MARKS}"))
_REPLACED = {"Cc", "Cf", "Cn", "Co", "Cs"}
_JOINERS = "\u200c\u200d"  # Persian and Indic scripts are written with them


def legible(text: str, most: int = 0) -> str:
    """Return ``text`` as paper can show it, in one line and at most ``most`` characters.

    Spaces of any kind become one space, and marks that are never seen are left out. What has no shape or turns the
    direction of what follows (controls, overrides, unassigned and private characters) becomes U+FFFD.
    """
    shown = "".join(
        one if unicodedata.category(one) not in _REPLACED or one in _JOINERS else "\ufffd"
        for one in re.sub(r"\s+", " ", text.translate(_INVISIBLE)).strip()
    )
    return shown[: most - 1].rstrip() + "…" if most and len(shown) > most else shown


def breakable(text: str) -> str:
    """Return legible text with ``BREAK`` inside words that are longer than any real one."""
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _in_pieces(word[0]), text)


def amount(canonical: str, min_fraction: int = 0) -> str:
    """Group a canonical decimal as the language does, keeping each digit. Templates set it from left to right."""
    symbols = _locale().number_symbols["latn"]
    whole, _, fraction = canonical.removeprefix("-").partition(".")
    fraction = fraction.ljust(min_fraction, "0")
    # CLDR's Arabic sign comes with a direction mark, which would stay in copied text.
    sign = symbols["minusSign"].strip(_MARKS) if canonical.startswith("-") else ""
    return f"{sign}{_grouped(whole)}{symbols['decimal'] if fraction else ''}{fraction}"


def standing_alone(canonical: str) -> str:
    """Group an amount that is in no column: whole, or with at least two decimals."""
    return amount(canonical, min(2, column_fraction([canonical])))


def column_fraction(amounts: Iterable[str]) -> int:
    """Return how many decimals a column of canonical ``amounts`` is set on: none, or two and more."""
    longest = max((len(one.partition(".")[2]) for one in amounts), default=0)
    return min(max(2, longest), LONGEST_ALIGNED_FRACTION) if longest else 0


def in_column(canonical: str, fraction: int) -> tuple[str, str]:
    """Return an amount for a column set on ``fraction`` decimals, and what to set unseen after it."""
    shown = max(len(canonical.partition(".")[2]), min(2, fraction))
    return amount(canonical, min(2, fraction)), "0" * max(0, fraction - shown)


def count(number: int) -> str:
    """Group a whole number."""
    return amount(str(number))


def month(start: datetime) -> str:
    """Write the month of ``start``: ``November 2026``."""
    return str(format_skeleton("yMMMM", start, locale=_locale()))


def moment(at: datetime, zone: str) -> str:
    """Write a moment to the minute with its zone: ``22 November 2026, 09:41 UTC``."""
    local = _local(at, zone)
    name, offset = local.tzname() or zone, f"{local:%z}"
    known = name if name.isalpha() else f"UTC{offset[:3]}:{offset[3:5]}"
    day = format_date(local.date(), "long", locale=_locale())
    return _("%(day)s, %(time)s") % {"day": day, "time": f"{local:%H:%M} {known}"}


def row_moment(at: datetime, zone: str) -> str:
    """Write a moment for a row, whose table names the zone: ``22 Nov 2026, 09:41``."""
    local = _local(at, zone)
    day = format_skeleton("yMMMd", local, locale=_locale())
    return _("%(day)s, %(time)s") % {"day": day, "time": f"{local:%H:%M}"}


def boundaries(start: datetime, end: datetime) -> str:
    """Write the days of the month ``[start, end)`` with its zone: ``1 to 30 November 2026 (UTC)``."""
    last = end.astimezone(UTC) - timedelta(days=1)
    shown = {"first": start.astimezone(UTC).day, "last": format_date(last.date(), "long", locale=_locale())}
    return f"{_('%(first)d to %(last)s') % shown} (UTC)"


def _in_pieces(word: str) -> str:
    pieces, length = [], 0
    for one in word:
        if length >= PIECE and not unicodedata.category(one).startswith("M") and one not in _JOINERS:
            pieces.append(BREAK)
            length = 0
        pieces.append(one)
        length += 1
    return "".join(pieces)


def _grouped(digits: str) -> str:
    nearest, further = _locale().decimal_formats[None].grouping
    head, groups = digits[:-nearest], [digits[-nearest:]]
    while head:
        groups.insert(0, head[-further:])
        head = head[:-further]
    return str(_locale().number_symbols["latn"]["group"]).join(groups)


def _local(at: datetime, zone: str) -> datetime:
    target: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
    return at.astimezone(target)


def _locale() -> Locale:
    return languages.locale(spoken())
