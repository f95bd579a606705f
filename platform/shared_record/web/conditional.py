"""Conditional GET (RFC 9110, section 13): a page or its data is not sent again to whoever has it already.

Answers stay ``no-store``, so no browser asks this by itself: scripts and programs do, with an ``If-None-Match`` of
their own. Tags are weak: they stand for what is shown, not for the moment of showing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import orjson
from flask import Request, Response

from shared_record import __version__
from shared_record.languages import spoken
from shared_record.web.api.envelope import success
from shared_record.web.record.pages import Shell

PASSING = frozenset({"as_of", "next_checkpoint", "nonce", "sheet", "shell"})
"""Fields of a page that differ each time it is made, though it shows the same; ``shell`` is looked at apart."""


def page_tag(page: Any, shell: Shell, look: str | None) -> str:
    """Return the tag of a page: of its figures and texts, its language, its look, and whether a session is open."""
    shown = {one.name: getattr(page, one.name) for one in fields(page) if one.name not in PASSING}
    frame = replace(shell, open_until=None, csrf_token="")
    state = (__version__, type(page).__name__, spoken(), look, shell.open_until is not None)
    return _digest(repr((state, frame, shown)).encode())


def twin(data: Mapping[str, Any]) -> Response:
    """Return the data of a page in the envelope, with the tag of everything in it but ``asOf.time``."""
    response = success(data)
    as_of = data.get("asOf")
    shown = data if as_of is None else {**data, "asOf": {**as_of, "time": None}}
    response.set_etag(_digest(orjson.dumps(shown)), weak=True)
    return response


def settle(asked: Request, response: Response) -> None:
    """Turn an answer whose tag the asker names into a 304 without a body; any other stays as it is."""
    tag, _ = response.get_etag()
    if tag is None or response.status_code != 200 or asked.method not in ("GET", "HEAD"):
        return
    if asked.if_none_match.contains_weak(tag):
        response.status_code = 304
        response.set_data(b"")
        del response.headers["Content-Length"], response.headers["Content-Type"]


def _digest(shown: bytes) -> str:
    return hashlib.sha256(shown).hexdigest()[:32]
