"""Turn view models into pages: one template environment per theme, made once."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Protocol

from flask import Response, url_for
from jinja2 import Environment

from shared_record.errors import ConfigurationError
from shared_record.plugin import standalone_verifiers
from shared_record.theming.loader import Picture, Theme, environment
from shared_record.theming.tokens import Scheme
from shared_record.web.conditional import page_tag
from shared_record.web.headers import IMMUTABLE, allow_scripts
from shared_record.web.record.pages import Assets, Gated, Leave, Logo, Problem, Shell, Unlock

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "record" / "templates"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".js": "text/javascript; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
}
WITHOUT_SCRIPT = (Gated, Unlock, Leave, Problem)
"""Pages that show nothing of a record: the same bytes each time, whatever was recorded."""
TO_TAKE_AWAY = (".py", ".html")
"""Files that are saved, not opened: they are not pages of this host."""


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
    """Return the core's static files and the standalone verifiers, read once."""
    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.is_file()}
    files.update(standalone_verifiers())
    files["verify.js"] = _script_of(files["verify.html"])
    return {name: StaticFile(name, data) for name, data in files.items()}


def static_url(name: str) -> str:
    """Return the URL of one of the core's static files."""
    return f"/static/{static_files()[name].digest}/{name}"


def _script_of(page: bytes) -> bytes:
    """Return the script of the one-file verifier, so that the served page runs the very same code."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    if len(scripts) != 1:
        raise ConfigurationError("verify.html does not have one script")
    found: bytes = scripts[0]
    return found


@cache
def assets() -> Assets:
    """Return the URLs of the core's static files."""
    return Assets(static_url("record.css"), static_url("favicon.svg"), static_url("page.js"))


def theme_css_url(theme: Theme) -> str:
    """Return the URL of a theme's stylesheet."""
    return url_for("assets.theme", slug=theme.slug, digest=theme.css_hash)


def picture_url(theme: Theme, picture: Picture) -> str:
    """Return the URL of a picture of a theme."""
    return url_for("assets.theme_picture", slug=theme.slug, digest=picture.digest, name=picture.name)


def logo(theme: Theme, url: Callable[[Theme, Picture], str]) -> Logo | None:
    """Return a theme's logo for a page, with the one for dark ground where the theme has both."""
    light, dark = theme.logo, theme.logo_dark
    if light is None:
        return None
    media = {Scheme.BOTH: "screen and (prefers-color-scheme: dark)", Scheme.DARK: "screen"}.get(theme.tokens.scheme, "")
    if dark is None or not media:
        return Logo(url(theme, light), light.width, light.height)
    return Logo(url(theme, light), light.width, light.height, url(theme, dark), media)


def theme_environment(theme: Theme, url: Callable[[Theme, Picture], str]) -> Environment:
    """Return the templates of one theme, an environment of their own."""
    return environment(TEMPLATES, theme, partial(url, theme))


def _look(theme: Theme) -> str:
    """Return what a theme is to the tags of pages: its name and its templates. Its stylesheet is named in each page."""
    partials = repr(sorted(theme.partials.items()))
    return f"{theme.slug} {hashlib.sha256(partials.encode()).hexdigest()}"


class Renderer:
    """Renders pages in a tenant's theme; pages without a shell in the core's own."""

    def __init__(self, themes: dict[str, Theme]) -> None:
        self._plain = environment(TEMPLATES)
        self._themed: dict[str, Environment] = {
            slug: theme_environment(theme, picture_url) for slug, theme in themes.items()
        }
        self._looks = {slug: _look(theme) for slug, theme in themes.items()}

    def render(self, page: Page, theme: str | None = None, status: int = 200) -> Response:
        """Return ``page`` as an HTML answer."""
        templates = self._themed.get(theme, self._plain) if theme else self._plain
        template, shell = templates.get_template(page.template), page.shell
        if shell is None or isinstance(page, WITHOUT_SCRIPT):
            return Response(template.render(page=page, shell=shell), status, mimetype="text/html")
        nonce = getattr(page, "nonce", "") or secrets.token_urlsafe(16)
        tag = page_tag(page, shell, self._looks.get(theme or ""))
        html = template.render(page=page, shell=shell, nonce=nonce, tag=f'W/"{tag}"')
        response = allow_scripts(Response(html, status, mimetype="text/html"), nonce)
        if status == 200:
            response.set_etag(tag, weak=True)
        return response


def immutable(data: bytes | str, suffix: str) -> Response:
    """Return a static file whose URL changes with its content."""
    response = Response(data, mimetype=None, content_type=MEDIA_TYPES[suffix])
    response.headers["Cache-Control"] = IMMUTABLE
    if suffix in TO_TAKE_AWAY:
        response.headers["Content-Disposition"] = "attachment"
    return response
