"""Public JSON of one record under ``/api/v1/c/{handle}``: the step-up call that vendor clients make, and its proofs."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Annotated, Literal

from flask import Blueprint, Response, request
from pydantic import Field

from shared_record.access import stepup
from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.clock import rfc3339
from shared_record.errors import AccessDeniedError, Detail
from shared_record.web import csrf
from shared_record.web.api.envelope import failure, success
from shared_record.web.api.json_body import invalid, parse_json, pointer, read_body
from shared_record.web.api.operations import Operation, checked, described
from shared_record.web.api.proofs import ProvenTotal, RecordExtends, proof_data, record_consistency_data
from shared_record.web.api.shapes import Answer, Body, Moment, Query
from shared_record.web.cookies import PRE_SESSION, host_name, set_cookie
from shared_record.web.record.proofs import prove_asked, prove_since
from shared_record.web.record.unlock import browser, set_session
from shared_record.web.record.visits import enter
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper


class ProofQuery(Query):
    """Which part of which period: ``from`` and ``to`` as counts of rows, or as moments."""

    period: str | None = None
    from_: Annotated[str | None, Field(alias="from")] = None
    to: str | None = None


class ConsistencyQuery(Query):
    """Which older state: ``from`` is a count of rows or the id of a receipt, ``root`` what it was (base64)."""

    from_: Annotated[str, Field(alias="from")]
    period: str | None = None
    root: str | None = None


class AccessVerifyBody(Body):
    """An answer to a step-up method: its factor, what was typed, and the challenge that asked for it, if one did."""

    factor: Annotated[str, Field(max_length=1000)]
    value: Annotated[str, Field(max_length=1000)]
    challenge: Annotated[str, Field(max_length=1000)] = ""


class RecordOpened(Answer):
    """The inner tier is open in this browser; the cookie says so."""

    opened: Literal[True]
    open_until: Moment


PROOF = Operation(
    "Proven total of a period or part of it",
    answer=ProvenTotal,
    tier=Surface.DETAIL,
    query=ProofQuery,
    errors=("PERIOD_NOT_FOUND", "PROOF_NOT_FOUND"),
)
CONSISTENCY = Operation(
    "Proof that a record extends an older state",
    answer=RecordExtends,
    tier=Surface.DETAIL,
    query=ConsistencyQuery,
    errors=("PERIOD_NOT_FOUND", "RECORD_IS_SMALLER", "ROOT_DIFFERS"),
)
STEP_UP = Operation(
    "Step up",
    answer=RecordOpened,
    tier=Gatekeeper.STEP_UP,
    body=AccessVerifyBody,
    errors=(
        "ACCESS_CODE_INVALID",
        "STEP_UP_REFUSED",
        "CHALLENGE_OVER",
        "FOREIGN_ORIGIN",
        "RECORD_MOVED",
        "RATE_LIMITED",
        "STEP_UP_UNAVAILABLE",
    ),
    examples={"access code": {"factor": "ACCESS_HINT", "value": "K7M-4QX"}},
)

record_api = Blueprint("record_api", __name__, url_prefix="/api/v1/c")
record_api.register_error_handler(Exception, failure)


@record_api.post("/<handle>/access/verify")
@described(STEP_UP)
def verify(handle: str) -> Response:
    """Judge ``{"factor": …, "value": …}``: 200 with exactly one cookie, or 403 with none.

    A method of two steps answers the first value with 202 and a challenge, which is sent along with the second.
    """
    parts = runtime()
    seen = enter(handle, None)
    if not csrf.is_same_origin(request, parts.settings, seen.host):
        raise AccessDeniedError("This call came from a page of another site.", code="FOREIGN_ORIGIN")
    factor, value, ticket = _read(parse_json(read_body(request)))
    offered, _ = parts.step_up.offers(seen)
    offer = next((one for one in offered if one.kind.factor == factor), None)
    if offer is None:
        raise invalid([Detail("/factor", "VALIDATION_ERROR", "This factor is not offered here.")])
    if offer.has_two_steps and not ticket:
        return _begun(seen, handle, offer, value)
    names = parts.step_up.fields(seen, offer, ticket, browser(seen))
    answer = dict.fromkeys(names, value)
    # Its answer has exactly one cookie, so what asks here keeps the limits that all share.
    program = replace(browser(seen), may_be_trusted=False)
    result = parts.step_up.verify(seen, offer, answer, program, ticket=ticket)
    if isinstance(result, stepup.Opened):
        response = success({"opened": True, "openUntil": rfc3339(result.open_until)})
        set_session(response, seen, result.sid)
        return response
    return _refused(result)


def _begun(seen: Visit, handle: str, offer: stepup.Offer, value: str) -> Response:
    """Take the first answer to a method of two steps: 202 with the challenge, and the cookie it is bound to."""
    parts, who = runtime(), browser(seen)
    fresh = "" if who.binding else secrets.token_urlsafe(32)
    who = replace(who, binding=who.binding or fresh)
    answer = {field.name: value for field in offer.challenge.fields}
    result = parts.step_up.start(seen, offer, answer, who, handle=handle, target="")
    if isinstance(result, stepup.NotOpened):
        return _refused(result)
    response = success({"challenge": result.ticket, "expiresAt": rfc3339(result.expires_at)}, 202)
    if fresh:
        set_cookie(response, host_name(PRE_SESSION, secure=parts.secure), fresh, secure=parts.secure)
    return response


def _refused(result: stepup.NotOpened) -> Response:
    if result.wait is None:
        raise AccessDeniedError(result.reason, code=result.code)
    is_out = result.code == stepup.UNAVAILABLE
    error = AccessDeniedError(
        result.reason, code=result.code if is_out else "RATE_LIMITED", status=503 if is_out else 429
    )
    response = failure(error)
    response.headers["Retry-After"] = str(result.wait.seconds)
    return response


@record_api.get("/<handle>/proof")
@described(PROOF)
def proof(handle: str) -> Response:
    """Return count and total of a period, or of part of it, as the newest checkpoint covers it, with the proof."""
    seen = enter(handle, Surface.DETAIL)
    checked(PROOF, runtime().clock.now())
    return success(proof_data(prove_asked(seen), runtime().clock))


@record_api.get("/<handle>/consistency")
@described(CONSISTENCY)
def consistency(handle: str) -> Response:
    """Return the proof that a period's record extends an older state of it: ``from``, a size or a receipt's id."""
    seen = enter(handle, Surface.DETAIL)
    checked(CONSISTENCY, runtime().clock.now())
    return success(record_consistency_data(*prove_since(seen)))


def _read(document: object) -> tuple[str, str, str]:
    if not isinstance(document, dict):
        raise invalid([Detail("", "VALIDATION_ERROR", "Send an object with `factor` and `value`.")])
    problems = [
        Detail(pointer([name]), "VALIDATION_ERROR", "This field is not known here.")
        for name in document
        if name not in ("factor", "value", "challenge")
    ]
    for name in ("factor", "value", *(["challenge"] if "challenge" in document else [])):
        if not isinstance(document.get(name), str) or len(document[name]) > 1000:
            problems.append(Detail(f"/{name}", "VALIDATION_ERROR", "Send a text of at most 1,000 characters."))
    if problems:
        raise invalid(problems)
    return document["factor"], document["value"], document.get("challenge", "")
