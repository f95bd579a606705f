"""Cross-site request forgery: every form POST shows a token bound to this browser, and comes from this very origin."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

from flask import Request

from shared_record.keys import KeyRing
from shared_record.settings import Settings


def token(keys: KeyRing, binding: str, host: str, link_id: UUID) -> str:
    """Return the form token of the browser that holds ``binding`` (its session or pre-session cookie).

    It begins with the id of the key it was made with: when keys are rotated, forms that are open stay good.
    """
    return _token(keys, keys.active, binding, host, link_id)


def is_genuine(
    request: Request, keys: KeyRing, settings: Settings, binding: str | None, host: str, link_id: UUID
) -> bool:
    """Tell whether a form POST was made by one of our own pages in this browser; tokens of older keys still count."""
    if not binding or not is_same_origin(request, settings, host, token_follows=True):
        return False
    presented = request.form.get("csrf_token", "")
    kid = presented.partition(".")[0]
    if kid not in keys.roots:
        return False
    return hmac.compare_digest(presented.encode(), _token(keys, kid, binding, host, link_id).encode())


def is_same_origin(request: Request, settings: Settings, host: str, *, token_follows: bool = False) -> bool:
    """Tell whether what the browser says of the request's origin, if anything, is this exact origin.

    Under ``Referrer-Policy: no-referrer`` browsers send ``Origin: null`` with a form of our own. That is taken where
    ``Sec-Fetch-Site``, which no page can forge, says the same origin; or where a token is checked as well.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin"):
        return False
    if origin == "null":
        return site is not None or token_follows
    return origin in (None, settings.url_for_host(host))


def _token(keys: KeyRing, kid: str, binding: str, host: str, link_id: UUID) -> str:
    message = b"\0".join((binding.encode(), host.encode(), link_id.bytes))
    return f"{kid}.{hmac.digest(keys.subkey(kid, 'csrf'), message, hashlib.sha256).hex()}"
