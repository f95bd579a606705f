"""``Idempotency-Key`` over the whole application: one effect, one answer, on both engines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count as counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from client import Visitor, serve
from shared_record.access import apikeys
from shared_record.db.engine import Database
from shared_record.db.schema import kept_answer, leaf
from shared_record.db.scope import Scope
from shared_record.web.api.json_body import parse_json
from shared_record.web.api.once import _canonical
from world import Shop, open_shop

DELTA = "localhost/api/v1/balance/delta"
GOOD = {"customerId": "c-1", "delta": -5, "reason": "api calls"}


class Caller:
    """A client with one API key."""

    def __init__(self, shop: Shop, key: str | None = None) -> None:
        self.visitor, self.key = Visitor(serve(shop)), key or shop.api_key()

    def post(self, body: Any, once: str | None = None, url: str = DELTA, key: str | None = None) -> TestResponse:
        headers = {"X-Api-Key": key or self.key} | ({} if once is None else {"Idempotency-Key": once})
        data = body if isinstance(body, bytes) else json.dumps(body)
        return self.visitor.post(url, data=data, content_type="application/json", headers=headers)


@pytest.fixture
def caller(shop: Shop) -> Caller:
    return Caller(shop)


def rows(shop: Shop, table: Any = leaf) -> int:
    with shop.db.read(shop.scope) as connection:
        query = select(func.count()).select_from(table).where(table.c.tenant_id == shop.scope.plane)
        return int(connection.execute(query).scalar_one())


def code_of(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]["code"]


@pytest.mark.parametrize(
    ("url", "body"), [(DELTA, GOOD), (f"{DELTA}/batch", {"deltas": [GOOD, GOOD | {"delta": 0}]})], ids=["one", "batch"]
)
def test_the_first_answer_comes_again_byte_for_byte(caller: Caller, shop: Shop, url: str, body: Any) -> None:
    first = caller.post(body, "k-1", url)
    assert first.status_code == 201
    assert "Idempotent-Replayed" not in first.headers
    shop.clock.advance(days=1)
    shop.checkpoint()
    again = caller.post(body, "k-1", url)
    assert (again.status_code, again.data) == (201, first.data)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content_type == "application/json"
    assert again.headers["Cache-Control"] == "no-store"
    assert rows(shop) == 1
    assert caller.post(body, "k-2", url).data != first.data
    assert caller.post(body, url=url).data != first.data
    assert rows(shop) == 3


def test_g07_the_same_key_with_another_body_is_a_conflict(caller: Caller, shop: Shop) -> None:
    first = caller.post(GOOD, "k-1")
    for other in (GOOD | {"delta": -6}, GOOD | {"metadata": {}}, GOOD | {"metadata": None}):
        assert code_of(caller.post(other, "k-1")) == (409, "IDEMPOTENCY_CONFLICT")
    respelt = b'{ "reason":"api\\u0020calls", "delta":-5.0e0, "customerId" : "c-1" }'
    assert caller.post(respelt, "k-1").data == first.data
    assert rows(shop) == 1


def test_g06_keys_of_other_tenants_planes_owners_and_routes_are_fresh(
    caller: Caller, shop: Shop, tmp_path: Path
) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=())
    answers = {caller.post(GOOD, "k-1").data}
    for key in (shop.api_key(), shop.api_key(test=True), other.api_key()):
        answers.add(caller.post(GOOD, "k-1", key=key).data)
    answers.add(caller.post({"deltas": [GOOD]}, "k-1", f"{DELTA}/batch").data)
    assert len(answers) == 5
    assert rows(shop) == 3


def test_keys_that_were_rotated_share_their_idempotency_keys(caller: Caller, shop: Shop) -> None:
    first = caller.post(GOOD, "k-1")
    shop.clock.advance(seconds=1)
    with shop.db.write(shop.scope) as connection:
        successor = apikeys.rotate_key(
            connection, shop.clock, shop.scope, caller.key[8:24], overlap=apikeys.USE_NOTED, actor="test"
        )
    for key in (caller.key, successor):
        assert caller.post(GOOD, "k-1", key=key).data == first.data
    assert rows(shop) == 1


@pytest.mark.parametrize("once", ["", "a" * 256, "käse", "a\tb", "\x7f"])
def test_a_key_that_is_none_is_named_with_the_other_mistakes(caller: Caller, shop: Shop, once: str) -> None:
    error = caller.post(GOOD | {"delta": None, "price": 1}, once).get_json()["error"]
    assert [detail["pointer"] for detail in error["details"]] == ["/Idempotency-Key", "/delta", "/price"]
    assert rows(shop, kept_answer) == 0


def test_failures_are_not_kept(caller: Caller, shop: Shop) -> None:
    assert caller.post(GOOD | {"adjusts": {"recordId": "rec_none"}}, "k-1").status_code == 400
    assert caller.post(GOOD | {"reason": ""}, "k-1").status_code == 400
    assert rows(shop, kept_answer) == 0
    assert caller.post(GOOD, "a" * 255).status_code == caller.post(GOOD, "k-1").status_code == 201


def test_a_reference_that_is_recorded_already_is_kept_under_its_key(caller: Caller, shop: Shop) -> None:
    sent = GOOD | {"referenceId": "r-1"}
    first = caller.post(sent)
    assert caller.post(sent, "k-1").data == caller.post(sent, "k-1").data == first.data
    assert code_of(caller.post(sent | {"delta": 9}, "k-2")) == (409, "REFERENCE_CONFLICT")
    assert (rows(shop), rows(shop, kept_answer)) == (1, 1)


# --- At the same time ------------------------------------------------------------------------------------------------


def test_g07_sixty_four_parallel_retries_make_one_effect(caller: Caller, shop: Shop) -> None:
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: caller.post(GOOD, "k-1"), range(64)))
    done = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.data for answer in done}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in done) == 1
    assert caller.post(GOOD, "k-1").data == done[0].data
    assert (rows(shop), rows(shop, kept_answer)) == (1, 1)


class HeldDatabase(Database):
    """A database whose first write waits before its commit until it is let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reached, self.go = threading.Event(), threading.Event()

    @contextmanager
    def write(self, scope: Scope | None) -> Iterator[Any]:
        with super().write(scope) as connection:
            yield connection
            if scope is not None and not self.reached.is_set():
                self.reached.set()
                self.go.wait(20)


@pytest.fixture
def held(shop: Shop, database_url: str) -> Iterator[HeldDatabase]:
    shop.api_key()
    database = HeldDatabase(database_url)
    yield database
    database.go.set()
    database.dispose()


def test_a_repetition_waits_for_the_first_and_gets_its_answer(shop: Shop, held: HeldDatabase) -> None:
    key, shop.db = shop.api_key(), held
    caller = Caller(shop, key)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(caller.post, GOOD, "k-1")
        assert held.reached.wait(10)
        second = pool.submit(caller.post, GOOD, "k-1")
        held.go.set()
        assert first.result().data == second.result().data
        assert (first.result().status_code, second.result().headers["Idempotent-Replayed"]) == (201, "true")
    assert rows(shop) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_g07_a_repetition_that_has_waited_long_enough_is_told_to_come_again(shop: Shop, held: HeldDatabase) -> None:
    key, shop.db = shop.api_key(), held
    caller = Caller(shop, key)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(caller.post, GOOD, "k-1")
        assert held.reached.wait(10)
        pending = caller.post(GOOD, "k-1")
        held.go.set()
        assert pending.status_code == 202
        body = pending.get_json()
        assert set(body) == {"code", "retryAfterSeconds", "message"}
        assert (body["code"], str(body["retryAfterSeconds"])) == ("IDEMPOTENCY_PENDING", pending.headers["Retry-After"])
        assert caller.post(GOOD, "k-1").data == first.result().data
    assert rows(shop) == 1


# --- Whatever is sent ------------------------------------------------------------------------------------------------

NAMES = counter()
CALLS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([-1, 2, "2.0"]), st.booleans()), max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS)
def test_g07_any_order_of_calls_does_what_the_first_of_each_key_says(
    caller: Caller, shop: Shop, calls: list[tuple[str, Any, bool]]
) -> None:
    run, before = next(NAMES), rows(shop)
    first: dict[tuple[str, bool], tuple[Any, bytes]] = {}
    for key, delta, batch in calls:
        body = GOOD | {"delta": delta}
        url, sent = (f"{DELTA}/batch", {"deltas": [body]}) if batch else (DELTA, body)
        response = caller.post(sent, f"{run}-{key}", url)
        known = first.setdefault((key, batch), (delta, response.data))
        if known[0] == delta:
            assert (response.status_code, response.data) == (201, known[1])
        else:
            assert code_of(response) == (409, "IDEMPOTENCY_CONFLICT")
    assert rows(shop) - before == len(first)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=3) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def spelt(value: Any, *, other: bool) -> str:
    """Write a value as JSON, in one of two spellings."""
    if isinstance(value, dict):
        members = [f"{json.dumps(name)}:{spelt(item, other=other)}" for name, item in value.items()]
        return "{" + (" , " if other else ",").join(reversed(members) if other else members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelt(item, other=other) for item in value) + "]"
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=other)
    text = f"{value:f}"
    return f"{text}e0" if other else text


@given(value=JSON)
def test_order_of_members_and_spelling_of_numbers_do_not_count(value: Any) -> None:
    one, other = (parse_json(spelt(value, other=flag).encode()) for flag in (False, True))
    assert _canonical(one) == _canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("1", '"1"'), ("1", "10"), ("0.1", "0.01"), ("1", "-1"), ("[1,2]", "[2,1]"), ("[]", "{}"), ("null", "false")),
        *(('{"a":null}', "{}"), ('["a","b"]', '["a,b"]'), ('{"a":1}', '[{"a":1}]'), ("1e999999999", "1e999999998")),
    ],
)
def test_what_differs_in_value_differs(one: str, other: str) -> None:
    assert _canonical(parse_json(one.encode())) != _canonical(parse_json(other.encode()))


@pytest.mark.parametrize("text", ["1e99999999999999999999", "-0", "0.0e9", "1e-999999999"])
def test_g11_a_number_is_never_written_out(text: str) -> None:
    assert len(_canonical(parse_json(text.encode()))) <= len(text) + 2
