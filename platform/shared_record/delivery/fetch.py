"""HTTP for step-up methods, e.g. to an identity provider that a tenant names: by the rules of ``egress``, and small."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from shared_record.delivery.egress import Channel, Egress, EgressError, EgressRefusedError
from shared_record.errors import InvalidInputError
from shared_record.plugin import LONGEST_DEADLINE, ServiceDownError

MAX_ANSWER = 256 * 1024
"""Bytes of an answer's body."""

_METHODS = {"GET", "POST"}
_HEADER = re.compile(r"[\x20-\x7e]*")
_log = logging.getLogger("shared_record.egress")
_NONE: Mapping[str, str] = MappingProxyType({})


class FetchError(ServiceDownError, OSError):
    """A request was not made, or its answer cannot be used.

    It is an ``OSError`` for the plugin. One that the plugin lets through is no fault of the plugin: what was asked for
    is unavailable.
    """

    code = "EGRESS_FAILED"


class Fetcher:
    """Sends requests for step-up methods; it is what they see as ``ctx.fetch``."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    def __call__(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = _NONE,
        timeout: float = LONGEST_DEADLINE,
    ) -> tuple[int, bytes]:
        """Return status and body of the answer, 3xx as any other; ``FetchError`` if none came that can be used."""
        if method not in _METHODS or not all(map(_HEADER.fullmatch, [*headers, *headers.values()])):
            raise FetchError("only GET and POST are sent, with headers of printable ASCII")
        seconds = min(timeout, LONGEST_DEADLINE)
        egress = replace(self._egress, deadline=seconds)
        started = time.monotonic()
        try:
            target = egress.check(url)
            addresses = egress.addresses(target, started + seconds)
            left = started + seconds - time.monotonic()
            channel = Channel(replace(egress, deadline=left), target, addresses)
            try:
                answer = channel.send(method, body, {**headers, "Connection": "close"}, MAX_ANSWER + 1)
            finally:
                channel.close()
        except (EgressRefusedError, InvalidInputError) as error:
            _log.warning("egress.blocked: %s", error.message)
            raise FetchError(error.message) from error
        except EgressError as error:
            raise FetchError(error.message) from error
        if not answer.is_whole:
            raise FetchError("the answer is too long, or ends early")
        return answer.status, answer.body
