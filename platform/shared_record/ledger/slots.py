"""The slot tree: leaf *n* is the head of the customer with slot *n*; each epoch record states its root.

Up to ``REBLIND_UP_TO`` slots every head is hashed anew in each epoch, with another blinding value, so that a
neighbour's path does not show whether a head changed. Above that only heads that changed are hashed, with the tiles
above them; the others keep the epoch and the blinding value of their last change. Tiles are stored as C2SP tlog-tiles
has them, and the tile of an epoch is its newest version at or below that epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db.schema import slot_tile
from shared_record.db.scope import Scope
from shared_record.ledger import merkle
from shared_record.ledger.entry import padding_leaf
from shared_record.ledger.origin import start_of

REBLIND_UP_TO: Final = 200_000
"""Slots up to which every head gets another blinding value in each epoch."""
KEPT_SLOT_TREES: Final = 3
TILE: Final = 256

_T: BindParameter[UUID] = bindparam("t")
_LEVEL: BindParameter[int] = bindparam("lvl")
_INDEX: BindParameter[int] = bindparam("i")
_N: BindParameter[int] = bindparam("n")
_TILE = (
    select(slot_tile.c.hashes)
    .where(slot_tile.c.tenant_id == _T, slot_tile.c.level == _LEVEL, slot_tile.c.idx == _INDEX, slot_tile.c.epoch <= _N)
    .order_by(slot_tile.c.epoch.desc())
    .limit(1)
)
_WRITTEN = select(slot_tile.c.level, slot_tile.c.idx).where(slot_tile.c.tenant_id == _T, slot_tile.c.epoch == _N)
_DROP_OLDER = slot_tile.delete().where(
    slot_tile.c.tenant_id == _T, slot_tile.c.level == _LEVEL, slot_tile.c.idx == _INDEX, slot_tile.c.epoch < _N
)

ReadTile = Callable[[int, int], bytes]
"""Returns the hashes of a tile of the epoch before; ``b""`` where there is none."""


class SlotTree(NamedTuple):
    """The tiles (level, index, hashes) that an epoch stores, and its root."""

    tiles: list[tuple[int, int, bytes]]
    root: bytes


def width_of(slots: int) -> int:
    """Return how many leaves a slot tree with room for ``slots`` customers has: a power of two."""
    return 1 << max(slots - 1, 0).bit_length()


def blinding(tenant_secret: bytes, slot: int, serial: int) -> str:
    """Return ``z`` of the head in ``slot`` that the epoch ``serial`` hashed: 128 bits in hex that nobody else knows."""
    return hashlib.sha256(b"%b%d/%d" % (tenant_secret, slot, serial)).hexdigest()[:32]


def whole_tree(leaves: Mapping[int, bytes | None], width: int) -> SlotTree:
    """Return the tree over ``leaves`` (slot to leaf hash); a slot without one gets a random leaf."""
    row = [leaves.get(slot) or _padding() for slot in range(width)]
    tiles: list[tuple[int, int, bytes]] = []
    level = 0
    while True:
        tiles += [(level, i // TILE, b"".join(row[i : i + TILE])) for i in range(0, len(row), TILE)]
        if len(row) <= TILE:
            return SlotTree(tiles, merkle.root(row))
        row = [merkle.root(row[i : i + TILE]) for i in range(0, len(row), TILE)]
        level += 8


def changed_tree(leaves: Mapping[int, bytes | None], before: int, width: int, read: ReadTile) -> SlotTree:
    """Return the tree of ``width`` slots in which only ``leaves`` differ from the one of ``before`` slots.

    ``None`` stands for a random leaf, as does a slot that is new and not in ``leaves``. Only tiles that change are read
    and returned: one of each level for each of ``leaves``, and what is new when the tree grew.
    """
    changed: dict[int, bytes] = {slot: found or _padding() for slot, found in leaves.items()}
    changed |= {slot: _padding() for slot in range(before, width) if slot not in changed}
    tiles: list[tuple[int, int, bytes]] = []
    level = 0
    while True:
        by_tile: dict[int, dict[int, bytes]] = {}
        for index, digest in changed.items():
            by_tile.setdefault(index // TILE, {})[index % TILE] = digest
        if width != before or not by_tile:
            by_tile.setdefault(
                0, {}
            )  # a level that is new begins with what is below it; the root is needed in any case
        changed = {}
        for index, hashes in sorted(by_tile.items()):
            there = min(TILE, max(0, before - index * TILE))
            row = merkle.split_hashes(read(level, index)) if there else []
            if len(row) != there:
                raise ValueError(f"tile {level}/{index} of the slot tree before is not all there")
            row += [b""] * (min(TILE, width - index * TILE) - there)
            for offset, digest in hashes.items():
                row[offset] = digest
            tiles.append((level, index, b"".join(row)))
            changed[index] = merkle.root(row)
        if width <= TILE:
            return SlotTree(tiles, changed[0])
        before, width = before // TILE if before > TILE else 0, width // TILE
        level += 8


def drop_old_tiles(connection: Connection, scope: Scope, newest: int) -> None:
    """Remove what no epoch of the newest ``KEPT_SLOT_TREES`` uses: all but the newest version at the oldest of them."""
    oldest = newest - KEPT_SLOT_TREES + 1
    if oldest < start_of(newest):
        return
    places = connection.execute(_WRITTEN, {"t": scope.plane, "n": oldest}).all()
    if places:
        connection.execute(
            _DROP_OLDER, [{"t": scope.plane, "n": oldest, "lvl": row.level, "i": row.idx} for row in places]
        )


def read_tile(connection: Connection, scope: Scope, n: int, level: int, index: int) -> bytes:
    """Return a tile of the kept slot tree of epoch ``n``; ``b""`` where there is none."""
    place = {"t": scope.plane, "n": n, "lvl": level, "i": index}
    found: bytes | None = connection.execute(_TILE, place).scalar_one_or_none()
    return found or b""


def tile_reader(connection: Connection, scope: Scope, n: int) -> merkle.ReadHashes:
    """Return a reader over the kept slot tree of epoch ``n``."""

    def read(level: int, first: int, last: int) -> bytes:
        tiles = range(first // TILE, (last - 1) // TILE + 1)
        joined = b"".join(read_tile(connection, scope, n, level, index) for index in tiles)
        offset = first % TILE * merkle.HASH_SIZE
        return joined[offset : offset + (last - first) * merkle.HASH_SIZE]

    return read


def kept_epochs(published: int, size: int) -> list[int]:
    """Return the epochs whose slot trees are kept in a log that published ``published`` checkpoints of ``size``.

    Both are serials. After a new origin was declared, those of the former one are kept for a while.
    """
    first = max(start_of(published), published - KEPT_SLOT_TREES)
    if start_of(published) == start_of(size):
        return list(range(first, size))
    return [*range(first, published), *range(start_of(size), size)]


def _padding() -> bytes:
    return merkle.leaf_hash(padding_leaf())
