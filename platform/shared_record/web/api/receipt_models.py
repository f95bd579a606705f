"""The queries and answers of receipts: the proof of an invoice, and the document itself, private and public."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from pydantic import AfterValidator, Field, RootModel

from shared_record.clock import rfc3339
from shared_record.ledger.entry import receipt_id
from shared_record.ledger.note import b64encode
from shared_record.ledger.proofs import Published
from shared_record.settings import Settings
from shared_record.web.api.reading import DeltaRow, Limit
from shared_record.web.api.shapes import (
    Answer,
    Count,
    CustomerId,
    ExactText,
    Hash,
    JsonNumber,
    Moment,
    Query,
    exact,
    mistake,
)
from shared_record.web.api.windows import AsOf, Interval, Pagination, ScopeAnswer, Scoped
from shared_record.web.record import format as fmt

# --- Queries ---------------------------------------------------------------------------------------------------------


def read_zone(text: str) -> str:
    """Read the name of a time zone as IANA has it."""
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise mistake("This is a time zone by its IANA name, such as Europe/Berlin.") from None
    return text


def read_locale(text: str) -> str:
    """Read a language tag (BCP 47) of a locale that is known here."""
    try:
        return str(Locale.parse(text.replace("_", "-"), sep="-")).replace("_", "-")
    except (ValueError, UnknownLocaleError):
        raise mistake("This is a language tag such as en or de-CH.") from None


class Shown(Query):
    """How a receipt document is to be written, and which of its rows."""

    customer_display_name: Literal["true", "false"] = "false"
    locale: Annotated[str, Field(max_length=35), AfterValidator(read_locale)] = "en"
    timezone: Annotated[str, Field(max_length=64), AfterValidator(read_zone)] = "UTC"
    unit: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    limit: Limit = 100
    offset: Count = 0


class PreviewQuery(Scoped, Shown):
    """Whose receipt for which window is to be previewed."""

    customer_id: CustomerId


class ProofQuery(Scoped, Query):
    """Which window, and which of its rows."""

    limit: Limit = 100
    offset: Count = 0


class ReceiptsQuery(Query):
    """A page of a customer's receipts."""

    limit: Limit = 25
    offset: Count = 0


# --- Answers ---------------------------------------------------------------------------------------------------------


class WindowSummary(Answer):
    """The part of a window in one period."""

    period: str
    delta_count: int
    deltas_count: int
    net_change: JsonNumber
    net_change_exact: ExactText


class ProofParts(Answer):
    """The leaf hashes of the rows shown, and where the root can be looked up."""

    item_hashes: list[Hash]
    verify_url: str | None


class InvoiceProof(Answer):
    """What a vendor prints with an invoice. ``accessHint`` is shown to keys with the scope ``code:reveal``."""

    customer_id: CustomerId
    period: str | None
    scope: ScopeAnswer
    receipt_id: str | None
    proof_root: Hash | None
    merkle_root: Hash | None
    latest_checkpoint: str | None
    status: Literal["QUEUED", "VERIFIED"]
    delta_count: int
    deltas_count: int
    starting_balance: JsonNumber
    starting_balance_exact: ExactText
    final_balance: JsonNumber
    final_balance_exact: ExactText
    net_change: JsonNumber
    net_change_exact: ExactText
    unit: str | None
    generated_at: Moment
    as_of: AsOf
    deltas: list[DeltaRow]
    pagination: Pagination
    window_summaries: list[WindowSummary]
    verification: ProofParts
    verify_url: str | None
    verification_api_url: str | None
    verification_explorer_url: str | None
    access_hint: str | None
    customer_link_url: str | None
    customer_link_host: str | None


class Vendor(Answer):
    """Who recorded it."""

    name: str


class RecordedBy(Answer):
    """The party that attests the record."""

    type: Literal["tenant"]
    id: str
    display_name: str


class DocumentPeriod(Answer):
    """The window of a document, half-open; ``label`` and, by locale, ``name`` where it is one whole month."""

    label: str | None
    name: str | None
    start_date: Moment
    end_date: Moment
    zone: Literal["UTC"]


class Summary(Answer):
    """Count and totals; amounts are left out where the vendor hides those of single records from strangers."""

    record_count: int
    first_record_at: Moment | None
    last_record_at: Moment | None
    net_change: JsonNumber | None = None
    net_change_exact: ExactText | None = None
    starting_balance: JsonNumber | None = None
    starting_balance_exact: ExactText | None = None
    ending_balance: JsonNumber | None = None
    ending_balance_exact: ExactText | None = None


class DocumentRow(DeltaRow):
    """One delta of a document; ``time`` is when it was recorded, in the zone asked for."""

    time: str


class SignedCheckpoint(Answer):
    """The newest published checkpoint of the log; ``note`` is the signed text itself."""

    origin: str
    size: int
    root: str
    published_at: Moment
    note: str


class DocumentProof(Answer):
    """The root over the document's ``size`` leaf hashes, and the checkpoint that covers them."""

    proof_root: Hash
    size: int
    verification_reference: Hash
    checkpoint: SignedCheckpoint | None


class DocumentLinks(Answer):
    """Where the document is shown and checked. ``permalink`` and ``pdf`` are null for a preview."""

    permalink: str | None
    pdf: str | None
    verify: str
    verify_api: str


class DocumentAnswer(Answer):
    """A receipt document. What belongs to the inner tier is null or empty for a caller who may not see it."""

    receipt_id: str | None
    preview: bool
    customer_id: CustomerId | None
    customer_display_name: str | None
    tenant: Vendor
    recorded_by: RecordedBy
    period: DocumentPeriod
    unit: str
    unit_label: str
    locale: str
    timezone: str
    summary: Summary
    state: Literal["recorded", "verified"]
    records: list[DocumentRow]
    pagination: Pagination
    verification: DocumentProof
    links: DocumentLinks
    generated_at: Moment
    later_receipt_id: str | None


class ReceiptItem(Answer):
    """One receipt of a customer."""

    receipt_id: str
    customer_id: CustomerId
    period: str | None
    scope: ScopeAnswer
    revision: int
    proof_root: Hash
    delta_count: int
    deltas_count: int
    net_change: JsonNumber
    net_change_exact: ExactText
    unit: str
    status: Literal["QUEUED", "VERIFIED"]
    generated_at: Moment
    permalink: str


class ReceiptItems(RootModel[list[ReceiptItem]]):
    """A customer's receipts, newest first."""


# --- Writing a document ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What a document states. ``customer_id`` and ``rows`` are those that the caller may see; ``total`` of rows is all.

    ``id`` is ``None`` for a preview. ``amounts``: whether they are shown.
    """

    id: str | None
    customer_id: str | None
    display_name: str | None
    vendor: str
    vendor_id: str
    start: datetime
    end: datetime
    unit: str
    size: int
    opening: str
    closing: str
    net: str
    amounts: bool
    first_at: datetime | None
    last_at: datetime | None
    root: bytes
    covered: bool
    checkpoint: Published | None
    issued_at: datetime
    later_id: str | None
    rows: list[dict[str, Any]]
    total: int
    host: str


def document_data(facts: Facts, shown: Shown, settings: Settings) -> dict[str, Any]:
    """Return a receipt document as JSON data: the same form on every surface."""
    label = Interval(facts.start, facts.end).period
    root = receipt_id(facts.root)
    return {
        "receiptId": facts.id,
        "preview": facts.id is None,
        "customerId": facts.customer_id,
        "customerDisplayName": facts.display_name if shown.customer_display_name == "true" else None,
        "tenant": {"name": facts.vendor},
        "recordedBy": {"type": "tenant", "id": facts.vendor_id, "displayName": facts.vendor},
        "period": {
            "label": label,
            "name": fmt.format_month(label, shown.locale) if label else None,
            "startDate": rfc3339(facts.start),
            "endDate": rfc3339(facts.end),
            "zone": "UTC",
        },
        "unit": facts.unit,
        "unitLabel": shown.unit or facts.unit,
        "locale": shown.locale,
        "timezone": shown.timezone,
        "summary": summary_data(facts),
        "state": "verified" if facts.covered else "recorded",
        "records": [row | {"time": _local(row["createdAt"], shown.timezone)} for row in facts.rows],
        "pagination": {"limit": shown.limit, "offset": shown.offset, "total": facts.total},
        "verification": {
            "proofRoot": root,
            "size": facts.size,
            "verificationReference": root,
            "checkpoint": checkpoint_note(facts),
        },
        "links": links_data(facts, settings),
        "generatedAt": rfc3339(facts.issued_at),
        "laterReceiptId": facts.later_id,
    }


def summary_data(facts: Facts) -> dict[str, Any]:
    """Return count, first and last moment and, where they are shown, the totals of a document."""
    data: dict[str, Any] = {
        "recordCount": facts.size,
        "firstRecordAt": rfc3339(facts.first_at) if facts.first_at else None,
        "lastRecordAt": rfc3339(facts.last_at) if facts.last_at else None,
    }
    if not facts.amounts:
        return data
    totals = {"netChange": facts.net, "startingBalance": facts.opening, "endingBalance": facts.closing}
    for name, amount in totals.items():
        data |= exact(name, amount)
    return data


def checkpoint_note(facts: Facts) -> dict[str, Any] | None:
    """Return the newest checkpoint, where it covers the document."""
    signed = facts.checkpoint
    if signed is None or not facts.covered:
        return None
    return {
        "origin": signed.origin,
        "size": signed.size,
        "root": b64encode(signed.root),
        "publishedAt": rfc3339(signed.created_at),
        "note": signed.note,
    }


def links_data(facts: Facts, settings: Settings) -> dict[str, str | None]:
    """Return where a document is shown and its root looked up."""
    root = receipt_id(facts.root)
    return {
        "permalink": settings.url_for_host(facts.host, f"/receipt/{facts.id}") if facts.id else None,
        "pdf": settings.url_for_host(facts.host, f"/receipt/{facts.id}.pdf") if facts.id else None,
        "verify": settings.url_for_host(facts.host, f"/verify/{root}"),
        "verifyApi": settings.url_for_host(facts.host, f"/api/v1/verify/{root}"),
    }


def _local(moment: str, zone: str) -> str:
    return datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)).isoformat(timespec="milliseconds")
