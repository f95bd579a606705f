"""The themes that come with Shared Record: default, nocturne and broadsheet."""

from __future__ import annotations

from pathlib import Path

from shared_record.plugin import ThemeRoot, hookimpl

_PACKAGED = Path(__file__).parent / "themes"
_CHECKOUT = Path(__file__).parents[4] / "themes"


@hookimpl
def register_theme_roots() -> list[ThemeRoot]:
    """Name the folder of the themes: inside the wheel, or the top-level ``themes/`` of a checkout."""
    return [ThemeRoot(_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT)]
