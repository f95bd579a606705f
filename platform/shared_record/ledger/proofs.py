"""Proofs, read from stored hashes: what ties a period's rows to the newest signed checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db.schema import checkpoint, customer, epoch, leaf, log_node, period_tree, statement
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger import logs, merkle
from shared_record.ledger.checkpoints import EMPTY_FRAGMENT, blinding, tile_reader
from shared_record.ledger.entry import head_text, parse_entry, parse_head
from shared_record.ledger.note import parse_checkpoint
from shared_record.ledger.receipt import Included, Receipt, Window, build_receipt
from shared_record.ledger.receipts import Span, hash_reader, proof_root, tree_reader
from shared_record.plugin import RecordProof
from shared_record.tenancy.tenants import tenant_key

_T: BindParameter[UUID] = bindparam("t")
_NEWEST = (
    select(checkpoint.c.size, checkpoint.c.body, checkpoint.c.note, checkpoint.c.created_at)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published")
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)
_TREE = select(period_tree.c.pepoch, period_tree.c.customer_id, period_tree.c.status).where(
    period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree")
)
_STATEMENT = select(statement).where(statement.c.tenant_id == _T, statement.c.tree_id == bindparam("tree"))
_CUSTOMER = select(customer.c.ref, customer.c.slot, customer.c.head).where(
    customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who")
)
_EPOCH = select(epoch.c.entry, epoch.c.slots).where(epoch.c.tenant_id == _T, epoch.c.n == bindparam("n"))
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
    """The newest published checkpoint of a log."""

    origin: str
    size: int
    root: bytes
    note: str
    created_at: datetime


def newest_checkpoint(connection: Connection, scope: Scope) -> Published | None:
    """Return the newest published checkpoint, or ``None`` before the first."""
    row = connection.execute(_NEWEST, {"t": scope.plane}).one_or_none()
    if row is None:
        return None
    said = parse_checkpoint(row.body)
    return Published(said.origin, said.size, said.root, row.note, row.created_at)


def prove_record(connection: Connection, keys: KeyRing, scope: Scope, tree_id: str) -> RecordProof | None:
    """Return the proof of one period's published rows against the newest checkpoint, or ``None`` before the first.

    ``connection`` must be a snapshot: the parts belong together. A closed period is proved by its statement, an open
    one by its head in the newest epoch, one of an erased customer no more: ``None``.
    """
    newest = connection.execute(_NEWEST, {"t": scope.plane}).one_or_none()
    tree = connection.execute(_TREE, {"t": scope.plane, "tree": tree_id}).one()
    if newest is None or tree.pepoch is None or tree.status == "erased":
        return None
    closed = connection.execute(_STATEMENT, {"t": scope.plane, "tree": tree_id}).one_or_none()
    if closed is not None:
        n, head, slot, slots = closed.epoch, closed.head, closed.slot, closed.slots
        slot_path = merkle.split_hashes(closed.path)
    else:
        n = newest.size - 1
        head, slot = _open_head(connection, keys, scope, tree.customer_id, n)
        slots = connection.execute(_EPOCH, {"t": scope.plane, "n": n}).one().slots
        read = tile_reader(connection, scope, n)
        slot_path = [merkle.range_root(start, end, read) for start, end in merkle.inclusion_ranges(slot, slots)]
    row = next(row for row in parse_head(head).open if row.rec == tree_id)
    read_log = log_reader(connection, scope)
    log_path = [merkle.range_root(*span, read_log) for span in merkle.inclusion_ranges(n, newest.size)]
    return RecordProof(
        size=row.size,
        root=row.root,
        head=head,
        slot_index=slot,
        slot_count=slots,
        slot_path=tuple(slot_path),
        epoch=connection.execute(_EPOCH, {"t": scope.plane, "n": n}).one().entry,
        log_index=n,
        log_size=newest.size,
        log_path=tuple(log_path),
        checkpoint=newest.note,
        vkeys=logs.read_vkeys(connection, scope),
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


def write_receipt(connection: Connection, keys: KeyRing, scope: Scope, span: Span, *, window: bool) -> str | None:
    """Return the tlog-proof text of a delta (the one ``span`` holds), or of all of ``span`` as a ``window``.

    ``None`` while a checkpoint does not cover its last delta, or after that was erased.
    """
    proof = prove_record(connection, keys, scope, span.tree_id)
    if proof is None or span.last > proof.size:
        return None
    last = _included(connection, scope, span.tree_id, span.last, proof.size)
    before = _included(connection, scope, span.tree_id, span.first, proof.size) if span.first and window else None
    if last is None or (window and span.first and before is None):
        return None
    part = None
    if window:
        part = Window(
            start=span.first,
            end=span.last,
            root=proof_root(connection, scope, [span]),
            opening=parse_entry(before.text).total if before else "0",
            closing=parse_entry(last.text).total,
            before=before,
        )
    head = Included(proof.head, proof.slot_index, proof.slot_count, proof.slot_path)
    return build_receipt(Receipt(last, head, proof.epoch, proof.log_index, proof.log_path, proof.checkpoint, part))


def _included(connection: Connection, scope: Scope, tree_id: str, seq: int, size: int) -> Included | None:
    text = connection.execute(_ENTRY, {"t": scope.plane, "tree": tree_id, "seq": seq}).scalar_one()
    if text is None:
        return None
    read = tree_reader(connection, scope, tree_id)
    path = tuple(merkle.range_root(*part, read) for part in merkle.inclusion_ranges(seq - 1, size))
    return Included(text, seq - 1, size, path)


def log_reader(connection: Connection, scope: Scope) -> merkle.ReadHashes:
    """Return a reader over the hashes of the tenant log."""
    return hash_reader(connection, _EPOCH_HASHES, _LOG_NODES, {"t": scope.plane})


def _open_head(connection: Connection, keys: KeyRing, scope: Scope, customer_id: UUID, n: int) -> tuple[str, int]:
    person = connection.execute(_CUSTOMER, {"t": scope.plane, "who": customer_id}).one()
    z = blinding(tenant_key(connection, keys, scope), person.slot, n)
    return head_text(person.ref, n, person.head or EMPTY_FRAGMENT, z), person.slot
