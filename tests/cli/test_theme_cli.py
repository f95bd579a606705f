"""``shared-record theme``: start one, check it, look at it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest
from click.testing import CliRunner, Result

from demo_server import wait_for
from servers import free_port
from shared_record.cli import cli
from shared_record.theming.loader import check_theme, load_themes
from shared_record.theming.scaffold import write_tokens
from shared_record.theming.tokens import check_tokens
from shared_record.web.record import samples

THEMES = Path(__file__).parents[2] / "themes"
SOUND = load_themes([THEMES]).sound


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["theme", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new theme."""
    made = tmp_path / "harbour"
    assert run("new", made).exit_code == 0
    return made


def change(folder: Path, path: str, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, (folder / path).read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    (folder / path).write_text(text)


@pytest.mark.parametrize("origin", SOUND)
def test_a_new_theme_looks_like_the_one_it_was_made_from(tmp_path: Path, origin: str) -> None:
    folder = tmp_path / "deep" / "harbour"
    done = run("new", folder, "--from", origin)
    assert done.exit_code == 0, done.output
    assert "theme preview" in done.output
    theme, problems = check_theme(folder)
    assert problems == []
    assert theme is not None
    assert theme.css == SOUND[origin].css
    assert "partials/masthead.html" in theme.partials
    assert run("check", folder).exit_code == 0
    files = json.loads(run("new", tmp_path / "again", "--from", origin, "--json").stdout)["files"]
    assert files == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


@pytest.mark.parametrize("slug", SOUND)
def test_written_tokens_read_as_they_were(tmp_path: Path, slug: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(write_tokens(SOUND[slug].tokens))
    assert check_tokens(path, "t") == (SOUND[slug].tokens, [])
    assert len(re.findall("^# ", path.read_text(), re.MULTILINE)) > 9


def test_a_new_theme_overwrites_nothing_and_has_a_slug(folder: Path, tmp_path: Path) -> None:
    assert run("new", folder).exit_code == 7
    assert run("new", tmp_path / "Har bour").exit_code == 2
    assert run("new", tmp_path / "other", "--from", "nothing").exit_code == 1
    assert not (tmp_path / "other").exists()


def test_check_tells_every_problem_at_once(folder: Path) -> None:
    change(folder, "tokens.toml", '^muted = "[^"]*"', 'muted = "#bbbbbb"')
    change(folder, "tokens.toml", "^font = .*", 'font = "comic"')
    (folder / "static").mkdir()
    (folder / "static" / "app.js").write_text("alert(1)")
    (folder / "templates" / "partials" / "masthead.html").write_text("<h1>{{ shell.vendor }}")
    done = run("check", folder)
    assert done.exit_code == 2
    for part in ("light.muted: found contrast 1.", "#7", "font: found", "app.js: found", "<h1> without its end"):
        assert part in done.output
    found = run("check", folder, "--json")
    assert found.exit_code == 2
    value = json.loads(found.stdout)
    assert value["ok"] is False
    assert all(set(one) == {"file", "key", "found", "expected"} for one in value["problems"])
    assert str(folder / "tokens.toml") in {one["file"] for one in value["problems"]}


def test_check_tells_the_contrast_of_every_pair(folder: Path) -> None:
    value = json.loads(run("check", folder, "--json").stdout)
    assert value["ok"] is True
    assert len(value["contrast"]) == 8
    assert all(one["ratio"] >= 4.5 for one in value["contrast"])
    assert "focus ring" in run("check", folder).output


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("masthead", "<p>{{ shell.vender }}</p>", "landing: found"),
        ("masthead", "<h1>{{ shell.vendor }}</h1>", "a link to shell.base"),
        ("masthead", '<h1><a href="{{ shell.base }}">Record</a></h1>', "the vendor's name in the masthead"),
        ("masthead", '<h1>{{ shell.vendor }}</h1><a href="{{ theme_file("no.png") }}">x</a>', "landing: found"),
        ("mast_head", "<p>never shown</p>", "a name that no page includes"),
    ],
)
def test_check_renders_every_page(folder: Path, name: str, source: str, says: str) -> None:
    (folder / "templates" / "partials" / f"{name}.html").write_text(source)
    done = run("check", folder)
    assert done.exit_code == 2
    assert says in done.output


def test_preview_writes_every_page_light_and_dark(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "preview"
    done = run("preview", folder, "--out", out)
    assert done.exit_code == 0, done.output
    index = (out / "index.html").read_text()
    for name in samples.all_pages():
        for scheme in ("light", "dark"):
            html = (out / f"{name}.{scheme}.html").read_text()
            assert f'href="{name}.{scheme}.html"' in index
            assert 'href="record.css"' in html
            assert "http-equiv" not in html
    assert "color-scheme:dark" in (out / "theme-dark.css").read_text()
    dark_first = tmp_path / "dark"
    assert run("preview", THEMES / "nocturne", "--out", dark_first).exit_code == 0
    assert not list(dark_first.glob("*.light.html"))


def test_preview_speaks_the_language_asked_for(folder: Path, tmp_path: Path) -> None:
    assert run("preview", folder, "--out", tmp_path / "ar", "--language", "ar").exit_code == 0
    assert '<html lang="ar" dir="rtl">' in (tmp_path / "ar" / "landing.light.html").read_text()
    assert run("preview", folder, "--out", tmp_path / "en").exit_code == 0
    assert '<html lang="en" dir="ltr">' in (tmp_path / "en" / "landing.light.html").read_text()


def test_preview_of_a_broken_theme_writes_nothing(folder: Path, tmp_path: Path) -> None:
    change(folder, "tokens.toml", '^accent = "[^"]*"', 'accent = "#ffffff"')
    done = run("preview", folder, "--out", tmp_path / "preview")
    assert done.exit_code == 2
    assert "light.accent" in done.output
    assert not (tmp_path / "preview").exists()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    port = free_port()
    line = [sys.executable, "-m", "shared_record", "theme", "preview", str(folder), "--port", str(port)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
    process = subprocess.Popen(line, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def get(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        return error.code, "", ""


def test_preview_follows_changes_and_serves_nothing_else(folder: Path) -> None:
    with serving(folder) as url:
        status, kind, html = get(f"{url}/landing.light.html")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert "/changed" in html
        before = get(f"{url}/changed")[2]
        assert get(f"{url}/theme-light.css")[1] == "text/css; charset=utf-8"
        for path in ("/../tokens.toml", "/%2e%2e/theme.toml", "/tokens.toml", "/etc/passwd", "//etc/passwd"):
            assert get(url + path)[0] == 404
        change(folder, "tokens.toml", "^radius = .*", 'radius = "large"')
        wait_for("the change", lambda: get(f"{url}/changed")[2] != before)
        assert "--radius:0.75rem" in get(f"{url}/theme-light.css")[2]
        change(folder, "tokens.toml", "^radius = .*", 'radius = "square"')
        assert "radius: found" in get(f"{url}/landing.light.html")[2]


def test_list_names_the_installed_themes() -> None:
    done = run("list")
    assert done.exit_code == 0
    assert "nocturne: Nocturne." in done.output
    assert {one["slug"] for one in json.loads(run("list", "--json").stdout)["themes"]} >= set(SOUND)
