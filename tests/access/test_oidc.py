"""Sign-in elsewhere through the whole application: browsers, hosts, tenants, and a provider that can lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from shared_record_oidc.provider import Cache
from sqlalchemy import select

from client import Visitor, url_of
from mock_idp import MockIdp, mock_idp
from shared_record.access import entitlements, links
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import audit_event, challenge, session
from shared_record.keys import KeyRing
from shared_record.tenancy.methods import put_methods
from shared_record.tenancy.tenants import update_tenant
from signing_in import allow, application, callback_in, come_back, connect, go_out, is_open, sign_in
from world import Shop, open_shop


def events(shop: Shop, name: str) -> int:
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(
            select(audit_event.c.event_id).where(
                audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == name
            )
        )
        return len(rows.all())


def rows_of(shop: Shop, table: Any) -> int:
    with shop.db.read(shop.scope) as connection:
        return len(connection.execute(select(table).where(table.c.tenant_id == shop.scope.plane)).all())


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port, and so an issuer, may come again."""
    monkeypatch.setattr("shared_record_oidc._cache", Cache())


@pytest.fixture
def idp(shop: Shop) -> Iterator[MockIdp]:
    with mock_idp(shop.clock.now) as provider:
        yield provider


@pytest.fixture
def listed(shop: Shop, idp: MockIdp) -> Shop:
    """A shop whose ``cust_a`` may be opened by ``sub-1``."""
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    connect(shop, idp.connection())
    allow(shop, entitlements.subject(idp.issuer, "sub-1"))
    return shop


def test_a_listed_person_signs_in_and_lands_where_they_wanted(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    assert not is_open(visitor, url)
    answer = sign_in(visitor, idp, url, f"{url.partition('/')[1]}{url.partition('/')[2]}/activity")
    assert answer.status_code == 303
    assert answer.headers["Location"].endswith("/activity")
    assert is_open(visitor, url)
    assert rows_of(listed, challenge) == 0


# --- I01 -------------------------------------------------------------------------------------------------------------


def test_i01_a_state_counts_once_in_the_browser_where_it_was_made(listed: Shop, idp: MockIdp) -> None:
    app, url = application(listed), url_of(listed, "cust_a")
    visitor, thief = Visitor(app), Visitor(app)
    thief.get(f"{url}/unlock")
    address = go_out(visitor, url)
    answer = idp.sign_in(address)
    callback = callback_in(address)
    refused = [
        come_back(thief, callback, answer),
        come_back(Visitor(app), callback, answer),
        come_back(visitor, callback, answer | {"state": "x" * 43}),
        come_back(visitor, callback, {name: text for name, text in answer.items() if name != "state"}),
    ]
    assert {one.status_code for one in refused} == {400}
    assert len({one.data for one in refused}) == 1
    assert "expired" not in refused[0].text
    assert come_back(visitor, callback, answer).status_code == 303
    again = come_back(visitor, callback, answer)
    assert (again.status_code, again.data) == (400, refused[0].data)
    assert is_open(visitor, url)
    assert not is_open(thief, url)


def test_i01_head_and_doubled_parameters_do_nothing(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    address = go_out(visitor, url)
    answer = idp.sign_in(address)
    visitor.request("HEAD", f"{callback_in(address)}?{urlencode(answer)}")
    twice = f"{callback_in(address)}?{urlencode(answer)}&state={answer['state']}"
    assert visitor.get(twice).status_code == 400
    assert idp.asked["/token"] == 0
    assert come_back(visitor, callback_in(address), answer).status_code == 303


def test_i01_ten_minutes_are_enough(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    address = go_out(visitor, url)
    listed.clock.advance(minutes=10, seconds=1)
    assert come_back(visitor, callback_in(address), idp.sign_in(address)).status_code == 400
    assert idp.asked["/token"] == 0


def test_i01_a_failed_answer_uses_the_state_up(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    address = go_out(visitor, url)
    good = idp.sign_in(address)
    assert come_back(visitor, callback_in(address), good | {"code": "guessed"}).status_code == 403
    assert come_back(visitor, callback_in(address), good).status_code == 400
    assert not is_open(visitor, url)


def test_two_tabs_each_come_back(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    tabs = [go_out(visitor, url) for _ in range(3)]
    for address in tabs:
        assert come_back(visitor, callback_in(address), idp.sign_in(address)).status_code == 303
    for _ in range(7):
        listed.clock.advance(seconds=1)
        last = go_out(visitor, url)
    assert rows_of(listed, challenge) == 5
    assert come_back(visitor, callback_in(last), idp.sign_in(last)).status_code == 303


# --- I02, I07 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path) -> Shop:
    """Another tenant of the same installation."""
    shop = open_shop(db, keys, clock, tmp_path, slug="borealis", hosts=("usage.borealis.localhost",))
    shop.record("cust_a", "1")
    return shop


def test_i02_an_answer_of_one_tenants_provider_is_not_taken_for_the_others(
    listed: Shop, other: Shop, idp: MockIdp
) -> None:
    with mock_idp(listed.clock.now) as second:
        connect(other, second.connection())
        allow(other, entitlements.subject(second.issuer, "sub-1"))
        visitor = Visitor(application(listed))
        address = go_out(visitor, url_of(other, "cust_a"))
        mixed = idp.sign_in(go_out(visitor, url_of(listed, "cust_a")))
        state = parse_qs(urlsplit(address).query)["state"][0]
        answer = come_back(visitor, callback_in(address), mixed | {"state": state})
        assert answer.status_code == 403
        assert second.asked["/token"] == 0
        assert not is_open(visitor, url_of(other, "cust_a"))
        assert events(other, "oidc.mixup") == 1


def test_i07_a_connection_is_not_there_on_another_tenants_host(listed: Shop, other: Shop, idp: MockIdp) -> None:
    visitor = Visitor(application(listed))
    foreign, own = url_of(other, "cust_a"), url_of(listed, "cust_a")
    address = go_out(visitor, own)
    answer = idp.sign_in(address)
    assert "oidc" not in visitor.get(f"{foreign}/unlock").text
    # The cookie of the first host, copied to the second, together with the whole answer.
    visitor.jars[other.hosts[0]] = dict(visitor.jars[listed.hosts[0]])
    missed = come_back(visitor, f"http://{other.hosts[0]}:8000/auth/oidc/acme", answer)
    unknown = come_back(visitor, f"http://{other.hosts[0]}:8000/auth/nothing/acme", answer)
    assert missed.status_code in (400, 404)
    assert (missed.status_code, missed.data) == (unknown.status_code, unknown.data)
    # Nor on another host of the same tenant, or under another connection.
    visitor.jars[listed.hosts[1]] = dict(visitor.jars[listed.hosts[0]])
    assert come_back(visitor, f"http://{listed.hosts[1]}:8000/auth/oidc/acme", answer).status_code == 400
    assert come_back(visitor, callback_in(address).replace("/acme", "/other"), answer).status_code == 400
    assert idp.asked["/token"] == 0
    assert come_back(visitor, callback_in(address), answer).status_code == 303


# --- I08, I09 --------------------------------------------------------------------------------------------------------


def test_i08_the_wrong_person_gets_no_session(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_b")
    idp.claims = {"email": "eve@acme.example", "email_verified": True}
    refused = sign_in(visitor, idp, url)
    assert refused.status_code == 403
    assert "eve@acme.example is signed in but is not on the list for this record." in refused.text
    assert "Continue to Acme ID" in refused.text
    assert "Use another method" in refused.text
    assert "billing@acme.example" in refused.text
    assert not is_open(visitor, url)
    assert rows_of(listed, session) == 0
    assert events(listed, "oidc.not_entitled") == events(listed, "stepup.failed") == 1


def test_i08_who_is_taken_off_the_list_is_out_at_once(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    assert sign_in(visitor, idp, url).status_code == 303
    waiting = go_out(visitor, url)
    with listed.db.write(listed.scope) as connection:
        rule, told = entitlements.subject(idp.issuer, "sub-1"), entitlements.Change("test", tell=False)
        entitlements.deny(connection, listed.keys, listed.clock, listed.scope, "cust_a", rule, told)
    assert not is_open(visitor, url)
    assert come_back(visitor, callback_in(waiting), idp.sign_in(waiting)).status_code == 400
    assert sign_in(visitor, idp, url).status_code == 403


def test_i09_a_verified_address_belongs_to_its_first_subject(shop: Shop, idp: MockIdp) -> None:
    shop.record("cust_a", "1")
    connect(shop, idp.connection(email_domains=["acme.example"]))
    allow(shop, entitlements.email("Ann@acme.example"))
    url = url_of(shop, "cust_a")
    idp.claims = {"email": "ann@ACME.example", "email_verified": True}
    first = Visitor(application(shop))
    assert sign_in(first, idp, url).status_code == 303
    idp.subject = "sub-2"
    assert sign_in(Visitor(first.application), idp, url).status_code == 403
    idp.subject, idp.claims = "sub-1", {"email": "ann@acme.example", "email_verified": "true"}
    assert sign_in(Visitor(first.application), idp, url).status_code == 403
    assert is_open(first, url)


# --- I10, I11 --------------------------------------------------------------------------------------------------------


def test_i10_the_redirect_uri_is_that_of_the_stored_host(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    address = go_out(visitor, url.replace("usage.acme", "USAGE.Acme"))
    assert callback_in(address) == "http://usage.acme.localhost:8000/auth/oidc/acme"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/c/other", "/api/v1/x", "javascript:1"])
def test_i10_next_stays_in_the_record(listed: Shop, idp: MockIdp, target: str) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    answer = sign_in(visitor, idp, url, target)
    assert answer.headers["Location"] == "/" + url.partition("/")[2]


def test_i11_a_providers_words_are_not_shown(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    words = {"error": "access_denied", "error_description": "<script>alert('call 555')</script>"}
    refused = sign_in(visitor, idp, url, code=None, **words)
    assert refused.status_code == 403
    assert "The sign-in with Acme ID was cancelled, or not allowed there." in refused.text
    assert "call 555" not in refused.text
    assert "default-src 'none'" in refused.headers["Content-Security-Policy"]


# --- I12, I13 --------------------------------------------------------------------------------------------------------


def test_i12_a_provider_that_is_down_makes_only_itself_unavailable(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    waiting = go_out(visitor, url)
    answer = idp.sign_in(waiting)
    idp.raw["/token"] = (503, b"")
    assert come_back(visitor, callback_in(waiting), answer).status_code == 503
    listed.clock.advance(hours=25)
    idp.raw["/.well-known/openid-configuration"] = (500, b"")
    fields = dict(
        re.findall(
            r'<input type="hidden" name="([^"]+)" value="([^"]*)"',
            visitor.get(f"{url}/unlock?method=oidc:acme").text,
        )
    )
    down = visitor.post(f"{url}/unlock", data=fields)
    assert down.status_code == 503
    assert not is_open(visitor, url)
    page = visitor.get(f"{url}/unlock?method=access_code").text
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
    opened = visitor.post(f"{url}/unlock", data=fields | {"field-code": listed.code("cust_a")})
    assert opened.status_code == 303


def test_i12_there_is_no_other_way_in_where_sign_in_is_the_only_one(listed: Shop, idp: MockIdp) -> None:
    connect(listed, idp.connection(), others=())
    idp.raw["/.well-known/openid-configuration"] = (500, b"")
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    page = visitor.get(f"{url}/unlock").text
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
    assert "field-code" not in page
    answer = visitor.post(f"{url}/unlock", data=fields | {"field-code": listed.code("cust_a")})
    assert answer.status_code == 503
    assert not is_open(visitor, url)


@pytest.mark.parametrize("change", ["reissue", "rotate", "policy", "settings", "off"])
def test_i13_an_attempt_dies_with_what_it_rests_on(listed: Shop, idp: MockIdp, change: str) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    address = go_out(visitor, url)
    answer = idp.sign_in(address)
    with listed.db.write(listed.scope) as connection:
        match change:
            case "reissue":
                links.reissue_link(connection, listed.keys, listed.clock, listed.scope, "cust_a", "test")
            case "rotate":
                links.rotate_code(connection, listed.keys, listed.clock, listed.scope, "cust_a", "test")
            case "policy":
                update_tenant(connection, listed.scope, {"policy": "GATED"})
            case "settings":
                put_methods(connection, listed.scope, [("oidc", {"connections": [idp.connection(title="New")]})])
            case "off":
                put_methods(connection, listed.scope, [("access_code", {})])
    refused = come_back(visitor, callback_in(address), answer)
    assert refused.status_code == 400
    assert idp.asked["/token"] == 0
    assert rows_of(listed, session) == 0


def test_a_sign_in_that_did_not_finish_starts_again_where_it_began(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    wanted = f"/{url.partition('/')[2]}/periods"
    refused = sign_in(visitor, idp, url, wanted, code=None, error="access_denied")
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', refused.text))
    assert fields["next"] == wanted
    again = visitor.post(f"{url}/unlock", data={name: unescape(text) for name, text in fields.items()})
    found = re.search(r'<a href="([^"]+)" rel="noreferrer"', again.text)
    assert found
    address = unescape(found[1])
    answer = come_back(visitor, callback_in(address), idp.sign_in(address))
    assert answer.headers["Location"] == wanted


def test_i13_the_callback_alone_gives_nothing(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    visitor.get(f"{url}/unlock")
    for query in ("", "?code=x", "?state=", "?state=x&code=x", f"?iss={idp.issuer}&code=x&state={'A' * 43}"):
        assert visitor.get(f"{listed.hosts[0]}/auth/oidc/acme{query}").status_code == 400
    assert rows_of(listed, session) == 0


def test_a_session_by_sign_in_ends_with_close_and_the_provider_is_not_told(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    sign_in(visitor, idp, url)
    before = idp.asked.total()
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', visitor.get(url).text))
    assert visitor.post(f"{url}/close", data={"csrf_token": unescape(fields["csrf_token"])}).status_code == 303
    assert not is_open(visitor, url)
    assert idp.asked.total() == before


def test_i14_a_session_ends_although_the_provider_keeps_its_own(listed: Shop, idp: MockIdp) -> None:
    visitor, url = Visitor(application(listed)), url_of(listed, "cust_a")
    sign_in(visitor, idp, url)
    listed.clock.advance(seconds=int(timedelta(minutes=31).total_seconds()))
    assert not is_open(visitor, url)
