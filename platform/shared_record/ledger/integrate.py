"""Integrate: hash newly recorded leaves into their period trees, about once a second.

Reading and hashing happen outside the write transaction, which then only stores the frontier and the complete subtrees,
if the lease still holds and nobody integrated the same leaves.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BindParameter, bindparam, select

from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.schema import leaf, node, period_tree
from shared_record.ledger import merkle

MAX_LEAVES = 200_000
"""Leaves of one tree hashed per transaction, so that memory stays bounded."""

_T: BindParameter[UUID] = bindparam("t")
_BEHIND = (
    select(period_tree.c.tree_id, period_tree.c.size, period_tree.c.vsize, period_tree.c.frontier)
    .where(period_tree.c.tenant_id == _T, period_tree.c.status != "erased", period_tree.c.size > period_tree.c.vsize)
    .order_by(period_tree.c.tree_id)  # the order in which intake locks them
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
_ADVANCE = (
    period_tree.update()
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.tree_id == bindparam("tree"),
        period_tree.c.vsize == bindparam("old_size"),
    )
    .values(vsize=bindparam("new_size"), frontier=bindparam("new_frontier"))
)
_INSERT_NODE = node.insert()


def integrate(db: Database, lease: Lease) -> int:
    """Bring every period tree of the tenant up to its recorded size; return how many leaves were hashed."""
    scope = lease.scope
    done = 0
    while True:
        with db.read(scope, snapshot=True) as connection:
            behind = connection.execute(_BEHIND, {"t": scope.plane}).all()
            if not behind:
                return done
            nodes: list[dict[str, object]] = []
            advances: list[dict[str, object]] = []
            hashed = 0
            for row in behind:
                upto = min(row.size, row.vsize + MAX_LEAVES - hashed)
                hashes = connection.execute(
                    _HASHES, {"t": scope.plane, "tree": row.tree_id, "after": row.vsize, "upto": upto}
                ).scalars()
                frontier = merkle.split_hashes(row.frontier)
                complete: list[tuple[int, int, bytes]] = []
                size = merkle.push(frontier, row.vsize, hashes, lambda *found, to=complete: to.append(found))
                if size != upto:
                    raise RuntimeError(f"{row.tree_id}: {size} leaves found, {upto} recorded")
                nodes += [
                    {"tenant_id": scope.plane, "tree_id": row.tree_id, "level": level, "idx": index, "hash": digest}
                    for level, index, digest in complete
                ]
                advances.append(
                    {
                        "t": scope.plane,
                        "tree": row.tree_id,
                        "old_size": row.vsize,
                        "new_size": size,
                        "new_frontier": b"".join(frontier),
                    }
                )
                hashed += size - row.vsize
                if hashed >= MAX_LEAVES:
                    break
        with db.write(scope) as connection:
            leases.check_fence(connection, lease)
            connection.execute(_ADVANCE, advances)
            if nodes:
                connection.execute(_INSERT_NODE, nodes)
        done += hashed
