"""Recording: ``/api/v1/balance/delta``, its batch form, and the state of one delta."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response

from shared_record.access.apikeys import RECORD_READ, RECORD_WRITE
from shared_record.errors import ConflictError, Detail, InvalidInputError, NotFoundError
from shared_record.ledger.intake import Accepted, Delta, Rejected, record_deltas
from shared_record.ledger.records import find_delta
from shared_record.web.api import models
from shared_record.web.api.envelope import success
from shared_record.web.api.once import REPLAYED
from shared_record.web.api.operations import Call, Operation, blueprint, operation

CONFLICTS = {"REFERENCE_CONFLICT"}
EXAMPLE = {"customerId": "cust_northwind", "delta": -5, "reason": "api calls"}

balance = blueprint("balance", "/api/v1/balance")


@operation(
    balance,
    "POST",
    "/delta",
    Operation(
        "Record one delta",
        answer=models.Emitted,
        status=201,
        scope=RECORD_WRITE,
        body=models.DeltaBody,
        read=models.read_emit,
        errors=("AMOUNT_PRECISION", "REFERENCE_CONFLICT", "ADJUSTS_NOT_FOUND"),
        idempotent=True,
        examples={"one": EXAMPLE, "with a reference": EXAMPLE | {"referenceId": "job-9", "metadata": {"region": "eu"}}},
    ),
)
def emit(call: Call) -> Response:
    """Record one delta. A retry with the same ``referenceId`` gets the first answer's bytes again."""
    app, once = call.app, call.once(_emitted)
    return _emitted(record_deltas(app.db, app.keys, app.clock, call.scope, [call.body], once=once))


@operation(
    balance,
    "POST",
    "/delta/batch",
    Operation(
        "Record 1 to 100 deltas in one transaction",
        answer=models.BatchEmitted,
        status=201,
        scope=RECORD_WRITE,
        body=models.BatchBody,
        read=models.read_batch,
        idempotent=True,
        examples={"two": {"deltas": [EXAMPLE, EXAMPLE | {"customerId": "cust_eastwind", "delta": -2}]}},
    ),
)
def emit_batch(call: Call) -> Response:
    """Record 1 to 100 deltas in one transaction; there is one result per item, in order."""
    items: Sequence[models.BatchItem] = call.body

    def answer(outcomes: list[Accepted | Rejected]) -> Response:
        return success(models.batch_answer(items, outcomes), 201)

    deltas = [item for item in items if isinstance(item, Delta)]
    if not deltas:
        return answer([])
    app, once = call.app, call.once(answer)
    return answer(record_deltas(app.db, app.keys, app.clock, call.scope, deltas, once=once))


@operation(
    balance,
    "GET",
    "/delta/<record_id>",
    Operation("State of one delta", answer=models.Status, scope=RECORD_READ),
)
def delta_status(call: Call, record_id: str) -> dict[str, object]:
    """Return what is recorded of one delta and how far it has come; 404 for one that this plane does not have."""
    # PostgreSQL refuses NUL in a parameter; an id that cannot exist need not be asked for.
    readable = record_id.isascii() and record_id.isprintable()
    found = find_delta(call.app.db, call.scope, record_id) if readable else None
    if found is None:
        raise NotFoundError("No such record.")
    return models.status_answer(found)


def _emitted(outcomes: list[Accepted | Rejected]) -> Response:
    [outcome] = outcomes
    if isinstance(outcome, Rejected):
        raise _refusal(outcome)
    return success(models.emitted(outcome), 201, REPLAYED if outcome.replayed else None)


def _refusal(rejected: Rejected) -> ConflictError | InvalidInputError:
    kind = ConflictError if rejected.code in CONFLICTS else InvalidInputError
    detail = Detail(f"/{rejected.field}", rejected.code, rejected.message)
    return kind(rejected.message, code=rejected.code, details=(detail,))
