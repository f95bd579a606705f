"""RFC 6962 Merkle trees: hashing, roots, proofs and their verification. Pure; it knows nothing of storage.

A *frontier* is the list of the roots of the complete subtrees that a tree of some size consists of, largest first
(its binary decomposition). It is all that appending needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from struct import Struct

HASH_SIZE = 32
_ONE_HASH = Struct(f"{HASH_SIZE}s")
EMPTY_ROOT = hashlib.sha256(b"").digest()
STORED_LEVELS = (8, 16, 24)
"""Levels whose complete subtrees a store keeps, so that any sibling is a fold of at most 256 hashes per level."""
SMALLEST_STORED = 1 << STORED_LEVELS[0]
"""Leaves of the smallest of them."""

TOGETHER = 1_024
"""Leaves hashed level by level; few enough that they are held at no cost."""
FEW = 32
"""Below so many leaves one after another is quicker."""

OnSubtree = Callable[[int, int, bytes], None]
ReadHashes = Callable[[int, int, int], bytes]
Range = tuple[int, int]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_hashes(joined: bytes) -> list[bytes]:
    """Cut concatenated hashes (a stored frontier or path) into a list; a part that is left over is a ``ValueError``."""
    if len(joined) % HASH_SIZE:
        raise ValueError("not a whole number of hashes")
    return [found for (found,) in _ONE_HASH.iter_unpack(joined)]


def push(frontier: list[bytes], size: int, hashes: Iterable[bytes], on_subtree: OnSubtree | None = None) -> int:
    """Append leaf ``hashes`` to the tree of ``size`` leaves, changing ``frontier`` in place; return the new size.

    ``on_subtree(level, index, hash)`` hears of each subtree that becomes complete at one of ``STORED_LEVELS``.
    """
    rest, n = iter(hashes), size
    while row := list(islice(rest, TOGETHER)):
        start, n = n, n + len(row)
        (_push_level_by_level if len(row) >= FEW else _push_one_by_one)(frontier, start, row, on_subtree)
    return n


def _push_one_by_one(frontier: list[bytes], size: int, row: list[bytes], on_subtree: OnSubtree | None) -> None:
    sha256, pop, append = hashlib.sha256, frontier.pop, frontier.append
    n = size
    for leaf in row:
        h = leaf
        if on_subtree is not None and n & 255 == 255:
            h = _merge_aloud(frontier, n, h, on_subtree)
        else:
            k = n
            while k & 1:
                h = sha256(b"\x01" + pop() + h).digest()
                k >>= 1
        append(h)
        n += 1


def _push_level_by_level(frontier: list[bytes], size: int, row: list[bytes], on_subtree: OnSubtree | None) -> None:
    """Hash all pairs of a level before those of the next, which spares most of the steps between two hashes.

    ``row`` is used up.
    """
    sha256, level, first = hashlib.sha256, 0, size
    single: list[bytes] = []
    while row:
        if first & 1:
            row.insert(0, frontier.pop())
        if len(row) & 1:
            single.append(row.pop())
        pairs = iter(row)
        row = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        first >>= 1
        level += 1
        if on_subtree is not None and level in STORED_LEVELS:
            for index, found in enumerate(row, first):
                on_subtree(level, index, found)
    frontier.extend(reversed(single))


def _merge_aloud(frontier: list[bytes], index: int, h: bytes, on_subtree: OnSubtree) -> bytes:
    level = 0
    while index & 1:
        h = node_hash(frontier.pop(), h)
        index >>= 1
        level += 1
        if level in STORED_LEVELS:
            on_subtree(level, index, h)
    return h


def frontier_root(frontier: Sequence[bytes]) -> bytes:
    """Return the root of the tree that ``frontier`` stands for."""
    if not frontier:
        return EMPTY_ROOT
    sha256, h = hashlib.sha256, frontier[-1]
    for left in frontier[-2::-1]:
        h = sha256(b"\x01" + left + h).digest()
    return h


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the Merkle tree hash over ``leaf_hashes`` (RFC 6962, section 2.1)."""
    frontier: list[bytes] = []
    push(frontier, 0, leaf_hashes)
    return frontier_root(frontier)


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Return the leaf ranges ``[start, end)`` whose roots are the audit path, leaf to root (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    ranges: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    ranges.reverse()
    return ranges


def consistency_ranges(old_size: int, new_size: int) -> list[Range]:
    """Return the leaf ranges whose roots are the consistency proof, in proof order (RFC 6962, section 2.1.2)."""
    if not 0 < old_size <= new_size:
        raise ValueError(f"no consistency proof from {old_size} to {new_size}")
    ranges: list[Range] = []
    start, end = 0, new_size
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    # The verifier knows the old root, so it is sent only where the old tree is not a whole left subtree.
    if start:
        ranges.append((start, end))
    ranges.reverse()
    return ranges


def inclusion_path(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of leaf ``index``, leaf to root."""
    return [root(leaf_hashes[start:end]) for start, end in inclusion_ranges(index, len(leaf_hashes))]


def consistency_path(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """Return the proof that the tree over ``leaf_hashes`` extends its own first ``old_size`` leaves."""
    return [root(leaf_hashes[start:end]) for start, end in consistency_ranges(old_size, len(leaf_hashes))]


def range_root(start: int, end: int, read: ReadHashes) -> bytes:
    """Return the root of the subtree over leaves ``[start, end)``, as ``*_ranges`` name them, from stored hashes.

    ``read(level, first, last)`` returns the concatenated hashes of the complete subtrees ``[first, last)`` of
    ``level`` (0 for leaves, or one of ``STORED_LEVELS``). At most 255 are read per level below the highest.
    """
    width = end - start
    if width < 1 or start < 0 or start & ((1 << (width - 1).bit_length()) - 1):
        raise ValueError(f"[{start}, {end}) is not a subtree")
    frontier: list[bytes] = []
    position = start
    for level in (*reversed(STORED_LEVELS), 0):
        count = (end - position) >> level
        if not count:
            continue
        first, last = position >> level, (position >> level) + count
        hashes = split_hashes(read(level, first, last))
        if len(hashes) != count:
            raise ValueError(f"hashes [{first}, {last}) of level {level} are not all there")
        part: list[bytes] = []
        push(part, 0, hashes)
        frontier += part
        position = last << level
    return frontier_root(frontier)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether ``path`` proves that leaf hash ``leaf`` is at ``index`` of the tree (RFC 9162, section 2.1.3.2).

    Whatever is malformed (a hash that is not 32 bytes, a path too long or too short, an index past the end) is
    ``False`` too; nothing raises.
    """
    if not 0 <= index < size or not _all_hashes((leaf, root, *path)):
        return False
    ranges = inclusion_ranges(index, size)
    if len(ranges) != len(path):
        return False
    h = leaf
    for (start, _), sibling in zip(ranges, path, strict=True):
        h = node_hash(h, sibling) if start > index else node_hash(sibling, h)
    return h == root


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether ``path`` proves that the new tree extends the old one (RFC 9162, section 2.1.4.2).

    Equal sizes need equal roots and an empty path. From size 0 nothing is ever proved. As with ``verify_inclusion``,
    malformed input is ``False``.
    """
    if not 0 < old_size <= new_size or not _all_hashes((old_root, new_root, *path)):
        return False
    ranges = consistency_ranges(old_size, new_size)
    if len(ranges) != len(path):
        return False
    if old_size == new_size:
        return old_root == new_root
    steps = list(zip(ranges, path, strict=True))
    old = new = old_root
    if ranges[0][1] == old_size:
        old = new = path[0]
        del steps[0]
    for (start, _), sibling in steps:
        if start < old_size:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return old == old_root and new == new_root


def _split(width: int) -> int:
    """Return the largest power of two below ``width`` (at least 2)."""
    return 1 << ((width - 1).bit_length() - 1)


def _all_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_SIZE for value in values)
