"""A witness for tests: the server side of C2SP tlog-witness, written apart from the client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared_record.ledger import merkle, note
from tsa import answering

Answer = tuple[int, dict[str, str], bytes]
TIME = 1_795_348_800


@dataclass
class TestWitness:
    """Knows one log by its keys; keeps (origin -> size, root) in a file and cosigns what extends it."""

    __test__ = False

    file: Path
    name: str
    log_keys: list[note.VerifierKey]
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    url: str = ""
    asked: list[int] = field(default_factory=list)
    reply: Answer | None = None

    @property
    def vkey(self) -> note.WitnessKey:
        """Its verifier key."""
        return note.WitnessKey.of(self.name, self.key)

    @property
    def setting(self) -> dict[str, str]:
        """How a tenant names it."""
        return {"url": self.url, "vkey": str(self.vkey)}

    def known(self, origin: str) -> tuple[int, bytes]:
        """Return size and root of what was cosigned last."""
        stored = json.loads(self.file.read_text()) if self.file.exists() else {}
        size, root = stored.get(origin, (0, merkle.EMPTY_ROOT.hex()))
        return size, bytes.fromhex(root)

    def remember(self, origin: str, size: int, root: bytes) -> None:
        """Keep what was cosigned."""
        stored = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(json.dumps(stored | {origin: (size, root.hex())}))

    def answer(self, body: bytes) -> Answer:
        """Answer ``add-checkpoint``."""
        head, _, text = body.decode().partition("\n\n")
        first, *proof = head.split("\n")
        old = int(first.removeprefix("old "))
        self.asked.append(old)
        if self.reply is not None:
            return self.reply
        try:
            signed = note.open_note(text, self.log_keys)
        except ValueError:
            return 403, {}, b""
        checkpoint = note.parse_checkpoint(signed)
        size, root = self.known(checkpoint.origin)
        if old > checkpoint.size:
            return 400, {}, b""
        if old != size:
            return 409, {"Content-Type": "text/x.tlog.size"}, f"{size}\n".encode()
        path = [base64.b64decode(line) for line in proof]
        if old == checkpoint.size and root != checkpoint.root:
            return 409, {"Content-Type": "text/x.tlog.size"}, f"{size}\n".encode()
        if old and not merkle.verify_consistency(old, checkpoint.size, root, checkpoint.root, path):
            return 422, {}, b""
        if not old and path:
            return 422, {}, b""
        self.remember(checkpoint.origin, checkpoint.size, checkpoint.root)
        return 200, {}, note.cosign(signed, self.name, self.key, TIME).encode()


@contextmanager
def serve_witness(witness: TestWitness) -> Iterator[TestWitness]:
    """Serve a witness."""
    with answering(witness.answer) as url:
        witness.url = url
        yield witness
