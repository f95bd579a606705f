"""No way around the limits: every answer is judged at one place, which every route leads through."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import shared_record
from client import Visitor, serve, url_of
from shared_record.access import links, printed
from world import Shop

PACKAGE = Path(shared_record.__file__).parent
OF_THE_CLOCK = re.compile("FROM installation|set_config")
"""Each second the hosts are looked at anew; that, and the beginning of its transaction, is not of the request."""
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


# --- The code ---------------------------------------------------------------------------------------------------------


@cache
def calls() -> list[tuple[str, str, str, int]]:
    """Return every call of a method in the package: (module, function, what is called, line)."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if "testing" in path.relative_to(PACKAGE).parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for function, node in _walk(tree, ""):
            if isinstance(node, ast.Call):
                found.append((module, function, ast.unparse(node.func), node.lineno))
    return found


def _walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        yield inside, child
        yield from _walk(child, inside)


def who_calls(*names: str) -> set[tuple[str, str]]:
    return {(module, function) for module, function, called, _ in calls() if called in names}


def test_a06_a_method_judges_at_one_place_behind_the_limits() -> None:
    assert who_calls("method.verify") == {("access.offers", "verify")}
    assert who_calls("self._methods.verify") == {("access.stepup", "verify")}
    in_order = ["attempts.is_limited", "attempts.reserve", "self._methods.verify", "self._open"]
    lines = [line for one in in_order for module, _, called, line in calls() if called == one]
    assert len(lines) == len(in_order), "each of them once"
    assert lines == sorted(lines)


def test_a06_what_a_verdict_opens_is_issued_at_one_place() -> None:
    assert who_calls("sessions.issue", "issue") == {("access.stepup", "_open")}
    assert who_calls("self._open") >= {("access.stepup", "verify")}
    assert who_calls("set_session") == {("web.record.unlock", "_opened"), ("web.api.record", "verify")}
    judged = {("web.record.unlock", "_answer"), ("web.record.unlock", "returned"), ("web.api.record", "verify")}
    assert who_calls("parts.step_up.verify", "step_up.verify") == judged


def test_a06_codes_are_compared_nowhere_else() -> None:
    assert who_calls("codes_now_valid", "links.codes_now_valid") == {("access.stepup", "_matches")}
    assert who_calls("self._printed.matches") == {("access.stepup", "_matches")}


# --- What a stranger can try ------------------------------------------------------------------------------------------


@sqlite_only
def test_a06_five_answers_are_five_whatever_they_are_dressed_as(shop: Shop) -> None:
    application, url = serve(shop), url_of(shop, "cust_a")
    host, _, path = url.partition("/")

    def page(code: str, *, upper: bool = False, query: str = "") -> int:
        visitor = Visitor(application)  # no cookie of the try before
        where = f"{host}/{path.upper().replace('C/', 'c/', 1)}" if upper else url
        return visitor.unlock(where + query, code).status_code

    def data(code: str, **headers: str) -> int:
        body = {"factor": "ACCESS_HINT", "value": code}
        return Visitor(application).post(f"{host}/api/v1/{path}/access/verify", json=body, headers=headers).status_code

    tries = [
        page("WRONG2"),
        data("WRONG3"),
        page("WRONG4", upper=True),
        data("WRONG5", **{"X-Forwarded-For": "203.0.113.9", "User-Agent": "another"}),
        data("WRONG6", **{"Accept-Language": "de", "Cookie": "sr-pre=" + "x" * 43}),
    ]
    assert tries == [403] * 5
    right = shop.code("cust_a")
    assert page(right) == data(right) == page(right, upper=True) == 429
    assert data(right, **{"X-Real-IP": "203.0.113.9"}) == 429
    twice = Visitor(application).post(f"{host}/{path}/unlock?field-code={right}", data={"field-code": right})
    assert twice.status_code in (403, 429)
    assert Visitor(application).get(f"{url}/unlock?field-code={right}&method=access_code").status_code == 200
    assert Visitor(application).unlock(url_of(shop, "cust_b"), shop.code("cust_b")).status_code == 303


# --- What it costs ----------------------------------------------------------------------------------------------------


def test_a06_a_wrong_answer_costs_the_same_statements_whatever_was_typed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right length, odd text, an empty one, another customer's code, one of before: each is as much work."""
    hashes: list[str] = []
    real = printed.PrintedCodes._is_hash_of
    monkeypatch.setattr(printed.PrintedCodes, "_is_hash_of", lambda self, *a: (hashes.append(""), real(self, *a))[1])
    before = shop.code("cust_a")
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
        printed.import_code(connection, shop.keys, shop.clock, shop.scope, "cust_b", "PX47-9QRT", "me")
    typed = ["WRONG2", before, shop.code("cust_b"), "", "\0", "ſſſſſſ", "x" * 900, "PX47-9QRT"]
    work = {}
    for code in typed:
        for name in ("cust_a", "cust_b"):
            if name == "cust_b" and code in (shop.code("cust_b"), "PX47-9QRT"):
                continue
            visitor, url = Visitor(serve(shop)), url_of(shop, name)
            hashes.clear()
            with statements(shop) as found:
                assert visitor.unlock(url, code).status_code == 403
            work[code, name] = (len(hashes), tuple(found))
    assert {hashed for hashed, _ in work.values()} == {1}
    usual = work["WRONG2", "cust_a"][1]
    assert {
        name: [one for one in found if one not in usual] for name, (_, found) in work.items() if found != usual
    } == {}


class statements:
    """Notes the statements that are run within a block."""

    def __init__(self, shop: Shop) -> None:
        self.engine = shop.db.engine
        self.found: list[str] = []

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not OF_THE_CLOCK.search(statement):
            self.found.append(statement)

    def __enter__(self) -> list[str]:
        event.listen(self.engine, "before_cursor_execute", self._note)
        return self.found

    def __exit__(self, *_: object) -> None:
        event.remove(self.engine, "before_cursor_execute", self._note)
