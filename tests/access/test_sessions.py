"""Sessions: bound to one host, one customer and six epochs, and to nothing that can be copied from the database."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from shared_record.access import audit, links, sessions
from shared_record.access.policy import Surface, needs_session
from shared_record.access.sessions import Here, Moved, Visit, cookie_name
from shared_record.db.schema import customer, host, link, session, tenant, tenant_method
from shared_record.keys import KeyRing
from shared_record.tenancy.methods import put_methods
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from world import Shop, open_shop


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


def look(shop: Shop, name: str, cookies: dict[str, str] | None = None, host: str | None = None) -> Visit | Moved | None:
    handle = shop.link(name).handle
    if handle is None:
        return None
    here = Here(host or shop.hosts[0], shop.scope.config, shop.test_scope.plane)
    return sessions.visit(shop.db, shop.clock, here, handle, cookies or {}, secure=False)


def seen(shop: Shop, name: str = "cust_a", cookies: dict[str, str] | None = None) -> Visit:
    found = look(shop, name, cookies)
    assert isinstance(found, Visit)
    return found


def open_session(
    shop: Shop, name: str = "cust_a", method_epoch: int = 0, replaces: bytes | None = None
) -> dict[str, str]:
    """Issue a session as step-up does; return the browser's cookies."""
    visit = seen(shop, name)
    with shop.db.write(shop.scope) as connection:
        issued = sessions.issue(
            connection, shop.clock, visit, "access_code", "", method_epoch=method_epoch, replaces=replaces
        )
    assert issued is not None
    return {cookie_name(visit.row.link_id, secure=False): issued[0]}


def is_open(shop: Shop, cookies: dict[str, str], name: str = "cust_a") -> bool:
    found = look(shop, name, cookies)
    return isinstance(found, Visit) and found.session is not None


def change(shop: Shop, table: Any, *where: Any, **values: Any) -> None:
    with shop.db.write(shop.scope) as connection:
        mine = table.c.tenant_id == (shop.scope.config if table in (host, tenant, tenant_method) else shop.scope.plane)
        connection.execute(table.update().where(mine, *where).values(**values))


def test_a_session_opens_its_own_record_and_says_how(shop: Shop) -> None:
    cookies = open_session(shop)
    opened = seen(shop, "cust_a", cookies).session
    assert opened is not None
    assert (opened.method, opened.open_until) == ("access_code", shop.clock.now() + timedelta(minutes=30))
    assert seen(shop, "cust_a", cookies).may_see(Surface.ACCESS_LOG)


def test_s02_s03_s04_no_cookie_opens_anything_but_its_record_on_its_host(
    shop: Shop, keys: KeyRing, tmp_path: Any
) -> None:
    other = open_shop(shop.db, keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    other.record("cust_a", "1")
    places = [(shop, "cust_a"), (shop, "cust_b"), (other, "cust_a")]
    jars = [open_session(*place) for place in places]
    for (where, name), own in zip(places, jars, strict=True):
        for jar in jars:
            (value,) = jar.values()
            mine = cookie_name(seen(where, name).row.link_id, secure=False)
            # as the browser has it, under every name at once, and under the name of the record that is asked for
            for cookies in (jar, {key: value for each in jars for key in each}, {mine: value}):
                assert is_open(where, cookies, name) == (jar is own)
            for here in (*shop.hosts, *other.hosts):
                found = look(where, name, {mine: value}, host=here)
                if here == where.hosts[0]:
                    assert isinstance(found, Visit)
                elif here in where.hosts:
                    assert found == Moved(where.hosts[0])
    handle = shop.link("cust_a").handle
    theirs = Here(other.hosts[0], other.scope.config, other.test_scope.plane)
    assert handle is not None
    assert sessions.visit(shop.db, shop.clock, theirs, handle, jars[0], secure=False) is None


def test_s03_the_host_itself_is_checked_and_not_only_an_epoch(shop: Shop) -> None:
    cookies = open_session(shop)
    change(shop, customer, home_host=shop.hosts[1])  # as if no epoch had risen
    found = look(shop, "cust_a", cookies, host=shop.hosts[1])
    assert isinstance(found, Visit)
    assert found.session is None


def test_a_cookie_with_the_prefix_counts_on_tls_only_and_without_it_elsewhere(shop: Shop) -> None:
    ((name, value),) = open_session(shop).items()
    handle = shop.link("cust_a").handle
    here = Here(shop.hosts[0], shop.scope.config, None)
    assert handle is not None
    for cookie, secure in ((name, False), (f"__Host-{name}", True)):
        for asked in (False, True):
            found = sessions.visit(shop.db, shop.clock, here, handle, {cookie: value}, secure=asked)
            assert isinstance(found, Visit)
            assert (found.session is not None) == (asked == secure)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("table", "values"),
    [
        (tenant, {"epoch": 1}),
        (host, {"epoch": 1}),
        (link, {"epoch": 1}),
        (customer, {"code_epoch": 1}),
        (customer, {"epoch": 1}),
        (tenant_method, {"epoch": 1}),
        (tenant_method, {"enabled": False}),
        (tenant, {"state": "suspended"}),
        (host, {"role": "suspended"}),
        (session, {"host": "elsewhere.example"}),
        (session, {"method": "gone"}),
    ],
    ids=lambda value: str(value),
)
def test_s05_each_thing_a_session_rests_on_ends_it_alone(shop: Shop, table: Any, values: dict[str, Any]) -> None:
    cookies = open_session(shop)
    assert is_open(shop, cookies)
    change(shop, table, **values)
    assert not is_open(shop, cookies)


def test_s12_idle_and_absolute_limits_are_exact(shop: Shop) -> None:
    start, cookies = shop.clock.now(), open_session(shop)
    sid_hash = hashlib.sha256(next(iter(cookies.values())).encode()).digest()
    shop.clock.advance(minutes=30, milliseconds=-1)
    assert is_open(shop, cookies)
    shop.clock.advance(milliseconds=1)
    assert not is_open(shop, cookies)
    shop.clock.set(start)
    while shop.clock.now() < start + timedelta(hours=12):
        assert is_open(shop, cookies)
        opened = seen(shop, "cust_a", cookies).session
        assert opened is not None
        assert opened.open_until <= start + timedelta(hours=12)
        sessions.touch(shop.db, shop.clock, shop.scope, sid_hash)
        shop.clock.advance(minutes=29, seconds=59, milliseconds=999)
    shop.clock.set(start + timedelta(hours=12))
    sessions.touch(shop.db, shop.clock, shop.scope, sid_hash)
    assert not is_open(shop, cookies)
    shop.clock.advance(milliseconds=-1)
    assert is_open(shop, cookies)


def test_use_is_noted_once_a_minute(shop: Shop) -> None:
    opened = seen(shop, "cust_a", open_session(shop)).session
    assert opened is not None
    shop.clock.advance(seconds=59)
    assert not sessions.needs_touch(shop.clock, opened)
    shop.clock.advance(seconds=1)
    assert sessions.needs_touch(shop.clock, opened)


def test_s01_a_new_session_ends_the_one_it_replaces(shop: Shop) -> None:
    first = open_session(shop)
    old = seen(shop, "cust_a", first).session
    assert old is not None
    second = open_session(shop, replaces=old.sid_hash)
    assert first != second
    assert (is_open(shop, first), is_open(shop, second)) == (False, True)


def test_s07_ending_twice_does_no_harm_and_ends_one_browser_only(shop: Shop) -> None:
    one, two = open_session(shop), open_session(shop)
    visit = seen(shop, "cust_a", one)
    for _ in range(2):
        sessions.end(shop.db, shop.clock, visit)
    sessions.end(shop.db, shop.clock, seen(shop))
    assert (is_open(shop, one), is_open(shop, two)) == (False, True)


def test_s11_only_a_hash_is_stored_and_ids_never_repeat(shop: Shop) -> None:
    values = [value for _ in range(20) for value in open_session(shop).values()]
    assert len(set(values)) == 20
    assert {len(value) for value in values} == {43}  # 256 bits
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(select(session).where(session.c.tenant_id == shop.scope.plane)).all()
    assert {row.sid_hash for row in rows} == {hashlib.sha256(value.encode()).digest() for value in values}
    assert not any(value in repr(row) for row in rows for value in values)


def test_rubbish_in_a_cookie_is_no_session(shop: Shop) -> None:
    ((name, _),) = open_session(shop).items()
    for value in ("", "x", "x" * 10_000, "\x00", "'; DROP TABLE session; --"):
        assert not is_open(shop, {name: value} | {f"sr-{i:08x}": value for i in range(100)})


def test_p03_an_unknown_policy_shows_the_least(shop: Shop) -> None:
    for values in ({"policy": "WIDE_OPEN"}, {"policy": "open"}):
        change(shop, tenant, **values)
        assert seen(shop).policy is Policy.GATED
        assert not seen(shop).may_see(Surface.LANDING)
    change(shop, tenant, policy="OPEN")
    change(shop, customer, policy="?")
    assert seen(shop).policy is Policy.GATED


@pytest.mark.parametrize("policy", Policy)
def test_p01_the_access_log_is_inner_under_every_policy(policy: Policy) -> None:
    assert needs_session(policy, Surface.ACCESS_LOG)
    assert needs_session(policy, Surface.LANDING) == (policy is Policy.GATED)
    assert needs_session(policy, Surface.DETAIL) == (policy is not Policy.OPEN)


# --- S06: issuing against changes ------------------------------------------------------------------------------------

RACES: dict[str, Callable[[Any, Shop, str], Any]] = {
    "link revoked": lambda c, s, who: links.revoke_link(c, s.keys, s.clock, s.scope, who, "me"),
    "link reissued": lambda c, s, who: links.reissue_link(c, s.keys, s.clock, s.scope, who, "me"),
    "code rotated": lambda c, s, who: links.rotate_code(c, s.keys, s.clock, s.scope, who, "me"),
    "policy changed": lambda c, s, who: links.set_tenant_policy(c, s.clock, s.scope, Policy.GATED, "me"),
    "own policy changed": lambda c, s, who: links.set_customer_policy(c, s.clock, s.scope, who, "GATED", "me"),
    "customer moved": lambda c, s, who: links.move_host(c, s.keys, s.clock, s.scope, who, s.hosts[1], "me"),
    "host suspended": lambda c, s, who: c.execute(
        host.update().where(host.c.tenant_id == s.scope.config).values(role="suspended", epoch=host.c.epoch + 1)
    ),
    "method disabled": lambda c, s, who: put_methods(c, s.scope, []),
    "tenant suspended": lambda c, s, who: update_tenant(c, s.scope, {"state": "suspended"}),
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("event", RACES)
def test_s06_what_was_seen_before_a_change_issues_nothing_after_it(shop: Shop, event: str) -> None:
    before = seen(shop)
    with shop.db.write(shop.scope) as connection:
        RACES[event](connection, shop, "cust_a")
    with shop.db.write(shop.scope) as connection:
        assert sessions.issue(connection, shop.clock, before, "access_code", "", method_epoch=0, replaces=None) is None
    with shop.db.read(shop.scope) as connection:
        assert connection.execute(select(session).where(session.c.tenant_id == shop.scope.plane)).all() == []


def test_s06_a_method_that_was_off_meanwhile_issues_nothing_either(shop: Shop) -> None:
    before = seen(shop)
    for methods in ([], [("access_code", {})]):
        with shop.db.write(shop.scope) as connection:
            put_methods(connection, shop.scope, methods)
    with shop.db.write(shop.scope) as connection:
        assert sessions.issue(connection, shop.clock, before, "access_code", "", method_epoch=0, replaces=None) is None
        assert sessions.issue(connection, shop.clock, before, "access_code", "", method_epoch=1, replaces=None)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("event", RACES)
def test_s06_issuing_races_a_change_and_no_session_survives_it(shop: Shop, event: str, soak: bool) -> None:
    survived = 0
    with ThreadPoolExecutor(2) as pool:
        for turn in range(200 if soak else 8):
            name = f"cust_{turn}"
            shop.record(name, "1")
            visit, barrier, method = seen(shop, name), Barrier(2), _method_epoch(shop)

            def issue(visit: Visit = visit, barrier: Barrier = barrier, method: int = method) -> tuple[str, Any] | None:
                with shop.db.write(shop.scope) as connection:
                    barrier.wait(10)
                    return sessions.issue(
                        connection, shop.clock, visit, "access_code", "", method_epoch=method, replaces=None
                    )

            def bump(name: str = name, barrier: Barrier = barrier) -> None:
                with shop.db.write(shop.scope) as connection:
                    barrier.wait(10)
                    RACES[event](connection, shop, name)

            handle = shop.link(name).handle
            issued, _ = pool.submit(issue), pool.submit(bump).result(20)
            sid = issued.result(20)
            survived += sid is not None
            if sid is not None and handle is not None:
                cookies = {cookie_name(visit.row.link_id, secure=False): sid[0]}
                for place in shop.hosts:
                    here = Here(place, shop.scope.config, None)
                    found = sessions.visit(shop.db, shop.clock, here, handle, cookies, secure=False)
                    assert not isinstance(found, Visit) or found.session is None
            _undo(shop)


def _method_epoch(shop: Shop) -> int:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(tenant_method.c.epoch).where(tenant_method.c.tenant_id == shop.scope.config)
        ).scalar_one()


def _undo(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"state": "active", "policy": "TWO_TIER"})
        put_methods(connection, shop.scope, [("access_code", {})])
        connection.execute(host.update().where(host.c.tenant_id == shop.scope.config).values(role="serving"))


def test_s15_many_browsers_unlock_one_record_at_the_same_moment_and_ten_stay_open(shop: Shop) -> None:
    visit, barrier = seen(shop), Barrier(12)

    def issue(_: int) -> str:
        barrier.wait(10)
        with shop.db.write(shop.scope) as connection:
            issued = sessions.issue(connection, shop.clock, visit, "access_code", "", method_epoch=0, replaces=None)
        assert issued is not None
        return issued[0]

    with ThreadPoolExecutor(12) as pool:
        sids = list(pool.map(issue, range(12)))
    name = cookie_name(visit.row.link_id, secure=False)
    assert sum(is_open(shop, {name: sid}) for sid in sids) == sessions.MAX_LIVE


def test_the_test_plane_has_sessions_of_its_own(shop: Shop) -> None:
    from shared_record.ledger.intake import Delta, record_deltas

    record_deltas(shop.db, shop.keys, shop.clock, shop.test_scope, [Delta("cust_a", "9", "u")])
    with shop.db.read(shop.test_scope) as connection:
        twin = links.show_link(connection, shop.keys, shop.test_scope, "cust_a")
    assert twin.handle is not None
    here = Here(shop.hosts[0], shop.scope.config, shop.test_scope.plane)
    found = sessions.visit(shop.db, shop.clock, here, twin.handle, open_session(shop), secure=False)
    assert isinstance(found, Visit)
    assert (found.is_test, found.session) == (True, None)
    alone = Here(shop.hosts[0], shop.scope.config, None)
    assert sessions.visit(shop.db, shop.clock, alone, twin.handle, {}, secure=False) is None
    elsewhere = Here(shop.hosts[0], uuid4(), None)
    assert sessions.visit(shop.db, shop.clock, elsewhere, twin.handle, {}, secure=False) is None


# --- Many sessions of one link ---------------------------------------------------------------------------------------


def listed(shop: Shop, cookies: dict[str, str] | None = None) -> list[sessions.Device]:
    visit = seen(shop, "cust_a", cookies)
    with shop.db.read(shop.scope) as connection:
        return sessions.list_live(connection, shop.clock, visit)


def stored(shop: Shop) -> int:
    with shop.db.read(shop.scope) as connection:
        return len(connection.execute(select(session.c.sid_hash).where(session.c.tenant_id == shop.scope.plane)).all())


def test_s15_an_eleventh_session_ends_the_oldest_and_says_so(shop: Shop) -> None:
    jars = []
    for _ in range(sessions.MAX_LIVE + 1):
        jars.append(open_session(shop))
        shop.clock.advance(seconds=1)
    other = open_session(shop, "cust_b")
    assert [is_open(shop, jar) for jar in jars] == [False] + [True] * sessions.MAX_LIVE
    assert is_open(shop, other, "cust_b")
    with shop.db.read(shop.scope) as connection:
        events = audit.of_customer(connection, shop.scope, seen(shop).customer_id, ["session.revoked"], 10)
    assert [(one.actor, one.detail["reason"]) for one in events] == [("system", "more than the limit")]


def test_s15_a_flood_of_sessions_leaves_a_bounded_number_of_rows(shop: Shop) -> None:
    for _ in range(sessions.MAX_LIVE + sessions.MAX_ENDED + 15):
        open_session(shop)
    assert stored(shop) == sessions.MAX_LIVE + sessions.MAX_ENDED


def test_s15_the_list_of_live_sessions_is_those_that_open_the_record(shop: Shop) -> None:
    idle = open_session(shop)
    shop.clock.advance(minutes=29)
    mine, other = open_session(shop), open_session(shop)
    assert [one.is_this for one in listed(shop, mine)].count(True) == 1
    assert len(listed(shop)) == 3
    shop.clock.advance(minutes=2)
    assert not is_open(shop, idle)
    assert len(listed(shop)) == 2
    sessions.end(shop.db, shop.clock, seen(shop, "cust_a", other))
    (device,) = listed(shop, mine)
    assert (device.method, device.host, device.is_this) == ("access_code", shop.hosts[0], True)
    sid = next(iter(mine.values()))
    assert sid not in repr(device)
    assert hashlib.sha256(sid.encode()).hexdigest() not in repr(device)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("event", RACES)
def test_s15_what_ends_a_session_takes_it_off_the_list(shop: Shop, event: str) -> None:
    visit = seen(shop, "cust_a", open_session(shop))
    with shop.db.write(shop.scope) as connection:
        RACES[event](connection, shop, "cust_a")
    with shop.db.read(shop.scope) as connection:
        left = sessions.list_live(connection, shop.clock, visit)
    assert left == [] or event == "tenant suspended"  # nobody can ask then


def test_s15_all_sessions_of_a_record_end_at_once_and_of_no_other(shop: Shop) -> None:
    jars, other = [open_session(shop) for _ in range(3)], open_session(shop, "cust_b")
    visit = seen(shop, "cust_a", jars[0])
    assert (sessions.end_all(shop.db, shop.clock, visit), sessions.end_all(shop.db, shop.clock, visit)) == (3, 0)
    assert [is_open(shop, jar) for jar in jars] == [False] * 3
    assert is_open(shop, other, "cust_b")


def test_s15_ended_sessions_are_swept_after_a_month_and_live_ones_never(shop: Shop) -> None:
    ended, _ = open_session(shop), open_session(shop, "cust_b")
    sessions.end(shop.db, shop.clock, seen(shop, "cust_a", ended))
    shop.clock.advance(days=29)
    live = open_session(shop)
    assert sessions.sweep(shop.db, shop.clock, shop.scope) == 0
    shop.clock.advance(days=1, hours=1)
    assert sessions.sweep(shop.db, shop.clock, shop.scope) == 1  # the one that was closed; the other ran 12 hours more
    shop.clock.advance(hours=12)
    assert sessions.sweep(shop.db, shop.clock, shop.scope) == 1
    assert stored(shop) == 1
    assert not is_open(shop, live)


def test_s02_a_cookie_on_the_wrong_host_is_refused_and_logged_without_it(
    shop: Shop, keys: KeyRing, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = open_shop(shop.db, keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    other.record("cust_z", "1")
    jar = open_session(shop)
    (sid,) = jar.values()
    caplog.set_level("INFO", "shared_record.access")
    handle, foreign = shop.link("cust_a").handle, other.link("cust_z").handle
    assert handle is not None
    assert foreign is not None
    there = Here(other.hosts[0], other.scope.config, None)
    assert sessions.visit(shop.db, shop.clock, there, handle, jar, secure=False) is None
    mine = cookie_name(seen(other, "cust_z").row.link_id, secure=False)
    found = sessions.visit(shop.db, shop.clock, there, foreign, {mine: sid}, secure=False)
    assert isinstance(found, Visit)
    assert found.session is None
    second = look(shop, "cust_a", jar, host=shop.hosts[1])
    assert second == Moved(shop.hosts[0])
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == ["session.host_mismatch"] * 3
    assert not any(secret in line for line in lines for secret in (sid, handle, foreign))


def test_s05_what_is_denied_on_looking_is_logged_and_written_nowhere(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    jar = open_session(shop)
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    caplog.set_level("INFO", "shared_record.access")
    assert not is_open(shop, jar)
    said = [record.getMessage() for record in caplog.records if record.module == "sessions"]
    assert [text.partition("reason=")[2] for text in said] == ["'code rotated'"]
