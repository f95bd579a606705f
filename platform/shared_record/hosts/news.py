"""News of changed hosts, from the process that changed one to all that remember hosts.

With Redis a web process learns of a change at once; without it, or while it is away, at its next look at the database,
within a second. So nothing rests on a message: it only shortens the wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import redis
from redis.exceptions import RedisError

CHANNEL: Final = "sr:hosts"
PATIENCE: Final = 1.0
"""Seconds after which a Redis that does not answer counts as gone."""
LISTEN: Final = 5.0
"""Seconds that one wait for a message lasts; then the connection is tried again."""
AGAIN: Final = 1.0
"""Seconds until a Redis that is gone is asked again."""

_log = logging.getLogger("shared_record.hosts")


class HostNews:
    """Tells of changed hosts by Redis, or tells nobody when ``redis_url`` is empty."""

    def __init__(self, redis_url: str = "") -> None:
        self._url = redis_url
        self._started = threading.Lock()
        self._heard = False

    def announce(self) -> bool:
        """Tell everybody that a host changed; return whether the message could be sent. Call it after the commit."""
        if not self._url:
            return False
        client = redis.Redis.from_url(self._url, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE)
        try:
            client.publish(CHANNEL, b"changed")
        except RedisError as error:
            _log.warning("hosts.news not sent: %s", type(error).__name__)
            return False
        finally:
            client.close()
        return True

    def follow(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` for every message from now on, in a thread of its own. Called again, it does nothing."""
        if not self._url or self._heard or not self._started.acquire(blocking=False):
            return
        self._heard = True
        threading.Thread(target=self._listen, args=(changed,), name="host-news", daemon=True).start()

    def _listen(self, changed: Callable[[], None]) -> None:
        pause = threading.Event()
        while True:
            try:
                self._listen_once(changed)
            except RedisError:
                _log.info("hosts.news interrupted")
            pause.wait(AGAIN)

    def _listen_once(self, changed: Callable[[], None]) -> None:
        client = redis.Redis.from_url(
            self._url, socket_connect_timeout=PATIENCE, socket_timeout=None, health_check_interval=int(LISTEN)
        )
        try:
            with client.pubsub() as messages:  # type: ignore[no-untyped-call]
                messages.subscribe(CHANNEL)
                asked = time.monotonic()
                while True:
                    message = messages.get_message(timeout=LISTEN)
                    if message is not None and message["type"] in ("subscribe", "message"):
                        changed()  # on subscribing as well: what was said before was missed
                    if message is None and time.monotonic() - asked >= LISTEN:
                        asked = time.monotonic()
                        messages.ping()
        finally:
            client.close()
