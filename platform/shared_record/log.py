"""What is logged: one line for each event, with no secret in it and nothing that could be taken for another line.

The program logs no handle, code, cookie or key by itself. This is the second wall, for what comes with an exception or
from a library: whatever has the shape of one is cut out before a line is written.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

CUT: Final = "[cut]"

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"/c/[A-Za-z0-9_-]{20,64}", re.ASCII), f"/c/{CUT}"),
    (re.compile(r"\b(?:__Host-)?sr-(?:pre|(?:dv-)?[0-9a-f]{8})=[^;,\s]+", re.ASCII), f"sr-{CUT}"),
    (re.compile(r"\b(pk_(?:live|test)_[0-9a-z]{16}|srp_[0-9a-z]{16})\.[A-Za-z0-9_-]+", re.ASCII), rf"\1.{CUT}"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+", re.ASCII), f"whsec_{CUT}"),
    (
        re.compile(
            r"\b((?:field-)?code|value|password|secret|csrf_token|ticket|state|challenge)=[^&;,\s]+", re.I | re.A
        ),
        rf"\1={CUT}",
    ),
    (re.compile(r"(://)[^/@\s]+@", re.ASCII), rf"\1{CUT}@"),
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_=-])", re.ASCII), CUT),
    (re.compile(r"(?<![A-Za-z0-9_-])[0-9a-hjkmnp-tv-z]{26}(?![A-Za-z0-9_-])", re.ASCII), CUT),
)
"""A link's path, cookies, API keys and tokens, webhook secrets, named values, user and password of a URL, any other
random id of 256 bit, and a handle by itself. Ids with a prefix (``evt_…``, ``rec_…``) stay."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FORM = "%(asctime)s %(levelname)s %(name)s %(message)s"


def redact(text: str) -> str:
    """Return ``text`` without what has the shape of a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def escape(text: str) -> str:
    """Return ``text`` with control characters written as escapes: it stays on one line and moves no cursor."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else "\\n", text)


class Lines(logging.Formatter):
    """One line for each record; those of a traceback follow it, each set in by a bar."""

    def __init__(self) -> None:
        super().__init__(_FORM)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return escape(redact(super().formatMessage(record)))

    def formatException(self, ei: object) -> str:
        """Return the traceback, with nothing of the values in it that has the shape of a secret."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  | {escape(line)}" for line in redact(text).split("\n"))

    def formatStack(self, stack_info: str) -> str:
        """Return the stack likewise."""
        return "\n".join(f"  | {escape(line)}" for line in redact(stack_info).split("\n"))


def configure(level: str) -> None:
    """Send everything that is logged in this process to standard error, as ``Lines``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
