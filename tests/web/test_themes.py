"""Themes as browsers get them: their templates, their pictures, and what a broken one does."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import PORT, Visitor, serve, url_of
from shared_record.app import create_app
from shared_record.errors import ConfigurationError
from shared_record.hooks.loader import load_plugins
from shared_record.settings import Settings
from shared_record.tenancy.tenants import update_tenant
from shared_record.theming.markup import check_partial
from shared_record.web.render import TEMPLATES
from theming.conftest import THEMES, chunk, png
from world import Shop, open_shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

MASTHEAD = """{% include "partials/logo.html" %}
<h1>Quay: {{ shell.vendor }}</h1>
<p><a href="{{ shell.base }}"><img src="{{ theme_file("mark.png") }}" alt="Quay"></a></p>
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A theme ``quay`` with a masthead, a logo and a picture of its own."""
    folder = tmp_path / "more" / "quay"
    shutil.copytree(THEMES / "default", folder)
    tokens = (folder / "tokens.toml").read_text()
    (folder / "tokens.toml").write_text('logo = "logo.png"\nlogo_dark = "night.png"\n' + tokens)
    (folder / "templates" / "partials").mkdir()
    (folder / "templates" / "partials" / "masthead.html").write_text(MASTHEAD)
    for name, width in (("logo", 40), ("night", 41), ("mark", 9)):
        (folder / "static" / f"{name}.png").write_bytes(png(width, 8, between=chunk(b"tEXt", b"Author\0someone")))
    return tmp_path / "more"


def application(shop: Shop, root: Path) -> Any:
    """Return the application with one more folder of themes."""
    plugins = load_plugins()
    plugins = replace(plugins, theme_roots=[*plugins.theme_roots, root])
    return create_app(Settings(port=PORT), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=plugins)


@pytest.fixture
def two(shop: Shop, root: Path, tmp_path: Path) -> tuple[Visitor, str, str]:
    """A visitor, and the links of a customer of ``acme`` (theme quay) and of one of ``other`` (theme default)."""
    other = open_shop(
        shop.db, shop.keys, shop.clock, tmp_path / "other", slug="other", hosts=("usage.other.localhost",)
    )
    for one in (shop, other):
        one.record("cust_a", "7")
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"theme": "quay"})
    return Visitor(application(shop, root)), url_of(shop, "cust_a"), url_of(other, "cust_a")


def test_one_tenants_template_is_never_shown_to_another(two: tuple[Visitor, str, str]) -> None:
    visitor, mine, theirs = two
    for _ in range(3):
        assert "<h1>Quay: Acme</h1>" in visitor.get(mine).text
        assert "Quay" not in visitor.get(theirs).text
        assert "<h1><bdi>Other</bdi> usage record</h1>" in visitor.get(theirs).text


def test_t02_pictures_come_from_our_own_host_written_anew(two: tuple[Visitor, str, str]) -> None:
    visitor, mine, _ = two
    host, html = mine.partition("/")[0], visitor.get(mine).text
    found = dict.fromkeys(re.findall(r'(?:src|srcset)="(/static/theme/[^"]+)"', html))
    assert [path.rpartition("/")[2] for path in found] == ["night.png", "logo.png", "mark.png"]
    assert 'media="screen and (prefers-color-scheme: dark)"' in html
    assert 'width="40" height="8"' in html
    for path in found:
        answer = visitor.get(host + path)
        assert (answer.status_code, answer.content_type) == (200, "image/png")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; sandbox")
        assert answer.data.startswith(b"\x89PNG")
        assert b"someone" not in answer.data


def test_t02_nothing_but_checked_pictures_is_served(two: tuple[Visitor, str, str], root: Path) -> None:
    visitor, mine, _ = two
    host, html = mine.partition("/")[0], visitor.get(mine).text
    match = re.search(r"/static/theme/quay/([0-9a-f]{16})/logo.png", html)
    assert match
    (root / "quay" / "static" / "later.png").write_bytes(png())
    for path in (
        f"quay/{match[1]}/mark.png",  # another picture's digest
        "quay/0000000000000000/logo.png",
        f"default/{match[1]}/logo.png",
        f"quay/{match[1]}/later.png",
        f"quay/{match[1]}/tokens.toml",
        f"quay/{match[1]}/../tokens.toml",
        f"quay/{match[1]}/..%2f..%2ftheme.toml",
        f"quay/{match[1]}/%2e%2e/logo.png",
        f"../theme/{match[1]}/logo.png",
    ):
        assert visitor.get(f"{host}/static/theme/{path}").status_code == 404, path


def test_t04_a_theme_that_replaces_what_it_may_leaves_the_footer_as_it_is(
    two: tuple[Visitor, str, str], shop: Shop, root: Path
) -> None:
    """A theme's own way to write names serves the masthead; the footer names vendor and host without it."""
    _, mine, theirs = two
    for path in (TEMPLATES / "partials").glob("*.html"):
        own = path.read_text().replace("{{ text }}", "Globex")
        if not check_partial(own):
            (root / "quay/templates/partials" / path.name).write_text(own)
    visitor = Visitor(application(shop, root))
    for link, vendor, shown in ((mine, "Acme", "Globex"), (theirs, "Other", "Other")):
        for page in (link, f"{link}/unlock"):
            html = " ".join(visitor.get(page).text.split())
            assert f"<bdi>{shown}</bdi> usage record" in html
            assert html.count("<footer>") == 1
            assert html.partition("<footer>")[2].startswith(
                f" <p>Recorded by <bdi>{vendor}</bdi>. Can be checked independently."
                f" This page comes from <bdi>{link.partition('/')[0]}</bdi>.</p>"
            )


def test_t04_a_page_can_be_reported_to_the_operator(shop: Shop) -> None:
    link = "Report this page"
    shop.record("cust_a", "7")
    assert link not in Visitor(serve(shop)).get(url_of(shop, "cust_a")).text
    visitor = Visitor(serve(shop, report_to="mailto:abuse@records.example"))
    for path in ("", "/unlock"):
        footer = visitor.get(url_of(shop, "cust_a") + path).text.partition("<footer>")[2]
        assert f'<a href="mailto:abuse@records.example">{link}</a>' in footer


def test_a_theme_that_broke_is_left_out_and_said_in_the_log(
    shop: Shop, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop.record("cust_a", "7")
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"theme": "quay"})
    (root / "quay" / "templates" / "partials" / "masthead.html").write_text("<h1>Quay</h1><div hidden>")
    with caplog.at_level(logging.ERROR, "shared_record.web"):
        visitor = Visitor(application(shop, root))
    assert "theme.broken quay" in caplog.text
    assert "<div> without its end" in caplog.text
    html = visitor.get(url_of(shop, "cust_a")).text
    assert "Quay" not in html
    assert "Can be checked independently." in html


def test_without_a_sound_default_theme_nothing_starts(shop: Shop, tmp_path: Path) -> None:
    plugins = replace(load_plugins(), theme_roots=[tmp_path])
    with pytest.raises(ConfigurationError, match="default"):
        create_app(Settings(port=PORT), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=plugins)
