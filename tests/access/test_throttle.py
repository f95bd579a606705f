"""Soft limits: in memory, on a real Valkey, and after that Valkey is gone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from servers import free_port, valkey
from shared_record.access.throttle import HANDLE_MISSES, STEP_UP, Throttle, network_of


@pytest.fixture(params=["memory", "valkey"])
def throttle(request: pytest.FixtureRequest) -> Throttle:
    return Throttle("" if request.param == "memory" else request.getfixturevalue("redis_url"))


@pytest.fixture
def key() -> str:
    return uuid4().hex


def allowed(throttle: Throttle, limits: tuple, *key: str, of: int = 40) -> int:
    return sum(throttle.hit(limits, *key) is None for _ in range(of))


def test_five_in_fifteen_minutes_then_wait(throttle: Throttle, key: str) -> None:
    assert [throttle.hit(STEP_UP, "net", key) for _ in range(5)] == [None] * 5
    wait = throttle.hit(STEP_UP, "net", key)
    assert wait is not None
    assert 890 <= wait.seconds <= 901


@pytest.mark.parametrize(("window", "most"), [(0, 5), (1, 10), (2, 15)])
def test_each_stacked_window_has_its_own_limit(throttle: Throttle, key: str, window: int, most: int) -> None:
    assert allowed(throttle, STEP_UP[window:], "net", key) == most


def test_networks_links_and_purposes_are_counted_apart(throttle: Throttle, key: str) -> None:
    assert allowed(throttle, STEP_UP, "net", key) == 5
    assert allowed(throttle, STEP_UP, "other net", key) == 5
    assert allowed(throttle, STEP_UP, "net", key + "2") == 5
    assert allowed(throttle, HANDLE_MISSES, "net", key) == 30


def test_clearing_gives_everything_back_to_this_key_alone(throttle: Throttle, key: str) -> None:
    for name in ("a", "b"):
        allowed(throttle, STEP_UP, name, key)
    throttle.clear(STEP_UP, "a", key)
    assert (allowed(throttle, STEP_UP, "a", key), allowed(throttle, STEP_UP, "b", key)) == (5, 0)


def test_parallel_attempts_do_not_beat_the_limit(throttle: Throttle, key: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: throttle.hit(STEP_UP, "net", key), range(64)))
    assert results.count(None) == 5


def test_processes_that_share_a_valkey_share_the_limit(redis_url: str, key: str) -> None:
    one, two = Throttle(redis_url), Throttle(redis_url)
    assert allowed(one, STEP_UP, "net", key, of=3) + allowed(two, STEP_UP, "net", key, of=10) == 5


def test_with_valkey_gone_a_quarter_of_the_rate_is_left_and_answers_come_quickly(key: str) -> None:
    with valkey() as url:
        throttle = Throttle(url)
        assert allowed(throttle, STEP_UP, "net", key, of=2) == 2
    start = time.monotonic()
    assert allowed(throttle, STEP_UP, "net", key, of=6) == 1
    assert allowed(throttle, HANDLE_MISSES, "net", key, of=10) == 7
    throttle.clear(STEP_UP, "net", key)
    assert allowed(throttle, STEP_UP, "net", key, of=2) == 1
    assert time.monotonic() - start < 15


def test_a_valkey_that_is_not_there_yet_does_not_keep_the_service_from_starting(key: str) -> None:
    throttle = Throttle(f"redis://127.0.0.1:{free_port()}/0")
    assert allowed(throttle, STEP_UP, "net", key, of=3) == 1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", "unknown"),
        ("192.0.2.7, 203.0.113.1", "unknown"),
    ],
)
def test_clients_are_counted_by_network(address: str, network: str) -> None:
    assert network_of(address) == network
