"""A browser-like test client: keeps cookies per host, says where it comes from, and goes through the gate."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from html import unescape
from typing import Any

from werkzeug.test import Client, TestResponse

from shared_record.app import create_app
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.settings import Settings
from world import Shop

PORT = 8000


class Visitor:
    """One browser."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.jars: dict[str, dict[str, str]] = {}

    def request(self, method: str, url: str, **options: Any) -> TestResponse:
        """Send one request to ``http://host:8000/path`` (or ``host/path``); follow nothing."""
        host, _, path = url.removeprefix("http://").partition("/")
        host = host.partition(":")[0]
        headers = dict(options.pop("headers", {}))
        jar = self.jars.setdefault(host, {})
        if jar and "Cookie" not in headers:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        client = Client(self.application, use_cookies=False)
        headers.setdefault("Host", f"{host}:{PORT}")
        headers.setdefault("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
        response = client.open(
            f"/{path}",
            method=method,
            headers=headers,
            environ_overrides={"REMOTE_ADDR": "127.0.0.1"},
            buffered=True,
            **options,
        )
        for line in response.headers.getlist("Set-Cookie"):
            name, _, rest = line.partition("=")
            value, _, attributes = rest.partition(";")
            if "Max-Age=0" in attributes or "1970" in attributes:  # a random name or value may hold these digits
                jar.pop(name, None)
            else:
                jar[name] = value
        return response

    def get(self, url: str, **options: Any) -> TestResponse:
        """Send a GET."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> TestResponse:
        """Send a POST."""
        return self.request("POST", url, **options)

    def unlock(self, url: str, code: str, target: str = "", **options: Any) -> TestResponse:
        """Fill in the access-code form of a link as a person does."""
        form = self.get(f"{url}/unlock?next={target}")
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form.text))
        data = {name: unescape(value) for name, value in fields.items()} | {"field-code": code}
        return self.post(f"{url}/unlock", data=data, **options)


def serve(shop: Shop, **settings: Any) -> Any:
    """Return the application over a test tenant's database."""
    plugins = deepcopy(_plugins())
    return create_app(Settings(port=PORT, **settings), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=plugins)


@cache
def _plugins() -> Plugins:
    return load_plugins()


def url_of(shop: Shop, customer: str, host: str | None = None) -> str:
    """Return a customer's link without its scheme."""
    link = shop.link(customer)
    return f"{host or link.host}{link.path}"
