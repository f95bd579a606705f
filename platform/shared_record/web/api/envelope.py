"""The envelope of every JSON answer, and the one place where errors become HTTP statuses."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from shared_record.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    LimitedError,
    NotFoundError,
    SharedRecordError,
    UnavailableError,
)
from shared_record.web.api.json_body import BodyRefusedError

RETRY_AFTER_SECONDS = 2
MAX_TEXT = 500
"""Characters of a message or pointer; both may quote what the caller sent."""

_STATUSES: tuple[tuple[type[SharedRecordError], int], ...] = (
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (LimitedError, 429),
    (UnavailableError, 503),
)
_HTTP_ERRORS = {
    400: ("BAD_REQUEST", "The request cannot be read."),
    404: ("NOT_FOUND", "There is nothing here."),
    405: ("METHOD_NOT_ALLOWED", "This address does not answer to that method."),
    413: ("PAYLOAD_TOO_LARGE", "The body is too large."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "Send the body as Content-Type: application/json, in UTF-8."),
    429: ("RATE_LIMITED", "Too many requests. Try again later."),
}
_DATABASE_GONE = (OperationalError, InterfaceError, PoolTimeoutError)

log = logging.getLogger(__name__)


def success(
    data: object, status: int = 200, headers: Mapping[str, str] | None = None, *, dashboard: bool = False
) -> Response:
    """Return ``{"success": true, "data": …}``; ``data`` may hold ``orjson.Fragment`` where literals must be exact.

    ``dashboard``: with ``statusCode`` too, which some clients of ``/dashboard/`` look for.
    """
    code = {"statusCode": status} if dashboard else {}
    return _respond({"success": True, **code, "data": data}, status, headers or {})


def failure(error: Exception) -> Response:
    """Return ``{"success": false, "statusCode": …, "error": {code, message, details?}}`` for any exception.

    What is not expected is a constant 500 with a request id; the log gets that id and where it happened, and no text
    of the request. Use it as error handler of every blueprint under ``/api/`` and, by path, of the application.
    """
    if isinstance(error, HTTPException):
        return _http_failure(error)
    if isinstance(error, _DATABASE_GONE):
        _log_unexpected("database unavailable", error)
        error = UnavailableError("The record cannot be reached now; try again.")
    if isinstance(error, SharedRecordError) and (status := _status(error)):
        return _domain_failure(error, status)
    request_id = secrets.token_hex(8)
    _log_unexpected(f"request {request_id} failed", error)
    message = "Something went wrong here. Tell the operator the request id if it happens again."
    return _error(500, {"code": "INTERNAL_ERROR", "message": message, "requestId": request_id})


def _status(error: SharedRecordError) -> int | None:
    if isinstance(error, AccessDeniedError | BodyRefusedError):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)


def _domain_failure(error: SharedRecordError, status: int) -> Response:
    body: dict[str, Any] = {"code": error.code, "message": error.message[:MAX_TEXT]}
    if error.details:
        body["details"] = [
            {"pointer": detail.pointer[:MAX_TEXT], "code": detail.code, "message": detail.message[:MAX_TEXT]}
            for detail in error.details
        ]
    headers = {}
    if isinstance(error, AccessDeniedError) and status == 401:
        headers["WWW-Authenticate"] = error.challenge
    wait = error.retry_after if isinstance(error, LimitedError) else RETRY_AFTER_SECONDS if status == 503 else 0
    if wait:
        # Both spellings: clients of the contract read the body first, and obey either without an upper bound.
        body["retryAfterSeconds"] = wait
        headers["Retry-After"] = str(wait)
    return _error(status, body, headers)


def _http_failure(error: HTTPException) -> Response:
    status = error.code or 500
    code, message = _HTTP_ERRORS.get(status, (error.name.upper().replace(" ", "_"), "The request failed."))
    allowed = dict(error.get_headers()).get("Allow") if status == 405 else None
    return _error(status, {"code": code, "message": message}, {"Allow": allowed} if allowed else {})


def _respond(body: object, status: int, headers: Mapping[str, str]) -> Response:
    return respond(orjson.dumps(body), status, headers)


def _error(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return _respond({"success": False, "statusCode": status, "error": error}, status, headers or {})


def respond(body: bytes, status: int, headers: Mapping[str, str]) -> Response:
    """Return an answer of the API that is JSON already."""
    response = Response(body, status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.extend(headers)
    return response


def _log_unexpected(what: str, error: Exception) -> None:
    # The message of an exception may quote parameters of a statement, so only its type and place are kept.
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s\n%s", what, type(error).__qualname__, place)
