"""Domain errors. They know nothing of HTTP: ``web`` turns them into answers, ``cli`` into exit codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing wrong with an input: where (JSON pointer, RFC 6901), which code, and what to do."""

    pointer: str
    code: str
    message: str


class SharedRecordError(Exception):
    """Base of every expected failure; ``code`` is stable and machine-readable, the message is for people."""

    code = "ERROR"

    def __init__(self, message: str, *, code: str | None = None, details: tuple[Detail, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code


class InvalidInputError(SharedRecordError):
    """The input cannot be accepted as it is; nothing was written."""

    code = "VALIDATION_ERROR"


class NotFoundError(SharedRecordError):
    """No such thing within the active scope."""

    code = "NOT_FOUND"


class AccessDeniedError(SharedRecordError):
    """The caller has shown no right to this; ``status`` tells 401 (show one) from 403 (the one shown does not do).

    ``challenge`` names the kind of right that a 401 asks for.
    """

    code = "ACCESS_DENIED"

    def __init__(self, message: str, *, code: str | None = None, status: int = 403, challenge: str = "ApiKey") -> None:
        super().__init__(message, code=code)
        self.status = status
        self.challenge = challenge


class ConflictError(SharedRecordError):
    """The request contradicts what is already recorded."""

    code = "CONFLICT"


class RecordMovedError(ConflictError):
    """A link was opened on a host where it does not live; ``url`` is where it does."""

    code = "RECORD_MOVED"

    def __init__(self, url: str) -> None:
        super().__init__(f"This record is now at {url}.")
        self.url = url


class LimitedError(SharedRecordError):
    """A limit on requests is reached; the next one is possible in ``retry_after`` seconds."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(SharedRecordError):
    """A part this needs (database, key, lock store) cannot be used now; nothing was written."""

    code = "SERVICE_UNAVAILABLE"


class ConfigurationError(SharedRecordError):
    """Settings, files or keys of this installation are wrong; the operator must act."""

    code = "CONFIGURATION"
