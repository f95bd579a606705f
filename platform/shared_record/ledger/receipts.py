"""Receipts: stable documents for one customer and one window, half-open in recorded time.

A receipt is fixed when it is issued: which deltas, how many, from which total to which, and the root over their leaf
hashes. It is ``QUEUED`` until a published checkpoint covers its last delta. The same window with nothing new is the
same receipt; later deltas make a later revision, and the earlier one stays valid and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, Select, bindparam, func, or_, select

from shared_record.clock import Clock
from shared_record.db.schema import customer, leaf, node, period_tree, receipt
from shared_record.db.scope import Scope
from shared_record.identifiers import new_identifier
from shared_record.ledger import merkle
from shared_record.ledger.amounts import subtract
from shared_record.ledger.announce import announce_receipt
from shared_record.ledger.records import list_periods
from shared_record.ledger.windows import Part, Place, Window, measure

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
_later = receipt.alias("later")
_PAGE = (
    select(
        receipt,
        select(_later.c.receipt_id)
        .where(
            _later.c.tenant_id == _T,
            _later.c.customer_id == receipt.c.customer_id,
            _later.c.start == receipt.c.start,
            _later.c.end == receipt.c.end,
            _later.c.revision > receipt.c.revision,
        )
        .exists()
        .label("superseded"),
    )
    .where(receipt.c.tenant_id == _T, receipt.c.customer_id == bindparam("who"))
    .order_by(receipt.c.issued_at.desc(), receipt.c.revision.desc(), receipt.c.receipt_id.desc())
    .limit(bindparam("most"))
)
_AT = bindparam("at", type_=receipt.c.issued_at.type)
_REVISION: BindParameter[int] = bindparam("nth")
_PAGE_OLDER = _PAGE.where(
    or_(
        receipt.c.issued_at < _AT,
        (receipt.c.issued_at == _AT) & (receipt.c.revision < _REVISION),
        (receipt.c.issued_at == _AT) & (receipt.c.revision == _REVISION) & (receipt.c.receipt_id < bindparam("id")),
    )
)
_BY_ROOT = (
    select(receipt)
    .where(
        receipt.c.tenant_id == _T, receipt.c.customer_id == bindparam("who"), receipt.c.proof_root == bindparam("root")
    )
    .order_by(receipt.c.issued_at.desc(), receipt.c.receipt_id.desc())
    .limit(1)
)
_WITH_OWNER = (
    select(receipt, customer.c.external_id)
    .select_from(
        receipt.join(
            customer, (customer.c.tenant_id == receipt.c.tenant_id) & (customer.c.customer_id == receipt.c.customer_id)
        )
    )
    .where(receipt.c.tenant_id == _T, customer.c.sealed_key.is_not(None))
)
_OWNED = _WITH_OWNER.where(receipt.c.receipt_id == bindparam("id"))
_LIST = (
    _WITH_OWNER.order_by(receipt.c.issued_at.desc(), receipt.c.receipt_id.desc())
    .limit(bindparam("most"))
    .offset(bindparam("skip"))
)
_INTEGRATED = select(period_tree.c.vsize, period_tree.c.frontier).where(
    period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree")
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
    window = measure(connection, scope, customer_id, start, end)
    if not window.parts:
        return None
    newest = connection.execute(_NEWEST, of_customer | {"since": start, "until": end}).one_or_none()
    if newest is not None and _receipt(newest).spans == spans_of(window):
        return _receipt(newest)
    made = _draft(connection, clock, scope, customer_id, start, end, window)
    row = {
        "tenant_id": scope.plane,
        "receipt_id": new_identifier("chk"),
        "customer_id": customer_id,
        "start": start,
        "end": end,
        "revision": 1 if newest is None else newest.revision + 1,
        "spans": [{"tree": s.tree_id, "period": s.period, "from": s.first, "to": s.last} for s in made.spans],
        "size": made.size,
        "opening": made.opening,
        "closing": made.closing,
        "unit": made.unit,
        "proof_root": made.proof_root,
        "issued_at": made.issued_at,
    }
    connection.execute(receipt.insert(), row)
    found = find_receipt(connection, scope, str(row["receipt_id"]))
    assert found is not None  # it was written just now
    announce_receipt(connection, clock, scope, found, covered=is_covered(connection, scope, found))
    return found


def preview_receipt(
    connection: Connection, clock: Clock, scope: Scope, customer_id: UUID, start: datetime, end: datetime
) -> Receipt | None:
    """Return what ``issue_receipt`` would now issue, without an id (empty) and stored nowhere; ``None`` if empty."""
    window = measure(connection, scope, customer_id, start, end)
    return _draft(connection, clock, scope, customer_id, start, end, window) if window.parts else None


def spans_of(window: Window) -> tuple[Span, ...]:
    """Return the parts of ``window`` as a receipt states them."""
    return tuple(Span(part.period.tree_id, part.period.period, part.first, part.last) for part in window.parts)


def parts_of(connection: Connection, scope: Scope, customer_id: UUID, spans: Sequence[Span]) -> list[Part]:
    """Return ``spans`` of a customer with their periods as they now stand."""
    periods = {period.tree_id: period for period in list_periods(connection, scope, customer_id)} if spans else {}
    return [Part(periods[one.tree_id], one.first, one.last) for one in spans]


def find_receipt(connection: Connection, scope: Scope, receipt_id: str) -> Receipt | None:
    """Return one receipt, or ``None``."""
    row = connection.execute(_BY_ID, {"t": scope.plane, "id": receipt_id}).one_or_none()
    return None if row is None else _receipt(row)


def find_owned_receipt(connection: Connection, scope: Scope, receipt_id: str) -> tuple[str, Receipt] | None:
    """Return one receipt with its customer's external id; ``None`` also where that customer was erased."""
    row = connection.execute(_OWNED, {"t": scope.plane, "id": receipt_id}).one_or_none()
    return None if row is None else (row.external_id, _receipt(row))


def find_receipt_by_root(connection: Connection, scope: Scope, customer_id: UUID, root: bytes) -> Receipt | None:
    """Return the newest receipt of a customer with this proof root, or ``None``."""
    row = connection.execute(_BY_ROOT, {"t": scope.plane, "who": customer_id, "root": root}).one_or_none()
    return None if row is None else _receipt(row)


def page_receipts(
    connection: Connection,
    scope: Scope,
    *,
    customer_id: UUID | None = None,
    within: tuple[datetime, datetime] | None = None,
    limit: int,
    offset: int,
) -> tuple[list[tuple[str, Receipt]], int]:
    """Return receipts with their customers' external ids, newest first, and how many there are in all.

    ``within``: only those whose window lies in this one.
    """
    which: list[ColumnElement[bool]] = []
    parameters: dict[str, Any] = {"t": scope.plane}
    if customer_id is not None:
        which.append(receipt.c.customer_id == bindparam("who"))
        parameters["who"] = customer_id
    if within is not None:
        which += [receipt.c.start >= bindparam("since"), receipt.c.end <= bindparam("until")]
        parameters |= {"since": within[0], "until": within[1]}
    total: int = connection.execute(_WITH_OWNER.where(*which).with_only_columns(func.count()), parameters).scalar_one()
    rows = connection.execute(_LIST.where(*which), parameters | {"most": limit, "skip": offset})
    return [(row.external_id, _receipt(row)) for row in rows], total


def list_receipts(connection: Connection, scope: Scope, customer_id: UUID) -> list[Receipt]:
    """Return all receipts of a customer, newest window first, newest revision of each first."""
    rows = connection.execute(_OF_CUSTOMER, {"t": scope.plane, "who": customer_id})
    return [_receipt(row) for row in rows]


def turn_receipts(
    connection: Connection, scope: Scope, customer_id: UUID, *, most: int, after: Receipt | None = None
) -> list[tuple[Receipt, bool]]:
    """Return receipts of a customer, newest first, each with whether a later revision of its window exists.

    ``after``: the last of the page before.
    """
    asked: dict[str, Any] = {"t": scope.plane, "who": customer_id, "most": most}
    if after is not None:
        asked |= {"at": after.issued_at, "nth": after.revision, "id": after.receipt_id}
    rows = connection.execute(_PAGE if after is None else _PAGE_OLDER, asked)
    return [(_receipt(row), bool(row.superseded)) for row in rows]


def later_revision(connection: Connection, scope: Scope, found: Receipt) -> Receipt | None:
    """Return the newest revision of the same window, if it is later than ``found``."""
    row = connection.execute(
        _NEWEST, {"t": scope.plane, "who": found.customer_id, "since": found.start, "until": found.end}
    ).one()
    return _receipt(row) if row.revision > found.revision else None


def end_of(found: Receipt, recorded_at: datetime) -> Place:
    """Return the place of the last delta of a receipt, which was ``recorded_at``."""
    return Place(found.spans[-1].period, found.spans[-1].last, recorded_at)


def is_covered(connection: Connection, scope: Scope, found: Receipt) -> bool:
    """Tell whether a published checkpoint covers every delta of a receipt."""
    return found in list_covered(connection, scope, [found])


def list_covered(connection: Connection, scope: Scope, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Return those of ``receipts`` of which a published checkpoint covers every delta."""
    trees = sorted({span.tree_id for one in receipts for span in one.spans})
    covered: dict[str, int] = {}
    for start in range(0, len(trees), _AT_ONCE):
        rows = connection.execute(_TREES, {"t": scope.plane, "trees": trees[start : start + _AT_ONCE]})
        covered |= {row.tree_id: row.psize for row in rows}
    return [one for one in receipts if all(span.last <= covered[span.tree_id] for span in one.spans)]


_AT_ONCE = 500


def proof_root(connection: Connection, scope: Scope, spans: Sequence[Span]) -> bytes:
    """Return the RFC 6962 root over the leaf hashes of ``spans`` in order: for one whole period its record root.

    Of one span that starts with its period, what is integrated comes from stored subtrees; every other leaf is read.
    """
    frontier: list[bytes] = []
    size = done = 0
    if len(spans) == 1 and spans[0].first == 0:
        tree = spans[0].tree_id
        row = connection.execute(_INTEGRATED, {"t": scope.plane, "tree": tree}).one()
        if row.vsize >= spans[0].last:
            return merkle.range_root(0, spans[0].last, tree_reader(connection, scope, tree))
        size = done = row.vsize
        frontier = merkle.split_hashes(row.frontier)
    for one in spans:
        hashes = connection.execute(
            _HASHES, {"t": scope.plane, "tree": one.tree_id, "first": max(one.first, done), "last": one.last}
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


def _draft(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    customer_id: UUID,
    start: datetime,
    end: datetime,
    window: Window,
) -> Receipt:
    spans = spans_of(window)
    return Receipt(
        "",
        customer_id,
        start,
        end,
        0,
        spans,
        window.recorded.count,
        window.opening,
        window.closing,
        window.parts[-1].period.unit,
        proof_root(connection, scope, spans),
        clock.now(),
    )


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
