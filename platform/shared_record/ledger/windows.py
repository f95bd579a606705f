"""Windows over a customer's deltas: how many, which total, and which rows, at a cost that does not grow with history.

A window is half-open in recorded time, or begins after a given delta. In each period it is one range of ``seq``, found
by a search over the primary key; counts are differences of ``seq``, sums are differences of running totals. What a
published checkpoint covers of it is a range too, since checkpoints cover periods from their first delta on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.clock import period_of
from shared_record.db.schema import customer, day_counter, epoch, epoch_member, leaf, period_tree
from shared_record.db.scope import Scope
from shared_record.ledger.amounts import Total, add, subtract
from shared_record.ledger.records import (
    Period,
    Record,
    count_before,
    list_periods,
    records_between,
    total_at,
)

_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_DAYS = (
    select(day_counter.c.day, day_counter.c.size, day_counter.c.total)
    .where(day_counter.c.tenant_id == _T, day_counter.c.tree_id == _TREE)
    .order_by(day_counter.c.day)
)
_MEMBER_FROM = (
    select(epoch_member.c.epoch, epoch_member.c.size)
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.tree_id == _TREE, epoch_member.c.epoch >= bindparam("low"))
    .order_by(epoch_member.c.epoch)
    .limit(1)
)
_TIMES_FROM = (
    select(epoch_member.c.size, epoch.c.ts)
    .select_from(
        epoch_member.join(epoch, (epoch.c.tenant_id == epoch_member.c.tenant_id) & (epoch.c.n == epoch_member.c.epoch))
    )
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.tree_id == _TREE, epoch_member.c.epoch >= bindparam("low"))
    .order_by(epoch_member.c.epoch)
    .limit(bindparam("most"))
)
_PLACE_OF = (
    select(period_tree.c.period, leaf.c.seq, leaf.c.rx)
    .select_from(
        leaf.join(
            period_tree, (period_tree.c.tenant_id == leaf.c.tenant_id) & (period_tree.c.tree_id == leaf.c.tree_id)
        )
    )
    .where(leaf.c.tenant_id == _T, leaf.c.customer_id == bindparam("who"))
)
_PLACE_OF_RECORD = _PLACE_OF.where(leaf.c.record_id == bindparam("record"))
_PLACE_OF_HASH = _PLACE_OF.where(leaf.c.hash == bindparam("hash"))
_RANGES = (
    select(period_tree.c.base, period_tree.c.size)
    .where(
        period_tree.c.tenant_id == _T, period_tree.c.customer_id == bindparam("who"), period_tree.c.status != "erased"
    )
    .order_by(period_tree.c.base)
)
_IN_PERIOD = select(period_tree.c.size).where(period_tree.c.tenant_id == _T, period_tree.c.period == bindparam("which"))
_ACTIVE = (
    select(customer.c.external_id, customer.c.customer_id)
    .where(
        customer.c.tenant_id == _T,
        customer.c.external_id > bindparam("after"),
        select(period_tree.c.tree_id)
        .where(
            period_tree.c.tenant_id == _T,
            period_tree.c.customer_id == customer.c.customer_id,
            period_tree.c.period >= bindparam("oldest"),
            period_tree.c.period <= bindparam("newest"),
            period_tree.c.status != "erased",
        )
        .exists(),
    )
    .order_by(customer.c.external_id)
    .limit(bindparam("most"))
)


class Granularity(StrEnum):
    """How a window is broken down. Days, weeks (from Monday, ISO 8601) and months are those of UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Place:
    """The deltas of one customer up to this one: all earlier periods, and ``seq`` deltas of ``period``."""

    period: str
    seq: int
    recorded_at: datetime


Edge = datetime | Place


@dataclass(frozen=True, slots=True)
class Figures:
    """A count of deltas and their exact sum."""

    count: int = 0
    net: str = "0"


@dataclass(frozen=True, slots=True)
class Part:
    """The part of one period that a window takes in: the deltas after ``first`` up to ``last``."""

    period: Period
    first: int
    last: int

    @property
    def covered(self) -> int:
        """The last delta that a published checkpoint covers; ``first`` where it covers none."""
        return max(self.first, min(self.last, self.period.psize))

    @property
    def as_verified(self) -> Part:
        """What a published checkpoint covers of it."""
        return replace(self, last=self.covered)


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a customer as of one snapshot.

    ``parts``: oldest first, none empty. ``opening`` and ``closing`` are the customer's totals over all periods before
    and after it. ``recorded`` counts what was accepted, ``verified`` what a published checkpoint covers. ``size`` and
    ``psize`` are the customer's deltas in all, accepted and covered: the cut at which this was read.
    """

    parts: tuple[Part, ...]
    opening: str
    closing: str
    recorded: Figures
    verified: Figures
    size: int
    psize: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """One day, week (named by its Monday) or month of a window."""

    name: str
    recorded: Figures
    verified: Figures


def measure(connection: Connection, scope: Scope, customer_id: UUID, start: Edge, end: Edge | None) -> Window:
    """Return the window ``[start, end)`` of a customer; without ``end`` it takes in all there is.

    A ``Place`` as ``start`` begins after that delta; as ``end`` it takes that delta in. ``connection`` should be a
    snapshot.
    """
    periods = list(reversed(list_periods(connection, scope, customer_id)))
    parts, opening, closing, covered = [], Total(), Total(), Total()
    for period in periods:
        first = _cut(connection, scope, period, start)
        last = period.size if end is None else max(first, _cut(connection, scope, period, end))
        before, after = (total_at(connection, scope, period, seq) for seq in (first, last))
        opening.add(before)
        closing.add(after)
        if last > first:
            part = Part(period, first, last)
            parts.append(part)
            covered.add(subtract(_total(connection, scope, part, part.covered, before, after), before))
    return Window(
        tuple(parts),
        opening.text,
        closing.text,
        Figures(sum(part.last - part.first for part in parts), subtract(closing.text, opening.text)),
        Figures(sum(part.covered - part.first for part in parts), covered.text),
        sum(period.size for period in periods),
        sum(period.psize for period in periods),
    )


def find_place(
    connection: Connection,
    scope: Scope,
    customer_id: UUID,
    *,
    record_id: str | None = None,
    digest: bytes | None = None,
) -> Place | None:
    """Return where the delta with this record id, or else this leaf hash, stands in its customer's record."""
    if record_id is not None:
        found = connection.execute(_PLACE_OF_RECORD, {"t": scope.plane, "who": customer_id, "record": record_id})
    else:
        found = connection.execute(_PLACE_OF_HASH, {"t": scope.plane, "who": customer_id, "hash": digest})
    row = found.one_or_none()
    return None if row is None else Place(row.period, row.seq, row.rx)


def read_page(
    connection: Connection, scope: Scope, parts: Sequence[Part], *, limit: int, offset: int
) -> tuple[Record, ...]:
    """Return deltas of ``parts`` in order, after the first ``offset``: where a page starts is computed, not counted."""
    found: list[Record] = []
    for part in parts:
        size = part.last - part.first
        if offset >= size:
            offset -= size
            continue
        found += records_between(connection, scope, part.period, part.first + offset, part.last, limit - len(found))
        offset = 0
        if len(found) >= limit:
            break
    return tuple(found)


def covered_at(connection: Connection, scope: Scope, records: Sequence[Record]) -> dict[str, datetime]:
    """Return by record id when each of ``records`` was first covered by a checkpoint; those not covered are left out.

    ``records``: in the order of ``read_page``.
    """
    found: dict[str, datetime] = {}
    by_period: dict[str, list[Record]] = {}
    for record in records:
        if record.seq <= record.period.psize:
            by_period.setdefault(record.period.tree_id, []).append(record)
    for rows in by_period.values():
        times = _times(connection, scope, rows[0].period, rows[0].seq, len(rows))
        size, moment = next(times)
        for record in rows:
            while record.seq > size:
                size, moment = next(times)
            found[record.record_id] = moment
    return found


def break_down(connection: Connection, scope: Scope, window: Window, granularity: Granularity) -> list[Bucket]:
    """Return the figures of ``window`` by day, week or month, oldest first; buckets without a delta are left out.

    They come from the counters of whole days; the days in which the window or its covered part is cut, from running
    totals.
    """
    buckets: dict[str, Bucket] = {}
    for part in window.parts:
        for day, recorded, verified in _days(connection, scope, part):
            name = _bucket_of(day, granularity)
            before = buckets.get(name, Bucket(name, Figures(), Figures()))
            buckets[name] = Bucket(name, _sum(before.recorded, recorded), _sum(before.verified, verified))
    return list(buckets.values())


def list_active(
    connection: Connection, scope: Scope, start: datetime, end: datetime, *, after: str, most: int
) -> list[tuple[str, UUID]]:
    """Return (external id, customer id) of customers with deltas in a period that ``[start, end)`` touches, by id.

    ``after``: the external id to go on from; empty for the first page.
    """
    newest = period_of(end - timedelta(milliseconds=1))
    rows = connection.execute(
        _ACTIVE, {"t": scope.plane, "after": after, "oldest": period_of(start), "newest": newest, "most": most}
    )
    return [(row.external_id, row.customer_id) for row in rows]


def list_sequences(connection: Connection, scope: Scope, customer_id: UUID) -> list[tuple[int, int]]:
    """Return the sequence numbers that a customer's deltas have, as ranges (first, last), in order."""
    rows = connection.execute(_RANGES, {"t": scope.plane, "who": customer_id})
    return [(row.base + 1, row.base + row.size) for row in rows if row.size]


def find_gaps(ranges: Sequence[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """Return which of the numbers ``first`` to ``last`` are in none of ``ranges`` (in order), as ranges."""
    gaps = []
    for start, end in ranges:
        if first < start and first <= last:
            gaps.append((first, min(start - 1, last)))
        first = max(first, end + 1)
    return gaps if first > last else [*gaps, (first, last)]


def count_recorded(connection: Connection, scope: Scope, period: str) -> int:
    """Return how many deltas of all customers are recorded in one period."""
    return sum(connection.execute(_IN_PERIOD, {"t": scope.plane, "which": period}).scalars())


def _cut(connection: Connection, scope: Scope, period: Period, at: Edge) -> int:
    """Return how many deltas of ``period`` lie before ``at``."""
    if isinstance(at, datetime):
        return count_before(connection, scope, period, at)
    if period.period != at.period:
        return period.size if period.period < at.period else 0
    return at.seq


def _total(connection: Connection, scope: Scope, part: Part, seq: int, before: str, after: str) -> str:
    """Return the running total at ``seq``, one of ``part``; ``before`` and ``after`` are those at its ends."""
    if seq in (part.first, part.last):
        return before if seq == part.first else after
    return part.period.ptotal if seq == part.period.psize else total_at(connection, scope, part.period, seq)


def _days(connection: Connection, scope: Scope, part: Part) -> Iterator[tuple[date, Figures, Figures]]:
    """Yield each day of ``part`` with what was recorded in it, and what of that is covered."""
    period = part.period
    earliest = period.bounds[0].date()
    done, total = 0, Total()
    for row in connection.execute(_DAYS, {"t": scope.plane, "tree": period.tree_id}).all():
        day = Part(period, done, done + row.size)
        before = total.text
        after = total.add(row.total)
        done += row.size
        figures = []
        for last in (part.last, part.covered):
            low, high = max(part.first, day.first), min(last, day.last)
            if low >= high:
                figures.append(Figures())
                continue
            ends = [_total(connection, scope, day, seq, before, after) for seq in (low, high)]
            figures.append(Figures(high - low, subtract(ends[1], ends[0])))
        if figures[0].count:
            # A delta that came while its month was closing counts in the next period, on its first day.
            yield max(row.day, earliest), figures[0], figures[1]


def _bucket_of(day: date, granularity: Granularity) -> str:
    if granularity is Granularity.MONTH:
        return f"{day:%Y-%m}"
    return (day - timedelta(days=day.weekday() if granularity is Granularity.WEEK else 0)).isoformat()


def _sum(one: Figures, other: Figures) -> Figures:
    return Figures(one.count + other.count, add(one.net, other.net))


def _times(connection: Connection, scope: Scope, period: Period, seq: int, most: int) -> Iterator[tuple[int, datetime]]:
    """Yield how far the epochs cover ``period``, and when: from the one that first covers ``seq`` on."""
    of_tree = {"t": scope.plane, "tree": period.tree_id}
    low, high = 0, period.pepoch or 0
    while low < high:
        # The first member at all is tried first: most periods are asked for from their beginning.
        middle = (low + high) // 2 if low else 0
        row = connection.execute(_MEMBER_FROM, of_tree | {"low": middle}).one()
        if row.size >= seq:
            high = middle
        else:
            low = row.epoch + 1
    # A period that closes without new deltas is stated once more at the same size.
    rows = connection.execute(_TIMES_FROM, of_tree | {"low": low, "most": most + 1})
    yield from ((row.size, row.ts) for row in rows)
