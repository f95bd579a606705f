"""Proofs for any part of a period, and that what is shown now extends what was shown before.

Everything is read from stored hashes: a few hundred rows at most, whatever the size of the record or of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db.schema import checkpoint
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger import merkle
from shared_record.ledger.note import parse_checkpoint
from shared_record.ledger.origin import start_of_ordinal
from shared_record.ledger.proofs import ProvenSpan, log_reader, newest_checkpoint, prove_span
from shared_record.ledger.receipts import Span, tree_reader
from shared_record.ledger.records import Period

_T: BindParameter[UUID] = bindparam("t")
_PUBLISHED = select(checkpoint.c.body, checkpoint.c.note).where(
    checkpoint.c.tenant_id == _T, checkpoint.c.size == bindparam("size"), checkpoint.c.state == "published"
)


@dataclass(frozen=True, slots=True)
class TreeState:
    """A tree at one size."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Consistency:
    """The RFC 6962 proof that the tree ``new`` begins with all of the tree ``old``."""

    old: TreeState
    new: TreeState
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogConsistency:
    """Consistency of a log, and the signed note that states the newer tree."""

    origin: str
    tree: Consistency
    note: str


@dataclass(frozen=True, slots=True)
class RecordConsistency:
    """Consistency of one period's record, and the proof of the newer tree up to a signed note."""

    tree: Consistency
    proved: ProvenSpan


def whole_span(period: Period) -> Span:
    """Return the part of ``period`` that the newest checkpoint covers."""
    return Span(period.tree_id, period.period, 0, period.psize)


def prove_log_consistency(
    connection: Connection, scope: Scope, old_size: int, new_size: int | None = None, ordinal: int | None = None
) -> LogConsistency | None:
    """Prove that the log at ``new_size`` (default: the newest) extends the log at ``old_size``.

    ``ordinal`` says of which origin (default: the current). ``None`` where no checkpoint of ``new_size`` is published.
    ``ValueError`` unless 0 < old_size <= new_size.
    """
    newest = newest_checkpoint(connection, scope, None if ordinal is None else start_of_ordinal(ordinal))
    if newest is None or (new_size or 0) > newest.size:
        return None
    size = newest.size if new_size is None else new_size
    row = connection.execute(_PUBLISHED, {"t": scope.plane, "size": newest.start + size}).one_or_none()
    if row is None:
        return None
    said = parse_checkpoint(row.body)
    read = log_reader(connection, scope, newest.start)
    return LogConsistency(said.origin, _extends(old_size, TreeState(said.size, said.root), read), row.note)


def prove_record_consistency(
    connection: Connection, keys: KeyRing, scope: Scope, period: Period, old_size: int
) -> RecordConsistency | None:
    """Prove that the record of ``period``, as the newest checkpoint covers it, extends its first ``old_size`` deltas.

    ``connection`` must be a snapshot. ``None`` where nothing can be proved (see ``prove_span``); ``ValueError`` unless
    0 < old_size <= the covered size.
    """
    proved = prove_span(connection, keys, scope, whole_span(period)) if period.psize else None
    if proved is None:
        return None
    read = tree_reader(connection, scope, period.tree_id)
    now = TreeState(proved.window.end, proved.window.root or merkle.EMPTY_ROOT)
    return RecordConsistency(_extends(old_size, now, read), proved)


def _extends(old_size: int, new: TreeState, read: merkle.ReadHashes) -> Consistency:
    path = tuple(merkle.range_root(*part, read) for part in merkle.consistency_ranges(old_size, new.size))
    old_root = new.root if old_size == new.size else merkle.range_root(0, old_size, read)
    return Consistency(TreeState(old_size, old_root), new, path)
