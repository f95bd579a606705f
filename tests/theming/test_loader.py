from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from shared_record.errors import ConfigurationError
from shared_record.theming.loader import environment, load_themes
from shared_record.theming.tokens import contrast_problems

THEMES = Path(__file__).parents[2] / "themes"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "themes"
    folder.mkdir()
    shutil.copytree(THEMES / "default", folder / "plain")
    return folder


@pytest.fixture
def core(tmp_path):
    (tmp_path / "core" / "partials").mkdir(parents=True)
    (tmp_path / "core" / "page.html").write_text('<main>{% include "partials/top.html" %}</main>{{ word }}')
    (tmp_path / "core" / "partials" / "top.html").write_text("core top")
    return tmp_path / "core"


def partial(root: Path, slug: str, text: str) -> None:
    folder = root / slug / "templates" / "partials"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.html").write_text(text)


def test_the_built_in_themes_load_and_have_contrast():
    themes = load_themes([THEMES])
    assert set(themes) == {"default", "nocturne", "broadsheet"}
    for theme in themes.values():
        assert contrast_problems(theme.tokens) == ()
        assert theme.title
        assert theme.description
        assert theme.static_dir.is_dir()
    assert len({theme.css_hash for theme in themes.values()}) == 3


def test_the_hash_follows_the_css(root):
    before = load_themes([root])["plain"]
    tokens = root / "plain" / "tokens.toml"
    tokens.write_text(tokens.read_text().replace('radius = "small"', 'radius = "none"'))
    after = load_themes([root])["plain"]
    assert before.css != after.css
    assert before.css_hash != after.css_hash


def test_a_slug_exists_once(root):
    with pytest.raises(ConfigurationError, match="'plain' exists twice"):
        load_themes([root, root])


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_themes([tmp_path / "nowhere"])


def test_folders_that_are_no_themes_are_passed_over(root):
    (root / "__pycache__").mkdir()
    (root / ".git").mkdir()
    (root / "README.md").write_text("About")
    assert list(load_themes([root])) == ["plain"]


@pytest.mark.parametrize(
    ("path", "text", "named"),
    [
        ("theme.toml", 'title = "X"', "theme.toml: description must be a text"),
        ("theme.toml", 'title = ""\ndescription = "Y"', "theme.toml: title must be a text"),
        ("theme.toml", 'name = "X"', "theme.toml: unknown key name"),
        ("templates/base.html", "mine", "below partials/ only"),
        ("templates/partials/masthead.html", "{% if %}", "masthead.html"),
    ],
)
def test_a_broken_theme_is_named(root, path, text, named):
    target = root / "plain" / path
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    with pytest.raises(ConfigurationError, match=named) as caught:
        load_themes([root])
    assert "plain" in caught.value.message


def test_a_theme_without_contrast_is_refused(root):
    tokens = root / "plain" / "tokens.toml"
    tokens.write_text(tokens.read_text().replace('muted = "#5b6462"', 'muted = "#bbbbbb"'))
    with pytest.raises(ConfigurationError, match=r"\[light\] muted on background"):
        load_themes([root])


def test_a_folder_name_is_a_slug(root):
    (root / "plain").rename(root / "Plain Theme")
    with pytest.raises(ConfigurationError, match="Plain Theme"):
        load_themes([root])


def test_each_theme_renders_its_own_partials_only(root, core):
    shutil.copytree(root / "plain", root / "other")
    partial(root, "other", "other top")
    themes = load_themes([root])
    plain, other = environment(core, themes["plain"]), environment(core, themes["other"])
    for _ in range(2):
        assert plain.get_template("page.html").render(word="x") == "<main>core top</main>x"
        assert other.get_template("page.html").render(word="x") == "<main>other top</main>x"
    assert plain.cache is not other.cache


def test_text_is_escaped_and_undefined_names_are_errors(core):
    template = environment(core).get_template("page.html")
    assert template.render(word="<b>").endswith("&lt;b&gt;")
    with pytest.raises(UndefinedError):
        template.render()
