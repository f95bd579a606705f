"""Abuse of the vendor API (G01–G15), through the whole application. What is said of every call is tried on every call.

Idempotency keys (G06, G07) are in ``test_api_idempotency``; single malformed bodies also in ``test_balance_api``.
"""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from client import Visitor, serve
from shared_record.access import apikeys
from shared_record.access.apikeys import SCOPES
from shared_record.access.throttle import KEY_MISSES, Throttle
from shared_record.db.schema import api_key, audit_event, customer, leaf
from shared_record.hosts.resolver import Role
from shared_record.tenancy.tenants import update_tenant
from shared_record.web.api.operations import Operation, operations
from shared_record.web.runtime import EXTENSION, Runtime
from world import Shop, open_shop

API = "localhost/api/v1/balance"
DELTA = f"{API}/delta"
GOOD = {"customerId": "c-1", "delta": -5, "reason": "api calls"}
OTHER_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PURGE"}


class Api:
    """The application of one shop, and a client of it."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.gate = shop, serve(shop)
        self.visitor = Visitor(self.gate)

    @property
    def calls(self) -> list[tuple[str, str, Operation]]:
        """Every call that needs an API key: method, address, declaration."""
        found = operations(self.gate._applications[Role.PLATFORM])
        return [
            (method, "localhost" + re.sub(r"<[^>]+>", "x", rule), declared)
            for (rule, method), (declared, _) in sorted(found.items(), key=lambda item: item[0])
            if declared.scope is not None
        ]

    @property
    def parts(self) -> Runtime:
        """What the application was put together from."""
        found: Runtime = self.gate._applications[Role.PLATFORM].extensions[EXTENSION]
        return found

    def send(self, method: str, url: str, key: str | None, body: Any = None, **headers: str) -> TestResponse:
        sent = dict(headers) | ({} if key is None else {"X-Api-Key": key})
        options: dict[str, Any] = {}
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body)
            options = {"data": data, "content_type": "application/json"}
        return self.visitor.request(method, url, headers=sent, **options)

    def post(self, key: str | None, body: Any, url: str = DELTA, **headers: str) -> TestResponse:
        return self.send("POST", url, key, body, **headers)


@pytest.fixture
def api(shop: Shop) -> Api:
    return Api(shop)


@pytest.fixture
def key(shop: Shop) -> str:
    return shop.api_key()


@pytest.fixture
def other(shop: Shop, tmp_path: Path) -> Shop:
    return open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))


def rows(shop: Shop, table: Any = leaf) -> int:
    with shop.db.read(shop.scope) as connection:
        query = select(func.count()).select_from(table).where(table.c.tenant_id == shop.scope.plane)
        return int(connection.execute(query).scalar_one())


def code_of(response: TestResponse) -> tuple[int, str]:
    body = response.get_json()
    assert (body["success"], body["statusCode"]) == (False, response.status_code)
    return response.status_code, body["error"]["code"]


def pointers(response: TestResponse) -> list[str]:
    return [detail["pointer"] for detail in response.get_json()["error"]["details"]]


# --- G01, G02: keys --------------------------------------------------------------------------------------------------


def test_g01_every_call_answers_every_wrong_key_with_the_same_bytes(api: Api, shop: Shop, key: str) -> None:
    revoked, expired, token = shop.api_key(), shop.api_key(), ""
    with shop.db.write(shop.scope) as connection:
        apikeys.revoke_key(connection, shop.clock, shop.scope, revoked[8:24], actor="test")
        mine = (api_key.c.tenant_id == shop.scope.plane, api_key.c.public_id == expired[8:24])
        connection.execute(api_key.update().where(*mine).values(expires_at=shop.clock.now()))
        token = apikeys.create_token(connection, shop.clock, shop.scope, name="kim", scopes=list(SCOPES), actor="test")
    wrong = [None, "", key[:-1], key.replace("pk_live", "pk_test"), revoked, expired, token, "x" * 50_000]
    assert len(api.calls) >= 3
    answers = set()
    for (method, url, _), presented in product(api.calls, wrong):
        api.parts.throttle.clear(KEY_MISSES, "127.0.0.1")  # that limit is tried below
        response = api.send(method, url, presented, GOOD if method != "GET" else None)
        assert "RateLimit" not in response.headers
        answers.add((response.status_code, response.data, response.headers["WWW-Authenticate"]))
    assert len(answers) == 1
    assert answers.pop()[0] == 401


def test_g01_wrong_keys_are_limited_per_client_and_right_ones_are_not(api: Api, key: str) -> None:
    most = KEY_MISSES[0].amount
    assert {code_of(api.post("pk_live_x", GOOD)) for _ in range(most)} == {(401, "INVALID_API_KEY")}
    refused = api.post("pk_live_x", GOOD)
    assert code_of(refused) == (429, "RATE_LIMITED")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert api.post(key, GOOD).status_code == 201


def test_g01_a_revoked_key_is_dead_on_the_next_request(api: Api, shop: Shop, key: str) -> None:
    assert api.post(key, GOOD).status_code == 201
    with shop.db.write(shop.scope) as connection:
        apikeys.revoke_key(connection, shop.clock, shop.scope, key[8:24], actor="test")
    assert code_of(api.post(key, GOOD)) == (401, "INVALID_API_KEY")


def test_g02_every_call_wants_its_own_scope_and_no_other(api: Api, shop: Shop) -> None:
    without = {scope: shop.api_key(scopes=[one for one in SCOPES if one != scope]) for scope in SCOPES}
    for method, url, declared in api.calls:
        assert declared.scope in SCOPES, url
        response = api.send(method, url, without[declared.scope], GOOD if method != "GET" else None)
        assert code_of(response) == (403, "FORBIDDEN_SCOPE"), url


def test_g02_a_rotated_key_dies_when_its_overlap_ends(api: Api, shop: Shop, key: str) -> None:
    with shop.db.write(shop.scope) as connection:
        fresh = apikeys.rotate_key(
            connection, shop.clock, shop.scope, key[8:24], overlap=timedelta(hours=24), actor="test"
        )
    shop.clock.advance(hours=23)
    assert {api.post(one, GOOD).status_code for one in (key, fresh)} == {201}
    shop.clock.advance(hours=1)
    assert code_of(api.post(key, GOOD)) == (401, "INVALID_API_KEY")
    assert api.post(fresh, GOOD).status_code == 201


# --- G03, G04: tenants -----------------------------------------------------------------------------------------------


def test_g03_what_belongs_to_another_tenant_or_plane_is_unknown_in_the_same_bytes(
    api: Api, shop: Shop, other: Shop, key: str
) -> None:
    theirs = other.record("c-1", "7", reference_id="r-1")[0].record_id
    with shop.db.write(shop.test_scope) as connection:
        test_key = apikeys.create_key(connection, shop.clock, shop.test_scope, name="t", actor="test")
    in_test = api.post(test_key, GOOD).get_json()["data"]["recordId"]
    unknown = api.send("GET", f"{DELTA}/rec_0", key).data
    for record_id in (theirs, in_test):
        response = api.send("GET", f"{DELTA}/{record_id}", key)
        assert (response.status_code, response.data) == (404, unknown)
        refused = api.post(key, GOOD | {"adjusts": {"recordId": record_id}})
        assert code_of(refused) == (400, "ADJUSTS_NOT_FOUND")
    assert code_of(api.post(key, GOOD | {"adjusts": {"referenceId": "r-1"}})) == (400, "ADJUSTS_NOT_FOUND")
    assert rows(shop) == 0


def test_g03_a_key_does_not_choose_its_tenant_by_host_or_header(api: Api, shop: Shop, other: Shop, key: str) -> None:
    for host in (shop.hosts[0], other.hosts[0]):
        assert api.post(key, GOOD, f"{host}/api/v1/balance/delta").status_code == 404
    named = {"X-Tenant": "other", "X-Environment": "production", "X-Chain-Id": "296", "X-Credit-Pool-Id": "7"}
    assert api.post(key, GOOD, **named).status_code == 201
    assert (rows(shop), rows(other)) == (1, 0)


def test_g04_interleaved_tenants_on_pooled_connections_stay_apart(api: Api, shop: Shop, other: Shop, key: str) -> None:
    keys = {"c-mine": key, "c-theirs": other.api_key()}
    names = list(keys) * 20

    def use(name: str) -> tuple[str, str]:
        made = api.post(keys[name], GOOD | {"customerId": name}).get_json()["data"]["recordId"]
        return name, made

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(use, names))
        seen = pool.map(
            lambda one: [api.send("GET", f"{DELTA}/{one[1]}", keys[name]).status_code for name in keys], made
        )
    assert all(
        codes == ([200, 404] if name == "c-mine" else [404, 200]) for (name, _), codes in zip(made, seen, strict=True)
    )
    assert (rows(shop), rows(other), rows(shop, customer), rows(other, customer)) == (20, 20, 1, 1)


# --- G05, G08–G13: bodies --------------------------------------------------------------------------------------------


def test_g05_a_field_that_is_not_declared_is_refused_at_every_depth(api: Api, shop: Shop, key: str) -> None:
    for name in ("tenant_id", "tenantId", "price", "receiptId", "sequenceNumber", "__proto__", "Delta"):
        assert pointers(api.post(key, GOOD | {name: 1})) == [f"/{name}"]
        batch = {"deltas": [GOOD, GOOD | {name: 1}]}
        assert pointers(api.post(key, batch, f"{DELTA}/batch")) == [f"/deltas/1/{name}"]
        adjusting = GOOD | {"adjusts": {"recordId": "rec_1", name: 1}}
        assert pointers(api.post(key, adjusting)) == [f"/adjusts/{name}"]
        assert pointers(api.post(key, GOOD, f"{DELTA}?{name}=1")) == [f"/{name}"]
    assert rows(shop, customer) == 0


def test_all_mistakes_of_a_request_are_told_together(api: Api, key: str) -> None:
    body = {"customerId": "no spaces", "delta": "x", "reason": "", "metadata": 1, "price": 2, "occurredAt": "soon"}
    response = api.post(key, body, f"{DELTA}?a=1&b=2", **{"Idempotency-Key": ""})
    assert code_of(response) == (400, "VALIDATION_ERROR")
    assert set(pointers(response)) == {"/a", "/b", "/Idempotency-Key"} | {f"/{name}" for name in body}
    assert len(api.post(key, {"deltas": [{}] * 100}, f"{DELTA}/batch").get_json()["error"]["details"]) == 100


def test_g08_a_body_that_is_too_much_is_not_read(api: Api, shop: Shop, key: str) -> None:
    cases: list[tuple[dict[str, str], bytes, int]] = [
        ({}, b" " * (1024 * 1024 + 1), 413),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b" + b"\0" * 1_000, 415),
        ({"Content-Encoding": "br"}, b"{}", 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\n\r\n" * 20_000 + b"--x--", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"&" * 100_000, 415),
        ({"Content-Type": "text/plain"}, b"{}", 415),
    ]
    for headers, body, status in cases:
        sent = {"X-Api-Key": key, "Content-Type": "application/json"} | headers
        response = api.visitor.post(DELTA, data=body, headers=sent)
        assert (response.status_code, response.get_json()["success"]) == (status, False)
    assert rows(shop, customer) == 0


def test_g09_depth_is_judged_before_parsing(api: Api, shop: Shop, key: str) -> None:
    for nested, depth in product((b'{"a":', b"["), (33, 5_000, 150_000)):
        for url in (DELTA, f"{DELTA}/batch"):
            started = time.process_time()
            assert code_of(api.post(key, nested * depth, url)) == (400, "VALIDATION_ERROR")
            assert time.process_time() - started < 2
    assert rows(shop, customer) == 0


def test_g10_numbers_that_are_none_and_doubled_keys_are_refused(api: Api, shop: Shop, key: str) -> None:
    for text in (
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"-1e400",
        b"0x10",
        b"01",
        b"+1",
        b'1,"delta":2',
        b'1,"\\u0064elta":2',
    ):
        response = api.post(key, b'{"customerId":"c-1","reason":"x","delta":%b}' % text)
        assert response.status_code == 400, text
    assert rows(shop, customer) == 0


def test_g11_a_number_bomb_is_refused_at_once(api: Api, shop: Shop, key: str) -> None:
    bombs = (b"1e3000000", b"9" * 40, b"1e-3000000", b"0." + b"1" * 25, b"1" + b"0" * 900_000, b'"1e3000000"')
    for text in bombs:
        for body in (text, b'1,"metadata":{"a":%b}' % text.strip(b'"')):
            started = time.process_time()
            sent = b'{"customerId":"c-1","reason":"x","delta":%b}' % body
            assert api.post(key, sent, **{"Idempotency-Key": "k"}).status_code == 400, text[:40]
            assert time.process_time() - started < 1
    assert rows(shop, customer) == 0


def test_g12_text_that_is_no_text_is_refused(api: Api, shop: Shop, key: str) -> None:
    for text in ("\\u0000", "\\ud800", "\\udc00\\ud800"):

        def told(body: Any, text: str = text) -> list[str]:
            return pointers(api.post(key, json.dumps(body).replace("HERE", text).encode()))

        for field in ("customerId", "reason", "referenceId"):
            assert told(GOOD | {field: "HERE"}) == [f"/{field}"]
        assert told(GOOD | {"metadata": {"a": "HERE"}}) == ["/metadata/a"]
        assert len(told(GOOD | {"HERE": 1})) == 1
    assert rows(shop, customer) == 0


def test_g12_other_codings_than_utf_8_are_refused(api: Api, shop: Shop, key: str) -> None:
    for coding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"):
        data = json.dumps(GOOD | {"reason": "è"}, ensure_ascii=False).encode(coding)
        assert api.post(key, data).status_code == 400, coding
    assert rows(shop, customer) == 0


def test_g13_what_is_no_amount_is_not_recorded(api: Api, shop: Shop, key: str) -> None:
    for delta in (0, "0.000", "-0", True, None, [], {}, "1,5", " 1", "١"):
        assert pointers(api.post(key, GOOD | {"delta": delta})) == ["/delta"]
    assert rows(shop, customer) == 0


def test_g13_the_future_is_not_recorded_and_a_doubled_event_counts_once(api: Api, shop: Shop, key: str) -> None:
    late = {"occurredAt": "2026-11-22T13:00:01Z"}
    assert pointers(api.post(key, GOOD | late)) == ["/occurredAt"]
    sent = GOOD | {"referenceId": "event-1", "occurredAt": "1999-01-01T00:00:00Z"}
    for _ in range(3):
        assert api.post(key, sent).status_code == 201
    corrected = api.post(key, GOOD | {"delta": 5, "adjusts": {"referenceId": "event-1"}})
    assert corrected.status_code == 201
    assert rows(shop) == 2


BODIES = (
    st.binary(max_size=80)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(str.encode)
    | st.from_regex(rb'\{"[a-z]{0,6}":[0-9eE.+-]{1,20}\}', fullmatch=True)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES)
def test_g09_to_g13_no_body_is_an_error_of_ours(api: Api, key: str, body: bytes) -> None:
    response = api.post(key, body)
    assert response.status_code == 400
    assert response.get_json()["error"]["details"]


# --- G14: injection --------------------------------------------------------------------------------------------------

INJECTED = ("' OR 1=1 --", "%", "x'; DROP TABLE leaf; --", "${7*7}", "\\", "../../etc/passwd", "%00", "\n")


def test_g14_injected_text_in_an_address_is_an_unknown_id(api: Api, shop: Shop) -> None:
    shop.record("c-1", "1", reference_id="r-1")
    for text in INJECTED:
        everything = shop.api_key(scopes=list(SCOPES))
        for method, url, _ in api.calls:
            if method == "GET" and url.endswith("/x"):
                response = api.send("GET", url[:-1] + quote(text, safe=""), everything)
                assert response.status_code in (400, 404), (url, response.text)


def test_g14_injected_text_in_a_body_is_data(api: Api, shop: Shop, key: str) -> None:
    for text in INJECTED:
        sent = api.post(key, GOOD | {"reason": text, "referenceId": text, "metadata": {text: text}})
        data = api.send("GET", f"{DELTA}/{sent.get_json()['data']['recordId']}", key).get_json()["data"]
        assert (data["reason"], data["referenceId"], data["metadata"]) == (text, text, {text: text})
        assert code_of(api.post(key, GOOD | {"customerId": text})) == (400, "VALIDATION_ERROR")
    assert rows(shop) == len(INJECTED)


# --- G15: rate limits ------------------------------------------------------------------------------------------------


def test_g15_a_key_has_its_own_rate_and_says_what_is_left_of_it(api: Api, shop: Shop, other: Shop, key: str) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"api_rate": 1, "api_burst": 3})
    answers = [api.send("GET", f"{DELTA}/rec_0", key) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"key";q=3;w=3'}
    assert [answer.headers["RateLimit"] for answer in answers] == [f'"key";r={3 - n};t={n}' for n in (1, 2, 3)]
    refused = api.post(key, GOOD)
    assert code_of(refused) == (429, "RATE_LIMITED")
    assert refused.headers["RateLimit"].startswith('"key";r=0;t=')
    assert refused.headers["Retry-After"] == str(refused.get_json()["error"]["retryAfterSeconds"]) == "1"
    assert api.post(shop.api_key(), GOOD).status_code == 201
    assert api.post(other.api_key(), GOOD).headers["RateLimit"] == '"key";r=199;t=1'
    assert (rows(shop), rows(other)) == (1, 1)


def test_g15_both_planes_and_rotated_keys_follow_the_tenants_setting(api: Api, shop: Shop, key: str) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"api_rate": 1, "api_burst": 2})
        fresh = apikeys.rotate_key(
            connection, shop.clock, shop.scope, key[8:24], overlap=timedelta(hours=1), actor="test"
        )
    assert [api.post(one, GOOD).status_code for one in (key, fresh, key)] == [201, 201, 429]
    assert api.post(shop.api_key(test=True), GOOD).headers["RateLimit-Policy"] == '"key";q=2;w=2'


# --- Addresses and methods -------------------------------------------------------------------------------------------


def test_nothing_of_the_api_redirects(api: Api, shop: Shop) -> None:
    everything = shop.api_key(scopes=list(SCOPES))
    for method, url, _ in api.calls:
        host, _, path = url.partition("/")
        for variant in (f"{url}/", f"{host}//{path}", f"{host}/{path.replace('/', '//', 1)}", f"{host}/{path.upper()}"):
            response = api.send(method, variant, everything, {} if method != "GET" else None)
            assert not 300 <= response.status_code < 400, variant
            assert "Location" not in response.headers


def test_a_call_answers_to_its_own_methods_only(api: Api, shop: Shop, key: str) -> None:
    by_url: dict[str, set[str]] = {}
    for method, url, _ in api.calls:
        by_url.setdefault(url, set()).update({method, "HEAD"} if method == "GET" else {method})
    for url, methods in by_url.items():
        for method in OTHER_METHODS - methods:
            response = api.send(method, url, key)
            assert response.status_code in (405, 404), (method, url)
    assert rows(shop, customer) == 0


def test_head_is_a_get_without_a_body(api: Api, shop: Shop, key: str) -> None:
    url = f"{DELTA}/{shop.record('c-1', '1')[0].record_id}"
    head, got = api.send("HEAD", url, key), api.send("GET", url, key)
    assert (head.status_code, head.data, head.content_type) == (200, b"", got.content_type)
    assert api.send("HEAD", url, None).status_code == 401


def test_the_method_is_not_overridden(api: Api, shop: Shop, key: str) -> None:
    names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    for name in names:
        assert api.post(key, GOOD, **{name: "DELETE"}).status_code == 201
        assert api.send("GET", DELTA, key, GOOD, **{name: "POST"}).status_code == 405
    assert pointers(api.post(key, GOOD, f"{DELTA}?_method=DELETE")) == ["/_method"]
    assert rows(shop) == len(names)


def test_long_headers_and_addresses_are_no_error_of_ours(api: Api, key: str) -> None:
    long = "a" * 100_000
    assert api.post(key + long, GOOD).status_code == 401
    assert api.post(key, GOOD, **{"Idempotency-Key": long}).status_code == 400
    assert api.send("GET", f"{DELTA}/{long}", key).status_code == 404
    refused = api.send("GET", f"{DELTA}/rec_0?{long}=1", key)
    assert refused.status_code == 400
    assert len(refused.data) < 3_000


# --- After the commit ------------------------------------------------------------------------------------------------


def test_a_use_that_cannot_be_noted_makes_no_error_of_what_was_committed(
    api: Api, shop: Shop, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("gone"))

    monkeypatch.setattr("shared_record.web.api.operations.note_use", gone)
    assert api.post(key, GOOD).status_code == 201
    assert rows(shop) == 1


def test_the_use_of_a_key_is_noted_once_a_minute_and_its_first_is_an_event(api: Api, shop: Shop, key: str) -> None:
    def last_used() -> Any:
        with shop.db.read(shop.scope) as connection:
            [info] = apikeys.list_keys(connection, shop.scope)
        return info.last_used_at

    first = shop.clock.now()
    assert last_used() is None
    for seconds, noted in ((0, 0), (59, 0), (1, 60), (30, 60), (40, 130)):
        shop.clock.advance(seconds=seconds)
        api.post(key, GOOD)
        assert last_used() == first + timedelta(seconds=noted)
    with shop.db.read(shop.scope) as connection:
        query = select(audit_event).where(
            audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == "key.used_first"
        )
        [event] = connection.execute(query).all()
    assert (event.actor, event.detail) == (f"key:{key[8:24]}", {"key": key[8:24]})


def test_without_redis_at_work_calls_go_on_at_a_quarter_of_the_rate(shop: Shop, key: str) -> None:
    api = Api(shop)
    object.__setattr__(api.parts, "throttle", Throttle("redis://127.0.0.1:1/0"))
    assert api.post(key, GOOD).headers["RateLimit"] == '"key";r=49;t=1'
