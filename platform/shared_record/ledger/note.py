"""Signed notes, checkpoints, cosignatures, keys and policies. Pure.

C2SP signed-note, tlog-checkpoint, tlog-cosignature and tlog-policy.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared_record.ledger.merkle import EMPTY_ROOT, HASH_SIZE

ED25519 = 0x01
"""Signature type of plain Ed25519 notes (signed-note, "Signature types")."""
COSIGNATURE = 0x04
"""Signature type of Ed25519 cosignatures with a time (tlog-cosignature, "Format")."""
MAX_NOTE = 1_000_000
MAX_SIGNATURES = 100
MAX_SIZE = 2**63 - 1

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def b64encode(data: bytes) -> str:
    """Return ``data`` in standard base64 with padding (RFC 4648, section 4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


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


def key_id(name: str, public_key: bytes, kind: int = ED25519) -> bytes:
    """Return the four-byte id of an Ed25519 key under ``name`` (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


@dataclass(frozen=True, slots=True)
class _NamedKey:
    """An Ed25519 public key with the name it signs under; ``kind`` is the type byte of its signatures."""

    kind: ClassVar[int]
    wrong_kind: ClassVar[str]

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ValueError("a key name is empty or holds a space, '+' or control character")
        if len(self.public_key) != 32:
            raise ValueError("an Ed25519 public key has 32 bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name+hex(key id)+base64(type || key)`` (signed-note, "Verifier keys"); ``ValueError`` for another."""
        name, identifier, data = _split_vkey(text)
        if not data or data[0] != cls.kind:
            raise ValueError(cls.wrong_kind)
        key = cls(name, data[1:])
        if identifier != key.id.hex():
            raise ValueError("the key id does not belong to this key")
        return key

    @classmethod
    def of(cls, name: str, private_key: Ed25519PrivateKey) -> Self:
        """Return the public half of ``private_key`` under ``name``."""
        return cls(name, private_key.public_key().public_bytes_raw())

    @property
    def id(self) -> bytes:
        """The four-byte key id."""
        return key_id(self.name, self.public_key, self.kind)

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([self.kind]) + self.public_key)}"


@dataclass(frozen=True, slots=True)
class VerifierKey(_NamedKey):
    """The key of a note's signatures (for a log: its origin's)."""

    kind = ED25519
    wrong_kind = "not an Ed25519 verifier key (type 0x01)"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the vkey text in hex, for people to compare by another way."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def verify(self, body: str, signature: bytes) -> bool:
        """Tell whether ``signature`` is this key's over ``body`` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, body.encode())
        except InvalidSignature:
            return False
        return True


def _split_vkey(text: str) -> tuple[str, str, bytes]:
    parts = text.split("+", 2)  # Base64 may hold further plus signs.
    if len(parts) != 3:
        raise ValueError("not a verifier key: expected name+keyid+base64")
    return parts[0], parts[1], b64decode(parts[2])


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


def is_signed_by(text: str, key: VerifierKey) -> bool:
    """Tell whether ``key`` signed the note ``text``."""
    try:
        open_note(text, [key])
    except ValueError:
        return False
    return True


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


# --- Cosignatures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WitnessKey(_NamedKey):
    """The key of a witness's cosignatures."""

    kind = COSIGNATURE
    wrong_kind = "not an Ed25519 key of a witness (type 0x04)"


class Cosignature(NamedTuple):
    """That the witness with this key had seen nothing that contradicts a checkpoint, at ``time`` (POSIX seconds)."""

    key: WitnessKey
    time: int
    line: str


def cosign(body: str, name: str, private_key: Ed25519PrivateKey, time: int) -> str:
    """Return the signature line, ending in a newline, of a witness under the checkpoint ``body``."""
    key = WitnessKey.of(name, private_key)
    signature = private_key.sign(_cosigned(body, time))
    return f"— {name} {b64encode(key.id + time.to_bytes(8) + signature)}\n"


def find_cosignatures(note: str, keys: Iterable[WitnessKey]) -> list[Cosignature]:
    """Return the cosignatures under ``note`` by ``keys``, the first of each key, in the order of the note.

    What unknown keys signed is ignored; a bad cosignature of a known key, and a malformed note, is a ``ValueError``
    (tlog-cosignature, "Ed25519 signed message").
    """
    known = {(key.name, key.id): key for key in keys}
    body, lines = _split_note(note)
    found: dict[WitnessKey, Cosignature] = {}
    for line in lines:
        name, identifier, signature = _parse_signature(line)
        key = known.get((name, identifier))
        if key is None:
            continue
        time = int.from_bytes(signature[:8])
        if len(signature) != 72 or time > MAX_SIZE or not _is_signed(key.public_key, _cosigned(body, time), signature):
            raise ValueError(f"the cosignature of {name} is wrong")
        found.setdefault(key, Cosignature(key, time, f"{line}\n"))
    return list(found.values())


def _cosigned(body: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{body}".encode()


def _is_signed(public_key: bytes, message: bytes, timed_signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(timed_signature[8:], message)
    except InvalidSignature:
        return False
    return True


# --- Policies --------------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Witnesses and groups of which ``threshold`` must have cosigned."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """The logs a policy trusts, origin to vkeys, and its witnesses and groups by name.

    ``quorum`` names the witness or group that must have cosigned; it is ``None`` where no cosignature is asked for.
    """

    logs: dict[str, list[str]]
    quorum: str | None
    witnesses: Mapping[str, WitnessKey] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)

    def is_met(self, cosigners: Collection[WitnessKey]) -> bool:
        """Tell whether the quorum is reached when ``cosigners`` have cosigned."""
        return self.quorum is None or self._has_witnessed(self.quorum, cosigners)

    def _has_witnessed(self, name: str, cosigners: Collection[WitnessKey]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return self.witnesses[name] in cosigners
        return sum(self._has_witnessed(member, cosigners) for member in group.members) >= group.threshold


def parse_policy(text: str) -> Policy:
    """Read a C2SP tlog-policy.

    Any other word than ``log``, ``witness``, ``group`` and ``quorum`` is a ``ValueError``, as are a key or name listed
    twice, a name that no line before defines, and a member of two groups. One public key may serve two logs of
    different name (a log that went on under a new origin), which tlog-policy forbids only so that no key counts twice.
    """
    reader = _PolicyReader()
    for number, line in enumerate(text.split("\n"), start=1):
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if not words[0] or words[0].startswith("#"):
            continue
        try:
            reader.read(words)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return Policy(reader.logs, reader.quorum, reader.witnesses, reader.groups)


class _PolicyReader:
    def __init__(self) -> None:
        self.logs: dict[str, list[str]] = {}
        self.witnesses: dict[str, WitnessKey] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._members: set[str] = set()

    def read(self, words: list[str]) -> None:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self._log(vkey)
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                self._witness(name, vkey)
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name]:
                if name != "none":
                    self._check_defined(name)
                self.quorum = None if name == "none" else name
            case _:
                raise ValueError("not a log, witness, group or quorum line")

    def _log(self, vkey: str) -> None:
        vkeys = self.logs.setdefault(VerifierKey.parse(vkey).name, [])
        if vkey in vkeys:
            raise ValueError("this key is listed twice")
        vkeys.append(vkey)

    def _witness(self, name: str, vkey: str) -> None:
        self._check_new(name)
        key = WitnessKey.parse(vkey)
        if any(key.public_key == other.public_key for other in self.witnesses.values()):
            raise ValueError("this key is listed twice")
        self.witnesses[name] = key

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        self._check_new(name)
        for member in members:
            self._check_defined(member)
            if member in self._members:
                raise ValueError(f"{member} is a member twice")
            self._members.add(member)
        number = {"any": "1", "all": str(len(members))}.get(threshold, threshold)
        if not _SIZE.fullmatch(number) or not 1 <= int(number) <= len(members):
            raise ValueError("the threshold of a group is all, any, or a number up to that of its members")
        self.groups[name] = Group(int(number), tuple(members))

    def _check_new(self, name: str) -> None:
        if name == "none" or name in self.witnesses or name in self.groups:
            raise ValueError(f"the name {name} is taken")

    def _check_defined(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise ValueError(f"no witness or group {name} is defined before")
