"""Recording: ``/api/v1/balance/delta``, its batch form, and the state of one delta.

Tier: API key. Scopes: ``record:write`` to record, ``record:read`` to ask.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from shared_record.access.apikeys import RECORD_READ, RECORD_WRITE, authenticate, require_scope
from shared_record.db.lookup import KeyRow
from shared_record.errors import ConflictError, Detail, InvalidInputError, NotFoundError
from shared_record.ledger.intake import Accepted, Delta, Rejected, record_deltas
from shared_record.ledger.records import find_delta
from shared_record.web.api import models
from shared_record.web.api.envelope import failure, success
from shared_record.web.api.json_body import parse_json, read_body
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

CONFLICTS = {"REFERENCE_CONFLICT"}

blueprint = Blueprint("balance", __name__, url_prefix="/api/v1/balance")
blueprint.register_error_handler(Exception, failure)


@blueprint.post("/delta", strict_slashes=False)
@tier(Gatekeeper.API_KEY)
def emit() -> Response:
    """Record one delta: 201. A retry with the same ``referenceId`` gets the first answer's bytes again."""
    key, app = require(RECORD_WRITE), runtime()
    delta = models.read_emit(_document(), app.clock.now())
    [outcome] = record_deltas(app.db, app.keys, app.clock, key.scope, [delta])
    if isinstance(outcome, Rejected):
        raise _refusal(outcome)
    replayed = {"Idempotent-Replayed": "true"} if outcome.replayed else None
    return success(models.emitted(outcome), 201, replayed)


@blueprint.post("/delta/batch", strict_slashes=False)
@tier(Gatekeeper.API_KEY)
def emit_batch() -> Response:
    """Record 1 to 100 deltas in one transaction: 201 with one result per item, in order."""
    key, app = require(RECORD_WRITE), runtime()
    items = models.read_batch(_document(), app.clock.now())
    deltas = [item for item in items if isinstance(item, Delta)]
    outcomes: list[Accepted | Rejected] = []
    if deltas:
        outcomes = record_deltas(app.db, app.keys, app.clock, key.scope, deltas)
    return success(models.batch_answer(items, outcomes), 201)


@blueprint.get("/delta/<record_id>", strict_slashes=False)
@tier(Gatekeeper.API_KEY)
def delta_status(record_id: str) -> Response:
    """Return what is recorded of one delta and how far it has come; 404 for one that this plane does not have."""
    key, app = require(RECORD_READ), runtime()
    # PostgreSQL refuses NUL in a parameter; an id that cannot exist need not be asked for.
    found = find_delta(app.db, key.scope, record_id) if record_id.isascii() and record_id.isprintable() else None
    if found is None:
        raise NotFoundError("No such record.")
    return success(models.status_answer(found))


def require(scope: str) -> KeyRow:
    """Return the key of this request; ``AccessDeniedError`` 401 without a valid one, 403 if it lacks ``scope``."""
    key = authenticate(runtime().db, request.headers.get("X-Api-Key"))
    require_scope(key, scope)
    return key


def _document() -> Any:
    return parse_json(read_body(request))


def _refusal(rejected: Rejected) -> ConflictError | InvalidInputError:
    kind = ConflictError if rejected.code in CONFLICTS else InvalidInputError
    detail = Detail(f"/{rejected.field}", rejected.code, rejected.message)
    return kind(rejected.message, code=rejected.code, details=(detail,))
