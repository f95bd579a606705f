"""What an epoch says of each customer: the period trees that changed, and the head that states them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, func, select

from shared_record.db.plain import fetch
from shared_record.db.schema import customer, epoch_member, leaf, period_tree
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
_COVERABLE = (
    select(
        period_tree.c.tree_id,
        customer.c.slot,
        period_tree.c.period,
        period_tree.c.unit,
        period_tree.c.vsize,
        period_tree.c.frontier,
        leaf.c.total,
        period_tree.c.status,
        period_tree.c.size,
    )
    .select_from(
        period_tree.join(customer, _OWNER).outerjoin(
            leaf,
            (leaf.c.tenant_id == period_tree.c.tenant_id)
            & (leaf.c.tree_id == period_tree.c.tree_id)
            & (leaf.c.seq == period_tree.c.vsize),
        )
    )
    .where(period_tree.c.tenant_id == _T, period_tree.c.status != "erased")
    .order_by(period_tree.c.tree_id)
)
CHANGED = _COVERABLE.where((period_tree.c.vsize > period_tree.c.psize) | (period_tree.c.status == "closing"))
"""The trees of which the next epoch says something new."""
_NOT_CLOSED = _COVERABLE.where(period_tree.c.status != "closed", period_tree.c.vsize > 0)
_OPEN = (
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
    .where(
        customer.c.tenant_id == _T,
        customer.c.slot.in_(_SLOTS),
        period_tree.c.status != "closed",
        period_tree.c.psize > 0,
    )
)
_LIVING = select(
    customer.c.slot, customer.c.ref, func.coalesce(customer.c.next_head, customer.c.head).label("fragment")
).where(customer.c.tenant_id == _T, customer.c.sealed_key.is_not(None))
_AMONG = _LIVING.where(customer.c.slot.in_(_SLOTS))
_NEW = _LIVING.where(customer.c.slot_epoch.is_(None))
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
_HASHED_LIVING = (
    customer.update()
    .where(
        customer.c.tenant_id == _T,
        customer.c.slot_epoch.is_(None),
        customer.c.slot < bindparam("slots"),
        customer.c.sealed_key.is_not(None),
    )
    .values(slot_epoch=bindparam("n"))
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

    @property
    def open_period(self) -> OpenPeriod:
        """The row of the head that states it."""
        return _open_period(self.tree_id, self.period, self.unit, self.size, self.root, self.total)


class Person(NamedTuple):
    """A customer that is not erased; ``fragment`` is that of its head before the epoch in hand, if it has one."""

    slot: int
    ref: str
    fragment: str | None


def changed_members(connection: Connection, scope: Scope, *, anew: bool) -> list[Member]:
    """Return what the next epoch has to say: of the trees that changed, or ``anew`` of all that are not closed."""
    members = []
    for tree_id, slot, period, unit, vsize, frontier, total, status, size in fetch(
        connection, _NOT_CLOSED if anew else CHANGED, {"t": scope.plane}
    ):
        final = status == "closing" and size == vsize
        if status == "closing" and not final and not anew:
            continue  # deltas recorded just before closing are not integrated yet; the next epoch has them
        root = merkle.frontier_root(merkle.split_hashes(frontier))
        members.append(Member(tree_id, slot, period, unit, vsize, root, total or "0", final))
    return members


def members_of(connection: Connection, scope: Scope, n: int) -> list[Member]:
    """Return what epoch ``n`` says."""
    return [Member._make(row) for row in fetch(connection, _MEMBERS, {"t": scope.plane, "n": n})]


def fragments_of(connection: Connection, scope: Scope, members: Iterable[Member], *, anew: bool) -> dict[int, str]:
    """Return the new head fragment of each customer that a member belongs to, by slot.

    ``anew``: ``members`` are all periods that are not closed, so nobody has another.
    """
    by_slot: dict[int, dict[str, OpenPeriod]] = {}
    for member in members:
        by_slot.setdefault(member.slot, {})[member.tree_id] = member.open_period
    if not anew:
        for slot, tree_id, period, unit, size, root, total in _of_slots(connection, scope, _OPEN, by_slot):
            by_slot[slot].setdefault(tree_id, _open_period(tree_id, period, unit, size, root, total))
    concerned = map(Person._make, _rows(connection, scope, _LIVING)) if anew else persons(connection, scope, by_slot)
    return {
        person.slot: replace_open(
            person.fragment or EMPTY_FRAGMENT, sorted(by_slot[person.slot].values(), key=lambda row: row.period)
        )
        for person in concerned
        if person.slot in by_slot
    }


def persons(connection: Connection, scope: Scope, slots: Iterable[int]) -> Iterator[Person]:
    """Yield the customers in ``slots`` that are not erased."""
    return map(Person._make, _of_slots(connection, scope, _AMONG, slots))


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


def hash_all(connection: Connection, scope: Scope, heads: Heads) -> Hashed:
    """Hash every customer's head."""
    leaves: dict[int, bytes | None] = {
        slot: heads.hash(slot, ref, fragment) for slot, ref, fragment in _rows(connection, scope, _LIVING)
    }
    return Hashed(leaves, _gone(connection, scope))


def hash_changed(connection: Connection, scope: Scope, heads: Heads, slots: Iterable[int]) -> Hashed:
    """Hash the heads in ``slots``, of those whose period was closed before, and slots that are new or erased."""
    gone = _gone(connection, scope)
    leaves: dict[int, bytes | None] = dict.fromkeys(gone)
    changed = (*_rows(connection, scope, _NEW), *_rows(connection, scope, _FOLLOWING))
    leaves |= {slot: heads.hash(slot, ref, fragment) for slot, ref, fragment in changed}
    leaves |= {person.slot: heads.hash(*person) for person in persons(connection, scope, slots)}
    return Hashed(leaves, gone)


def mark_hashed(connection: Connection, scope: Scope, n: int, slots: int, erased: Sequence[int]) -> None:
    """Note that epoch ``n`` hashed the first ``slots`` slots as they were when it was read.

    A customer made since has a higher slot. One erased since is not among ``erased`` and no longer among the living:
    its slot stays unhashed, and the next epoch gives it a random leaf.
    """
    connection.execute(_HASHED_LIVING, {"t": scope.plane, "n": n, "slots": slots})
    if erased:
        connection.execute(_HASHED_ERASED, [{"t": scope.plane, "n": n, "of_slot": slot} for slot in erased])


def _open_period(tree_id: str, period: str, unit: str, size: int, root: bytes, total: str) -> OpenPeriod:
    return OpenPeriod(period, tree_id, root, size, ((METER, unit, size, total),))


def _gone(connection: Connection, scope: Scope) -> tuple[int, ...]:
    return tuple(slot for (slot,) in _rows(connection, scope, _GONE))


def _rows(connection: Connection, scope: Scope, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
    return fetch(connection, query, {"t": scope.plane})


def _of_slots(
    connection: Connection, scope: Scope, query: Select[Any], slots: Iterable[int]
) -> Iterator[tuple[Any, ...]]:
    for some in _chunks(slots):
        yield from fetch(connection, query, {"t": scope.plane, "some": some})


def _chunks(slots: Iterable[int]) -> Iterator[list[int]]:
    rest = iter(sorted(slots))
    while some := list(islice(rest, CHUNK)):
        yield some
