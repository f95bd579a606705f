"""Soft limits on attempts, per client network and link: they slow a guesser down before anything is evaluated.

The hard limit is a counter in the database (``access.stepup``); this one may vanish. When its storage does, a local
bucket at a quarter of the rate stands in.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

PATIENCE = 1.0
"""Seconds after which a Redis that does not answer counts as gone."""

_log = logging.getLogger("shared_record.limits")

STEP_UP = (
    RateLimitItemPerMinute(5, 15, namespace="sr-stepup"),
    RateLimitItemPerHour(10, 1, namespace="sr-stepup"),
    RateLimitItemPerHour(15, 4, namespace="sr-stepup"),
)
"""5 in 15 minutes, doubling to 4 hours, as three stacked windows."""
HANDLE_MISSES = (
    RateLimitItemPerMinute(30, 1, namespace="sr-miss"),
    RateLimitItemPerHour(300, 24, namespace="sr-miss"),
)


@dataclass(frozen=True, slots=True)
class Wait:
    """The limit is reached; the next attempt is possible in ``seconds``."""

    seconds: int


class Throttle:
    """Moving-window limits on Redis, or in memory when ``redis_url`` is empty."""

    def __init__(self, redis_url: str = "") -> None:
        patience = {"socket_connect_timeout": PATIENCE, "socket_timeout": PATIENCE}
        storage = storage_from_string(redis_url, **patience) if redis_url else MemoryStorage()
        self._limiter = MovingWindowRateLimiter(_as_storage(storage))
        self._local = MovingWindowRateLimiter(MemoryStorage())

    def hit(self, limits: tuple[RateLimitItem, ...], *key: str) -> Wait | None:
        """Count one attempt under ``key``; return how long to wait if any of ``limits`` is used up."""
        try:
            return _hit(self._limiter, limits, key)
        except RedisError:
            _log.warning("limiter.degraded")
            return _hit(self._local, _quarter(limits), key)

    def clear(self, limits: tuple[RateLimitItem, ...], *key: str) -> None:
        """Forget the attempts under ``key``: the person passed."""
        for item in _quarter(limits):
            self._local.clear(item, *key)
        try:
            for item in limits:
                self._limiter.clear(item, *key)
        except RedisError:
            _log.warning("limiter.degraded")


def network_of(address: str) -> str:
    """Return the client network that limits count by: the IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _quarter(limits: tuple[RateLimitItem, ...]) -> tuple[RateLimitItem, ...]:
    return tuple(type(item)(max(1, item.amount // 4), item.multiples, namespace=item.namespace) for item in limits)


def _hit(limiter: MovingWindowRateLimiter, limits: tuple[RateLimitItem, ...], key: tuple[str, ...]) -> Wait | None:
    for item in limits:
        if not limiter.hit(item, *key):
            reset = limiter.get_window_stats(item, *key).reset_time
            return Wait(max(1, round(reset - time.time())))
    return None


def _as_storage(storage: object) -> Storage:
    if not isinstance(storage, Storage):
        raise TypeError("limits: expected a synchronous storage")
    return storage
