"""Receipt pages: ``/receipt/{id}`` for windows and single deltas, ``/verify/{root}`` for whatever a root stands for."""

from __future__ import annotations

from flask import Blueprint, Response

from shared_record.access.policy import Surface
from shared_record.clock import period_bounds, period_of
from shared_record.web.api.documents import receipt_data
from shared_record.web.api.envelope import success
from shared_record.web.record import format as fmt
from shared_record.web.record.documents import Document, find_document, proof_file, require
from shared_record.web.record.pages import Gated, ReceiptPage, Total
from shared_record.web.record.visits import document_shell, not_found, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

receipts = Blueprint("receipts", __name__)


@receipts.get("/receipt/<document_id>")
@tier(Surface.LANDING)
def receipt(document_id: str) -> Response:
    """Show a receipt; under GATED, whose it is and how it opens."""
    return _show(document_id)


@receipts.get("/verify/<root>")
@tier(Surface.LANDING)
def verify(root: str) -> Response:
    """Show what a proof root or receipt id stands for."""
    return _show(root)


@receipts.get("/receipt/<document_id>.json")
@tier(Surface.LANDING)
def receipt_json(document_id: str) -> Response:
    """Return the same as data."""
    return success(receipt_data(require(document_id, Surface.LANDING)))


@receipts.get("/receipt/<document_id>.tlog-proof")
@tier(Surface.DETAIL)
def receipt_proof(document_id: str) -> Response:
    """Return the proof file: C2SP tlog-proof, which `verify` and verify.py check offline."""
    found = require(document_id, Surface.DETAIL)
    response = Response(proof_file(found), content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.id[:20]}.tlog-proof"'
    return response


def _show(document_id: str) -> Response:
    found = find_document(document_id)
    if found is None:
        return not_found()
    frame, theme = document_shell(found.seen), theme_slug(found.seen)
    if not found.seen.may_see(Surface.LANDING):
        return runtime().renderer.render(Gated(frame), theme)
    return runtime().renderer.render(_page(found), theme)


def _page(found: Document) -> ReceiptPage:
    zone, delta = found.seen.row.zone, found.record
    hidden = delta is not None and found.seen.row.hide_amounts and found.seen.session is None
    signed = found.checkpoint if found.covered else None
    whole = delta is None and period_bounds(period_of(found.start)) == (found.start, found.end)
    heading = (
        "Receipt for one record"
        if delta is not None
        else f"Receipt for {fmt.format_month(period_of(found.start))}"
        if whole
        else "Receipt"
    )
    root = found.root.hex()
    return ReceiptPage(
        shell=document_shell(found.seen),
        id=found.id,
        heading=heading,
        label=f"Recorded on {fmt.format_moment(found.first_at, zone)}" if delta else "Recorded in this period",
        total=None if hidden else Total(fmt.format_total(found.net), found.unit),
        boundaries=fmt.format_boundaries(found.start, found.end),
        records=fmt.format_records(found.size),
        issued=fmt.moment(found.issued_at, zone),
        root=" ".join(root[i : i + 8] for i in range(0, 64, 8)),
        json_url=f"/receipt/{found.id}.json",
        checkpoint=fmt.moment(signed.created_at, zone) if signed else None,
        log_origin=signed.origin if signed else "",
        log_size=fmt.format_count(signed.size) if signed else "",
        later_url=f"/receipt/{found.later_id}" if found.later_id else "",
        proof_url=f"/receipt/{found.id}.tlog-proof" if found.has_proof_file else "",
    )
