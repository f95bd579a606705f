"""The lock store: the newest checkpoint body of each log, kept outside the database.

It is what makes two different checkpoints of one size impossible even when the database is restored from a backup: a
body is signed only after the store has swapped the body it extends for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class LockStore(Protocol):
    """Compare-and-swap over checkpoint bodies, one per origin; durable when it returns."""

    def read(self, origin: str) -> str | None:
        """Return the body last stored for ``origin``, or ``None``."""

    def swap(self, origin: str, old: str | None, new: str) -> str | None:
        """Store ``new`` if the stored body equals ``old``; return the body that is stored afterwards."""


class FileLockStore:
    """Bodies as files in one folder, preferably on another volume than the database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, origin: str) -> str | None:
        """Return the body last stored for ``origin``, or ``None``."""
        with self._locked():
            return self._read(origin)

    def swap(self, origin: str, old: str | None, new: str) -> str | None:
        """Store ``new`` if the stored body equals ``old``; return the body that is stored afterwards."""
        with self._locked():
            current = self._read(origin)
            if current != old:
                return current
            path = self._path(origin)
            fresh = path.with_suffix(".new")
            with fresh.open("w") as file:
                file.write(new)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            return new

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self, origin: str) -> str | None:
        try:
            return self._path(origin).read_text()
        except FileNotFoundError:
            return None

    def _path(self, origin: str) -> Path:
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.checkpoint"
