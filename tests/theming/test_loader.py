from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from shared_record.errors import ConfigurationError
from shared_record.theming.loader import check_theme, environment, load_themes
from theming.conftest import THEMES, chunk, png


@pytest.fixture
def core(tmp_path):
    (tmp_path / "core" / "partials").mkdir(parents=True)
    (tmp_path / "core" / "page.html").write_text('<main>{% include "partials/top.html" %}</main>{{ word }}')
    (tmp_path / "core" / "partials" / "top.html").write_text("core top")
    return tmp_path / "core"


def put(root: Path, path: str, content: str | bytes) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return target


def change(root: Path, slug: str, before: str, after: str) -> None:
    tokens = root / slug / "tokens.toml"
    assert before in tokens.read_text()
    tokens.write_text(tokens.read_text().replace(before, after))


def problems(root: Path) -> list[str]:
    return [str(one) for one in load_themes([root]).broken.get("plain", [])]


def test_the_built_in_themes_load():
    themes = load_themes([THEMES])
    assert themes.broken == {}
    assert set(themes.sound) == {"default", "nocturne", "broadsheet"}
    assert all(theme.title and theme.description for theme in themes.sound.values())
    for key in ("font", "radius", "density", "rules"):
        assert len({getattr(theme.tokens, key) for theme in themes.sound.values()}) == 3
    assert len({theme.css_hash for theme in themes.sound.values()}) == 3


def test_the_hash_follows_the_css(root):
    before = load_themes([root]).sound["plain"]
    change(root, "plain", 'radius = "small"', 'radius = "none"')
    after = load_themes([root]).sound["plain"]
    assert before.css != after.css
    assert before.css_hash != after.css_hash


def test_a_slug_that_exists_twice_is_used_by_none(root, tmp_path):
    other = tmp_path / "others"
    shutil.copytree(root, other)
    themes = load_themes([root, other])
    assert themes.sound == {}
    (problem,) = themes.broken["plain"]
    assert "a second time" in problem.found
    assert str(root) in problem.expected


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_themes([tmp_path / "nowhere"])


def test_folders_that_are_no_themes_are_passed_over(root):
    (root / "__pycache__").mkdir()
    (root / ".git").mkdir()
    (root / "README.md").write_text("About")
    assert list(load_themes([root]).sound) == ["plain"]


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("theme.toml", 'title = "X"', "theme.toml: description: found nothing"),
        ("theme.toml", 'title = ""\ndescription = "Y"', 'theme.toml: title: found ""'),
        ("theme.toml", 'name = "X"\ntitle = "X"\ndescription = "Y"', "theme.toml: name: found a key that"),
        ("templates/base.html", "mine", 'base.html: found "base.html", expected templates right in partials/'),
        ("templates/partials/deep/x.html", "mine", "x.html: found"),
        ("templates/partials/masthead.html", "{% if %}", "masthead.html: found line 1"),
        ("templates/partials/masthead.html", "<!--", "masthead.html: found an unfinished tag"),
        ("templates/partials/masthead.html", b"\xff", "masthead.html: found"),
        ("templates/partials/masthead.html", "x" * 65537, 'masthead.html: found "64 KiB"'),
        ("static/app.js", "alert(1)", 'app.js: found "app.js", expected a PNG file'),
        ("static/deep/logo.png", png(), 'logo.png: found "deep/logo.png"'),
        ("static/logo.png", b"GIF89a", "logo.png: found no PNG file"),
        ("static/logo.svg", "<svg/>", "logo.svg: found"),
    ],
)
def test_a_broken_theme_is_told_and_does_no_harm_to_others(root, path, text, says):
    shutil.copytree(root / "plain", root / "other")
    put(root / "plain", path, text)
    themes = load_themes([root])
    assert list(themes.sound) == ["other"]
    (problem,) = map(str, themes.broken["plain"])
    assert says in problem


def test_everything_wrong_with_a_theme_is_told_at_once(root):
    put(root / "plain", "theme.toml", "")
    change(root, "plain", 'muted = "#5b6462"', 'muted = "#bbbbbb"')
    put(root / "plain", "static/app.js", "alert(1)")
    put(root / "plain", "templates/partials/masthead.html", "<div>")
    text = "\n".join(problems(root))
    for part in (
        "title: found nothing",
        "description: found",
        "light.muted: found contrast",
        "app.js",
        "<div> without",
    ):
        assert part in text


def test_a_folder_name_is_a_slug(root):
    (root / "plain").rename(root / "Plain Theme")
    assert "Plain Theme" in load_themes([root]).broken


def test_a_link_to_elsewhere_is_not_followed(root, tmp_path):
    secret = put(tmp_path, "elsewhere/logo.png", png())
    (root / "plain" / "static" / "logo.png").symlink_to(secret)
    (root / "plain" / "templates" / "partials").mkdir(exist_ok=True)
    (root / "plain" / "templates" / "partials" / "links.html").symlink_to(put(tmp_path, "x.html", "<p>x</p>"))
    assert len(problems(root)) == 2


def test_a_logo_is_a_picture_of_the_theme_written_anew(root):
    change(root, "plain", 'font = "system"', 'font = "system"\nlogo = "mark.png"\nlogo_dark = "night.png"')
    assert [one.partition("tokens.toml: ")[2].partition(":")[0] for one in problems(root)] == ["logo", "logo_dark"]
    put(root / "plain", "static/mark.png", png(4, 3, between=chunk(b"tEXt", b"Author\0somebody")))
    put(root / "plain", "static/night.png", png(4, 3))
    theme = load_themes([root]).sound["plain"]
    assert theme.logo is not None
    assert (theme.logo.width, theme.logo.height) == (4, 3)
    assert b"somebody" not in theme.logo.data
    assert theme.logo_dark is not None
    assert theme.logo_dark.digest == theme.logo.digest
    change(root, "plain", 'logo = "mark.png"\n', "")
    assert "logo: found nothing" in problems(root)[0]


def test_each_theme_renders_its_own_partials_only(root, core):
    shutil.copytree(root / "plain", root / "other")
    put(root / "other", "templates/partials/top.html", "other top")
    themes = load_themes([root]).sound
    plain, other = environment(core, themes["plain"]), environment(core, themes["other"])
    for _ in range(2):
        assert plain.get_template("page.html").render(word="x") == "<main>core top</main>x"
        assert other.get_template("page.html").render(word="x") == "<main>other top</main>x"
    assert plain.cache is not other.cache


def test_a_running_theme_does_not_change_with_its_files(root, core):
    put(root / "plain", "templates/partials/top.html", "checked")
    theme, _ = check_theme(root / "plain")
    put(root / "plain", "templates/partials/top.html", "<script>later</script>")
    assert environment(core, theme).get_template("page.html").render(word="x").startswith("<main>checked<")


def test_a_partial_names_the_pictures_of_its_theme_alone(root, core):
    put(root / "plain", "static/mark.png", png())
    put(root / "plain", "templates/partials/top.html", '<img src="{{ theme_file("mark.png") }}" alt="">')
    theme, _ = check_theme(root / "plain")
    html = environment(core, theme, lambda picture: f"/{picture.digest}").get_template("page.html").render(word="x")
    assert f'src="/{theme.pictures["mark.png"].digest}"' in html


def test_text_is_escaped_and_undefined_names_are_errors(core):
    template = environment(core).get_template("page.html")
    assert template.render(word="<b>").endswith("&lt;b&gt;")
    with pytest.raises(UndefinedError):
        template.render()
