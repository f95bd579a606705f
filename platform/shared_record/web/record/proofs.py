"""From a query to a proof: which part of which period is meant, and what the newest checkpoint says of it."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from datetime import datetime

from flask import request
from sqlalchemy import Connection

from shared_record.access.sessions import Visit
from shared_record.clock import is_month, period_of
from shared_record.db import lookup
from shared_record.errors import ConflictError, Detail, InvalidInputError, NotFoundError
from shared_record.ledger.merkle import HASH_SIZE
from shared_record.ledger.note import b64decode
from shared_record.ledger.proofs import ProvenSpan, newest_checkpoint, prove_span
from shared_record.ledger.ranges import RecordConsistency, prove_record_consistency, whole_span
from shared_record.ledger.receipts import Receipt, Span, find_receipt
from shared_record.ledger.records import Filter, Period, find_by_hash, find_period, recorded_between, span
from shared_record.web.runtime import runtime

_COUNT = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9:]{5})", re.A
)
_HASH = re.compile(r"0[xX]([0-9a-fA-F]{64})", re.ASCII)
_RECEIPT = re.compile(r"chk_[0-9a-hjkmnp-tv-z]{26}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """A part of a period with its proof; ``proved`` is ``None`` for a part without any delta."""

    period: Period
    span: Span
    proved: ProvenSpan | None
    between: tuple[datetime, datetime] | None
    checkpoint: int | None


@dataclass(frozen=True, slots=True)
class Older:
    """A record as somebody saw it: its size, and its root where that is known. ``receipt_id``: from which document."""

    size: int
    root: bytes | None
    receipt_id: str | None = None


def prove_asked(seen: Visit) -> Answer:
    """Prove the part of a period that the request names by ``period``, ``from`` and ``to``."""
    parts = runtime()
    with parts.db.read(seen.scope, snapshot=True) as connection:
        period = _period(connection, seen, request.args.get("period"))
        part = _part(connection, seen, period)
        newest = newest_checkpoint(connection, seen.scope)
        size = newest.size if newest else None
        if part.first == part.last and period.psize:
            return Answer(period, part, None, None, size)
        proved = prove_span(connection, parts.keys, seen.scope, part) if part.last else None
        if proved is None:
            raise _not_proved(period)
        between = recorded_between(connection, seen.scope, part.tree_id, part.first + 1, part.last)
    return Answer(period, part, proved, between, size)


def prove_since(seen: Visit) -> tuple[Period, Older, RecordConsistency]:
    """Prove that the record, as the newest checkpoint covers it, extends what ``from`` and ``root`` name."""
    parts = runtime()
    text, stated = request.args.get("from", ""), _root(request.args.get("root"))
    with parts.db.read(seen.scope, snapshot=True) as connection:
        name, older = _older(connection, seen, text)
        period = _period(connection, seen, name)
        if not period.psize:
            raise _not_proved(period)
        if older.size > period.psize:
            raise ConflictError(
                f"The newest checkpoint covers {period.psize} rows of this record, fewer than {older.size}.",
                code="RECORD_IS_SMALLER",
            )
        found = prove_record_consistency(connection, parts.keys, seen.scope, period, older.size)
    if found is None:
        raise _not_proved(period)
    for root in (stated, older.root):
        if root is not None and root != found.tree.old.root:
            raise ConflictError(
                f"The first {older.size} rows of this record have another root here than the one given.",
                code="ROOT_DIFFERS",
            )
    return period, older, found


def _period(connection: Connection, seen: Visit, asked: str | None) -> Period:
    name = asked or period_of(runtime().clock.now())
    if not is_month(name):
        raise _invalid("period", "Name a month such as 2026-11.")
    found = find_period(connection, seen.scope, seen.customer_id, name)
    if found is None:
        raise NotFoundError(f"Nothing is recorded in {name}.", code="PERIOD_NOT_FOUND")
    return found


def _part(connection: Connection, seen: Visit, period: Period) -> Span:
    """Return the rows meant: two counts of rows, or two moments; whichever is not given is an end of the proof."""
    texts = {name: request.args.get(name, "") for name in ("from", "to")}
    if not any(texts.values()):
        return whole_span(period)
    kinds = {_COUNT.fullmatch(text) is not None for text in texts.values() if text}
    if len(kinds) != 1:
        raise _invalid("to", "Give `from` and `to` in one form: two counts of rows, or two moments.")
    if kinds == {True}:
        first, last = int(texts["from"] or 0), int(texts["to"] or period.psize)
        if last > period.size:
            raise _invalid("to", f"There are {period.size} rows in this period.")
    else:
        since, until = (_moment(name, text) if text else None for name, text in texts.items())
        if since is not None and until is not None and since > until:
            raise _invalid("from", "The range ends before it starts.")
        first, last = span(connection, seen.scope, period, Filter(since=since, until=until))
        last = max(first, last) if until is not None else max(first, min(last, period.psize))
    if first > last:
        raise _invalid("from", "The range ends before it starts.")
    return Span(period.tree_id, period.period, first, last)


def _moment(name: str, text: str) -> datetime:
    if _MOMENT.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise _invalid(name, "Give a count of rows, or a moment such as 2026-11-22T00:00:00Z.")


def _older(connection: Connection, seen: Visit, text: str) -> tuple[str | None, Older]:
    """Return the period and the older state that ``from`` names: a count of rows, or the id of a receipt."""
    period = request.args.get("period") or None
    if _COUNT.fullmatch(text) and text != "0":
        return period, Older(int(text), None)
    if not _RECEIPT.fullmatch(text) and not _HASH.fullmatch(text):
        raise _invalid("from", "Give a count of rows above 0, or the id of a receipt: chk_… or 0x….")
    found = _of_document(connection, seen, text, period)
    if found is None:
        raise NotFoundError("There is no such receipt for this record.")
    return found


def _of_document(connection: Connection, seen: Visit, text: str, period: str | None) -> tuple[str, Older] | None:
    digest = _HASH.fullmatch(text)
    if digest is not None:
        delta = find_by_hash(connection, seen.scope, bytes.fromhex(digest[1]))
        if delta is not None:
            customer_id, record = delta
            mine = customer_id == seen.customer_id and period in (None, record.period.period)
            return (record.period.period, Older(record.seq, None, record.receipt_id)) if mine else None
    receipt = _receipt(connection, seen, text, digest)
    if receipt is None:
        return None
    part = next((one for one in reversed(receipt.spans) if period in (None, one.period)), None)
    if part is None:
        return None
    whole = part.first == 0 and len(receipt.spans) == 1
    return part.period, Older(part.last, receipt.proof_root if whole else None, receipt.receipt_id)


def _receipt(connection: Connection, seen: Visit, text: str, digest: re.Match[str] | None) -> Receipt | None:
    receipt_id = text
    if digest is not None:
        place = lookup.find_proof(runtime().db, bytes.fromhex(digest[1]))
        if place is None or place.kind != "receipt":
            return None
        receipt_id = place.id
    found = find_receipt(connection, seen.scope, receipt_id)
    return found if found is not None and found.customer_id == seen.customer_id else None


def _root(text: str | None) -> bytes | None:
    if not text:
        return None
    hexadecimal = _HASH.fullmatch(text)
    try:
        # A query turns `+` into a space unless it is escaped, which is easily forgotten.
        root = bytes.fromhex(hexadecimal[1]) if hexadecimal else b64decode(text.replace(" ", "+"))
    except (ValueError, binascii.Error):
        root = b""
    if len(root) != HASH_SIZE:
        raise _invalid("root", "Give a root of 32 bytes, as base64 or as 0x and hex digits.")
    return root


def _not_proved(period: Period) -> NotFoundError:
    covered = f"{period.psize} of {period.size} rows" if period.psize else "no row of this period"
    return NotFoundError(f"No proof yet: the newest checkpoint covers {covered}.", code="PROOF_NOT_FOUND")


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError(message, details=(Detail(f"/{field}", "VALIDATION_ERROR", message),))
