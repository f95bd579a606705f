"""Typed design tokens: what a theme may set, read from ``tokens.toml`` and written as CSS custom properties.

Every value is parsed into a type first and the CSS is written from the types, so no text of a theme reaches a
stylesheet.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

from shared_record.errors import ConfigurationError

MINIMUM_CONTRAST = 4.5

_HEX = re.compile(r"#[0-9a-f]{6}")
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


class Scheme(StrEnum):
    """Which palettes a screen may use; paper always gets the light one."""

    BOTH = "light dark"
    LIGHT = "light"
    DARK = "dark"


# ``system-ui`` is left out: on Linux and on CJK Windows it is often a poorly spaced face.
_FONTS = {
    FontStack.SYSTEM: '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", '
    '"Liberation Sans", Arial, sans-serif',
    FontStack.HUMANIST: 'Seravek, "Gill Sans Nova", Ubuntu, Calibri, Cantarell, "Source Sans 3", "DejaVu Sans", '
    "Verdana, sans-serif",
    FontStack.SERIF: '"Iowan Old Style", Charter, "Bitstream Charter", "Sitka Text", Cambria, "Source Serif 4", '
    '"Liberation Serif", "Times New Roman", serif',
    FontStack.MONO: 'ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace',
}
# Faces with a small x-height are set larger, so that all themes read as the same size.
_SCALES = {FontStack.SYSTEM: "100%", FontStack.HUMANIST: "100%", FontStack.SERIF: "112.5%", FontStack.MONO: "93.75%"}
_RADII = {Radius.NONE: "0", Radius.SMALL: "0.25rem", Radius.LARGE: "0.75rem"}
_WEIGHTS = {TotalWeight.LIGHT: "300", TotalWeight.REGULAR: "400", TotalWeight.SEMIBOLD: "600"}


@dataclass(frozen=True, slots=True)
class Colour:
    """An opaque sRGB colour."""

    red: int
    green: int
    blue: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``#rrggbb``; anything else is a ``ValueError``."""
        if _HEX.fullmatch(text.lower()) is None:
            raise ValueError(f"{text!r} is not a colour like #1f5f5b")
        return cls(*bytes.fromhex(text[1:]))

    def __str__(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    @property
    def luminance(self) -> float:
        """The relative luminance as WCAG 2 defines it."""
        red, green, blue = (_linear(channel / 255) for channel in (self.red, self.green, self.blue))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one scheme. ``on_accent`` is text on a surface filled with ``accent``."""

    background: Colour
    text: Colour
    muted: Colour
    hairline: Colour
    accent: Colour
    on_accent: Colour


@dataclass(frozen=True, slots=True)
class Tokens:
    """Everything a theme may set."""

    light: Palette
    dark: Palette
    font: FontStack = FontStack.SYSTEM
    radius: Radius = Radius.SMALL
    total_weight: TotalWeight = TotalWeight.REGULAR
    scheme: Scheme = Scheme.BOTH


@dataclass(frozen=True, slots=True)
class ContrastProblem:
    """Two colours of one palette that are too close for text."""

    palette: str
    foreground: str
    background: str
    ratio: float

    def __str__(self) -> str:
        return (
            f"[{self.palette}] {self.foreground} on {self.background} has contrast {self.ratio:.2f}, "
            f"needed {MINIMUM_CONTRAST}"
        )


def read_tokens(path: Path) -> Tokens:
    """Read the file at ``path``; what cannot be read or is not known raises ``ConfigurationError``."""
    return parse_tokens(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, object]:
    """Read one TOML file; failures are ``ConfigurationError`` with the file's name."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}.") from error


def parse_tokens(data: Mapping[str, object], source: str) -> Tokens:
    """Parse the content of a ``tokens.toml``; ``source`` names it in errors."""
    refuse_unknown(data, {field.name for field in fields(Tokens)}, source)
    return Tokens(
        light=_palette(data, "light", source),
        dark=_palette(data, "dark", source),
        font=_choice(data, "font", FontStack.SYSTEM, source),
        radius=_choice(data, "radius", Radius.SMALL, source),
        total_weight=_choice(data, "total_weight", TotalWeight.REGULAR, source),
        scheme=_choice(data, "scheme", Scheme.BOTH, source),
    )


def refuse_unknown(data: Mapping[str, object], known: set[str], source: str, table: str = "") -> None:
    """Raise ``ConfigurationError`` for the first key of ``data`` that is not ``known``: a misspelt key is an error."""
    for key in data:
        if key not in known:
            raise ConfigurationError(f"{source}: unknown key {table}{key}. Known: {', '.join(sorted(known))}.")


def css_variables(tokens: Tokens) -> str:
    """Write ``tokens`` as the custom properties that ``record.css`` reads."""
    first = tokens.dark if tokens.scheme is Scheme.DARK else tokens.light
    fixed = [
        f"color-scheme:{tokens.scheme}",
        f"--font:{_FONTS[tokens.font]}",
        f"--scale:{_SCALES[tokens.font]}",
        f"--radius:{_RADII[tokens.radius]}",
        f"--total-weight:{_WEIGHTS[tokens.total_weight]}",
    ]
    rules = [_rule([*fixed, *_properties(first)])]
    if tokens.scheme is Scheme.BOTH:
        rules.append(f"@media (prefers-color-scheme:dark){{{_rule(_properties(tokens.dark))}}}")
    rules.append(f"@media print{{{_rule(['color-scheme:light', *_properties(tokens.light)])}}}")
    return "\n".join(rules) + "\n"


def contrast(one: Colour, other: Colour) -> float:
    """Return the WCAG 2 contrast ratio, from 1 to 21; the order does not matter."""
    darker, lighter = sorted((one.luminance, other.luminance))
    return (lighter + 0.05) / (darker + 0.05)


def contrast_problems(tokens: Tokens) -> tuple[ContrastProblem, ...]:
    """List every pair used for text, in both palettes, that is below 4.5:1."""
    pairs = (("text", "background"), ("muted", "background"), ("accent", "background"), ("on_accent", "accent"))
    problems = []
    for name, palette in (("light", tokens.light), ("dark", tokens.dark)):
        for foreground, background in pairs:
            ratio = contrast(getattr(palette, foreground), getattr(palette, background))
            if ratio < MINIMUM_CONTRAST:
                problems.append(ContrastProblem(name, foreground, background, ratio))
    return tuple(problems)


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)


def _palette(data: Mapping[str, object], table: str, source: str) -> Palette:
    given = data.get(table)
    if not isinstance(given, dict):
        raise ConfigurationError(f"{source}: the table [{table}] is missing.")
    names = [field.name for field in fields(Palette)]
    refuse_unknown(given, set(names), source, f"{table}.")
    colours = {}
    for name in names:
        value = given.get(name)
        if not isinstance(value, str):
            raise ConfigurationError(f"{source}: {table}.{name} must be given as a colour like #1f5f5b.")
        try:
            colours[name] = Colour.parse(value)
        except ValueError as error:
            raise ConfigurationError(f"{source}: {table}.{name}: {error}.") from error
    return Palette(**colours)


def _choice(data: Mapping[str, object], key: str, default: _EnumT, source: str) -> _EnumT:
    kind, value = type(default), data.get(key, default)
    if not isinstance(value, str) or value not in list(kind):
        raise ConfigurationError(f"{source}: {key} must be one of: {', '.join(kind)}.")
    return kind(value)


def _properties(palette: Palette) -> list[str]:
    return [f"--{field.name.replace('_', '-')}:{getattr(palette, field.name)}" for field in fields(Palette)]


def _rule(declarations: list[str]) -> str:
    return f":root{{{';'.join(declarations)}}}"
