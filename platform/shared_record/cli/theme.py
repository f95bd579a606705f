"""``shared-record theme``: start a theme, check it, look at it."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterable
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from shared_record.cli.context import emit, json_option, note
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError
from shared_record.hooks.loader import load_plugins
from shared_record.languages import LANGUAGES, speak
from shared_record.theming.loader import SLUG, Theme, Themes, check_theme, load_themes
from shared_record.theming.problems import ThemeProblem
from shared_record.theming.scaffold import new_files
from shared_record.theming.tokens import all_pairs
from shared_record.web.preview import check_pages, sample_site
from shared_record.web.render import TEMPLATES

EXIT_PROBLEMS = 2

_folder = click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
# Asks every second whether a file changed; it is part of no page that customers see.
_RELOAD = b"""<script>
let seen;
setInterval(async () => {
  const now = await (await fetch("/changed")).text();
  if (seen !== undefined && seen !== now) location.reload();
  seen = now;
}, 1000);
</script>
"""


@click.group()
def theme() -> None:
    """Themes: start one, check it, look at it, list those installed.

    A theme is a folder with colours, a kind of face, a few shapes, a logo, and optional small templates. It holds no
    code. See the guide "Write a theme".
    """


@theme.command(epilog="Example:  shared-record theme new themes/harbour --from broadsheet")
@_folder
@click.option("--from", "origin", default="default", show_default=True, help="The installed theme to start from.")
@json_option
def new(folder: Path, origin: str, as_json: bool) -> None:
    """Make a theme in DIR, whose name becomes the theme's slug; every value has a comment.

    Exit codes: 0 done, 2 the name cannot be a slug, 7 there is something in DIR already.
    """
    found = _find(_installed(), origin)
    if SLUG.fullmatch(folder.resolve().name) is None:
        raise InvalidInputError("A theme's folder is named in lower-case letters, digits and dashes.")
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError(f"{folder} is not empty.")
    masthead = (TEMPLATES / "partials" / "masthead.html").read_text(encoding="utf-8")
    files = new_files(folder.resolve().name, found, masthead)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    text = f"{folder}: made from {origin}. Next: shared-record theme preview {folder}"
    emit({"theme": folder.resolve().name, "from": origin, "files": sorted(files)}, as_json=as_json, text=text)


@theme.command(
    epilog="""\b
Examples:
  shared-record theme check themes/harbour
  shared-record theme check --json themes/harbour
"""
)
@_folder
@json_option
@click.pass_context
def check(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """Check a theme: every problem with file, key, what was found and what is expected.

    Text needs a contrast of 4.5:1 in both palettes. Templates may hold elements and our texts, nothing active, and
    every sample page must render with them. Exit codes: 0 no problem, 2 problems.
    """
    found, problems = _check(folder)
    pairs = [] if found is None else list(all_pairs(found.tokens))
    value = {
        "ok": not problems,
        "theme": folder.resolve().name,
        "problems": [one.as_dict() for one in problems],
        "contrast": [
            {
                "palette": one.palette,
                "foreground": one.foreground,
                "background": one.background,
                "ratio": round(one.ratio, 2),
            }
            for one in pairs
        ],
    }
    table = [f"  {one.palette:5}  {one.ratio:5.2f}  {one.foreground} on {one.background}: {one.use}" for one in pairs]
    if as_json or not problems:
        emit(value, as_json=as_json, text="\n".join([f"{folder}: ok. Contrast, at least 4.5:", *table]))
    else:
        note("\n".join(map(str, problems)))
    if problems:
        ctx.exit(EXIT_PROBLEMS)


@theme.command(
    epilog="""\b
Examples:
  shared-record theme preview themes/harbour                 at http://127.0.0.1:8700/, follows your changes
  shared-record theme preview themes/harbour --out preview   the same pages as files
"""
)
@_folder
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write the pages here and end.")
@click.option("--port", default=8700, show_default=True, help="Where to serve them, on this machine only.")
@click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", show_default=True, help="Of the pages.")
@click.pass_context
def preview(ctx: click.Context, folder: Path, out: Path | None, port: int, language: str) -> None:
    """Show every page with sample data in this theme, light and dark.

    Needs no database. Without --out the pages are served until Ctrl-C, and a browser that shows one loads it anew when
    a file of the theme changes. Exit codes: 0 done, 2 with --out: the theme has problems.
    """
    speak(language)
    if out is None:
        _serve(folder, port, language)
        return
    found, problems = _check(folder)
    if found is None:
        note("\n".join(map(str, problems)))
        ctx.exit(EXIT_PROBLEMS)
    site = sample_site(found)
    for name, content in site.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    click.echo(f"{len(site)} files in {out}. Open {out / 'index.html'}.")


@theme.command("list", epilog="Example:  shared-record theme list --json")
@json_option
def list_(as_json: bool) -> None:
    """List the installed themes, and those that are installed but cannot be used."""
    themes = _installed()
    rows: list[dict[str, Any]] = [
        {"slug": slug, "title": one.title, "description": one.description, "problems": []}
        for slug, one in sorted(themes.sound.items())
    ]
    rows += [
        {"slug": slug, "title": "", "description": "", "problems": [problem.as_dict() for problem in problems]}
        for slug, problems in sorted(themes.broken.items())
    ]
    lines = [f"{slug}: {one.title}. {one.description}" for slug, one in sorted(themes.sound.items())]
    lines += [f"{slug}: cannot be used: {one}" for slug, found in sorted(themes.broken.items()) for one in found]
    emit({"themes": rows}, as_json=as_json, text="\n".join(lines))


def _installed() -> Themes:
    return load_themes(load_plugins().theme_roots)


def _find(themes: Themes, slug: str) -> Theme:
    if slug not in themes.sound:
        raise NotFoundError(f"There is no theme {slug!r}. There are: {', '.join(sorted(themes.sound))}.")
    return themes.sound[slug]


def _check(folder: Path) -> tuple[Theme | None, list[ThemeProblem]]:
    found, problems = check_theme(folder)
    return (found, problems) if found is None else (found, check_pages(found))


# --- The preview's own server ----------------------------------------------------------------------------------------


class _Watched:
    """The sample pages of a folder, made anew when a file in it changed."""

    def __init__(self, folder: Path, language: str) -> None:
        self._folder, self._language = folder, language
        self._made: tuple[str, dict[str, bytes]] = ("", {})

    def stamp(self) -> str:
        """Return a text that changes with the files."""
        found = sorted((str(path), path.stat().st_mtime_ns) for path in self._folder.rglob("*") if path.is_file())
        return str(hash(tuple(found)))

    def get(self, name: str) -> bytes | None:
        """Return one file, or ``None``."""
        stamp = self.stamp()
        if self._made[0] != stamp:
            speak(self._language)  # each thread speaks for itself
            found, problems = _check(self._folder)
            self._made = (stamp, _troubled(problems) if found is None else sample_site(found))
        site = self._made[1]
        content = site.get(name, site["index.html"] if name.endswith(".html") else None)
        return content.replace(b"</body>", _RELOAD + b"</body>") if content and name.endswith(".html") else content


def _troubled(problems: Iterable[ThemeProblem]) -> dict[str, bytes]:
    items = "".join(f"<li>{escape(str(one))}</li>" for one in problems)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Problems</title>'
    return {"index.html": f"{head}<body><h1>Problems</h1><ul>{items}</ul></body>".encode()}


class _Handler(BaseHTTPRequestHandler):
    """Answers from memory; a path is a key, never a place on disk."""

    def __init__(self, pages: _Watched, *arguments: object) -> None:
        self._pages = pages
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        content = self._pages.stamp().encode() if name == "changed" else self._pages.get(name)
        self.send_response(HTTPStatus.OK if content is not None else HTTPStatus.NOT_FOUND)
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""


def _serve(folder: Path, port: int, language: str) -> None:
    handler: Callable[..., BaseHTTPRequestHandler] = partial(_Handler, _Watched(folder, language))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        click.echo(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            note("Ended.")
