"""Public JSON of documents: ``/api/v1/receipt/{id}`` and ``/api/v1/verify/{root}``."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from shared_record.access.policy import Surface
from shared_record.clock import rfc3339
from shared_record.errors import Detail
from shared_record.ledger.entry import receipt_id
from shared_record.ledger.note import b64encode
from shared_record.web.api.envelope import failure, success
from shared_record.web.api.json_body import invalid
from shared_record.web.api.shapes import exact
from shared_record.web.record.documents import Chain, Document, require
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

documents_api = Blueprint("documents_api", __name__, url_prefix="/api/v1")
documents_api.register_error_handler(Exception, failure)

SOURCES = ("db", "chain", "both")


@documents_api.get("/receipt/<document_id>")
@tier(Surface.LANDING)
def receipt(document_id: str) -> Response:
    """Return a receipt document; its rows are not public."""
    return success(receipt_data(require(document_id, Surface.LANDING)))


@documents_api.get("/verify/<root>")
@tier(Surface.LANDING)
def verify(root: str) -> Response:
    """Return what a leaf hash or root stands for, how it is covered and, where policy allows, the whole chain."""
    source = request.args.get("source", "db")
    if source not in SOURCES:
        raise invalid([Detail("/source", "VALIDATION_ERROR", "A source is db, chain or both.")])
    found = require(root, Surface.LANDING)
    response = success(_verification(found, source))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def receipt_data(found: Document) -> dict[str, Any]:
    """Return a receipt document as JSON data: what every surface shows of it."""
    seen, settings = found.seen, runtime().settings
    host = seen.home_host or settings.platform_hosts[0]
    data: dict[str, Any] = {
        "receiptId": found.id,
        "tenant": {"name": seen.row.vendor},
        "recordedBy": {"type": "tenant", "displayName": seen.row.vendor},
        "period": {"startDate": rfc3339(found.start), "endDate": rfc3339(found.end), "zone": "UTC"},
        "unit": found.unit,
        "summary": _summary(found),
        "state": "verified" if found.covered else "recorded",
        "verification": {
            "proofRoot": receipt_id(found.root),
            "size": found.size,
            "checkpoint": _checkpoint(found),
        },
        "links": {
            "permalink": settings.url_for_host(host, f"/receipt/{found.id}"),
            "verify": settings.url_for_host(host, f"/api/v1/verify/{receipt_id(found.root)}"),
        },
        "generatedAt": rfc3339(found.issued_at),
        "laterReceiptId": found.later_id,
    }
    if found.record is not None and seen.may_see(Surface.DETAIL):
        data["record"] = {
            "recordId": found.record.record_id,
            "reason": found.record.reason,
            "referenceId": found.record.reference_id,
            "recordedAt": rfc3339(found.record.recorded_at),
            "usedAt": found.record.occurred_at,
        }
    return data


def _summary(found: Document) -> dict[str, Any]:
    data: dict[str, Any] = {
        "recordCount": found.size,
        "firstRecordAt": rfc3339(found.first_at),
        "lastRecordAt": rfc3339(found.last_at),
    }
    if found.record is not None and found.seen.row.hide_amounts and found.seen.session is None:
        return data
    return (
        data
        | exact("netChange", found.net)
        | exact("startingBalance", found.opening)
        | exact("endingBalance", found.closing)
    )


def _verification(found: Document, source: str) -> dict[str, Any]:
    root = receipt_id(found.root)
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
    data: dict[str, Any] = {
        "verified": found.covered and not on_chain,
        "proofRoot": root,
        "recordedAt": rfc3339(found.last_at),
        "message": message,
        "summary": _summary(found),
        "records": [],
        "verification": {
            "verificationReference": root,
            "verificationExplorerUrl": receipt_data(found)["links"]["permalink"],
            "checkpoint": _checkpoint(found),
        },
    }
    if found.chains and not on_chain:
        data["proof"] = [_chain(one) for one in found.chains]
    return data


def _checkpoint(found: Document) -> dict[str, Any] | None:
    signed = found.checkpoint
    if signed is None or not found.covered:
        return None
    return {
        "origin": signed.origin,
        "size": signed.size,
        "root": b64encode(signed.root),
        "publishedAt": rfc3339(signed.created_at),
        "note": signed.note,
    }


def _chain(one: Chain) -> dict[str, Any]:
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
    return data
