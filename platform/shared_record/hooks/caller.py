"""Call plugin code so that one method that hangs or fails is unavailable by itself and hinders nothing else.

Each call runs in a daemon thread of its own, without the request's context, and is waited for until its deadline.
Python cannot stop a thread: a call that overran goes on and keeps one of the places that its method has for its tenant
until it returns, and its result is thrown away. Nothing here protects against code that takes the processor, memory or
file descriptors of the process, or ends it: a plugin that is loaded is trusted as the core itself is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from shared_record.errors import UnavailableError

FAULTS, WITHIN = 5, 60.0
"""So many faults within so many seconds make a method unavailable until the oldest of them is that long ago."""
PLACES = 8
"""Calls of one method for one tenant that may run at a time."""
ALL_PLACES = 128
"""Calls of all methods for all tenants that may run at a time."""
PATIENCE = 0.25
"""Seconds that a call waits for a place, at most: where calls hang none becomes free, and who waits keeps a thread of
the server."""

T = TypeVar("T")
_log = logging.getLogger("shared_record.plugins")


class PluginFaultError(Exception):
    """The call raised, overran its deadline, or returned what it may not."""


class Caller:
    """Runs calls with a deadline, and counts faults per method and tenant."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._faults: dict[Hashable, deque[float]] = {}
        self._running: Counter[Hashable] = Counter()
        self._changed = threading.Condition(self._lock)

    def is_out(self, slug: str, owner: Hashable) -> bool:
        """Tell whether this method is unavailable for ``owner`` because of its faults."""
        with self._lock:
            return len(self._recent(slug, owner)) >= FAULTS

    def call(self, slug: str, owner: Hashable, deadline: float, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, if it does so within ``deadline`` seconds.

        ``UnavailableError`` while the method is out for ``owner``, or has no place free; and where the core's own part
        of the call raised it. Everything else that goes wrong is a ``PluginFaultError``, logged and counted.
        """
        if self.is_out(slug, owner):
            raise UnavailableError(f"{slug} is unavailable for a moment.")
        started = self._monotonic()
        if not self._take_place((slug, owner), min(deadline, PATIENCE)):
            _log.error("plugin.busy method=%s", slug)
            raise UnavailableError(f"{slug} is busy.")
        run = _Run(call, lambda: self._leave_place((slug, owner)))
        # A thread of its own sees neither the request nor the database transaction of the caller.
        threading.Thread(target=run, name=f"plugin-{slug}", daemon=True).start()
        finished = run.done.wait(max(0.0, started + deadline - self._monotonic()))
        if finished and isinstance(run.error, UnavailableError):
            raise run.error
        if finished and run.error is None:
            result: T = run.result
            return result
        self._count(slug, owner)
        if finished:
            _log.error("plugin.fault method=%s", slug, exc_info=run.error)
        else:
            _log.error("plugin.fault method=%s: no result within %s s", slug, deadline)
        raise PluginFaultError(slug)

    def _take_place(self, key: Hashable, patience: float) -> bool:
        def is_free() -> bool:
            return self._running[key] < PLACES and self._running.total() < ALL_PLACES

        with self._changed:
            if not self._changed.wait_for(is_free, patience):
                return False
            self._running[key] += 1
            return True

    def _leave_place(self, key: Hashable) -> None:
        with self._changed:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
            self._changed.notify_all()

    def _recent(self, slug: str, owner: Hashable) -> deque[float]:
        found = self._faults.get((slug, owner), deque())
        while found and found[0] <= self._monotonic() - WITHIN:
            found.popleft()
        if not found:
            self._faults.pop((slug, owner), None)
        return found

    def _count(self, slug: str, owner: Hashable) -> None:
        with self._lock:
            self._recent(slug, owner)
            self._faults.setdefault((slug, owner), deque(maxlen=FAULTS)).append(self._monotonic())


class _Run:
    """One call in its thread. What it raises, even to end the process, is kept and not passed on."""

    def __init__(self, call: Callable[[], Any], leave: Callable[[], None]) -> None:
        self._call = call
        self._leave = leave
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # sys.exit() of a plugin as well
            self.error = error
        finally:
            self._leave()
            self.done.set()
