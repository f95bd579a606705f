"""The calls of the vendor API: each is declared once, and from that authenticated, checked, answered and documented.

A view gets a ``Call`` whose query and body are checked already, and returns the ``data`` of its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, request
from pydantic import BaseModel

from shared_record.access.apikeys import authenticate, require_scope
from shared_record.db.lookup import KeyRow
from shared_record.db.scope import Scope
from shared_record.errors import Detail, InvalidInputError
from shared_record.web.api.envelope import failure, success
from shared_record.web.api.json_body import invalid, parse_json, read_body
from shared_record.web.api.shapes import Body, Query, read_document, read_query
from shared_record.web.runtime import Runtime, runtime
from shared_record.web.tiers import Gatekeeper, Tier, tier

_ATTRIBUTE = "shared_record_operation"

ReadBody = Callable[[object, datetime], Any]
"""Turns parsed JSON into a call's body; ``InvalidInputError`` with all its mistakes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, as ``/api/v1/openapi.json`` tells of it.

    ``scope`` is what the API key must have; ``None`` for calls without a key, whose ``tier`` says what gates them.
    ``errors`` are the codes beyond those of every call; ``examples`` are bodies that succeed as they stand.
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
    description: str = ""
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call. ``query`` and ``body`` are of the classes that its operation declares."""

    app: Runtime
    key: KeyRow
    query: Any
    body: Any

    @property
    def scope(self) -> Scope:
        """The data plane that the key chose."""
        return self.key.scope


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
            result = view(_call(declared), **parts)
            return result if isinstance(result, Response) else success(result, declared.status)

        setattr(handle, _ATTRIBUTE, declared)
        of.add_url_rule(path, view.__name__, handle, methods=[method], strict_slashes=False)
        return view

    return declare


def described(declared: Operation) -> Callable[[View], View]:
    """Declare tier and documentation of a view that lets its callers in by itself, by handle or proof id."""

    def declare(view: View) -> View:
        tier(declared.tier)(view)
        setattr(view, _ATTRIBUTE, declared)
        return view

    return declare


def operations(app: Flask) -> dict[tuple[str, str], Operation]:
    """Return every declared call of ``app`` by (path in OpenAPI's form, method)."""
    found = {}
    for rule in app.url_map.iter_rules():
        declared: Operation | None = getattr(app.view_functions[rule.endpoint], _ATTRIBUTE, None)
        if declared is not None:
            path = "".join(f"{{{part}}}" if dynamic else part for dynamic, part in rule._trace if part != "|")
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                found[path, method] = declared
    return found


def _call(declared: Operation) -> Call:
    app = runtime()
    key = authenticate(app.db, request.headers.get("X-Api-Key"))
    if declared.scope is not None:
        require_scope(key, declared.scope)
    query, body = checked(declared, app.clock.now())
    return Call(app, key, query, body)


def checked(declared: Operation, now: datetime) -> tuple[Any, Any]:
    """Return the query and body of this request; ``InvalidInputError`` with the mistakes of both."""
    query, details = read_query(declared.query, request.args, now)
    body = None
    if declared.body is not None:
        document = parse_json(read_body(request))
        if declared.read is None:
            body, mistakes = read_document(declared.body, document, now)
        else:
            body, mistakes = _read(declared.read, document, now)
        details += mistakes
    if details:
        raise invalid(details)
    return query, body


def _read(read: ReadBody, document: object, now: datetime) -> tuple[Any, list[Detail]]:
    try:
        return read(document, now), []
    except InvalidInputError as error:
        return None, list(error.details)

