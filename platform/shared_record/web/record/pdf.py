"""Receipts as PDF: the words of the receipt page, with the receipt's JSON attached."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response

from shared_record.exports.look import Look
from shared_record.exports.receipt_pdf import PaperReceipt, write_receipt_pdf
from shared_record.languages import gettext as _
from shared_record.ledger.fingerprint import fingerprint
from shared_record.web.record.documents import Document
from shared_record.web.record.receipt_page import receipt_page
from shared_record.web.record.visits import theme_slug
from shared_record.web.runtime import runtime


def receipt_pdf(found: Document, data: dict[str, Any]) -> Response:
    """Return the PDF of a document whose visitor may see details, with ``data`` attached as ``record.json``.

    ``UnavailableError`` where it cannot be made.
    """
    response = Response(write_receipt_pdf(_paper(found), orjson.dumps(data)), content_type="application/pdf")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.id[:30]}.pdf"'
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _paper(found: Document) -> PaperReceipt:
    page = receipt_page(found)
    customer = found.seen.row.display_name
    facts = [
        (_("Issued"), page.issued.text, False),
        (_("Receipt"), page.id, True),
        (_("Fingerprint"), fingerprint(found.root), True),
        (_("Proof root over %(records)s") % {"records": page.records}, page.root, True),
    ]
    if customer:
        facts.insert(0, (_("Customer"), customer, False))
    if page.log_origin:
        facts.append((_("Log and its size"), f"{page.log_origin} {page.log_size}", True))
    return PaperReceipt(
        vendor=found.seen.row.vendor,
        heading=page.heading,
        label=page.label,
        total=(page.total.text, page.total.unit) if page.total else None,
        boundaries=f"{page.boundaries}.",
        records=page.records,
        state=_("Covered by the checkpoint of %(moment)s.") % {"moment": page.checkpoint.text}
        if page.checkpoint
        else _("Recorded. The next checkpoint covers it."),
        facts=tuple(facts),
        url=_url(found, found.id),
        later=(found.later_id, _url(found, found.later_id)) if found.later_id else None,
        issued=found.issued_at,
        look=Look.of(runtime().themes[theme_slug(found.seen)]),
    )


def _url(found: Document, document_id: str) -> str:
    settings = runtime().settings
    return settings.url_for_host(found.seen.home_host or settings.platform_hosts[0], f"/receipt/{document_id}")
