"""Limits on answers: what an attacker uses up, what the real customer keeps, and what the vendor is told."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from shared_record_access_code import AccessCode
from sqlalchemy import select

from client import Visitor, serve, url_of
from shared_record.access import devices, links, sessions, throttle
from shared_record.access.attempts import HARD_CAP
from shared_record.access.sessions import Here, Visit
from shared_record.access.stepup import Browser, NotOpened, Opened, StepUp
from shared_record.access.throttle import Throttle
from shared_record.db.schema import audit_event, link, trusted_device
from stepup_methods import Unlimited, engine
from world import Shop

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    return shop


def seen(shop: Shop, customer: str = "cust_a", host: str | None = None) -> Visit:
    handle = shop.link(customer).handle
    assert handle is not None
    here = Here(host or shop.hosts[0], shop.scope.config, None)
    found = sessions.visit(shop.db, shop.clock, here, handle, {}, secure=False)
    assert isinstance(found, Visit)
    return found


def answer(
    shop: Shop, step_up: StepUp, code: str, client: str = "192.0.2.1", device: str = "", customer: str = "cust_a"
) -> Opened | NotOpened:
    visit = seen(shop, customer)
    (offer,) = step_up.offers(visit)[0]
    return step_up.verify(visit, offer, {"code": code}, Browser(client, device=device))


def device_of(shop: Shop, step_up: StepUp) -> str:
    opened = answer(shop, step_up, shop.code("cust_a"), "203.0.113.7")
    assert isinstance(opened, Opened)
    assert opened.device is not None
    return opened.device


def codes_of(results: list[Opened | NotOpened]) -> list[str]:
    return [result.code if isinstance(result, NotOpened) else "OPENED" for result in results]


def net(number: int) -> str:
    return f"10.{number // 250}.{number % 250}.1"


@sqlite_only
def test_a02_a_thousand_networks_share_ten_an_hour(shop: Shop) -> None:
    step_up = engine(shop, AccessCode)
    visit = seen(shop)
    (offer,) = step_up.offers(visit)[0]
    results = [step_up.verify(visit, offer, {"code": "WRONG2"}, Browser(net(number))) for number in range(1000)]
    codes = codes_of(results)
    assert codes == ["ACCESS_CODE_INVALID"] * 10 + ["STEP_UP_THROTTLED"] * 990
    assert isinstance(answer(shop, step_up, shop.code("cust_a"), "203.0.113.9"), NotOpened)


def test_a05_a_device_that_passed_is_not_shut_out_by_a_flood(shop: Shop) -> None:
    step_up = engine(shop, AccessCode)
    device = device_of(shop, step_up)
    for number in range(30):
        answer(shop, step_up, "WRONG2", net(number))
    with shop.db.write(shop.scope) as connection:
        connection.execute(link.update().where(link.c.tenant_id == shop.scope.plane).values(tries=HARD_CAP))
    assert isinstance(answer(shop, step_up, shop.code("cust_a"), "203.0.113.8"), NotOpened)  # a new device has to wait
    opened = answer(shop, step_up, shop.code("cust_a"), "203.0.113.8", device)
    assert isinstance(opened, Opened)
    assert opened.device is None  # it keeps the cookie that it has


def test_a05_a_trusted_device_has_limits_of_its_own(shop: Shop) -> None:
    step_up = engine(shop, AccessCode)
    device = device_of(shop, step_up)
    results = [answer(shop, step_up, "WRONG2", net(number), device) for number in range(8)]
    assert codes_of(results) == ["ACCESS_CODE_INVALID"] * 5 + ["STEP_UP_THROTTLED"] * 3
    assert isinstance(answer(shop, step_up, shop.code("cust_a"), "203.0.113.9"), Opened)  # others are not bound by it


def test_a04_a_trusted_device_has_a_hundred_in_a_row_of_its_own(shop: Shop, soak: bool) -> None:
    step_up = engine(shop, AccessCode, limits=Unlimited())
    device, visit = device_of(shop, step_up), seen(shop)
    (offer,) = step_up.offers(visit)[0]
    mine = trusted_device.c.tenant_id == shop.scope.plane
    with ThreadPoolExecutor(64) as pool:
        for _ in range(20 if soak else 2):
            with shop.db.write(shop.scope) as connection:
                connection.execute(trusted_device.update().where(mine).values(tries=HARD_CAP - 7))
            barrier = Barrier(64)

            def guess(_: int, barrier: Barrier = barrier) -> Opened | NotOpened:
                barrier.wait(60)
                return step_up.verify(visit, offer, {"code": "WRONG2"}, Browser("192.0.2.1", device=device))

            codes = codes_of(list(pool.map(guess, range(64))))
            assert (codes.count("ACCESS_CODE_INVALID"), codes.count("STEP_UP_PAUSED")) == (7, 57)
    with shop.db.read(shop.scope) as connection:
        tries = connection.execute(select(link.c.tries).where(link.c.tenant_id == shop.scope.plane)).scalar_one()
    assert tries == 0


def test_a_device_is_trusted_on_its_host_and_record_until_a_new_code_or_link(shop: Shop) -> None:
    shop.record("cust_b", "1")
    step_up = engine(shop, AccessCode)
    device, now = device_of(shop, step_up), shop.clock.now()
    with shop.db.read(shop.scope) as connection:
        assert devices.find(connection, seen(shop), device, now) is not None
        assert devices.find(connection, seen(shop, "cust_b"), device, now) is None
        assert devices.find(connection, seen(shop), device[:-1] + "-", now) is None
        assert devices.find(connection, seen(shop), "", now) is None
        assert devices.find(connection, seen(shop), device, now + devices.LIFETIME) is None
        assert devices.find(connection, seen(shop), device, now + devices.LIFETIME - timedelta(seconds=1)) is not None
    with shop.db.write(shop.scope) as connection:
        links.move_host(connection, shop.keys, shop.clock, shop.scope, "cust_a", shop.hosts[1], "me")
    with shop.db.read(shop.scope) as connection:
        assert devices.find(connection, seen(shop, host=shop.hosts[1]), device, now) is None
    with shop.db.write(shop.scope) as connection:
        links.move_host(connection, shop.keys, shop.clock, shop.scope, "cust_a", shop.hosts[0], "me")
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    with shop.db.read(shop.scope) as connection:
        assert devices.find(connection, seen(shop), device, now) is None


@sqlite_only
def test_s15_a_record_trusts_a_bounded_number_of_devices_and_the_oldest_goes_first(shop: Shop) -> None:
    step_up, kept = engine(shop, AccessCode, limits=Unlimited()), []
    for _ in range(devices.MAX_TRUSTED + 2):
        kept.append(device_of(shop, step_up))
        shop.clock.advance(seconds=1)
    with shop.db.read(shop.scope) as connection:
        known = [devices.find(connection, seen(shop), one, shop.clock.now()) is not None for one in kept]
    assert known == [False] * 2 + [True] * devices.MAX_TRUSTED


@sqlite_only
def test_a_program_that_unlocks_is_given_no_trust_that_it_cannot_show(shop: Shop) -> None:
    visitor, handle = Visitor(serve(shop)), shop.link("cust_a").handle
    answer = {"factor": "ACCESS_HINT", "value": shop.code("cust_a")}
    assert visitor.post(f"{shop.hosts[0]}/api/v1/c/{handle}/access/verify", json=answer).status_code == 200
    with shop.db.read(shop.scope) as connection:
        mine = select(trusted_device.c.digest).where(trusted_device.c.tenant_id == shop.scope.plane)
        assert connection.execute(mine).all() == []


@sqlite_only
def test_being_trusted_opens_nothing(shop: Shop) -> None:
    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    jar = visitor.jars[shop.hosts[0]]
    kept = {name: value for name, value in jar.items() if name.startswith("sr-dv-")}
    assert len(kept) == 1
    visitor.jars[shop.hosts[0]] = kept
    assert visitor.get(f"{url}/activity").status_code == 303


@sqlite_only
def test_a03_one_network_may_try_twenty_records_an_hour(shop: Shop) -> None:
    names = [f"cust_{number}" for number in range(24)]
    for name in names:
        shop.record(name, "1")
    step_up = engine(shop, AccessCode)
    results = [
        answer(shop, step_up, "WRONG2", f"198.51.100.{number}", customer=name) for number, name in enumerate(names)
    ]
    assert codes_of(results) == ["ACCESS_CODE_INVALID"] * 20 + ["STEP_UP_THROTTLED"] * 4
    assert isinstance(answer(shop, step_up, shop.code(names[0]), "198.51.100.200", customer=names[0]), Opened)
    assert isinstance(answer(shop, step_up, shop.code(names[23]), "203.0.113.1", customer=names[23]), Opened)


@sqlite_only
def test_a03_a_network_with_many_failures_has_to_wait_and_the_tenant_has_an_alarm(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "NETWORK_FAILURES", throttle.RateLimitItemPerHour(3, namespace="t-net"))
    monkeypatch.setattr(throttle, "TENANT_FAILURES", throttle.RateLimitItemPerHour(6, namespace="t-tenant"))
    step_up = engine(shop, AccessCode)
    one = [answer(shop, step_up, "WRONG2", f"198.51.100.{number}") for number in range(5)]
    assert codes_of(one) == ["ACCESS_CODE_INVALID"] * 4 + ["STEP_UP_THROTTLED"]
    for number in range(4):
        answer(shop, step_up, "WRONG2", net(number))
    with shop.db.read(shop.scope) as connection:
        events = connection.execute(
            select(audit_event.c.event).where(audit_event.c.tenant_id == shop.scope.plane)
        ).scalars().all()  # fmt: skip
    assert list(events).count("stepup.alarm") == 1
    for number in range(6):
        shop.record(f"cust_{number}", "1")
    during = [answer(shop, step_up, "WRONG2", f"192.0.2.{number}", customer=f"cust_{number}") for number in range(4)]
    assert codes_of(during)[:3] == ["ACCESS_CODE_INVALID"] * 3


@sqlite_only
def test_a07_wrong_codes_get_the_same_answer_whoever_has_which_code(shop: Shop) -> None:
    shop.record("cust_b", "1")
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_b", "me", overlap=timedelta(days=1))
    pages = []
    for name in ("cust_a", "cust_b"):
        url = url_of(shop, name)
        page = Visitor(serve(shop)).unlock(url, "WRONG2")
        text = re.sub(r'(name="csrf_token" value=")[^"]+', r"\1", page.text)
        pages.append((page.status_code, text.replace(url.partition("/c/")[2], "HANDLE")))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_r8_without_redis_a_quarter_of_the_shared_limit_is_left(shop: Shop) -> None:
    from servers import free_port

    limits = Throttle(f"redis://127.0.0.1:{free_port()}/0")
    step_up = engine(shop, AccessCode, limits=limits)
    results = codes_of([answer(shop, step_up, "WRONG2", net(number)) for number in range(5)])
    assert results.count("ACCESS_CODE_INVALID") in (2, 3)
    assert results[-1] == "STEP_UP_THROTTLED"
