"""Reading the ledger: a customer's periods, deltas and totals.

Counts and totals come from counters and running totals, never from adding up rows, so they cost the same after a
million deltas as after ten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, or_, select
from sqlalchemy.sql import ColumnElement

from shared_record.clock import period_bounds
from shared_record.db.engine import Database
from shared_record.db.prepared import fetch_all
from shared_record.db.schema import (
    checkpoint,
    customer,
    delta_detail,
    epoch,
    epoch_member,
    leaf,
    period_tree,
)
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger.amounts import Total, subtract
from shared_record.ledger.breakdowns import find_part, values_of
from shared_record.ledger.entry import receipt_id
from shared_record.tenancy.customers import reference_key
from shared_record.tenancy.tenants import tenant_key

_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_DETAILS = leaf.outerjoin(
    delta_detail,
    (delta_detail.c.tenant_id == leaf.c.tenant_id)
    & (delta_detail.c.tree_id == leaf.c.tree_id)
    & (delta_detail.c.seq == leaf.c.seq),
)
_ROWS: Select[Any] = (
    select(
        leaf.c.seq,
        leaf.c.record_id,
        leaf.c.rx,
        leaf.c.at,
        leaf.c.qty,
        leaf.c.total,
        leaf.c.adjusts,
        leaf.c.entry,
        leaf.c.hash,
        delta_detail.c.reason,
        delta_detail.c.reference,
        delta_detail.c.metadata,
        delta_detail.c.salt,
    )
    .select_from(_DETAILS)
    .where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE)
)
_ROWS_DOWN = (
    _ROWS.where(leaf.c.seq > bindparam("after"), leaf.c.seq <= bindparam("upto"))
    .order_by(leaf.c.seq.desc())
    .limit(bindparam("most"))
)
_ROWS_UP = (
    _ROWS.where(leaf.c.seq > bindparam("after"), leaf.c.seq <= bindparam("upto"))
    .order_by(leaf.c.seq)
    .limit(bindparam("most"))
)
_PERIODS = (
    select(
        period_tree.c.tree_id,
        period_tree.c.period,
        period_tree.c.unit,
        period_tree.c.status,
        period_tree.c.size,
        period_tree.c.total,
        period_tree.c.vsize,
        period_tree.c.psize,
        period_tree.c.ptotal,
        period_tree.c.proot,
        period_tree.c.pepoch,
        period_tree.c.breakdowns,
    )
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.customer_id == bindparam("who"),
        period_tree.c.status != "erased",
    )
    .order_by(period_tree.c.period.desc())
)
_PERIOD = _PERIODS.where(period_tree.c.period == bindparam("which"))
_AT_SEQ = select(leaf.c.rx, leaf.c.total).where(
    leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.seq == bindparam("seq")
)
_RX_AT = (
    select(leaf.c.seq, leaf.c.rx)
    .where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.seq.in_(bindparam("probes", expanding=True)))
    .order_by(leaf.c.seq)
)
_PROBES = 32
_NEWEST_EPOCH = (
    select(epoch.c.n, epoch.c.ts)
    .select_from(
        epoch.join(checkpoint, (checkpoint.c.tenant_id == epoch.c.tenant_id) & (checkpoint.c.size == epoch.c.n + 1))
    )
    .where(epoch.c.tenant_id == _T, checkpoint.c.state == "published")
    .order_by(epoch.c.n.desc())
    .limit(1)
)
_DELTA = (
    select(
        leaf.c.record_id,
        leaf.c.hash,
        leaf.c.qty,
        leaf.c.seq,
        leaf.c.rx,
        leaf.c.at,
        leaf.c.adjusts,
        leaf.c.tree_id,
        period_tree.c.base,
        period_tree.c.vsize,
        period_tree.c.psize,
        period_tree.c.period,
        customer.c.external_id,
        customer.c.customer_id,
        delta_detail.c.reason,
        delta_detail.c.reference,
        delta_detail.c.metadata,
    )
    .select_from(
        _DETAILS.join(
            period_tree,
            (period_tree.c.tenant_id == leaf.c.tenant_id) & (period_tree.c.tree_id == leaf.c.tree_id),
        ).join(customer, (customer.c.tenant_id == leaf.c.tenant_id) & (customer.c.customer_id == leaf.c.customer_id))
    )
    .where(leaf.c.tenant_id == _T, leaf.c.record_id == bindparam("record"))
)
_PREVIOUS = select(leaf.c.hash).where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.seq == bindparam("seq"))
_COVERED_BY = (
    select(epoch.c.n, epoch.c.ts)
    .select_from(
        epoch_member.join(epoch, (epoch.c.tenant_id == epoch_member.c.tenant_id) & (epoch.c.n == epoch_member.c.epoch))
    )
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.tree_id == _TREE, epoch_member.c.size >= bindparam("seq"))
    .order_by(epoch_member.c.epoch)
    .limit(1)
)
_PLACE = select(leaf.c.tree_id, leaf.c.seq).where(leaf.c.tenant_id == _T, leaf.c.hash == bindparam("hash"))
_TREE_ROW = select(period_tree).where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == _TREE)
_BY_REFERENCE = select(leaf.c.record_id).where(leaf.c.tenant_id == _T, leaf.c.reference_key == bindparam("reference"))


@dataclass(frozen=True, slots=True)
class DeltaStatus:
    """One delta as its vendor asks for it."""

    record_id: str
    receipt_id: str
    customer_id: str
    amount: str
    state: str
    reason: str | None
    reference_id: str | None
    metadata: str | None
    adjusts: str | None
    occurred_at: str | None
    created_at: datetime
    verified_at: datetime | None
    sequence: int
    previous_hash: str | None
    epoch: int | None
    purged: bool


@dataclass(frozen=True, slots=True)
class Period:
    """One period of a customer: what is recorded, what is hashed, and what a checkpoint covers."""

    tree_id: str
    period: str
    unit: str
    status: str
    size: int
    total: str
    vsize: int
    psize: int
    ptotal: str
    proot: bytes | None
    pepoch: int | None
    breakdowns: tuple[str, ...] = ()

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """The half-open UTC month."""
        return period_bounds(self.period)

    def state_of(self, seq: int) -> str:
        """Return ``recording``, ``recorded`` or ``verified`` for the delta ``seq`` (from 1)."""
        if seq <= self.psize:
            return "verified"
        return "recorded" if seq <= self.vsize else "recording"


@dataclass(frozen=True, slots=True)
class Record:
    """One delta with the period it is in."""

    period: Period
    seq: int
    record_id: str
    receipt_id: str
    recorded_at: datetime
    occurred_at: str | None
    amount: str
    running_total: str
    adjusts: str | None
    reason: str | None
    reference_id: str | None
    metadata: str | None
    salt: bytes | None
    entry: str | None

    @property
    def state(self) -> str:
        """``recording``, ``recorded`` or ``verified``."""
        return self.period.state_of(self.seq)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deltas to show. Moments are half-open on the recorded time; ``late``: used before its period began.

    ``dimension``: a key of metadata and the value under it (see ``breakdowns.values_of``).
    """

    period: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    record_id: str | None = None
    late: bool = False
    dimension: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of deltas, newest first, with the count and exact sum of *all* that match."""

    records: tuple[Record, ...]
    count: int
    total: str
    newer: str | None
    older: str | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far checkpoints reach, and the newest: all ``None`` before the first one."""

    through: datetime | None
    newest_epoch: int | None
    newest_at: datetime | None = None


def find_delta(db: Database, scope: Scope, record_id: str) -> DeltaStatus | None:
    """Return one delta by its record id, or ``None``."""
    with db.read(scope, snapshot=True) as connection:
        of_tenant = {"t": scope.plane}
        row = connection.execute(_DELTA, of_tenant | {"record": record_id}).one_or_none()
        if row is None:
            return None
        before = connection.execute(
            _PREVIOUS, of_tenant | {"tree": row.tree_id, "seq": row.seq - 1}
        ).scalar_one_or_none()
        covered = None
        if row.seq <= row.psize:
            covered = connection.execute(_COVERED_BY, of_tenant | {"tree": row.tree_id, "seq": row.seq}).one()
    state = "verified" if covered else "recorded" if row.seq <= row.vsize else "recording"
    return DeltaStatus(
        record_id=row.record_id,
        receipt_id=receipt_id(row.hash),
        customer_id=row.external_id,
        amount=row.qty,
        state=state,
        reason=row.reason,
        reference_id=row.reference,
        metadata=row.metadata,
        adjusts=row.adjusts,
        occurred_at=row.at,
        created_at=row.rx,
        verified_at=covered.ts if covered else None,
        sequence=row.base + row.seq,
        previous_hash=receipt_id(before) if before else None,
        epoch=covered.n if covered else None,
        purged=row.reason is None,
    )


def find_by_hash(connection: Connection, scope: Scope, digest: bytes) -> tuple[UUID, Record] | None:
    """Return the delta with this leaf hash and its customer, or ``None``."""
    place = connection.execute(_PLACE, {"t": scope.plane, "hash": digest}).one_or_none()
    if place is None:
        return None
    tree = connection.execute(_TREE_ROW, {"t": scope.plane, "tree": place.tree_id}).one()
    (record,) = _rows(connection, scope, _period(tree), _ROWS_UP, place.seq - 1, place.seq, 1)
    return tree.customer_id, record


def find_record_id(
    connection: Connection, keys: KeyRing, scope: Scope, customer_id: UUID, reference: str
) -> str | None:
    """Return the record id under which a customer's ``reference`` is recorded, or ``None``: one index look-up."""
    key = reference_key(tenant_key(connection, keys, scope), customer_id, reference)
    found: str | None = connection.execute(_BY_REFERENCE, {"t": scope.plane, "reference": key}).scalar_one_or_none()
    return found


def list_periods(connection: Connection, scope: Scope, customer_id: UUID) -> list[Period]:
    """Return every period of a customer, newest first."""
    rows = fetch_all(connection, _PERIODS, {"t": scope.plane, "who": customer_id})
    return [_period(row) for row in rows]


def find_period(connection: Connection, scope: Scope, customer_id: UUID, period: str) -> Period | None:
    """Return one period ``YYYY-MM`` of a customer, or ``None`` when nothing was recorded in it."""
    if not _MONTH.fullmatch(period):
        return None
    row = connection.execute(_PERIOD, {"t": scope.plane, "who": customer_id, "which": period}).one_or_none()
    return None if row is None else _period(row)


def recorded_between(
    connection: Connection, scope: Scope, tree_id: str, first: int, last: int
) -> tuple[datetime, datetime]:
    """Return when the deltas ``first`` and ``last`` of a period were recorded."""
    moments = [
        connection.execute(_AT_SEQ, {"t": scope.plane, "tree": tree_id, "seq": seq}).one().rx for seq in (first, last)
    ]
    return moments[0], moments[1]


def newest_records(connection: Connection, scope: Scope, period: Period, most: int) -> tuple[Record, ...]:
    """Return the newest deltas of ``period``, newest first."""
    return tuple(_rows(connection, scope, period, _ROWS_DOWN, 0, period.size, most))


def stream_records(connection: Connection, scope: Scope, period: Period, *, page: int = 2_000) -> Iterator[Record]:
    """Yield every delta of ``period`` in order, in constant memory."""
    done = 0
    while done < period.size:
        for record in _rows(connection, scope, period, _ROWS_UP, done, period.size, page):
            done = record.seq
            yield record


def coverage(connection: Connection, scope: Scope, periods: list[Period]) -> Coverage:
    """Return how far a customer's deltas are covered: up to the first that is not, or the newest checkpoint."""
    epochs = fetch_all(connection, _NEWEST_EPOCH, {"t": scope.plane})
    if not epochs:
        return Coverage(None, None)
    newest = epochs[0]
    through = newest.ts
    for period in periods:
        if period.psize < period.size:
            first = connection.execute(
                _AT_SEQ, {"t": scope.plane, "tree": period.tree_id, "seq": period.psize + 1}
            ).one()
            through = min(through, first.rx)
    return Coverage(through, newest.n, newest.ts)


def search(
    connection: Connection,
    scope: Scope,
    periods: list[Period],
    wanted: Filter,
    *,
    most: int,
    after: tuple[str, int] | None = None,
    before: tuple[str, int] | None = None,
) -> Page:
    """Return a page of the deltas that match ``wanted``, newest first.

    ``periods``: the customer's, newest first. ``after``/``before``: a position (period, seq); the page holds what is
    older than ``after``, or the nearest that is newer than ``before``.
    """
    spans = [
        (period, *span(connection, scope, period, wanted))
        for period in periods
        if wanted.period in (None, period.period)
    ]
    spans = [(period, first, last) for period, first, last in spans if last > first]
    extra = _extra(wanted)
    count, total = _measure(connection, scope, spans, wanted, extra)
    found: list[Record] = []
    if before is not None:
        for period, first, last in reversed(spans):
            if period.period < before[0] or len(found) > most:
                continue
            low = max(first, before[1]) if period.period == before[0] else first
            found += _matching(connection, scope, period, _ROWS_UP, low, last, most + 1 - len(found), wanted, extra)
        more_newer, more_older = len(found) > most, True
        found = list(reversed(found[:most]))
    else:
        for period, first, last in spans:
            if (after is not None and period.period > after[0]) or len(found) > most:
                continue
            high = min(last, after[1] - 1) if after is not None and period.period == after[0] else last
            found += _matching(connection, scope, period, _ROWS_DOWN, first, high, most + 1 - len(found), wanted, extra)
        more_newer, more_older = after is not None, len(found) > most
        found = found[:most]
    newer = f"{found[0].period.period}.{found[0].seq}" if found and more_newer else None
    older = f"{found[-1].period.period}.{found[-1].seq}" if found and more_older else None
    return Page(tuple(found), count, total, newer, older)


def _extra(wanted: Filter) -> list[ColumnElement[bool]]:
    extra: list[ColumnElement[bool]] = []
    if wanted.record_id is not None:
        extra.append(leaf.c.record_id == wanted.record_id)
    if wanted.late:
        extra.append(leaf.c.at < bindparam("began"))
    if wanted.dimension is not None:
        # Metadata is canonical JSON, so a member has one spelling; what is nested deeper is sorted out afterwards.
        key, value = (orjson.dumps(text).decode() for text in wanted.dimension)
        spellings = (f"{key}:{value}", f"{key}:{wanted.dimension[1]}")
        extra.append(or_(*(delta_detail.c.metadata.contains(text, autoescape=True) for text in spellings)))
    return extra


def _matching(
    connection: Connection,
    scope: Scope,
    period: Period,
    query: Select[Any],
    after: int,
    upto: int,
    most: int,
    wanted: Filter,
    extra: list[ColumnElement[bool]],
) -> Iterator[Record]:
    """Yield at most ``most`` deltas that match, in the order of ``query``."""
    if wanted.dimension is None:
        yield from _rows(connection, scope, period, query, after, upto, most, extra)
        return
    key, value = wanted.dimension
    while most > 0 and after < upto:
        rows = list(_rows(connection, scope, period, query, after, upto, _AT_ONCE, extra))
        for record in rows:
            if values_of(record.metadata, (key,)).get(key) == value:
                yield record
                most -= 1
                if not most:
                    return
        if len(rows) < _AT_ONCE:
            return
        after, upto = (after, rows[-1].seq - 1) if query is _ROWS_DOWN else (rows[-1].seq, upto)


_AT_ONCE = 500


def _measure(
    connection: Connection,
    scope: Scope,
    spans: list[tuple[Period, int, int]],
    wanted: Filter,
    extra: list[ColumnElement[bool]],
) -> tuple[int, str]:
    """Return count and exact sum over ``spans``: from running totals and counters where there are any, else by rows."""
    count, total = 0, Total()
    for period, first, last in spans:
        if len(extra) == 1 and wanted.dimension is not None and (first, last) == (0, period.size):
            part = find_part(connection, scope, period.tree_id, *wanted.dimension)
            if part is not None:
                count += part.count
                total.add(part.total)
                continue
        if extra:
            rows = _matching(connection, scope, period, _ROWS_UP, first, last, last - first, wanted, extra)
            for record in rows:
                count += 1
                total.add(record.amount)
            continue
        count += last - first
        before, after = (total_at(connection, scope, period, seq) for seq in (first, last))
        total.add(subtract(after, before))
    return count, total.text


def total_at(connection: Connection, scope: Scope, period: Period, seq: int) -> str:
    """Return the exact running total of ``period`` after its delta ``seq`` (0: before the first)."""
    if seq == 0:
        return "0"
    if seq == period.size:
        return period.total
    total: str = connection.execute(_AT_SEQ, {"t": scope.plane, "tree": period.tree_id, "seq": seq}).one().total
    return total


def span(connection: Connection, scope: Scope, period: Period, wanted: Filter) -> tuple[int, int]:
    """Return (first, last] of the ``seq`` that a filter's moments select; recorded time only grows with ``seq``."""
    first = 0 if wanted.since is None else count_before(connection, scope, period, wanted.since)
    last = period.size if wanted.until is None else count_before(connection, scope, period, wanted.until)
    return first, last


def count_before(connection: Connection, scope: Scope, period: Period, moment: datetime) -> int:
    """Return how many deltas of ``period`` were recorded before ``moment``; all belong within the period's month.

    A search over the primary key: each step asks for ``_PROBES`` rows at once, so a million deltas take four steps.
    """
    start, end = period.bounds
    if moment <= start:
        return 0
    if moment >= end:
        return period.size
    low, high = 0, period.size
    while low < high:
        step = (high - low) // (_PROBES + 1) + 1
        probes = range(low + step, high + 1, step)
        asked = {"t": scope.plane, "tree": period.tree_id, "probes": list(probes)}
        for seq, rx in connection.execute(_RX_AT, asked):
            if rx < moment:
                low = seq
            else:
                high = seq - 1
                break
    return low


def records_between(
    connection: Connection, scope: Scope, period: Period, after: int, upto: int, most: int
) -> tuple[Record, ...]:
    """Return at most ``most`` of the deltas of ``period`` with ``after < seq <= upto``, oldest first."""
    return tuple(_rows(connection, scope, period, _ROWS_UP, after, upto, most))


def _rows(
    connection: Connection,
    scope: Scope,
    period: Period,
    query: Select[Any],
    after: int,
    upto: int,
    most: int,
    extra: list[ColumnElement[bool]] | None = None,
) -> Iterator[Record]:
    parameters = {"t": scope.plane, "tree": period.tree_id, "after": after, "upto": upto, "most": most}
    if extra:
        query = query.where(*extra)
        parameters["began"] = period.bounds[0].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for row in connection.execute(query, parameters):
        yield Record(
            period,
            row.seq,
            row.record_id,
            receipt_id(row.hash),
            row.rx,
            row.at,
            row.qty,
            row.total,
            row.adjusts,
            row.reason,
            row.reference,
            row.metadata,
            row.salt,
            row.entry,
        )


def _period(row: Row[*tuple[Any, ...]]) -> Period:
    return Period(
        row.tree_id,
        row.period,
        row.unit,
        row.status,
        row.size,
        row.total,
        row.vsize,
        row.psize,
        row.ptotal,
        row.proot,
        row.pepoch,
        tuple(row.breakdowns or ()),
    )
