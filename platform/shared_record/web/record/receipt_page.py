"""What a receipt says to a reader, on its page and on paper."""

from __future__ import annotations

from shared_record.access.policy import Surface
from shared_record.clock import period_bounds, period_of
from shared_record.languages import gettext as _
from shared_record.web.record import format as fmt
from shared_record.web.record.documents import Document
from shared_record.web.record.pages import ReceiptPage, Total
from shared_record.web.record.sheet import sheet
from shared_record.web.record.visits import document_shell
from shared_record.web.render import static_url
from shared_record.web.runtime import runtime


def receipt_page(found: Document) -> ReceiptPage:
    """Return the page of a document, as its visitor may see it."""
    zone, delta = found.seen.row.zone, found.record
    hidden = delta is not None and found.seen.row.hide_amounts and found.seen.session is None
    signed = found.checkpoint if found.covered else None
    whole = delta is None and period_bounds(period_of(found.start)) == (found.start, found.end)
    heading = (
        _("Receipt for one record")
        if delta is not None
        else _("Receipt for %(period)s") % {"period": fmt.format_month(period_of(found.start))}
        if whole
        else _("Receipt")
    )
    root = found.root.hex()
    return ReceiptPage(
        shell=document_shell(found.seen),
        id=found.id,
        heading=heading,
        label=_("Recorded on %(moment)s") % {"moment": fmt.format_moment(found.first_at, zone)}
        if delta
        else _("Recorded in this period"),
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
        verifier_url=static_url("verify.html") if found.has_proof_file else "",
        pdf_url=f"/receipt/{found.id}.pdf" if found.seen.may_see(Surface.DETAIL) else "",
        sheet=sheet(found.seen, f"/receipt/{found.id}", runtime().clock.now()),
    )
