"""Breakdowns: the deltas of a period counted by keys of their metadata, in the transaction that records them.

Which keys is frozen when a period tree is begun, so that the counts of a key, with what has no value under it, always
come to the whole period. The first ``MAX_VALUES`` values of a key that a period sees, in the order of its deltas, are
counted one by one; every later one counts as ``OTHER``. So the ledger alone decides what is counted where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from shared_record.db.bulk import execute_each, insert_rows
from shared_record.db.schema import breakdown, delta_detail, leaf, period_tree
from shared_record.db.scope import Scope
from shared_record.ledger.amounts import Total, subtract

MAX_VALUES = 1_000
OTHER = ""
"""Stands for all values beyond ``MAX_VALUES``; no value is empty."""

_VALUE = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
_AT_ONCE = 5_000
_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_IN_TREE = (breakdown.c.tenant_id == _T) & (breakdown.c.tree_id == _TREE)
_ONE = _IN_TREE & (breakdown.c.key == bindparam("of_key")) & (breakdown.c.value == bindparam("of_value"))
_COUNTED = select(breakdown.c.tree_id, breakdown.c.key, breakdown.c.value, breakdown.c.size, breakdown.c.total).where(
    breakdown.c.tenant_id == _T,
    breakdown.c.tree_id.in_(bindparam("trees", expanding=True)),
    breakdown.c.value.in_(bindparam("values", expanding=True)),
)
_HOW_MANY = (
    select(breakdown.c.tree_id, breakdown.c.key, func.count().label("values"))
    .where(
        breakdown.c.tenant_id == _T,
        breakdown.c.tree_id.in_(bindparam("trees", expanding=True)),
        breakdown.c.value != OTHER,
    )
    .group_by(breakdown.c.tree_id, breakdown.c.key)
)
_UPDATE = breakdown.update().where(_ONE).values(size=bindparam("new_size"), total=bindparam("new_total"))
_DELETE = breakdown.delete().where(_ONE)
_DELETE_TREE = breakdown.delete().where(_IN_TREE)
_OF_TREE = select(breakdown.c.key, breakdown.c.value, breakdown.c.size, breakdown.c.total).where(_IN_TREE)
_FIND = select(breakdown.c.size, breakdown.c.total).where(_ONE)
_LOCK = (
    select(period_tree.c.breakdowns)
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == _TREE)
    .with_for_update(key_share=True)
)
_DETAIL = (
    select(delta_detail.c.metadata, leaf.c.qty)
    .select_from(
        leaf.join(
            delta_detail,
            (delta_detail.c.tenant_id == leaf.c.tenant_id)
            & (delta_detail.c.tree_id == leaf.c.tree_id)
            & (delta_detail.c.seq == leaf.c.seq),
        )
    )
    .where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.seq == bindparam("seq"))
)
_HAS_DETAIL = select(delta_detail.c.seq).where(
    delta_detail.c.tenant_id == _T, delta_detail.c.tree_id == _TREE, delta_detail.c.seq == 1
)

Place = tuple[str, str, str]
"""Tree, key and value."""


@dataclass(frozen=True, slots=True)
class Part:
    """How many deltas have ``value``, and their exact sum."""

    value: str
    count: int
    total: str


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One period by one key: ``parts`` by sum, largest first. ``other`` and ``without`` (a value) may be empty.

    Counts and sums of all of it come to those of the period.
    """

    key: str
    parts: tuple[Part, ...]
    other: Part
    without: Part


def values_of(metadata: str | None, keys: Sequence[str]) -> dict[str, str]:
    """Return the value of each of ``keys`` in metadata (JSON text) that has one.

    A value is a text of 1 to 128 characters without control characters, a number or a truth value as JSON writes it.
    """
    if metadata is None:
        return {}
    members = json.loads(metadata, parse_int=str, parse_float=str)
    found = {}
    for key in keys if isinstance(members, dict) else ():
        value = members.get(key)
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, str) and is_value(value):
            found[key] = value
    return found


def is_value(text: str) -> bool:
    """Tell whether a delta can have ``text`` as a value."""
    return _VALUE.fullmatch(text) is not None


def count_values(
    connection: Connection,
    scope: Scope,
    keys: Mapping[str, Sequence[str]],
    leaves: Iterable[Mapping[str, Any]],
    details: Iterable[Mapping[str, Any]],
) -> None:
    """Count new deltas (rows of ``leaf`` and ``delta_detail``, in step) by the keys of each tree that has any.

    The trees must be locked. At most four statements, however many deltas there are.
    """
    added: dict[Place, _Added] = {}
    for row, detail in zip(leaves, details, strict=True):
        tree_id = row["tree_id"]
        for key, value in values_of(detail["metadata"], keys.get(tree_id, ())).items():
            added.setdefault((tree_id, key, value), _Added()).add(row["qty"])
    if added:
        _store(connection, scope, added)


def read_breakdowns(
    connection: Connection, scope: Scope, tree_id: str, keys: Sequence[str], size: int, total: str
) -> list[Breakdown]:
    """Return the breakdown of a period by each of its ``keys``; ``size`` and ``total`` are the period's own.

    ``connection`` should be a snapshot.
    """
    if not keys:
        return []
    parts: dict[str, list[Part]] = {key: [] for key in keys}
    for row in connection.execute(_OF_TREE, {"t": scope.plane, "tree": tree_id}):
        parts[row.key].append(Part(row.value, row.size, row.total))
    return [_breakdown(key, parts[key], size, total) for key in keys]


def find_part(connection: Connection, scope: Scope, tree_id: str, key: str, value: str) -> Part | None:
    """Return count and sum of one value of a period.

    ``None`` where it is not counted by itself, or where retention has begun to remove what tells its deltas apart.
    """
    if value == OTHER or not has_details(connection, scope, tree_id):
        return None
    place = {"t": scope.plane, "tree": tree_id, "of_key": key, "of_value": value}
    row = connection.execute(_FIND, place).one_or_none()
    return None if row is None else Part(value, row.size, row.total)


def has_details(connection: Connection, scope: Scope, tree_id: str) -> bool:
    """Tell whether retention has left the details of a period alone: it removes the oldest first."""
    return connection.execute(_HAS_DETAIL, {"t": scope.plane, "tree": tree_id}).one_or_none() is not None


def forget_delta(connection: Connection, scope: Scope, tree_id: str, seq: int) -> None:
    """Take one delta, whose details are about to be removed, out of the values that it is counted under."""
    of_tree = {"t": scope.plane, "tree": tree_id}
    keys = connection.execute(_LOCK, of_tree).scalar_one()
    row = connection.execute(_DETAIL, of_tree | {"seq": seq}).one_or_none() if keys else None
    if row is None:
        return
    for key, value in values_of(row.metadata, keys).items():
        for counted_as in (value, OTHER):
            place = of_tree | {"of_key": key, "of_value": counted_as}
            counted = connection.execute(_FIND, place).one_or_none()
            if counted is None:
                continue
            if counted.size == 1:
                connection.execute(_DELETE, place)
            else:
                less = {"new_size": counted.size - 1, "new_total": subtract(counted.total, row.qty)}
                connection.execute(_UPDATE, place | less)
            break


def forget_tree(connection: Connection, scope: Scope, tree_id: str) -> None:
    """Remove all values of a period: they may say who its customer was."""
    connection.execute(_DELETE_TREE, {"t": scope.plane, "tree": tree_id})


class _Added:
    """What one transaction adds under one value."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count, self.total = 0, Total()

    def add(self, amount: str) -> None:
        self.count += 1
        self.total.add(amount)

    def add_all(self, other: _Added) -> None:
        self.count += other.count
        self.total.add(other.total.text)


def _store(connection: Connection, scope: Scope, added: dict[Place, _Added]) -> None:
    trees = sorted({tree_id for tree_id, _, _ in added})
    counted = _counted(connection, scope, trees, {value for _, _, value in added} | {OTHER})
    by_place: dict[Place, _Added] = {}
    for place, more in _placed(connection, scope, added, counted):
        by_place.setdefault(place, _Added()).add_all(more)
    inserts: list[dict[str, Any]] = []
    updates: list[dict[str, Any]] = []
    for (tree_id, key, value), more in by_place.items():
        before = counted.get((tree_id, key, value))
        if before is None:
            inserts.append(
                {
                    "tenant_id": scope.plane,
                    "tree_id": tree_id,
                    "key": key,
                    "value": value,
                    "size": more.count,
                    "total": more.total.text,
                }
            )
        else:
            more.total.add(before[1])
            updates.append(
                {
                    "t": scope.plane,
                    "tree": tree_id,
                    "of_key": key,
                    "of_value": value,
                    "new_size": before[0] + more.count,
                    "new_total": more.total.text,
                }
            )
    if inserts:
        insert_rows(connection, breakdown, inserts)
    if updates:
        execute_each(connection, _UPDATE, updates)


def _counted(
    connection: Connection, scope: Scope, trees: Sequence[str], values: set[str]
) -> dict[Place, tuple[int, str]]:
    found, wanted = {}, sorted(values)
    for start in range(0, len(wanted), _AT_ONCE):
        asked = {"t": scope.plane, "trees": trees, "values": wanted[start : start + _AT_ONCE]}
        for row in connection.execute(_COUNTED, asked):
            found[row.tree_id, row.key, row.value] = (row.size, row.total)
    return found


def _placed(
    connection: Connection, scope: Scope, added: dict[Place, _Added], counted: Mapping[Place, Any]
) -> Iterable[tuple[Place, _Added]]:
    """Yield where each value of ``added`` counts: by itself if it does already or there is room, else as ``OTHER``."""
    taken: dict[tuple[str, str], int] = {}
    if any(place not in counted for place in added):
        trees = sorted({tree_id for tree_id, _, _ in added})
        for row in connection.execute(_HOW_MANY, {"t": scope.plane, "trees": trees}):
            taken[row.tree_id, row.key] = row.values
    for place, more in added.items():
        tree_id, key, _ = place
        if place not in counted:
            number = taken.get((tree_id, key), 0)
            # Once there are others, no value that was one of them may begin a count of its own.
            if number >= MAX_VALUES or (tree_id, key, OTHER) in counted:
                yield (tree_id, key, OTHER), more
                continue
            taken[tree_id, key] = number + 1
        yield place, more


def _breakdown(key: str, found: list[Part], size: int, total: str) -> Breakdown:
    left = total
    for part in found:
        left = subtract(left, part.total)
    named = sorted((part for part in found if part.value != OTHER), key=lambda part: part.value)
    named.sort(key=lambda part: Decimal(part.total), reverse=True)
    other = next((part for part in found if part.value == OTHER), Part(OTHER, 0, "0"))
    return Breakdown(key, tuple(named), other, Part("", size - sum(part.count for part in found), left))
