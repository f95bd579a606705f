"""Strict JSON: what a request body may be, decided before any of it is believed.

RFC 8259 leaves duplicate keys, NaN, lone surrogates and huge numbers to the implementation; here they are refused, and
the refusal names the place (JSON pointer, RFC 6901). Numbers stay the exact text that was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flask import Request

from shared_record.errors import Detail, InvalidInputError, SharedRecordError

MAX_BODY = 1024 * 1024
MAX_DEPTH = 32
MAX_DETAILS = 100
"""An answer names at most this many mistakes."""


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it was written. It is not converted here: ``1e3000000`` is short to write and long to expand."""

    text: str


class BodyRefusedError(SharedRecordError):
    """The body was not read; ``status`` is the HTTP status that says why (413 or 415)."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message, code=code)
        self.status = status


def read_body(request: Request) -> bytes:
    """Return the body of a JSON request.

    ``BodyRefusedError`` 415 unless the Content-Type is ``application/json`` (in UTF-8) without a Content-Encoding, 413
    above 1 MiB: at once when the length is declared, else after the first byte too many.
    """
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
        raise _unsupported("Send the body as Content-Type: application/json, in UTF-8.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise _unsupported("Send the body without Content-Encoding.")
    if (request.content_length or 0) > MAX_BODY:
        raise _too_large()
    chunks, size = [], 0
    # One read may return less than was asked for, so only an empty one means the end.
    while chunk := request.stream.read(min(65_536, MAX_BODY + 1 - size)):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY:
            raise _too_large()
    return b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """Return the JSON value in ``body``: dicts, lists, strings, ``Number``, booleans and ``None``.

    ``InvalidInputError`` with one detail per place for: not UTF-8 (a byte-order mark and UTF-16 included), not JSON,
    nested deeper than 32, a duplicate key, NaN or an infinity, and NUL or a lone surrogate in a string or key.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid([_detail("", f"The body is not UTF-8 (byte {error.start}).")]) from None
    if text.startswith("\ufeff"):
        raise invalid([_detail("", "The body starts with a byte-order mark. Send plain UTF-8.")])
    if not text.strip(" \t\r\n"):
        raise invalid([_detail("", "The body is empty. Send a JSON object.")])
    _check_depth(text)
    reader = _Reader()
    try:
        value = reader.decode(text)
    except json.JSONDecodeError as error:
        message = f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        raise invalid([_detail("", message)]) from None
    # A control character or half a surrogate pair can only have come in as \uXXXX: the decoder refuses it raw.
    if reader.suspicious or "\\u" in text:
        details: list[Detail] = []
        _check(value, "", details)
        if details:
            raise invalid(details)
    return value


def pointer(parts: Iterable[str | int]) -> str:
    """Return the JSON pointer of a place; a lone surrogate in a key is spelt out, since no answer could carry it."""
    return "".join(f"/{_token(part)}" for part in parts)


def invalid(details: Iterable[Detail]) -> InvalidInputError:
    """Return the error that carries ``details``: its code is theirs if they share one, else ``VALIDATION_ERROR``."""
    found = tuple(details)
    codes = {detail.code for detail in found}
    message = found[0].message if len(found) == 1 else f"{len(found)} fields cannot be accepted; see details."
    return InvalidInputError(
        message, code=codes.pop() if len(codes) == 1 else "VALIDATION_ERROR", details=found[:MAX_DETAILS]
    )


# --- Reading ---------------------------------------------------------------------------------------------------------

# Every quote starts a match (an unclosed string runs to the end), so the scan is linear whatever the text.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def _check_depth(text: str) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        character = text[match.start()]
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                message = f"The body is nested deeper than {MAX_DEPTH} levels (character {match.start()})."
                raise invalid([_detail("", message)])
        elif character in "]}":
            depth -= 1


class _Reader:
    """The decoder and its hooks. A hook does not know where it is: it leaves a mark that ``_check`` finds."""

    def __init__(self) -> None:
        self.suspicious = False
        self.decode = json.JSONDecoder(
            object_pairs_hook=self._object, parse_int=Number, parse_float=Number, parse_constant=self._constant
        ).decode

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Doubled:
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        self.suspicious = True
        return _Doubled(pairs)

    def _constant(self, name: str) -> _Constant:
        self.suspicious = True
        return _Constant(name)


@dataclass(frozen=True, slots=True)
class _Doubled:
    pairs: list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class _Constant:
    name: str


def _check(value: Any, place: str, details: list[Detail]) -> None:
    """Collect into ``details`` what is wrong at and below ``place``."""
    if isinstance(value, str):
        _check_text(value, place, "This string", details)
    elif isinstance(value, _Constant):
        details.append(_detail(place, f"{value.name} is not a JSON number."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{place}/{index}", details)
    elif isinstance(value, dict):
        _check_members(value.items(), place, details)
    elif isinstance(value, _Doubled):
        _check_members(value.pairs, place, details)


def _check_members(members: Iterable[tuple[str, Any]], place: str, details: list[Detail]) -> None:
    seen: set[str] = set()
    for key, item in members:
        here = f"{place}/{_token(key)}"
        if key in seen:
            details.append(_detail(here, "This key occurs more than once."))
        seen.add(key)
        _check_text(key, here, "This key", details)
        _check(item, here, details)


def _check_text(text: str, place: str, what: str, details: list[Detail]) -> None:
    if "\0" in text:
        details.append(_detail(place, f"{what} contains the character U+0000."))
    if _SURROGATE.search(text):
        details.append(_detail(place, f"{what} contains half of a surrogate pair, which is not valid Unicode."))


_SURROGATE = re.compile("[\ud800-\udfff]")


def _token(part: str | int) -> str:
    text = str(part).replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "backslashreplace").decode()


def _detail(place: str, message: str) -> Detail:
    return Detail(place, "VALIDATION_ERROR", message)


def _unsupported(message: str) -> BodyRefusedError:
    return BodyRefusedError(message, code="UNSUPPORTED_MEDIA_TYPE", status=415)


def _too_large() -> BodyRefusedError:
    return BodyRefusedError(f"A body has at most {MAX_BODY} bytes.", code="PAYLOAD_TOO_LARGE", status=413)
