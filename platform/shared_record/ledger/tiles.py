"""A log as anyone may read it: its newest checkpoint, tiles, entry bundles and keys (C2SP tlog-tiles, tlog-policy).

Only what a published checkpoint covers is given out. Nothing here holds a customer's data: an epoch record names a
root, a number of slots and a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db.schema import epoch, former_log, log, signing_key
from shared_record.db.scope import Scope
from shared_record.ledger import logs, merkle
from shared_record.ledger.merkle import STORED_LEVELS
from shared_record.ledger.note import VerifierKey, WitnessKey
from shared_record.ledger.origin import number_of, start_of, start_of_ordinal
from shared_record.ledger.proofs import log_reader, newest_checkpoint
from shared_record.ledger.successor import build_successor

WIDTH: Final = 256
GROUP: Final = "witnesses"
"""The group that a policy's quorum names; no witness may be called so."""
MAX_LEVEL: Final = 63
MAX_INDEX: Final = 2**55
"""Beyond what a log of 2^63 entries has."""

_NAME = re.compile(
    r"(?:(?P<level>0|[1-9][0-9]?)|entries)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)

_T: BindParameter[UUID] = bindparam("t")
_ENTRIES = (
    select(epoch.c.entry)
    .where(epoch.c.tenant_id == _T, epoch.c.n >= bindparam("first"), epoch.c.n < bindparam("last"))
    .order_by(epoch.c.n)
)
_ENTRY = select(epoch.c.entry).where(epoch.c.tenant_id == _T, epoch.c.n == bindparam("n"))
_NEXT_FORMER = (
    select(former_log.c.start)
    .where(former_log.c.tenant_id == _T, former_log.c.start > bindparam("start"))
    .order_by(former_log.c.start)
    .limit(1)
)
_SIZE = select(log.c.size).where(log.c.tenant_id == _T)
_ORIGIN = select(log.c.origin).where(log.c.tenant_id == _T)
_KEYS = (
    select(signing_key.c.vkey, signing_key.c.since_size, signing_key.c.until_size)
    .where(signing_key.c.tenant_id == _T)
    .order_by(signing_key.c.since_size, signing_key.c.key_id)
)


@dataclass(frozen=True, slots=True)
class TileName:
    """Which tile: ``level`` 0 to 63, or ``None`` for a bundle of entries; ``width`` 256 means the full tile."""

    level: int | None
    index: int
    width: int

    @property
    def full(self) -> bool:
        """Whether this tile can never change or grow."""
        return self.width == WIDTH


class LogKey(NamedTuple):
    """A verifier key, and the checkpoint sizes it signs: from ``since``, and below ``until`` once it is retired."""

    vkey: str
    since: int
    until: int | None


class LogKeys(NamedTuple):
    """The keys of one log, oldest first."""

    origin: str
    keys: tuple[LogKey, ...]


def parse_tile_name(text: str) -> TileName | None:
    """Read what follows ``tile/`` in a path (tlog-tiles, "Merkle Tree", "Log entries"); ``None`` if it is no name.

    Each tile has one spelling: no zeros in front of a level or width, no ``x000`` in front of an index.
    """
    found = _NAME.fullmatch(text)
    if found is None or found["index"].startswith("x000/") or len(found["index"]) > len("x000/") * 7:
        return None
    index = int(found["index"].replace("x", "").replace("/", ""))
    level = None if found["level"] is None else int(found["level"])
    width = WIDTH if found["width"] is None else int(found["width"])
    if index > MAX_INDEX or (level or 0) > MAX_LEVEL or (found["width"] is not None and width >= WIDTH):
        return None
    return TileName(level, index, width)


def read_tile(connection: Connection, scope: Scope, name: TileName, ordinal: int = 1) -> bytes | None:
    """Return a tile's hashes or a bundle's entries; ``None`` where no published checkpoint covers all of it.

    ``ordinal`` says of which origin of the log, from 1.
    """
    start = start_of_ordinal(ordinal)
    newest = newest_checkpoint(connection, scope, start)
    if newest is None:
        return None
    height = 8 * (name.level or 0)
    first = name.index * WIDTH
    last = first + name.width
    if last > newest.size >> height or (height and height not in STORED_LEVELS):
        return None
    if name.level is not None:
        return log_reader(connection, scope, start)(height, first, last)
    rows = connection.execute(_ENTRIES, {"t": scope.plane, "first": start + first, "last": start + last})
    return bundle(rows.scalars())


def bundle(entries: Iterable[str]) -> bytes:
    """Return log entries as an entry bundle: each after its length, big-endian uint16 (tlog-tiles, "Log entries")."""
    encoded = (entry.encode() for entry in entries)
    return b"".join(len(data).to_bytes(2) + data for data in encoded)


def read_successor(connection: Connection, scope: Scope, ordinal: int) -> str | None:
    """Return the proof that origin number ``ordinal`` was followed by another; ``None`` while it was not.

    ``connection`` must be a snapshot.
    """
    start = start_of_ordinal(ordinal)
    size: int = connection.execute(_SIZE, {"t": scope.plane}).scalar_one()
    following = connection.execute(_NEXT_FORMER, {"t": scope.plane, "start": start}).scalar_one_or_none()
    if following is None:
        following = start_of(size)
    newest = newest_checkpoint(connection, scope, following) if following > start else None
    if newest is None:
        return None
    read = log_reader(connection, scope, following)
    path = tuple(merkle.range_root(*part, read) for part in merkle.inclusion_ranges(0, newest.size))
    entry = connection.execute(_ENTRY, {"t": scope.plane, "n": following}).scalar_one()
    return build_successor(entry, logs.read_vkeys(connection, scope, newest.origin), path, newest.note)


def read_keys(connection: Connection, scope: Scope) -> LogKeys | None:
    """Return the log's keys, retired ones too: old notes stay checkable for ever. ``None`` where there is no log."""
    origin = connection.execute(_ORIGIN, {"t": scope.plane}).scalar_one_or_none()
    if origin is None:
        return None
    keys = (
        LogKey(row.vkey, number_of(row.since_size), None if row.until_size is None else number_of(row.until_size))
        for row in connection.execute(_KEYS, {"t": scope.plane})
    )
    return LogKeys(origin, tuple(keys))


def policy_text(found: LogKeys, url: str, witnesses: Iterable[Mapping[str, str]] = (), quorum: int = 0) -> str:
    """Return the keys as a C2SP tlog-policy; ``url`` is where this log is read.

    ``witnesses`` (``url``, ``vkey``) are those that the log asks, ``quorum`` how many it waits for.
    """
    lines = [f"# Signed checkpoints of {found.origin}. Compare the keys with another copy before you trust them.\n"]
    first = min((VerifierKey.parse(key.vkey).name for key in found.keys), key=len, default=found.origin)
    for key in found.keys:
        later = VerifierKey.parse(key.vkey).name.removeprefix(first)  # a later origin is served below the first
        until = "" if key.until is None else f", below size {key.until}"
        lines.append(f"# from size {key.since}{until}\nlog {key.vkey} {url}{later}\n")
    named = [(WitnessKey.parse(one["vkey"]).name, one) for one in witnesses]
    if named:
        lines.append("# Witnesses that this log asks. Trust those that you know from elsewhere.\n")
    lines += [f"witness {name} {one['vkey']} {one['url']}\n" for name, one in named]
    if quorum:
        lines.append(f"group {GROUP} {quorum} {' '.join(name for name, _ in named)}\n")
    return "".join(lines) + f"quorum {GROUP if quorum else 'none'}\n"
