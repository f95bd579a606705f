"""Response headers, set by one helper on everything (R10)."""

from __future__ import annotations

from flask import Response

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
IMMUTABLE = "public, max-age=31536000, immutable"
_HSTS = "max-age=31536000"


def allow_scripts(response: Response, nonce: str) -> Response:
    """Let the scripts that carry ``nonce`` run on this one page; nothing else of the policy changes."""
    response.headers["Content-Security-Policy"] = f"{CONTENT_SECURITY_POLICY}; script-src 'nonce-{nonce}'"
    return response


def protect(response: Response, *, secure: bool) -> Response:
    """Add the headers every answer has; what a handler set itself stays (a static file's caching)."""
    headers = response.headers
    headers.setdefault("Cache-Control", "private, no-store")
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if headers["Cache-Control"] != IMMUTABLE:
        headers["Vary"] = "Cookie"
    if secure:
        headers["Strict-Transport-Security"] = _HSTS
    return response
