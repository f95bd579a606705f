"""The figures of one record as JSON data: what the pages' twins, the link's API and the vendor's API all answer with.

Every amount is text. Who may see what was decided before: a ``Subject`` is made by a view that let its caller in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from shared_record.access import audit
from shared_record.access.sessions import Visit
from shared_record.clock import period_bounds, period_of, rfc3339
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.ledger import amounts
from shared_record.ledger.breakdowns import Breakdown, Part, has_details, read_breakdowns
from shared_record.ledger.corrections import Correction, later_corrections
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
from shared_record.ledger.timeline import LINK, Fact, Position, merge_facts, read_facts
from shared_record.ledger.windows import Bucket, Granularity, break_down, measure
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
    """The current period as one snapshot has it, with its newest deltas, and the last period before it.

    ``periods``: all of the customer's, newest first.
    """

    now: datetime
    period: str
    periods: list[Period]
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
    return Summary(now, name, found, current, previous, reach, recent)


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


@dataclass(frozen=True, slots=True)
class PeriodFacts:
    """One period as one snapshot has it. ``days`` are UTC. ``has_details``: retention has removed nothing of it yet."""

    now: datetime
    period: Period
    coverage: Coverage
    receipt: Receipt | None
    days: tuple[Bucket, ...]
    breakdowns: tuple[Breakdown, ...]
    corrections: tuple[Correction, ...]
    has_details: bool


def look_at_period(subject: Subject, name: str) -> PeriodFacts:
    """Return all there is to tell of one period, by its month or by the id of a receipt for it.

    ``NotFoundError`` (``PERIOD_NOT_FOUND``) where nothing is recorded in it.
    """
    scope, who = subject.scope, subject.customer_id
    with runtime().db.read(scope, snapshot=True) as connection:
        found = _find(connection, subject, name)
        window = measure(connection, scope, who, *found.bounds)
        return PeriodFacts(
            now=runtime().clock.now(),
            period=found,
            coverage=coverage(connection, scope, [found]),
            receipt=_receipts(connection, subject).get(found.bounds),
            days=tuple(break_down(connection, scope, window, Granularity.DAY)),
            breakdowns=tuple(
                read_breakdowns(connection, scope, found.tree_id, found.breakdowns, found.size, found.total)
            ),
            corrections=tuple(later_corrections(connection, scope, who, found)),
            has_details=has_details(connection, scope, found.tree_id),
        )


def period(subject: Subject, name: str) -> dict[str, Any]:
    """Return one period, by its month or by the id of a receipt for it, with its figures by day (UTC)."""
    found = look_at_period(subject, name)
    return _period(found.period, found.coverage, found.receipt) | {
        "days": [{"day": one.name, "total": one.recorded.net, "records": one.recorded.count} for one in found.days],
        "breakdowns": [breakdown(one) for one in found.breakdowns],
        "corrections": [correction(one) for one in found.corrections],
        "asOf": as_of(found.now, found.period, found.coverage),
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


def timeline(subject: Subject, *, limit: int, older: str | None) -> dict[str, Any]:
    """Return dated facts of the record and its link, newest first. ``older``: the position an earlier page gave."""
    facts, position = find_facts(subject, limit, older)
    return {
        "facts": [
            {"at": rfc3339(fact.at), "kind": fact.kind, "period": fact.period, "detail": fact.detail} for fact in facts
        ],
        "older": position,
    }


def find_facts(subject: Subject, most: int, older: str | None) -> tuple[list[Fact], str | None]:
    """Return at most ``most`` facts, and the position to go on from; ``None`` where these are the oldest."""
    after, scope, who = fact_position(older), subject.scope, subject.customer_id
    after_event = None
    if after is not None:
        # What happened to the link comes last of one moment.
        after_event = (after[0], UUID(after[2]) if after[1] == LINK else UUID(int=2**128 - 1))
    with runtime().db.read(scope, snapshot=True) as connection:
        facts = read_facts(connection, scope, who, most=most + 1, after=after)
        events = audit.of_customer(connection, scope, who, tuple(LINK_EVENTS), most + 1, after=after_event)
    of_link = [Fact((one.at, LINK, str(one.event_id)), LINK_EVENTS[one.event], None, {}) for one in events]
    merged = merge_facts([facts, of_link])
    position = None
    if len(merged) > most:
        at, kind, name = merged[most - 1].position
        position = f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%f}~{kind}~{name}"
    return merged[:most], position


FACT_POSITION = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}~[0-4]~[0-9a-z_-]{1,40}"


def fact_position(text: str | None) -> Position | None:
    """Read the position of a fact; one that is malformed is none."""
    if text is None or not re.fullmatch(FACT_POSITION, text, re.ASCII):
        return None
    at, kind, name = text.split("~")
    try:
        moment = datetime.strptime(at, "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
        return moment, int(kind), str(UUID(name)) if int(kind) == LINK else name
    except ValueError:
        return None


def correction(found: Correction) -> dict[str, Any]:
    """Return one delta of a chain of corrections."""
    return {
        "recordId": found.record_id,
        "period": found.period,
        "recordedAt": rfc3339(found.recorded_at),
        "amount": found.amount,
        "unit": found.unit,
        "corrects": found.corrects,
    }


def moment_of(text: str) -> datetime:
    """Read when a delta was used (UTC, up to nine decimals) to the microsecond, which is more than a page shows."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00")


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


def breakdown(found: Breakdown) -> dict[str, Any]:
    """Return a period by one key; its figures come to those of the period."""
    return {
        "key": found.key,
        "values": [{"value": one.value, **_part(one)} for one in found.parts],
        "other": _part(found.other),
        "without": _part(found.without),
    }


def _part(found: Part) -> dict[str, Any]:
    return {"total": found.total, "records": found.count}


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
