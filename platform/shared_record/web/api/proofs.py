"""Proofs of a record as JSON data. ``tlogProof`` is the document that verifiers read; the rest repeats it readably."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from shared_record.clock import Clock, rfc3339
from shared_record.ledger.note import b64encode
from shared_record.ledger.proofs import ProvenSpan
from shared_record.ledger.ranges import Consistency, RecordConsistency
from shared_record.ledger.records import Period
from shared_record.web.api.documents import chain_data
from shared_record.web.api.shapes import Answer as Shape
from shared_record.web.api.shapes import ExactText, Moment, PeriodName
from shared_record.web.record.documents import Chain
from shared_record.web.record.proofs import Answer, Older


class ProvenWindow(Shape):
    """The part of a period that is proved: the deltas after ``from`` up to ``to``."""

    from_: Annotated[int, Field(alias="from")]
    to: int
    count: int
    total: ExactText
    opening: ExactText | None
    closing: ExactText | None
    root: str | None
    first_record_at: Moment | None
    last_record_at: Moment | None


class ProofCut(Shape):
    """The cut at which a proof was made."""

    time: Moment
    size: int
    psize: int
    total: ExactText
    checkpoint: int | None


class ProvenTotal(Shape):
    """Count and total of a period or part of it; ``tlogProof`` is the document that verifiers read."""

    format: Literal["shared-record/proof@v1"]
    period: PeriodName
    record: str
    unit: str
    as_of: ProofCut
    window: ProvenWindow
    proof: dict[str, Any] | None
    tlog_proof: str | None


class TreeState(Shape):
    """A tree at one size."""

    size: int
    root: str
    receipt_id: str | None = None


class RecordExtends(Shape):
    """That a record extends an older state of itself (RFC 6962, section 2.1.2)."""

    format: Literal["shared-record/record-consistency@v1"]
    period: PeriodName
    record: str
    from_: Annotated[TreeState, Field(alias="from")]
    to: TreeState
    proof: list[str]
    tlog_proof: str


PROOF = "shared-record/proof@v1"
RECORD_CONSISTENCY = "shared-record/record-consistency@v1"
LOG_CONSISTENCY = "shared-record/log-consistency@v1"


def proof_data(found: Answer, clock: Clock) -> dict[str, Any]:
    """Return count, total and chain of one part of a period."""
    period, proved = found.period, found.proved
    return {
        "format": PROOF,
        "period": period.period,
        "record": period.tree_id,
        "unit": period.unit,
        "asOf": {
            "time": rfc3339(clock.now()),
            "size": period.size,
            "psize": period.psize,
            "total": period.total,
            "checkpoint": found.checkpoint,
        },
        "window": _window(found),
        "proof": None if proved is None else chain_data(_chain(proved)),
        "tlogProof": None if proved is None else proved.text,
    }


def record_consistency_data(period: Period, older: Older, found: RecordConsistency) -> dict[str, Any]:
    """Return that one record extends an older state of itself, and the proof of what it is now."""
    data: dict[str, Any] = {"format": RECORD_CONSISTENCY, "period": period.period, "record": period.tree_id}
    data |= consistency_data(found.tree)
    data["from"]["receiptId"] = older.receipt_id
    return data | {"tlogProof": found.proved.text}


def consistency_data(tree: Consistency) -> dict[str, Any]:
    """Return both states of a tree and the hashes between them (RFC 6962, section 2.1.2)."""
    return {
        "from": {"size": tree.old.size, "root": b64encode(tree.old.root)},
        "to": {"size": tree.new.size, "root": b64encode(tree.new.root)},
        "proof": [b64encode(node) for node in tree.path],
    }


def _window(found: Answer) -> dict[str, Any]:
    window = found.proved.window if found.proved else None
    return {
        "from": found.span.first,
        "to": found.span.last,
        "count": found.span.last - found.span.first,
        "total": found.proved.total if found.proved else "0",
        "opening": window.opening if window else None,
        "closing": window.closing if window else None,
        "root": b64encode(window.root) if window and window.root else None,
        "firstRecordAt": rfc3339(found.between[0]) if found.between else None,
        "lastRecordAt": rfc3339(found.between[1]) if found.between else None,
    }


def _chain(proved: ProvenSpan) -> Chain:
    last = proved.receipt.entry
    return Chain(proved.proof, last.index, last.path, last.text)
