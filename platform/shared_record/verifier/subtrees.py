"""How a tree of some size grew from a smaller one, in hashes of subtrees: what comparing two states needs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from shared_record.ledger import merkle
from shared_record.ledger.receipt import Included

Range = tuple[int, int]
Source = Callable[[Sequence[Range]], list[bytes] | None]
"""Returns the roots of these subtrees of one tree, or ``None`` where what is at hand does not give all of them."""


def split_ranges(old_size: int, new_size: int) -> list[Range]:
    """Return the subtrees that the tree of ``new_size`` leaves consists of, cut where the one of ``old_size`` ended.

    They are those of a consistency proof (RFC 6962, section 2.1.2), always with the one that ends at ``old_size``.
    """
    ranges = merkle.consistency_ranges(old_size, new_size)
    return ranges if ranges and ranges[0][1] == old_size else [(0, old_size), *ranges]


def fold_split(old_size: int, new_size: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the roots at both sizes from the roots of ``split_ranges``; another number of them is a ``ValueError``."""
    ranges = split_ranges(old_size, new_size)
    if len(hashes) != len(ranges) or any(len(one) != merkle.HASH_SIZE for one in hashes):
        raise ValueError("the subtrees are not those between the two sizes")
    old = new = hashes[0]
    for (start, _), sibling in zip(ranges[1:], hashes[1:], strict=True):
        if start < old_size:
            old, new = merkle.node_hash(sibling, old), merkle.node_hash(sibling, new)
        else:
            new = merkle.node_hash(new, sibling)
    return old, new


def from_leaves(leaf_hashes: Callable[[], Iterable[bytes]]) -> Source:
    """Return a source that reads all leaves once per call, in little memory."""

    def roots(ranges: Sequence[Range]) -> list[bytes] | None:
        found: dict[Range, bytes] = {}
        leaves, position = iter(leaf_hashes()), 0
        for start, end in sorted(ranges):
            frontier: list[bytes] = []
            for _ in islice(leaves, start - position):
                pass
            if merkle.push(frontier, 0, islice(leaves, end - start)) < end - start:
                return None
            found[start, end], position = merkle.frontier_root(frontier), end
        return [found[one] for one in ranges]

    return roots


def from_path(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> Source:
    """Return a source that knows one leaf and its audit path, which must be right."""
    known = dict(zip(merkle.inclusion_ranges(index, size), path, strict=True))
    known[index, index + 1] = leaf_hash

    def root(wanted: Range) -> bytes | None:
        start, end = wanted
        if wanted in known or end - start == 1:
            return known.get(wanted)
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        left, right = root((start, middle)), root((middle, end))
        return merkle.node_hash(left, right) if left and right else None

    def roots(ranges: Sequence[Range]) -> list[bytes] | None:
        found = [one for one in map(root, ranges) if one is not None]
        return found if len(found) == len(ranges) else None

    return roots


def included_from(texts: Callable[[], Iterable[str]], indexes: Sequence[int], size: int) -> list[Included]:
    """Return the entries at ``indexes`` with their audit paths in the tree of the first ``size`` of ``texts``."""
    hashes = from_leaves(lambda: (merkle.leaf_hash(text.encode()) for text in texts()))
    places = []
    for index in indexes:
        path = hashes(merkle.inclusion_ranges(index, size))
        text = next(islice(texts(), index, None), None)
        if path is None or text is None:
            raise ValueError(f"there is no row {index + 1}")
        places.append(Included(text, index, size, tuple(path)))
    return places
