"""Colours, palettes, and the contrast that text needs (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

MINIMUM_CONTRAST = 4.5

_HEX = re.compile(r"#[0-9a-f]{6}")


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

    def towards(self, other: Colour, percent: int) -> Colour:
        """Return the colour that lies ``percent`` of the way to ``other``."""
        pairs = ((self.red, other.red), (self.green, other.green), (self.blue, other.blue))
        return Colour(*(start + (end - start) * percent // 100 for start, end in pairs))


BLACK, WHITE = Colour(0, 0, 0), Colour(255, 255, 255)


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
class Pair:
    """Two colours that stand on each other, and what they are used for."""

    palette: str
    foreground: str
    background: str
    use: str
    ratio: float
    nearest: str
    """The colour nearest to the foreground that would do."""

    @property
    def is_enough(self) -> bool:
        """Whether the contrast is that of the gate."""
        return self.ratio >= MINIMUM_CONTRAST


# Links, the focus ring (3:1) and the frames of fields (3:1) have colours of text, so the gate of text covers them.
_PAIRS = (
    ("text", "background", "text and fields"),
    ("muted", "background", "labels, hints, the footer, frames of fields"),
    ("accent", "background", "links, the focus ring"),
    ("on_accent", "accent", "text on buttons"),
)


def pairs(name: str, palette: Palette) -> Iterator[Pair]:
    """Yield every pair of colours that pages set text in."""
    for foreground, background, use in _PAIRS:
        front, back = getattr(palette, foreground), getattr(palette, background)
        yield Pair(name, foreground, background, use, contrast(front, back), str(_nearest(front, back)))


def contrast(one: Colour, other: Colour) -> float:
    """Return the WCAG 2 contrast ratio, from 1 to 21; the order does not matter."""
    darker, lighter = sorted((one.luminance, other.luminance))
    return (lighter + 0.05) / (darker + 0.05)


def _nearest(front: Colour, back: Colour) -> Colour:
    """Return ``front``, moved towards black or white, whichever the background allows, until it can be read."""
    end = max((BLACK, WHITE), key=lambda colour: contrast(colour, back))
    steps = (front.towards(end, percent) for percent in range(101))
    return next((colour for colour in steps if contrast(colour, back) >= MINIMUM_CONTRAST), end)


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
