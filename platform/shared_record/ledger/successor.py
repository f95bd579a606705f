"""The evidence that a log declared a new origin: the first epoch of that origin, proved as a C2SP tlog-proof. Pure.

Index, path and checkpoint prove the epoch record, which carries the last checkpoint of the former origin. ``extra`` is
RFC 8785 JSON with that record and the verifier keys of the new origin.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared_record.ledger.entry import jcs, parse_epoch
from shared_record.ledger.merkle import HASH_SIZE, leaf_hash, verify_inclusion
from shared_record.ledger.note import (
    Checkpoint,
    VerifierKey,
    b64decode,
    b64encode,
    open_note,
    parse_checkpoint,
)
from shared_record.ledger.receipt import HEADER, check_canonical

MAX_SUCCESSOR = 100_000


@dataclass(frozen=True, slots=True)
class Successor:
    """A new origin as it proves itself: ``last`` is what it carries of the former one, ``signers`` its keys."""

    origin: str
    last: Checkpoint | None
    signers: tuple[VerifierKey, ...]


def build_successor(epoch: str, vkeys: tuple[str, ...], path: tuple[bytes, ...], note: str) -> str:
    """Return the text for the first epoch record of an origin, its keys, its audit path and a signed note above it."""
    extra = b64encode(jcs({"epoch": epoch, "vkeys": list(vkeys)}).encode())
    hashes = "".join(f"{b64encode(digest)}\n" for digest in path)
    return f"{HEADER}\nextra {extra}\nindex 0\n{hashes}\n{note}"


def open_successor(text: str) -> Successor:
    """Read and prove such a text; ``ValueError`` unless a key it names signed the checkpoint that holds the epoch."""
    proof, separator, note = text.partition("\n\n")
    lines = proof.split("\n")
    if not separator or len(lines) < 3 or lines[0] != HEADER or lines[2] != "index 0":
        raise ValueError("not the proof of a first epoch")
    if not lines[1].startswith("extra "):
        raise ValueError("the extra line is missing")
    fields = check_canonical(b64decode(lines[1][6:]).decode())
    if fields.keys() != {"epoch", "vkeys"} or not isinstance(fields["epoch"], str):
        raise ValueError("extra has other fields than an epoch and its keys")
    path = [b64decode(line) for line in lines[3:]]
    claimed = parse_checkpoint(note.rpartition("\n\n")[0] + "\n")
    known = [VerifierKey.parse(str(vkey)) for vkey in fields["vkeys"]]
    signers = tuple(key for key in known if key.name == claimed.origin and _signed(note, key))
    if not signers:
        raise ValueError("no key that it names signed its checkpoint")
    epoch = parse_epoch(fields["epoch"])
    leaf = leaf_hash(fields["epoch"].encode())
    if epoch.epoch or not all(len(digest) == HASH_SIZE for digest in path):
        raise ValueError("it is not about a first epoch")
    if not verify_inclusion(leaf, 0, claimed.size, path, claimed.root):
        raise ValueError("the epoch is not in the log that the checkpoint signs")
    last = None if epoch.former is None else parse_checkpoint(epoch.former)
    return Successor(claimed.origin, last, signers)


def _signed(note: str, key: VerifierKey) -> bool:
    try:
        open_note(note, [key])
    except ValueError:
        return False
    return True
