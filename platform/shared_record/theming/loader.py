"""Find themes on disk, check them, and build the template environment of each.

A theme may replace files below ``templates/partials/`` only: the page frame, and with it the attribution footer, stays
the core's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateSyntaxError

from shared_record.errors import ConfigurationError
from shared_record.languages import gettext, ngettext
from shared_record.theming.tokens import (
    Tokens,
    contrast_problems,
    css_variables,
    read_tokens,
    read_toml,
    refuse_unknown,
)

_SLUG = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Theme:
    """A checked theme. ``css`` is its whole stylesheet, ``css_hash`` names that text in a URL."""

    slug: str
    title: str
    description: str
    tokens: Tokens
    templates_dir: Path
    static_dir: Path
    css: str = field(repr=False)
    css_hash: str


def load_themes(roots: Iterable[Path]) -> dict[str, Theme]:
    """Load every theme below ``roots``, by slug; a broken, unreadable or doubled one raises ``ConfigurationError``."""
    themes: dict[str, Theme] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigurationError(f"{root}: this theme folder does not exist.")
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._"):
            theme = _load(folder)
            if theme.slug in themes:
                first = themes[theme.slug].templates_dir.parent
                raise ConfigurationError(f"Theme {theme.slug!r} exists twice: {first} and {folder}.")
            themes[theme.slug] = theme
    return themes


def environment(core_templates: Path, theme: Theme | None = None) -> Environment:
    """Build a template environment: the partials of ``theme`` first, then the core's templates.

    Each theme needs one of its own, made once: templates are cached by name, so a shared one would show one tenant's
    template to another.
    """
    folders = [core_templates] if theme is None else [theme.templates_dir, core_templates]
    made = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
    return made


def _load(folder: Path) -> Theme:
    slug = folder.name
    if _SLUG.fullmatch(slug) is None:
        raise ConfigurationError(f"{folder}: a theme's folder is named in lower-case letters, digits and dashes.")
    about = folder / "theme.toml"
    facts = read_toml(about)
    refuse_unknown(facts, {"title", "description"}, str(about))
    tokens = read_tokens(folder / "tokens.toml")
    problems = contrast_problems(tokens)
    if problems:
        raise ConfigurationError(f"{folder / 'tokens.toml'}: {'; '.join(map(str, problems))}.")
    _check_templates(folder / "templates")
    css = css_variables(tokens)
    return Theme(
        slug=slug,
        title=_text(facts, "title", about),
        description=_text(facts, "description", about),
        tokens=tokens,
        templates_dir=folder / "templates",
        static_dir=folder / "static",
        css=css,
        css_hash=hashlib.sha256(css.encode()).hexdigest()[:16],
    )


def _text(facts: dict[str, object], key: str, source: Path) -> str:
    value = facts.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{source}: {key} must be a text.")
    return value.strip()


def _check_templates(folder: Path) -> None:
    parser = Environment(autoescape=True, extensions=["jinja2.ext.i18n"])
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == ".keep":
            continue
        if path.relative_to(folder).parts[0] != "partials":
            raise ConfigurationError(f"{path}: a theme may replace templates below partials/ only.")
        try:
            parser.parse(path.read_text(encoding="utf-8"))
        except (TemplateSyntaxError, OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: {error}.") from error
