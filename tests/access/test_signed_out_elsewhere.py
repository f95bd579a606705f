"""Closing a record that was opened by a sign-in elsewhere, and hearing from there that somebody signed out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from shared_record_oidc.logout_token import EVENT, TYPE
from shared_record_oidc.provider import Cache
from sqlalchemy import select
from werkzeug.test import TestResponse

from client import Visitor, url_of
from mock_idp import CLIENT, KINDS, MockIdp, mock_idp, sign
from shared_record.access import entitlements
from shared_record.db.schema import audit_event, session
from signing_in import allow, application, connect, is_open, sign_in
from world import Shop, open_shop


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_record_oidc._cache", Cache())


@pytest.fixture
def idp(shop: Shop) -> Iterator[MockIdp]:
    with mock_idp(shop.clock.now) as provider:
        provider.claims["sid"] = "their-session-1"
        yield provider


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


@pytest.fixture
def listed(shop: Shop, idp: MockIdp) -> Shop:
    connect(shop, idp.connection())
    for customer in ("cust_a", "cust_b"):
        allow(shop, entitlements.subject(idp.issuer, "sub-1"), customer)
    return shop


def told(shop: Shop) -> list[tuple[str, Any]]:
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(select(audit_event).where(audit_event.c.tenant_id == shop.scope.plane)).all()
    return [(row.event, row.detail.get("reason")) for row in rows]


# --- The vendor's own way out -----------------------------------------------------------------------------------------


def close(visitor: Visitor, url: str) -> TestResponse:
    page = visitor.get(url)
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token
    return visitor.post(f"{url}/close", data={"csrf_token": token[1]})


def test_i14_closing_ends_the_session_here_first_and_offers_the_way_out_there(listed: Shop, idp: MockIdp) -> None:
    idp.document["end_session_endpoint"] = f"{idp.issuer}/end?x=1"
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    sign_in(visitor, idp, url)
    kept = dict(visitor.jars[listed.hosts[0]])
    page = close(visitor, url)
    assert page.status_code == 200
    assert "Location" not in page.headers, "nobody is sent there"
    assert page.headers["Clear-Site-Data"] == '"cache"'
    visitor.jars[listed.hosts[0]] = kept
    assert not is_open(visitor, url), "the cookie that was kept opens nothing"
    where = page.text.partition(f'href="{idp.issuer}/end')[2].partition('"')[0]
    assert parse_qs(urlsplit(where.replace("&amp;", "&")).query) == {"x": ["1"], "client_id": [CLIENT]}
    assert 'rel="noreferrer"' in page.text
    assert url.rpartition("/")[2] not in where
    assert idp.asked["/end"] == 0
    again = visitor.post(f"{url}/close", data={"csrf_token": "x"})
    assert again.status_code == 303


@pytest.mark.parametrize("endpoint", [None, "https://evil.example/end", "javascript:alert(1)", 7])
def test_i14_without_a_way_out_of_the_providers_own_it_is_closed_as_ever(
    listed: Shop, idp: MockIdp, endpoint: object
) -> None:
    if endpoint is not None:
        idp.document["end_session_endpoint"] = endpoint
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    sign_in(visitor, idp, url)
    assert close(visitor, url).status_code == 303
    assert not is_open(visitor, url)


def test_i14_a_provider_that_is_down_does_not_keep_a_record_open(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    sign_in(visitor, idp, url)
    idp.raw["/.well-known/openid-configuration"] = (500, b"")
    listed.clock.advance(minutes=1)
    assert close(visitor, url).status_code == 303
    assert not is_open(visitor, url)


# --- The provider's word ----------------------------------------------------------------------------------------------


def logout_token(idp: MockIdp, typ: str | None = TYPE, **changes: Any) -> str:
    at = int(idp.now().timestamp())
    claims = {"iss": idp.issuer, "aud": CLIENT, "iat": at, "exp": at + 120, "jti": f"jti-{time.monotonic_ns()}"}
    claims |= {"sub": "sub-1", "sid": "their-session-1", "events": {EVENT: {}}} | changes
    return sign(idp.key, idp.algorithm, {name: value for name, value in claims.items() if value is not ...}, typ=typ)


def post(app: Any, host: str, token: str, connection: str = "acme") -> int:
    visitor = Visitor(app)
    where = f"{host}/auth/oidc/{connection}/backchannel"
    answer = visitor.post(where, data={"logout_token": token})
    assert "Set-Cookie" not in answer.headers
    assert answer.status_code == 200 or "no-store" in answer.headers["Cache-Control"]
    return answer.status_code


def test_i14_a_sign_out_there_ends_the_sessions_of_that_sign_in_at_once(listed: Shop, idp: MockIdp) -> None:
    app = application(listed)
    first, second, other = Visitor(app), Visitor(app), Visitor(app)
    a, b = url_of(listed, "cust_a"), url_of(listed, "cust_b")
    sign_in(first, idp, a)
    sign_in(first, idp, b)
    idp.claims["sid"] = "their-session-2"
    sign_in(second, idp, a)
    assert other.unlock(b, listed.code("cust_b"), "&method=access_code").status_code == 303
    assert post(app, listed.hosts[0], logout_token(idp)) == 200
    assert [is_open(first, a), is_open(first, b)] == [False, False]
    assert is_open(second, a), "their other session goes on"
    assert is_open(other, b)
    assert told(listed).count(("session.revoked", "signed out elsewhere")) == 2
    assert post(app, listed.hosts[0], logout_token(idp, sid=...)) == 200  # the person, everywhere
    assert not is_open(second, a)
    assert is_open(other, b)


def test_i14_only_what_was_opened_before_ends_and_a_token_counts_once(listed: Shop, idp: MockIdp) -> None:
    app, url = application(listed), url_of(listed, "cust_a")
    visitor = Visitor(app)
    sign_in(visitor, idp, url)
    token = logout_token(idp, sid=...)
    assert post(app, listed.hosts[0], token) == 200
    sign_in(visitor, idp, url)
    assert post(app, listed.hosts[0], token) == 400, "said once already"
    assert is_open(visitor, url)
    late = logout_token(idp, sid=...)
    listed.clock.advance(minutes=2)
    sign_in(visitor, idp, url)
    assert post(app, listed.hosts[0], late) == 200
    assert is_open(visitor, url), "it began after that sign-out"


FORGED: dict[str, dict[str, Any]] = {
    "an ID token": {"typ": "JWT", "nonce": "n", "events": ...},
    "no type": {"typ": None},
    "no event": {"events": ...},
    "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
    "event of no object": {"events": {EVENT: True}},
    "with a nonce": {"nonce": "n"},
    "another issuer": {"iss": "https://evil.example"},
    "another client": {"aud": "other"},
    "no audience": {"aud": ...},
    "neither sub nor sid": {"sub": ..., "sid": ...},
    "sub that is no text": {"sub": ["sub-1"], "sid": ...},
    "no jti": {"jti": ...},
    "expired": {"exp": 1},
    "issued long ago": {"iat": 1},
    "no iat": {"iat": ...},
}


def test_i14_a_forged_sign_out_ends_nothing(listed: Shop, idp: MockIdp) -> None:
    app, url = application(listed), url_of(listed, "cust_a")
    visitor = Visitor(app)
    sign_in(visitor, idp, url)
    for name, changes in FORGED.items():
        assert post(app, listed.hosts[0], logout_token(idp, **changes)) == 400, name
    good = logout_token(idp)
    head, body, signature = good.split(".")
    stranger = KINDS["ES256"]("k1")
    for token in ("", "x", "a.b.c", f"{head}.{body}.", f"{head}.{body}.{signature[::-1]}", "x" * 20_000):
        assert post(app, listed.hosts[0], token) == 400
    own, idp.key = idp.key, stranger
    assert post(app, listed.hosts[0], logout_token(idp)) == 400, "signed by a stranger, and the keys were asked for"
    idp.key = own
    assert post(app, listed.hosts[0], good, "unknown") == 400
    assert post(app, "localhost", good) == 400, "the platform host is no tenant's"
    assert is_open(visitor, url)
    listed.clock.advance(minutes=2)
    assert post(app, listed.hosts[0], logout_token(idp)) == 200


def test_i14_the_word_of_one_tenants_provider_ends_nothing_at_another(
    listed: Shop, idp: MockIdp, tmp_path: Any
) -> None:
    other = open_shop(
        listed.db, listed.keys, listed.clock, tmp_path, slug="borealis", hosts=("usage.borealis.localhost",)
    )
    other.record("cust_a", "1")
    connect(other, idp.connection())
    allow(other, entitlements.subject(idp.issuer, "sub-1"))
    app, url = application(listed), url_of(other, "cust_a")
    visitor = Visitor(app)
    sign_in(visitor, idp, url)
    assert post(app, listed.hosts[0], logout_token(idp)) == 200
    assert is_open(visitor, url)
    assert post(app, other.hosts[0], logout_token(idp)) == 200
    assert not is_open(visitor, url)


def test_i14_who_tries_again_and_again_has_to_wait(listed: Shop, idp: MockIdp) -> None:
    app = application(listed)
    statuses = [post(app, listed.hosts[0], "x") for _ in range(32)]
    assert set(statuses[:30]) == {400}
    assert statuses[-1] == 429


def test_i14_test_data_is_included_and_nobody_is_named_in_the_database(listed: Shop, idp: MockIdp) -> None:
    app, url = application(listed), url_of(listed, "cust_a")
    visitor = Visitor(app)
    sign_in(visitor, idp, url)
    with listed.db.read(listed.scope) as connection:
        row = connection.execute(select(session).where(session.c.tenant_id == listed.scope.plane)).one()
    assert len(row.account) == len(row.elsewhere) == 32
    assert row.choice == "acme"
    assert "their-session" not in repr(row)
