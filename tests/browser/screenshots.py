"""Write a picture of every page in every theme: ``uv run tests/browser/screenshots.py OUT``.

Light and dark, 360 and 1280 pixels wide, and as printed, with the sample data of ``theme preview``. ``OUT/index.html``
shows them all, and ``OUT/<theme>-<scheme>-<width>-1.png`` and so on are contact sheets. No test: made to be looked at.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from shared_record.hooks.loader import load_plugins
from shared_record.languages import LANGUAGES, speak
from shared_record.theming.loader import Theme, load_themes
from shared_record.theming.tokens import Scheme
from shared_record.web.preview import sample_site, schemes

CHROMIUM = Path(os.environ.get("SR_TEST_CHROMIUM", "/usr/bin/chromium"))
WIDTHS = {"360": 360, "1280": 1280, "print": 718}
"""Print: A4 with the browser's usual margins, at 96 pixels per inch."""
COLUMNS = {"360": 8, "1280": 4, "print": 6}


def main() -> None:
    """Take the pictures that the command line asks for."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("out", type=Path)
    asked.add_argument("--theme", action="append", help="only this theme; can be repeated")
    asked.add_argument("--page", action="append", help="only this page; can be repeated")
    asked.add_argument("--language", choices=list(LANGUAGES), default="en")
    options = asked.parse_args()
    speak(options.language)
    themes = load_themes(load_plugins().theme_roots).sound
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        sheets = []
        for slug in options.theme or sorted(themes):
            taken = take(browser, themes[slug], options.out, options.page)
            sheets += list(contact_sheets(browser, options.out, taken))
        browser.close()
    write_index(options.out / "index.html", sheets)
    print(f"{len(sheets)} contact sheets: {options.out / 'index.html'}")


def take(browser: Browser, theme: Theme, out: Path, only: list[str] | None) -> dict[str, list[Path]]:
    """Take every page of one theme; return the pictures by ``<theme>-<scheme>-<width>``."""
    taken: dict[str, list[Path]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in sample_site(theme).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for scheme in schemes(theme):
            for kind, width in WIDTHS.items():
                if kind == "print" and scheme is not schemes(theme)[0]:
                    continue  # paper is the same in both
                page = browser.new_page(viewport={"width": width, "height": 740}, reduced_motion="reduce")
                page.emulate_media(media="print" if kind == "print" else "screen", color_scheme=_preference(scheme))
                sheet = f"{theme.slug}-{scheme}-{kind}"
                for path in sorted(Path(folder).glob(f"*.{scheme}.html")):
                    name = path.name.partition(".")[0]
                    if only is None or name in only:
                        picture = out / theme.slug / f"{name}-{scheme}-{kind}.png"
                        shoot(page, path, picture)
                        taken.setdefault(sheet, []).append(picture)
                page.close()
    return taken


def shoot(page: Page, path: Path, picture: Path) -> None:
    """Open one file and save what it looks like, in full height."""
    page.goto(path.as_uri())
    page.screenshot(path=picture, full_page=True)


def contact_sheets(browser: Browser, out: Path, taken: dict[str, list[Path]]) -> Iterator[Path]:
    """Set the pictures of each kind on sheets, a few rows on each."""
    page = browser.new_page(viewport={"width": 2000, "height": 1000})
    for kind, pictures in taken.items():
        columns = COLUMNS[kind.rpartition("-")[2]]
        for number, start in enumerate(range(0, len(pictures), 2 * columns), start=1):
            sheet = out / f"{kind}-{number}.png"
            source = sheet.with_suffix(".html")
            source.write_text(_sheet(pictures[start : start + 2 * columns], columns))
            page.goto(source.resolve().as_uri())
            page.screenshot(path=sheet, full_page=True)
            source.unlink()
            yield sheet
    page.close()


def write_index(path: Path, sheets: list[Path]) -> None:
    """Write a page that shows all contact sheets."""
    items = "".join(f"<h2>{one.stem}</h2><img src='{one.name}' width='100%'>" for one in sheets)
    path.write_text(f"<!doctype html><meta charset=utf-8><title>Screenshots</title>{items}")


def _sheet(pictures: list[Path], columns: int) -> str:
    figure = "<figure><img src='{}'><figcaption>{}</figcaption></figure>"
    cells = "".join(figure.format(one.resolve().as_uri(), one.stem) for one in pictures)
    style = (
        "body{margin:16px;background:#888;font:12px sans-serif;display:grid;gap:16px;align-items:start;"
        f"grid-template-columns:repeat({columns},1fr)}}figure{{margin:0}}img{{width:100%;display:block}}"
    )
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{cells}"


def _preference(scheme: Scheme) -> str:
    return "dark" if scheme is Scheme.DARK else "light"


if __name__ == "__main__":
    main()
