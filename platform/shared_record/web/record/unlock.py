"""The way in: show the tenant's methods, judge an answer, set the session cookie, and close it again."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from shared_record.access import devices, sessions, stepup
from shared_record.access.attempts import Browser
from shared_record.access.sessions import Visit
from shared_record.access.throttle import HANDLE_MISSES, Wait, network_of
from shared_record.hosts.gate import client_address
from shared_record.languages import gettext as _
from shared_record.languages import ngettext
from shared_record.web import csrf
from shared_record.web.cookies import PRE_SESSION, clear_cookie, host_name, set_cookie
from shared_record.web.record.language import speak_to_customer
from shared_record.web.record.pages import Closed, FieldView, FormError, Leave, MethodForm, Option, Shell, Unlock
from shared_record.web.record.visits import (
    cookies,
    enter,
    here,
    pre_session,
    problem,
    session_cookie,
    shell,
    theme_slug,
    time_after,
    unlock_url,
)
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

unlock = Blueprint("unlock", __name__)

PAGES = (
    "",
    "/activity",
    "/periods",
    "/compare",
    "/reconcile",
    "/export",
    "/export/file",
    "/export/prepared",
    "/verify",
    "/timeline",
    "/receipts",
    "/access-log",
)
_ONE_OF_MANY = re.compile(r"/activity/[0-9A-Za-z_]{1,64}|/periods/[0-9]{4}-[0-9]{2}(?:/verify)?", re.ASCII)

MOST_TYPED = 1000
"""Characters of an answer that a method is given."""
MOST_PARAMETERS = 20


@unlock.get("/c/<handle>/unlock")
@tier(Gatekeeper.STEP_UP)
def show(handle: str) -> Response:
    """Show the chosen method's form, or the choice between methods. Changes nothing."""
    seen = enter(handle, None)
    binding = pre_session()
    fresh = None if binding else secrets.token_urlsafe(32)
    form = _Form(seen, handle, binding or fresh or "", request.args.get("next", ""))
    response = form.page(request.args.get("method"))
    if fresh is not None:
        set_cookie(response, host_name(PRE_SESSION, secure=runtime().secure), fresh, secure=runtime().secure)
    return response


@unlock.post("/c/<handle>/unlock")
@tier(Gatekeeper.STEP_UP)
def answer(handle: str) -> AnyResponse:
    """Judge an answer: 303 onwards with the session cookie, the next form, or the form again."""
    seen = enter(handle, None)
    parts = runtime()
    binding = pre_session()
    key = request.form.get("method", "")
    if not csrf.is_genuine(request, parts.keys, parts.settings, binding, seen.host, seen.row.link_id):
        if not binding:
            return problem(
                _("This form cannot be used"),
                _(
                    "This browser did not send the cookie that the form needs. Allow cookies for this site, open the"
                    " link again, and enter the code once more."
                ),
                403,
            )
        form = _Form(seen, handle, binding, request.form.get("next", ""))
        return form.page(key, error=_("This form is out of date. Enter the code again."), status=403)
    form = _Form(seen, handle, binding or "", request.form.get("next", ""))
    offer = form.offer(key)
    if offer is None:
        if key.partition(":")[0] in form.out:
            return form.page(None, error=_("This way to open the record does not work at the moment."), status=503)
        return form.page(None, error=_("Choose one of these methods."), status=400)
    return form.respond(offer, _answer(parts.step_up, form, offer))


@unlock.get("/auth/<method>/<choice>")
@tier(Gatekeeper.STEP_UP)
def returned(method: str, choice: str) -> AnyResponse:
    """Take a browser back that a method sent elsewhere: 303 onwards with the session cookie, or a page with the reason.

    What comes back counts only with the ticket, in the browser and on the host where it was asked for, and once.
    """
    parts, who = runtime(), browser(None)
    given = {name: values[0] for name, values in request.args.lists() if len(values) == 1 and len(values[0]) <= 4096}
    ticket = given.get("state", "")
    seen = None
    if request.method == "GET" and who.binding and len(given) <= MOST_PARAMETERS:
        seen = parts.step_up.find(here(), ticket, cookies(), secure=parts.secure)
    if seen is not None:
        speak_to_customer(seen.row)
    offered = parts.step_up.offers(seen)[0] if seen is not None else []
    offer = next((one for one in offered if (one.slug, one.choice.key) == (method, choice)), None)
    if seen is None or offer is None or not offer.has_two_steps:
        return _unfinished(400)
    result = parts.step_up.verify(seen, offer, given, browser(seen), ticket=ticket)
    if isinstance(result, stepup.Opened):
        return _opened(seen, result, safe_next(result.handle, result.target))
    if not result.handle:
        return _unfinished(429 if result.wait else 400, result.wait)
    # Where it began: to start again or to take another way, with the page that was wanted still known.
    return _Form(seen, result.handle, who.binding, result.target).respond(offer, replace(result, asked=None))


@unlock.post("/c/<handle>/close")
@tier(Gatekeeper.STEP_UP)
def close(handle: str) -> AnyResponse:
    """End the session of this browser and record; doing it twice does no harm."""
    seen = enter(handle, None)
    parts = runtime()
    response: AnyResponse = redirect(f"/c/{handle.lower()}", 303)
    if seen.session is not None:
        if not csrf.is_genuine(request, parts.keys, parts.settings, session_cookie(seen), seen.host, seen.row.link_id):
            return problem(_("This form is out of date"), _("Open the link again, then close the record."), 403)
        sessions.end(parts.db, parts.clock, seen)
        # Our own session is over before anybody else is asked where theirs ends.
        url = parts.step_up.sign_out_url(seen)
        if url:
            closed = Closed(shell(replace(seen, session=None), handle, binding=""), url)
            response = parts.renderer.render(closed, theme_slug(seen))
    clear_cookie(response, sessions.cookie_name(seen.row.link_id, secure=parts.secure), secure=parts.secure)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@unlock.post("/auth/<method>/<choice>/backchannel")
@tier(Gatekeeper.STEP_UP)
def ended_elsewhere(method: str, choice: str) -> AnyResponse:
    """Take the word of another site that somebody signed out there: 200 once, else 400. The tenant is the host's."""
    parts = runtime()
    given = {name: values[0] for name, values in request.form.lists() if len(values) == 1}
    if parts.step_up.ended_elsewhere(here(), method, choice, given):
        return Response(status=200)
    wait = parts.throttle.hit(HANDLE_MISSES, network_of(client_address(request.environ)))
    if wait is None:
        return Response(status=400)
    return Response(status=429, headers={"Retry-After": str(wait.seconds)})


def set_session(response: AnyResponse, seen: Visit, sid: str) -> None:
    """Put a new session's id into its cookie."""
    secure = runtime().secure
    set_cookie(response, sessions.cookie_name(seen.row.link_id, secure=secure), sid, secure=secure)


def browser(seen: Visit | None) -> Browser:
    """Return who answers: address, pre-session cookie and, at a record, the cookie of a trusted device."""
    device = "" if seen is None else cookies().get(devices.cookie_name(seen.row.link_id, secure=runtime().secure), "")
    return Browser(client_address(request.environ), pre_session() or "", device)


def safe_next(handle: str, target: str) -> str:
    """Return ``target`` if it is one of this record's own pages, else the landing page."""
    base = f"/c/{handle.lower()}"
    try:
        parsed = urlsplit(target)
    except ValueError:
        return base
    below = parsed.path[len(base) :]
    inside = parsed.path.lower().startswith(base) and (below in PAGES or _ONE_OF_MANY.fullmatch(below))
    if parsed.scheme or parsed.netloc or not inside or not target.isascii() or not target.isprintable():
        return base
    return f"{base}{below}" + (f"?{parsed.query}" if parsed.query else "")


class _Form:
    """The step-up page of one request: what is offered, and how it is shown."""

    def __init__(self, seen: Visit, handle: str, binding: str, target: str) -> None:
        self.seen = seen
        self.handle = handle
        self.target = safe_next(handle, target)
        self._binding = binding
        self.offered, self.out = runtime().step_up.offers(seen)

    def offer(self, key: str | None) -> stepup.Offer | None:
        """Return the offer with this key, or the only one if none is asked for."""
        if key is None and len(self.offered) == 1:
            return self.offered[0]
        return next((one for one in self.offered if one.key == key), None)

    def respond(self, offer: stepup.Offer, result: stepup.Opened | stepup.Asked | stepup.NotOpened) -> AnyResponse:
        """Turn what became of an answer into a response."""
        if isinstance(result, stepup.Opened):
            return _opened(self.seen, result, self.target)
        if isinstance(result, stepup.Asked):
            if result.challenge.redirect:
                return self._leave(offer, result.challenge.redirect)
            return self.page(offer.key, asked=result)
        if result.wait is None:
            return self.page(offer.key, error=_refusal(result), status=403, asked=result.asked)
        status = 503 if result.code == stepup.UNAVAILABLE else 429
        text = self._wait_text(result.reason, result.wait)
        page = self.page(offer.key, error=text, status=status, asked=result.asked)
        page.headers["Retry-After"] = str(result.wait.seconds)
        return page

    def page(
        self, key: str | None, *, error: str = "", status: int = 200, asked: stepup.Asked | None = None
    ) -> Response:
        """Show one method's form, or the choice between methods; with ``asked`` the form of a challenge."""
        if not self.offered:
            return problem(
                _("This record cannot be opened now"),
                _("No way to open it is available at the moment. Contact %(vendor)s.")
                % {"vendor": self.seen.row.vendor},
                503,
                60,
            )
        chosen = self.offer(key) or (self.offer(None) if not error else None)
        method = _method_form(chosen, asked, error) if chosen is not None else None
        field = method.fields[0].name if method is not None and method.fields else ""
        page = Unlock(
            self._shell(),
            tuple(Option(one.key, one.choice.title, hint=one.choice.hint) for one in self.offered),
            method,
            self.target,
            (FormError(error, field),) if error else (),
        )
        return runtime().renderer.render(page, theme_slug(self.seen), status)

    def _shell(self) -> Shell:
        path = unlock_url(self.handle, self.target)
        return shell(self.seen, self.handle, binding=self._binding, path=path)

    def _wait_text(self, reason: str, wait: Wait) -> str:
        text = reason + " " + _("You can try again after %(time)s.") % {"time": time_after(wait, self.seen.row.zone)}
        return text + " " + _("You can use another method now.") if len(self.offered) > 1 else text

    def _leave(self, offer: stepup.Offer, url: str) -> Response:
        page = Leave(self._shell(), offer.choice.title, url)
        return runtime().renderer.render(page, theme_slug(self.seen))


def _answer(
    step_up: stepup.StepUp, form: _Form, offer: stepup.Offer
) -> stepup.Opened | stepup.Asked | stepup.NotOpened:
    who, ticket = browser(form.seen), request.form.get("challenge", "")
    typed = {
        name.removeprefix("field-"): text[:MOST_TYPED]
        for name, text in request.form.items()
        if name.startswith("field-")
    }
    if ticket and "again" in request.form:
        return step_up.again(form.seen, offer, ticket, who)
    if offer.has_two_steps and not ticket:
        return step_up.start(form.seen, offer, typed, who, handle=form.handle, target=form.target)
    return step_up.verify(form.seen, offer, typed, who, ticket=ticket)


def _method_form(offer: stepup.Offer, asked: stepup.Asked | None, error: str) -> MethodForm:
    challenge = asked.challenge if asked is not None else offer.challenge
    return MethodForm(
        slug=offer.key,
        title=offer.choice.title,
        fields=tuple(FieldView(field, error=error if i == 0 else "") for i, field in enumerate(challenge.fields)),
        hint=challenge.text,
        button=_(challenge.button),
        challenge=asked.ticket if asked is not None else "",
        again=challenge.again,
    )


def _opened(seen: Visit, result: stepup.Opened, target: str) -> AnyResponse:
    response = redirect(target, 303)
    set_session(response, seen, result.sid)
    if result.device is not None:
        secure = runtime().secure
        name = devices.cookie_name(seen.row.link_id, secure=secure)
        set_cookie(response, name, result.device, secure=secure, max_age=devices.LIFETIME)
    return response


def _unfinished(status: int, wait: Wait | None = None) -> Response:
    message = _("Open the link on your invoice and start again, in this browser.")
    return problem(_("The sign-in did not finish"), message, status, wait.seconds if wait is not None else None)


def _refusal(result: stepup.NotOpened) -> str:
    left = result.tries_left
    if left is None:
        return result.reason
    if left == 0:
        return result.reason + " " + _("There is a wait before the next try.")
    text = ngettext("%(count)d try left before a wait.", "%(count)d tries left before a wait.", left)
    return f"{result.reason} {text % {'count': left}}"
