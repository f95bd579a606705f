"""Cookies: read strictly, written with every attribute, cleared with the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.wrappers import Response

from client import Visitor, serve, url_of
from shared_record.web.cookies import clear_cookie, host_name, read_cookies, set_cookie
from world import Shop

NAMES = st.text("abcSR-_0", min_size=1, max_size=4)
VALUES = st.text("abc019-_", max_size=6)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, {}),
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1; b=2;c=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1=2", {"a": "1=2"}),
        ("a=", {"a": ""}),
        ('a="1"', {"a": '"1"'}),
        ("a", {}),
        ("a=1; a=2", {}),
        ("a=1; a=1", {}),
        ("a=1; b=2; a=3; a=4", {"b": "2"}),
        ("A=1; a=2", {"A": "1", "a": "2"}),
        ("__Host-a=1; __host-a=2", {"__Host-a": "1", "__host-a": "2"}),
        (" \ta=1\t;  b=2", {"a": "1", "b": "2"}),
        ("\x0ca=1", {"\x0ca": "1"}),  # not a: the form feed belongs to the name
        ("=a=1", {"": "a=1"}),
        ("é=1; a=2", {"a": "2"}),
        ("a=é", {}),
        (";;;", {}),
    ],
)
def test_cookies_are_read_byte_for_byte(header: str | None, expected: dict[str, str]) -> None:
    assert read_cookies(header) == expected


def test_s10_a_double_with_another_kind_of_value_is_a_double() -> None:
    assert read_cookies("a=1; a=é") == {}


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_s10_only_names_that_occur_once_are_cookies(pairs: list[tuple[str, str]]) -> None:
    names = [name for name, _ in pairs]
    header = "; ".join(f"{name}={value}" for name, value in pairs)
    assert read_cookies(header) == {name: value for name, value in pairs if names.count(name) == 1}


def attributes(line: str) -> tuple[str, str, set[str]]:
    pair, _, rest = line.partition(";")
    name, _, value = pair.partition("=")
    return name, value, {part.strip() for part in rest.split(";") if part.strip()}


@pytest.mark.parametrize("secure", [True, False])
def test_what_is_set_is_cleared_with_the_same_attributes(secure: bool) -> None:
    response = Response()
    name = host_name("sr-x", secure=secure)
    assert name == ("__Host-sr-x" if secure else "sr-x")
    set_cookie(response, name, "value", secure=secure)
    clear_cookie(response, name, secure=secure)
    made, gone = map(attributes, response.headers.getlist("Set-Cookie"))
    expected = {"HttpOnly", "Path=/", "SameSite=Lax"} | ({"Secure"} if secure else set())
    assert made == (name, "value", expected)
    assert gone[:2] == (name, "")
    assert {part for part in gone[2] if not re.match("Expires=|Max-Age=0", part)} == expected
    assert "Max-Age=0" in gone[2]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_s09_every_cookie_of_a_visit_has_the_attributes(shop: Shop, scheme: str) -> None:
    shop.record("cust_a", "1")
    visitor = Visitor(serve(shop, public_scheme=scheme))
    url, lines = url_of(shop, "cust_a"), []
    headers = {"X-Forwarded-Proto": scheme}

    def keep(response):
        lines.extend(response.headers.getlist("Set-Cookie"))
        return response

    form = keep(visitor.get(f"{url}/unlock", headers=headers))
    token = re.search(r'name="csrf_token" value="([^"]+)"', form.text)
    assert token
    data = {"csrf_token": token[1], "method": "access_code", "field-code": shop.code("cust_a")}
    opened = keep(visitor.post(f"{url}/unlock", data=data))
    assert opened.status_code == 303
    page = keep(visitor.get(url))
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token
    assert keep(visitor.post(f"{url}/close", data={"csrf_token": token[1]})).status_code == 303
    names = []
    for line in lines:
        name, value, found = attributes(line)
        names.append(name)
        assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= found
        assert ("Secure" in found) == (scheme == "https") == name.startswith("__Host-")
        assert not any(part.startswith("Domain") for part in found)
        assert len(f"{name}={value}") < 128
        if value:
            lasts = any(part.startswith(("Expires", "Max-Age")) for part in found)
            assert lasts == ("sr-dv-" in name)  # a trusted device is known again later; it opens nothing
            assert re.fullmatch(r"[A-Za-z0-9_-]{43}", value)
    prefix = "__Host-" if scheme == "https" else ""
    assert names[0] == f"{prefix}sr-pre"
    assert re.fullmatch(rf"{prefix}sr-[0-9a-f]{{8}}", names[1])
    assert names[2] == names[1].replace("sr-", "sr-dv-")
    assert names[3] == names[1]
