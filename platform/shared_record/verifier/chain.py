"""From a customer's head to the signed checkpoint: the part that every proof shares, whatever file it came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared_record.ledger import entry, merkle
from shared_record.ledger.origin import is_later_origin
from shared_record.verifier.trust import Difference, Run, check_witnesses, choose_keys, open_checkpoint, parsed


class Chain(NamedTuple):
    """The texts and paths between a head and a checkpoint; ``log_size`` where the file states it beside the note."""

    head: str
    slot_index: int
    slot_count: int
    slot_path: Sequence[bytes]
    epoch: str
    log_index: int
    log_path: Sequence[bytes]
    log_size: int | None
    checkpoint: str


def stated_period(head: entry.Head, tree_id: str, period: str) -> entry.OpenPeriod:
    """Return the one row in which ``head`` states this record."""
    stated = [row for row in head.open if (row.rec, row.period) == (tree_id, period)]
    if len(stated) != 1:
        raise Difference(f"the head does not state the record {tree_id} of {period}")
    return stated[0]


def check_chain(head: entry.Head, chain: Chain, origin: str, vkeys: Sequence[str], run: Run) -> None:
    """Prove ``chain.head`` (parsed: ``head``) up to a checkpoint that a key of the log ``origin`` signed."""
    epoch = _check_epoch(head, chain, run)
    choose_keys(origin, vkeys, run)
    checkpoint = open_checkpoint(chain.checkpoint, run)
    check_witnesses(chain.checkpoint, run)
    if checkpoint.origin != origin:
        if is_later_origin(checkpoint.origin, origin):
            raise Difference(
                f"the log declared a new origin: the checkpoint is of {checkpoint.origin}, not of {origin}"
            )
        raise Difference(f"the checkpoint is of the log {checkpoint.origin}, the record of {origin}")
    if chain.log_size not in (None, checkpoint.size):
        raise Difference(f"the proof has a log of {chain.log_size} epochs, the checkpoint one of {checkpoint.size}")
    if chain.log_index != epoch.epoch:
        raise Difference(f"the epoch record is {epoch.epoch}, but it is proved at {chain.log_index}")
    leaf = merkle.leaf_hash(chain.epoch.encode())
    if not merkle.verify_inclusion(leaf, epoch.epoch, checkpoint.size, chain.log_path, checkpoint.root):
        raise Difference(f"epoch {epoch.epoch} is not in the log that the checkpoint signs")
    run.checked.append(f"Epoch {epoch.epoch} is in the log {checkpoint.origin} at size {checkpoint.size}.")
    run.checked.append(f"The checkpoint of that size is signed by the key from {run.key_source}.")


def _check_epoch(head: entry.Head, chain: Chain, run: Run) -> entry.Epoch:
    epoch = parsed("the epoch record", entry.parse_epoch, chain.epoch)
    if chain.slot_index != head.slot:
        raise Difference(f"the head is proved at slot {chain.slot_index}, its customer has slot {head.slot}")
    if head.epoch > epoch.epoch:  # one that did not change since may be that of an earlier epoch
        raise Difference(f"the head is of epoch {head.epoch}, the epoch record is {epoch.epoch}")
    if chain.slot_count != epoch.slots:
        raise Difference(f"the proof has {chain.slot_count} slots, the epoch record {epoch.slots}")
    leaf = merkle.leaf_hash(chain.head.encode())
    if not merkle.verify_inclusion(leaf, head.slot, epoch.slots, chain.slot_path, epoch.root):
        raise Difference(f"the head is not in slot {head.slot} of epoch {epoch.epoch}")
    run.checked.append(f"The head is in slot {head.slot}, the customer's own, of epoch {epoch.epoch} ({epoch.ts}).")
    return epoch
