"""Asking witnesses to cosign a checkpoint before it is published: the client side of C2SP tlog-witness.

A witness cosigns only what extends everything it has cosigned before, so its cosignature tells a reader that no other
history was shown to it. What a witness says against this log is an alarm; that it says nothing lowers a label.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shared_record.db.engine import Database
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.ledger import merkle
from shared_record.ledger.checkpoints import LogHaltedError
from shared_record.ledger.note import WitnessKey, b64encode, find_cosignatures, parse_checkpoint
from shared_record.ledger.outbound import at_once, post
from shared_record.ledger.proofs import log_reader
from shared_record.plugin import Post

BUDGET_SECONDS = 5
"""For all witnesses together; publication waits no longer."""
MAX_LINES = 100

_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n?", re.ASCII)
_log = logging.getLogger("shared_record.witnesses")


class QuorumError(UnavailableError):
    """Fewer witnesses have cosigned than the tenant asks for; the checkpoint waits and is tried again."""

    code = "WITNESS_QUORUM"


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: the prefix below which it takes checkpoints, and the key it cosigns with."""

    url: str
    key: WitnessKey


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The witnesses of one tenant; ``quorum`` of them must cosign before a checkpoint is published."""

    members: tuple[Witness, ...]
    quorum: int = 0
    post: Post = post

    @classmethod
    def of(cls, settings: Iterable[Mapping[str, str]], quorum: int, send: Post = post) -> Witnesses:
        """Return the witnesses that a tenant's settings name."""
        return cls(tuple(Witness(one["url"], WitnessKey.parse(one["vkey"])) for one in settings), quorum, send)

    def cosign(self, db: Database, scope: Scope, note: str) -> tuple[str, ...]:
        """Return the signature lines of those witnesses that cosign ``note``, which is signed but not yet published.

        Raises ``LogHaltedError`` when a witness has cosigned what this log does not contain, and ``QuorumError`` when
        too few answer.
        """
        results = at_once([partial(self._ask, db, scope, note, member) for member in self.members], BUDGET_SECONDS)
        lines = []
        for member, result in zip(self.members, results, strict=True):
            if isinstance(result, LogHaltedError):
                raise result
            if isinstance(result, str):
                lines.append(result)
            else:
                _log.warning("witness %s did not cosign: %s", member.key.name, result)
        if len(lines) < self.quorum:
            raise QuorumError(
                f"{len(lines)} of {len(self.members)} witnesses have cosigned, {self.quorum} are needed."
                " The checkpoint waits."
            )
        return tuple(lines)

    def _ask(self, db: Database, scope: Scope, note: str, witness: Witness) -> str:
        """Return the cosignature of one witness. At first it is taken to know the size before, as all do at rest."""
        size = parse_checkpoint(note.rpartition("\n\n")[0] + "\n").size
        status, answer = self._send(db, scope, note, witness, size - 1, size)
        if status == 409:
            known = _SIZE.fullmatch(answer)
            if known is None:
                raise ValueError("it answered 409 without the size that it knows")
            old = int(known[1])
            if old > size:
                raise LogHaltedError(_alarm(witness, f"size {old}, but this log is about to publish size {size}"))
            status, answer = self._send(db, scope, note, witness, old, size)
            if status == 409 and old == size:
                raise LogHaltedError(_alarm(witness, f"another checkpoint of size {size}"))
        if status != 200:
            raise ValueError(f"it answered {status}")
        return _cosignature(note, answer, witness.key)

    def _send(self, db: Database, scope: Scope, note: str, witness: Witness, old: int, size: int) -> tuple[int, bytes]:
        proof = [] if old == 0 else _consistency(db, scope, old, size)
        body = "".join([f"old {old}\n", *(f"{b64encode(h)}\n" for h in proof), "\n", note])
        url = witness.url.rstrip("/") + "/add-checkpoint"
        return self.post(url, body.encode(), content_type="text/plain; charset=utf-8", timeout=BUDGET_SECONDS)


def _consistency(db: Database, scope: Scope, old: int, size: int) -> Sequence[bytes]:
    with db.read(scope) as connection:
        read = log_reader(connection, scope)
        return [merkle.range_root(*span, read) for span in merkle.consistency_ranges(old, size)]


def _cosignature(note: str, answer: bytes, key: WitnessKey) -> str:
    """Return the one line of ``answer`` that is a valid cosignature by ``key``; the rest is dropped."""
    text = answer.decode()
    if not text.endswith("\n") or text.count("\n") > MAX_LINES:
        raise ValueError("its answer is no list of signature lines")
    found = find_cosignatures(note.rpartition("\n\n")[0] + "\n\n" + text, [key])
    if not found:
        raise ValueError("its answer holds no cosignature by its key")
    return found[0].line


def _alarm(witness: Witness, what: str) -> str:
    return (
        f"The witness {witness.key.name} has cosigned {what}. The database may have been restored from an older"
        " backup, or this log was continued elsewhere. Nothing was published. Restore the newer state, or start a new"
        " origin; if the witness is wrong, take it out of the tenant's file."
    )
