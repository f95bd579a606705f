"""The short form of a proof root for paper. Pure."""

from __future__ import annotations

from shared_record.identifiers import base32


def fingerprint(root: bytes) -> str:
    """Return the first 40 bits of a 32-byte root as eight characters, ``7F3K-92QM``.

    An aid against mix-ups of two documents, not a proof: 40 bits can be ground. The proof is the file.
    """
    text = base32(int.from_bytes(root[:5]), 8).upper()
    return f"{text[:4]}-{text[4:]}"
