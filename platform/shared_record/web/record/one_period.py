"""The page of one period: its total and what that is made of, day by day and value by value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from shared_record.access.policy import Surface
from shared_record.clock import period_of
from shared_record.errors import NotFoundError
from shared_record.languages import gettext as _
from shared_record.languages import ngettext
from shared_record.ledger.amounts import Total
from shared_record.ledger.breakdowns import Breakdown, Part
from shared_record.ledger.fingerprint import fingerprint
from shared_record.ledger.records import Period
from shared_record.plugin import csv_text
from shared_record.web.conditional import twin
from shared_record.web.record import data, pages
from shared_record.web.record import format as fmt
from shared_record.web.record.chart import Chart, draw
from shared_record.web.record.data import PeriodFacts, Subject
from shared_record.web.record.detail_pages import FigureRow, FigureTable, PeriodPage
from shared_record.web.record.one_record import chain_rows, in_groups
from shared_record.web.record.sheet import sheet
from shared_record.web.record.twins import announce, csv_table, twins_of
from shared_record.web.record.visits import enter, problem_here, shell, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

one_period = Blueprint("one_period", __name__)

FIRST = 12
"""Values of a breakdown that are shown before the reader asks for all."""


@one_period.get("/c/<handle>/periods/<period>")
@tier(Surface.DETAIL)
def show(handle: str, period: str) -> Response:
    """Show one period, by its month or by the id of a receipt for it."""
    seen = enter(handle, Surface.DETAIL)
    try:
        found = data.look_at_period(Subject.of_visit(seen), period)
    except NotFoundError:
        return problem_here(seen, handle, _("There is no such period here"), _("Nothing is recorded in it."))
    frame = shell(seen, handle)
    page = replace(_page(frame, found, seen.row.zone), sheet=sheet(seen, frame.base, found.now))
    return announce(runtime().renderer.render(page, theme_slug(seen)), page.twins)


@one_period.get("/c/<handle>/periods/<period>.json")
@tier(Surface.DETAIL)
def show_json(handle: str, period: str) -> Response:
    """Return the same as data."""
    return twin(data.period(Subject.of_visit(enter(handle, Surface.DETAIL)), period))


@one_period.get("/c/<handle>/periods/<period>.csv")
@tier(Surface.DETAIL)
def show_csv(handle: str, period: str) -> Response:
    """Return days and values as CSV: one line each, which come to the period once by day and once by each key."""
    found = data.look_at_period(Subject.of_visit(enter(handle, Surface.DETAIL)), period)
    unit = csv_text(found.period.unit)
    lines = [("day", "", one.name, str(one.recorded.count), one.recorded.net, unit) for one in found.days]
    for one in found.breakdowns:
        rest = (("other", one.other), ("without", one.without))
        parts = [*(("value", part) for part in one.parts), *((kind, part) for kind, part in rest if part.count)]
        lines += [
            (kind, csv_text(one.key), csv_text(part.value), str(part.count), part.total, unit) for kind, part in parts
        ]
    return csv_table(("kind", "key", "value", "records", "amount", "unit"), lines)


# --- What the page says ----------------------------------------------------------------------------------------------


def _page(frame: pages.Shell, found: PeriodFacts, zone: str) -> PeriodPage:
    period, base = found.period, frame.base
    here = f"{base}/periods/{period.period}"
    month = urlencode({"period": period.period})
    through = found.coverage.through if period.pepoch is not None else None
    root = period.proot if period.psize else None
    return PeriodPage(
        shell=frame,
        heading=fmt.format_month(period.period),
        in_progress=period.period == period_of(found.now),
        total=pages.Total(fmt.format_total(period.total), period.unit),
        boundaries=fmt.format_boundaries(*period.bounds),
        as_of=fmt.moment(found.now, zone),
        records=fmt.format_records(period.size),
        activity_url=f"{base}/activity?{month}",
        export_url=f"{base}/export?{month}",
        verify_url=f"{here}/verify",
        compare_url=f"{base}/compare?{urlencode({'b': period.period})}",
        twins=twins_of(here),
        days=_days(found, base, zone),
        verified_through=fmt.day(min(through, period.bounds[1] - timedelta(milliseconds=1)), zone) if through else None,
        covered=fmt.format_records(period.psize),
        fingerprint=fingerprint(root) if root else "",
        root=root.hex() if root else "",
        root_groups=in_groups(root.hex()) if root else "",
        proof_url=f"{base}/proof.tlog-proof?{month}" if root else "",
        receipt_url=f"/receipt/{found.receipt.receipt_id}" if found.receipt else "",
        chart=_chart(found),
        breakdowns=tuple(_breakdown(one, found, base) for one in found.breakdowns),
        corrections=chain_rows(found.corrections, base, zone),
    )


def _days(found: PeriodFacts, base: str, zone: str) -> FigureTable:
    totals = [one.recorded.net for one in found.days]
    fraction = fmt.column_fraction([*totals, found.period.total])
    in_utc = {} if zone == "UTC" else {"zone": "UTC"}
    rows = [
        FigureRow(
            name=_day_name(one.name),
            records=fmt.format_count(one.recorded.count),
            noun=fmt.records_noun(one.recorded.count),
            total=fmt.amount_cell(one.recorded.net, fraction),
            url=_rows_of(base, found.period, {"from": one.name, "to": one.name, **in_utc}),
        )
        for one in found.days
    ]
    return FigureTable("", tuple(rows), _whole(found.period, fraction))


def _breakdown(one: Breakdown, found: PeriodFacts, base: str) -> FigureTable:
    """Return one breakdown. A value leads to its rows while their metadata is kept."""
    shown: Sequence[Part] = one.parts if request.args.get("all") == one.key else one.parts[:FIRST]
    fraction = fmt.column_fraction([*(part.total for part in shown), one.other.total, found.period.total])

    def row(part: Part, name: str, url: str = "") -> FigureRow:
        cell = fmt.amount_cell(part.total, fraction)
        return FigureRow(name, fmt.format_count(part.count), cell, url, fmt.records_noun(part.count))

    rows = []
    for part in shown:
        asked = {"dimension": f"{one.key}:{part.value}"}
        url = _rows_of(base, found.period, asked) if found.has_details else ""
        rows.append(row(part, part.value, url))
    hidden = one.parts[len(shown) :]
    more = ngettext("%(count)s further value", "%(count)s further values", len(hidden))
    if hidden:
        rows.append(row(_together(hidden), more % {"count": fmt.format_count(len(hidden))}))
    if one.other.count:
        rows.append(row(one.other, _("All other values")))
    if one.without.count:
        rows.append(row(one.without, _("Without a value")))
    query = urlencode({"all": one.key})
    return FigureTable(
        one.key,
        tuple(rows),
        _whole(found.period, fraction),
        more=_("Show all values") if hidden else "",
        more_url=f"{base}/periods/{found.period.period}?{query}" if hidden else "",
    )


def _together(parts: Sequence[Part]) -> Part:
    total = Total()
    for part in parts:
        total.add(part.total)
    return Part("", sum(part.count for part in parts), total.text)


def _whole(period: Period, fraction: int) -> FigureRow:
    cell = fmt.amount_cell(period.total, fraction)
    return FigureRow("", fmt.format_count(period.size), cell, noun=fmt.records_noun(period.size))


def _rows_of(base: str, period: Period, asked: dict[str, str]) -> str:
    return f"{base}/activity?{urlencode({'period': period.period, **asked})}"


def _chart(found: PeriodFacts) -> Chart | None:
    totals = {one.name: one.recorded.net for one in found.days}
    if len(totals) < 2:
        return None
    days = [day.isoformat() for day in _days_of(found.period)]
    unit, named = found.period.unit, {name: _day_name(name) for name in days}
    labels = {
        name: _("%(day)s: %(total)s") % {"day": named[name], "total": fmt.format_total(total)}
        for name, total in totals.items()
    }
    return draw(
        days,
        totals,
        labels,
        first=named[days[0]],
        last=named[days[-1]],
        title=_("Recorded by day, %(period)s") % {"period": fmt.format_month(found.period.period)},
        description=_("One bar for each day, in %(unit)s. The table below has the same figures.") % {"unit": unit},
    )


def _day_name(day: str) -> str:
    return fmt.format_date(datetime.combine(date.fromisoformat(day), time(), UTC), short=True)


def _days_of(period: Period) -> Iterator[date]:
    start, end = period.bounds
    day = start.date()
    while day < end.date():
        yield day
        day += timedelta(days=1)
