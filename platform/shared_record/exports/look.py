"""How documents of a tenant look: what paper takes over from a theme, as typed values that no template runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

FONTS = {
    "system": ("Liberation Sans", "Noto Sans", "DejaVu Sans", "Libertinus Serif"),
    "humanist": ("Source Sans 3", "Ubuntu", "Cantarell", "DejaVu Sans", "Libertinus Serif"),
    "serif": ("Libertinus Serif",),
    "mono": ("DejaVu Sans Mono",),
}
"""Font stack of a theme -> families, best first. typst brings Libertinus Serif and DejaVu Sans Mono with it."""
# Tried after those of the theme, for scripts that they do not have.
_OTHER_SCRIPTS = ("Noto Naskh Arabic", "Noto Sans Arabic", "DejaVu Sans", "Noto Sans CJK SC", "DejaVu Sans Mono")
_LOGO = "logo.png"


class PaperPalette(Protocol):
    """The colours of a theme's light palette; each prints as ``#rrggbb``."""

    @property
    def text(self) -> object:
        """Colour of text."""

    @property
    def muted(self) -> object:
        """Colour of what is less important."""

    @property
    def hairline(self) -> object:
        """Colour of thin rules."""

    @property
    def accent(self) -> object:
        """The tenant's colour."""


class ThemeTokens(Protocol):
    """The tokens of a theme that paper follows."""

    @property
    def font(self) -> str:
        """A key of ``FONTS``."""

    @property
    def light(self) -> PaperPalette:
        """The palette of paper."""


class Picture(Protocol):
    """A PNG image."""

    @property
    def data(self) -> bytes:
        """The file."""


class PaperTheme(Protocol):
    """A theme, as far as paper follows it."""

    @property
    def tokens(self) -> ThemeTokens:
        """Its tokens."""

    @property
    def logo(self) -> Picture | None:
        """The logo for light ground."""


@dataclass(frozen=True, slots=True)
class Look:
    """Fonts, best first; colours as ``#rrggbb``; ``logo`` is a PNG image."""

    fonts: tuple[str, ...] = FONTS["serif"]
    text: str = "#1b1f1e"
    muted: str = "#5b6462"
    hairline: str = "#dde1de"
    accent: str = "#17605a"
    logo: bytes | None = None

    @classmethod
    def of(cls, theme: PaperTheme) -> Self:
        """Return the look of a theme: its light palette, its font among those at hand, its logo."""
        light = theme.tokens.light
        return cls(
            fonts=FONTS[theme.tokens.font],
            text=str(light.text),
            muted=str(light.muted),
            hairline=str(light.hairline),
            accent=str(light.accent),
            logo=theme.logo.data if theme.logo else None,
        )

    def as_data(self) -> dict[str, Any]:
        """Return it as templates read it."""
        return {
            "fonts": [*self.fonts, *(name for name in _OTHER_SCRIPTS if name not in self.fonts)],
            "text": self.text,
            "muted": self.muted,
            "hairline": self.hairline,
            "accent": self.accent,
            "logo": _LOGO if self.logo else None,
        }

    def files(self) -> dict[str, bytes]:
        """Return the files that ``as_data`` names."""
        return {_LOGO: self.logo} if self.logo else {}


def looks_of(themes: Mapping[str, PaperTheme]) -> dict[str, Look]:
    """Return the look of each theme, by slug."""
    return {slug: Look.of(theme) for slug, theme in themes.items()}
