"""One log with one customer, checkpoint after checkpoint: what is needed to compare a file with an older one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from shared_record.ledger import amounts, entry, merkle, note
from shared_record.plugin import ExportRow, RecordProof
from verifier.test_checks import KEY, ORIGIN, PERIOD, REF, SLOT, SLOTS, START, TREE, UNIT, Log, build, build_row


def rows_of(parts: Sequence[str], totals: Sequence[str] | None = None) -> tuple[ExportRow, ...]:
    """Rows of these amounts; ``totals`` are stated in place of the right ones."""
    total, rows = "0", []
    for seq, amount in enumerate(parts, start=1):
        total = amounts.add(total, amount) if totals is None else totals[seq - 1]
        rows.append(build_row(seq, amount, total, len(parts)))
    return tuple(rows)


@dataclass
class History:
    """A log that may be copied (``fork``) and go on in two ways."""

    origin: str = ORIGIN
    leaves: list[bytes] = field(default_factory=list)
    epochs: list[str] = field(default_factory=list)

    def fork(self) -> History:
        return History(self.origin, self.leaves[:], self.epochs[:])

    def idle(self, count: int) -> History:
        """Add epochs in which nothing is stated."""
        for _ in range(count):
            self._epoch([merkle.leaf_hash(b"\xff%d" % i) for i in range(SLOTS)])
        return self

    def state(
        self,
        rows: tuple[ExportRow, ...],
        *,
        total_stated: str | None = None,
        ref: str = REF,
        prev: entry.PreviousPeriod | None = None,
    ) -> Log:
        """Add an epoch whose head states ``rows``; return them with their proof."""
        root = merkle.root([bytes.fromhex(row.receipt_id[2:]) for row in rows])
        total = rows[-1].running_total
        stated = entry.OpenPeriod(PERIOD, TREE, root, len(rows), (("usage", UNIT, len(rows), total_stated or total),))
        head = entry.head_text(ref, len(self.leaves), entry.head_fragment((stated,), prev), "e" * 32)
        slots = [merkle.leaf_hash(b"\xff%d" % i) for i in range(SLOTS)]
        slots[SLOT] = merkle.leaf_hash(head.encode())
        self._epoch(slots)
        index = len(self.leaves) - 1
        proof = RecordProof(
            size=len(rows),
            root=root,
            head=head,
            slot_index=SLOT,
            slot_count=SLOTS,
            slot_path=tuple(merkle.inclusion_path(slots, SLOT)),
            epoch=self.epochs[-1],
            log_index=index,
            log_size=len(self.leaves),
            log_path=tuple(merkle.inclusion_path(self.leaves, index)),
            checkpoint=self.checkpoint(),
            vkeys=(str(note.VerifierKey.of(self.origin, KEY)),),
        )
        facts = replace(
            build().facts,
            log_origin=self.origin,
            customer_ref=ref,
            size=len(rows),
            total=total,
            covered_size=len(rows),
            covered_total=total,
            proof=proof,
        )
        return Log(facts, rows)

    def checkpoint(self) -> str:
        body = note.checkpoint_body(self.origin, len(self.leaves), merkle.root(self.leaves))
        return note.sign_note(body, self.origin, KEY)

    def _epoch(self, slots: list[bytes]) -> None:
        number = len(self.leaves)
        self.epochs.append(
            entry.epoch_text(
                epoch=number,
                prev=self.leaves[-1] if self.leaves else b"",
                root=merkle.root(slots),
                slots=len(slots),
                ts=START + timedelta(seconds=number),
            )
        )
        self.leaves.append(merkle.leaf_hash(self.epochs[-1].encode()))
