"""The receipts of a record, newest first."""

from __future__ import annotations

from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, request

from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.clock import rfc3339
from shared_record.ledger.receipts import Receipt, find_receipt, turn_receipts
from shared_record.plugin import csv_text
from shared_record.web.conditional import twin
from shared_record.web.record import format as fmt
from shared_record.web.record.detail_pages import ReceiptRow, ReceiptsPage
from shared_record.web.record.timeline import window_name
from shared_record.web.record.twins import announce, csv_table, twins_of
from shared_record.web.record.visits import enter, shell, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

receipt_list = Blueprint("receipt_list", __name__)

PAGE = 50
AFTER = "after"
_COLUMNS = (
    "receipt_id",
    "start",
    "end",
    "revision",
    "issued_at",
    "records",
    "amount",
    "unit",
    "later_exists",
)


@receipt_list.get("/c/<handle>/receipts")
@tier(Surface.DETAIL)
def show(handle: str) -> Response:
    """Show the receipts of this record."""
    seen = enter(handle, Surface.DETAIL)
    found, older = _read(seen)
    frame, zone = shell(seen, handle), seen.row.zone
    cells = fmt.amount_cells([one.net for one, _later in found])
    page = ReceiptsPage(
        shell=frame,
        unit=found[0][0].unit if found else seen.row.unit,
        rows=tuple(
            ReceiptRow(
                name=window_name(one.start, one.end),
                url=f"/receipt/{one.receipt_id}",
                issued=fmt.row_moment(one.issued_at, zone),
                records=fmt.format_count(one.size),
                noun=fmt.records_noun(one.size),
                total=cell,
                superseded=superseded,
            )
            for (one, superseded), cell in zip(found, cells, strict=True)
        ),
        zone=fmt.zone_name(zone, runtime().clock.now().astimezone(ZoneInfo(zone))),
        twins=twins_of(f"{frame.base}/receipts", AFTER),
        newest_url=f"{frame.base}/receipts" if request.args.get(AFTER) else "",
        older_url=_turn(f"{frame.base}/receipts", older),
    )
    return announce(runtime().renderer.render(page, theme_slug(seen)), page.twins)


@receipt_list.get("/c/<handle>/receipts.json")
@tier(Surface.DETAIL)
def show_json(handle: str) -> Response:
    """Return the same page of receipts as data."""
    found, older = _read(enter(handle, Surface.DETAIL))
    next_url = _turn(f"/c/{handle.lower()}/receipts.json", older)
    response = twin(
        {
            "receipts": [
                {
                    "receiptId": one.receipt_id,
                    "start": rfc3339(one.start),
                    "end": rfc3339(one.end),
                    "revision": one.revision,
                    "issuedAt": rfc3339(one.issued_at),
                    "records": one.size,
                    "total": one.net,
                    "unit": one.unit,
                    "laterExists": superseded,
                }
                for one, superseded in found
            ],
            "links": {"older": next_url} if next_url else {},
        }
    )
    if next_url:
        response.headers.add("Link", f'<{next_url}>; rel="next"')
    return response


@receipt_list.get("/c/<handle>/receipts.csv")
@tier(Surface.DETAIL)
def show_csv(handle: str) -> Response:
    """Return the same page of receipts as CSV."""
    found, older = _read(enter(handle, Surface.DETAIL))
    lines = [
        (
            one.receipt_id,
            rfc3339(one.start),
            rfc3339(one.end),
            str(one.revision),
            rfc3339(one.issued_at),
            str(one.size),
            one.net,
            csv_text(one.unit),
            "true" if superseded else "false",
        )
        for one, superseded in found
    ]
    return csv_table(_COLUMNS, lines, _turn(f"/c/{handle.lower()}/receipts.csv", older))


def _read(seen: Visit) -> tuple[list[tuple[Receipt, bool]], str]:
    """Return the page of receipts that is asked for, and the id to go on after; empty where these are the oldest."""
    asked = request.args.get(AFTER, "")
    with runtime().db.read(seen.scope, snapshot=True) as connection:
        after = find_receipt(connection, seen.scope, asked) if asked.isascii() and asked.isprintable() else None
        if after is not None and after.customer_id != seen.customer_id:
            after = None
        found = turn_receipts(connection, seen.scope, seen.customer_id, most=PAGE + 1, after=after)
    return found[:PAGE], found[PAGE - 1][0].receipt_id if len(found) > PAGE else ""


def _turn(path: str, older: str) -> str:
    return f"{path}?{urlencode({AFTER: older})}" if older else ""
