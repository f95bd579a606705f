"""Soft limits, which may vanish: attempts per client network and link, and requests per API key.

Limits on attempts slow a guesser down before anything is evaluated; the hard limit is a counter in the database
(``access.stepup``). When the storage of a limit is gone, a local one at a quarter of the rate stands in.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage, Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

PATIENCE = 1.0
"""Seconds after which a Redis that does not answer counts as gone."""
AVOIDED = 5.0
"""Seconds for which requests are then counted locally without asking it: each would have to wait for it."""

_log = logging.getLogger("shared_record.limits")

STEP_UP = (
    RateLimitItemPerMinute(5, 15, namespace="sr-stepup"),
    RateLimitItemPerHour(10, 1, namespace="sr-stepup"),
    RateLimitItemPerHour(15, 4, namespace="sr-stepup"),
)
"""5 in 15 minutes, doubling to 4 hours, as three stacked windows."""
SHARED = (RateLimitItemPerHour(10, namespace="sr-shared"), RateLimitItemPerDay(30, namespace="sr-shared"))
"""Answers to one record from all devices that are not trusted, together."""
DEVICE = (RateLimitItemPerMinute(5, 15, namespace="sr-device"), RateLimitItemPerDay(20, namespace="sr-device"))
"""Answers from one trusted device."""
ONE_TIME = (RateLimitItemPerDay(25, namespace="sr-one-time"),)
"""Answers to the challenges of one record and method."""
STARTS = (RateLimitItemPerMinute(10, 15, namespace="sr-start"), RateLimitItemPerHour(30, namespace="sr-start"))
"""Challenges begun, or sent again, by one client network at one record."""
RECORD_STARTS = (RateLimitItemPerHour(60, namespace="sr-start-all"),)
"""The same, by all clients at one record."""
RECORDS_TRIED = RateLimitItemPerHour(20, namespace="sr-records")
RECORDS_TRIED_IN_ALARM = RateLimitItemPerHour(5, namespace="sr-records")
"""Different records at which one wider network (/24, /56) may try its luck; fewer while its tenant has an alarm."""
NETWORK_FAILURES = RateLimitItemPerHour(100, namespace="sr-net-failed")
"""Wrong answers from one wider network, over all records."""
TENANT_FAILURES = RateLimitItemPerHour(200, namespace="sr-tenant-failed")
"""Wrong answers to all records of one tenant after which it has an alarm."""
HANDLE_MISSES = (
    RateLimitItemPerMinute(30, 1, namespace="sr-miss"),
    RateLimitItemPerHour(300, 24, namespace="sr-miss"),
)
EXPORTS = (RateLimitItemPerHour(10, namespace="sr-export"),)
"""Large files that are asked for of one record."""
KEY_MISSES = (RateLimitItemPerMinute(60, 1, namespace="sr-key-miss"),)
"""Requests with a wrong API key or token; one with a right key is never counted, so nobody is shut out by others."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The limit is reached; the next attempt is possible in ``seconds``."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_second`` requests a second in the long run, and up to ``burst`` at once."""

    per_second: int
    burst: int

    @property
    def window(self) -> int:
        """Seconds in which ``burst`` requests come back, rounded up."""
        return math.ceil(self.burst / self.per_second)

    def quartered(self) -> Rate:
        """Return a quarter of it, at least 1."""
        return Rate(max(1, self.per_second // 4), max(1, self.burst // 4))


@dataclass(frozen=True, slots=True)
class Spent:
    """One request against a ``Rate``: whether it is allowed, how many more are now, and the seconds until all are back.

    ``wait`` is the seconds until the next one is allowed, for one that is not.
    """

    allowed: bool
    remaining: int
    reset: int
    wait: int


class Throttle:
    """Limits on Redis, or in memory when ``redis_url`` is empty."""

    def __init__(self, redis_url: str = "") -> None:
        patience = {"socket_connect_timeout": PATIENCE, "socket_timeout": PATIENCE}
        storage = _as_storage(storage_from_string(redis_url, **patience) if redis_url else MemoryStorage())
        self._limiter = MovingWindowRateLimiter(storage)
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._counts = storage
        self._local_counts = MemoryStorage()
        self._spender = _RedisSpender(storage.storage) if isinstance(storage, RedisStorage) else None
        self._local_spender = _LocalSpender()
        self._avoid_until = 0.0

    def hit(self, limits: tuple[RateLimitItem, ...], *key: str) -> Wait | None:
        """Count one attempt under ``key``; return how long to wait if any of ``limits`` is used up."""
        try:
            return _hit(self._limiter, limits, key)
        except RedisError:
            _log.warning("limiter.degraded")
            return _hit(self._local, _quarter(limits), key)

    def hits_left(self, limits: tuple[RateLimitItem, ...], *key: str) -> int:
        """Return how many more attempts ``hit`` takes under ``key`` now; counts nothing."""
        try:
            return _hits_left(self._limiter, limits, key)
        except RedisError:
            return _hits_left(self._local, _quarter(limits), key)

    def clear(self, limits: tuple[RateLimitItem, ...], *key: str) -> None:
        """Forget the attempts under ``key``: the person passed."""
        for item in _quarter(limits):
            self._local.clear(item, *key)
        try:
            for item in limits:
                self._limiter.clear(item, *key)
        except RedisError:
            _log.warning("limiter.degraded")

    def take(self, limits: tuple[RateLimitItem, ...], *key: str) -> Wait | None:
        """Count one attempt under ``key``, in windows that begin with their first one, so that it can be given back.

        Return how long to wait if any of ``limits`` is used up.
        """
        for item in limits:
            if self.count(item, *key) > self._most(item):
                return Wait(self._left(item, key))
        return None

    def left(self, limits: tuple[RateLimitItem, ...], *key: str) -> int:
        """Return how many more attempts ``take`` takes under ``key`` now; counts nothing."""
        return max(0, min(self._most(item) - self.count(item, *key, by=0) for item in limits))

    def give_back(self, limits: tuple[RateLimitItem, ...], *key: str) -> None:
        """Take back one attempt that ``take`` counted."""
        for item in limits:
            self.count(item, *key, by=-1)

    def count(self, item: RateLimitItem, *key: str, by: int = 1) -> int:
        """Add ``by`` to what happened under ``key`` in the current window of ``item``, and return the sum."""
        name = item.key_for(*key)
        if not self._is_avoided():
            try:
                return self._counts.incr(name, item.get_expiry(), by) if by else self._counts.get(name)
            except RedisError:
                self._avoid()
        return self._local_counts.incr(name, item.get_expiry(), by) if by else self._local_counts.get(name)

    def forget(self, limits: tuple[RateLimitItem, ...], *key: str) -> None:
        """Forget all that ``take`` counted under ``key``."""
        for item in limits:
            counted = self.count(item, *key, by=0)
            self.count(item, *key, by=-counted)

    def is_above(self, item: RateLimitItem, *key: str) -> bool:
        """Tell whether more happened under ``key`` than ``item`` allows; counts nothing."""
        return self.count(item, *key, by=0) > self._most(item)

    def take_one_more(self, item: RateLimitItem, group: str, member: str) -> Wait | None:
        """Count ``member`` as one of the different members of ``group``, unless it is one already.

        Return how long to wait if ``item`` allows the group no further one.
        """
        seen = type(item)(1, item.multiples, namespace=f"{item.namespace}-seen")
        if self.count(seen, group, member, by=0) > 0:
            return None
        if self.count(item, group) > self._most(item):
            return Wait(self._left(item, (group,)))
        self.count(seen, group, member)
        return None

    def one_less(self, item: RateLimitItem, group: str, member: str) -> None:
        """Take back ``member`` of ``group``, if ``take_one_more`` counted it."""
        seen = type(item)(1, item.multiples, namespace=f"{item.namespace}-seen")
        if self.count(seen, group, member, by=0) > 0:
            self.forget((seen,), group, member)
            self.count(item, group, by=-1)

    def _most(self, item: RateLimitItem) -> int:
        return _quarter((item,))[0].amount if self._is_avoided() else item.amount

    def _left(self, item: RateLimitItem, key: tuple[str, ...]) -> int:
        name = item.key_for(*key)
        storage = self._local_counts if self._is_avoided() else self._counts
        try:
            end = storage.get_expiry(name)
        except RedisError:
            return item.get_expiry()
        return max(1, round(end - time.time()))

    def _is_avoided(self) -> bool:
        return time.monotonic() < self._avoid_until

    def _avoid(self) -> None:
        self._avoid_until = time.monotonic() + AVOIDED
        _log.warning("limiter.degraded")

    def spend(self, rate: Rate, key: str) -> Spent:
        """Take one request from ``key``, which regains ``rate``; one that is not allowed costs nothing."""
        if self._spender is None:
            return self._local_spender.spend(rate, key)
        if not self._is_avoided():
            try:
                return self._spender.spend(rate, key)
            except RedisError:
                self._avoid()
        return self._local_spender.spend(rate.quartered(), key)


def wider_network_of(address: str) -> str:
    """Return the /24 of an IPv4 address, or the /56 of an IPv6 address."""
    network = network_of(address)
    if network == "unknown":
        return network
    parsed = ipaddress.ip_network(network)
    return str(parsed.supernet(new_prefix=24 if parsed.version == 4 else 56))


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


# --- Attempts in moving windows --------------------------------------------------------------------------------------


def _quarter(limits: tuple[RateLimitItem, ...]) -> tuple[RateLimitItem, ...]:
    return tuple(type(item)(max(1, item.amount // 4), item.multiples, namespace=item.namespace) for item in limits)


def _hit(limiter: MovingWindowRateLimiter, limits: tuple[RateLimitItem, ...], key: tuple[str, ...]) -> Wait | None:
    for item in limits:
        if not limiter.hit(item, *key):
            reset = limiter.get_window_stats(item, *key).reset_time
            return Wait(max(1, round(reset - time.time())))
    return None


def _hits_left(limiter: MovingWindowRateLimiter, limits: tuple[RateLimitItem, ...], key: tuple[str, ...]) -> int:
    return min(limiter.get_window_stats(item, *key).remaining for item in limits)


def _as_storage(storage: object) -> Storage:
    if not isinstance(storage, Storage):
        raise TypeError("limits: expected a synchronous storage")
    return storage


# --- Requests, by the generic cell rate algorithm --------------------------------------------------------------------
# Of each key one number is kept: the moment at which all its requests will be back. That is O(1) in time and space,
# where a window of single requests is O(burst). Times are in microseconds.

_SECOND = 1_000_000


def _spend(rate: Rate, now: float, back_at: float) -> tuple[Spent, float]:
    """Return what one request at ``now`` does, and the new moment at which all are back."""
    step = _SECOND / rate.per_second
    full = step * rate.burst
    before = max(0.0, back_at - now)
    after = before + step
    if after > full + 1:  # a microsecond for rounding
        return Spent(False, 0, _seconds(before), _seconds(after - full)), back_at
    return Spent(True, int((full - after + 1) / step), _seconds(after), 0), now + after


def _seconds(microseconds: float) -> int:
    return max(1, math.ceil(microseconds / _SECOND))


class _LocalSpender:
    PRUNE = 10_000

    def __init__(self) -> None:
        self._back_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def spend(self, rate: Rate, key: str) -> Spent:
        now = time.monotonic() * _SECOND
        with self._lock:
            if len(self._back_at) >= self.PRUNE:
                self._back_at = {key: at for key, at in self._back_at.items() if at > now}
            spent, self._back_at[key] = _spend(rate, now, self._back_at.get(key, 0.0))
        return spent


_SPEND = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local step = 1000000 / ARGV[1]
local full = step * ARGV[2]
local before = math.max(0, (redis.call('GET', KEYS[1]) or 0) - now)
local after = before + step
if after > full + 1 then return {0, before, after - full} end
redis.call('SET', KEYS[1], string.format('%.0f', now + after), 'PX', math.ceil(after / 1000))
return {1, after, (full - after + 1) / step}
"""
"""``_spend`` as one atomic step, by the clock of Redis, which all processes share."""


class _RedisSpender:
    def __init__(self, client: Any) -> None:
        self._script = client.register_script(_SPEND)

    def spend(self, rate: Rate, key: str) -> Spent:
        allowed, back_in, rest = self._script(keys=[f"sr-rate:{key}"], args=[rate.per_second, rate.burst])
        if allowed:
            return Spent(True, int(rest), _seconds(back_in), 0)
        return Spent(False, 0, _seconds(back_in), _seconds(rest))
