"""Steps of a sign-in elsewhere, as a browser without scripts takes them."""

from __future__ import annotations

import ipaddress
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from werkzeug.test import TestResponse

from client import Visitor, serve
from mock_idp import SECRET, MockIdp
from shared_record.access import entitlements, method_secrets
from shared_record.tenancy.methods import put_methods
from world import Shop

ALLOW = (ipaddress.ip_network("127.0.0.0/8"),)


def connect(shop: Shop, *connections: dict[str, Any], others: tuple[str, ...] = ("access_code",)) -> None:
    """Let a tenant's customers sign in."""
    with shop.db.write(shop.scope) as connection:
        methods: list[tuple[str, dict[str, Any]]] = [("oidc", {"connections": list(connections)})]
        put_methods(connection, shop.scope, methods + [(slug, {}) for slug in others])
        method_secrets.set_tenant_secret(
            connection, shop.keys, shop.clock, shop.scope, "oidc", "acme", SECRET.encode(), "test"
        )


def allow(shop: Shop, rule: entitlements.Rule, customer: str = "cust_a") -> None:
    """Put somebody on a customer's list."""
    with shop.db.write(shop.scope) as connection:
        entitlements.allow(connection, shop.keys, shop.clock, shop.scope, customer, rule, "test")


def application(shop: Shop) -> Any:
    """Return the application; it may reach providers on this machine."""
    return serve(shop, egress_allow=ALLOW)


def go_out(visitor: Visitor, url: str, target: str = "", key: str = "oidc:acme") -> str:
    """Choose the sign-in; return where the browser is sent."""
    form = visitor.get(f"{url}/unlock?method={key}&next={target}")
    assert form.status_code == 200, form.text
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form.text))
    left = visitor.post(f"{url}/unlock", data={name: unescape(value) for name, value in fields.items()})
    assert left.status_code == 200, left.text
    found = re.search(r'<a href="([^"]+)" rel="noreferrer"', left.text)
    assert found, left.text
    assert "script-src" not in left.headers["Content-Security-Policy"]
    return unescape(found[1])


def come_back(visitor: Visitor, address: str, answer: dict[str, str]) -> TestResponse:
    """Bring the provider's answer to the callback."""
    return visitor.get(f"{address.partition('?')[0]}?{urlencode(answer)}")


def callback_in(address: str) -> str:
    """Return the redirect URI of an authorization request."""
    return parse_qs(urlsplit(address).query)["redirect_uri"][0]


def sign_in(visitor: Visitor, idp: MockIdp, url: str, target: str = "", **changes: str | None) -> TestResponse:
    """Go out and come back at once."""
    address = go_out(visitor, url, target)
    return come_back(visitor, callback_in(address), idp.sign_in(address, **changes))


def is_open(visitor: Visitor, url: str) -> bool:
    """Tell whether a browser has a session."""
    return visitor.get(f"{url}/activity").status_code == 200
