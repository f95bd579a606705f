"""Random identifiers that are shown to people and machines."""

from __future__ import annotations

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford base 32, lower case."""


def base32(number: int, length: int) -> str:
    """Return the low ``5 * length`` bits of ``number`` in Crockford base 32, most significant digit first."""
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))


def new_identifier(prefix: str) -> str:
    """Return ``<prefix>_`` and 26 random base-32 characters (130 bits)."""
    return f"{prefix}_{base32(secrets.randbits(130), 26)}"
