"""The calls of the vendor API: each is declared once, and from that authenticated, checked, answered and documented.

A view gets a ``Call`` whose query and body are checked already, and returns the ``data`` of its answer. Order of a
call: key -> rate limit -> scope -> query, body and headers, all mistakes together -> idempotency key -> view.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, after_this_request, request
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from shared_record.access.apikeys import authenticate, note_use, require_scope
from shared_record.access.idempotency import Claim
from shared_record.access.throttle import KEY_MISSES, Rate, Spent, network_of
from shared_record.db.lookup import KeyRow
from shared_record.db.scope import Scope
from shared_record.errors import AccessDeniedError, Detail, InvalidInputError, LimitedError
from shared_record.web.api.envelope import failure, success
from shared_record.web.api.json_body import invalid, parse_json, read_body
from shared_record.web.api.once import Once, answer_once, canonical_request, read_key
from shared_record.web.api.shapes import Body, Query, read_document, read_query
from shared_record.web.runtime import Runtime, runtime
from shared_record.web.tiers import Gatekeeper, Tier, tier

_ATTRIBUTE = "shared_record_operation"
_log = logging.getLogger("shared_record.api")

ReadBody = Callable[[object, datetime], Any]
"""Turns parsed JSON into a call's body; ``InvalidInputError`` with all its mistakes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, as ``/api/v1/openapi.json`` tells of it.

    ``scope`` is what the API key must have; ``None`` for calls without a key, whose ``tier`` says what gates them.
    ``errors`` are the codes beyond those of every call; ``examples`` are bodies that succeed as they stand.
    ``idempotent``: the call honours ``Idempotency-Key``. Its answer is kept after the view returned, which is right
    where the effect can be had twice; where it cannot, the view hands ``Call.once`` to what carries the effect out.
    """

    summary: str
    answer: type[BaseModel]
    status: int = 200
    scope: str | None = None
    tier: Tier = Gatekeeper.API_KEY
    query: type[Query] = Query
    body: type[Body] | None = None
    read: ReadBody | None = None
    errors: tuple[str, ...] = ()
    idempotent: bool = False
    media_type: str | None = None
    description: str = ""
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call. ``query`` and ``body`` are of the classes that its operation declares."""

    app: Runtime
    key: KeyRow
    query: Any
    body: Any
    claim: Claim | None = None

    @property
    def scope(self) -> Scope:
        """The data plane that the key chose."""
        return self.key.scope

    def once(self, answer: Callable[[Any], Response]) -> Once | None:
        """Return what keeps ``answer(results)`` in the transaction of the effect; ``None`` without an idempotency key.

        ``answer`` must give the same for the same results: the view calls it again.
        """
        return None if self.claim is None else Once(self.claim, answer)


View = TypeVar("View", bound=Callable[..., object])


def blueprint(name: str, url_prefix: str) -> Blueprint:
    """Return a blueprint of the API: every failure in it is answered in the envelope."""
    made = Blueprint(name, __name__, url_prefix=url_prefix)
    made.register_error_handler(Exception, failure)
    return made


def operation(of: Blueprint, method: str, path: str, declared: Operation) -> Callable[[View], View]:
    """Mount a view at ``method path``; it gets a ``Call`` and the path's parts, and returns ``data`` or a response."""

    def declare(view: View) -> View:
        @tier(Gatekeeper.API_KEY)
        @wraps(view)
        def handle(**parts: str) -> Response:
            call = _call(declared)

            def carry_out() -> Response:
                result = view(call, **parts)
                return result if isinstance(result, Response) else success(result, declared.status)

            return carry_out() if call.claim is None else answer_once(call.app.db, call.claim, carry_out)

        setattr(handle, _ATTRIBUTE, declared)
        of.add_url_rule(
            path, view.__name__, handle, methods=[method], strict_slashes=False, provide_automatic_options=False
        )
        return view

    return declare


def described(declared: Operation) -> Callable[[View], View]:
    """Declare tier and documentation of a view that lets its callers in by itself, by handle or proof id."""

    def declare(view: View) -> View:
        tier(declared.tier)(view)
        setattr(view, _ATTRIBUTE, declared)
        return view

    return declare


def operations(app: Flask) -> dict[tuple[str, str], tuple[Operation, Callable[..., Any]]]:
    """Return every declared call of ``app``, with its view, by (rule, method)."""
    found = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        declared: Operation | None = getattr(view, _ATTRIBUTE, None)
        if declared is not None:
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                found[rule.rule, method] = declared, view
    return found


def _call(declared: Operation) -> Call:
    app = runtime()
    key = _authenticated(app)
    _spend(app, key)
    if declared.scope is not None:
        require_scope(key, declared.scope)
    query, body, document, once_key = _checked(declared, app.clock.now())
    if once_key is None:
        return Call(app, key, query, body)
    claim = Claim(
        app.keys,
        app.clock,
        key.scope,
        owner=key.owner,
        route=f"{request.method} {request.url_rule}",
        key=once_key,
        request=canonical_request(request, document),
    )
    return Call(app, key, query, body, claim)


def _authenticated(app: Runtime) -> KeyRow:
    try:
        key = authenticate(app.db, app.clock, request.headers.get("X-Api-Key"))
    except AccessDeniedError:
        count_key_miss()
        raise
    note_key_use(key)
    return key


def count_key_miss() -> None:
    """Count a request with a wrong key or token; ``LimitedError`` when its client network has made too many."""
    if wait := runtime().throttle.hit(KEY_MISSES, network_of(request.remote_addr or "")):
        raise LimitedError("Too many requests without a valid key came from here.", retry_after=wait.seconds)


def note_key_use(key: KeyRow) -> None:
    """See to it that the use of a key or token is noted, after the answer is out and at most once a minute."""
    app = runtime()
    if not app.key_uses.is_due(key, app.clock.now()):
        return

    def note() -> None:
        try:
            note_use(app.db, app.clock, key)
        except SQLAlchemyError:
            _log.warning("key.use not noted")

    def when_closed(response: Response) -> Response:
        response.call_on_close(note)
        return response

    after_this_request(when_closed)


def _spend(app: Runtime, key: KeyRow) -> None:
    rate = Rate(key.rate, key.burst)
    spent = app.throttle.spend(rate, key.owner)

    def announce(response: Response) -> Response:
        response.headers.update(_rate_headers(rate, spent))
        return response

    after_this_request(announce)
    if not spent.allowed:
        raise LimitedError("This API key makes more requests than it may.", retry_after=spent.wait)


def _rate_headers(rate: Rate, spent: Spent) -> dict[str, str]:
    """Return what draft-ietf-httpapi-ratelimit-headers-10 calls a quota policy and its service limit."""
    return {
        "RateLimit-Policy": f'"key";q={rate.burst};w={rate.window}',
        "RateLimit": f'"key";r={spent.remaining};t={spent.reset}',
    }


def checked(declared: Operation, now: datetime) -> tuple[Any, Any]:
    """Return the query and body of this request; ``InvalidInputError`` with the mistakes of both."""
    query, body, _, _ = _checked(declared, now)
    return query, body


def _checked(declared: Operation, now: datetime) -> tuple[Any, Any, object, str | None]:
    """Return query, body, the body as parsed, and the idempotency key."""
    query, details = read_query(declared.query, request.args, now)
    body = document = once_key = None
    if declared.idempotent:
        once_key, mistakes = read_key(request)
        details += mistakes
    if declared.body is not None:
        document = parse_json(read_body(request))
        if declared.read is None:
            body, mistakes = read_document(declared.body, document, now)
        else:
            body, mistakes = _read(declared.read, document, now)
        details += mistakes
    if details:
        raise invalid(details)
    return query, body, document, once_key


def _read(read: ReadBody, document: object, now: datetime) -> tuple[Any, list[Detail]]:
    try:
        return read(document, now), []
    except InvalidInputError as error:
        return None, list(error.details)
