"""A checkpoint over a million leaves against hashing alone."""

from __future__ import annotations

import hashlib

from measure import Limit, Result, alternate, scaled, seconds
from sqlalchemy import bindparam
from stage import fill, shop_on_sqlite, temporary_folder

from shared_record.db.schema import epoch_member, node, period_tree
from shared_record.ledger.checkpoints import make_checkpoint
from world import Shop

LEAVES = 1_000_000
ROUNDS = 3

_T = bindparam("t")
_FORGET = (
    period_tree.update()
    .where(period_tree.c.tenant_id == _T)
    .values(vsize=0, frontier=b"", psize=0, proot=None, ptotal="0", pepoch=None)
)
_FORGET_NODES = node.delete().where(node.c.tenant_id == _T)
_FORGET_MEMBERS = epoch_member.delete().where(epoch_member.c.tenant_id == _T)


def checkpoint(scale: float) -> Result:
    """Integrate a record of a million recorded leaves and publish its checkpoint; against SHA-256 of as many hashes.

    The reference hashes one 65-byte input per leaf and per inner node, as building the tree from nothing would. Of
    these a checkpoint makes the inner nodes; the leaf hashes were made and stored at intake.
    """
    leaves = scaled(LEAVES, scale, least=300)
    with temporary_folder() as folder, shop_on_sqlite(folder) as shop:
        fill(shop, leaves)

        def ours() -> float:
            _forget(shop)
            lease = shop.lease()
            return seconds(lambda: make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, lease))

        rounds = alternate(ours, lambda: seconds(lambda: _hash(2 * leaves - 1)), ROUNDS)
    return Result(
        "checkpoint",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≤", 6),
        "s",
        f"{leaves:,} leaves of one record on SQLite, integrated and published; {2 * leaves - 1:,} SHA-256 of 65 bytes",
    )


def _forget(shop: Shop) -> None:
    """Make every leaf one that no tree has yet."""
    with shop.db.write(shop.scope) as connection:
        for statement in (_FORGET, _FORGET_NODES, _FORGET_MEMBERS):
            connection.execute(statement, {"t": shop.scope.plane})


def _hash(count: int) -> None:
    sha256, data = hashlib.sha256, bytes(65)
    for _ in range(count):
        sha256(data).digest()
