"""A database and a lock store that say where their user stands, so that it can be stopped or overtaken just there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from shared_record.db.engine import Database
from shared_record.db.scope import Scope
from shared_record.ledger.locks import FileLockStore

INSIDE = "before commit"
"""The one place that lies within a transaction, so that what is written there is lost."""


class Steps:
    """Counts the places that one thread passes; ``act`` is called with the name of the one that ``stop_at`` set."""

    def __init__(self) -> None:
        self._left, self._thread = 0, 0
        self._act: Callable[[str], None] = lambda place: None

    def stop_at(self, number: int, act: Callable[[str], None]) -> None:
        """Call ``act`` at the place that this thread passes as the ``number``-th from now on; 0 is never."""
        self._left, self._thread, self._act = number, threading.get_ident(), act

    def passed(self, place: str) -> None:
        """Say that ``place`` is passed."""
        if threading.get_ident() == self._thread:
            self._left -= 1
            if self._left == 0:
                self._act(place)


class SteppedDatabase(Database):
    """A database whose transactions are steps: before one, before and after its commit, and after reading."""

    def __init__(self, url: str, steps: Steps) -> None:
        super().__init__(url)
        self.steps = steps

    @contextmanager
    def read(self, scope: Scope | None, *, snapshot: bool = False) -> Iterator[Connection]:
        with super().read(scope, snapshot=snapshot) as connection:
            yield connection
        self.steps.passed("after reading")

    @contextmanager
    def write(self, scope: Scope | None) -> Iterator[Connection]:
        self.steps.passed("before a transaction")
        with super().write(scope) as connection:
            yield connection
            self.steps.passed(INSIDE)
        self.steps.passed("after commit")


class SteppedLocks(FileLockStore):
    """A lock store whose calls are steps, before and after each."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        super().__init__(folder)
        self.steps = steps

    def swap(self, origin: str, old: str | None, new: str) -> str | None:
        self.steps.passed("before the lock store")
        stored = super().swap(origin, old, new)
        self.steps.passed("after the lock store")
        return stored
