"""Strict JSON bodies: any bytes give a value or a refusal that names the place (security G08 to G12)."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from flask import Request
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared_record.errors import InvalidInputError
from shared_record.web.api import json_body
from shared_record.web.api.json_body import MAX_BODY, MAX_DEPTH, BodyRefusedError, Number, parse_json, read_body

BACKSLASH = "\\"


def refused(body: bytes | str) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        parse_json(body if isinstance(body, bytes) else body.encode())
    assert caught.value.code == "VALIDATION_ERROR"
    assert caught.value.details
    for detail in caught.value.details:
        detail.pointer.encode()  # whatever was sent, the answer can be written as UTF-8
        detail.message.encode()
    return caught.value


def pointers(body: bytes | str) -> list[str]:
    return [detail.pointer for detail in refused(body).details]


# Pieces that strict readers get wrong, so that random bodies are near-JSON instead of noise.
NEAR_JSON = st.lists(
    st.sampled_from([*'{}[],:"\\ -1', '"a"', '"a":1', "1e999999", "NaN", "-Infinity", "null", "\ufeff", "\u2028", "é"])
    | st.sampled_from([BACKSLASH + "u0000", BACKSLASH + "ud800", BACKSLASH + "udc00"]),
    max_size=60,
).map(lambda parts: "".join(parts).encode())


@settings(max_examples=400)
@given(st.binary(max_size=300) | NEAR_JSON)
@example(b"")
@example(b'"')
@example(b'"\\')
@example(b"\xff")
@example(b"]" * 100 + b"[" * 100)
@example(b'{"a":1,"a":NaN}')
def test_any_bytes_give_a_value_or_a_refusal(body: bytes) -> None:
    try:
        parse_json(body)
    except InvalidInputError as error:
        assert error.details  # noqa: PT017  a value is as good


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SANE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(SANE, st.booleans())
def test_agrees_with_the_standard_library_on_sane_documents(document: Any, ascii_only: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)

    def plain(value: Any) -> Any:
        if isinstance(value, Number):
            return json.loads(value.text)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    assert plain(parse_json(text.encode())) == document


def test_numbers_stay_the_text_that_was_sent() -> None:
    assert parse_json(b"[1, -0, 1.50, 1E+2]") == [Number("1"), Number("-0"), Number("1.50"), Number("1E+2")]


def test_g09_depth() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        assert "deeper than 32" in refused(opening * 33 + b"1" + closing * 33).message
        assert "deeper than 32" in refused(opening * 5_000).message
    assert parse_json(b'["' + b"[" * 5_000 + b'", "' + b"\\\\" * 500 + b'"]')  # brackets in strings do not count
    assert "deeper" in refused(b'["\\"", ' + b"[" * 40).message


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_g10_constants_that_json_does_not_have(name: str) -> None:
    assert pointers(f'{{"metadata":{{"x":[1,{name}]}}}}') == ["/metadata/x/1"]
    assert pointers(name) == [""]


def test_g10_duplicate_keys() -> None:
    assert pointers('{"delta":1,"reason":"a","delta":2}') == ["/delta"]
    assert pointers('{"deltas":[{},{"metadata":{"a":1,"a":1}}]}') == ["/deltas/1/metadata/a"]
    assert pointers('{"a/b~":1,"a/b~":1}') == ["/a~1b~0"]
    assert pointers(f'{{"a":1,"{BACKSLASH}u0061":2}}') == ["/a"]  # equal once unescaped
    assert pointers('{"a":{"b":1,"b":2},"a":{"c":NaN}}') == ["/a/b", "/a", "/a/c"]  # all at once


def test_g11_number_bombs_are_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay text: nothing that converts numbers is called, so their cost is that of reading them."""

    def explode(*_: object) -> None:
        raise AssertionError("a number was converted")

    monkeypatch.setattr(json_body, "int", explode, raising=False)
    monkeypatch.setattr(json_body, "float", explode, raising=False)
    long = "9" * 1_000_000
    assert parse_json(f'{{"delta":1e3000000,"n":{long}}}'.encode()) == {
        "delta": Number("1e3000000"),
        "n": Number(long),
    }


@pytest.mark.parametrize("escape", ["u0000", "ud800", "udfff", "ud800x", "udc00" + BACKSLASH + "ud800"])
def test_g12_nul_and_lone_surrogates(escape: str) -> None:
    bad = BACKSLASH + escape
    assert pointers(f'{{"deltas":[{{"reason":"a{bad}"}}]}}') == ["/deltas/0/reason"]
    [place] = set(pointers(f'{{"metadata":{{"k{bad}":1}}}}'))
    assert place.startswith("/metadata/k")


def test_g12_a_surrogate_pair_is_one_character() -> None:
    assert parse_json(f'"{BACKSLASH}ud83d{BACKSLASH}ude00"'.encode()) == "\U0001f600"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_g12_utf8_without_byte_order_mark_only(encoding: str) -> None:
    refused('{"reason":"é"}'.encode(encoding))


@pytest.mark.parametrize("body", [b'{"a":"\x00"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\n"}', b"{'a':1}", b'{"a":1,}'])
def test_g12_raw_control_characters_and_other_dialects(body: bytes) -> None:
    assert pointers(body) == [""]


@pytest.mark.parametrize("body", [b"", b"  \n", b"01", b"+1", b"1.", b".5", b"0x1", b"1 2", b"nul", b"// a\n1"])
def test_what_is_not_json(body: bytes) -> None:
    assert pointers(body) == [""]


def test_an_answer_names_a_bounded_number_of_mistakes() -> None:
    error = refused("[" + ",".join(["NaN"] * 10_000) + "]")
    assert len(error.details) == json_body.MAX_DETAILS


# --- read_body -------------------------------------------------------------------------------------------------------


class Source(io.BytesIO):
    """A stream that counts what is taken from it, and gives little at a time, as sockets do."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size >= 0, "the body must be read in bounded pieces"
        data = super().read(min(size, 1_000))
        self.taken += len(data)
        return data


def make_request(body: bytes, **environ: Any) -> tuple[Request, Source]:
    source = Source(body)
    defaults = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "wsgi.input": source}
    base = {"REQUEST_METHOD": "POST", "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    return Request({key: value for key, value in (base | defaults | environ).items() if value is not None}), source


def test_reads_a_body() -> None:
    body = b'{"a":1}' * 1_000
    for content_type in ("application/json", "application/json; charset=UTF-8", "Application/JSON"):
        assert read_body(make_request(body, CONTENT_TYPE=content_type)[0]) == body
    assert read_body(make_request(body, CONTENT_LENGTH=None, **{"wsgi.input_terminated": True})[0]) == body


@pytest.mark.parametrize(
    "environ",
    [
        {"CONTENT_TYPE": None},
        {"CONTENT_TYPE": "text/plain"},
        {"CONTENT_TYPE": "application/x-www-form-urlencoded"},
        {"CONTENT_TYPE": "multipart/form-data; boundary=x"},
        {"CONTENT_TYPE": "application/json; charset=utf-16"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
    ],
)
def test_g08_other_types_and_codings_are_not_read(environ: dict[str, Any]) -> None:
    request, source = make_request(b"{}", **environ)
    with pytest.raises(BodyRefusedError) as caught:
        read_body(request)
    assert (caught.value.status, source.taken) == (415, 0)


def test_g08_a_declared_length_above_the_limit_is_not_read() -> None:
    request, source = make_request(b"x" * 10, CONTENT_LENGTH=str(MAX_BODY + 1))
    with pytest.raises(BodyRefusedError) as caught:
        read_body(request)
    assert (caught.value.status, source.taken) == (413, 0)


def test_g08_an_undeclared_length_is_read_to_the_limit() -> None:
    request, source = make_request(b"x" * (MAX_BODY + 5_000), CONTENT_LENGTH=None, **{"wsgi.input_terminated": True})
    with pytest.raises(BodyRefusedError) as caught:
        read_body(request)
    assert (caught.value.status, source.taken) == (413, MAX_BODY + 1)
    exact, _ = make_request(b"x" * MAX_BODY)
    assert len(read_body(exact)) == MAX_BODY
