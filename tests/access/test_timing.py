"""What time and work tell: as much for a link that never was as for one that was revoked, and for each wrong code.

Time is noisy where tests run beside each other. So the work is compared exactly (statements, hashes), and time by the
medians of samples that were taken in turns, with a bound that only a difference of kind exceeds.
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from shared_record_access_code import AccessCode
from sqlalchemy import event
from werkzeug.test import Client

from client import PORT, serve
from shared_record.access import links, printed, sessions
from shared_record.access.sessions import Here, Visit
from shared_record.access.stepup import Browser, NotOpened
from shared_record.db.schema import link
from stepup_methods import Unlimited, engine
from world import Shop, open_shop

SAMPLES = 60
FLOOR = 0.005
"""Seconds by which medians may differ whatever they are: what a network hides anyway."""
SHARE = 0.25
OF_THE_CLOCK = re.compile("FROM installation|set_config")
"""Each second the hosts are looked at anew; that, and the beginning of its transaction, is not of the request."""

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def shop(shop: Shop) -> Shop:
    for name in ("cust_a", "cust_b"):
        shop.record(name, "1")
    return shop


def medians(kinds: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median time of each kind; they take turns in an order that changes."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    order, chosen = list(kinds), random.Random(7)
    for turn in range(SAMPLES + 5):
        chosen.shuffle(order)
        for name in order:
            started = time.perf_counter()
            kinds[name]()
            if turn >= 5:  # the first ones fill caches
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(spent) for name, spent in times.items()}


def assert_alike(found: dict[str, float]) -> None:
    least, most = min(found.values()), max(found.values())
    assert most - least <= max(FLOOR, SHARE * most), found


def work_of(shop: Shop, call: Callable[[], object]) -> list[str]:
    """Return the statements that a call runs."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not OF_THE_CLOCK.search(statement):
            found.append(statement)

    event.listen(shop.db.engine, "before_cursor_execute", note)
    try:
        call()
    finally:
        event.remove(shop.db.engine, "before_cursor_execute", note)
    return found


# --- Links ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def missing(shop: Shop, tmp_path: Path) -> dict[str, Callable[[], tuple[int, bytes, Any]]]:
    """Ask for links that open nothing, each for a reason of its own; every time from another address."""
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    other.record("cust_x", "1")
    shop.record("cust_gone", "1")
    paths = {"revoked": shop.link("cust_b").path, "foreign": other.link("cust_x").path}
    paths |= {"reissued": shop.link("cust_gone").path, "unknown": "/c/" + "0" * 26}
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_b", "test")
        links.reissue_link(connection, shop.keys, shop.clock, shop.scope, "cust_gone", "test")
    client, asked = Client(serve(shop), use_cookies=False), iter(range(1, 10**6))

    def ask(path: str) -> tuple[int, bytes, Any]:
        number = next(asked)
        answer = client.get(
            path,
            headers={"Host": f"{shop.hosts[0]}:{PORT}"},
            environ_overrides={"REMOTE_ADDR": f"10.{number // 62500}.{number // 250 % 250}.{number % 250}"},
        )
        return answer.status_code, answer.data, tuple(sorted(answer.headers))

    return {name: lambda path=path: ask(path) for name, path in paths.items()}  # type: ignore[misc]


def test_l02_a_link_that_opens_nothing_costs_the_same_work_whatever_it_was(
    shop: Shop, missing: dict[str, Callable[[], tuple[int, bytes, Any]]]
) -> None:
    assert len({ask() for ask in missing.values()}) == 1
    assert {ask()[0] for ask in missing.values()} == {404}
    work = {name: tuple(work_of(shop, ask)) for name, ask in missing.items()}
    assert len(set(work.values())) == 1, work
    assert len(work["unknown"]) >= 1, "it was looked up"


@sqlite_only
def test_l02_the_time_does_not_tell_what_a_link_was(
    missing: dict[str, Callable[[], tuple[int, bytes, Any]]],
) -> None:
    assert_alike(medians(missing))


# --- Codes ------------------------------------------------------------------------------------------------------------


@sqlite_only
@pytest.mark.parametrize("imported", [False, True], ids=["derived", "imported"])
def test_a07_the_time_does_not_tell_why_a_code_is_wrong(shop: Shop, imported: bool) -> None:
    """A former code, another customer's, an odd text: as slow as any; and as slow for a customer with a printed one."""
    former = shop.code("cust_a")
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
        if imported:
            printed.import_code(connection, shop.keys, shop.clock, shop.scope, "cust_b", "PX47-9QRT", "me")
    step_up = engine(shop, AccessCode, limits=Unlimited())

    def asker(customer: str, typed: str) -> Callable[[], None]:
        handle, here = shop.link(customer).handle, Here(shop.hosts[0], shop.scope.config, None)
        assert handle is not None
        visit = sessions.visit(shop.db, shop.clock, here, handle, {}, secure=False)
        assert isinstance(visit, Visit)
        (offer,) = step_up.offers(visit)[0]

        def ask() -> None:
            result = step_up.verify(visit, offer, {"code": typed}, Browser("192.0.2.1"))
            assert isinstance(result, NotOpened)
            with shop.db.write(shop.scope) as connection:  # or the hundredth would pause it
                connection.execute(link.update().where(link.c.tenant_id == shop.scope.plane).values(tries=0))

        return ask

    kinds = {
        "wrong": asker("cust_a", "WRONG2"),
        "former": asker("cust_a", former),
        "another's": asker("cust_a", shop.code("cust_b")),
        "odd": asker("cust_a", "\u212aſß\0"),
        "at the other": asker("cust_b", "WRONG2"),
    }
    assert_alike(medians(kinds))
