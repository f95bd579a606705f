"""Integrate: hash newly recorded leaves into their period trees, about once a second.

Reading and hashing happen outside the write transaction, which then only stores the frontier and the complete subtrees,
if the lease still holds and nobody integrated the same leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Select, bindparam, select

from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.plain import execute_rows, fetch
from shared_record.db.schema import awaits_epoch, leaf, node, period_tree
from shared_record.db.scope import Scope
from shared_record.db.types import joined_bytes
from shared_record.ledger import merkle

MAX_LEAVES = 200_000
"""Leaves hashed per transaction, so that memory stays bounded."""
MAX_TREES = 20_000
"""Trees brought forward per transaction."""
TOGETHER = 2_000
"""Trees whose new leaves are read by one query."""

_T: BindParameter[UUID] = bindparam("t")
_BEHIND = (
    select(
        period_tree.c.tree_id,
        period_tree.c.size,
        period_tree.c.vsize,
        period_tree.c.frontier,
        period_tree.c.last_leaf,
    )
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.status != "erased",
        awaits_epoch,
        period_tree.c.size > period_tree.c.vsize,
    )
    .order_by(period_tree.c.tree_id)
    .limit(MAX_TREES)
)


def _joined_hashes(of_leaves: Select[Any]) -> Select[Any]:
    """Return the query for the hashes that ``of_leaves`` selects, as one value."""
    return select(joined_bytes(of_leaves.subquery().c.hash))


_PLACES = (leaf.c.tree_id, leaf.c.seq)
_HASHES_OF_ONE = _joined_hashes(
    select(leaf.c.hash)
    .where(
        leaf.c.tenant_id == _T,
        leaf.c.tree_id == bindparam("tree"),
        leaf.c.seq > bindparam("after"),
        leaf.c.seq <= bindparam("upto"),
    )
    .order_by(*_PLACES)
)
_HASHES_OF_MANY = _joined_hashes(
    select(leaf.c.hash)
    .select_from(
        period_tree.join(
            leaf, (leaf.c.tenant_id == period_tree.c.tenant_id) & (leaf.c.tree_id == period_tree.c.tree_id)
        )
    )
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.tree_id.in_(bindparam("trees", expanding=True)),
        leaf.c.seq > period_tree.c.vsize,
        leaf.c.seq <= period_tree.c.size,
    )
    .order_by(period_tree.c.tree_id, leaf.c.seq)
)
_ALL_HASHES_OF_MANY = _joined_hashes(
    select(leaf.c.hash)
    .where(leaf.c.tenant_id == _T, leaf.c.tree_id.in_(bindparam("trees", expanding=True)))
    .order_by(*_PLACES)
)
_ADVANCE = (
    period_tree.update()
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.tree_id == bindparam("tree"),
        period_tree.c.vsize == bindparam("old_size"),
    )
    .values(vsize=bindparam("new_size"), frontier=bindparam("new_frontier"))
)
_ADVANCED = ("tree", "old_size", "new_size", "new_frontier")
_ADD_NODE = node.insert()
_NODE = ("tree_id", "level", "idx", "hash")


class _Behind(NamedTuple):
    """A tree of ``size`` leaves, the last with the hash ``last_leaf``, of which ``vsize`` are integrated."""

    tree_id: str
    size: int
    vsize: int
    frontier: bytes
    last_leaf: bytes


def integrate(db: Database, lease: Lease) -> int:
    """Bring every period tree of the tenant up to its recorded size; return how many leaves were hashed."""
    scope = lease.scope
    done = 0
    while True:
        advances: list[tuple[str, int, int, bytes]] = []
        nodes: list[tuple[str, int, int, bytes]] = []
        with db.read(scope, snapshot=True) as connection:
            for (tree_id, size, vsize, before, last_leaf), hashes in _new_hashes(connection, scope):
                frontier = merkle.split_hashes(before)
                # Most trees are too small for a subtree that is stored.
                keep = None if size < merkle.SMALLEST_STORED else _keep(nodes, tree_id)
                reached = merkle.push(frontier, vsize, hashes, keep)
                if reached != size and len(hashes) != MAX_LEAVES:
                    raise RuntimeError(f"{tree_id}: {reached} leaves found, {size} recorded")
                if reached == size and hashes[-1] != last_leaf:
                    raise RuntimeError(f"{tree_id}: leaf {size} is not the last one recorded")
                advances.append((tree_id, vsize, reached, b"".join(frontier)))
        if not advances:
            return done
        with db.write(scope) as connection:
            leases.check_fence(connection, lease)
            # In the order of their ids, in which intake locks the trees.
            execute_rows(connection, _ADVANCE, {"t": scope.plane}, _ADVANCED, advances)
            execute_rows(connection, _ADD_NODE, {"tenant_id": scope.plane}, _NODE, nodes)
        done += sum(new - old for _, old, new, _ in advances)


def _keep(nodes: list[tuple[str, int, int, bytes]], tree_id: str) -> merkle.OnSubtree:
    """Return what adds the subtrees that a tree completes to ``nodes``."""
    return lambda level, index, found: nodes.append((tree_id, level, index, found))


def _new_hashes(connection: Connection, scope: Scope) -> Iterator[tuple[_Behind, list[bytes]]]:
    """Yield the trees of the next transaction, in the order of their ids, with the new leaf hashes of each.

    Hashes are told apart by how many each tree has; that none is missing and none too many shows in the last of each.
    """
    trees = _first(map(_Behind._make, fetch(connection, _BEHIND, {"t": scope.plane})))
    for start in range(0, len(trees), TOGETHER):
        some = trees[start : start + TOGETHER]
        hashes, position = _read_hashes(connection, scope, some), 0
        for tree in some:
            end = position + tree.size - tree.vsize
            yield tree, hashes[position:end]
            position = end


def _first(behind: Iterable[_Behind]) -> list[_Behind]:
    """Return the first trees that have ``MAX_LEAVES`` new leaves together at most, or one alone that has more."""
    trees: list[_Behind] = []
    left = MAX_LEAVES
    for tree in behind:
        left -= tree.size - tree.vsize
        if trees and left < 0:
            break
        trees.append(tree)
    return trees


def _read_hashes(connection: Connection, scope: Scope, some: list[_Behind]) -> list[bytes]:
    """Return the new leaf hashes of these trees, one tree after the other, but ``MAX_LEAVES`` at most of one alone."""
    query, place = _HASHES_OF_MANY, {"t": scope.plane, "trees": [tree.tree_id for tree in some]}
    if len(some) == 1:
        tree = some[0]
        query, place = (
            _HASHES_OF_ONE,
            {
                "t": scope.plane,
                "tree": tree.tree_id,
                "after": tree.vsize,
                "upto": min(tree.size, tree.vsize + MAX_LEAVES),
            },
        )
    elif not any(tree.vsize for tree in some):
        # Every leaf is wanted, and the trees need not be read once more to know from where on.
        query = _ALL_HASHES_OF_MANY
    return merkle.split_hashes(connection.execute(query, place).scalar_one() or b"")
