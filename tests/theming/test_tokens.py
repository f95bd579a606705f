from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared_record.theming.colours import Colour, contrast
from shared_record.theming.css import css_variables
from shared_record.theming.tokens import (
    Density,
    FontStack,
    Labels,
    Radius,
    Rules,
    Scheme,
    Tokens,
    all_pairs,
    check_tokens,
)

LIGHT = {
    "background": "#ffffff",
    "text": "#111111",
    "muted": "#555555",
    "hairline": "#dddddd",
    "accent": "#005a9c",
    "on_accent": "#ffffff",
}
DARK = LIGHT | {
    "background": "#111111",
    "text": "#eeeeee",
    "muted": "#aaaaaa",
    "accent": "#8ecaff",
    "on_accent": "#000000",
}


@pytest.fixture
def write(tmp_path: Path):
    """Write a ``tokens.toml`` and read it: (tokens, what is wrong as texts without the file's name)."""

    def written(light: dict[str, str] | None = LIGHT, dark: dict[str, str] | None = DARK, **top: str):
        lines = [f"{key} = {value}" for key, value in top.items()]
        for name, palette in (("light", light), ("dark", dark)):
            if palette is not None:
                lines += [f"[{name}]", *(f'{key} = "{value}"' for key, value in palette.items())]
        path = tmp_path / "tokens.toml"
        path.write_text("\n".join(lines))
        tokens, problems = check_tokens(path, "t.toml")
        assert (tokens is None) == bool(problems)
        return tokens, [str(one).removeprefix("t.toml: ") for one in problems]

    return written


def sound(write, **top: str) -> Tokens:
    tokens, problems = write(**top)
    assert problems == []
    return tokens


def test_values_become_types(write):
    tokens = sound(write, font='"serif"', radius='"none"', scheme='"dark"', rules='"ink"', logo='"mark.png"')
    assert tokens.light.accent == Colour(0, 0x5A, 0x9C)
    assert (tokens.font, tokens.radius, tokens.scheme) == (FontStack.SERIF, Radius.NONE, Scheme.DARK)
    assert (tokens.rules, tokens.logo) == (Rules.INK, "mark.png")
    assert (tokens.density, tokens.labels) == (Density.REGULAR, Labels.PLAIN)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": '"#ffffff"'}, "colour: found a key that does not exist, expected one of light, dark, font"),
        ({"light": LIGHT | {"acent": "#ffffff"}}, "light.acent: found a key that does not exist"),
        ({"light": LIGHT | {"accent": "red"}}, 'light.accent: found "red", expected a colour like #1f5f5b'),
        ({"light": LIGHT | {"accent": "#fff"}}, 'light.accent: found "#fff"'),
        ({"light": LIGHT | {"accent": "#ffffff;}body{display:none"}}, "light.accent: found"),
        ({"light": {k: v for k, v in LIGHT.items() if k != "text"}}, "light.text: found nothing"),
        ({"font": '"x"'}, 'font: found "x", expected one of system, humanist, serif, mono'),
        ({"font": '["serif"]'}, "font: found ['serif']"),
        ({"density": '"dense"'}, "density: found"),
        ({"scheme": '"dark light"'}, "scheme: found"),
        ({"logo": '"../secret.png"'}, "logo: found"),
        ({"logo": '"https://elsewhere.example/x.png"'}, "logo: found"),
        ({"dark": None}, "[dark]: found nothing, expected a table of colours"),
    ],
)
def test_t01_what_is_not_known_is_told_by_key(write, change, says):
    _, problems = write(**change)
    assert len(problems) == 1
    assert problems[0].startswith(says)


@pytest.mark.parametrize("key", ["font", "radius", "scheme", "density", "labels", "rules", "total_weight"])
def test_t01_no_choice_is_a_text_that_reaches_the_stylesheet(write, key):
    for text in (
        "url(//evil.example)",
        "}body{display:none",
        "@import '//evil.example'",
        "attr(value)",
        "expression(1)",
    ):
        assert len(write(**{key: f'"{text}"'})[1]) == 1


def test_t01_a_stylesheet_sets_values_and_selects_and_loads_nothing(write):
    for scheme in Scheme:
        css = css_variables(sound(write, scheme=f'"{scheme}"'))
        opened = {one.strip() for one in re.findall(r"[^{};]*(?={)", css)} - {""}
        assert opened <= {":root", "@media (prefers-color-scheme:dark)", "@media print"}
        assert not re.search(r"url\(|@import|@font-face|attr\(|//|\\\\", css)


def test_everything_wrong_is_told_at_once(write):
    _, problems = write(light=LIGHT | {"muted": "#999999", "accent": "blue"}, dark=None, font='"x"', radius='"x"')
    assert [one.partition(":")[0] for one in problems] == ["light.accent", "[dark]", "font", "radius"]


def test_unreadable_files_are_told(tmp_path):
    for path in (tmp_path / "nothing.toml", tmp_path / "broken.toml"):
        (tmp_path / "broken.toml").write_text("[light")
        tokens, (problem,) = check_tokens(path, "t.toml")
        assert tokens is None
        assert problem.file == "t.toml"


def test_css_follows_the_scheme(write):
    both = css_variables(sound(write))
    assert both.startswith(":root{color-scheme:light dark;")
    assert "@media (prefers-color-scheme:dark){:root{--background:#111111;" in both
    dark = css_variables(sound(write, scheme='"dark"'))
    assert "prefers-color-scheme" not in dark
    assert dark.index("--background:#111111") < dark.index("@media print") < dark.index("--background:#ffffff")
    light = css_variables(sound(write, scheme='"light"'))
    assert "#111111;--text:#eeeeee" not in light
    assert both.count("{") == both.count("}")


@pytest.mark.parametrize("key", ["font", "radius", "total_weight", "density", "rules", "labels", "scheme"])
def test_each_choice_of_a_theme_changes_its_stylesheet(write, key):
    kind = type(getattr(sound(write), key))
    assert len({css_variables(sound(write, **{key: f'"{value}"'})) for value in kind}) == len(kind)


def test_contrast_is_that_of_wcag():
    black, white, grey = (Colour.parse(text) for text in ("#000000", "#ffffff", "#767676"))
    assert contrast(black, white) == contrast(white, black) == pytest.approx(21)
    assert contrast(grey, white) == pytest.approx(4.54, abs=0.005)
    assert contrast(white, white) == 1


def test_a_pair_without_contrast_is_told_with_a_colour_that_would_do(write):
    _, problems = write(light=LIGHT | {"muted": "#999999", "on_accent": "#111111"}, dark=DARK | {"accent": "#333333"})
    assert problems == [
        "light.muted: found contrast 2.85 on background (labels, hints, the footer, frames of fields), "
        "expected at least 4.5; #757575 would do",
        "light.on_accent: found contrast 2.65 on accent (text on buttons), expected at least 4.5; #cfcfcf would do",
        "dark.accent: found contrast 1.49 on background (links, the focus ring), "
        "expected at least 4.5; #7c7c7c would do",
        "dark.on_accent: found contrast 1.66 on accent (text on buttons), expected at least 4.5; #9b9b9b would do",
    ]
    assert not [pair for pair in all_pairs(sound(write)) if contrast(*_pair(sound(write), pair)) < 4.5]


def _pair(tokens, pair):
    palette = getattr(tokens, pair.palette)
    return Colour.parse(pair.nearest), getattr(palette, pair.background)
