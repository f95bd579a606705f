"""Receipt pages: ``/receipt/{id}`` for windows and single deltas, ``/verify/{root}`` for whatever a root stands for."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, Response, request

from shared_record.access.policy import Surface
from shared_record.web.api.documents import receipt_data
from shared_record.web.conditional import twin
from shared_record.web.foreign import is_framed
from shared_record.web.headers import allow_framing
from shared_record.web.record.documents import find_document, proof_file, require
from shared_record.web.record.pages import Gated
from shared_record.web.record.pdf import receipt_pdf
from shared_record.web.record.receipt_page import receipt_page
from shared_record.web.record.visits import document_shell, not_found, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

receipts = Blueprint("receipts", __name__)


@receipts.get("/receipt/<document_id>")
@tier(Surface.LANDING)
def receipt(document_id: str) -> Response:
    """Show a receipt; under GATED, whose it is and how it opens.

    Sites that the tenant named may show it in a frame: what its id alone opens, never what a session does.
    """
    return _show(document_id, framed=is_framed(request), embeddable=True)


@receipts.get("/verify/<root>")
@tier(Surface.LANDING)
def verify(root: str) -> Response:
    """Show what a proof root or receipt id stands for."""
    return _show(root)


@receipts.get("/receipt/<document_id>.json")
@tier(Surface.LANDING)
def receipt_json(document_id: str) -> Response:
    """Return the same as data."""
    return twin(receipt_data(require(document_id, Surface.LANDING)))


@receipts.get("/receipt/<document_id>.pdf")
@tier(Surface.DETAIL)
def receipt_as_pdf(document_id: str) -> Response:
    """Return the receipt on paper, with the data attached."""
    found = require(document_id, Surface.DETAIL)
    return receipt_pdf(found, receipt_data(found))


@receipts.get("/receipt/<document_id>.tlog-proof")
@tier(Surface.DETAIL)
def receipt_proof(document_id: str) -> Response:
    """Return the proof file: C2SP tlog-proof, which `verify` and verify.py check offline."""
    found = require(document_id, Surface.DETAIL)
    response = Response(proof_file(found), content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.id[:20]}.tlog-proof"'
    return response


def _show(document_id: str, *, framed: bool = False, embeddable: bool = False) -> Response:
    found = find_document(document_id, framed=framed)
    if found is None:
        return not_found()
    frame, theme = document_shell(found.seen), theme_slug(found.seen)
    if not found.seen.may_see(Surface.LANDING):
        return runtime().renderer.render(Gated(frame), theme)
    response = runtime().renderer.render(replace(receipt_page(found), framed=framed), theme)
    if embeddable and found.seen.session is None:
        allow_framing(response, found.seen.row.embed_origins)
    return response
