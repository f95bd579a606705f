"""Sample pages of a theme as files that belong together: to look at, and to see that a theme shows every page whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape

from jinja2 import Environment, TemplateError

from shared_record.theming.css import css_variables
from shared_record.theming.loader import Picture, Theme
from shared_record.theming.problems import ThemeProblem, shown
from shared_record.theming.tokens import Scheme
from shared_record.web.record import samples
from shared_record.web.record.pages import Assets, NotFound, Problem, VerifierFiles, Verify
from shared_record.web.render import TEMPLATES, Page, logo, static_files, theme_environment

_AT_HOME = ("landing.html", "gated.html")
_ASSETS = Assets("record.css", "favicon.svg")
_VERIFIERS = VerifierFiles("verify.js", "check.js", "verify.py", "verify.html")


def schemes(theme: Theme) -> tuple[Scheme, ...]:
    """Return the palettes that screens may show in this theme."""
    return (Scheme.LIGHT, Scheme.DARK) if theme.tokens.scheme is Scheme.BOTH else (theme.tokens.scheme,)


def sample_site(theme: Theme) -> dict[str, bytes]:
    """Return every sample page in every palette of ``theme``, its stylesheets and pictures, and an index, by path."""
    templates = theme_environment(theme, _picture_path)
    files = {name: file.data for name, file in static_files().items()}
    files |= {f"static/{name}": picture.data for name, picture in theme.pictures.items()}
    names = []
    for scheme in schemes(theme):
        fixed = replace(theme, tokens=replace(theme.tokens, scheme=scheme))
        files[f"theme-{scheme}.css"] = css_variables(fixed.tokens).encode()
        for name, page in _sample_pages(fixed, f"theme-{scheme}.css"):
            files[f"{name}.{scheme}.html"] = _render(templates, page).encode()
            names.append(f"{name}.{scheme}.html")
    files["index.html"] = _index(theme, names).encode()
    return files


def check_pages(theme: Theme) -> list[ThemeProblem]:
    """Render every sample page with the theme's partials; return where one fails or loses what a page must have."""
    templates = theme_environment(theme, _picture_path)
    folder = theme.folder / "templates"
    known = {path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.glob("partials/*.html")}
    included = "".join(theme.partials.values())
    problems = [
        ThemeProblem(str(folder / name), "", "a name that no page includes", f"one of {', '.join(sorted(known))}")
        for name in theme.partials
        if name not in known and name not in included
    ]
    for name, page in _sample_pages(theme, "theme.css"):
        try:
            html = _render(templates, page)
        except (TemplateError, LookupError, TypeError, ValueError) as error:
            problems.append(ThemeProblem(str(folder), name, shown(str(error)), "a template that renders this page"))
        else:
            problems += [ThemeProblem(str(folder), name, *one) for one in _missing(html, page)]
    return problems


def _sample_pages(theme: Theme, theme_css: str) -> Iterator[tuple[str, Page]]:
    """Yield the sample pages with the addresses they have in a folder of files."""
    mark = logo(theme, _picture_path)
    for name, page in samples.all_pages().items():
        page = replace(page, assets=_ASSETS) if isinstance(page, NotFound | Problem) else page
        if isinstance(page, Verify):
            page = replace(page, files=_VERIFIERS)
        if page.shell is None:
            yield name, page
        else:
            dressed = replace(page.shell, assets=_ASSETS, theme_css=theme_css, logo=mark)
            yield name, replace(page, shell=dressed)  # type: ignore[type-var]


def _render(templates: Environment, page: Page) -> str:
    html = templates.get_template(page.template).render(page=page, shell=page.shell)
    return html.replace('http-equiv="refresh"', 'name="refresh"')  # the page that leads elsewhere is to be looked at


def _missing(html: str, page: Page) -> Iterator[tuple[str, str]]:
    shell = page.shell
    if html.count("<h1") != 1:
        yield (
            f"{html.count('<h1')} headings of the first level",
            "one: the masthead's on landing pages, else the page's",
        )
    if shell is None:
        return
    head = html.partition('<header class="masthead">')[2].partition("</header>")[0]
    if escape(shell.vendor) not in head:
        yield "no name above the page", "the vendor's name in the masthead"
    if page.template not in _AT_HOME and shell.base and f'href="{shell.base}"' not in head:
        yield "no way back to the first page", "a link to shell.base in the masthead"


def _picture_path(_theme: Theme, picture: Picture) -> str:
    return f"static/{picture.name}"


def _index(theme: Theme, names: list[str]) -> str:
    items = "\n".join(f'<li><a href="{name}">{name.removesuffix(".html")}</a></li>' for name in sorted(names))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(theme.title)}: sample pages</title>
<link rel="stylesheet" href="record.css">
</head>
<body>
<main>
<h1>{escape(theme.title)}</h1>
<p>{escape(theme.description)} Every page with sample data; nothing here is real.</p>
<ul>
{items}
</ul>
</main>
</body>
</html>
"""
