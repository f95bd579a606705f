"""What every answer carries (R10), and that no route exists without a tier."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask

from client import Visitor, serve, url_of
from shared_record import __version__
from shared_record.access.policy import Surface
from shared_record.errors import ConfigurationError
from shared_record.hosts.resolver import Role
from shared_record.web.headers import CONTENT_SECURITY_POLICY, IMMUTABLE
from shared_record.web.tiers import Gatekeeper, check_tiers, tier, tier_of
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
BASE = ("default-src", "frame-ancestors", "base-uri")
SAMPLES = {"digest": "0" * 16, "name": "record.css", "slug": "default", "record_id": "rec_x", "period": "2026-11"}


def applications(shop: Shop, **settings: Any) -> tuple[Any, dict[str, Flask]]:
    gate = serve(shop, **settings)
    return gate, {shop.hosts[0]: gate._applications[Role.SERVING], "localhost": gate._applications[Role.PLATFORM]}


def requests_of(app: Flask, handle: str) -> list[tuple[str, str, str]]:
    """Return (endpoint, method, path) of every route, with a handle where one belongs and plausible text elsewhere."""
    found = []
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            values: dict[str, Any] = {}
            for name in rule.arguments:
                converter = rule._converters[name]
                text = handle if name == "handle" else SAMPLES.get(name, "x")
                values[name] = 1 if "Integer" in type(converter).__name__ else text
            path = rule.build(values, append_unknown=False)
            assert path is not None
            methods = rule.methods or set()
            found += [(rule.endpoint, method, path[1]) for method in sorted({*methods, "PUT"})]
    return found


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("handle", ["live", "unknown"])
def test_l09_every_route_of_both_applications_answers_with_the_headers(shop: Shop, scheme: str, handle: str) -> None:
    shop.record("cust_a", "1")
    gate, apps = applications(shop, public_scheme=scheme)
    real = shop.link("cust_a").handle or ""
    seen = 0
    for host, app in apps.items():
        for endpoint, method, path in requests_of(app, real if handle == "live" else "0" * 26):
            answer = Visitor(gate).request(method, f"{host}{path}")
            where = f"{method} {host} {endpoint}"
            seen += 1
            assert answer.status_code < 500 or answer.status_code == 503, where
            for name, value in ALWAYS.items():
                assert answer.headers.get(name) == value, (where, name)
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'"), where
            assert "unsafe" not in policy, where
            assert ("Strict-Transport-Security" in answer.headers) == (scheme == "https"), where
            public = tier_of(app, endpoint) is Gatekeeper.NOBODY
            if answer.status_code >= 400:
                assert answer.headers["Cache-Control"] != IMMUTABLE, where
            if not public:
                assert "no-store" in answer.headers["Cache-Control"], where
                is_page = answer.mimetype == "text/html"
                assert answer.headers["Vary"] == ("Accept-Language, Cookie" if is_page else "Cookie"), where
            if answer.headers["Cache-Control"] == IMMUTABLE:
                assert "Set-Cookie" not in answer.headers, where
            if answer.headers.get("Access-Control-Allow-Origin"):
                assert public, where
                assert "Access-Control-Allow-Credentials" not in answer.headers, where
            else:
                assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", where
    assert seen > 40


def test_t08_a_page_and_an_error_have_the_strict_policy(shop: Shop) -> None:
    shop.record("cust_a", "1")
    gate, _ = applications(shop)
    link = shop.link("cust_a").path
    for path in ("/c/unknown", "/nothing", f"{link}/unlock"):
        answer = Visitor(gate).get(f"{shop.hosts[0]}{path}")
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert all(f"{name} 'none'" in CONTENT_SECURITY_POLICY for name in BASE)
    nonces = set()
    for _ in range(2):
        answer = Visitor(gate).get(f"{shop.hosts[0]}{link}")
        policy, _semicolon, scripts = answer.headers["Content-Security-Policy"].rpartition("; ")
        assert policy == CONTENT_SECURITY_POLICY
        nonce = scripts.removeprefix("script-src 'nonce-").removesuffix("'")
        nonces.add(nonce)
        found = re.findall(r"<script[^>]*>", answer.text)
        assert found == re.findall(rf'<script nonce="{nonce}" src="/static/[^"]+" defer>', answer.text)
    assert len(nonces) == 2


def test_z02_nothing_of_the_server_or_the_request_is_told(shop: Shop) -> None:
    gate, _ = applications(shop)
    canary = "canary-8f3a"
    headers = {"X-Request-Id": canary, "Origin": f"https://{canary}.example", "User-Agent": canary, "Referer": canary}
    for host in (shop.hosts[0], "localhost"):
        answer = Visitor(gate).get(f"{host}/{canary}?{canary}", headers=headers)
        assert canary not in answer.text + str(answer.headers)
        assert not {"Server", "X-Powered-By"} & set(answer.headers.keys())


def test_z02_an_error_of_ours_shows_a_reference_and_nothing_else(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the setting by which Flask shows more to developers."""
    shop.record("cust_a", "1")
    monkeypatch.setenv("FLASK_DEBUG", "1")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("canary-8f3a")

    monkeypatch.setattr("shared_record.web.record.views.shell", broken)
    visitor = Visitor(serve(shop))
    answers = [visitor.get(url_of(shop, "cust_a")) for _ in range(2)]
    references = [re.findall(r"Reference ([0-9A-F]{4}-[0-9A-F]{4})", answer.text)[0] for answer in answers]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert len({answer.text.replace(own, "") for answer, own in zip(answers, references, strict=True)}) == 1
    assert all(word not in answers[0].text for word in ("canary", "Traceback", "RuntimeError", ".py", __version__))
    assert "canary-8f3a" in caplog.text
    assert all(own.replace("-", "") in caplog.text for own in references)


def test_z02_the_request_is_not_sent_back(shop: Shop) -> None:
    answer = Visitor(serve(shop)).request("TRACE", f"{shop.hosts[0]}/", headers={"Cookie": "canary=8f3a"})
    assert answer.status_code in (404, 405)
    assert "canary" not in answer.text


def test_p01_every_route_declares_its_tier(shop: Shop) -> None:
    for app in applications(shop)[1].values():
        for rule in app.url_map.iter_rules():
            found = tier_of(app, rule.endpoint)
            assert isinstance(found, (Surface, Gatekeeper))
            if "handle" in rule.arguments:
                assert found in (*Surface, Gatekeeper.STEP_UP) or rule.endpoint == "record.verify", rule
            if rule.rule.startswith("/api/v1/balance"):
                assert found is Gatekeeper.API_KEY, rule


def test_p01_an_undeclared_route_fails_at_the_start(shop: Shop) -> None:
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/a", view_func=tier(Gatekeeper.NOBODY)(lambda: "a"), endpoint="a")
    check_tiers(app)
    app.add_url_rule("/b", view_func=lambda: "b", endpoint="b")
    with pytest.raises(ConfigurationError, match="the route b declares no tier"):
        check_tiers(app)


def test_flasks_own_static_route_would_not_pass(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="static"):
        check_tiers(Flask(__name__))
