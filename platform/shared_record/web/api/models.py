"""The documents of the recording calls: what a delta may say, and what is answered.

Pure: parsed JSON in (see ``json_body``), ``ledger.intake`` types out. A mistake in the shape refuses the whole request;
an amount that cannot be recorded (zero, too long) refuses its delta alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from shared_record.clock import rfc3339
from shared_record.errors import Detail, InvalidInputError
from shared_record.ledger.amounts import canonical, parse_amount
from shared_record.ledger.entry import canonical_metadata
from shared_record.ledger.intake import Accepted, Delta, Rejected
from shared_record.ledger.records import DeltaStatus
from shared_record.web.api.json_body import Number, invalid, pointer
from shared_record.web.api.shapes import (
    Answer,
    Body,
    CustomerId,
    ExactText,
    Hash,
    JsonNumber,
    Moment,
    RecordId,
    ReferenceId,
    exact,
    mistake,
    read_document,
)

MAX_BATCH = 100
MAX_METADATA = 16 * 1024
MAX_AHEAD = timedelta(hours=1)
AMOUNT_SCHEMA = {
    "description": "An exact decimal, not zero: up to 20 digits before the point and 24 after it.",
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,24})?$"}],
    "examples": [-5],
}
METADATA_SCHEMA = {"anyOf": [{"type": "object"}, {"type": "null"}], "description": "At most 16 KiB in canonical form."}
MOMENT_SCHEMA = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
    "description": "When it was used: RFC 3339 with an offset, at most an hour ahead.",
}
STATES = {"recording": "QUEUED", "recorded": "PROCESSING", "verified": "VERIFIED"}


@dataclass(frozen=True, slots=True)
class Unrecordable:
    """A batch item of the right shape whose amount cannot be recorded."""

    customer_id: str
    rejected: Rejected


BatchItem = Delta | Unrecordable


def read_emit(document: object, now: datetime) -> Delta:
    """Return the delta that the body of an emit call states.

    ``now`` bounds ``occurredAt``. ``InvalidInputError`` lists every mistake; its code is ``AMOUNT_PRECISION`` if the
    only one is an amount with too many digits, else ``VALIDATION_ERROR``.
    """
    body, details = read_document(DeltaBody, document, now)
    # The amount is judged apart from the shape, but a caller wants to hear of both at once.
    rejected = _amount_problem(document) if body is None else body.delta.rejected
    if rejected:
        details.append(Detail("/delta", rejected.code, rejected.message))
    if body is None or details:
        raise invalid(details)
    return body.to_delta()


def read_batch(document: object, now: datetime) -> list[BatchItem]:
    """Return the items of a batch call in order; ``InvalidInputError`` if the shape of any is wrong."""
    batch, details = read_document(BatchBody, document, now)
    if batch is None:
        raise invalid(details)
    return [
        Unrecordable(body.customer_id, body.delta.rejected) if body.delta.rejected else body.to_delta()
        for body in batch.deltas
    ]


# --- Fields ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount in canonical form, or why there is none."""

    text: str = ""
    rejected: Rejected | None = None


def read_amount(value: object) -> Amount:
    """Read a ``delta``: a JSON number, or a string without exponent."""
    if not isinstance(value, Number | str):
        raise mistake("A delta is a number, or a decimal number in a string.")
    text = value.text if isinstance(value, Number) else value
    try:
        return Amount(canonical(parse_amount(text, json_number=isinstance(value, Number))))
    except InvalidInputError as error:
        # A JSON number always has the form of one, so what is wrong with it is its value.
        if error.code == "AMOUNT_PRECISION" or isinstance(value, Number) or _ZERO.fullmatch(text):
            return Amount(rejected=Rejected(error.code, error.message, "delta"))
        raise mistake(error.message) from None


_ZERO = re.compile(r"-?0(\.0+)?", re.ASCII)


def read_occurred_at(value: object, info: ValidationInfo) -> str | None:
    """Read an RFC 3339 time-stamp and return it in UTC, without trailing zeros in its fraction."""
    if value is None:
        return None
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise mistake("Write an RFC 3339 time with an offset, for example 2026-11-22T09:00:00.123Z.")
    day, clock, seconds, fraction, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        # A leap second has no place in datetime; it is put back below.
        local = datetime.fromisoformat(f"{day}T{clock}:{min(int(seconds), 59):02}")
        moment = local.replace(tzinfo=timezone(-offset if sign == "-" else offset)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise mistake("There is no such day or time.") from None
    if seconds == "60" and (moment.hour, moment.minute) != (23, 59):
        raise mistake("A leap second is 23:59:60 in UTC.")
    now: datetime = (info.context or {})["now"]
    if moment > now + MAX_AHEAD:
        raise mistake(f"This time is more than an hour ahead of now, {rfc3339(now)}.")
    digits = (fraction or "").rstrip("0")
    return f"{moment:%Y-%m-%dT%H:%M:}".rjust(17, "0") + seconds + (f".{digits}" if digits else "") + "Z"


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-5][0-9]|60)(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)


def read_metadata(value: object) -> str | None:
    """Read an object and return its canonical text, of at most 16 KiB."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise mistake("Metadata is a JSON object.")
    try:
        text = canonical_metadata(_plain(value, ""), "")
    except InvalidInputError as error:
        raise mistake(error.message, error.details) from None
    if len(text.encode()) > MAX_METADATA:
        raise mistake(f"Metadata has at most {MAX_METADATA} bytes in canonical form.")
    return text


def _plain(value: Any, place: str) -> Any:
    """Turn ``Number`` into int and Decimal, after a look at its length: converting a long one is slow."""
    if isinstance(value, Mapping):
        return {key: _plain(item, place + pointer([key])) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{place}/{index}") for index, item in enumerate(value)]
    if not isinstance(value, Number):
        return value
    match = _SHORT_NUMBER.fullmatch(value.text)
    if match is None:
        raise invalid([Detail(place, "VALIDATION_ERROR", "This number is too long; send it as a string.")])
    return Decimal(value.text) if match[1] else int(value.text)


_SHORT_NUMBER = re.compile(r"-?[0-9]{1,40}((?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,4})?)", re.ASCII)


class AdjustsBody(Body):
    """Which earlier delta this one corrects."""

    record_id: RecordId | None = None
    reference_id: ReferenceId | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> AdjustsBody:
        if (self.record_id is None) == (self.reference_id is None):
            raise mistake("Give exactly one of recordId and referenceId.")
        return self


class DeltaBody(Body):
    """The body of ``POST /api/v1/balance/delta``. An optional field that is null counts as absent."""

    customer_id: CustomerId
    delta: Annotated[Amount, PlainValidator(read_amount), WithJsonSchema(AMOUNT_SCHEMA)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    reference_id: ReferenceId | None = None
    metadata: Annotated[str | None, PlainValidator(read_metadata), WithJsonSchema(METADATA_SCHEMA)] = None
    adjusts: AdjustsBody | None = None
    occurred_at: Annotated[str | None, PlainValidator(read_occurred_at), WithJsonSchema(MOMENT_SCHEMA)] = None

    def to_delta(self) -> Delta:
        """Return what the ledger records; only for an amount that was not rejected."""
        return Delta(
            customer_id=self.customer_id,
            amount=self.delta.text,
            reason=self.reason,
            reference_id=self.reference_id,
            metadata=self.metadata,
            occurred_at=self.occurred_at,
            adjusts_record=self.adjusts.record_id if self.adjusts else None,
            adjusts_reference=self.adjusts.reference_id if self.adjusts else None,
        )


class BatchBody(Body):
    """The body of ``POST /api/v1/balance/delta/batch``."""

    deltas: Annotated[list[DeltaBody], Field(min_length=1, max_length=MAX_BATCH)]


def _amount_problem(document: object) -> Rejected | None:
    """Return what is wrong with the value of ``delta`` in a document of the wrong shape, if that can be told."""
    if not isinstance(document, Mapping) or "delta" not in document:
        return None
    try:
        return read_amount(document["delta"]).rejected
    except PydanticCustomError:
        return None  # it is among the mistakes in the shape


# --- Answers ---------------------------------------------------------------------------------------------------------


class Emitted(Answer):
    """One delta that is durable. ``receiptId`` is final."""

    record_id: RecordId
    receipt_id: Hash
    status: Literal["QUEUED"]
    customer_id: CustomerId
    delta: JsonNumber
    delta_exact: ExactText
    reference_id: ReferenceId | None = None
    created_at: Moment
    sequence_number: str


class BatchResult(Answer):
    """What became of one item: recorded (``QUEUED``), or ``FAILED`` with ``error``."""

    index: int
    customer_id: CustomerId
    status: Literal["QUEUED", "FAILED"]
    delta: JsonNumber | None = None
    delta_exact: ExactText | None = None
    record_id: RecordId | None = None
    receipt_id: Hash | None = None
    reference_id: ReferenceId | None = None
    created_at: Moment | None = None
    sequence_number: str | None = None
    idempotent: bool | None = None
    error: str | None = None
    message: str | None = None
    pointer: str | None = None


class BatchEmitted(Answer):
    """One result for each item of a batch, in order."""

    total_queued: int
    total_failed: int
    results: list[BatchResult]


class Proof(Answer):
    """The leaf hash of a delta under its names in the contract, and that of the delta before it."""

    content_hash: Hash
    item_hash: Hash
    proof_hash: Hash
    previous_proof_hash: Hash | None
    item_hashes: list[Hash]


class AdjustedRecord(Answer):
    """The earlier delta that one corrects."""

    record_id: RecordId


class Status(Answer):
    """One delta and how far it has come."""

    record_id: RecordId
    receipt_id: Hash
    status: Literal["QUEUED", "PROCESSING", "VERIFIED"]
    customer_id: CustomerId
    delta: JsonNumber
    delta_exact: ExactText
    reason: str | None = None
    reference_id: str | None = None
    metadata: dict[str, Any] | None = None
    adjusts: AdjustedRecord | None = None
    occurred_at: Moment | None = None
    created_at: Moment
    sequence_number: str
    verified_at: Moment | None
    proof: Proof
    data_purged: bool


def emitted(accepted: Accepted) -> dict[str, object]:
    """Return the answer to an emit call. It holds only what never changes, so that a replay gives the same bytes."""
    answer: dict[str, object] = {
        "recordId": accepted.record_id,
        "receiptId": accepted.receipt_id,
        "status": "QUEUED",
        "customerId": accepted.customer_id,
        **exact("delta", accepted.amount),
    }
    if accepted.reference_id is not None:
        answer["referenceId"] = accepted.reference_id
    return answer | {"createdAt": rfc3339(accepted.created_at), "sequenceNumber": str(accepted.sequence)}


def batch_answer(items: Sequence[BatchItem], outcomes: Iterable[Accepted | Rejected]) -> dict[str, object]:
    """Return the answer to a batch call; ``outcomes`` are those of the items that reached the ledger, in order."""
    remaining = iter(outcomes)
    results = []
    for index, item in enumerate(items):
        outcome = item.rejected if isinstance(item, Unrecordable) else next(remaining)
        results.append({"index": index} | _result(index, item, outcome))
    failed = sum(result["status"] == "FAILED" for result in results)
    return {"totalQueued": len(results) - failed, "totalFailed": failed, "results": results}


def _result(index: int, item: BatchItem, outcome: Accepted | Rejected) -> dict[str, object]:
    if isinstance(outcome, Accepted):
        return emitted(outcome) | ({"idempotent": True} if outcome.replayed else {})
    amount = {} if isinstance(item, Unrecordable) else exact("delta", item.amount)
    return {
        "customerId": item.customer_id,
        **amount,
        "status": "FAILED",
        "error": outcome.code,
        "message": outcome.message,
        "pointer": pointer(["deltas", index, *outcome.field.split(".")]),
    }


def status_answer(delta: DeltaStatus) -> dict[str, object]:
    """Return the answer to a status call. What was never sent, or was removed by retention, is left out."""
    optional = {
        "reason": delta.reason,
        "referenceId": delta.reference_id,
        "metadata": None if delta.metadata is None else orjson.Fragment(delta.metadata),
        "adjusts": None if delta.adjusts is None else {"recordId": delta.adjusts},
        "occurredAt": delta.occurred_at,
    }
    return {
        "recordId": delta.record_id,
        "receiptId": delta.receipt_id,
        "status": STATES[delta.state],
        "customerId": delta.customer_id,
        **exact("delta", delta.amount),
        **{name: value for name, value in optional.items() if value is not None},
        "createdAt": rfc3339(delta.created_at),
        "sequenceNumber": str(delta.sequence),
        "verifiedAt": rfc3339(delta.verified_at) if delta.verified_at else None,
        "proof": {
            "contentHash": delta.receipt_id,
            "itemHash": delta.receipt_id,
            "proofHash": delta.receipt_id,
            "previousProofHash": delta.previous_hash,
            "itemHashes": [delta.receipt_id],
        },
        "dataPurged": delta.purged,
    }
