"""The header ``Idempotency-Key``: what counts as the same request, and how a repetition is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from flask import Request, Response
from sqlalchemy import Connection

from shared_record.access.idempotency import Claim, Kept, PendingError, TakenError
from shared_record.db.engine import Database
from shared_record.errors import Detail
from shared_record.web.api.envelope import respond
from shared_record.web.api.json_body import Number

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotent-Replayed": "true"}
PENDING_SECONDS = 1

_FORM = re.compile(r"[\x20-\x7e]{1,255}")
_ATTEMPTS = 3


def read_key(request: Request) -> tuple[str | None, list[Detail]]:
    """Return the request's idempotency key, or ``None`` and what is wrong with it, if there is one."""
    text = request.headers.get(HEADER)
    if text is None or _FORM.fullmatch(text):
        return text, []
    return None, [Detail(f"/{HEADER}", "VALIDATION_ERROR", "This header has 1 to 255 printable ASCII characters.")]


def canonical_request(request: Request, document: object) -> bytes:
    """Return path, query and parsed body in one form: the order of members and the spelling of numbers do not count."""
    query = {name: list(values) for name, values in request.args.lists()}
    return _canonical([dict(request.view_args or {}), query, document]).encode("utf-8", "surrogatepass")


def answer_once(db: Database, claim: Claim, carry_out: Callable[[], Response]) -> Response:
    """Answer a request that has an idempotency key: as the first time if there was one, else carry it out.

    A view whose effect must not be had twice has ``claim`` keep the answer in the transaction of that effect (see
    ``Once``). For any other the answer is kept afterwards. Failures are not kept.
    """
    for _ in range(_ATTEMPTS):
        if (kept := claim.find(db)) is not None:
            return respond(kept.body, kept.code, REPLAYED)
        try:
            response = carry_out()
            if not claim.is_kept and response.status_code < 300:
                claim.keep(db, _kept(response))
        except TakenError:
            continue
        except PendingError:
            break
        return response
    return _pending()


class Once:
    """Keeps the answer of a request in the transaction of its effect. ``answer`` makes it from the effect's results.

    What ``answer`` raises ends the transaction: nothing happened and nothing is kept.
    """

    def __init__(self, claim: Claim, answer: Callable[[Any], Response]) -> None:
        self._claim, self._answer = claim, answer

    def begin(self, connection: Connection) -> None:
        """Take the key, before the effect."""
        self._claim.begin(connection)

    def finish(self, connection: Connection, results: Any) -> None:
        """Keep the answer, after the effect."""
        self._claim.finish(connection, _kept(self._answer(results)))


def _kept(response: Response) -> Kept:
    return Kept(response.status_code, response.get_data())


def _pending() -> Response:
    # The one answer without an envelope: clients of the contract look for the code at the top level.
    body = {
        "code": "IDEMPOTENCY_PENDING",
        "retryAfterSeconds": PENDING_SECONDS,
        "message": "The first request with this Idempotency-Key is still being carried out. Send it again.",
    }
    return respond(orjson.dumps(body), 202, {"Retry-After": str(PENDING_SECONDS)})


def _canonical(value: object) -> str:
    match value:
        case Number(text=text):
            return _number(text)
        case list():
            return f"[{','.join(_canonical(item) for item in value)}]"
        case dict():
            return f"{{{','.join(f'{json.dumps(name)}:{_canonical(value[name])}' for name in sorted(value))}}}"
        case _:
            return json.dumps(value)


def _number(text: str) -> str:
    """Return one spelling for each value, without expanding an exponent."""
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        return text
    whole = "".join(map(str, digits)).lstrip("0")
    kept = whole.rstrip("0")
    if not kept or not isinstance(exponent, int):
        return "0"
    return f"{'-' if sign else ''}{kept}e{exponent + len(whole) - len(kept)}"
