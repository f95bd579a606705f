"""The real OpenID provider of npm, in a process of its own. ``SR_TEST_NODE_MODULES`` names where it is installed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, build_opener

import pytest

from mock_idp import CLIENT, SECRET
from servers import free_port

PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).with_name("oidc_provider.mjs")


def folder_of_modules() -> Path:
    """Return the folder whose ``node_modules`` holds the provider; skip the test where there is none."""
    found = Path(os.environ.get("SR_TEST_NODE_MODULES", Path(__file__).parents[1] / ".venv/oidc-provider"))
    if shutil.which("node") is None or not (found / "node_modules/oidc-provider").is_dir():
        reason = f"NOT RUN: needs Node and `npm install --prefix {found} {PACKAGE}` (or SR_TEST_NODE_MODULES)"
        if os.environ.get("SR_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass(frozen=True)
class NodeIdp:
    """A running provider."""

    port: int

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connection(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a connection to this provider."""
        usual = {"id": "acme", "title": "Acme ID", "issuer": self.issuer, "client_id": CLIENT}
        return usual | {"client_secret": "acme"} | changes

    def sign_in(self, url: str, name: str) -> dict[str, str]:
        """Sign in as ``name`` in a browser without scripts; return the query that it is sent back with."""
        person = _Person()
        page = person.open(url)
        while page.back is None:
            form = re.search(r'<form[^>]* action="([^"]+)"', page.text)
            assert form, page.text
            fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
            data = fields | ({"login": name, "password": "x"} if 'name="login"' in page.text else {})
            page = person.open(urljoin(self.issuer, unescape(form[1])), data)
        return dict(parse_qsl(urlsplit(page.back).query))


@contextlib.contextmanager
def node_idp(*redirects: str, algorithm: str = "RS256") -> Iterator[NodeIdp]:
    """Run a provider that sends browsers back to ``redirects`` only."""
    folder = folder_of_modules()
    port = free_port()
    settings = {"port": port, "redirects": redirects, "secret": SECRET, "algorithm": algorithm}
    line = ["node", SCRIPT, folder, json.dumps(settings)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline()
            assert first == "listening\n", first + process.stderr.read()
            yield NodeIdp(port)
        finally:
            process.kill()


@dataclass(frozen=True)
class _Page:
    text: str
    back: str | None = None


class _Person:
    """A browser that stays with the provider, and stops where it is sent elsewhere."""

    def __init__(self) -> None:
        self._opener = build_opener(_Stay(), HTTPCookieProcessor(CookieJar()))

    def open(self, url: str, form: dict[str, str] | None = None) -> _Page:
        home = urlsplit(url).netloc
        data = urlencode(form).encode() if form is not None else None
        while urlsplit(url).netloc == home:
            try:
                with self._opener.open(url, data, timeout=10) as answer:
                    return _Page(answer.read().decode())
            except HTTPError as error:
                if error.code not in (302, 303):
                    raise AssertionError(error.read().decode()) from error
                url, data = urljoin(url, error.headers["Location"]), None
        return _Page("", url)


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
