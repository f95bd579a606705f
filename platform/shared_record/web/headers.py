"""Response headers, set by one helper on everything (R10)."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response

from shared_record.languages import spoken

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
FRAME_OPTIONS = "X-Frame-Options"
IMMUTABLE = "public, max-age=31536000, immutable"
_HSTS = "max-age=31536000"


def allow_scripts(response: Response, nonce: str) -> Response:
    """Let the scripts that carry ``nonce`` run on this one page; nothing else of the policy changes."""
    response.headers["Content-Security-Policy"] = f"{CONTENT_SECURITY_POLICY}; script-src 'nonce-{nonce}'"
    return response


def allow_framing(response: Response, origins: Iterable[str]) -> Response:
    """Let pages of exactly these https origins show this one answer in a frame; without any, nobody may."""
    named = " ".join(origins)
    if named:
        policy = response.headers.get("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        response.headers["Content-Security-Policy"] = policy.replace(
            "frame-ancestors 'none'", f"frame-ancestors {named}"
        )
        response.headers[FRAME_OPTIONS] = ""
    return response


def protect(response: Response, *, secure: bool) -> Response:
    """Add the headers every answer has; what a handler set itself stays (a static file's caching)."""
    headers = response.headers
    headers.setdefault("Cache-Control", "private, no-store")
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    if "frame-ancestors" not in headers["Content-Security-Policy"]:
        headers["Content-Security-Policy"] += "; frame-ancestors 'none'"
    # The older header cannot name origins: it goes where `frame-ancestors` names some, and says DENY everywhere else.
    if headers.setdefault(FRAME_OPTIONS, "DENY") == "":
        del headers[FRAME_OPTIONS]
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if headers["Cache-Control"] != IMMUTABLE:
        headers["Vary"] = "Cookie"
    if response.mimetype == "text/html" and headers["Cache-Control"] != IMMUTABLE:
        headers["Vary"] = "Accept-Language, Cookie"
        headers["Content-Language"] = spoken()
    if secure:
        headers["Strict-Transport-Security"] = _HSTS
    return response
