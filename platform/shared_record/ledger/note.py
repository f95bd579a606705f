"""Signed notes, checkpoints, verifier keys and policies: C2SP signed-note, tlog-checkpoint and tlog-policy. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared_record.ledger.merkle import EMPTY_ROOT, HASH_SIZE

ED25519 = 0x01
"""Signature type of plain Ed25519 notes (signed-note, "Signature types")."""
MAX_NOTE = 1_000_000
MAX_SIGNATURES = 100
MAX_SIZE = 2**63 - 1

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


def b64encode(data: bytes) -> str:
    """Return ``data`` in standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def b64decode(text: str) -> bytes:
    """Decode standard base64 and refuse every other spelling of the same bytes with ``ValueError``."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
    if b64encode(data) != text:
        raise ValueError("not canonical base64")
    return data


# --- Verifier keys ---------------------------------------------------------------------------------------------------


def key_id(name: str, public_key: bytes) -> bytes:
    """Return the four-byte id of an Ed25519 key under ``name`` (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([ED25519]) + public_key).digest()[:4]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key with the name it signs under (for a log: its origin)."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ValueError("a key name is empty or holds a space, '+' or control character")
        if len(self.public_key) != 32:
            raise ValueError("an Ed25519 public key has 32 bytes")

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read ``name+hex(key id)+base64(type || key)`` (signed-note, "Verifier keys")."""
        parts = text.split("+", 2)  # Base64 may hold further plus signs.
        if len(parts) != 3:
            raise ValueError("not a verifier key: expected name+keyid+base64")
        name, identifier, encoded = parts
        data = b64decode(encoded)
        if not data or data[0] != ED25519:
            raise ValueError("not an Ed25519 verifier key (type 0x01)")
        key = cls(name, data[1:])
        if not _KEY_ID.fullmatch(identifier) or bytes.fromhex(identifier) != key.id:
            raise ValueError("the key id does not belong to this key")
        return key

    @classmethod
    def of(cls, name: str, private_key: Ed25519PrivateKey) -> VerifierKey:
        """Return the public half of ``private_key`` under ``name``."""
        return cls(name, private_key.public_key().public_bytes_raw())

    @property
    def id(self) -> bytes:
        """The four-byte key id."""
        return key_id(self.name, self.public_key)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the vkey text in hex, for people to compare by another way."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([ED25519]) + self.public_key)}"

    def verify(self, body: str, signature: bytes) -> bool:
        """Tell whether ``signature`` is this key's over ``body`` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, body.encode())
        except InvalidSignature:
            return False
        return True


def _is_name(text: str) -> bool:
    return bool(text) and not any(c in "+\x7f" or c < "!" or c.isspace() for c in text)


# --- Notes -----------------------------------------------------------------------------------------------------------


def sign_note(body: str, name: str, private_key: Ed25519PrivateKey) -> str:
    """Return ``body`` (ending in a newline) as a note signed under ``name``. Ed25519 is deterministic: so is this."""
    _check_text(body)
    key = VerifierKey.of(name, private_key)
    return f"{body}\n— {name} {b64encode(key.id + private_key.sign(body.encode()))}\n"


def open_note(text: str, vkeys: Iterable[VerifierKey]) -> str:
    """Return the body of a note that at least one of ``vkeys`` signed; else ``ValueError``.

    Signatures of unknown keys are ignored; a bad one of a known key refuses the note (signed-note, "Signatures").
    """
    known = {(key.name, key.id): key for key in vkeys}
    body, signatures = _split_note(text)
    good = False
    for line in signatures:
        name, identifier, signature = _parse_signature(line)
        key = known.get((name, identifier))
        if key is None:
            continue
        if not key.verify(body, signature):
            raise ValueError(f"the signature of {name} is wrong")
        good = True
    if not good:
        raise ValueError("no signature by a known key")
    return body


def _split_note(text: str) -> tuple[str, list[str]]:
    if len(text) > MAX_NOTE:
        raise ValueError("the note is too long")
    _check_text(text)
    head, separator, tail = text.rpartition("\n\n")
    lines = tail[:-1].split("\n")
    if not separator or not tail:
        raise ValueError("the note has no signature lines")
    if len(lines) > MAX_SIGNATURES:
        raise ValueError("the note has too many signatures")
    return head + "\n", lines


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    fields = line.split(" ")
    if len(fields) != 3 or fields[0] != "—" or not _is_name(fields[1]):
        raise ValueError("a signature line is malformed")
    data = b64decode(fields[2])
    if len(data) < 5:
        raise ValueError("a signature is too short")
    return fields[1], data[:4], data[4:]


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise ValueError("a note ends in a newline")
    if any(c < " " and c != "\n" for c in text):
        raise ValueError("a note holds no control characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a note is valid Unicode") from error


# --- Checkpoints -----------------------------------------------------------------------------------------------------


class Checkpoint(NamedTuple):
    """What a checkpoint says: which log, how many leaves, which root."""

    origin: str
    size: int
    root: bytes


def checkpoint_body(origin: str, size: int, root: bytes) -> str:
    """Return the three lines that are signed (tlog-checkpoint, "Note text")."""
    _check_checkpoint(origin, size, root)
    return f"{origin}\n{size}\n{b64encode(root)}\n"


def parse_checkpoint(body: str) -> Checkpoint:
    """Read the lines of a checkpoint. Extension lines are refused: this log writes none; else ``ValueError``."""
    lines = body.split("\n")
    if len(lines) != 4 or lines[3]:
        raise ValueError("a checkpoint has three lines")
    if not _SIZE.fullmatch(lines[1]):
        raise ValueError("the size of a checkpoint is a decimal number")
    size, root = int(lines[1]), b64decode(lines[2])
    _check_checkpoint(lines[0], size, root)
    return Checkpoint(lines[0], size, root)


def _check_checkpoint(origin: str, size: int, root: bytes) -> None:
    if not _is_name(origin):
        raise ValueError("an origin is empty or holds a space, '+' or control character")
    if not 0 <= size <= MAX_SIZE or len(root) != HASH_SIZE:
        raise ValueError("a checkpoint needs a size and a 32-byte root")
    if size == 0 and root != EMPTY_ROOT:
        raise ValueError("an empty log has the empty root")


# --- Policies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """The logs a policy trusts, origin to vkeys; ``quorum`` names the witnesses it asks for (``None`` for none)."""

    logs: dict[str, list[str]]
    quorum: str | None


def parse_policy(text: str) -> Policy:
    """Read a C2SP tlog-policy: its ``log`` lines, and the name of its quorum.

    ``witness`` and ``group`` lines are accepted and not used, since cosignatures are not checked yet. Any other word
    is a ``ValueError``, as is a key listed twice. One public key may serve two logs of different name (a log that
    went on under a new origin), which tlog-policy forbids only so that no key counts twice.
    """
    logs: dict[str, list[str]] = {}
    quorum: str | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if not words[0] or words[0].startswith("#"):
            continue
        if words[0] == "log" and len(words) in (2, 3):
            try:
                key = VerifierKey.parse(words[1])
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            vkeys = logs.setdefault(key.name, [])
            if words[1] in vkeys:
                raise ValueError(f"line {number}: this key is listed twice")
            vkeys.append(words[1])
        elif words[0] == "quorum" and len(words) == 2:
            quorum = None if words[1] == "none" else words[1]
        elif words[0] not in ("witness", "group"):
            raise ValueError(f"line {number}: not a log, witness, group or quorum line")
    return Policy(logs, quorum)
