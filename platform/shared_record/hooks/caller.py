"""Call plugin code so that one method that hangs or fails is unavailable by itself and hinders nothing else.

Each call runs in a daemon thread of its own, without the request's context, and is waited for until its deadline.
Python cannot stop a thread: a call that overran goes on and keeps one of its method's places until it returns, and its
result is thrown away. Nothing here protects against code that takes the processor, memory or file descriptors of the
process, or ends it: a plugin that is loaded is trusted as the core itself is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from shared_record.errors import UnavailableError

FAULTS, WITHIN = 5, 60.0
"""So many faults within so many seconds make a method unavailable until the oldest of them is that long ago."""
PLACES = 16
"""Calls of one method that may run at a time."""

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
        self._places: dict[str, threading.BoundedSemaphore] = {}

    def is_out(self, slug: str, owner: Hashable) -> bool:
        """Tell whether this method is unavailable for ``owner`` because of its faults."""
        with self._lock:
            return len(self._recent(slug, owner)) >= FAULTS

    def call(self, slug: str, owner: Hashable, deadline: float, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, if it does so within ``deadline`` seconds.

        ``UnavailableError`` while the method is out, or has no place free; and where the core's own part of the call
        raised it. Everything else that goes wrong is a ``PluginFaultError``, logged and counted.
        """
        if self.is_out(slug, owner):
            raise UnavailableError(f"{slug} is unavailable for a moment.")
        with self._lock:
            places = self._places.setdefault(slug, threading.BoundedSemaphore(PLACES))
        started = self._monotonic()
        if not places.acquire(timeout=deadline):
            _log.error("plugin.busy method=%s", slug)
            raise UnavailableError(f"{slug} is busy.")
        run = _Run(call, places)
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

    def __init__(self, call: Callable[[], Any], places: threading.BoundedSemaphore) -> None:
        self._call = call
        self._places = places
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # sys.exit() of a plugin as well
            self.error = error
        finally:
            self._places.release()
            self.done.set()
