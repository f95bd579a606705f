"""Integrate: hash newly recorded leaves into their period trees, about once a second.

Reading and hashing happen outside the write transaction, which then only stores the frontier and the complete subtrees,
if the lease still holds and nobody integrated the same leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.plain import execute_rows, fetch
from shared_record.db.schema import leaf, node, period_tree
from shared_record.db.scope import Scope
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
    .where(period_tree.c.tenant_id == _T, period_tree.c.status != "erased", period_tree.c.size > period_tree.c.vsize)
    .order_by(period_tree.c.tree_id)
    .limit(MAX_TREES)
)
_HASHES = (
    select(leaf.c.hash)
    .where(
        leaf.c.tenant_id == _T,
        leaf.c.tree_id == bindparam("tree"),
        leaf.c.seq > bindparam("after"),
        leaf.c.seq <= bindparam("upto"),
    )
    .order_by(leaf.c.seq)
)
_HASHES_OF_MANY = (
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
_ALL_HASHES_OF_MANY = (
    select(leaf.c.hash)
    .where(leaf.c.tenant_id == _T, leaf.c.tree_id.in_(bindparam("trees", expanding=True)))
    .order_by(leaf.c.tree_id, leaf.c.seq)
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
    """A tree to be brought from ``vsize`` leaves to ``upto``; it has ``size``, the last with the hash ``last_leaf``."""

    tree_id: str
    size: int
    vsize: int
    frontier: bytes
    last_leaf: bytes
    upto: int


def integrate(db: Database, lease: Lease) -> int:
    """Bring every period tree of the tenant up to its recorded size; return how many leaves were hashed."""
    scope = lease.scope
    done = 0
    while True:
        advances: list[tuple[str, int, int, bytes]] = []
        nodes: list[tuple[str, int, int, bytes]] = []
        with db.read(scope, snapshot=True) as connection:
            for tree, hashes in _new_hashes(connection, scope):
                frontier = merkle.split_hashes(tree.frontier)
                size = merkle.push(frontier, tree.vsize, hashes, _keep(nodes, tree))
                if size != tree.upto:
                    raise RuntimeError(f"{tree.tree_id}: {size} leaves found, {tree.upto} recorded")
                if size == tree.size and hashes[-1] != tree.last_leaf:
                    raise RuntimeError(f"{tree.tree_id}: leaf {size} is not the last one recorded")
                advances.append((tree.tree_id, tree.vsize, tree.upto, b"".join(frontier)))
        if not advances:
            return done
        with db.write(scope) as connection:
            leases.check_fence(connection, lease)
            # In the order of their ids, in which intake locks the trees.
            execute_rows(connection, _ADVANCE, {"t": scope.plane}, _ADVANCED, advances)
            execute_rows(connection, _ADD_NODE, {"tenant_id": scope.plane}, _NODE, nodes)
        done += sum(new - old for _, old, new, _ in advances)


def _keep(nodes: list[tuple[str, int, int, bytes]], tree: _Behind) -> merkle.OnSubtree | None:
    """Return what adds the subtrees that ``tree`` completes to ``nodes``; most trees are too small for any."""
    if tree.upto < merkle.SMALLEST_STORED:
        return None
    return lambda level, index, found: nodes.append((tree.tree_id, level, index, found))


def _new_hashes(connection: Connection, scope: Scope) -> Iterator[tuple[_Behind, list[bytes]]]:
    """Yield trees, in the order of their ids, with their new leaf hashes.

    They are ``MAX_LEAVES`` in all at most, so the last tree may not be brought up to its size. Hashes are told apart by
    how many each tree has; that none is missing and none too many shows in the last one of each.
    """
    trees = list(_within(MAX_LEAVES, fetch(connection, _BEHIND, {"t": scope.plane})))
    whole = [tree for tree in trees if tree.upto == tree.size]
    for start in range(0, len(whole), TOGETHER):
        some = whole[start : start + TOGETHER]
        place = {"t": scope.plane, "trees": [tree.tree_id for tree in some]}
        # Where all are new, every leaf is wanted, and the trees need not be read once more to know from where on.
        query = _HASHES_OF_MANY if any(tree.vsize for tree in some) else _ALL_HASHES_OF_MANY
        hashes = chain.from_iterable(fetch(connection, query, place))
        yield from ((tree, list(islice(hashes, tree.upto - tree.vsize))) for tree in some)
    for tree in trees[len(whole) :]:
        place = {"t": scope.plane, "tree": tree.tree_id, "after": tree.vsize, "upto": tree.upto}
        yield tree, list(chain.from_iterable(fetch(connection, _HASHES, place)))


def _within(left: int, behind: Iterable[tuple[Any, ...]]) -> Iterator[_Behind]:
    for tree_id, size, vsize, frontier, last_leaf in behind:
        upto = min(size, vsize + left)
        yield _Behind(tree_id, size, vsize, frontier, last_leaf, upto)
        left -= upto - vsize
        if left <= 0:
            break
