"""Random identifiers that are shown to people and machines."""

from __future__ import annotations

import itertools
import secrets
from datetime import datetime

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford base 32, lower case."""


def base32(number: int, length: int) -> str:
    """Return the low ``5 * length`` bits of ``number`` in Crockford base 32, most significant digit first."""
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))


def new_identifier(prefix: str) -> str:
    """Return ``<prefix>_`` and 26 random base-32 characters (130 bits)."""
    return f"{prefix}_{base32(secrets.randbits(130), 26)}"


_sequence = itertools.count(secrets.randbits(20))


def ordered_hex(moment: datetime) -> str:
    """Return 16 hex digits that sort by ``moment``: 44 bits of milliseconds, 20 of a counter of this process.

    Keys made one after another then lie beside each other in an index, as with UUID version 7 (RFC 9562). Two
    processes may make the same one in the same millisecond: whoever inserts it has to expect that.
    """
    milliseconds = int(moment.timestamp() * 1000)
    return f"{(milliseconds & (1 << 44) - 1) << 20 | next(_sequence) & (1 << 20) - 1:016x}"
