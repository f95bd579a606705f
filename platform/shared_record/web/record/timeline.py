"""The timeline of a record: dated facts as sentences, each leading to what it is about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, request

from shared_record.access.policy import Surface
from shared_record.clock import period_bounds, period_of, rfc3339
from shared_record.languages import gettext as _
from shared_record.ledger.timeline import Fact
from shared_record.plugin import csv_text
from shared_record.web.conditional import twin
from shared_record.web.record import data
from shared_record.web.record import format as fmt
from shared_record.web.record.data import Subject
from shared_record.web.record.detail_pages import FactRow, TimelinePage
from shared_record.web.record.twins import announce, csv_table, twins_of
from shared_record.web.record.visits import enter, shell, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

timeline = Blueprint("timeline", __name__)

PAGE = 50
AFTER = "after"
_COLUMNS = ("at", "kind", "period", "record_id", "corrects", "receipt_id", "records", "amount", "unit")


@timeline.get("/c/<handle>/timeline")
@tier(Surface.DETAIL)
def show(handle: str) -> Response:
    """Show what happened when, newest first."""
    seen = enter(handle, Surface.DETAIL)
    after = request.args.get(AFTER)
    facts, older = data.find_facts(Subject.of_visit(seen), PAGE, after)
    frame, zone = shell(seen, handle), seen.row.zone
    page = TimelinePage(
        shell=frame,
        facts=tuple(
            FactRow(fmt.row_moment(one.at, zone), *_SENTENCES[one.kind](one, frame.base, seen.row.vendor))
            for one in facts
        ),
        zone=fmt.zone_name(zone, runtime().clock.now().astimezone(ZoneInfo(zone))),
        twins=twins_of(f"{frame.base}/timeline", AFTER),
        newest_url=f"{frame.base}/timeline" if after else "",
        older_url=_turn(f"{frame.base}/timeline", older),
    )
    return announce(runtime().renderer.render(page, theme_slug(seen)), page.twins)


@timeline.get("/c/<handle>/timeline.json")
@tier(Surface.DETAIL)
def show_json(handle: str) -> Response:
    """Return the same page of facts as data."""
    found = data.timeline(Subject.of_visit(enter(handle, Surface.DETAIL)), limit=PAGE, older=request.args.get(AFTER))
    older = _turn(f"/c/{handle.lower()}/timeline.json", found.pop("older"))
    response = twin(found | {"links": {"older": older} if older else {}})
    if older:
        response.headers.add("Link", f'<{older}>; rel="next"')
    return response


@timeline.get("/c/<handle>/timeline.csv")
@tier(Surface.DETAIL)
def show_csv(handle: str) -> Response:
    """Return the same page of facts as CSV."""
    seen = enter(handle, Surface.DETAIL)
    facts, older = data.find_facts(Subject.of_visit(seen), PAGE, request.args.get(AFTER))
    lines = []
    for one in facts:
        about = one.detail
        amount = about.get("amount") or about.get("total")
        subject = (about.get("recordId"), about.get("corrects"), about.get("receiptId"), about.get("records"))
        lines.append((rfc3339(one.at), one.kind, one.period, *subject, amount, csv_text(about.get("unit"))))
    return csv_table(_COLUMNS, lines, _turn(f"/c/{handle.lower()}/timeline.csv", older))


def _turn(path: str, older: str | None) -> str:
    return f"{path}?{urlencode({AFTER: older})}" if older else ""


# --- Wording ---------------------------------------------------------------------------------------------------------

Sentence = tuple[str, str]
"""What is said, and where it leads to (empty: nowhere)."""


def _opened(fact: Fact, base: str, _vendor: str) -> Sentence:
    text = _("%(period)s began with its first record.") % {"period": fmt.format_month(fact.period or "")}
    return text, f"{base}/periods/{fact.period}"


def _stated(fact: Fact, base: str, _vendor: str) -> Sentence:
    text = _("The newest checkpoint covers %(records)s of %(period)s, %(total)s.") % _figures(fact)
    return text, f"{base}/periods/{fact.period}"


def _closed(fact: Fact, base: str, _vendor: str) -> Sentence:
    text = _("%(period)s closed with %(records)s, %(total)s.") % _figures(fact)
    return text, f"{base}/periods/{fact.period}"


def _corrected(fact: Fact, base: str, _vendor: str) -> Sentence:
    amount = f"{fmt.format_total(fact.detail['amount'])} {fact.detail['unit']}"
    return _("Correction recorded: %(amount)s.") % {"amount": amount}, f"{base}/activity/{fact.detail['recordId']}"


def _issued(fact: Fact, _base: str, _vendor: str) -> Sentence:
    start, end = (datetime.fromisoformat(fact.detail[name]) for name in ("start", "end"))
    words = {"window": window_name(start, end)}
    is_first = fact.detail["revision"] == "1"
    text = _("Receipt issued for %(window)s.") if is_first else _("Later receipt issued for %(window)s.")
    return text % words, f"/receipt/{fact.detail['receiptId']}"


def _said(text: Callable[[], str]) -> Callable[[Fact, str, str], Sentence]:
    return lambda _fact, _base, vendor: (text() % {"vendor": vendor}, "")


def _figures(fact: Fact) -> dict[str, str]:
    return {
        "period": fmt.format_month(fact.period or ""),
        "records": fmt.format_records(int(fact.detail["records"])),
        "total": f"{fmt.format_total(fact.detail['total'])} {fact.detail['unit']}",
    }


def window_name(start: datetime, end: datetime) -> str:
    """Return what a window is called: a month by its name, any other by its first and last day."""
    month = period_of(start)
    return fmt.format_month(month) if period_bounds(month) == (start, end) else fmt.format_boundaries(start, end)


_SENTENCES: dict[str, Callable[[Fact, str, str], Sentence]] = {
    "period_opened": _opened,
    "checkpoint_published": _stated,
    "period_closed": _closed,
    "correction_recorded": _corrected,
    "receipt_issued": _issued,
    "link_revoked": _said(lambda: _("%(vendor)s turned the link off.")),
    "link_reissued": _said(lambda: _("%(vendor)s issued this link.")),
    "access_code_replaced": _said(lambda: _("%(vendor)s replaced the access code.")),
    "access_policy_changed": _said(lambda: _("%(vendor)s changed what opens without step-up.")),
    "domain_changed": _said(lambda: _("%(vendor)s moved this record to another address.")),
}
