"""Soft limits: in memory, on a real Valkey, and after that Valkey is gone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers import free_port, valkey
from shared_record.access.throttle import (
    HANDLE_MISSES,
    RECORDS_TRIED,
    SHARED,
    STEP_UP,
    Rate,
    Throttle,
    _spend,
    network_of,
    wider_network_of,
)


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


def test_z06_networks_links_and_purposes_are_counted_apart(throttle: Throttle, key: str) -> None:
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


# --- Requests per key ------------------------------------------------------------------------------------------------


def test_a_burst_then_the_rate(throttle: Throttle, key: str) -> None:
    rate = Rate(1, 20)
    spent = [throttle.spend(rate, key) for _ in range(22)]
    assert [one.allowed for one in spent] == [True] * 20 + [False] * 2
    assert [one.remaining for one in spent] == [*range(19, -1, -1), 0, 0]
    assert (spent[0].reset, spent[19].reset, spent[21].reset) == (1, 20, 20)
    assert [one.wait for one in spent] == [0] * 20 + [1] * 2
    assert throttle.spend(rate, key + "2").remaining == 19


def test_what_is_spent_comes_back(throttle: Throttle, key: str) -> None:
    rate = Rate(1_000, 1)
    assert throttle.spend(rate, key).allowed
    limit = time.monotonic() + 60
    while not throttle.spend(rate, key).allowed:
        assert time.monotonic() < limit


@pytest.mark.parametrize(("rate", "window"), [(Rate(100, 200), 2), (Rate(3, 7), 3), (Rate(7, 3), 1), (Rate(1, 1), 1)])
def test_exactly_the_burst_is_allowed_at_once_whatever_the_rate(
    throttle: Throttle, key: str, rate: Rate, window: int
) -> None:
    slow = Rate(1, rate.burst)
    assert sum(throttle.spend(slow, key).allowed for _ in range(rate.burst + 5)) == rate.burst
    assert rate.window == window


def test_parallel_requests_do_not_beat_the_rate(throttle: Throttle, key: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: throttle.spend(Rate(1, 10), key).allowed, range(64)))
    assert results.count(True) in (10, 11)  # one may have come back meanwhile


@given(
    rate=st.integers(1, 1_000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.integers(0, 2_000_000), min_size=1, max_size=80),
)
def test_g15_over_any_time_no_more_is_allowed_than_burst_and_rate_give(rate: int, burst: int, gaps: list[int]) -> None:
    now, back_at, allowed = 0.0, 0.0, []
    for gap in gaps:
        now += gap
        spent, back_at = _spend(Rate(rate, burst), now, back_at)
        assert 0 <= spent.remaining < burst
        assert spent.allowed == (spent.wait == 0)
        if spent.allowed:
            allowed.append(now)
    for index, start in enumerate(allowed):
        for count, end in enumerate(allowed[index:], 1):
            assert count <= burst + (end - start) * rate / 1_000_000 + 0.01


def test_with_valkey_gone_requests_are_counted_locally_and_do_not_wait_for_it(key: str) -> None:
    with valkey() as url:
        throttle = Throttle(url)
        assert throttle.spend(Rate(1, 40), key).remaining == 39
    assert sum(throttle.spend(Rate(1, 40), key).allowed for _ in range(30)) == 10
    start = time.monotonic()
    for _ in range(100):
        throttle.spend(Rate(1, 40), key)
    assert time.monotonic() - start < 1


def test_a_valkey_that_was_killed_and_came_back_counts_again_from_what_it_kept_nothing_of(key: str) -> None:
    port = free_port()
    with valkey(port=port) as url:
        throttle = Throttle(url)
        assert allowed(throttle, STEP_UP, "net", key) == 5
    assert allowed(throttle, STEP_UP, "net", key, of=6) == 1  # a quarter, counted here
    with valkey(port=port):
        assert allowed(throttle, STEP_UP, "net", key) == 5


# --- Attempts that can be given back -------------------------------------------------------------------------------


def test_what_is_taken_can_be_given_back(throttle: Throttle, key: str) -> None:
    assert [throttle.take(SHARED, key) is None for _ in range(11)] == [True] * 10 + [False]
    throttle.give_back(SHARED, key)
    throttle.give_back(SHARED, key)
    wait = throttle.take(SHARED, key)
    assert wait is None
    wait = throttle.take(SHARED, key)
    assert wait is not None
    assert 3500 <= wait.seconds <= 3600
    throttle.forget(SHARED, key)
    assert throttle.take(SHARED, key) is None


def test_parallel_takers_do_not_beat_the_limit(throttle: Throttle, key: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: throttle.take(SHARED, key), range(64)))
    assert results.count(None) == 10


def test_different_members_are_counted_once_each(throttle: Throttle, key: str) -> None:
    for _ in range(3):
        assert [throttle.take_one_more(RECORDS_TRIED, key, str(n)) is None for n in range(20)] == [True] * 20
    assert throttle.take_one_more(RECORDS_TRIED, key, "another") is not None
    assert throttle.take_one_more(RECORDS_TRIED, key + "2", "another") is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ("nonsense", "unknown"),
    ],
)
def test_wider_networks(address: str, network: str) -> None:
    assert wider_network_of(address) == network


def test_who_gets_in_does_not_count_among_the_records_that_a_network_tries() -> None:
    throttle = Throttle()
    for number in range(3 * RECORDS_TRIED.amount):
        assert throttle.take_one_more(RECORDS_TRIED, "office", str(number)) is None
        throttle.one_less(RECORDS_TRIED, "office", str(number))
        throttle.one_less(RECORDS_TRIED, "office", str(number))
    allowed = sum(throttle.take_one_more(RECORDS_TRIED, "office", f"x{n}") is None for n in range(50))
    assert allowed == RECORDS_TRIED.amount
