"""The lock store: the newest checkpoint body of each log, kept outside the database.

It is what makes two different checkpoints of one size impossible even when the database is restored from a backup: a
body is signed only after the store has swapped the body it extends for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
import redis
from redis.exceptions import RedisError

from shared_record.errors import ConfigurationError, UnavailableError
from shared_record.settings import Settings


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


class PostgreSQLLockStore:
    """Bodies as rows of a table of their own, in another database than the ledger's."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1)

    def read(self, origin: str) -> str | None:
        """Return the body last stored for ``origin``, or ``None``; ``UnavailableError`` when it cannot be reached."""
        with self._transaction() as connection:
            return self._read(connection, origin)

    def swap(self, origin: str, old: str | None, new: str) -> str | None:
        """Store ``new`` if the stored body equals ``old``; return the body that is stored afterwards."""
        with self._transaction() as connection:
            if old is None:
                connection.execute(
                    "INSERT INTO sr_lock_store (origin, body) VALUES (%s, %s) ON CONFLICT DO NOTHING", (origin, new)
                )
            else:
                connection.execute(
                    "UPDATE sr_lock_store SET body = %s WHERE origin = %s AND body = %s", (new, origin, old)
                )
            return self._read(connection, origin)

    def _read(self, connection: psycopg.Connection, origin: str) -> str | None:
        row = connection.execute("SELECT body FROM sr_lock_store WHERE origin = %s", (origin,)).fetchone()
        return None if row is None else str(row[0])

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection]:
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                if connection.execute("SELECT to_regclass('sr_lock_store')").fetchone() == (None,):
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_TABLE_LOCK,))
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS sr_lock_store (origin text PRIMARY KEY, body text NOT NULL)"
                    )
                yield connection
        except psycopg.Error as error:
            raise UnavailableError(f"the lock store cannot be used ({type(error).__name__}).") from error


class RedisLockStore:
    """Bodies as keys of a Redis or Valkey of its own, one that forgets nothing.

    ``ConfigurationError`` unless it writes each change to disk before it answers and never evicts: an instance that
    caches cannot keep a promise.
    """

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)
        try:
            found = {name: self._client.config_get(name).get(name) for name in _DURABLE}
        except RedisError as error:
            raise UnavailableError(f"the lock store cannot be used ({type(error).__name__}).") from error
        wrong = [
            f"{name} {value!r}, not {_DURABLE[name]!r}" for name, value in found.items() if value != _DURABLE[name]
        ]
        if wrong:
            raise ConfigurationError(f"this Redis cannot be the lock store: {', '.join(wrong)}.")

    def read(self, origin: str) -> str | None:
        """Return the body last stored for ``origin``, or ``None``; ``UnavailableError`` when it cannot be reached."""
        return self._ask(lambda: self._client.get(self._key(origin)))

    def swap(self, origin: str, old: str | None, new: str) -> str | None:
        """Store ``new`` if the stored body equals ``old``; return the body that is stored afterwards."""
        return self._ask(lambda: self._client.eval(_SWAP, 1, self._key(origin), old or "", new))

    def _ask(self, question: Callable[[], object]) -> str | None:
        try:
            answer = question()
        except RedisError as error:
            raise UnavailableError(f"the lock store cannot be used ({type(error).__name__}).") from error
        return None if answer is None else str(answer)

    @staticmethod
    def _key(origin: str) -> str:
        return f"sr-lock:{origin}"


_DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_TABLE_LOCK = 0x5352_0002
_SWAP = """
local stored = redis.call('GET', KEYS[1])
if (not stored and ARGV[1] == '') or stored == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return ARGV[2]
end
return stored
"""


def open_lock_store(settings: Settings) -> LockStore:
    """Return the lock store that ``settings`` name; ``ConfigurationError`` for one inside the ledger's own database."""
    url = settings.lock_url
    if not url:
        return FileLockStore(settings.lock_path)
    if url.startswith(("redis://", "rediss://", "valkey://", "unix://")):
        return RedisLockStore(url.replace("valkey://", "redis://", 1))
    if not url.startswith(("postgresql", "postgres:")):
        raise ConfigurationError("the lock store's URL begins with postgresql://, redis:// or rediss://.")
    if url in (settings.database_url, settings.owner_database_url):
        raise ConfigurationError(
            "the lock store must be another database than the ledger's: it guards against its loss."
        )
    return PostgreSQLLockStore(url)
