"""What happened at a link, for those who have it open: which browsers it is open in, and who looked, tried or changed.

Inner tier under every policy. No address, no id of a session and no name beyond what the reader gave at the step-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from shared_record.access import audit, sessions, views
from shared_record.access.policy import Surface
from shared_record.access.sessions import Device, Visit
from shared_record.access.views import Views
from shared_record.clock import rfc3339
from shared_record.languages import gettext as _
from shared_record.languages import mark, ngettext
from shared_record.web import csrf
from shared_record.web.api.envelope import success
from shared_record.web.cookies import clear_cookie
from shared_record.web.record import format as fmt
from shared_record.web.record import pages
from shared_record.web.record.visits import enter, problem, session_cookie, shell, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import Gatekeeper, tier

access_log = Blueprint("access_log", __name__)

MOST = 200
"""Events, and hours with views, that are shown."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to tell of one link."""

    live: list[Device]
    events: list[audit.Event]
    hints: dict[str, str]
    views: list[Views]


@access_log.get("/c/<handle>/access-log")
@tier(Surface.ACCESS_LOG)
def show(handle: str) -> Response:
    """Show where this record is open, and what happened at its link, newest first."""
    seen = enter(handle, Surface.ACCESS_LOG)
    found, zone = _read(seen), seen.row.zone
    facts = [(event.at, text) for event in found.events if (text := _sentence(seen, event, found.hints))]
    facts += [(one.hour, _views(one, zone)) for one in found.views]
    facts.sort(key=lambda fact: fact[0], reverse=True)
    page = pages.AccessLog(
        shell=shell(seen, handle),
        devices=tuple(
            pages.DeviceRow(
                fmt.row_moment(one.created_at, zone),
                fmt.row_moment(one.last_seen_at, zone),
                _title(one.method),
                one.subject_hint,
                is_this=one.is_this,
            )
            for one in found.live
        ),
        zone=fmt.zone_name(zone, runtime().clock.now().astimezone(ZoneInfo(zone))),
        facts=tuple(pages.Fact(fmt.row_moment(at, zone), text) for at, text in facts[:MOST]),
    )
    return runtime().renderer.render(page, theme_slug(seen))


@access_log.get("/c/<handle>/access-log.json")
@tier(Surface.ACCESS_LOG)
def show_json(handle: str) -> Response:
    """Return the same as data."""
    seen = enter(handle, Surface.ACCESS_LOG)
    found = _read(seen)
    told = [event for event in found.events if _sentence(seen, event, found.hints)]
    return success(
        {
            "sessions": [
                {
                    "method": one.method,
                    "subjectHint": one.subject_hint or None,
                    "host": one.host,
                    "openedAt": rfc3339(one.created_at),
                    "lastSeenAt": rfc3339(one.last_seen_at),
                    "current": one.is_this,
                }
                for one in found.live
            ],
            "events": [{"at": rfc3339(one.at), "kind": one.event} | _public(one, found.hints) for one in told],
            "views": [{"hour": rfc3339(one.hour), "tier": one.tier, "views": one.views} for one in found.views],
        }
    )


@access_log.post("/c/<handle>/sessions/end")
@tier(Gatekeeper.STEP_UP)
def end_all(handle: str) -> AnyResponse:
    """End every session of this record, this one too; doing it twice does no harm."""
    seen = enter(handle, None)
    parts = runtime()
    if seen.session is not None:
        if not csrf.is_genuine(request, parts.keys, parts.settings, session_cookie(seen), seen.host, seen.row.link_id):
            return problem(_("This form is out of date"), _("Open the link again, then end the sessions."), 403)
        sessions.end_all(parts.db, parts.clock, seen)
    response = redirect(f"/c/{handle.lower()}", 303)
    clear_cookie(response, sessions.cookie_name(seen.row.link_id, secure=parts.secure), secure=parts.secure)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def _read(seen: Visit) -> _Found:
    parts = runtime()
    with parts.db.read(seen.scope, snapshot=True) as connection:
        return _Found(
            live=sessions.list_live(connection, parts.clock, seen),
            events=audit.of_customer(connection, seen.scope, seen.customer_id, tuple(_SENTENCES), MOST),
            hints={one.reference: one.subject_hint for one in sessions.list_recent(connection, seen)},
            views=views.list_views(connection, seen.scope, seen.customer_id, MOST),
        )


# --- Wording ---------------------------------------------------------------------------------------------------------


def _title(method: str) -> str:
    """Return what a method is called on the pages; its name where it is not installed any more."""
    kind = runtime().plugins.step_up_methods.get(method)
    return _(kind.title) if kind is not None else method


def _opened(seen: Visit, detail: dict[str, Any], hint: str) -> str:  # noqa: ARG001  one signature for all
    how = {"method": _title(detail.get("method", "")), "who": hint}
    if detail.get("new_device"):
        known = _("Opened in a new browser: %(method)s, %(who)s.")
        return (known if hint else _("Opened in a new browser: %(method)s.")) % how
    return (_("Opened: %(method)s, %(who)s.") if hint else _("Opened: %(method)s.")) % how


def _ended(seen: Visit, detail: dict[str, Any], hint: str) -> str:  # noqa: ARG001
    match detail.get("reason"):
        case "signed out elsewhere":
            return _("Closed by a sign-out elsewhere.")
        case "all closed":
            return _("Closed in all browsers.")
        case "more than the limit":
            return _("The oldest of more than %(number)d open sessions was ended.") % {"number": sessions.MAX_LIVE}
        case _:
            return _("Closed in one browser.")


def _refused(seen: Visit, detail: dict[str, Any], hint: str) -> str:  # noqa: ARG001
    method = detail.get("method")
    if not method:
        return _("Not opened.")
    return _("Not opened: an answer was not accepted (%(method)s).") % {"method": _title(method)}


def _downloaded(seen: Visit, detail: dict[str, Any], hint: str) -> str:  # noqa: ARG001
    facts = {"period": fmt.format_month(detail["period"]), "format": detail["format"]}
    return _("File downloaded: %(period)s, %(format)s.") % facts


def _said(text: str) -> Callable[[Visit, dict[str, Any], str], str]:
    return lambda seen, _detail, _hint: _(text) % {"vendor": seen.row.vendor}


_SENTENCES: dict[str, Callable[[Visit, dict[str, Any], str], str]] = {
    "session.issued": _opened,
    "session.revoked": _ended,
    "stepup.failed": _refused,
    "stepup.paused": _said(mark("Paused after many answers that were not accepted.")),
    "code.rotated": _said(mark("%(vendor)s replaced the access code.")),
    "link.revoked": _said(mark("%(vendor)s turned the link off.")),
    "link.reissued": _said(mark("%(vendor)s issued this link.")),
    "policy.changed": _said(mark("%(vendor)s changed what opens without step-up.")),
    "customer.moved": _said(mark("%(vendor)s moved this record to another address.")),
    "export.delivered": _downloaded,
}


def _sentence(seen: Visit, event: audit.Event, hints: dict[str, str]) -> str:
    return _SENTENCES[event.event](seen, event.detail, hints.get(event.detail.get("session", ""), ""))


def _views(counted: Views, zone: str) -> str:
    end = counted.hour + timedelta(hours=1)
    facts = {
        "count": fmt.format_count(counted.views),
        "start": _clock(counted.hour, zone),
        "end": fmt.format_clock(end, zone),
    }
    if counted.tier == views.INNER:
        text = ngettext(
            "Viewed once with step-up, %(start)s to %(end)s.",
            "Viewed %(count)s times with step-up, %(start)s to %(end)s.",
            counted.views,
        )
    else:
        text = ngettext(
            "Viewed once with the link alone, %(start)s to %(end)s.",
            "Viewed %(count)s times with the link alone, %(start)s to %(end)s.",
            counted.views,
        )
    return text % facts


def _clock(moment: datetime, zone: str) -> str:
    return fmt.format_clock(moment, zone).partition(" ")[0]


def _public(event: audit.Event, hints: dict[str, str]) -> dict[str, Any]:
    """Return of an event's detail what concerns the reader."""
    shown: dict[str, Any] = {
        name: event.detail[name] for name in ("method", "host", "period", "format", "reason") if name in event.detail
    }
    if event.event == "policy.changed":
        shown.pop("reason", None)
    if event.event == "session.issued":
        shown["newDevice"] = bool(event.detail.get("new_device"))
    hint = hints.get(event.detail.get("session", ""))
    return shown | ({"subjectHint": hint} if hint else {})
