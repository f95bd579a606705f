"""What an epoch says of each customer: the period trees that changed, and the head that states them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Connection, FromClause, Row, Select, bindparam, func, select

from shared_record.db.plain import fetch
from shared_record.db.schema import awaits_epoch, customer, epoch_member, leaf, period_tree
from shared_record.db.scope import Scope
from shared_record.ledger import merkle
from shared_record.ledger.entry import METER, OpenPeriod, head_fragment, head_text, replace_open
from shared_record.ledger.origin import number_of
from shared_record.ledger.slots import blinding

EMPTY_FRAGMENT: Final = head_fragment((), None)
CHUNK: Final = 2_000
"""Slots named in one query."""

_T: BindParameter[UUID] = bindparam("t")
_SLOTS: BindParameter[Sequence[int]] = bindparam("some", expanding=True)
_OWNER = (customer.c.tenant_id == period_tree.c.tenant_id) & (customer.c.customer_id == period_tree.c.customer_id)


def _coverable(source: FromClause, owner: ColumnElement[Any]) -> Select[Any]:
    return (
        select(
            period_tree.c.tree_id,
            owner,
            period_tree.c.period,
            period_tree.c.unit,
            period_tree.c.vsize,
            period_tree.c.frontier,
            period_tree.c.total,
            period_tree.c.status,
            period_tree.c.size,
        )
        .select_from(source)
        .where(period_tree.c.tenant_id == _T, period_tree.c.status != "erased")
        .order_by(period_tree.c.tree_id)
    )


_NEWS = awaits_epoch & ((period_tree.c.vsize > period_tree.c.psize) | (period_tree.c.status == "closing"))
CHANGED = _coverable(period_tree, period_tree.c.customer_id).where(_NEWS)
"""The trees of which the next epoch says something new."""
_CHANGED_WITH_SLOT = _coverable(period_tree.join(customer, _OWNER), customer.c.slot).where(_NEWS)
_NOT_CLOSED = _coverable(period_tree, period_tree.c.customer_id).where(
    period_tree.c.status != "closed", period_tree.c.vsize > 0
)
_INTEGRATED_TOTALS = (
    select(leaf.c.tree_id, leaf.c.total)
    .select_from(
        period_tree.join(
            leaf,
            (leaf.c.tenant_id == period_tree.c.tenant_id)
            & (leaf.c.tree_id == period_tree.c.tree_id)
            & (leaf.c.seq == period_tree.c.vsize),
        )
    )
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id.in_(bindparam("some", expanding=True)))
)
_STATED = (
    select(
        customer.c.slot,
        period_tree.c.tree_id,
        period_tree.c.period,
        period_tree.c.unit,
        period_tree.c.psize,
        period_tree.c.proot,
        period_tree.c.ptotal,
    )
    .select_from(customer.join(period_tree, _OWNER))
    .where(customer.c.tenant_id == _T, period_tree.c.status != "closed", period_tree.c.psize > 0)
)
_OPEN = _STATED.where(customer.c.slot.in_(_SLOTS))
_ALL_UNCHANGED = _STATED.where((period_tree.c.vsize == period_tree.c.psize) | (period_tree.c.status == "closing"))
"""Those of which an epoch drawn from the same snapshot says nothing new, and some more that are closing."""
_LIVING = select(
    customer.c.slot, customer.c.ref, func.coalesce(customer.c.next_head, customer.c.head).label("fragment")
).where(customer.c.tenant_id == _T, customer.c.sealed_key.is_not(None))
_EVERYONE = _LIVING.add_columns(customer.c.customer_id)
_AMONG = _LIVING.where(customer.c.slot.in_(_SLOTS))
_NEW = _LIVING.where(customer.c.slot >= bindparam("first"))
_FOLLOWING = _LIVING.where(customer.c.next_head.is_not(None))
_GONE = select(customer.c.slot).where(
    customer.c.tenant_id == _T, customer.c.slot_epoch.is_(None), customer.c.sealed_key.is_(None)
)
_PEOPLE = (
    select(customer.c.customer_id, customer.c.slot, customer.c.ref)
    .where(customer.c.tenant_id == _T, customer.c.sealed_key.is_not(None))
    .where(customer.c.slot.in_(_SLOTS))
)
_MEMBERS = (
    select(
        epoch_member.c.tree_id,
        customer.c.slot,
        period_tree.c.period,
        period_tree.c.unit,
        epoch_member.c.size,
        epoch_member.c.root,
        epoch_member.c.total,
        epoch_member.c.final,
    )
    .select_from(
        epoch_member.join(
            period_tree,
            (period_tree.c.tenant_id == epoch_member.c.tenant_id) & (period_tree.c.tree_id == epoch_member.c.tree_id),
        ).join(customer, _OWNER)
    )
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.epoch == bindparam("n"))
    .order_by(epoch_member.c.tree_id)
)
_HASHED_ERASED = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.slot == bindparam("of_slot"))
    .values(slot_epoch=bindparam("n"))
)


class Member(NamedTuple):
    """What an epoch says of one period tree, of the customer in ``slot``."""

    tree_id: str
    slot: int
    period: str
    unit: str
    size: int
    root: bytes
    total: str
    final: bool


class Person(NamedTuple):
    """A customer that is not erased; ``fragment`` is that of its head before the epoch in hand, if it has one."""

    slot: int
    ref: str
    fragment: str | None


Everyone = Mapping[object, Person]
"""All customers that are not erased, by their id in the driver's own form, which no two drivers share."""


def everyone(connection: Connection, scope: Scope) -> Everyone:
    """Read them at once, for an epoch that hashes them all: a join for each tree would find each of them again."""
    rows = _rows(connection, scope, _EVERYONE)
    return {who: Person(slot, ref, fragment) for slot, ref, fragment, who in rows}


def changed_members(connection: Connection, scope: Scope, known: Everyone | None, *, anew: bool) -> list[Member]:
    """Return what the next epoch has to say: of the trees that changed, or ``anew`` of all that are not closed.

    ``known`` is ``everyone`` of the same snapshot; ``anew`` needs it.
    """
    query = _NOT_CLOSED if anew else _CHANGED_WITH_SLOT if known is None else CHANGED
    members: list[Member] = []
    behind: list[int] = []
    make = Member._make
    for tree_id, owner, period, unit, vsize, frontier, total, status, size in _rows(connection, scope, query):
        final = status == "closing" and size == vsize
        if status == "closing" and not final and not anew:
            continue  # deltas recorded just before closing are not integrated yet; the next epoch has them
        if vsize < size:
            behind.append(len(members))  # ``total`` is of deltas too that are not integrated yet
        slot = owner if known is None else known[owner].slot
        root = merkle.frontier_root(merkle.split_hashes(frontier))
        members.append(make((tree_id, slot, period, unit, vsize, root, total, final)))
    totals = dict(_of_some(connection, scope, _INTEGRATED_TOTALS, [members[place].tree_id for place in behind]))
    for place in behind:
        members[place] = members[place]._replace(total=totals.get(members[place].tree_id, "0"))
    return members


def members_of(connection: Connection, scope: Scope, n: int) -> list[Member]:
    """Return what epoch ``n`` says."""
    return [Member._make(row) for row in fetch(connection, _MEMBERS, {"t": scope.plane, "n": n})]


def fragments_of(
    connection: Connection, scope: Scope, members: Iterable[Member], known: Everyone | None, *, anew: bool
) -> dict[int, str]:
    """Return the new head fragment of each customer that a member belongs to, by slot.

    ``known`` is ``everyone`` of the same snapshot; without it, only those concerned are read.
    ``anew``: ``members`` are all periods that are not closed, so nobody has another.
    """
    by_slot: dict[int, list[OpenPeriod]] = {}
    for tree_id, slot, period, unit, size, root, total, _ in members:
        by_slot.setdefault(slot, []).append(_open_period(tree_id, period, unit, size, root, total))
    if not anew:
        stated = {member.tree_id for member in members}
        most = known is not None and len(by_slot) > len(known) // 8
        found = _rows(connection, scope, _ALL_UNCHANGED) if most else _of_some(connection, scope, _OPEN, by_slot)
        for slot, tree_id, period, unit, size, root, total in found:
            if slot in by_slot and tree_id not in stated:
                by_slot[slot].append(_open_period(tree_id, period, unit, size, root, total))
    for rows in by_slot.values():
        if len(rows) > 1:
            rows.sort(key=lambda row: row.period)
    concerned = persons(connection, scope, by_slot) if known is None else known.values()
    return {
        slot: replace_open(fragment or EMPTY_FRAGMENT, by_slot[slot])
        for slot, _, fragment in concerned
        if slot in by_slot
    }


def persons(connection: Connection, scope: Scope, slots: Iterable[int]) -> Iterator[Person]:
    """Yield the customers in ``slots`` that are not erased."""
    return map(Person._make, _of_some(connection, scope, _AMONG, slots))


def people(connection: Connection, scope: Scope, slots: Iterable[int]) -> Iterator[Row[UUID, int, str]]:
    """Yield id, slot and reference of the customers in ``slots`` that are not erased."""
    for some in _chunks(slots):
        yield from connection.execute(_PEOPLE, {"t": scope.plane, "some": some})


class Heads:
    """Hashes the heads of one epoch, from the customers' rows and the new fragments."""

    def __init__(self, secret: bytes, n: int, fragments: Mapping[int, str]) -> None:
        self._secret, self._n, self._number, self._fragments = secret, n, number_of(n), fragments

    def text(self, slot: int, ref: str, before: str | None) -> str:
        """Return the head of one customer, whose fragment was ``before`` unless this epoch has a new one."""
        fragment = self._fragments.get(slot) or before or EMPTY_FRAGMENT
        return head_text(ref, self._number, fragment, blinding(self._secret, slot, self._n))

    def hash(self, slot: int, ref: str, before: str | None) -> bytes:
        """Return its leaf hash."""
        return merkle.leaf_hash(self.text(slot, ref, before).encode())


@dataclass(frozen=True, slots=True)
class Hashed:
    """The slots that an epoch hashes; ``None`` stands for a random leaf, as it does for those of ``erased``."""

    leaves: dict[int, bytes | None]
    erased: tuple[int, ...]


def hash_all(connection: Connection, scope: Scope, heads: Heads, known: Everyone) -> Hashed:
    """Hash every customer's head; ``known`` is ``everyone`` of the same snapshot."""
    leaves: dict[int, bytes | None] = {slot: heads.hash(slot, ref, fragment) for slot, ref, fragment in known.values()}
    return Hashed(leaves, _gone(connection, scope))


def hash_changed(connection: Connection, scope: Scope, heads: Heads, slots: Iterable[int], first_new: int) -> Hashed:
    """Hash the heads in ``slots``, of those whose period was closed before, and slots that are new or erased."""
    gone = _gone(connection, scope)
    leaves: dict[int, bytes | None] = dict.fromkeys(gone)
    new = fetch(connection, _NEW, {"t": scope.plane, "first": first_new})
    changed = (*new, *_rows(connection, scope, _FOLLOWING))
    leaves |= {slot: heads.hash(slot, ref, fragment) for slot, ref, fragment in changed}
    leaves |= {person.slot: heads.hash(*person) for person in persons(connection, scope, slots)}
    return Hashed(leaves, gone)


def mark_erased(connection: Connection, scope: Scope, n: int, slots: Sequence[int]) -> None:
    """Note that epoch ``n`` gave these slots, of erased customers, a random leaf.

    One erased since the epoch was read is not among them: the next epoch gives its slot a random leaf.
    """
    if slots:
        connection.execute(_HASHED_ERASED, [{"t": scope.plane, "n": n, "of_slot": slot} for slot in slots])


def _open_period(tree_id: str, period: str, unit: str, size: int, root: bytes, total: str) -> OpenPeriod:
    return OpenPeriod(period, tree_id, root, size, ((METER, unit, size, total),))


def _gone(connection: Connection, scope: Scope) -> tuple[int, ...]:
    return tuple(slot for (slot,) in _rows(connection, scope, _GONE))


def _rows(connection: Connection, scope: Scope, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
    return fetch(connection, query, {"t": scope.plane})


def _of_some(
    connection: Connection, scope: Scope, query: Select[Any], places: Iterable[int] | Iterable[str]
) -> Iterator[tuple[Any, ...]]:
    for some in _chunks(places):
        yield from fetch(connection, query, {"t": scope.plane, "some": some})


def _chunks(places: Iterable[int] | Iterable[str]) -> Iterator[list[Any]]:
    rest: Iterator[Any] = iter(sorted(places))
    while some := list(islice(rest, CHUNK)):
        yield some
