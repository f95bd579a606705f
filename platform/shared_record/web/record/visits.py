"""From a request to a visit: whose link this is, whether it lives here, and what may be shown."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

from flask import Request, Response, abort, g, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from shared_record.access import sessions
from shared_record.access.links import normalise_handle
from shared_record.access.policy import Surface
from shared_record.access.sessions import Here, Moved, Visit
from shared_record.access.throttle import HANDLE_MISSES, Wait, network_of
from shared_record.errors import AccessDeniedError, LimitedError, NotFoundError, RecordMovedError
from shared_record.hosts.gate import client_address, host_match
from shared_record.hosts.resolver import Role, Source
from shared_record.languages import gettext as _
from shared_record.web.cookies import PRE_SESSION, host_name, read_cookies
from shared_record.web.csrf import token
from shared_record.web.record import format as fmt
from shared_record.web.record.language import page_path, speak_to_customer
from shared_record.web.record.pages import Contact, NotFound, Problem, Shell
from shared_record.web.render import assets, logo, picture_url, theme_css_url
from shared_record.web.runtime import runtime

_log = logging.getLogger("shared_record.access")


def here() -> Here:
    """Return where the request arrived, as the gate found it."""
    match = host_match(request.environ)
    return Here(match.host, match.config, match.twin)


def cookies() -> dict[str, str]:
    """Return the request's cookies, read strictly."""
    return read_cookies(request.headers.get("Cookie"))


def find_visit(handle: str) -> Visit | Moved | None:
    """Return the visit of a handle as typed; ``None`` for an unknown, revoked or foreign link."""
    known = normalise_handle(handle)
    found = None if known is None else _look(known)
    if isinstance(found, Visit):
        g.visit = found
        speak_to_customer(found.row)
    return found


def _look(handle: str) -> Visit | Moved | None:
    """Return the visit of a handle, and forget what was remembered of the host where the page's own query differs."""
    parts, place, match = runtime(), here(), host_match(request.environ)
    found = sessions.visit(parts.db, parts.clock, place, handle, cookies(), secure=parts.secure)
    if match.source is not Source.CACHE or isinstance(found, Moved):
        return found
    if found is not None and found.row.host_epoch == match.generation:
        return found
    parts.resolver.forget(match.host)
    fresh = parts.resolver.resolve(match.host)
    if fresh is None or fresh.role is not Role.SERVING:
        return None
    if (fresh.config, fresh.twin) == (match.config, match.twin):
        return found
    place = Here(fresh.host, fresh.config, fresh.twin)
    return sessions.visit(parts.db, parts.clock, place, handle, cookies(), secure=parts.secure)


def enter(handle: str, surface: Surface | None) -> Visit:
    """Return the visit if ``surface`` may be shown in it (``None``: only whether the link lives here).

    Otherwise the request ends: with the one not-found page, a redirect to the home host, or the way in. A path that
    ends in ``.json``, ``.csv``, ``.tlog-proof`` or ``.pdf`` is answered in JSON.
    """
    machine = wants_data(request)
    found = find_visit(handle)
    if found is None:
        raise missing(machine=machine)
    if isinstance(found, Moved):
        raise moved(found, handle, machine=machine)
    if surface is not None and not found.may_see(surface):
        if machine:
            raise AccessDeniedError(
                "This part of the record opens with the access code or another method.",
                code="STEP_UP_REQUIRED",
                status=401,
                challenge="StepUp",
            )
        abort(redirect(unlock_url(handle, request.full_path.rstrip("?")), 303))
    return found


def wants_data(asked: Request) -> bool:
    """Tell whether this is a request by a program: its errors are JSON then."""
    return asked.path.startswith(("/api/", "/dashboard/")) or asked.path.endswith(
        (".json", ".csv", ".tlog-proof", ".pdf")
    )


def missing(*, machine: bool) -> Exception:
    """Return the answer to a link that opens nothing: the same for unknown, revoked and foreign ones."""
    wait = runtime().throttle.hit(HANDLE_MISSES, network_of(client_address(request.environ)))
    _log.info("handle.%s host=%s", "miss" if wait is None else "throttled", here().host)
    if wait is not None and machine:
        return LimitedError("Many requests came from this connection. Try again later.", retry_after=wait.seconds)
    if wait is not None:
        message = _("Many requests came from this connection. Try again after %(time)s.") % {"time": time_after(wait)}
        return _answer(problem(_("Try again later"), message, 429, wait.seconds))
    if machine:
        return NotFoundError("This link is not in use here.", code="NOT_FOUND")
    return _answer(not_found())


def time_after(wait: Wait, zone: str = "UTC") -> str:
    """Return when a wait is over, to the minute and never too early: the time of day, with the date if that is far."""
    now = runtime().clock.now()
    over = now + timedelta(seconds=wait.seconds + 59)
    return fmt.format_clock(over, zone) if over - now < timedelta(hours=12) else fmt.format_moment(over, zone)


def moved(found: Moved, handle: str, *, machine: bool) -> Exception:
    """Return the answer to a link that lives on another host of its tenant; nothing is carried over."""
    url = runtime().settings.url_for_host(found.host, f"/c/{handle.lower()}")
    if machine:
        return RecordMovedError(url)
    if request.method in ("GET", "HEAD"):
        return _answer(redirect(runtime().settings.url_for_host(found.host, request.path), 302))
    return _answer(redirect(url, 303))


def shell(seen: Visit, handle: str, *, binding: str | None = None, path: str | None = None) -> Shell:
    """Return what every page of this record has. ``binding``: the cookie that form tokens are bound to.

    ``path``: where to come back to after another language was chosen, if that is not this page.
    """
    parts, row = runtime(), seen.row
    theme = parts.themes[theme_slug(seen)]
    contact = row.contact or ""
    if binding is None and seen.session is not None:
        binding = session_cookie(seen)
    return Shell(
        vendor=row.vendor,
        host=seen.host,
        base=f"/c/{handle.lower()}",
        assets=assets(),
        theme_css=theme_css_url(theme),
        logo=logo(theme, picture_url),
        contact=Contact(contact, contact if ":" in contact else f"mailto:{contact}") if contact else None,
        open_until=_open_until(seen),
        csrf_token=token(parts.keys, binding, seen.host, row.link_id) if binding else "",
        open_to_all=seen.may_see(Surface.DETAIL) and seen.session is None,
        test_data=seen.is_test,
        path=path or page_path(),
        report=parts.settings.report_to,
    )


def document_shell(seen: Visit) -> Shell:
    """Return the frame of a page that has an id of its own: it does not show the link, nor the session."""
    return replace(shell(seen, ""), base="", open_until=None, csrf_token="")


def theme_slug(seen: Visit) -> str:
    """Return the tenant's theme, or the default one where that is not installed any more."""
    return seen.row.theme if seen.row.theme in runtime().themes else "default"


def session_cookie(seen: Visit) -> str | None:
    """Return the value of this link's session cookie as the browser sent it."""
    return cookies().get(sessions.cookie_name(seen.row.link_id, secure=runtime().secure))


def pre_session() -> str | None:
    """Return the value of the pre-session cookie as the browser sent it."""
    return cookies().get(host_name(PRE_SESSION, secure=runtime().secure))


def unlock_url(handle: str, target: str) -> str:
    """Return the way in, which leads on to ``target``."""
    return f"/c/{handle.lower()}/unlock?{urlencode({'next': target})}"


def not_found() -> Response:
    """Return the one not-found page: constant bytes, nobody's theme."""
    return runtime().renderer.render(NotFound(assets()), status=404)


def problem(title: str, message: str, status: int, retry_after: int | None = None) -> Response:
    """Return a page that says why nothing can be shown now."""
    response = runtime().renderer.render(Problem(assets(), title, message), status=status)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def problem_here(seen: Visit, handle: str, title: str, message: str, status: int = 404) -> Response:
    """Return the same as a page of the record, for who has reached it: the way to its other pages stays."""
    page = Problem(assets(), title, message, shell=shell(seen, handle))
    return runtime().renderer.render(page, theme_slug(seen), status)


def _answer(response: AnyResponse) -> HTTPException:
    return HTTPException(response=response)


def _open_until(seen: Visit) -> fmt.Moment | None:
    if seen.session is None:
        return None
    until = min(runtime().clock.now() + sessions.IDLE, seen.session.expires_at)
    return fmt.Moment(fmt.format_clock(until, seen.row.zone), until.isoformat(timespec="seconds"))
