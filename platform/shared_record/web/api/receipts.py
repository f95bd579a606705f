"""Receipts by API key: the proof of an invoice, and receipt documents stored or previewed."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection

from shared_record.access import links
from shared_record.access.apikeys import CODE_REVEAL, RECORD_READ
from shared_record.access.links import Link
from shared_record.clock import rfc3339
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.ledger.amounts import subtract
from shared_record.ledger.entry import receipt_id as hash_text
from shared_record.ledger.proofs import newest_checkpoint
from shared_record.ledger.receipts import (
    Receipt,
    find_owned_receipt,
    is_covered,
    issue_receipt,
    later_revision,
    list_covered,
    page_receipts,
    parts_of,
    preview_receipt,
)
from shared_record.ledger.records import recorded_between, total_at
from shared_record.ledger.windows import Part, measure, read_page
from shared_record.tenancy.tenants import public_id, read_tenant
from shared_record.web.api import receipt_models as models
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.reading import as_of, counted, known_customer, read_rows
from shared_record.web.api.shapes import exact
from shared_record.web.api.windows import ERRORS, Interval, scope_data

receipts_api = blueprint("receipts_api", "/api/v1/balance")

_RECEIPT = re.compile(r"chk_[0-9a-hjkmnp-tv-z]{26}", re.ASCII)
PROOF = Operation(
    "The proof of an invoice: figures, root and links of a window",
    answer=models.InvoiceProof,
    scope=RECORD_READ,
    query=models.ProofQuery,
    errors=(*ERRORS, "CUSTOMER_NOT_FOUND"),
)


@operation(receipts_api, "GET", "/receipt/<customer_id>", PROOF)
def receipt(call: Call, customer_id: str) -> dict[str, Any]:
    """Return what a vendor prints with the invoice for a window, and issue the receipt document behind it."""
    return _proof(call, customer_id)


@operation(receipts_api, "GET", "/invoice-proof/<customer_id>", PROOF)
def invoice_proof(call: Call, customer_id: str) -> dict[str, Any]:
    """Return the same as for ``receipt``."""
    return _proof(call, customer_id)


@operation(
    receipts_api,
    "GET",
    "/receipts/preview",
    Operation(
        "Preview a receipt document",
        answer=models.DocumentAnswer,
        scope=RECORD_READ,
        query=models.PreviewQuery,
        errors=(*ERRORS, "CUSTOMER_NOT_FOUND", "EMPTY_WINDOW"),
    ),
)
def preview(call: Call) -> dict[str, Any]:
    """Return the document that a checkpoint of a window would now make; nothing is stored."""
    query: models.PreviewQuery = call.query
    with call.app.db.read(call.scope, snapshot=True) as connection:
        who = known_customer(connection, call.scope, query.customer_id)
        scope: Interval = query.scope
        found = preview_receipt(connection, call.app.clock, call.scope, who, scope.start, scope.end)
        if found is None:
            raise NotFoundError("Nothing is recorded in this window, so it has no receipt.", code="EMPTY_WINDOW")
        return _document(connection, call, query.customer_id, found, query)


@operation(
    receipts_api,
    "GET",
    "/receipts/<receipt_id>",
    Operation(
        "One receipt document",
        answer=models.DocumentAnswer,
        scope=RECORD_READ,
        query=models.Shown,
        errors=("RECEIPT_NOT_FOUND",),
    ),
)
def document(call: Call, receipt_id: str) -> dict[str, Any]:
    """Return a receipt document with a page of its rows, oldest first."""
    with call.app.db.read(call.scope, snapshot=True) as connection:
        found = find_owned_receipt(connection, call.scope, receipt_id) if _RECEIPT.fullmatch(receipt_id) else None
        if found is None:
            raise NotFoundError("There is no such receipt.", code="RECEIPT_NOT_FOUND")
        return _document(connection, call, *found, call.query)


@operation(
    receipts_api,
    "GET",
    "/customers/<customer_id>/receipts",
    Operation(
        "List a customer's receipts",
        answer=models.ReceiptItems,
        scope=RECORD_READ,
        query=models.ReceiptsQuery,
        errors=("CUSTOMER_NOT_FOUND",),
    ),
)
def list_receipts(call: Call, customer_id: str) -> list[dict[str, Any]]:
    """Return the receipts of a customer, newest first."""
    query: models.ReceiptsQuery = call.query
    with call.app.db.read(call.scope, snapshot=True) as connection:
        who = known_customer(connection, call.scope, customer_id)
        host = _host(call, links.show_link(connection, call.app.keys, call.scope, customer_id))
        found, _ = page_receipts(connection, call.scope, customer_id=who, limit=query.limit, offset=query.offset)
        covered = {one.receipt_id for one in list_covered(connection, call.scope, [one for _, one in found])}
    return [_item(call, host, customer_id, one, covered=one.receipt_id in covered) for _, one in found]


def _item(call: Call, host: str, customer_id: str, one: Receipt, *, covered: bool) -> dict[str, Any]:
    scope = Interval(one.start, one.end)
    return {
        "receiptId": one.receipt_id,
        "customerId": customer_id,
        "period": scope.period,
        "scope": scope_data(scope),
        "revision": one.revision,
        "proofRoot": hash_text(one.proof_root),
        **counted(one.size),
        **exact("netChange", one.net),
        "unit": one.unit,
        "status": "VERIFIED" if covered else "QUEUED",
        "generatedAt": rfc3339(one.issued_at),
        "permalink": call.app.settings.url_for_host(host, f"/receipt/{one.receipt_id}"),
    }


# --- The proof of an invoice -----------------------------------------------------------------------------------------


def _proof(call: Call, customer_id: str) -> dict[str, Any]:
    query: models.ProofQuery = call.query
    scope: Interval = query.scope
    with call.app.db.write(call.scope) as connection:
        who = known_customer(connection, call.scope, customer_id)
        issued = issue_receipt(connection, call.app.clock, call.scope, who, scope.start, scope.end)
        window = measure(connection, call.scope, who, scope.start, scope.end)
        code = _code(connection, call, customer_id)
    with call.app.db.read(call.scope, snapshot=True) as connection:
        link = links.show_link(connection, call.app.keys, call.scope, customer_id)
        cut = as_of(connection, call.scope, window)
        parts = parts_of(connection, call.scope, who, issued.spans if issued else ())
        page = read_page(connection, call.scope, parts, limit=query.limit, offset=query.offset)
        rows = read_rows(connection, call.scope, page)
        covered = issued is None or is_covered(connection, call.scope, issued)
        summaries = [_summary(connection, call.scope, part) for part in parts]
    count = issued.size if issued else 0
    opening, closing = (issued.opening, issued.closing) if issued else (window.opening, window.opening)
    return {
        "customerId": customer_id,
        "period": scope.period,
        "scope": scope_data(scope),
        "latestCheckpoint": issued.receipt_id if issued else None,
        "status": "VERIFIED" if covered else "QUEUED",
        **counted(count),
        **exact("startingBalance", opening),
        **exact("finalBalance", closing),
        **exact("netChange", subtract(closing, opening)),
        "unit": issued.unit if issued else None,
        "generatedAt": rfc3339(issued.issued_at if issued else call.app.clock.now()),
        "asOf": cut,
        "deltas": rows,
        "pagination": {"limit": query.limit, "offset": query.offset, "total": count},
        "windowSummaries": summaries,
        **_urls(call, link, issued, [row["itemHash"] for row in rows]),
        "accessHint": code,
    }


def _code(connection: Connection, call: Call, customer_id: str) -> str | None:
    """Return the access code to a key that may see it; the audit trail tells of it."""
    if CODE_REVEAL not in call.key.scopes:
        return None
    actor = f"key:{call.key.public_id}"
    return links.reveal_code(connection, call.app.keys, call.app.clock, call.scope, customer_id, actor)


def _summary(connection: Connection, scope: Scope, part: Part) -> dict[str, Any]:
    before, after = (total_at(connection, scope, part.period, seq) for seq in (part.first, part.last))
    figures = {**counted(part.last - part.first), **exact("netChange", subtract(after, before))}
    return {"period": part.period.period, **figures}


def _urls(call: Call, link: Link, issued: Receipt | None, hashes: list[str]) -> dict[str, Any]:
    """Return ids and addresses. A person is sent to the record itself, once there is a link; else to the receipt."""
    url, host = call.app.settings.url_for_host, _host(call, link)
    root = hash_text(issued.proof_root) if issued else None
    record = url(host, link.path) if link.path else None
    person = record or (url(host, f"/receipt/{issued.receipt_id}") if issued else None)
    return {
        "receiptId": issued.receipt_id if issued else None,
        "proofRoot": root,
        "merkleRoot": root,
        "verification": {"itemHashes": hashes, "verifyUrl": person},
        "verifyUrl": person,
        "verificationApiUrl": url(host, f"/api/v1/verify/{root}") if root else None,
        "verificationExplorerUrl": url(host, f"/verify/{root}") if root else None,
        "customerLinkUrl": record,
        "customerLinkHost": host if record else None,
    }


def _host(call: Call, link: Link) -> str:
    return link.host or call.app.settings.platform_hosts[0]


# --- The document ----------------------------------------------------------------------------------------------------


def _document(
    connection: Connection, call: Call, customer_id: str, found: Receipt, shown: models.Shown
) -> dict[str, Any]:
    scope = call.scope
    link = links.show_link(connection, call.app.keys, scope, customer_id)
    first, last = found.spans[0], found.spans[-1]
    parts = parts_of(connection, scope, found.customer_id, found.spans)
    rows = read_rows(connection, scope, read_page(connection, scope, parts, limit=shown.limit, offset=shown.offset))
    later = later_revision(connection, scope, found) if found.receipt_id else None
    facts = models.Facts(
        id=found.receipt_id or None,
        customer_id=customer_id,
        display_name=link.display_name,
        vendor=read_tenant(connection, scope).name,
        vendor_id=public_id(connection, scope),
        start=found.start,
        end=found.end,
        unit=found.unit,
        size=found.size,
        opening=found.opening,
        closing=found.closing,
        net=found.net,
        amounts=True,
        first_at=recorded_between(connection, scope, first.tree_id, first.first + 1, first.first + 1)[0],
        last_at=recorded_between(connection, scope, last.tree_id, last.last, last.last)[1],
        root=found.proof_root,
        covered=is_covered(connection, scope, found),
        checkpoint=newest_checkpoint(connection, scope),
        issued_at=found.issued_at,
        later_id=later.receipt_id if later else None,
        rows=rows,
        total=found.size,
        host=_host(call, link),
    )
    return models.document_data(facts, shown, call.app.settings)
