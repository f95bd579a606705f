"""Which language a page speaks, and the form by which its reader chooses another one.

The reader's own choice comes first, then the customer's language, then the tenant's, then what the browser asks for.
What programs read is in English.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Request, abort, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from shared_record.hosts.gate import host_match
from shared_record.languages import LANGUAGES, SOURCE, is_known, speak
from shared_record.web import csrf
from shared_record.web.cookies import host_name, read_cookies, set_cookie
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

language = Blueprint("language", __name__)

COOKIE = "sr-language"
KEPT = timedelta(days=365)
LONGEST_PATH = 2000


def speak_to_browser() -> None:
    """Speak what the browser asks for, until it is known whose record this is. Threads serve one request after another,
    so this is said at the start of each.
    """
    speak(SOURCE if _is_for_programs(request) else _chosen() or _accepted())


def speak_to_customer(row: Any) -> None:
    """Speak the language of the customer's page, unless its reader chose one. ``row``: that of a visit."""
    if _is_for_programs(request) or _chosen():
        return
    known = row.language or row.tenant_language
    if known:
        speak(known)


@language.post("/language")
@tier(Gatekeeper.NOBODY)
def choose() -> AnyResponse:
    """Remember the reader's choice for this host in a cookie that says nothing else, and go back to the page.

    There is no token: a reader without a session can choose too, and what a forged request could do is undone by one
    click. Requests that other sites make are refused where the browser tells of them.
    """
    parts, wanted = runtime(), request.form.get("language", "")
    if not csrf.is_same_origin(request, parts.settings, host_match(request.environ).host, token_follows=True):
        abort(403)
    if wanted not in LANGUAGES:
        abort(400)
    response = redirect(_safe_path(request.form.get("back", "")), 303)
    set_cookie(response, host_name(COOKIE, secure=parts.secure), wanted, secure=parts.secure, max_age=KEPT)
    return response


def page_path() -> str:
    """Return where this page is, for a way back to it."""
    return request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else request.path


def _chosen() -> str | None:
    """Return the language that the reader chose on this host."""
    cookies = read_cookies(request.headers.get("Cookie"))
    chosen = cookies.get(host_name(COOKIE, secure=runtime().secure))
    return chosen if is_known(chosen) else None


def _accepted() -> str:
    """Return the language that the browser would rather have, of those that pages come in."""
    wanted = (tag.partition("-")[0].lower() for tag, quality in request.accept_languages if quality > 0)
    return next((tag for tag in wanted if tag in LANGUAGES), SOURCE)


def _safe_path(text: str) -> str:
    """Return ``text`` if it is a path on this host, else ``/``."""
    if not text.startswith("/") or text.startswith("//") or len(text) > LONGEST_PATH:
        return "/"
    if not text.isascii() or not text.isprintable() or "\\" in text:
        return "/"
    try:
        parsed = urlsplit(text)
    except ValueError:
        return "/"
    return "/" if parsed.scheme or parsed.netloc else text


def _is_for_programs(asked: Request) -> bool:
    return asked.path.startswith(("/api/", "/dashboard/")) or asked.path.endswith((".json", ".csv", ".tlog-proof"))
