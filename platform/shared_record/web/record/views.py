"""The pages of one record: landing, activity, periods, compare and export, with their JSON and CSV twins."""

from __future__ import annotations

import io
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.clock import is_month, period_bounds, period_of
from shared_record.delivery.events import COMPARE_RUN, RECORD_VIEWED
from shared_record.errors import Detail, InvalidInputError, NotFoundError
from shared_record.exports.service import write_rows
from shared_record.languages import gettext as _
from shared_record.ledger import amounts
from shared_record.ledger.breakdowns import is_value
from shared_record.ledger.receipts import list_receipts
from shared_record.ledger.records import (
    Coverage,
    Filter,
    Page,
    Period,
    Record,
    coverage,
    find_record_id,
    list_periods,
    search,
)
from shared_record.plugin import csv_text
from shared_record.web.conditional import twin
from shared_record.web.headers import allow_scripts
from shared_record.web.record import data, pages
from shared_record.web.record import format as fmt
from shared_record.web.record.files import require_format
from shared_record.web.record.logs import log_url
from shared_record.web.record.pages import FormError, Option
from shared_record.web.record.proofs import prove_asked
from shared_record.web.record.remembered import offer
from shared_record.web.record.sheet import sheet
from shared_record.web.record.twins import announce, csv_table, twins_of
from shared_record.web.record.visits import enter, problem_here, shell, theme_slug, unlock_url
from shared_record.web.render import static_url
from shared_record.web.runtime import runtime
from shared_record.web.script_texts import script_texts
from shared_record.web.tiers import Gatekeeper, tier
from shared_record.web.told import tell

record = Blueprint("record", __name__)

PAGE = 50
MAX_PAGE = 500


# --- Landing ---------------------------------------------------------------------------------------------------------


@record.get("/c/<handle>")
@tier(Surface.LANDING)
def landing(handle: str) -> Response:
    """Show the current period; under GATED, whose record this is and the way in."""
    seen = enter(handle, None)
    frame = shell(seen, handle)
    if not seen.may_see(Surface.LANDING):
        offer(request.environ, seen, runtime().clock.now())
        return runtime().renderer.render(pages.Gated(frame), theme_slug(seen))
    tell(seen, RECORD_VIEWED)
    found, zone = data.summarise(data.Subject.of_visit(seen)), seen.row.zone
    offer(request.environ, seen, found.now, found)
    start, end = period_bounds(found.period)
    through = found.coverage.through
    page = pages.Landing(
        shell=frame,
        total=pages.Total(fmt.format_total(found.current.total), found.current.unit) if found.current else None,
        boundaries=fmt.format_boundaries(start, end),
        as_of=fmt.moment(found.now, zone),
        records=fmt.format_records(found.current.size if found.current else 0),
        verified_through=fmt.day(through, zone) if through else None,
        next_checkpoint=_next_checkpoint(seen, found),
        recent=_rows(found.recent, zone, hide_amounts=seen.row.hide_amounts and seen.session is None, outer=True),
        previous=_previous(found.previous),
        sheet=sheet(seen, frame.base, found.now),
    )
    return runtime().renderer.render(page, theme_slug(seen))


@record.get("/c/<handle>.json")
@tier(Surface.LANDING)
def landing_json(handle: str) -> Response:
    """Return the landing page's figures."""
    seen = enter(handle, Surface.LANDING)
    tell(seen, RECORD_VIEWED)
    return twin(data.live(data.Subject.of_visit(seen)))


def _next_checkpoint(seen: Visit, found: data.Summary) -> fmt.Moment | None:
    """Return when the next checkpoint is planned; ``None`` for within a minute, and before the first, which comes with
    the first deltas.
    """
    newest, own = found.coverage.newest_at, seen.row.checkpoint_seconds
    if newest is None:
        return None
    planned = newest + timedelta(seconds=runtime().settings.checkpoint_seconds if own is None else own)
    return fmt.moment(planned, seen.row.zone) if planned > found.now + timedelta(minutes=1) else None


def _previous(period: Period | None) -> str:
    if period is None:
        return ""
    return f"{fmt.format_month(period.period)}: {fmt.format_total(period.total)} {period.unit}."


# --- Activity --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Query:
    """The activity page's query, as typed and as understood."""

    typed: pages.ActivityFilter
    period: str
    wanted: Filter
    reference: str
    errors: tuple[FormError, ...]


@record.get("/c/<handle>/activity")
@tier(Surface.DETAIL)
def activity(handle: str) -> Response:
    """Show one page of deltas with filters, count and sum."""
    seen = enter(handle, Surface.DETAIL)
    query, zone = _read_query(seen.row.zone), seen.row.zone
    periods, current, found = _search(seen, query)
    frame, now = shell(seen, handle), runtime().clock.now()
    every = [record.amount for record in found.records] + [found.total]
    fraction = fmt.column_fraction(every)
    unit = found.records[0].period.unit if found.records else seen.row.unit
    page = pages.Activity(
        shell=frame,
        heading=_("Activity, %(period)s") % {"period": fmt.format_month(query.period)},
        periods=tuple(
            Option(one, fmt.format_month(one), selected=one == query.period)
            for one in dict.fromkeys([current, *(period.period for period in periods)])
        ),
        filter=query.typed,
        rows=_rows(found.records, zone, fraction=fraction, base=frame.base),
        records=fmt.format_records(found.count),
        net=fmt.amount_cell(found.total, fraction),
        unit=unit,
        zone=fmt.zone_name(zone, now.astimezone(ZoneInfo(zone))),
        as_of=fmt.moment(now, zone),
        json_url=_twin(frame.base, "json"),
        csv_url=_twin(frame.base, "csv"),
        newer_url=_turn(frame.base, before=found.newer),
        older_url=_turn(frame.base, after=found.older),
        errors=query.errors,
        dimensions=next((one.breakdowns for one in periods if one.period == query.period), ()),
        is_live=query.period == current and not found.newer and not query.errors,
        sheet=sheet(seen, frame.base, now),
    )
    response = runtime().renderer.render(page, theme_slug(seen), 400 if query.errors else 200)
    response.headers.add("Link", f'<{page.json_url}>; rel="alternate"; type="application/json"')
    response.headers.add("Link", f'<{page.csv_url}>; rel="alternate"; type="text/csv"')
    return response


@record.get("/c/<handle>/activity.json")
@tier(Surface.DETAIL)
def activity_json(handle: str) -> Response:
    """Return the same page of deltas as data."""
    seen = enter(handle, Surface.DETAIL)
    query = _read_query(seen.row.zone)
    _refuse(query.errors)
    periods, _, found = _search(seen, query)
    base = f"/c/{handle.lower()}"
    period = next((one for one in periods if one.period == query.period), None)
    with runtime().db.read(seen.scope) as connection:
        reach = coverage(connection, seen.scope, periods)
    links = {
        "newer": _turn(base, "activity.json", before=found.newer),
        "older": _turn(base, "activity.json", after=found.older),
    }
    response = twin(
        {
            "period": query.period,
            "count": found.count,
            "total": found.total,
            "unit": period.unit if period else seen.row.unit,
            "asOf": data.as_of(runtime().clock.now(), period, reach),
            "records": [data.row(row) for row in found.records],
            "links": {name: url for name, url in links.items() if url},
        }
    )
    for name, url in links.items():
        if url:
            response.headers.add("Link", f'<{url}>; rel="{"prev" if name == "newer" else "next"}"')
    return response


@record.get("/c/<handle>/activity.csv")
@tier(Surface.DETAIL)
def activity_csv(handle: str) -> Response:
    """Return the same page of deltas as CSV, newest first."""
    seen = enter(handle, Surface.DETAIL)
    query = _read_query(seen.row.zone)
    _refuse(query.errors)
    kind = require_format("csv", seen.row.export_formats)
    periods, _, found = _search(seen, query)
    period = next((one for one in periods if one.period == query.period), None)
    if period is None:
        raise NotFoundError(f"nothing is recorded in {query.period}.", code="PERIOD_NOT_FOUND")
    out, parts = io.BytesIO(), runtime()
    with parts.db.read(seen.scope, snapshot=True) as connection:
        write_rows(connection, parts.keys, parts.clock, seen.scope, seen.customer_id, period, found.records, kind, out)
    response = Response(out.getvalue(), content_type=kind.media_type)
    response.add_etag()
    older = _turn(f"/c/{handle.lower()}", "activity.csv", after=found.older)
    if older:
        response.headers["Link"] = f'<{older}>; rel="next"'
    return response


def _read_query(zone: str) -> _Query:
    """Read filters: dates are whole days in the tenant's zone, ``to`` included."""
    arguments = request.args
    typed = pages.ActivityFilter(
        start=arguments.get("from", ""),
        end=arguments.get("to", ""),
        reference=arguments.get("reference", "").strip(),
        late=arguments.get("late") == "1",
        dimension=arguments.get("dimension", "").strip(),
        in_utc=arguments.get("zone") == "UTC",
    )
    errors: list[FormError] = []
    now = runtime().clock.now()
    period = arguments.get("period") or period_of(now)
    if not is_month(period):
        errors.append(FormError(_("Choose a month such as 2026-11."), "period"))
        period = period_of(now)
    zone = "UTC" if typed.in_utc else zone
    since = _day(typed.start, zone, "from", errors)
    until = _day(typed.end, zone, "to", errors, after=True)
    dimension = _dimension(typed.dimension, errors)
    if since and until and since >= until:
        errors.append(FormError(_("The first day must not be after the last day."), "from"))
    if len(typed.reference) > 255 or not typed.reference.isprintable():
        errors.append(FormError(_("A reference has at most 255 characters, on one line."), "reference"))
    wanted = Filter(period=period, since=since, until=until, late=typed.late, dimension=dimension)
    return _Query(typed, period, wanted, typed.reference, tuple(errors))


def _dimension(text: str, errors: list[FormError]) -> tuple[str, str] | None:
    """Read ``name:value``, a name of metadata and a value that a delta can have under it."""
    if not text:
        return None
    key, _colon, value = text.partition(":")
    if is_value(key) and is_value(value):
        return key, value
    errors.append(FormError(_("Enter a name and a value with a colon between them, such as region:eu."), "dimension"))
    return None


def _day(text: str, zone: str, field: str, errors: list[FormError], *, after: bool = False) -> datetime | None:
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=ZoneInfo(zone))
        return day + timedelta(days=1) if after else day
    except (ValueError, OverflowError):
        errors.append(FormError(_("Enter a day such as 2026-11-22."), field))
        return None


def _search(seen: Visit, query: _Query) -> tuple[list[Period], str, Page]:
    """Return the customer's periods, the current one's name, and the page that the query asks for."""
    current = period_of(runtime().clock.now())
    after, before = _position("after"), _position("before")
    try:
        most = min(max(int(request.args.get("limit", PAGE)), 1), MAX_PAGE)
    except ValueError:
        most = PAGE
    with runtime().db.read(seen.scope, snapshot=True) as connection:
        periods = list_periods(connection, seen.scope, seen.customer_id)
        if query.errors:
            return periods, current, Page((), 0, "0", None, None)
        wanted = _with_reference(connection, seen, query)
        found = search(connection, seen.scope, periods, wanted, most=most, after=after, before=before)
    return periods, current, found


def _with_reference(connection: Connection, seen: Visit, query: _Query) -> Filter:
    if not query.reference:
        return query.wanted
    record_id = find_record_id(connection, runtime().keys, seen.scope, seen.customer_id, query.reference)
    return replace(query.wanted, record_id=record_id or "")


def _position(name: str) -> tuple[str, int] | None:
    """Read a keyset position ``2026-11.318``; one that is malformed is none."""
    period, _, seq = request.args.get(name, "").partition(".")
    return (period, int(seq)) if len(period) == 7 and seq.isascii() and seq.isdigit() and len(seq) < 18 else None


def _refuse(errors: tuple[FormError, ...]) -> None:
    if errors:
        details = tuple(Detail(f"/{error.field}", "VALIDATION_ERROR", error.text) for error in errors)
        raise InvalidInputError(errors[0].text, details=details)


# --- Periods, compare, export ----------------------------------------------------------------------------------------


@record.get("/c/<handle>/periods")
@tier(Surface.DETAIL)
def periods(handle: str) -> Response:
    """List all periods, the open one first."""
    seen = enter(handle, Surface.DETAIL)
    with runtime().db.read(seen.scope, snapshot=True) as connection:
        found = list_periods(connection, seen.scope, seen.customer_id)
        reach = [coverage(connection, seen.scope, [one]) for one in found]
        documents = reversed(list_receipts(connection, seen.scope, seen.customer_id))
        issued = {(one.start, one.end): one for one in documents}
    frame, zone = shell(seen, handle), seen.row.zone
    cells = fmt.amount_cells([one.total for one in found])
    rows = tuple(
        pages.PeriodRow(
            name=fmt.format_month(one.period),
            url=f"{frame.base}/periods/{one.period}",
            activity_url=f"{frame.base}/activity?{urlencode({'period': one.period})}",
            total=cell,
            records=fmt.format_count(one.size),
            noun=fmt.records_noun(one.size),
            verified_through=_through(one, covered, zone),
            receipt_url=f"/receipt/{issued[one.bounds].receipt_id}" if one.bounds in issued else "",
            in_progress=one.period == period_of(runtime().clock.now()),
        )
        for one, cell, covered in zip(found, cells, reach, strict=True)
    )
    unit = found[0].unit if found else seen.row.unit
    twins = twins_of(f"{frame.base}/periods")
    page = pages.Periods(frame, unit, rows, twins.json_url, twins.csv_url)
    return announce(runtime().renderer.render(page, theme_slug(seen)), twins)


@record.get("/c/<handle>/periods.json")
@tier(Surface.DETAIL)
def periods_json(handle: str) -> Response:
    """Return the same as data."""
    return twin(data.periods(data.Subject.of_visit(enter(handle, Surface.DETAIL))))


@record.get("/c/<handle>/periods.csv")
@tier(Surface.DETAIL)
def periods_csv(handle: str) -> Response:
    """Return the same as CSV."""
    found = data.periods(data.Subject.of_visit(enter(handle, Surface.DETAIL)))["periods"]
    columns = ("period", "state", "records", "amount", "unit", "verified_through", "receipt_id")
    return csv_table(
        columns,
        (
            (
                one["period"],
                one["state"],
                str(one["records"]),
                one["total"],
                csv_text(one["unit"]),
                one["verifiedThrough"],
                one["receiptId"],
            )
            for one in found
        ),
    )


def _through(period: Period, reach: Coverage, zone: str) -> str:
    if reach.through is None or period.pepoch is None:
        return _("No checkpoint yet")
    return fmt.format_date(min(reach.through, period.bounds[1] - timedelta(milliseconds=1)), zone, short=True)


@record.get("/c/<handle>/compare")
@tier(Surface.DETAIL)
def compare(handle: str) -> Response:
    """Set two periods side by side: the second minus the first."""
    seen = enter(handle, Surface.DETAIL)
    with runtime().db.read(seen.scope, snapshot=True) as connection:
        found = {one.period: one for one in list_periods(connection, seen.scope, seen.customer_id)}
    names = list(found)
    first = request.args.get("a") or (names[1] if len(names) > 1 else "")
    second = request.args.get("b") or (names[0] if names else "")
    errors = tuple(
        FormError(_("Choose one of the periods of this record."), field)
        for field, name in (("a", first), ("b", second))
        if name and name not in found
    )
    page = pages.Compare(
        shell=shell(seen, handle),
        first=tuple(Option(name, fmt.format_month(name), selected=name == first) for name in names),
        second=tuple(Option(name, fmt.format_month(name), selected=name == second) for name in names),
        unit=found[names[0]].unit if names else seen.row.unit,
        errors=errors,
        sheet=sheet(seen, f"/c/{handle.lower()}", runtime().clock.now()),
    )
    if len(names) < 2:
        page = replace(page, note="Compare opens when a second period exists.")
    elif not errors:
        page = _compared(page, found[first], found[second])
        tell(seen, COMPARE_RUN, first=first, second=second)
    return runtime().renderer.render(page, theme_slug(seen), 400 if errors else 200)


def _compared(page: pages.Compare, first: Period, second: Period) -> pages.Compare:
    difference = amounts.subtract(second.total, first.total)
    fraction = fmt.column_fraction([first.total, second.total, difference])
    current = period_of(runtime().clock.now())
    open_one = next((one for one in (first, second) if one.period == current), None)
    return replace(
        page,
        lines=tuple(
            pages.CompareRow(
                fmt.format_month(one.period),
                fmt.amount_cell(one.total, fraction),
                fmt.format_count(one.size),
                fmt.records_noun(one.size),
                f"{page.shell.base}/periods/{one.period}",
            )
            for one in (second, first)
        ),
        difference=pages.CompareRow(
            _("Difference (second minus first)"),
            fmt.amount_cell(difference, fraction, signed=True),
            fmt.format_amount(str(second.size - first.size), signed=True),
            fmt.records_noun(second.size - first.size),
        ),
        note=_("%(period)s is in progress.") % {"period": fmt.format_month(open_one.period)} if open_one else "",
    )


@record.get("/c/<handle>/verify")
@record.get("/c/<handle>/periods/<period>/verify")
@tier(Gatekeeper.NOBODY)
def verify(handle: str, period: str | None = None) -> Response:
    """Check in the browser: what this server shows now of a month, as far as the visit may see it, and any file."""
    seen = enter(handle, None)
    frame, current = shell(seen, handle), period_of(runtime().clock.now())
    checked = period or current
    if not is_month(checked):
        return problem_here(seen, handle, _("There is no such period here"), _("Choose a month such as 2026-11."))
    page = pages.Verify(
        shell=frame,
        files=pages.VerifierFiles(*map(static_url, ("verify.js", "check.js", "verify.py", "verify.html"))),
        texts=script_texts("verify.js", "check.js"),
        nonce=secrets.token_urlsafe(16),
        period=checked,
        figures_url=f"{frame.base}/periods/{checked}.json" if period else f"{frame.base}.json",
        month=fmt.format_month(checked) if period else "",
    )
    if seen.may_see(Surface.LANDING):
        with runtime().db.read(seen.scope) as connection:
            page = replace(page, log_url=log_url(connection, seen.scope))
    if seen.may_see(Surface.DETAIL):
        name = f"proof-{checked}.tlog-proof"
        proof_url = f"{frame.base}/proof.tlog-proof?{urlencode({'period': checked})}"
        page = replace(page, api_url=f"/api/v1{frame.base}", proof_url=proof_url, proof_name=name)
    else:
        here = f"{frame.base}/periods/{period}/verify" if period else f"{frame.base}/verify"
        page = replace(page, unlock_url=unlock_url(handle, here))
    return allow_scripts(runtime().renderer.render(page, theme_slug(seen)), page.nonce)


@record.get("/c/<handle>/proof.tlog-proof")
@tier(Surface.DETAIL)
def proof_file(handle: str) -> Response:
    """Return the proof file of a period's total, or of the sum of part of it, as the newest checkpoint covers it."""
    found = prove_asked(enter(handle, Surface.DETAIL))
    if found.proved is None:
        raise NotFoundError("There is nothing in this range, so there is no proof file.", code="PROOF_NOT_FOUND")
    response = Response(found.proved.text, content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="proof-{found.period.period}.tlog-proof"'
    return response


# --- Shared ----------------------------------------------------------------------------------------------------------


def _rows(
    found: tuple[Record, ...],
    zone: str,
    *,
    fraction: int | None = None,
    hide_amounts: bool = False,
    outer: bool = False,
    base: str = "",
) -> tuple[pages.RowView, ...]:
    width = fmt.column_fraction([row.amount for row in found]) if fraction is None else fraction
    return tuple(
        pages.RowView(
            record_id=row.record_id,
            recorded=fmt.row_moment(row.recorded_at, zone),
            state=row.state,
            amount=None if hide_amounts else fmt.amount_cell(row.amount, width),
            used=None if outer or row.occurred_at is None else fmt.row_moment(data.moment_of(row.occurred_at), zone),
            reference=None if outer else row.reference_id,
            reason=None if outer else row.reason,
            url=f"{base}/activity/{row.record_id}" if base else "",
        )
        for row in found
    )


def _query_string(**changes: str | None) -> str:
    arguments = {
        name: value for name, value in request.args.items() if name not in ("after", "before", *changes) and value
    }
    arguments.update({name: value for name, value in changes.items() if value})
    return f"?{urlencode(arguments)}" if arguments else ""


def _twin(base: str, suffix: str) -> str:
    return (
        f"{base}/activity.{suffix}{_query_string(after=request.args.get('after'), before=request.args.get('before'))}"
    )


def _turn(base: str, page: str = "activity", **position: str | None) -> str:
    if not any(position.values()):
        return ""
    return f"{base}/{page}{_query_string(**position)}"
