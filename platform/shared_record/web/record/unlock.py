"""The way in: show the tenant's methods, judge an answer, set the session cookie, and close it again."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from shared_record.access import sessions, stepup
from shared_record.access.sessions import Visit
from shared_record.hosts.gate import client_address
from shared_record.web import csrf
from shared_record.web.cookies import PRE_SESSION, clear_cookie, host_name, set_cookie
from shared_record.web.record.pages import FieldView, FormError, MethodForm, Option, Unlock
from shared_record.web.record.visits import (
    enter,
    pre_session,
    problem,
    session_cookie,
    shell,
    theme_slug,
)
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

unlock = Blueprint("unlock", __name__)

PAGES = ("", "/activity", "/periods", "/compare", "/export", "/export/file")


@unlock.get("/c/<handle>/unlock")
@tier(Gatekeeper.STEP_UP)
def show(handle: str) -> Response:
    """Show the chosen method's form, or the choice between methods. Changes nothing."""
    seen = enter(handle, None)
    binding = pre_session()
    fresh = None if binding else secrets.token_urlsafe(32)
    target, slug = request.args.get("next", ""), request.args.get("method")
    response = _page(seen, _offers(seen), handle, binding or fresh or "", target, slug)
    if fresh is not None:
        set_cookie(response, host_name(PRE_SESSION, secure=runtime().secure), fresh, secure=runtime().secure)
    return response


@unlock.post("/c/<handle>/unlock")
@tier(Gatekeeper.STEP_UP)
def answer(handle: str) -> AnyResponse:
    """Judge an answer: 303 onwards with the session cookie, or the form again."""
    seen = enter(handle, None)
    parts = runtime()
    binding = pre_session()
    target, slug = request.form.get("next", ""), request.form.get("method", "")
    if not csrf.is_genuine(request, parts.keys, parts.settings, binding, seen.host, seen.row.link_id):
        if not binding:
            return problem(
                "This form cannot be used",
                "This browser did not send the cookie that the form needs. Allow cookies for this site, open the link"
                " again, and enter the code once more.",
                403,
            )
        text = "This form is out of date. Enter the code again."
        return _page(seen, _offers(seen), handle, binding, target, slug, text, 403)
    offered = _offers(seen)
    offer = next((one for one in offered if one.method.slug == slug), None)
    if offer is None:
        return _page(seen, offered, handle, binding or "", target, None, "Choose one of these methods.", 400)
    fields = {field.name: request.form.get(f"field-{field.name}", "")[:1000] for field in offer.challenge.fields}
    result = stepup.attempt(
        parts.db, parts.clock, parts.throttle, seen, offer, fields, client=client_address(request.environ)
    )
    if isinstance(result, stepup.Opened):
        response = redirect(safe_next(handle, target), 303)
        set_session(response, seen, result.sid)
        return response
    if result.wait is not None:
        text = _wait_text(result.reason, result.wait.seconds)
        page = _page(seen, offered, handle, binding or "", target, slug, text, 429)
        page.headers["Retry-After"] = str(result.wait.seconds)
        return page
    return _page(seen, offered, handle, binding or "", target, slug, result.reason, 403)


@unlock.post("/c/<handle>/close")
@tier(Gatekeeper.STEP_UP)
def close(handle: str) -> AnyResponse:
    """End the session of this browser and record; doing it twice does no harm."""
    seen = enter(handle, None)
    parts = runtime()
    response = redirect(f"/c/{handle.lower()}", 303)
    if seen.session is not None:
        if not csrf.is_genuine(request, parts.keys, parts.settings, session_cookie(seen), seen.host, seen.row.link_id):
            return problem("This form is out of date", "Open the link again, then close the record.", 403)
        sessions.end(parts.db, parts.clock, seen)
    clear_cookie(response, sessions.cookie_name(seen.row.link_id, secure=parts.secure), secure=parts.secure)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def set_session(response: AnyResponse, seen: Visit, sid: str) -> None:
    """Put a new session's id into its cookie."""
    secure = runtime().secure
    set_cookie(response, sessions.cookie_name(seen.row.link_id, secure=secure), sid, secure=secure)


def safe_next(handle: str, target: str) -> str:
    """Return ``target`` if it is one of this record's own pages, else the landing page."""
    base = f"/c/{handle.lower()}"
    try:
        parsed = urlsplit(target)
    except ValueError:
        return base
    inside = parsed.path.lower().startswith(base) and parsed.path[len(base) :] in PAGES
    if parsed.scheme or parsed.netloc or not inside or not target.isascii() or not target.isprintable():
        return base
    return f"{base}{parsed.path[len(base) :]}" + (f"?{parsed.query}" if parsed.query else "")


def _offers(seen: Visit) -> list[stepup.Offer]:
    parts = runtime()
    return stepup.offers(parts.db, parts.keys, parts.clock, parts.plugins.step_up_methods, seen)


def _page(
    seen: Visit,
    offered: list[stepup.Offer],
    handle: str,
    binding: str,
    target: str,
    slug: str | None,
    error: str = "",
    status: int = 200,
) -> Response:
    if not offered:
        return problem(
            "This record cannot be opened now",
            f"No way to open it is available at the moment. Contact {seen.row.vendor}.",
            503,
            60,
        )
    chosen = offered[0] if len(offered) == 1 else next((one for one in offered if one.method.slug == slug), None)
    errors: tuple[FormError, ...] = ()
    method = None
    if chosen is not None:
        fields = chosen.challenge.fields
        if error:
            errors = (FormError(error, f"field-{fields[0].name}" if fields else ""),)
        method = MethodForm(
            slug=chosen.method.slug,
            title=chosen.method.title,
            fields=tuple(FieldView(field, error=error if i == 0 else "") for i, field in enumerate(fields)),
            button=chosen.challenge.button,
        )
    elif error:
        errors = (FormError(error),)
    page = Unlock(
        shell(seen, handle, binding=binding),
        tuple(Option(one.method.slug, one.method.title, hint=one.method.hint) for one in offered),
        method,
        safe_next(handle, target),
        errors,
    )
    return runtime().renderer.render(page, theme_slug(seen), status)


def _wait_text(reason: str, seconds: int) -> str:
    minutes = -(-seconds // 60)
    return f"{reason} You can try again in {minutes} {'minute' if minutes == 1 else 'minutes'}."
