"""The C2SP tlog-tiles endpoints of a log, on the platform host and on the hosts of the tenant it belongs to.

Everything here is the same for every reader, so browsers of any origin may read it. It never needs a cookie.
"""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from sqlalchemy.engine import Connection
from werkzeug.wrappers import Response as AnyResponse

from shared_record.db import lookup
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError, Detail, InvalidInputError, NotFoundError, SharedRecordError
from shared_record.hosts.gate import host_match
from shared_record.ledger import tiles
from shared_record.ledger.note import VerifierKey
from shared_record.ledger.origin import start_of_ordinal
from shared_record.ledger.proofs import newest_checkpoint
from shared_record.ledger.ranges import prove_log_consistency
from shared_record.ledger.tiles import LogKeys
from shared_record.tenancy.tenants import read_tenant
from shared_record.web.api.envelope import failure
from shared_record.web.api.proofs import LOG_CONSISTENCY, consistency_data
from shared_record.web.headers import IMMUTABLE
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

tlog = Blueprint("tlog", __name__, url_prefix="/log/<public_id>")
well_known = Blueprint("well_known", __name__, url_prefix="/.well-known/shared-record")

REVALIDATE: Final = "no-cache"
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_SIZE: Final = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)


@tlog.get("/checkpoint")
@tlog.get("/<int(min=2,max=999):ordinal>/checkpoint")
@tier(Gatekeeper.NOBODY)
def checkpoint(public_id: str, ordinal: int = 1) -> Response:
    """Return the newest published checkpoint, a signed note. A later origin of the log is served below its number."""
    scope = _log_here(public_id)
    if scope is None:
        return _nothing()
    with runtime().db.read(scope) as connection:
        newest = newest_checkpoint(connection, scope, start_of_ordinal(ordinal))
    return _nothing() if newest is None else _fresh(newest.note.encode(), _TEXT)


@tlog.get("/consistency")
@tlog.get("/<int(min=2,max=999):ordinal>/consistency")
@tier(Gatekeeper.NOBODY)
def consistency(public_id: str, ordinal: int = 1) -> Response:
    """Return the proof that the log at size ``to`` (default: the newest) extends the log at size ``from``."""
    try:
        return _consistency(public_id, ordinal)
    except SharedRecordError as error:
        refusal = failure(error)
        refusal.headers["Cache-Control"] = REVALIDATE
        return refusal


@tlog.get("/successor")
@tlog.get("/<int(min=2,max=999):ordinal>/successor")
@tier(Gatekeeper.NOBODY)
def successor(public_id: str, ordinal: int = 1) -> Response:
    """Return the proof that the log declared a new origin after this one; not found while it did not."""
    scope = _log_here(public_id)
    if scope is None:
        return _nothing()
    with runtime().db.read(scope, snapshot=True) as connection:
        text = tiles.read_successor(connection, scope, ordinal)
    return _nothing() if text is None else _fresh(text.encode(), _TEXT)


@tlog.get("/tile/<path:name>")
@tlog.get("/<int(min=2,max=999):ordinal>/tile/<path:name>")
@tier(Gatekeeper.NOBODY)
def tile(public_id: str, name: str, ordinal: int = 1) -> Response:
    """Return a tile of hashes or a bundle of entries. Full ones may be kept for ever."""
    wanted = tiles.parse_tile_name(name)
    scope = _log_here(public_id) if wanted is not None else None
    if wanted is None or scope is None:
        return _nothing()
    with runtime().db.read(scope, snapshot=True) as connection:
        data = tiles.read_tile(connection, scope, wanted, ordinal)
    if data is None:
        return _nothing()
    if not wanted.full:
        return _fresh(data, _BYTES)
    response = Response(data, content_type=_BYTES)
    response.headers["Cache-Control"] = IMMUTABLE
    return response


@tlog.get("/policy")
@tlog.get("/<int(min=2,max=999):ordinal>/policy")
@tier(Gatekeeper.NOBODY)
def policy(public_id: str, ordinal: int = 1) -> Response:  # noqa: ARG001  one file for all origins
    """Return the log's keys and witnesses as a C2SP tlog-policy."""
    scope = _log_here(public_id)
    if scope is None:
        return _nothing()
    with runtime().db.read(scope) as connection:
        found = tiles.read_keys(connection, scope)
        tenant = read_tenant(connection, scope)
    if found is None:
        return _nothing()
    settings = runtime().settings
    url = settings.url_for_host(settings.platform_hosts[0], f"/log/{public_id}")
    if scope.plane != scope.config:  # the log of test data is witnessed by nobody
        return _fresh(tiles.policy_text(found, url).encode(), _TEXT)
    return _fresh(tiles.policy_text(found, url, tenant.witnesses, tenant.witness_quorum).encode(), _TEXT)


@tlog.get("/keys.json")
@tlog.get("/<int(min=2,max=999):ordinal>/keys.json")
@tier(Gatekeeper.NOBODY)
def keys(public_id: str, ordinal: int = 1) -> Response:  # noqa: ARG001  one file for all origins
    """Return the log's keys with the sizes they sign."""
    scope = _log_here(public_id)
    if scope is None:
        return _nothing()
    with runtime().db.read(scope) as connection:
        found = tiles.read_keys(connection, scope)
    return _nothing() if found is None else _fresh_json(_machine_form(found))


@well_known.get("/keys.json")
@tier(Gatekeeper.NOBODY)
def keys_of_host() -> Response:
    """Return the keys of both logs of this host's tenant: a second place to compare them with."""
    match, db = host_match(request.environ), runtime().db
    live = match.scope
    planes: list[tuple[str, Scope]] = [("live", live)]
    if match.twin is not None:
        planes.append(("test", Scope.of(match.twin, live.config)))
    logs = []
    with db.read(live) as connection:
        for plane, scope in planes:
            with db.rescope(connection, scope):
                found = _keys_and_id(connection, scope, plane)
            if found is not None:
                logs.append(found)
    return _fresh_json({"logs": logs})


@tlog.after_request
@well_known.after_request
def _readable_anywhere(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def _consistency(public_id: str, ordinal: int) -> Response:
    old, new = _size("from"), _size("to") if "to" in request.args else None
    if new is not None and old > new:
        raise _bad_size("from", "The log only grows: `from` is at most `to`.")
    scope = _log_here(public_id)
    newest = None
    if scope is not None:
        with runtime().db.read(scope, snapshot=True) as connection:
            newest = newest_checkpoint(connection, scope, start_of_ordinal(ordinal))
            fits = newest is not None and old <= newest.size
            found = prove_log_consistency(connection, scope, old, new, ordinal) if fits else None
    if newest is None:
        raise NotFoundError("There is no such log here, or no checkpoint of it yet.")
    if not fits:
        raise ConflictError(
            f"The newest checkpoint of this log has size {newest.size}, which is less than {old}.",
            code="LOG_IS_SMALLER",
        )
    if found is None:
        raise NotFoundError(f"No checkpoint of size {new} is published.")
    data = {"format": LOG_CONSISTENCY, "origin": found.origin} | consistency_data(found.tree)
    return _fresh_json(data | {"checkpoint": found.note})


def _size(name: str) -> int:
    text = request.args.get(name, "")
    if not _SIZE.fullmatch(text):
        raise _bad_size(name, "Give the size of a checkpoint: a whole number above 0.")
    return int(text)


def _bad_size(name: str, message: str) -> InvalidInputError:
    return InvalidInputError(message, details=(Detail(f"/{name}", "VALIDATION_ERROR", message),))


def _log_here(public_id: str) -> Scope | None:
    """Return the plane whose log this is, if this host may serve it: another tenant's host knows nothing of it."""
    found = lookup.find_log(runtime().db, public_id)
    if found is None or not host_match(request.environ).serves(found.scope):
        return None
    return found.scope


def _keys_and_id(connection: Connection, scope: Scope, plane: str) -> dict[str, Any] | None:
    found = tiles.read_keys(connection, scope)
    return None if found is None else {"plane": plane} | _machine_form(found)


def _machine_form(found: LogKeys) -> dict[str, Any]:
    return {
        "origin": found.origin,
        "keys": [
            {
                "vkey": key.vkey,
                "fingerprint": VerifierKey.parse(key.vkey).fingerprint,
                "since": key.since,
                "until": key.until,
            }
            for key in found.keys
        ],
    }


def _fresh_json(value: dict[str, Any]) -> Response:
    return _fresh(jsonify(value).get_data(), "application/json")


def _fresh(data: bytes, content_type: str) -> Response:
    """Answer with what may change: kept by nobody without asking again, and then only if it did change."""
    response = Response(data, content_type=content_type)
    response.headers["Cache-Control"] = REVALIDATE
    response.add_etag()
    conditional: AnyResponse = response.make_conditional(request)
    return conditional  # type: ignore[return-value]


def _nothing() -> Response:
    return Response("Not found\n", status=404, content_type=_TEXT, headers={"Cache-Control": REVALIDATE})
