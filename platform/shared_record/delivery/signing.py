"""Signatures of webhooks, in both families: ``X-PacSpace-*``, and Standard Webhooks 1.0.0."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 33
"""Within the 24 to 64 bytes of Standard Webhooks; a multiple of three, so that base 64 needs no padding."""
OVERLAP_HOURS = 24
"""How long after a rotation the former secret still signs too."""


def new_secret() -> str:
    """Return a new secret: ``whsec_`` and random bytes in base 64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def pacspace_signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return ``v1=`` and the hex HMAC-SHA-256 over ``timestamp.body``; its key is the whole secret as text."""
    return "v1=" + hmac.new(secret.encode(), b"%d.%b" % (timestamp, body), hashlib.sha256).hexdigest()


def standard_signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Return ``v1,`` and the base-64 HMAC-SHA-256 over ``id.timestamp.body``; its key is what the secret encodes."""
    key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    message = b"%b.%d.%b" % (event_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()


def headers(valid: Sequence[str], event: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt. ``valid``: the secrets that count now, the current one first."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "Shared-Record-Webhooks",
        "X-Webhook-Event": event,
        "X-Event-ID": event_id,
        "X-PacSpace-Timestamp": str(timestamp),
        "X-PacSpace-Signature": ",".join(pacspace_signature(one, timestamp, body) for one in valid),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(standard_signature(one, event_id, timestamp, body) for one in valid),
    }
