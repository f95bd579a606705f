"""Receipts: stable documents for one customer and one window, half-open in recorded time.

A receipt is fixed when it is issued: which deltas, how many, from which total to which, and the root over their leaf
hashes. It is ``QUEUED`` until a published checkpoint covers its last delta. The same window with nothing new is the
same receipt; later deltas make a later revision, and the earlier one stays valid and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, select

from shared_record.clock import Clock
from shared_record.db.schema import customer, leaf, node, period_tree, receipt
from shared_record.db.scope import Scope
from shared_record.identifiers import new_identifier
from shared_record.ledger import merkle
from shared_record.ledger.amounts import Total, subtract
from shared_record.ledger.records import Filter, Period, list_periods, span, total_at

_T: BindParameter[UUID] = bindparam("t")
_LOCK = (
    select(customer.c.customer_id)
    .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
    .with_for_update()
)
_NEWEST = (
    select(receipt)
    .where(
        receipt.c.tenant_id == _T,
        receipt.c.customer_id == bindparam("who"),
        receipt.c.start == bindparam("since"),
        receipt.c.end == bindparam("until"),
    )
    .order_by(receipt.c.revision.desc())
    .limit(1)
)
_BY_ID = select(receipt).where(receipt.c.tenant_id == _T, receipt.c.receipt_id == bindparam("id"))
_OF_CUSTOMER = (
    select(receipt)
    .where(receipt.c.tenant_id == _T, receipt.c.customer_id == bindparam("who"))
    .order_by(receipt.c.start.desc(), receipt.c.end.desc(), receipt.c.revision.desc())
)
_TREES = select(period_tree.c.tree_id, period_tree.c.psize).where(
    period_tree.c.tenant_id == _T, period_tree.c.tree_id.in_(bindparam("trees", expanding=True))
)
_HASHES = (
    select(leaf.c.hash)
    .where(
        leaf.c.tenant_id == _T,
        leaf.c.tree_id == bindparam("tree"),
        leaf.c.seq > bindparam("first"),
        leaf.c.seq <= bindparam("last"),
    )
    .order_by(leaf.c.seq)
)
_NODES = (
    select(node.c.hash)
    .where(
        node.c.tenant_id == _T,
        node.c.tree_id == bindparam("tree"),
        node.c.level == bindparam("lvl"),
        node.c.idx >= bindparam("first"),
        node.c.idx < bindparam("last"),
    )
    .order_by(node.c.idx)
)


@dataclass(frozen=True, slots=True)
class Span:
    """The part of one period that a window takes in: the deltas after ``first`` up to ``last``."""

    tree_id: str
    period: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """One receipt. ``opening`` and ``closing`` are the customer's totals over all periods before and after it."""

    receipt_id: str
    customer_id: UUID
    start: datetime
    end: datetime
    revision: int
    spans: tuple[Span, ...]
    size: int
    opening: str
    closing: str
    unit: str
    proof_root: bytes
    issued_at: datetime

    @property
    def net(self) -> str:
        """The exact sum of the deltas in the window."""
        return subtract(self.closing, self.opening)


def issue_receipt(
    connection: Connection, clock: Clock, scope: Scope, customer_id: UUID, start: datetime, end: datetime
) -> Receipt | None:
    """Return the receipt for the window ``[start, end)`` as it now stands, issuing a revision if there is anything new.

    An empty window has no receipt: ``None``. The customer's row is locked, so a window is not issued twice at once.
    """
    of_customer = {"t": scope.plane, "who": customer_id}
    connection.execute(_LOCK, of_customer).one()
    periods = list(reversed(list_periods(connection, scope, customer_id)))
    spans, opening, closing = _measure(connection, scope, periods, start, end)
    size = sum(one.last - one.first for one in spans)
    if size == 0:
        return None
    newest = connection.execute(_NEWEST, of_customer | {"since": start, "until": end}).one_or_none()
    if newest is not None and _receipt(newest).spans == spans:
        return _receipt(newest)
    row = {
        "tenant_id": scope.plane,
        "receipt_id": new_identifier("chk"),
        "customer_id": customer_id,
        "start": start,
        "end": end,
        "revision": 1 if newest is None else newest.revision + 1,
        "spans": [{"tree": s.tree_id, "period": s.period, "from": s.first, "to": s.last} for s in spans],
        "size": size,
        "opening": opening,
        "closing": closing,
        "unit": next(one.unit for one in reversed(periods) if one.tree_id == spans[-1].tree_id),
        "proof_root": proof_root(connection, scope, spans),
        "issued_at": clock.now(),
    }
    connection.execute(receipt.insert(), row)
    return find_receipt(connection, scope, str(row["receipt_id"]))


def find_receipt(connection: Connection, scope: Scope, receipt_id: str) -> Receipt | None:
    """Return one receipt, or ``None``."""
    row = connection.execute(_BY_ID, {"t": scope.plane, "id": receipt_id}).one_or_none()
    return None if row is None else _receipt(row)


def list_receipts(connection: Connection, scope: Scope, customer_id: UUID) -> list[Receipt]:
    """Return all receipts of a customer, newest window first, newest revision of each first."""
    rows = connection.execute(_OF_CUSTOMER, {"t": scope.plane, "who": customer_id})
    return [_receipt(row) for row in rows]


def later_revision(connection: Connection, scope: Scope, found: Receipt) -> Receipt | None:
    """Return the newest revision of the same window, if it is later than ``found``."""
    row = connection.execute(
        _NEWEST, {"t": scope.plane, "who": found.customer_id, "since": found.start, "until": found.end}
    ).one()
    return _receipt(row) if row.revision > found.revision else None


def is_covered(connection: Connection, scope: Scope, found: Receipt) -> bool:
    """Tell whether a published checkpoint covers every delta of a receipt."""
    rows = connection.execute(_TREES, {"t": scope.plane, "trees": [one.tree_id for one in found.spans]})
    covered = {row.tree_id: row.psize for row in rows}
    return all(one.last <= covered[one.tree_id] for one in found.spans)


def proof_root(connection: Connection, scope: Scope, spans: Iterable[Span]) -> bytes:
    """Return the RFC 6962 root over the leaf hashes of ``spans`` in order: for one whole period its record root."""
    frontier: list[bytes] = []
    size = 0
    for one in spans:
        hashes = connection.execute(
            _HASHES, {"t": scope.plane, "tree": one.tree_id, "first": one.first, "last": one.last}
        ).scalars()
        size = merkle.push(frontier, size, hashes)
    return merkle.frontier_root(frontier)


def tree_reader(connection: Connection, scope: Scope, tree_id: str) -> merkle.ReadHashes:
    """Return a reader over the integrated hashes of one period tree."""
    return hash_reader(connection, _HASHES, _NODES, {"t": scope.plane, "tree": tree_id})


def hash_reader(
    connection: Connection, leaves: Select[Any], nodes: Select[Any], of: Mapping[str, Any]
) -> merkle.ReadHashes:
    """Return a reader over stored hashes: ``leaves`` from first to last, ``nodes`` by level too, bound to ``of``."""

    def read(level: int, first: int, last: int) -> bytes:
        parameters = {**of, "first": first, "last": last}
        query = nodes if level else leaves
        return b"".join(connection.execute(query, parameters | {"lvl": level} if level else parameters).scalars())

    return read


def _measure(
    connection: Connection, scope: Scope, periods: list[Period], start: datetime, end: datetime
) -> tuple[tuple[Span, ...], str, str]:
    """Return what of ``periods`` (oldest first) lies in the window, and the totals before and after it."""
    spans, opening, closing = [], Total(), Total()
    wanted = Filter(since=start, until=end)
    for period in periods:
        first, last = _within(connection, scope, period, wanted)
        opening.add(total_at(connection, scope, period, first))
        closing.add(total_at(connection, scope, period, last))
        if last > first:
            spans.append(Span(period.tree_id, period.period, first, last))
    return tuple(spans), opening.text, closing.text


def _within(connection: Connection, scope: Scope, period: Period, wanted: Filter) -> tuple[int, int]:
    begin, end = period.bounds
    assert wanted.since is not None and wanted.until is not None  # noqa: PT018  set by the caller
    if wanted.until <= begin:
        return 0, 0
    if wanted.since >= end:
        return period.size, period.size
    return span(connection, scope, period, wanted)


def _receipt(row: Row[*tuple[Any, ...]]) -> Receipt:
    spans = tuple(Span(one["tree"], one["period"], one["from"], one["to"]) for one in row.spans)
    return Receipt(
        row.receipt_id,
        row.customer_id,
        row.start,
        row.end,
        row.revision,
        spans,
        row.size,
        row.opening,
        row.closing,
        row.unit,
        row.proof_root,
        row.issued_at,
    )
