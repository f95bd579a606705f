from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from shared_record.errors import ConfigurationError
from shared_record.theming.tokens import (
    Colour,
    FontStack,
    Radius,
    Scheme,
    contrast,
    contrast_problems,
    css_variables,
    parse_tokens,
    read_tokens,
)

PALETTE = {
    "background": "#ffffff",
    "text": "#111111",
    "muted": "#555555",
    "hairline": "#dddddd",
    "accent": "#005a9c",
    "on_accent": "#ffffff",
}
DARK = {**PALETTE, "background": "#111111", "text": "#eeeeee", "muted": "#aaaaaa", "accent": "#8ecaff"}
DATA: dict[str, Any] = {"light": PALETTE, "dark": {**DARK, "on_accent": "#000000"}}


def changed(**top: Any) -> dict[str, Any]:
    return deepcopy(DATA) | top


def test_values_become_types():
    tokens = parse_tokens(changed(font="serif", radius="none", scheme="dark"), "t.toml")
    assert tokens.light.accent == Colour(0, 0x5A, 0x9C)
    assert (tokens.font, tokens.radius, tokens.scheme) == (FontStack.SERIF, Radius.NONE, Scheme.DARK)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (changed(colour="#ffffff"), "unknown key colour"),
        (changed(light={**PALETTE, "acent": "#ffffff"}), "unknown key light.acent"),
        (changed(light={**PALETTE, "accent": "red"}), "light.accent"),
        (changed(light={**PALETTE, "accent": "#fff"}), "light.accent"),
        (changed(light={**PALETTE, "accent": "#ffffff;}body{display:none"}), "light.accent"),
        (changed(light={**PALETTE, "accent": 7}), "light.accent"),
        (changed(light={k: v for k, v in PALETTE.items() if k != "text"}), "light.text"),
        (changed(font='x";}'), "font must be one of"),
        (changed(font=["serif"]), "font must be one of"),
        (changed(scheme="dark light"), "scheme must be one of"),
        ({"light": PALETTE}, r"\[dark\] is missing"),
    ],
)
def test_what_is_not_known_is_refused_with_file_and_key(data, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        parse_tokens(data, "themes/x/tokens.toml")
    assert caught.value.message.startswith("themes/x/tokens.toml: ")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        read_tokens(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("[light")
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        read_tokens(tmp_path / "broken.toml")


def test_css_follows_the_scheme():
    both = css_variables(parse_tokens(changed(), "t"))
    assert both.startswith(":root{color-scheme:light dark;")
    assert "@media (prefers-color-scheme:dark){:root{--background:#111111;" in both
    dark = css_variables(parse_tokens(changed(scheme="dark"), "t"))
    assert "prefers-color-scheme" not in dark
    assert dark.index("--background:#111111") < dark.index("@media print") < dark.index("--background:#ffffff")
    light = css_variables(parse_tokens(changed(scheme="light"), "t"))
    assert "#111111;--text:#eeeeee" not in light
    assert both.count("{") == both.count("}")


def test_contrast_is_that_of_wcag():
    black, white, grey = (Colour.parse(text) for text in ("#000000", "#ffffff", "#767676"))
    assert contrast(black, white) == contrast(white, black) == pytest.approx(21)
    assert contrast(grey, white) == pytest.approx(4.54, abs=0.005)
    assert contrast(white, white) == 1


def test_contrast_problems_name_the_pair():
    assert contrast_problems(parse_tokens(changed(), "t")) == ()
    weak = parse_tokens(changed(light={**PALETTE, "muted": "#999999", "on_accent": "#111111"}), "t")
    assert [str(problem) for problem in contrast_problems(weak)] == [
        "[light] muted on background has contrast 2.85, needed 4.5",
        "[light] on_accent on accent has contrast 2.65, needed 4.5",
    ]
