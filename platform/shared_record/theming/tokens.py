"""Typed design tokens: what a theme may set, read from ``tokens.toml``.

Every value is parsed into a type first and the CSS is written from the types (``css.py``), so no text of a theme
reaches a stylesheet.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from shared_record.theming.colours import Colour, Pair, Palette, pairs
from shared_record.theming.problems import ThemeProblem, shown

PICTURE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}\.png")

_EnumT = TypeVar("_EnumT", bound=StrEnum)


class FontStack(StrEnum):
    """A font that is already on the reader's device; nothing is downloaded."""

    SYSTEM = "system"
    HUMANIST = "humanist"
    SERIF = "serif"
    MONO = "mono"


class Radius(StrEnum):
    """How round fields and buttons are."""

    NONE = "none"
    SMALL = "small"
    LARGE = "large"


class TotalWeight(StrEnum):
    """How heavy the one large figure is set."""

    LIGHT = "light"
    REGULAR = "regular"
    SEMIBOLD = "semibold"


class Density(StrEnum):
    """How far lines stand apart; everything on a page is a multiple of it."""

    COMPACT = "compact"
    REGULAR = "regular"
    AIRY = "airy"


class Rules(StrEnum):
    """The lines of tables: one below each row, one below each row with the frame in ink, or none between rows."""

    HAIRLINE = "hairline"
    INK = "ink"
    BARE = "bare"


class Labels(StrEnum):
    """How labels, captions and column heads are set."""

    PLAIN = "plain"
    SMALL_CAPS = "small-caps"


class Scheme(StrEnum):
    """Which palettes a screen may use; paper always gets the light one."""

    BOTH = "light dark"
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Everything a theme may set. ``logo`` and ``logo_dark`` name files below ``static/``."""

    light: Palette
    dark: Palette
    font: FontStack = FontStack.SYSTEM
    radius: Radius = Radius.SMALL
    total_weight: TotalWeight = TotalWeight.REGULAR
    density: Density = Density.REGULAR
    rules: Rules = Rules.HAIRLINE
    labels: Labels = Labels.PLAIN
    scheme: Scheme = Scheme.BOTH
    logo: str = ""
    logo_dark: str = ""


class TomlFile:
    """One TOML file of a theme, read value by value; what is wrong with it is collected, not raised."""

    def __init__(self, path: Path, name: str) -> None:
        """Read ``path``; ``name`` is how problems call it."""
        self.name = name
        self.problems: list[ThemeProblem] = []
        self.data: Mapping[str, object] = {}
        try:
            self.data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.report("", error.strerror or "no file", "a file that can be read")
        except ValueError as error:
            self.report("", shown(str(error)), "TOML in UTF-8")

    def report(self, key: str, found: str, expected: str) -> None:
        """Add a problem of this file."""
        self.problems.append(ThemeProblem(self.name, key, found, expected))

    def only(self, given: Mapping[str, object], known: tuple[str, ...], table: str = "") -> None:
        """Report each key that is not known: a misspelt key would else be silently without effect."""
        for key in given:
            if key not in known:
                self.report(f"{table}{key}", "a key that does not exist", f"one of {', '.join(known)}")

    def text(self, key: str) -> str:
        """Return a text that must be there."""
        value = self.data.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.report(key, "nothing" if value is None else shown(value), "a text")
        return ""

    def choice(self, key: str, default: _EnumT) -> _EnumT:
        """Return one of the values of an enumeration."""
        kind, value = type(default), self.data.get(key, default)
        if isinstance(value, str) and value in list(kind):
            return kind(value)
        self.report(key, shown(value), f"one of {', '.join(kind)}")
        return default

    def picture(self, key: str) -> str:
        """Return the name of a picture below ``static/``, or an empty text."""
        value = self.data.get(key, "")
        if value == "" or (isinstance(value, str) and PICTURE_NAME.fullmatch(value)):
            return value
        self.report(key, shown(value), "the name of a file in static/, such as logo.png")
        return ""

    def palette(self, table: str) -> Palette | None:
        """Return the colours of one scheme, or ``None`` where one of them is missing or wrong."""
        given = self.data.get(table)
        if not isinstance(given, dict):
            self.report(f"[{table}]", "nothing" if given is None else shown(given), "a table of colours")
            return None
        names = tuple(one.name for one in fields(Palette))
        self.only(given, names, f"{table}.")
        colours = {name: self._colour(f"{table}.{name}", given.get(name)) for name in names}
        sound = {name: colour for name, colour in colours.items() if colour is not None}
        return Palette(**sound) if len(sound) == len(names) else None

    def _colour(self, key: str, value: object) -> Colour | None:
        try:
            if isinstance(value, str):
                return Colour.parse(value)
        except ValueError:
            pass
        self.report(key, "nothing" if value is None else shown(value), "a colour like #1f5f5b")
        return None


def check_tokens(path: Path, name: str) -> tuple[Tokens | None, list[ThemeProblem]]:
    """Read a ``tokens.toml``; return its tokens if they are sound and have contrast, and everything that is wrong."""
    file = TomlFile(path, name)
    if file.problems:
        return None, file.problems
    file.only(file.data, tuple(one.name for one in fields(Tokens)))
    light, dark = file.palette("light"), file.palette("dark")
    for scheme, palette in (("light", light), ("dark", dark)):
        for pair in pairs(scheme, palette) if palette is not None else ():
            if not pair.is_enough:
                file.report(f"{scheme}.{pair.foreground}", *_too_close(pair))
    choices = {
        "font": file.choice("font", FontStack.SYSTEM),
        "radius": file.choice("radius", Radius.SMALL),
        "total_weight": file.choice("total_weight", TotalWeight.REGULAR),
        "density": file.choice("density", Density.REGULAR),
        "rules": file.choice("rules", Rules.HAIRLINE),
        "labels": file.choice("labels", Labels.PLAIN),
        "scheme": file.choice("scheme", Scheme.BOTH),
        "logo": file.picture("logo"),
        "logo_dark": file.picture("logo_dark"),
    }
    if light is None or dark is None or file.problems:
        return None, file.problems
    return Tokens(light, dark, **choices), []  # type: ignore[arg-type]


def all_pairs(tokens: Tokens) -> Iterator[Pair]:
    """Yield every pair of colours of both palettes that text is set in."""
    yield from pairs("light", tokens.light)
    yield from pairs("dark", tokens.dark)


def _too_close(pair: Pair) -> tuple[str, str]:
    found = f"contrast {pair.ratio:.2f} on {pair.background} ({pair.use})"
    return found, f"at least 4.5; {pair.nearest} would do"
