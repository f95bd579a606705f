"""Calling plugin code: what fails, hangs or ends the process is out by itself, and comes back."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from shared_record.errors import UnavailableError
from shared_record.hooks.caller import FAULTS, PLACES, WITHIN, Caller, PluginFaultError


def fail() -> None:
    raise RuntimeError("secret")


def leave() -> None:
    sys.exit(3)


def recurse() -> None:
    recurse()


@pytest.mark.parametrize("call", [fail, leave, recurse])
def test_n01_what_a_call_raises_is_a_fault_and_no_more(call) -> None:
    with pytest.raises(PluginFaultError):
        Caller().call("mine", "t", 2, call)
    assert Caller().call("mine", "t", 2, lambda: 5) == 5


def test_n01_a_call_that_hangs_is_given_up_at_its_deadline() -> None:
    release = threading.Event()
    before = time.monotonic()
    with pytest.raises(PluginFaultError):
        Caller().call("mine", "t", 0.1, release.wait)
    assert time.monotonic() - before < 1
    release.set()


def test_n01_five_faults_in_a_minute_put_a_method_out_for_this_tenant_alone_and_it_comes_back() -> None:
    now = [0.0]
    caller = Caller(lambda: now[0])
    for number in range(FAULTS):
        now[0] = number * 10.0
        with pytest.raises(PluginFaultError):
            caller.call("mine", "t", 2, fail)
    assert caller.is_out("mine", "t")
    with pytest.raises(UnavailableError):
        caller.call("mine", "t", 2, lambda: 5)
    assert caller.call("mine", "other", 2, lambda: 5) == 5
    assert caller.call("other", "t", 2, lambda: 5) == 5
    now[0] = WITHIN
    assert caller.call("mine", "t", 2, lambda: 5) == 5
    with pytest.raises(PluginFaultError):
        caller.call("mine", "t", 2, fail)
    assert caller.is_out("mine", "t")


def hang(caller: Caller, slug: str, owner: str, release: threading.Event) -> None:
    with pytest.raises(PluginFaultError):
        caller.call(slug, owner, 0.01, release.wait)


def all_hang(caller: Caller, slug: str, owner: str, release: threading.Event) -> None:
    """Let calls hang until there is no place left, forgetting the faults meanwhile."""
    for _ in range(PLACES):
        hang(caller, slug, owner, release)
        caller._faults.clear()


def test_n01_calls_that_hang_take_the_places_of_their_own_method_and_tenant_only() -> None:
    release = threading.Event()
    caller = Caller()
    all_hang(caller, "hangs", "t", release)
    before = time.monotonic()
    with pytest.raises(UnavailableError, match="busy"):
        caller.call("hangs", "t", 5, lambda: 5)
    assert time.monotonic() - before < 2, "it is not waited for: none becomes free"
    assert caller.call("hangs", "other", 2, lambda: 5) == 5
    assert caller.call("other", "t", 2, lambda: 5) == 5
    release.set()
    limit = time.monotonic() + 60
    while True:
        try:
            assert caller.call("hangs", "t", 1, lambda: 5) == 5
            break
        except UnavailableError:
            assert time.monotonic() < limit
    while caller._running:  # those that hung end one by one
        assert time.monotonic() < limit


def test_n01_all_calls_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_record.hooks.caller.ALL_PLACES", 3 * PLACES)
    release = threading.Event()
    caller = Caller()
    for owner in ("a", "b", "c"):
        all_hang(caller, "hangs", owner, release)
    with pytest.raises(UnavailableError, match="busy"):
        caller.call("other", "d", 0.01, lambda: 5)
    release.set()


def test_what_the_core_cannot_do_now_is_no_fault_of_the_plugin() -> None:
    def unavailable() -> None:
        raise UnavailableError("the database is gone")

    caller = Caller()
    for _ in range(FAULTS + 1):
        with pytest.raises(UnavailableError):
            caller.call("mine", "t", 2, unavailable)
    assert not caller.is_out("mine", "t")


def test_a_call_does_not_see_the_callers_context() -> None:
    from contextvars import ContextVar

    request: ContextVar[str] = ContextVar("request", default="none")
    request.set("mine")
    assert Caller().call("mine", "t", 2, request.get) == "none"
