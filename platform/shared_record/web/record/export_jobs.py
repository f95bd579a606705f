"""Files to take away: the choice, files that are prepared first because they are large, and the download itself."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from babel.numbers import format_compact_decimal
from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.clock import period_of
from shared_record.delivery.events import EXPORT_DOWNLOADED
from shared_record.errors import LimitedError, NotFoundError
from shared_record.exports import jobs
from shared_record.exports.jobs import BusyError, Export
from shared_record.languages import gettext as _
from shared_record.languages import ngettext, spoken
from shared_record.ledger.records import Period, find_period, list_periods
from shared_record.plugin import ExportFormat
from shared_record.web import csrf
from shared_record.web.record import format as fmt
from shared_record.web.record import pages
from shared_record.web.record.files import is_there, prepare, require_format, send_export, send_prepared
from shared_record.web.record.pages import FormError, Option
from shared_record.web.record.visits import enter, problem, session_cookie, shell, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier
from shared_record.web.told import tell

export_jobs = Blueprint("export_jobs", __name__)


@export_jobs.get("/c/<handle>/export")
@tier(Surface.DETAIL)
def export(handle: str) -> Response:
    """Let the customer choose period and format; says what the file will hold, and which files are prepared."""
    seen = enter(handle, Surface.DETAIL)
    return _choice(seen, handle, request.args.get("period", ""), request.args.get("format", ""))


@export_jobs.post("/c/<handle>/export")
@tier(Surface.DETAIL)
def ask(handle: str) -> AnyResponse:
    """Lead to the file, or have it prepared first where it is large."""
    seen = enter(handle, Surface.DETAIL)
    if not _is_ours(seen):
        return problem(_("This form is out of date"), _("Open the link again, then choose the file once more."), 403)
    period, kind = _asked(seen, request.form.get("period", ""), request.form.get("format", ""))
    if not jobs.is_large(period):
        return redirect(_url(handle, "file", period.period, kind), 303)
    try:
        prepare(seen.scope, seen.customer_id, period.period, kind, "customer")
    except LimitedError as error:
        response = _choice(seen, handle, period.period, kind.slug, _busy(error))
        response.headers["Retry-After"] = str(error.retry_after)
        return response
    return redirect(_url(handle, "prepared", period.period, kind), 303)


@export_jobs.get("/c/<handle>/export/prepared")
@tier(Surface.DETAIL)
def prepared(handle: str) -> AnyResponse:
    """Show how far a large file is, and the way to it."""
    seen = enter(handle, Surface.DETAIL)
    period, kind = _asked(seen, request.args.get("period", ""), request.args.get("format", ""))
    found = _find(seen, period.period, kind)
    if found is None and not jobs.is_large(period):
        return redirect(_url(handle, "file", period.period, kind), 303)
    frame, zone = shell(seen, handle), seen.row.zone
    page = pages.Prepared(
        shell=frame,
        state="missing" if found is None else found.state,
        period=Option(period.period, fmt.format_month(period.period)),
        format=Option(kind.slug, _(kind.title)),
        rows=_about(found.rows if found else period.size),
        url=_url(handle, "file", period.period, kind),
        again_url=_url(handle, "prepared", period.period, kind),
    )
    if found is not None and found.state == jobs.PREPARING:
        page = replace(page, written=found.written, of=max(found.rows, found.written), progress=_progress(found))
    elif found is not None and found.state == jobs.READY and found.length and found.sha256 and found.manifest:
        page = replace(
            page,
            records=fmt.format_records(found.manifest["rows"]),
            size=_size(found.length),
            total=pages.Total(fmt.format_total(found.manifest["total"]), period.unit),
            digest=found.sha256.hex(),
            until=fmt.moment(found.expires_at, zone),
            later=fmt.format_records(period.size - found.manifest["rows"])
            if period.size > found.manifest["rows"]
            else "",
        )
    response = runtime().renderer.render(page, theme_slug(seen))
    if page.state == jobs.PREPARING:
        response.headers["Retry-After"] = "10"
    return response


@export_jobs.get("/c/<handle>/export/file")
@tier(Surface.DETAIL)
def export_file(handle: str) -> AnyResponse:
    """Send one file, built whole before, with its length and digest: a cut-off download cannot look complete.

    Whether the record may be seen is asked here, each time; that a file was prepared opens nothing.
    """
    seen = enter(handle, Surface.DETAIL)
    period, kind = _asked(seen, request.args.get("period", ""), request.args.get("format", ""))
    answer: AnyResponse | None
    if jobs.is_large(period):
        found = _find(seen, period.period, kind)
        answer = None if found is None else send_prepared(seen.scope, found, kind)
        if answer is None:
            return redirect(_url(handle, "prepared", period.period, kind), 303)
    else:
        answer = send_export(seen.scope, seen.customer_id, period.period, kind)
    tell(seen, EXPORT_DOWNLOADED, period=period.period, format=kind.slug)
    return answer


def _asked(seen: Visit, month: str, slug: str) -> tuple[Period, type[ExportFormat]]:
    """Return what is asked for; ``NotFoundError`` where there is no such period or format."""
    kind = require_format(slug, seen.row.export_formats)
    month = month or period_of(runtime().clock.now())
    with runtime().db.read(seen.scope) as connection:
        period = find_period(connection, seen.scope, seen.customer_id, month)
    if period is None:
        raise NotFoundError(f"nothing is recorded in {month}.", code="PERIOD_NOT_FOUND")
    return period, kind


def _find(seen: Visit, month: str, kind: type[ExportFormat]) -> Export | None:
    """Return the prepared file of a period, or one on its way; ``None`` for one that is not on this disk."""
    with runtime().db.read(seen.scope) as connection:
        found = jobs.find_file(connection, runtime().clock, seen.scope, seen.customer_id, month, kind.slug)
    return found if found is not None and (found.state != jobs.READY or is_there(seen.scope, found)) else None


def _is_ours(seen: Visit) -> bool:
    """Tell whether one of our own pages sent the form. Without a session there is no right of anybody's to abuse."""
    parts, cookie = runtime(), session_cookie(seen)
    if seen.session is None:
        return csrf.is_same_origin(request, parts.settings, seen.host, token_follows=True)
    return csrf.is_genuine(request, parts.keys, parts.settings, cookie, seen.host, seen.row.link_id)


def _choice(seen: Visit, handle: str, month: str, slug: str, error: str = "") -> Response:
    with runtime().db.read(seen.scope, snapshot=True) as connection:
        found = list_periods(connection, seen.scope, seen.customer_id)
        files = jobs.of_customer(connection, runtime().clock, seen.scope, seen.customer_id)
    installed = runtime().plugins.export_formats
    kinds = [installed[one] for one in seen.row.export_formats if one in installed]
    chosen = slug if slug in {kind.slug for kind in kinds} else kinds[0].slug if kinds else ""
    page = pages.Export(
        shell=shell(seen, handle),
        periods=tuple(
            Option(
                one.period,
                _("%(period)s, %(records)s")
                % {"period": fmt.format_month(one.period), "records": fmt.format_records(one.size)},
                selected=one.period == month,
            )
            for one in found
        ),
        formats=tuple(Option(kind.slug, _(kind.title), selected=kind.slug == chosen) for kind in kinds),
        as_of=fmt.moment(runtime().clock.now(), seen.row.zone),
        prepared=tuple(
            Option(_url(handle, "prepared", one.period, installed[one.format]), _told(one, installed[one.format]))
            for one in files
            if one.format in seen.row.export_formats and one.format in installed
        ),
        errors=(FormError(error, ""),) if error else (),
    )
    return runtime().renderer.render(page, theme_slug(seen), 429 if error else 200)


# --- Wording ---------------------------------------------------------------------------------------------------------


def _url(handle: str, leaf: str, month: str, kind: type[ExportFormat]) -> str:
    return f"/c/{handle.lower()}/export/{leaf}?{urlencode({'period': month, 'format': kind.slug})}"


def _busy(error: LimitedError) -> str:
    if not isinstance(error, BusyError):
        return _("Many files were prepared for this record within an hour. Ask again later.")
    if error.of_tenant:
        return _("Several large files are being prepared already. Ask again in a few minutes.")
    return _("Another file of this record is being prepared. Ask again when it is ready.")


def _told(one: Export, kind: type[ExportFormat]) -> str:
    states = {jobs.PREPARING: _("being prepared"), jobs.READY: _("ready"), jobs.FAILED: _("not made")}
    return _("%(period)s, %(format)s: %(state)s") % {
        "period": fmt.format_month(one.period),
        "format": _(kind.title),
        "state": states[one.state],
    }


def _about(count: int) -> str:
    """Return ``1.2 million records``, or a smaller count in full."""
    if count < 1_000_000:
        return fmt.format_records(count)
    words = format_compact_decimal(count, format_type="long", fraction_digits=1, locale=spoken().replace("-", "_"))
    return ngettext("%(count)s record", "%(count)s records", count) % {"count": words}


def _progress(found: Export) -> str:
    return _("%(written)s of %(all)s records so far.") % {
        "written": fmt.format_count(min(found.written, found.rows)),
        "all": fmt.format_count(found.rows),
    }


def _size(length: int) -> str:
    """Return a length in megabytes, rounded up: what a reader needs to know before the download."""
    return _("%(size)s MB") % {"size": fmt.format_count(-(-length // 1_000_000))}
