"""The catalogue of webhook events, their ids and their bodies. Pure: nothing here reads a database or a clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from shared_record.clock import rfc3339
from shared_record.identifiers import ALPHABET, base32

DELTA_VERIFIED = "delta.verified"
DELTA_FAILED = "delta.failed"
CHECKPOINT_VERIFIED = "checkpoint.verified"
RECEIPT_GENERATED = "receipt.generated"
CUSTOMER_CREATED = "customer.created"
RECORD_VIEWED = "customer.shared_record_viewed"
EXPORT_DOWNLOADED = "customer.export_downloaded"
COMPARE_RUN = "customer.compare_run"
STEP_UP_FAILED = "customer.step_up_failed_repeatedly"
DOMAIN_ACTIVATED = "tenant_domain.activated"
CERTIFICATE_FAILED = "tenant_domain.cert_renewal_failed"

EVENTS: dict[str, str] = {
    DELTA_VERIFIED: "A delta is covered by a published checkpoint.",
    DELTA_FAILED: "A delta could not be verified. Durable deltas never fail: only test sends have this name.",
    CHECKPOINT_VERIFIED: "A published checkpoint covers every delta of a receipt document.",
    RECEIPT_GENERATED: "A receipt document can be shown and verified.",
    CUSTOMER_CREATED: "A customer exists, by its first delta or by a call.",
    RECORD_VIEWED: "A customer's record was opened: once per customer and day (UTC).",
    EXPORT_DOWNLOADED: "A file of a customer's record was downloaded.",
    COMPARE_RUN: "Two periods of a customer's record were compared.",
    STEP_UP_FAILED: "A customer's link got wrong answers to step-up again and again.",
    DOMAIN_ACTIVATED: "A branded host serves records.",
    CERTIFICATE_FAILED: "The certificate of a branded host could not be renewed.",
}
"""Name -> when it is sent."""

_SEQ_DIGITS = 8
_ID = re.compile(rf"(evt_[{ALPHABET}]{{26}})([{ALPHABET}]{{{_SEQ_DIGITS}}})?", re.ASCII)


def delivery_id(event_id: str, seq: int | None) -> str:
    """Return the id that receivers see: that of the event, or of one delta in a range, always the same."""
    return event_id if seq is None else event_id + base32(seq, _SEQ_DIGITS)


def split_id(text: str) -> tuple[str, int | None] | None:
    """Return the event and the position in its range that an id names, or ``None`` if it is no such id."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    seq = None
    for digit in match[2] or "":
        seq = (seq or 0) * 32 + ALPHABET.index(digit)
    return match[1], seq


def exact(name: str, amount: str) -> dict[str, Any]:
    """Return an amount (canonical text) as an exact JSON number literal and as a string twin ``<name>Exact``."""
    return {name: orjson.Fragment(amount), f"{name}Exact": amount}


def data_text(data: Mapping[str, Any]) -> str:
    """Return ``data`` as JSON text; it may hold what ``exact`` returns."""
    return orjson.dumps(data).decode()


def body(event_id: str, event: str, tenant_id: str, created_at: datetime, data: str) -> bytes:
    """Return what is posted: the same bytes at every attempt. ``data`` is JSON text, kept as it is."""
    moment = rfc3339(created_at)
    return orjson.dumps(
        {
            "id": event_id,
            "event": event,
            "tenantId": tenant_id,
            "createdAt": moment,
            "timestamp": moment,
            "data": orjson.Fragment(data),
        }
    )


@dataclass(frozen=True, slots=True)
class VerifiedDelta:
    """What ``delta.verified`` tells of one delta. Hashes are ``0x`` texts, amounts canonical texts.

    ``metadata`` is JSON text. ``period_count`` and ``period_total`` are the period's as of the checkpoint that covers
    the delta. Reason, reference and metadata are ``None`` once they are erased.
    """

    record_id: str
    receipt_id: str
    previous_hash: str | None
    customer_id: str
    amount: str
    sequence: int
    recorded_at: datetime
    verified_at: datetime
    period: str
    period_count: int
    period_total: str
    reason: str | None
    reference_id: str | None
    metadata: str | None


def delta_verified(delta: VerifiedDelta) -> str:
    """Return the data of ``delta.verified``: the flat form, with proof, verification, period and the nested delta."""
    latency = round((delta.verified_at - delta.recorded_at).total_seconds() * 1000)
    return data_text(
        {
            "recordId": delta.record_id,
            "receiptId": delta.receipt_id,
            "verificationReference": delta.receipt_id,
            "customerId": delta.customer_id,
            **exact("delta", delta.amount),
            "sequenceNumber": str(delta.sequence),
            "referenceId": delta.reference_id,
            "blockTimestamp": rfc3339(delta.verified_at),
            "status": "VERIFIED",
            "verifiedAt": rfc3339(delta.verified_at),
            "deltaDetail": {
                "customerId": delta.customer_id,
                **exact("amount", delta.amount),
                "reason": delta.reason,
                "referenceId": delta.reference_id,
                "metadata": None if delta.metadata is None else orjson.Fragment(delta.metadata),
                "submittedAt": rfc3339(delta.recorded_at),
            },
            "proof": {
                "proofHash": delta.receipt_id,
                "contentHash": delta.receipt_id,
                "itemHashes": [delta.receipt_id],
                "previousProofHash": delta.previous_hash,
            },
            "verification": {"verified": True, "latencyMs": max(0, latency), "discrepancies": []},
            "period": {
                "id": delta.period,
                "deltaCount": delta.period_count,
                **exact("netDelta", delta.period_total),
            },
            "usage": {
                "plan": "unmetered",
                "includedDeltas": None,
                "consumedDeltas": delta.period_count,
                "remainingDeltas": None,
                "overageRate": None,
            },
        }
    )


def sample(event: str, now: datetime) -> str:
    """Return data of ``event`` for a test send: the right shape about a customer that does not exist."""
    customer = {"customerId": "cust_sample", "test": True}
    document = {"checkpointId": f"chk_{'0' * 26}", "receiptId": f"chk_{'0' * 26}", "proofRoot": "0x" + "0" * 64}
    domain = {"host": "usage.vendor.example", "test": True}
    match event:
        case "delta.verified":
            detail = orjson.loads(delta_verified(_sample_delta(now)))
            return data_text({**detail, "test": True})
        case "delta.failed":
            return data_text(
                {
                    "recordId": f"rec_{'0' * 26}",
                    **customer,
                    **exact("delta", "-5"),
                    "error": "SAMPLE",
                    "failedAt": rfc3339(now),
                }
            )
        case "checkpoint.verified" | "receipt.generated":
            return data_text({**document, **customer, "verifiedAt": rfc3339(now)})
        case "tenant_domain.activated" | "tenant_domain.cert_renewal_failed":
            return data_text({**domain, "at": rfc3339(now)})
        case _:
            return data_text({**customer, "at": rfc3339(now)})


def _sample_delta(now: datetime) -> VerifiedDelta:
    return VerifiedDelta(
        record_id=f"rec_{'0' * 26}",
        receipt_id="0x" + "0" * 64,
        previous_hash=None,
        customer_id="cust_sample",
        amount="-5",
        sequence=1,
        recorded_at=now,
        verified_at=now,
        period=now.strftime("%Y-%m"),
        period_count=1,
        period_total="-5",
        reason="sample",
        reference_id="job-9",
        metadata=None,
    )
