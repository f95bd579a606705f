"""From a host name to the tenant that owns it: equality on a unique column, with a bounded cache in front.

The cache is a hint. It holds positive answers only, and is dropped whole when the installation's ``host_generation``
has moved, which is looked at once a second, and at once when ``hosts.news`` tells of a change; pages that matter read
the host's epoch again in their own query.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import SQLAlchemyError

from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema.tenancy import installation
from shared_record.db.scope import Scope
from shared_record.errors import ConfigurationError, UnavailableError
from shared_record.hosts.names import HostError, normalise_host
from shared_record.hosts.news import HostNews

MAX_ENTRIES: Final = 100_000
CHECK_SECONDS: Final = 1.0
COUNTER: Final = "host_generation"


class Role(StrEnum):
    """What a host is for."""

    PLATFORM = "platform"
    SERVING = "serving"
    ALIAS = "alias"
    SUSPENDED = "suspended"


class Source(StrEnum):
    """Where an answer was found."""

    CACHE = "cache"
    DATABASE = "database"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class HostMatch:
    """Whose host a request came to.

    ``config`` is the live tenant and ``twin`` its test plane; a platform host has neither. ``generation`` is the host
    row's epoch, 0 on a platform host. ``target`` is the tenant's primary host, where an alias leads.
    """

    host: str
    role: Role
    source: Source
    config: UUID | None = None
    twin: UUID | None = None
    generation: int = 0
    target: str | None = None

    @property
    def scope(self) -> Scope:
        """The live plane of the host's tenant; ``LookupError`` on a platform host, which has no tenant."""
        if self.config is None:
            raise LookupError("a platform host belongs to no tenant")
        return Scope.of(self.config)

    def serves(self, scope: Scope) -> bool:
        """Tell whether links of this plane may be answered here: any on a platform host, else the tenant's own."""
        return self.config is None or self.config == scope.config


class Resolver:
    """Finds hosts. Thread-safe.

    ``platform_hosts`` come from the settings and win over the database; one that is no host name is a
    ``ConfigurationError``. ``monotonic`` returns seconds.
    """

    def __init__(
        self,
        db: Database,
        platform_hosts: Iterable[str],
        monotonic: Callable[[], float] = time.monotonic,
        news: HostNews | None = None,
    ) -> None:
        self._db = db
        self._news = news or HostNews()
        self._monotonic = monotonic
        self._platform = {name: HostMatch(name, Role.PLATFORM, Source.SETTINGS) for name in _checked(platform_hosts)}
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, HostMatch] = OrderedDict()
        self._checked_at = float("-inf")
        self._generation: int | None = None
        self._era = 0
        dbapi = db.engine.dialect.loaded_dbapi
        self._failures = (SQLAlchemyError, dbapi.Error)  # what a connect hook raises reaches us as the driver's own

    def resolve(self, host: str) -> HostMatch | None:
        """Return what the normalised name ``host`` is here, or ``None``. A miss is one query and is not remembered.

        Raises ``UnavailableError`` when the database cannot be asked; platform hosts need none.
        """
        if (known := self._platform.get(host)) is not None:
            return known
        self._news.follow(self.look_again)
        try:
            self._follow_generation()
            with self._lock:
                if (hit := self._cache.get(host)) is not None:
                    return hit
                era = self._era
            row = lookup.find_host(self._db, host)
        except self._failures as error:
            raise UnavailableError("the database cannot be asked for a host") from error
        if row is None:
            return None
        found = HostMatch(row.host, Role(row.role), Source.DATABASE, row.tenant_id, row.twin, row.epoch, row.target)
        self._remember(found, era)
        return found

    def forget(self, host: str) -> None:
        """Drop the remembered answer for ``host``, and any answer now on its way from the database."""
        with self._lock:
            self._cache.pop(host, None)
            self._era += 1

    def look_again(self) -> None:
        """Have the next request compare the generation, however recently that was done."""
        with self._lock:
            self._checked_at = float("-inf")

    def _follow_generation(self) -> None:
        now = self._monotonic()
        with self._lock:
            if now - self._checked_at < CHECK_SECONDS:
                return
            self._checked_at, before = now, self._checked_at
        try:
            with self._db.read(None) as connection:
                generation = connection.scalar(select(installation.c.value).where(installation.c.name == COUNTER))
        except BaseException:
            with self._lock:
                self._checked_at = before  # the next request asks again: a hint must not outlive a failed check
            raise
        with self._lock:
            if generation != self._generation:
                self._generation = generation
                self._cache.clear()
                self._era += 1

    def _remember(self, found: HostMatch, era: int) -> None:
        with self._lock:
            if era != self._era:  # read before the cache was last dropped, so perhaps already wrong
                return
            self._cache[found.host] = replace(found, source=Source.CACHE)
            while len(self._cache) > MAX_ENTRIES:
                self._cache.popitem(last=False)


def bump_generation(connection: Connection) -> None:
    """Make every process drop its cache within a second of the commit.

    To be called in the write transaction of whoever changes a host, its role, a tenant's primary host or its twin.
    """
    statement = update(installation).where(installation.c.name == COUNTER).values(value=installation.c.value + 1)
    if connection.execute(statement).rowcount != 1:
        raise ConfigurationError(f"the counter {COUNTER} is missing. Run `shared-record migrate`.")


def _checked(platform_hosts: Iterable[str]) -> Iterable[str]:
    for name in platform_hosts:
        try:
            yield normalise_host(name, ())
        except HostError as error:
            raise ConfigurationError(f"SHARED_RECORD_PLATFORM_HOSTS: {name!r} is {error.message}.") from error
