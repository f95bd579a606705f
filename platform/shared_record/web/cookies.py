"""Cookies, read strictly and written one way."""

from __future__ import annotations

from datetime import timedelta

from werkzeug.wrappers import Response

PRE_SESSION = "sr-pre"


def read_cookies(header: str | None) -> dict[str, str]:
    """Return the cookies of a ``Cookie`` header; a name that occurs twice is no cookie (S10).

    Names are taken byte for byte: what a browser treats as another name must not become ours by trimming.
    """
    found: dict[str, str] = {}
    doubled: set[str] = set()
    for part in (header or "").split(";"):
        name, equals, value = part.strip(" \t").partition("=")
        if not equals or not name.isascii():
            continue
        if name in found:
            doubled.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in doubled and value.isascii()}


def host_name(name: str, *, secure: bool) -> str:
    """Return the cookie name as it is set: with ``__Host-`` wherever pages are served by TLS."""
    return f"__Host-{name}" if secure else name


def set_cookie(response: Response, name: str, value: str, *, secure: bool, max_age: timedelta | None = None) -> None:
    """Set a cookie for this host alone; without ``max_age`` it is gone with the browser session."""
    response.set_cookie(name, value, max_age=max_age, secure=secure, httponly=True, samesite="Lax", path="/")


def clear_cookie(response: Response, name: str, *, secure: bool) -> None:
    """Delete a cookie with the attributes it was set with: browsers ignore anything less for ``__Host-`` names."""
    response.delete_cookie(name, secure=secure, httponly=True, samesite="Lax", path="/")
