"""Turn view models into pages: one template environment per theme, made once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Protocol

from flask import Response, url_for
from jinja2 import Environment

from shared_record.theming.loader import Theme, environment
from shared_record.web.headers import IMMUTABLE
from shared_record.web.record.pages import Assets, Shell

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "record" / "templates"
MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".js": "text/javascript; charset=utf-8"}


class Page(Protocol):
    """A view model: it names its template."""

    template: ClassVar[str]

    @property
    def shell(self) -> Shell | None:
        """What every page of the record has; ``None`` where no record was reached."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the core, named in URLs by its content."""

    name: str
    data: bytes

    @property
    def digest(self) -> str:
        """The first 16 hex digits of its SHA-256."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@cache
def static_files() -> dict[str, StaticFile]:
    """Return the core's static files, read once."""
    return {path.name: StaticFile(path.name, path.read_bytes()) for path in STATIC.iterdir() if path.is_file()}


@cache
def assets() -> Assets:
    """Return the URLs of the core's static files."""
    files = static_files()
    css, icon = files["record.css"], files["favicon.svg"]
    return Assets(f"/static/{css.digest}/{css.name}", f"/static/{icon.digest}/{icon.name}")


def theme_css_url(theme: Theme) -> str:
    """Return the URL of a theme's stylesheet."""
    return url_for("assets.theme", slug=theme.slug, digest=theme.css_hash)


class Renderer:
    """Renders pages in a tenant's theme; pages without a shell in the core's own."""

    def __init__(self, themes: dict[str, Theme]) -> None:
        self._plain = environment(TEMPLATES)
        self._themed: dict[str, Environment] = {slug: environment(TEMPLATES, theme) for slug, theme in themes.items()}

    def render(self, page: Page, theme: str | None = None, status: int = 200) -> Response:
        """Return ``page`` as an HTML answer."""
        templates = self._themed.get(theme, self._plain) if theme else self._plain
        html = templates.get_template(page.template).render(page=page, shell=page.shell)
        return Response(html, status, mimetype="text/html")


def immutable(data: bytes | str, suffix: str) -> Response:
    """Return a static file whose URL changes with its content."""
    response = Response(data, mimetype=None, content_type=MEDIA_TYPES[suffix])
    response.headers["Cache-Control"] = IMMUTABLE
    return response
