"""The figures of one record as JSON data: what the pages' twins, the link's API and the vendor's API all answer with.

Every amount is text. Who may see what was decided before: a ``Subject`` is made by a view that let its caller in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from shared_record.access import audit
from shared_record.access.sessions import Visit
from shared_record.clock import period_bounds, period_of, rfc3339
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.ledger import amounts
from shared_record.ledger.entry import receipt_id
from shared_record.ledger.fingerprint import fingerprint
from shared_record.ledger.receipts import Receipt, find_receipt, list_receipts
from shared_record.ledger.records import (
    Coverage,
    Filter,
    Period,
    Record,
    coverage,
    find_period,
    find_record_id,
    list_periods,
    newest_records,
    search,
)
from shared_record.ledger.timeline import MOST, read_facts
from shared_record.ledger.windows import Granularity, break_down, measure
from shared_record.web.runtime import runtime

RECENT = 5
LINK_EVENTS = {
    "link.revoked": "link_revoked",
    "link.reissued": "link_reissued",
    "code.rotated": "access_code_replaced",
    "policy.changed": "access_policy_changed",
    "customer.moved": "domain_changed",
}
"""Event of the audit trail -> its name in a timeline. Who did it, and why, stays in the trail."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose record is asked for, and how its tenant wants it told. ``hide_amounts``: of single rows."""

    scope: Scope
    customer_id: UUID
    vendor: str
    unit: str
    hide_amounts: bool = False

    @classmethod
    def of_visit(cls, seen: Visit) -> Subject:
        """Return the subject of a visit; amounts of rows are hidden where the outer tier does not show them."""
        hide = bool(seen.row.hide_amounts) and seen.session is None
        return cls(seen.scope, seen.customer_id, seen.row.vendor, seen.row.unit, hide)


@dataclass(frozen=True, slots=True)
class Summary:
    """The current period as one snapshot has it, with its newest deltas, and the last period before it."""

    now: datetime
    period: str
    current: Period | None
    previous: Period | None
    coverage: Coverage
    recent: tuple[Record, ...]


def summarise(subject: Subject) -> Summary:
    """Return what the landing page and its data tell."""
    now = runtime().clock.now()
    name = period_of(now)
    with runtime().db.read(subject.scope, snapshot=True) as connection:
        found = list_periods(connection, subject.scope, subject.customer_id)
        current = next((one for one in found if one.period == name), None)
        previous = next((one for one in found if one.period < name), None)
        recent = newest_records(connection, subject.scope, current, RECENT) if current else ()
        reach = coverage(connection, subject.scope, found)
    return Summary(now, name, current, previous, reach, recent)


def live(subject: Subject) -> dict[str, Any]:
    """Return the current period as it stands: what the landing page shows."""
    found = summarise(subject)
    now, name, current, reach, recent = found.now, found.period, found.current, found.coverage, found.recent
    return {
        "vendor": subject.vendor,
        "period": name,
        "boundaries": boundaries(name),
        "total": current.total if current else "0",
        "unit": current.unit if current else subject.unit,
        "records": current.size if current else 0,
        "verified": {"total": current.ptotal if current else "0", "records": current.psize if current else 0},
        "verifiedThrough": rfc3339(reach.through) if reach.through else None,
        "asOf": as_of(now, current, reach),
        "recent": [
            {"recordedAt": rfc3339(row.recorded_at), "state": row.state}
            | ({} if subject.hide_amounts else {"amount": row.amount})
            for row in recent
        ],
    }


def periods(subject: Subject) -> dict[str, Any]:
    """Return all periods, newest first, each with its newest receipt."""
    with runtime().db.read(subject.scope, snapshot=True) as connection:
        found = list_periods(connection, subject.scope, subject.customer_id)
        issued = _receipts(connection, subject)
        reach = [coverage(connection, subject.scope, [one]) for one in found]
    return {
        "periods": [_period(one, covered, issued.get(one.bounds)) for one, covered in zip(found, reach, strict=True)],
        "asOf": {"time": rfc3339(runtime().clock.now())},
    }


def period(subject: Subject, name: str) -> dict[str, Any]:
    """Return one period, by its month or by the id of a receipt for it, with its figures by day (UTC)."""
    with runtime().db.read(subject.scope, snapshot=True) as connection:
        found = _find(connection, subject, name)
        window = measure(connection, subject.scope, subject.customer_id, *found.bounds)
        days = break_down(connection, subject.scope, window, Granularity.DAY)
        reach = coverage(connection, subject.scope, [found])
        issued = _receipts(connection, subject).get(found.bounds)
    return _period(found, reach, issued) | {
        "days": [{"day": one.name, "total": one.recorded.net, "records": one.recorded.count} for one in days],
        "asOf": as_of(runtime().clock.now(), found, reach),
    }


def compare(subject: Subject, first: str, second: str) -> dict[str, Any]:
    """Return two periods, by month or receipt id, and the second minus the first."""
    with runtime().db.read(subject.scope, snapshot=True) as connection:
        one, other = _find(connection, subject, first), _find(connection, subject, second)
    return {
        "first": _figures(one),
        "second": _figures(other),
        "difference": {"total": amounts.subtract(other.total, one.total), "records": other.size - one.size},
        "unit": other.unit,
    }


def activity(
    subject: Subject, name: str, *, limit: int, newer: str | None, older: str | None, reference: str | None
) -> dict[str, Any]:
    """Return a page of one month's deltas, newest first.

    ``newer`` and ``older``: a position that an earlier page gave, to go on in that direction; a page has no memory.
    """
    scope, who = subject.scope, subject.customer_id
    with runtime().db.read(scope, snapshot=True) as connection:
        found = list_periods(connection, scope, who)
        wanted = Filter(period=name)
        if reference is not None:
            record_id = find_record_id(connection, runtime().keys, scope, who, reference)
            wanted = Filter(period=name, record_id=record_id or "")
        page = search(connection, scope, found, wanted, most=limit, after=_position(older), before=_position(newer))
        reach = coverage(connection, scope, found)
    current = next((one for one in found if one.period == name), None)
    return {
        "period": name,
        "count": page.count,
        "total": page.total,
        "unit": current.unit if current else subject.unit,
        "asOf": as_of(runtime().clock.now(), current, reach),
        "records": [row(one) for one in page.records],
        "newer": page.newer,
        "older": page.older,
    }


def _position(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    period_name, _, seq = text.partition(".")
    return period_name, int(seq)


def timeline(subject: Subject) -> dict[str, Any]:
    """Return dated facts of the record and its link, newest first; of each kind the newest 200."""
    with runtime().db.read(subject.scope, snapshot=True) as connection:
        facts = [
            (fact.at, {"kind": fact.kind, "period": fact.period, "detail": fact.detail})
            for fact in read_facts(connection, subject.scope, subject.customer_id)
        ]
        events = audit.of_customer(connection, subject.scope, subject.customer_id, tuple(LINK_EVENTS), MOST)
    facts += [(one.at, {"kind": LINK_EVENTS[one.event], "period": None, "detail": {}}) for one in events]
    facts.sort(key=lambda fact: fact[0], reverse=True)
    return {"facts": [{"at": rfc3339(at)} | fact for at, fact in facts]}


def row(found: Record) -> dict[str, Any]:
    """Return one delta with everything that the inner tier shows of it."""
    return {
        "recordId": found.record_id,
        "receiptId": found.receipt_id,
        "seq": found.seq,
        "recordedAt": rfc3339(found.recorded_at),
        "usedAt": found.occurred_at,
        "amount": found.amount,
        "runningTotal": found.running_total,
        "unit": found.period.unit,
        "state": found.state,
        "reference": found.reference_id,
        "reason": found.reason,
        "adjusts": found.adjusts,
    }


def as_of(now: datetime, found: Period | None, reach: Coverage) -> dict[str, Any]:
    """Return the cut at which figures were taken: accepted and covered deltas, and the newest checkpoint's size."""
    return {
        "time": rfc3339(now),
        "size": found.size if found else 0,
        "psize": found.psize if found else 0,
        "checkpoint": None if reach.newest_epoch is None else reach.newest_epoch + 1,
    }


def boundaries(name: str) -> dict[str, str]:
    """Return the half-open UTC month."""
    start, end = period_bounds(name)
    return {"start": rfc3339(start), "end": rfc3339(end), "zone": "UTC"}


def _receipts(connection: Connection, subject: Subject) -> dict[tuple[datetime, datetime], Receipt]:
    newest_last = reversed(list_receipts(connection, subject.scope, subject.customer_id))
    return {(one.start, one.end): one for one in newest_last}


def _find(connection: Connection, subject: Subject, name: str) -> Period:
    if name.startswith("chk_"):
        document = find_receipt(connection, subject.scope, name) if name.isascii() and name.isprintable() else None
        if document is None or document.customer_id != subject.customer_id:
            raise NotFoundError("there is no such period here.", code="PERIOD_NOT_FOUND")
        name = document.spans[-1].period
    found = find_period(connection, subject.scope, subject.customer_id, name)
    if found is None:
        raise NotFoundError("there is no such period here.", code="PERIOD_NOT_FOUND")
    return found


def _figures(found: Period) -> dict[str, Any]:
    return {"period": found.period, "state": found.status, "total": found.total, "records": found.size}


def _period(found: Period, reach: Coverage, issued: Receipt | None) -> dict[str, Any]:
    through = min(reach.through, found.bounds[1]) if reach.through and found.pepoch is not None else None
    root = found.proot if found.psize else None
    return {
        **_figures(found),
        "boundaries": boundaries(found.period),
        "unit": found.unit,
        "verified": {"total": found.ptotal, "records": found.psize},
        "verifiedThrough": rfc3339(through) if through else None,
        "proofRoot": receipt_id(root) if root else None,
        "fingerprint": fingerprint(root) if root else None,
        "receiptId": issued.receipt_id if issued else None,
    }
