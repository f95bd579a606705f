"""The page that matches a reader's own file with the recorded rows of a period; the browser does the matching."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from shared_record.access.policy import Surface
from shared_record.clock import period_of
from shared_record.languages import gettext as _
from shared_record.ledger.records import Period, list_periods
from shared_record.web.record import format as fmt
from shared_record.web.record.pages import Option, Shell
from shared_record.web.record.visits import enter, problem_here, shell, theme_slug
from shared_record.web.render import static_url
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

reconcile = Blueprint("reconcile", __name__)

_NOT_DIGITS = re.compile(r"[^0-9]+")


@dataclass(frozen=True, slots=True)
class Marks:
    """How the language writes numbers, for the script."""

    minus: str
    group: str
    point: str


@dataclass(frozen=True, slots=True)
class Reconcile:
    """What is recorded in a period, and where to drop a file. ``period`` is ``YYYY-MM``, empty where there is none.

    ``csv_url`` is the period's CSV export, empty where the tenant does not offer that format.
    """

    template: ClassVar[str] = "reconcile.html"

    shell: Shell
    script: str
    periods: tuple[Option, ...]
    period: str = ""
    name: str = ""
    recorded: str = ""
    marks: Marks = Marks("-", ",", ".")
    data_url: str = ""
    csv_url: str = ""
    csv_name: str = ""


@reconcile.get("/c/<handle>/reconcile")
@tier(Surface.DETAIL)
def show(handle: str) -> Response:
    """Let the reader choose a period and a file; the file stays in the browser."""
    seen = enter(handle, Surface.DETAIL)
    with runtime().db.read(seen.scope) as connection:
        found = list_periods(connection, seen.scope, seen.customer_id)
    asked = request.args.get("period") or (_current(found) if found else "")
    chosen = next((one for one in found if one.period == asked), None)
    if chosen is None and asked:
        return problem_here(seen, handle, _("There is no such period here"), _("Nothing is recorded in it."))
    page = _page(shell(seen, handle), found, chosen, offers_csv="csv" in seen.row.export_formats)
    return runtime().renderer.render(page, theme_slug(seen))


def _current(found: list[Period]) -> str:
    now = period_of(runtime().clock.now())
    return now if any(one.period == now for one in found) else found[0].period


def _page(frame: Shell, found: list[Period], chosen: Period | None, *, offers_csv: bool) -> Reconcile:
    script = static_url("reconcile.js")
    if chosen is None:
        return Reconcile(frame, script, ())
    period = {"period": chosen.period}
    total = _("%(amount)s %(unit)s") % {"amount": fmt.format_total(chosen.total), "unit": chosen.unit}
    return Reconcile(
        frame,
        script,
        tuple(Option(one.period, fmt.format_month(one.period), selected=one is chosen) for one in found),
        chosen.period,
        fmt.format_month(chosen.period),
        _("%(records)s, %(total)s") % {"records": fmt.format_records(chosen.size), "total": total},
        _marks(),
        f"{frame.base}/activity.json?{urlencode(period)}",
        f"{frame.base}/export/file?{urlencode(period | {'format': 'csv'})}" if offers_csv else "",
        f"usage-{chosen.period}.csv",
    )


def _marks() -> Marks:
    """Read the marks off a number: they are what is left of it without its digits."""
    minus, group, *_others, point = _NOT_DIGITS.findall(fmt.format_amount("-1234567.5"))
    return Marks(minus, group, point)
