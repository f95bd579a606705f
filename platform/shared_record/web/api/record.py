"""Public JSON of one record under ``/api/v1/c/{handle}``: the step-up call that vendor clients make."""

from __future__ import annotations

from flask import Blueprint, Response, request

from shared_record.access import stepup
from shared_record.clock import rfc3339
from shared_record.errors import AccessDeniedError, Detail
from shared_record.hosts.gate import client_address
from shared_record.web import csrf
from shared_record.web.api.envelope import failure, success
from shared_record.web.api.json_body import invalid, parse_json, pointer, read_body
from shared_record.web.record.unlock import set_session
from shared_record.web.record.visits import enter
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

record_api = Blueprint("record_api", __name__, url_prefix="/api/v1/c")
record_api.register_error_handler(Exception, failure)


@record_api.post("/<handle>/access/verify")
@tier(Gatekeeper.STEP_UP)
def verify(handle: str) -> Response:
    """Judge ``{"factor": …, "value": …}``: 200 with exactly one cookie, or 403 with none."""
    parts = runtime()
    seen = enter(handle, None)
    if not csrf.is_same_origin(request, parts.settings, seen.host):
        raise AccessDeniedError("This call came from a page of another site.", code="FOREIGN_ORIGIN")
    factor, value = _read(parse_json(read_body(request)))
    offered = stepup.offers(parts.db, parts.keys, parts.clock, parts.plugins.step_up_methods, seen)
    offer = next((one for one in offered if one.method.factor == factor), None)
    if offer is None:
        raise invalid([Detail("/factor", "VALIDATION_ERROR", "This factor is not offered here.")])
    answer = {field.name: value for field in offer.challenge.fields}
    result = stepup.attempt(
        parts.db, parts.clock, parts.throttle, seen, offer, answer, client=client_address(request.environ)
    )
    if isinstance(result, stepup.Opened):
        response = success({"opened": True, "openUntil": rfc3339(result.open_until)})
        set_session(response, seen, result.sid)
        return response
    if result.wait is not None:
        response = failure(AccessDeniedError(result.reason, code="RATE_LIMITED", status=429))
        response.headers["Retry-After"] = str(result.wait.seconds)
        return response
    raise AccessDeniedError(result.reason, code=result.code)


def _read(document: object) -> tuple[str, str]:
    if not isinstance(document, dict):
        raise invalid([Detail("", "VALIDATION_ERROR", "Send an object with `factor` and `value`.")])
    problems = [
        Detail(pointer([name]), "VALIDATION_ERROR", "This field is not known here.")
        for name in document
        if name not in ("factor", "value")
    ]
    for name in ("factor", "value"):
        if not isinstance(document.get(name), str) or len(document[name]) > 1000:
            problems.append(Detail(f"/{name}", "VALIDATION_ERROR", "Send a text of at most 1,000 characters."))
    if problems:
        raise invalid(problems)
    return document["factor"], document["value"]
