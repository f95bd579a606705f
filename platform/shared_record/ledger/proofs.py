"""Proofs, read from stored hashes: what ties a period's rows to the newest signed checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db.schema import checkpoint, customer, epoch, leaf, log, log_node, period_tree, statement
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger import logs, merkle
from shared_record.ledger.amounts import subtract
from shared_record.ledger.entry import head_text, parse_entry, parse_head
from shared_record.ledger.heads import EMPTY_FRAGMENT
from shared_record.ledger.note import parse_checkpoint
from shared_record.ledger.origin import SPAN, number_of, start_of
from shared_record.ledger.receipt import Included, Receipt, Window, build_receipt, earlier_root
from shared_record.ledger.receipts import Span, hash_reader, proof_root, tree_reader
from shared_record.ledger.slots import blinding, tile_reader
from shared_record.plugin import RecordProof
from shared_record.tenancy.tenants import tenant_key

_T: BindParameter[UUID] = bindparam("t")
_NEWEST = (
    select(checkpoint.c.size, checkpoint.c.body, checkpoint.c.note, checkpoint.c.created_at)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published")
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)
_NEWEST_OF_ORIGIN = _NEWEST.where(checkpoint.c.size > bindparam("start"), checkpoint.c.size < bindparam("start") + SPAN)
_SIZE = select(log.c.size).where(log.c.tenant_id == _T)
_TREE = select(period_tree.c.pepoch, period_tree.c.customer_id, period_tree.c.status).where(
    period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree")
)
_STATEMENT = select(statement).where(statement.c.tenant_id == _T, statement.c.tree_id == bindparam("tree"))
_CUSTOMER = select(customer.c.ref, customer.c.slot, customer.c.head, customer.c.head_epoch).where(
    customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who")
)
_EPOCH = select(epoch.c.entry, epoch.c.slots, epoch.c.reblinded).where(
    epoch.c.tenant_id == _T, epoch.c.n == bindparam("n")
)
_ENTRY = select(leaf.c.entry).where(
    leaf.c.tenant_id == _T, leaf.c.tree_id == bindparam("tree"), leaf.c.seq == bindparam("seq")
)
_EPOCH_HASHES = (
    select(epoch.c.hash)
    .where(epoch.c.tenant_id == _T, epoch.c.n >= bindparam("first"), epoch.c.n < bindparam("last"))
    .order_by(epoch.c.n)
)
_LOG_NODES = (
    select(log_node.c.hash)
    .where(
        log_node.c.tenant_id == _T,
        log_node.c.level == bindparam("lvl"),
        log_node.c.idx >= bindparam("first"),
        log_node.c.idx < bindparam("last"),
    )
    .order_by(log_node.c.idx)
)


@dataclass(frozen=True, slots=True)
class Published:
    """The newest published checkpoint of a log; ``start`` is the first serial of its origin."""

    origin: str
    size: int
    root: bytes
    note: str
    created_at: datetime
    start: int


def newest_checkpoint(connection: Connection, scope: Scope, start: int | None = None) -> Published | None:
    """Return the newest published checkpoint, or ``None`` before the first; of the origin from ``start`` if given."""
    query, of = (_NEWEST, {}) if start is None else (_NEWEST_OF_ORIGIN, {"start": start})
    row = connection.execute(query, {"t": scope.plane} | of).one_or_none()
    if row is None:
        return None
    said = parse_checkpoint(row.body)
    return Published(said.origin, said.size, said.root, row.note, row.created_at, start_of(row.size))


def covering_checkpoint(connection: Connection, scope: Scope, tree_id: str) -> Published | None:
    """Return the newest checkpoint of the origin that proves a period: where it was closed, else the current one."""
    closed = connection.execute(_STATEMENT, {"t": scope.plane, "tree": tree_id}).one_or_none()
    return newest_checkpoint(connection, scope, None if closed is None else start_of(closed.epoch))


def prove_record(connection: Connection, keys: KeyRing, scope: Scope, tree_id: str) -> RecordProof | None:
    """Return the proof of one period's published rows against the newest checkpoint, or ``None`` before the first.

    ``connection`` must be a snapshot: the parts belong together. A closed period is proved by its statement, under the
    origin that it was closed under; an open one by its head in the newest epoch; one of an erased customer no more:
    ``None``.
    """
    newest = newest_checkpoint(connection, scope)
    tree = connection.execute(_TREE, {"t": scope.plane, "tree": tree_id}).one()
    if newest is None or tree.pepoch is None or tree.status == "erased":
        return None
    closed = connection.execute(_STATEMENT, {"t": scope.plane, "tree": tree_id}).one_or_none()
    if closed is not None:
        n, head, slot, slots = closed.epoch, closed.head, closed.slot, closed.slots
        slot_path = merkle.split_hashes(closed.path)
        if start_of(n) != newest.start:
            newest = newest_checkpoint(connection, scope, start_of(n))
            assert newest is not None  # a statement is made when its epoch is published
    else:
        n = newest.start + newest.size - 1
        head, slot = _open_head(connection, keys, scope, tree.customer_id, n)
        slots = connection.execute(_EPOCH, {"t": scope.plane, "n": n}).one().slots
        read = tile_reader(connection, scope, n)
        slot_path = [merkle.range_root(start, end, read) for start, end in merkle.inclusion_ranges(slot, slots)]
    row = next(row for row in parse_head(head).open if row.rec == tree_id)
    read_log = log_reader(connection, scope, newest.start)
    log_path = [merkle.range_root(*span, read_log) for span in merkle.inclusion_ranges(number_of(n), newest.size)]
    return RecordProof(
        size=row.size,
        root=row.root,
        head=head,
        slot_index=slot,
        slot_count=slots,
        slot_path=tuple(slot_path),
        epoch=connection.execute(_EPOCH, {"t": scope.plane, "n": n}).one().entry,
        log_index=number_of(n),
        log_size=newest.size,
        log_path=tuple(log_path),
        checkpoint=newest.note,
        vkeys=logs.read_vkeys(connection, scope, newest.origin),
    )


def prove_delta(
    connection: Connection, keys: KeyRing, scope: Scope, tree_id: str, seq: int
) -> tuple[RecordProof, tuple[bytes, ...]] | None:
    """Return the proof of a delta's period and the audit path of its leaf in it; ``None`` while it is not covered."""
    proof = prove_record(connection, keys, scope, tree_id)
    if proof is None or seq > proof.size:
        return None
    read = tree_reader(connection, scope, tree_id)
    return proof, tuple(merkle.range_root(*span, read) for span in merkle.inclusion_ranges(seq - 1, proof.size))


@dataclass(frozen=True, slots=True)
class ProvenSpan:
    """The deltas of one span, proved by the leaves at its two ends: count, total, and all that leads to the note.

    The window's ``root`` is ``None`` unless the span starts with its period: over other spans it would take every leaf.
    """

    span: Span
    proof: RecordProof
    receipt: Receipt
    window: Window

    @property
    def total(self) -> str:
        """The exact sum of the deltas."""
        return subtract(self.window.closing, self.window.opening)

    @property
    def text(self) -> str:
        """The tlog-proof text, which ``verify`` reads."""
        return build_receipt(replace(self.receipt, window=self.window))


def prove_span(connection: Connection, keys: KeyRing, scope: Scope, span: Span) -> ProvenSpan | None:
    """Prove count and sum of a span that is not empty, in O(log n) stored hashes; ``connection`` must be a snapshot.

    ``None`` while a checkpoint does not cover its last delta, or after one of the two leaves was erased.
    """
    proof = prove_record(connection, keys, scope, span.tree_id)
    if proof is None or span.last > proof.size:
        return None
    last = _included(connection, scope, span.tree_id, span.last, proof.size)
    before = _included(connection, scope, span.tree_id, span.first, proof.size) if span.first else None
    if last is None or (span.first and before is None):
        return None
    window = Window(
        start=span.first,
        end=span.last,
        root=None if span.first else earlier_root(last),
        opening=parse_entry(before.text).total if before else "0",
        closing=parse_entry(last.text).total,
        before=before,
    )
    head = Included(proof.head, proof.slot_index, proof.slot_count, proof.slot_path)
    receipt = Receipt(last, head, proof.epoch, proof.log_index, proof.log_path, proof.checkpoint)
    return ProvenSpan(span, proof, receipt, window)


def write_receipt(
    connection: Connection, keys: KeyRing, scope: Scope, spans: Sequence[Span], *, window: bool
) -> str | None:
    """Return the tlog-proof text of a delta (the one that ``spans`` hold), or of all of ``spans`` as a ``window``.

    A window over several periods has a part for each. ``None`` while a checkpoint does not cover its last delta, or
    after that was erased, and where there are no deltas.
    """
    texts = []
    for number, span in enumerate(spans, start=1):
        proved = prove_span(connection, keys, scope, span)
        if proved is None:
            return None
        shown = None
        if window:
            shown = proved.window
            if len(spans) > 1:
                shown = replace(shown, part=(number, len(spans)))
            elif shown.root is None:
                shown = replace(shown, root=proof_root(connection, scope, spans))
        texts.append(build_receipt(replace(proved.receipt, window=shown)))
    return "".join(texts) or None


def _included(connection: Connection, scope: Scope, tree_id: str, seq: int, size: int) -> Included | None:
    text = connection.execute(_ENTRY, {"t": scope.plane, "tree": tree_id, "seq": seq}).scalar_one()
    if text is None:
        return None
    read = tree_reader(connection, scope, tree_id)
    path = tuple(merkle.range_root(*part, read) for part in merkle.inclusion_ranges(seq - 1, size))
    return Included(text, seq - 1, size, path)


def log_reader(connection: Connection, scope: Scope, start: int | None = None) -> merkle.ReadHashes:
    """Return a reader over the hashes of the tenant log: of the origin from ``start``, by default the current one."""
    if start is None:
        start = start_of(connection.execute(_SIZE, {"t": scope.plane}).scalar_one())
    read = hash_reader(connection, _EPOCH_HASHES, _LOG_NODES, {"t": scope.plane})
    return lambda level, first, last: read(level, (start >> level) + first, (start >> level) + last)


def _open_head(connection: Connection, keys: KeyRing, scope: Scope, customer_id: UUID, n: int) -> tuple[str, int]:
    person = connection.execute(_CUSTOMER, {"t": scope.plane, "who": customer_id}).one()
    reblinded = connection.execute(_EPOCH, {"t": scope.plane, "n": n}).one().reblinded
    hashed = n if reblinded is None else max(reblinded, person.head_epoch or 0)
    z = blinding(tenant_key(connection, keys, scope), person.slot, hashed)
    return head_text(person.ref, number_of(hashed), person.head or EMPTY_FRAGMENT, z), person.slot
