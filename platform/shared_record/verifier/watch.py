"""Watching a log: each new checkpoint must be signed by the pinned keys and extend the one seen before.

Pure: what it needs it asks of a ``Fetch``, and what it knows it is given. Tiles are believed only where they lead to
a signed root, so it does not matter who served them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from shared_record.ledger import merkle
from shared_record.ledger.entry import MAX_ENTRY, Epoch, parse_epoch
from shared_record.ledger.note import Checkpoint, VerifierKey, open_note, parse_checkpoint, parse_policy
from shared_record.ledger.origin import is_later_origin
from shared_record.ledger.successor import MAX_SUCCESSOR, open_successor
from shared_record.verifier.checks import Result

WIDTH = 256
MAX_CHECKPOINT = 100_000
MAX_POLICY = 100_000
MAX_BUNDLE = WIDTH * (2 + MAX_ENTRY)
MAX_SIZE = 2**32
"""Epochs; an epoch each second for a century."""

Fetch = Callable[[str, int], bytes]
"""Returns what is at a path below the log's URL; more bytes than the given number, or no answer, is an ``OSError``."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watcher remembers: the pinned ``vkeys`` of one origin, and the newest checkpoint that was in order."""

    origin: str
    vkeys: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one look. ``seen`` is what to remember from now on; after anything but a match, what it was.

    ``note`` is the checkpoint that was shown (empty where there was none): beside the remembered one it is the
    evidence of a fork or rollback. ``new_keys`` were announced in the log and are pinned from now on.
    """

    result: Result
    reason: str | None
    seen: Seen | None
    size: int
    note: str
    first_use: bool = False
    new_epochs: int = 0
    newest_at: str | None = None
    new_keys: tuple[str, ...] = ()


class _Difference(Exception):
    """The log contradicts its key, or what it said before."""


class _Unusable(Exception):
    """Nothing can be said."""


def look(fetch: Fetch, seen: Seen | None, policy: str | None = None) -> Report:
    """Look at a log once; nothing raises.

    ``policy`` (C2SP tlog-policy) names exactly the keys to trust. Without it they are those of ``seen``, and without
    that, on first use, those of the log's own ``policy``, which are to be compared by another way.
    """
    shown = [""]
    try:
        return _look(fetch, seen, policy, shown)
    except _Difference as difference:
        result, reason = Result.DIFFERS, str(difference)
    except _Unusable as unusable:
        result, reason = Result.UNKNOWN, str(unusable)
    except OSError as error:
        result, reason = Result.UNKNOWN, f"the log cannot be read: {error}"
    return Report(result, reason, seen, _size_of(shown[0]), shown[0])


def _look(fetch: Fetch, seen: Seen | None, policy: str | None, shown: list[str]) -> Report:
    shown[0] = text = _text(fetch("checkpoint", MAX_CHECKPOINT), "the checkpoint")
    claimed = _claimed(text)
    if seen is not None and claimed.origin != seen.origin:
        if is_later_origin(claimed.origin, seen.origin):
            raise _Difference(f"the log declared a new origin: this is {claimed.origin}, no longer {seen.origin}")
        raise _Difference(f"this is the log {claimed.origin}, no longer {seen.origin}")
    if policy is not None:
        vkeys = _vkeys_of(policy, claimed)
    elif seen is not None:
        vkeys = seen.vkeys
    else:
        vkeys = _vkeys_of(_text(fetch("policy", MAX_POLICY), "the policy"), claimed)
    _check_signature(text, vkeys)
    now = Seen(claimed.origin, vkeys, text)
    if claimed.size > MAX_SIZE:
        raise _Unusable(f"a log of {claimed.size} epochs is longer than this program reads")
    tiles = _Tiles(fetch, claimed.size)
    if seen is None:
        if merkle.frontier_root(tiles.frontier(claimed.size)) != claimed.root:
            raise _Unusable(f"the tiles do not lead to the checkpoint of size {claimed.size}")
        _refuse_successor(fetch, claimed, vkeys)
        return Report(Result.MATCHES, None, now, claimed.size, text, first_use=policy is None)
    before = _claimed(seen.note)
    if claimed.size <= before.size:  # one that does not grow may have ended
        _refuse_successor(fetch, before, vkeys)
    if claimed.size < before.size:
        raise _Difference(f"rollback: it shows size {claimed.size}, and showed {before.size} before")
    if claimed.size == before.size:
        if claimed.root != before.root:
            raise _Difference(f"fork: two signed checkpoints of size {claimed.size} have different roots")
        return Report(Result.MATCHES, None, now, claimed.size, text)
    return _extended(tiles, before, claimed, now)


def _refuse_successor(fetch: Fetch, before: Checkpoint, vkeys: tuple[str, ...]) -> None:
    """Raise if the log proves that it went on under a new origin; ``before`` is the newest of the old one."""
    try:
        found = open_successor(_text(fetch("successor", MAX_SUCCESSOR), "the proof of a new origin"))
    except (OSError, ValueError, _Unusable):
        return  # there is none, or none that proves anything
    if not is_later_origin(found.origin, before.origin):
        return
    pinned = {VerifierKey.parse(vkey).public_key for vkey in vkeys}
    known = any(key.public_key in pinned for key in found.signers)
    whose = "the key known before" if known else f"a new key, {found.signers[0].fingerprint}: compare it"
    told = f"the log declared a new origin, {found.origin}, signed by {whose}"
    last = found.last
    if last is None or last.origin != before.origin:
        raise _Difference(f"{told}; it carries over no checkpoint of {before.origin}")
    if last.size < before.size or (last.size == before.size and last.root != before.root):
        raise _Difference(
            f"{told}; what it carries over ends at size {last.size} and contradicts size {before.size}, seen before"
        )
    raise _Difference(
        f"{told}; it carries over what was shown up to size {last.size}. Watch the new origin from now on"
    )


def _extended(tiles: _Tiles, before: Checkpoint, claimed: Checkpoint, now: Seen) -> Report:
    """Read what is new: the old tree from tiles, the new epochs in full. Together they must be the new tree."""
    frontier = tiles.frontier(before.size)
    old_root = merkle.frontier_root(frontier)
    epochs = _Epochs(tiles.hash(before.size - 1) if before.size else b"")
    try:
        merkle.push(
            frontier, before.size, map(epochs.take, range(before.size, claimed.size), tiles.entries(before.size))
        )
    except ValueError as error:
        raise _Unusable(str(error)) from error
    if merkle.frontier_root(frontier) != claimed.root:
        raise _Unusable(f"tiles and entries do not lead to the checkpoint of size {claimed.size}")
    # From here on every hash that was read is vouched for by the signature of the new checkpoint.
    if old_root != before.root:
        raise _Difference(f"fork: size {claimed.size} does not extend size {before.size} as it was signed before")
    if epochs.problem is not None:
        raise _Difference(epochs.problem)
    added = tuple(key for key in epochs.vkeys if key not in now.vkeys and _is_key_of(key, now.origin))
    return Report(
        Result.MATCHES,
        None,
        replace(now, vkeys=now.vkeys + added),
        claimed.size,
        now.note,
        new_epochs=claimed.size - before.size,
        newest_at=epochs.newest.ts if epochs.newest else None,
        new_keys=added,
    )


def subtree_roots(fetch: Fetch, size: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the roots of subtrees of the log at ``size``, from its tiles; ``OSError`` says why they cannot be had."""
    tiles = _Tiles(fetch, size)
    try:
        return [tiles.root(start, end) for start, end in ranges]
    except _Unusable as error:
        raise OSError(str(error)) from error


class _Epochs:
    """The new epoch records one after the other: each names the one before it and is not older."""

    def __init__(self, before: bytes) -> None:
        self.before = before
        self.newest: Epoch | None = None
        self.vkeys: list[str] = []
        self.problem: str | None = None

    def take(self, n: int, entry: bytes) -> bytes:
        """Read epoch ``n`` and return its leaf hash; what is no epoch record is a ``ValueError``."""
        try:
            found = parse_epoch(entry.decode())
        except ValueError as error:
            raise ValueError(f"epoch {n} cannot be read: {error}") from error
        if found.epoch != n:
            self._wrong(f"epoch {n} says it is epoch {found.epoch}")
        if found.prev != self.before:
            self._wrong(f"epoch {n} names another epoch before it")
        if self.newest is not None and found.ts < self.newest.ts:
            self._wrong(f"epoch {n} is older than the one before it")
        self.vkeys += [key for key in found.keys if key not in self.vkeys]
        self.newest = found
        self.before = merkle.leaf_hash(entry)
        return self.before

    def _wrong(self, problem: str) -> None:
        self.problem = self.problem or problem


class _Tiles:
    """The tree of ``size`` epochs, read from tiles (C2SP tlog-tiles)."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch, self._size = fetch, size
        self._kept: dict[tuple[int, int], bytes] = {}

    def frontier(self, size: int) -> list[bytes]:
        """Return the frontier of the tree's first ``size`` leaves."""
        frontier, start = [], 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                frontier.append(merkle.range_root(start, start + (1 << level), self._read))
                start += 1 << level
        return frontier

    def root(self, start: int, end: int) -> bytes:
        """Return the root of one subtree."""
        return merkle.range_root(start, end, self._read)

    def hash(self, index: int) -> bytes:
        """Return the hash of one leaf."""
        return self._read(0, index, index + 1)

    def entries(self, first: int) -> Iterator[bytes]:
        """Yield the entries from ``first`` on, a bundle at a time."""
        for index in range(first // WIDTH, -(-self._size // WIDTH)):
            width = min(WIDTH, self._size - index * WIDTH)
            data = self._fetch(tile_path("entries", index, width), MAX_BUNDLE)
            yield from _unbundle(data, width)[max(0, first - index * WIDTH) :]

    def _read(self, level: int, first: int, last: int) -> bytes:
        hashes = b"".join(self._tile(level, index) for index in range(first // WIDTH, (last - 1) // WIDTH + 1))
        offset = first % WIDTH * merkle.HASH_SIZE
        return hashes[offset : offset + (last - first) * merkle.HASH_SIZE]

    def _tile(self, level: int, index: int) -> bytes:
        found = self._kept.get((level, index))
        if found is None:
            width = min(WIDTH, (self._size >> level) - index * WIDTH)
            path = tile_path(level // 8, index, width)
            found = self._kept[level, index] = self._fetch(path, WIDTH * merkle.HASH_SIZE)
            if len(found) != width * merkle.HASH_SIZE:
                raise _Unusable(f"{path} holds {len(found)} bytes, expected {width * merkle.HASH_SIZE}")
        return found


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Return the path of a tile (``level`` 0 to 63) or of a bundle (``entries``), from the log's URL on."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def _unbundle(data: bytes, count: int) -> list[bytes]:
    entries, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2])
        entries.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    if at != len(data) or len(entries) != count:
        raise _Unusable(f"a bundle of entries is malformed or does not hold {count}")
    return entries


def _claimed(text: str) -> Checkpoint:
    """Return what a note says, whoever signed it; what is no checkpoint at all can only come from somewhere else."""
    try:
        return parse_checkpoint(text.rpartition("\n\n")[0] + "\n")
    except ValueError as error:
        raise _Unusable(f"what it shows is not a checkpoint: {error}") from error


def _size_of(text: str) -> int:
    try:
        return _claimed(text).size
    except _Unusable:
        return 0


def _check_signature(text: str, vkeys: tuple[str, ...]) -> None:
    try:
        open_note(text, [VerifierKey.parse(key) for key in vkeys])
    except ValueError as error:
        raise _Difference(f"bad signature: {error}") from error


def _vkeys_of(policy: str, claimed: Checkpoint) -> tuple[str, ...]:
    try:
        found = parse_policy(policy).logs.get(claimed.origin)
    except ValueError as error:
        raise _Unusable(f"the policy cannot be read: {error}") from error
    if not found:
        raise _Unusable(f"the policy names no key of {claimed.origin}")
    return tuple(found)


def _is_key_of(vkey: str, origin: str) -> bool:
    try:
        return VerifierKey.parse(vkey).name == origin
    except ValueError:
        return False


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _Unusable(f"{what} is not text") from error
