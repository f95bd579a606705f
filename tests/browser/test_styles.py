"""Every sample page in every theme, as files: contrast, reflow, zoom, forced colours, motion, focus, the footer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page

from browser.axe import CONTRAST, STRUCTURE, findings
from browser.test_pages import OVERFLOW
from shared_record.hooks.loader import load_plugins
from shared_record.theming.loader import load_themes
from shared_record.theming.tokens import Scheme
from shared_record.web.preview import sample_site, schemes
from shared_record.web.record import samples

THEMES = load_themes(load_plugins().theme_roots).sound
LOOKS = [(slug, scheme) for slug, theme in THEMES.items() for scheme in schemes(theme)]
NAMES = list(samples.all_pages())
WITH_SHELL = [name for name, page in samples.all_pages().items() if page.shell is not None]

LARGE_TEXT = "html { font-size: 200% }"
LARGE_ON_A_PHONE = 180
"""Letters twice as large on a phone leave half of its 360 pixels."""
SPACED_TEXT = """* { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important }
p { margin-block-end: 2em !important }"""  # WCAG 2.2, 1.4.12
TARGETS = "a[href], button, input:not([type=hidden]), select, summary"
UNSEEN_FOCUS = f"""() => [...document.querySelectorAll("{TARGETS}")].filter(one => {{
  if (!one.checkVisibility()) return false;
  one.focus({{ focusVisible: true }});
  const style = getComputedStyle(one), box = one.getBoundingClientRect();
  return style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2 || box.bottom < 0 || box.right < 0;
}}).map(one => one.outerHTML)"""
TABBABLE = f"""() => [...document.querySelectorAll("{TARGETS}")].flatMap((one, index) => {{
  const another = one.type === "radio" && !one.checked && document.querySelector(`input[name="${{one.name}}"]:checked`);
  return one.checkVisibility() && !another ? [index] : [];
}})"""
MOVING = """() => [...document.querySelectorAll("*")].filter(one => {
  const style = getComputedStyle(one);
  return style.animationName !== "none" || style.transitionDuration.split(", ").some(time => parseFloat(time) > 0);
}).map(one => one.outerHTML)"""
FIELDS = "button:not(.quiet), a.button, input[type=text], select"
FRAMELESS = f"""() => [...document.querySelectorAll("{FIELDS}")].filter(one => {{
  const style = getComputedStyle(one);
  return style.borderTopStyle === "none" || parseFloat(style.borderTopWidth) < 1;
}}).map(one => one.outerHTML)"""
ATTRIBUTION = "Recorded by Acme Cloud. Can be checked independently. This page comes from usage.acme.example."
FOOTER = """() => {
  const footer = document.querySelector("body > footer"), box = footer.getBoundingClientRect();
  footer.scrollIntoView();
  const seen = footer.firstElementChild.getBoundingClientRect();
  const top = document.elementFromPoint(seen.left + 5, seen.top + seen.height / 2);
  return footer === document.body.lastElementChild && box.height > 20 && footer.contains(top)
    && footer.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && footer.innerText;
}"""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample pages of each theme, written to files."""
    written = {}
    for slug, theme in THEMES.items():
        written[slug] = tmp_path_factory.mktemp(slug)
        for name, content in sample_site(theme).items():
            path = written[slug] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return written


@pytest.fixture
def window(chromium: Chromium) -> Iterator[Page]:
    # The pages' own policy lets no script run; axe and the styles added here are ours.
    context = chromium.new_context(bypass_csp=True, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def each_page(
    window: Page, folder: Path, scheme: Scheme, widths: tuple[int, ...], names: list[str] = NAMES
) -> Iterator[str]:
    """Open one sample page after the other, at one width each in turn."""
    for index, name in enumerate(names):
        window.set_viewport_size({"width": widths[index % len(widths)], "height": 740})
        window.goto((folder / f"{name}.{scheme}.html").as_uri())
        yield name


@pytest.mark.parametrize(("slug", "scheme"), LOOKS)
def test_text_has_contrast_in_every_theme_and_scheme(
    window: Page, sites: dict[str, Path], slug: str, scheme: Scheme
) -> None:
    window.emulate_media(color_scheme="dark" if scheme is Scheme.DARK else "light")
    found = {name: findings(window, CONTRAST) for name in each_page(window, sites[slug], scheme, (360, 1280))}
    assert {name: some for name, some in found.items() if some} == {}


def test_axe_finds_nothing_in_the_markup_of_any_state(window: Page, sites: dict[str, Path]) -> None:
    found = {
        name: findings(window, STRUCTURE) for name in each_page(window, sites["default"], Scheme.LIGHT, (1280, 360))
    }
    assert {name: some for name, some in found.items() if some} == {}


@pytest.mark.parametrize("slug", THEMES)
def test_nothing_is_wider_than_a_phone_or_than_large_text_allows(
    window: Page, sites: dict[str, Path], slug: str, soak: bool
) -> None:
    """Pairwise: each page in each theme, each page with each text, each theme with each text; in full with --soak."""
    assert len(THEMES) >= 3, "fewer themes show some page with some text in none"
    scheme, wide = schemes(THEMES[slug])[0], []
    for number, (style, width) in enumerate(
        (("", 320), (SPACED_TEXT, 320), (LARGE_TEXT, 1280), ("", LARGE_ON_A_PHONE))
    ):
        names = NAMES if soak else NAMES[(number + list(THEMES).index(slug)) % 3 :: 3]
        for name in each_page(window, sites[slug], scheme, (width,), names):
            if style:
                window.add_style_tag(content=style)
            if (over := window.evaluate(OVERFLOW)) > 0:
                wide.append(f"{name} at {width}: {over} pixels with {style or 'its own styles'}")
    assert wide == []


@pytest.mark.parametrize("forced", ["none", "active"])
def test_focus_is_seen_on_everything_that_takes_it(window: Page, sites: dict[str, Path], forced: str) -> None:
    window.emulate_media(forced_colors=forced)
    unseen = {
        name: window.evaluate(UNSEEN_FOCUS) for name in each_page(window, sites["default"], Scheme.LIGHT, (1280, 360))
    }
    assert {name: some for name, some in unseen.items() if some} == {}


def test_fields_and_buttons_keep_their_frames_in_forced_colours(window: Page, sites: dict[str, Path]) -> None:
    window.emulate_media(forced_colors="active")
    found = {name: window.evaluate(FRAMELESS) for name in each_page(window, sites["default"], Scheme.LIGHT, (1280,))}
    assert {name: some for name, some in found.items() if some} == {}


def test_nothing_moves_where_the_reader_asked_for_less_motion(window: Page, sites: dict[str, Path]) -> None:
    moving = {name: window.evaluate(MOVING) for name in each_page(window, sites["default"], Scheme.LIGHT, (1280,))}
    assert {name: some for name, some in moving.items() if some} == {}


@pytest.mark.parametrize(("slug", "scheme"), LOOKS)
def test_t04_the_attribution_is_seen_in_every_theme(
    window: Page, sites: dict[str, Path], slug: str, scheme: Scheme
) -> None:
    for name in each_page(window, sites[slug], scheme, (360, 1280)):
        if name in WITH_SHELL:
            assert ATTRIBUTION in window.evaluate(FOOTER), name


def test_tab_reaches_everything_and_is_caught_by_nothing(window: Page, sites: dict[str, Path]) -> None:
    missed = {}
    for name in each_page(window, sites["default"], Scheme.LIGHT, (1280,)):
        wanted = set(window.evaluate(TABBABLE))
        reached = set()
        inside_dates = 3 * window.locator("input[type=date]").count()  # day, month, year and the picker
        for _ in range(len(wanted) + inside_dates + 3):
            window.keyboard.press("Tab")
            reached.add(window.evaluate(f"[...document.querySelectorAll('{TARGETS}')].indexOf(document.activeElement)"))
        missed[name] = wanted - reached
    assert {name: some for name, some in missed.items() if some} == {}
