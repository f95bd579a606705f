"""Sign-in at a real OpenID provider, by a browser without scripts and by Chromium."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect
from shared_record_oidc.provider import Cache

from client import Visitor, url_of
from live_server import serving
from node_idp import NodeIdp, node_idp
from shared_record.access import entitlements
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from signing_in import allow, application, callback_in, come_back, connect, go_out, is_open
from world import Shop, open_shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ACME = "http://usage.acme.localhost:8000/auth/oidc/acme"
BOREALIS = "http://usage.borealis.localhost:8000/auth/oidc/acme"


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port, and so an issuer, may come again."""
    monkeypatch.setattr("shared_record_oidc._cache", Cache())


@pytest.fixture
def clock() -> SteppedClock:
    """The provider's tokens are of today."""
    return SteppedClock(datetime.now(UTC))


def listed(shop: Shop, idp: NodeIdp, **settings: Any) -> Shop:
    shop.record("cust_a", "1")
    connect(shop, idp.connection(**settings))
    allow(shop, entitlements.subject(idp.issuer, "ann"))
    return shop


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_real_provider_signs_a_listed_person_in_and_nobody_else(shop: Shop, algorithm: str) -> None:
    with node_idp(ACME, algorithm=algorithm) as idp:
        visitor, url = Visitor(application(listed(shop, idp))), url_of(shop, "cust_a")
        for name, status in (("eve", 403), ("ann", 303)):
            address = go_out(visitor, url)
            answer = idp.sign_in(address, name)
            assert answer["iss"] == idp.issuer
            came_back = come_back(visitor, callback_in(address), answer)
            assert came_back.status_code == status
            assert is_open(visitor, url) is (name == "ann")


def test_i09_a_real_provider_says_whether_it_verified_an_address(shop: Shop) -> None:
    with node_idp(ACME) as idp:
        listed(shop, idp, email_domains=["acme.example"])
        allow(shop, entitlements.domain("acme.example"))
        for name, status in (("unverified", 403), ("bob", 303)):
            visitor = Visitor(application(shop))
            address = go_out(visitor, url_of(shop, "cust_a"))
            answer = idp.sign_in(address, name)
            assert come_back(visitor, callback_in(address), answer).status_code == status


def test_i02_two_real_providers_are_not_mixed_up(
    shop: Shop, db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path
) -> None:
    other = open_shop(db, keys, clock, tmp_path, slug="borealis", hosts=("usage.borealis.localhost",))
    with node_idp(ACME) as honest, node_idp(ACME, BOREALIS) as evil:
        listed(shop, honest)
        listed(other, evil)
        visitor = Visitor(application(shop))
        address, elsewhere = go_out(visitor, url_of(shop, "cust_a")), go_out(visitor, url_of(other, "cust_a"))
        # The other tenant's provider names the same subject, and answers to the first tenant's attempt.
        state = parse_qs(urlsplit(address).query)["state"][0]
        answer = evil.sign_in(elsewhere, "ann")
        mixed = come_back(visitor, callback_in(address), answer | {"state": state})
        assert mixed.status_code == 403
        assert not is_open(visitor, url_of(shop, "cust_a"))
        # Without the issuer as well: this provider announced that it sends one.
        address = go_out(visitor, url_of(shop, "cust_a"))
        answer = {k: v for k, v in honest.sign_in(address, "ann").items() if k != "iss"}
        assert come_back(visitor, callback_in(address), answer).status_code == 403


# --- Chromium --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_person_signs_in_with_chromium_by_keyboard(
    shop: Shop, chromium: Chromium, tmp_path: Path, scripts: bool
) -> None:
    with (
        serving(shop, tmp_path, egress_allow="127.0.0.0/8") as server,
        node_idp(f"http://usage.acme.localhost:{server.port}/auth/oidc/acme") as idp,
    ):
        listed(shop, idp)
        wrong: list[str] = []
        context = chromium.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.goto(
            f"http://usage.acme.localhost:{server.port}{shop.link('cust_a').path}/unlock?next="
            f"{shop.link('cust_a').path}/activity"
        )
        page.get_by_label("Sign in with Acme ID").check()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Continue to Acme ID").focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"{idp.issuer}/interaction/*")
        page.fill("input[name=login]", "ann")
        page.fill("input[name=password]", "x")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("h1")).to_contain_text("Activity")
        expect(page.get_by_role("button", name="Close record")).to_be_visible()
        assert page.url.endswith("/activity")
        assert [text for text in wrong if "usage.acme" in text or "Content Security" in text] == []
        context.close()
