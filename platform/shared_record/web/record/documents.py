"""Public documents by id: receipts ``chk_…`` and single deltas by their receipt id ``0x…``.

The id alone opens the outer tier: vendor, window, count, totals, root and checkpoint. Rows and proofs are inner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from flask import request
from sqlalchemy import Connection

from shared_record.access import sessions
from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.access.throttle import HANDLE_MISSES, network_of
from shared_record.db import lookup
from shared_record.db.lookup import ProofRow
from shared_record.errors import AccessDeniedError, NotFoundError
from shared_record.hosts.gate import client_address
from shared_record.languages import gettext as _
from shared_record.ledger.amounts import subtract
from shared_record.ledger.anchors import list_anchored
from shared_record.ledger.proofs import Published, covering_checkpoint, prove_delta, prove_record, write_receipt
from shared_record.ledger.receipts import Receipt, Span, find_receipt, is_covered, later_revision
from shared_record.ledger.records import Record, find_by_hash, recorded_between
from shared_record.plugin import RecordProof
from shared_record.web.record.language import speak_to_customer
from shared_record.web.record.visits import cookies, here
from shared_record.web.runtime import runtime

_HASH = re.compile(r"(?:0x)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)
_RECEIPT = re.compile(r"chk_[0-9a-hjkmnp-tv-z]{26}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chain:
    """One period's part of a proof: ``record_path`` is set where a single delta is proved."""

    proof: RecordProof
    record_index: int | None = None
    record_path: tuple[bytes, ...] = ()
    entry: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """What is known of one receipt or one delta, as of one snapshot. Totals are canonical decimals.

    ``chains`` is empty unless the visit may see details and a checkpoint covers it.
    """

    id: str
    seen: Visit
    start: datetime
    end: datetime
    size: int
    opening: str
    closing: str
    unit: str
    root: bytes
    first_at: datetime
    last_at: datetime
    issued_at: datetime
    covered: bool
    checkpoint: Published | None
    later_id: str | None
    chains: tuple[Chain, ...]
    record: Record | None
    spans: tuple[Span, ...]

    @property
    def has_proof_file(self) -> bool:
        """Whether there is a proof file for this visit: once a checkpoint covers all of it."""
        return bool(self.chains) and len(self.chains) == len(self.spans)

    @property
    def net(self) -> str:
        """The exact sum of its deltas."""
        return subtract(self.closing, self.opening)


def find_document(text: str, *, framed: bool = False) -> Document | None:
    """Return the document with this id (a receipt id, or a leaf hash or proof root with or without ``0x``).

    ``None`` for an id that is unknown here, also when it is known on another tenant's host. ``framed``: as somebody
    sees it who has not opened the record, whatever the browser sent.
    """
    parts = runtime()
    sent = {} if framed else cookies()
    found = _locate(text)
    if found is None:
        _count_miss()
        return None
    scope = found.scope
    with parts.db.read(scope, snapshot=True) as connection:
        if found.kind == "receipt":
            receipt = find_receipt(connection, scope, found.id)
            customer_id = receipt.customer_id if receipt else None
        else:
            delta = find_by_hash(connection, scope, _digest(text))
            customer_id = delta[0] if delta else None
    if customer_id is None:
        return None
    seen = sessions.look_at_customer(parts.db, parts.clock, here(), scope, customer_id, sent, secure=parts.secure)
    if seen is None:
        _count_miss()
        return None
    speak_to_customer(seen.row)
    with parts.db.read(scope, snapshot=True) as connection:
        if found.kind == "receipt" and receipt is not None:
            return _of_receipt(connection, seen, receipt)
        again = find_by_hash(connection, scope, _digest(text))
        return None if again is None else _of_delta(connection, seen, again[1])


def proof_file(found: Document) -> str:
    """Return the tlog-proof text of a document; ``NotFoundError`` where there is none."""
    parts = runtime()
    with parts.db.read(found.seen.scope, snapshot=True) as connection:
        text = write_receipt(connection, parts.keys, found.seen.scope, found.spans, window=found.record is None)
    if text is None:
        raise NotFoundError("There is no proof file for this, or not yet.", code="PROOF_NOT_FOUND")
    return text


def require(text: str, surface: Surface) -> Document:
    """Return the document if ``surface`` may be shown; else ``NotFoundError`` or ``AccessDeniedError`` (401)."""
    found = find_document(text)
    if found is None:
        raise NotFoundError("There is no such document here.", code="NOT_FOUND")
    if not found.seen.may_see(surface):
        raise AccessDeniedError(
            "This document opens after the record itself was opened: use the link on the invoice.",
            code="STEP_UP_REQUIRED",
            status=401,
        )
    return found


def _locate(text: str) -> ProofRow | None:
    db = runtime().db
    if _RECEIPT.fullmatch(text):
        return lookup.find_receipt(db, text)
    return lookup.find_proof(db, _digest(text)) if _HASH.fullmatch(text) else None


def _digest(text: str) -> bytes:
    match = _HASH.fullmatch(text)
    return bytes.fromhex(match[1]) if match else b""


def _count_miss() -> None:
    """Slow down whoever tries ids; the answer is the same with or without the wait."""
    wait = runtime().throttle.hit(HANDLE_MISSES, network_of(client_address(request.environ)))
    if wait is not None:
        raise AccessDeniedError(
            _("Many requests came from this connection. Try again later."), code="RATE_LIMITED", status=429
        )


def _of_receipt(connection: Connection, seen: Visit, found: Receipt) -> Document:
    scope = seen.scope
    covered = is_covered(connection, scope, found)
    later = later_revision(connection, scope, found)
    first, last = found.spans[0], found.spans[-1]
    first_at, _ = recorded_between(connection, scope, first.tree_id, first.first + 1, first.first + 1)
    _, last_at = recorded_between(connection, scope, last.tree_id, last.last, last.last)
    chains: tuple[Chain, ...] = ()
    if covered and seen.may_see(Surface.DETAIL):
        proofs = [prove_record(connection, runtime().keys, scope, one.tree_id) for one in found.spans]
        chains = tuple(
            Chain(replace(proof, anchors=list_anchored(connection, scope, proof)))
            for proof in proofs
            if proof is not None
        )
    return Document(
        id=found.receipt_id,
        seen=seen,
        start=found.start,
        end=found.end,
        size=found.size,
        opening=found.opening,
        closing=found.closing,
        unit=found.unit,
        root=found.proof_root,
        first_at=first_at,
        last_at=last_at,
        issued_at=found.issued_at,
        covered=covered,
        checkpoint=covering_checkpoint(connection, scope, last.tree_id),
        later_id=later.receipt_id if later else None,
        chains=chains,
        record=None,
        spans=found.spans,
    )


def _of_delta(connection: Connection, seen: Visit, found: Record) -> Document:
    scope, period = seen.scope, found.period
    covered = found.seq <= period.psize
    chains: tuple[Chain, ...] = ()
    if covered and seen.may_see(Surface.DETAIL):
        proved = prove_delta(connection, runtime().keys, scope, period.tree_id, found.seq)
        if proved is not None:
            chains = (Chain(proved[0], found.seq - 1, proved[1], found.entry),)
    start, end = period.bounds
    return Document(
        id=found.receipt_id,
        seen=seen,
        start=start,
        end=end,
        size=1,
        opening=subtract(found.running_total, found.amount),
        closing=found.running_total,
        unit=period.unit,
        root=bytes.fromhex(found.receipt_id[2:]),
        first_at=found.recorded_at,
        last_at=found.recorded_at,
        issued_at=found.recorded_at,
        covered=covered,
        checkpoint=covering_checkpoint(connection, scope, period.tree_id),
        later_id=None,
        chains=chains,
        record=found,
        spans=(Span(period.tree_id, period.period, found.seq - 1, found.seq),),
    )
