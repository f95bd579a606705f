"""The files of a new theme: another one's values, each with what it does."""

from __future__ import annotations

import json
from dataclasses import fields

from shared_record.theming.colours import Palette
from shared_record.theming.loader import Theme
from shared_record.theming.tokens import Tokens

_ABOUT = {
    "font": "system, humanist, serif or mono: faces that are already on the reader's device.",
    "radius": "none, small or large: corners of fields and buttons.",
    "total_weight": "light, regular or semibold: the one large figure.",
    "density": "compact, regular or airy: how far lines stand apart.",
    "rules": "hairline, ink or bare: lines of tables. Ink frames them in the colour of text, bare has none inside.",
    "labels": "plain or small-caps: labels, captions and heads of columns.",
    "scheme": "light dark follows the reader; light or dark is the same for everybody. Paper is always light.",
    "logo": "A PNG file in static/, shown above the vendor's name, at most two lines high.",
    "logo_dark": "The same for dark ground; without it the logo stands on both.",
    "background": "The page.",
    "text": "Text, and what is typed into fields.",
    "muted": "Labels, hints, the footer, frames of fields.",
    "hairline": "Lines. The one colour without a rule of contrast.",
    "accent": "Links, buttons, the focus ring.",
    "on_accent": "Text on buttons.",
}


def new_files(slug: str, origin: Theme, masthead: str) -> dict[str, bytes]:
    """Return a theme that looks like ``origin``, by path; ``masthead`` stands in where that has none of its own."""
    title = slug.replace("-", " ").capitalize()
    partials = {"partials/masthead.html": masthead} | dict(origin.partials)
    about = f"title = {json.dumps(title)}\ndescription = {json.dumps(f'Made from {origin.title}.')}\n"
    return {
        "theme.toml": about.encode(),
        "tokens.toml": write_tokens(origin.tokens).encode(),
        **{f"templates/{name}": text.encode() for name, text in partials.items()},
        **{f"static/{name}": picture.data for name, picture in origin.pictures.items()},
    }


def write_tokens(tokens: Tokens) -> str:
    """Return a ``tokens.toml`` with these values and a comment above each."""
    lines = ["# Check with `shared-record theme check`, look with `shared-record theme preview`.", ""]
    for one in fields(Tokens):
        if one.name in _ABOUT:
            value = getattr(tokens, one.name)
            lines += [
                f"# {_ABOUT[one.name]}",
                f"{'' if value else '# '}{one.name} = {json.dumps(value or f'{one.name}.png'.replace('_', '-'))}",
                "",
            ]
    lines += [
        "# Text needs a contrast of 4.5:1 in both palettes: text, muted and accent on background,",
        "# on_accent on accent.",
    ]
    for table in ("light", "dark"):
        palette: Palette = getattr(tokens, table)
        lines += ["", f"[{table}]"]
        for one in fields(Palette):
            comment = f"  # {_ABOUT[one.name]}" if table == "light" else ""
            lines.append(f'{one.name} = "{getattr(palette, one.name)}"{comment}')
    return "\n".join(lines) + "\n"
