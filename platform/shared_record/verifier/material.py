"""What a file holds that another can be compared with: its checkpoint, its head, and its entries. It judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from shared_record.ledger import entry, merkle
from shared_record.ledger.note import MAX_NOTE, Checkpoint, parse_checkpoint
from shared_record.ledger.receipt import HEADER, MAX_RECEIPT, Included, Receipt
from shared_record.verifier.bundle import read_bundle_parts
from shared_record.verifier.checks import read_export_parts
from shared_record.verifier.documents import receipt_in
from shared_record.verifier.evidence import Statement
from shared_record.verifier.receipts import chain_of, read_receipt
from shared_record.verifier.subtrees import Source, from_leaves, from_path
from shared_record.verifier.trust import Unusable, parsed

Texts = Callable[[], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Material:
    """The parts of one file. A bare checkpoint has no ``statement``; only whole records have ``texts``.

    ``texts`` yields the covered entries in order, anew with each call; ``places`` are single entries with their paths.
    """

    checkpoint: Checkpoint
    note: str
    vkeys: tuple[str, ...]
    statement: Statement | None = None
    places: tuple[Included, ...] = ()
    texts: Texts | None = None

    @property
    def log(self) -> Source | None:
        """What is known of the log's tree."""
        if self.statement is None:
            return None
        chain = self.statement.chain
        return from_path(merkle.leaf_hash(chain.epoch.encode()), chain.log_index, self.checkpoint.size, chain.log_path)

    @property
    def record(self) -> Source | None:
        """What is known of the record's tree."""
        if self.texts is not None:
            texts = self.texts
            return from_leaves(lambda: (merkle.leaf_hash(text.encode()) for text in texts()))
        if self.places:
            place = self.places[0]
            return from_path(merkle.leaf_hash(place.text.encode()), place.index, place.size, place.path)
        return None


def read_material(file: BinaryIO | Path) -> Material:
    """Read a bundle, a receipt, an export or a signed checkpoint; what is none of these is ``Unusable``."""
    if isinstance(file, Path) and file.is_dir():
        return _from_bundle(file)
    start = _start(file)
    if start.startswith(b"PK"):
        return _from_bundle(file)
    if start.startswith(HEADER.partition("@")[0].encode()):
        return _from_receipt(read_receipt(_read(file, MAX_RECEIPT)), ())
    if start.startswith(b"{"):
        carried = receipt_in(_read(file, MAX_RECEIPT))
        return _from_export(file) if carried is None else _from_receipt(read_receipt(carried), ())
    return _from_note(_read(file, MAX_NOTE))


def _from_note(data: bytes) -> Material:
    try:
        text = data.decode()
        return Material(_claimed(text), text, ())
    except ValueError as error:
        raise Unusable("this is not a receipt, bundle, export or checkpoint") from error


def _from_receipt(receipt: Receipt, vkeys: Sequence[str], texts: Texts | None = None) -> Material:
    delta = parsed("the entry", entry.parse_entry, receipt.entry.text)
    before = receipt.window.before if receipt.window else None
    return Material(
        checkpoint=parsed("the checkpoint", _claimed, receipt.checkpoint),
        note=receipt.checkpoint,
        vkeys=tuple(vkeys),
        statement=Statement(chain_of(receipt), delta.rec, delta.period),
        places=(receipt.entry, *((before,) if before else ())),
        texts=texts,
    )


def _from_bundle(file: BinaryIO | Path) -> Material:
    parts = read_bundle_parts(file)
    if parts is None:
        raise Unusable("no checkpoint covers this record yet")
    receipt, vkeys, texts = parts
    return _from_receipt(receipt, vkeys, lambda: islice(texts(), receipt.entry.size))


def _from_export(file: BinaryIO | Path) -> Material:
    def entries() -> Iterator[str]:
        with ExitStack() as stack:
            yield from islice(read_export_parts(_opened(file, stack)).entries, parts.size)

    with ExitStack() as first:
        parts = read_export_parts(_opened(file, first))
    if parts.chain is None:
        raise Unusable("no checkpoint covers this record yet")
    return Material(
        checkpoint=parsed("the checkpoint", _claimed, parts.chain.checkpoint),
        note=parts.chain.checkpoint,
        vkeys=tuple(parts.vkeys),
        statement=Statement(parts.chain, parts.record.tree_id, parts.record.period),
        texts=entries,
    )


def _claimed(text: str) -> Checkpoint:
    return parse_checkpoint(text.rpartition("\n\n")[0] + "\n")


def _opened(file: BinaryIO | Path, stack: ExitStack) -> BinaryIO:
    if isinstance(file, Path):
        return stack.enter_context(file.open("rb"))
    file.seek(0)
    return file


def _start(file: BinaryIO | Path) -> bytes:
    with ExitStack() as stack:
        return _opened(file, stack).read(len(HEADER))


def _read(file: BinaryIO | Path, most: int) -> bytes:
    with ExitStack() as stack:
        data = _opened(file, stack).read(4 * most + 1)
    return data if len(data) <= 4 * most else b""
