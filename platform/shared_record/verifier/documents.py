"""JSON documents that carry a receipt in full, as the API gives them."""

from __future__ import annotations

import json

MAX_DOCUMENT = 4 * 1024 * 1024
CARRIERS = ("shared-record/proof@v1", "shared-record/record-consistency@v1")
"""Formats whose ``tlogProof`` is the document to judge; their other members only repeat it for readers."""

_EXPORT = b'{"format":"shared-record/export@'


def receipt_in(data: bytes) -> str | None:
    """Return the receipt that a JSON answer of the API carries, whole or only its ``data``; ``None`` if none does."""
    if len(data) > MAX_DOCUMENT or data.startswith(_EXPORT):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return _carried(document) or _carried(document.get("data") if isinstance(document, dict) else None)


def _carried(document: object) -> str | None:
    match document:
        case {"format": str(form), "tlogProof": str(text)} if form in CARRIERS:
            return text
    return None
