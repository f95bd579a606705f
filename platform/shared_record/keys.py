"""The key ring: every secret of the installation is derived from, or sealed under, one of its root keys.

A root key has a key id (``kid``); what is derived or sealed names the ``kid`` it used, so a new key can serve from the
next version on while older ones still open what they made.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared_record.errors import ConfigurationError, ConflictError, UnavailableError
from shared_record.identifiers import base32

CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
HANDLE_LENGTH = 26
CODE_LENGTH = 6
_CONTEXT = b"shared-record/v1/"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Root keys by ``kid``; ``active`` is the one that serves new versions."""

    active: str
    roots: dict[str, bytes] = field(repr=False)

    @classmethod
    def generate(cls) -> KeyRing:
        """Return a ring with one new random root key."""
        return cls("k1", {"k1": secrets.token_bytes(32)})

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read the ring from ``path``; ``ConfigurationError`` when it is absent, unreadable or open to others."""
        try:
            if path.stat().st_mode & 0o077:
                raise ConfigurationError(f"{path} can be read by others. Run: chmod 600 {path}")
            document = json.loads(path.read_text())
            roots = {kid: base64.b64decode(value, validate=True) for kid, value in document["keys"].items()}
            if any(len(root) != 32 for root in roots.values()) or document["active"] not in roots:
                raise ValueError("a key is not 32 bytes, or the active key is missing")
            return cls(document["active"], roots)
        except FileNotFoundError as error:
            raise ConfigurationError(f"no key ring at {path}. Run: shared-record migrate") from error
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigurationError(f"{path} is not a key ring: {error}") from error

    def save(self, path: Path) -> None:
        """Write the ring to a new file ``path``, mode 0600, durably; an existing file is never overwritten."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys = {kid: base64.b64encode(root).decode() for kid, root in self.roots.items()}
        write_private(path, json.dumps({"active": self.active, "keys": keys}, indent=1).encode())

    def replace(self, path: Path) -> None:
        """Put this ring in the place of the one at ``path``, at once and durably; its owner stays the same.

        Call it within ``changing(path)``. When the file cannot be replaced it is as it was: ``ConfigurationError``.
        """
        path = path.resolve()  # a link stays a link
        fresh = path.with_name(f".{path.name}.new")
        try:
            before = path.stat()
            fresh.unlink(missing_ok=True)  # of a run that was killed
            self.save(fresh)
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(fresh, before.st_uid, before.st_gid)
            fresh.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise ConfigurationError(f"{path} cannot be replaced: {error.strerror}.") from error

    def with_new_root(self) -> KeyRing:
        """Return a ring with one more root key, which is the active one. A ``kid`` that was retired never comes back.

        That holds because the active key, the newest, cannot be retired.
        """
        numbers = [int(kid[1:]) for kid in self.roots if kid[:1] == "k" and kid[1:].isdecimal()]
        kid = f"k{max(numbers, default=0) + 1}"
        return KeyRing(kid, self.roots | {kid: secrets.token_bytes(32)})

    def without(self, kid: str) -> KeyRing:
        """Return a ring without the root key ``kid``; ``ValueError`` for the active one and one it does not have."""
        if kid == self.active or kid not in self.roots:
            raise ValueError(f"{kid} is the active key, or none of this ring")
        return replace(self, roots={name: root for name, root in self.roots.items() if name != kid})

    def subkey(self, kid: str, purpose: str) -> bytes:
        """Return 32 bytes derived (HKDF-SHA-256, RFC 5869) from root ``kid`` for one ``purpose``."""
        return _derive(self._root(kid), purpose)

    def handle(self, kid: str, tenant: UUID, customer: UUID, version: int) -> str:
        """Return the link's handle: the first 130 bits in lower-case Crockford base 32, 26 characters."""
        number = int.from_bytes(self._capability(kid, b"handle", tenant, customer, version)[:17]) >> 6
        return base32(number, HANDLE_LENGTH)

    def access_code(self, kid: str, tenant: UUID, customer: UUID, version: int) -> str:
        """Return the access code: the whole HMAC as an integer modulo 30^6, six digits, most significant first."""
        number = int.from_bytes(self._capability(kid, b"code", tenant, customer, version)) % 30**CODE_LENGTH
        digits = []
        for _ in range(CODE_LENGTH):
            number, digit = divmod(number, 30)
            digits.append(CODE_ALPHABET[digit])
        return "".join(reversed(digits))

    def seal(self, plaintext: bytes, *, tenant: UUID, place: str) -> bytes:
        """Encrypt under the active key (AES-256-GCM), bound to its tenant and ``place`` (table, column and row)."""
        nonce = os.urandom(12)
        sealed = AESGCM(self.subkey(self.active, "seal")).encrypt(nonce, plaintext, _aad(tenant, place))
        return self.active.encode() + b"\0" + nonce + sealed

    def open(self, sealed: bytes, *, tenant: UUID, place: str) -> bytes:
        """Decrypt what ``seal`` made for the same tenant and place; anything else is ``UnavailableError``."""
        kid, _, rest = sealed.partition(b"\0")
        try:
            return AESGCM(self.subkey(kid.decode("ascii", "replace"), "seal")).decrypt(
                rest[:12], rest[12:], _aad(tenant, place)
            )
        except (InvalidTag, ValueError) as error:
            raise UnavailableError(f"{place}: sealed under another key or for another row.") from error

    def _capability(self, kid: str, purpose: bytes, tenant: UUID, customer: UUID, version: int) -> bytes:
        message = _CONTEXT + purpose + b"\0" + tenant.bytes + customer.bytes + version.to_bytes(8)
        return hmac.digest(self._root(kid), message, hashlib.sha256)

    def _root(self, kid: str) -> bytes:
        try:
            return self.roots[kid]
        except KeyError:
            raise UnavailableError(f"the key ring has no key {kid!r}.") from None


@contextmanager
def changing(path: Path) -> Iterator[KeyRing]:
    """Read the ring at ``path`` to change it; ``ConflictError`` while another process does so."""
    KeyRing.load(path)  # says what is wrong with it, before anything else
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(f"another command is changing {path} now. Try again when it is done.") from error
        yield KeyRing.load(path)
    finally:
        os.close(folder)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file ``path``, mode 0600, durably; an existing file is never overwritten (``FileExistsError``)."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def handle_digest(handle: str) -> bytes:
    """Return what the database keeps of a handle: SHA-256 of its ASCII text."""
    return hashlib.sha256(handle.encode("ascii")).digest()


def _aad(tenant: UUID, place: str) -> bytes:
    return tenant.bytes + place.encode()


@lru_cache(maxsize=256)
def _derive(root: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=_CONTEXT + purpose.encode()).derive(root)
