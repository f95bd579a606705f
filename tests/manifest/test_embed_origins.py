"""The sites that a tenant file names for showing receipts in a frame (T06: exact https origins, nothing wider)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared_record.manifest.check import Checked, Known, check_file

KNOWN = Known(themes=["default"], methods={}, formats=[])


def settings(folder: Path, *origins: str) -> list[str] | None:
    """Return what is stored for these origins; ``None`` where the file is refused."""
    path = folder / "acme.toml"
    path.write_text(f'name = "A"\nembed_origins = {json.dumps(origins)}\n')
    found = check_file(path, KNOWN)
    if isinstance(found, Checked):
        stored: list[str] = found.settings["embed_origins"]
        return stored
    assert found[0].line == 2
    return None


@pytest.mark.parametrize(
    ("origin", "stored"),
    [
        ("https://portal.acme.example", "https://portal.acme.example"),
        ("https://Portal.Acme.example:443", "https://portal.acme.example"),
        ("https://portal.acme.example:8443", "https://portal.acme.example:8443"),
        ("https://Straße.example", "https://xn--strae-oqa.example"),
    ],
)
def test_an_origin_is_stored_as_browsers_write_it(tmp_path: Path, origin: str, stored: str) -> None:
    assert settings(tmp_path, origin) == [stored]


@pytest.mark.parametrize(
    "origin",
    [
        "http://portal.acme.example",
        "https://*.acme.example",
        "https://*",
        "*",
        "null",
        "'self'",
        "https:",
        "portal.acme.example",
        "https://portal.acme.example/",
        "https://portal.acme.example/path",
        "https://portal.acme.example?x",
        "https://user@portal.acme.example",
        "https://portal.acme.example:0",
        "https://portal.acme.example:65536",
        "https://a.example https://b.example",
        "https://a.example; script-src *",
        "https://a.example,https://b.example",
        "data:text/html,x",
        "",
    ],
)
def test_t06_what_is_no_https_origin_is_refused(tmp_path: Path, origin: str) -> None:
    assert settings(tmp_path, origin) is None
    assert settings(tmp_path, "https://a.example", origin) is None


def test_there_is_an_end_to_the_list(tmp_path: Path) -> None:
    assert settings(tmp_path, *(f"https://a{number}.example" for number in range(20))) is not None
    assert settings(tmp_path, *(f"https://a{number}.example" for number in range(21))) is None
