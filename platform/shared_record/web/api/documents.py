"""Public JSON of documents: ``/api/v1/receipt/{id}`` and ``/api/v1/verify/{root}``."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from pydantic import RootModel

from shared_record.access.policy import Surface
from shared_record.clock import rfc3339
from shared_record.ledger.entry import receipt_id
from shared_record.ledger.note import b64encode
from shared_record.ledger.receipts import parts_of
from shared_record.ledger.windows import read_page
from shared_record.tenancy.tenants import public_id
from shared_record.web.api.envelope import success
from shared_record.web.api.operations import Operation, blueprint, checked, described
from shared_record.web.api.reading import read_rows
from shared_record.web.api.receipt_models import (
    DocumentAnswer,
    DocumentRow,
    Facts,
    Shown,
    SignedCheckpoint,
    Summary,
    checkpoint_note,
    document_data,
    links_data,
    summary_data,
)
from shared_record.web.api.shapes import Answer, Hash, Moment, Query
from shared_record.web.record.documents import Chain, Document, require
from shared_record.web.record.pdf import receipt_pdf
from shared_record.web.runtime import runtime

documents_api = blueprint("documents_api", "/api/v1")

_PLAIN = Shown()


class VerifyQuery(Query):
    """Where to look a root up: ``chain`` and ``both`` are answered, though no public ledger is behind this server."""

    source: Literal["db", "chain", "both"] = "db"


class VerifyLinks(Answer):
    """Where the root is shown, and the checkpoint that covers what it stands for."""

    verification_reference: Hash
    verification_explorer_url: str
    checkpoint: SignedCheckpoint | None


class Verification(Answer):
    """What a leaf hash or proof root stands for. ``proof`` is the whole chain, for callers who may see details."""

    verified: bool
    proof_root: Hash
    recorded_at: Moment
    message: str
    summary: Summary
    records: list[DocumentRow]
    verification: VerifyLinks
    proof: list[dict[str, Any]] | None = None


class ReceiptPdf(RootModel[str]):
    """The receipt on one page, PDF/A-3a; the document as data is attached as ``record.json``."""


RECEIPT = Operation("A public receipt document", answer=DocumentAnswer, tier=Surface.LANDING, query=Shown)
PDF = Operation(
    "A receipt document as PDF",
    answer=ReceiptPdf,
    tier=Surface.DETAIL,
    errors=("PDF_UNAVAILABLE",),
    media_type="application/pdf",
)
VERIFY = Operation("Look up a root", answer=Verification, tier=Surface.LANDING, query=VerifyQuery)


@documents_api.get("/receipt/<document_id>")
@described(RECEIPT)
def receipt(document_id: str) -> Response:
    """Return a receipt document; its rows are there for callers who may see the inner tier."""
    shown, _ = checked(RECEIPT, runtime().clock.now())
    return success(receipt_data(require(document_id, Surface.LANDING), shown))


@documents_api.get("/receipt/<document_id>.pdf")
@described(PDF)
def receipt_as_pdf(document_id: str) -> Response:
    """Return a receipt document as PDF to callers who may see the inner tier."""
    checked(PDF, runtime().clock.now())
    found = require(document_id, Surface.DETAIL)
    return receipt_pdf(found, receipt_data(found))


@documents_api.get("/verify/<root>")
@described(VERIFY)
def verify(root: str) -> Response:
    """Return what a leaf hash, proof root or receipt id stands for, how it is covered and, by policy, its proof."""
    query, _ = checked(VERIFY, runtime().clock.now())
    response = success(_verification(require(root, Surface.LANDING), query.source))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def receipt_data(found: Document, shown: Shown = _PLAIN) -> dict[str, Any]:
    """Return a receipt document as JSON data: what every surface shows of it, by what its visitor may see."""
    return document_data(_facts(found, shown), shown, runtime().settings)


def _facts(found: Document, shown: Shown | None = None) -> Facts:
    """Return what ``found`` states, with rows only if ``shown`` says which."""
    seen, parts = found.seen, runtime()
    inner = seen.may_see(Surface.DETAIL)
    with parts.db.read(seen.scope, snapshot=True) as connection:
        vendor_id = public_id(connection, seen.scope)
        rows: list[dict[str, Any]] = []
        if inner and shown is not None:
            spans = parts_of(connection, seen.scope, seen.customer_id, found.spans)
            page = read_page(connection, seen.scope, spans, limit=shown.limit, offset=shown.offset)
            rows = read_rows(connection, seen.scope, page)
    return Facts(
        id=found.id,
        customer_id=seen.row.external_id if inner else None,
        display_name=seen.row.display_name if inner else None,
        vendor=seen.row.vendor,
        vendor_id=vendor_id,
        start=found.start,
        end=found.end,
        unit=found.unit,
        size=found.size,
        opening=found.opening,
        closing=found.closing,
        net=found.net,
        amounts=found.record is None or not seen.row.hide_amounts or seen.session is not None,
        first_at=found.first_at,
        last_at=found.last_at,
        root=found.root,
        covered=found.covered,
        checkpoint=found.checkpoint,
        issued_at=found.issued_at,
        later_id=found.later_id,
        rows=rows,
        total=found.size if inner else 0,
        host=seen.home_host or parts.settings.platform_hosts[0],
    )


def _verification(found: Document, source: str) -> dict[str, Any]:
    facts = _facts(found)
    on_chain = source == "chain"
    message = (
        "There is no public ledger behind this service; ask with source=db."
        if on_chain
        else "Covered by a published checkpoint."
        if found.covered
        else "Recorded; the next checkpoint covers it."
    )
    if source == "both":
        message += " There is no public ledger behind this service; this is the answer of source=db."
    root = receipt_id(found.root)
    data: dict[str, Any] = {
        "verified": found.covered and not on_chain,
        "proofRoot": root,
        "recordedAt": rfc3339(found.last_at),
        "message": message,
        "summary": summary_data(facts),
        "records": [],
        "verification": {
            "verificationReference": root,
            "verificationExplorerUrl": links_data(facts, runtime().settings)["verify"],
            "checkpoint": checkpoint_note(facts),
        },
    }
    if found.chains and not on_chain:
        data["proof"] = [chain_data(one) for one in found.chains]
    return data


def chain_data(one: Chain) -> dict[str, Any]:
    """Return everything between one period's record (or one delta in it) and the signed checkpoint."""
    proof = one.proof
    data: dict[str, Any] = {
        "record": {"size": proof.size, "root": b64encode(proof.root)},
        "head": proof.head,
        "slot": {"index": proof.slot_index, "size": proof.slot_count, "path": [b64encode(h) for h in proof.slot_path]},
        "epoch": proof.epoch,
        "log": {"index": proof.log_index, "size": proof.log_size, "path": [b64encode(h) for h in proof.log_path]},
        "checkpoint": proof.checkpoint,
    }
    if one.record_index is not None:
        data["entry"] = one.entry
        data["record"] |= {"index": one.record_index, "path": [b64encode(h) for h in one.record_path]}
    if proof.anchors:
        data["anchors"] = [
            {"kind": a.kind, "at": rfc3339(a.at), "size": a.size, "note": a.note, "proof": b64encode(a.proof)}
            for a in proof.anchors
        ]
    return data
