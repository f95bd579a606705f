"""A landing page from memory is the page that would be made now, whatever happened since it was remembered."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import bindparam, event
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.db.schema import host, tenant
from shared_record.hosts.resolver import Role
from shared_record.ledger.erasure import erase_customer
from shared_record.tenancy.customers import rename_customer, set_language
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from shared_record.web.record import remembered
from shared_record.web.runtime import EXTENSION
from world import Shop

WHO = "cust_a"
POLICIES = ("OPEN", "TWO_TIER", "GATED")


def shown(answer: TestResponse) -> tuple[int, dict[str, str], str]:
    """Return all of an answer but the nonce, the only thing that is never the same twice."""
    fields, nonce = (
        dict(answer.headers),
        re.search("'nonce-([^']+)'", answer.headers.get("Content-Security-Policy", "")),
    )
    text = answer.text
    if nonce is not None:
        assert text.count(nonce[1]) == 1, "the page's script carries the nonce that its header names"
        text = text.replace(nonce[1], "")
        fields["Content-Security-Policy"] = fields["Content-Security-Policy"].replace(nonce[1], "")
    return answer.status_code, fields, text


class Statements:
    """Counts what reaches the driver."""

    def __init__(self, shop: Shop) -> None:
        self.seen: list[str] = []
        event.listen(shop.db.engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        if not sql.startswith(("BEGIN", "SELECT set_config", "SELECT installation")):
            self.seen.append(sql)

    def during(self, do: Callable[[], object]) -> int:
        """Return how many statements ``do`` made."""
        before = len(self.seen)
        do()
        return len(self.seen) - before


def tenant_is(**values: Any) -> Callable[[Shop], object]:
    def change(shop: Shop) -> None:
        with shop.db.write(shop.scope) as connection:
            update_tenant(connection, shop.scope, values)

    return change


def host_is(**values: Any) -> Callable[[Shop], object]:
    def change(shop: Shop) -> None:
        with shop.db.write(shop.scope) as connection:
            here = (host.c.tenant_id == bindparam("t")) & (host.c.host == bindparam("name"))
            connection.execute(
                host.update().where(here).values(values), {"t": shop.scope.config, "name": shop.hosts[0]}
            )

    return change


def tenant_suspended(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        connection.execute(
            tenant.update().where(tenant.c.tenant_id == bindparam("t")).values(state="suspended"),
            {"t": shop.scope.config},
        )


def written(do: Callable[..., object]) -> Callable[[Shop], object]:
    def change(shop: Shop) -> None:
        with shop.db.write(shop.scope) as connection:
            do(shop, connection)

    return change


def next_month(shop: Shop) -> None:
    shop.clock.advance(days=15)
    shop.record(WHO, "3")
    shop.close()
    shop.checkpoint()


CHANGES: dict[str, Callable[[Shop], object]] = {
    "a delta": lambda shop: shop.record(WHO, "1.25"),
    "a checkpoint": lambda shop: shop.checkpoint(),
    "a delta and a checkpoint": lambda shop: (shop.record(WHO, "4"), shop.checkpoint()),
    "another customer's delta": lambda shop: shop.record("cust_b", "4"),
    "a new month": next_month,
    "the minute": lambda shop: shop.clock.advance(minutes=1),
    "theme": tenant_is(theme="nocturne"),
    "name": tenant_is(name="Acme Two"),
    "contact": tenant_is(contact="https://acme.example/help"),
    "zone": tenant_is(zone="Asia/Tokyo"),
    "language": tenant_is(language="de"),
    "hidden amounts": tenant_is(hide_amounts=True),
    "policy OPEN": written(lambda shop, c: links.set_tenant_policy(c, shop.clock, shop.scope, Policy("OPEN"), "test")),
    "policy GATED": written(
        lambda shop, c: links.set_tenant_policy(c, shop.clock, shop.scope, Policy("GATED"), "test")
    ),
    "the customer's language": written(lambda shop, c: set_language(c, shop.scope, WHO, "ar")),
    "the customer's name": written(lambda shop, c: rename_customer(c, shop.scope, WHO, "Globex")),
    "link revoked": written(lambda shop, c: links.revoke_link(c, shop.keys, shop.clock, shop.scope, WHO, "test")),
    "link reissued": written(lambda shop, c: links.reissue_link(c, shop.keys, shop.clock, shop.scope, WHO, "test")),
    "code rotated": written(lambda shop, c: links.rotate_code(c, shop.keys, shop.clock, shop.scope, WHO, "test")),
    "home host": written(
        lambda shop, c: links.move_host(c, shop.keys, shop.clock, shop.scope, WHO, shop.hosts[1], "test")
    ),
    "customer erased": written(lambda shop, c: erase_customer(c, shop.clock, shop.scope, WHO, "test")),
    "host suspended": host_is(role="suspended"),
    "host is an alias": host_is(role="alias", is_primary=False),
    "host's epoch": host_is(epoch=7),
    "tenant suspended": tenant_suspended,
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
def test_p04_a_change_shows_at_once(shop: Shop, policy: str, change: str) -> None:
    """What was remembered before a change is what a new process makes after it, or it is not sent."""
    tenant_is(policy=policy)(shop)
    shop.record(WHO, "12.25", "0.75")
    shop.checkpoint()
    shop.record(WHO, "2")
    url, one = url_of(shop, WHO), Visitor(serve(shop))
    before = shown(one.get(url))
    assert before[0] == 200
    assert shown(one.get(url)) == before
    CHANGES[change](shop)
    after, expected = one.get(url), Visitor(serve(shop)).get(url)
    if expected.status_code == 421:
        # A process that has seen the host lately may not know for a second whose it is; it shows nothing either.
        assert after.status_code == 404
    else:
        assert shown(after) == shown(expected)


def test_a_page_that_stands_costs_one_query(shop: Shop) -> None:
    shop.record(WHO, "12.25")
    url, one, statements = url_of(shop, WHO), Visitor(serve(shop)), Statements(shop)
    assert statements.during(lambda: one.get(url)) > 3
    assert statements.during(lambda: one.get(url)) == 1
    shop.record(WHO, "1")
    assert statements.during(lambda: one.get(url)) > 3
    assert statements.during(lambda: one.get(url)) == 1


class Door:
    """A lock that tells of everybody who comes to it."""

    def __init__(self) -> None:
        self.lock, self.came = threading.Lock(), threading.Semaphore(0)

    def __enter__(self) -> None:
        self.came.release()
        self.lock.acquire()

    def __exit__(self, *_failure: object) -> None:
        self.lock.release()


class SharedLook:
    """One thread that looks and is held up, and others that come meanwhile."""

    def __init__(self) -> None:
        self.looks, self.door, self.go_on = remembered._Looks(), Door(), threading.Event()
        self.looks._turn = self.door  # type: ignore[assignment]
        self.threads = ThreadPoolExecutor(9)

    def first(self, outcome: bool) -> Future[bool]:
        begun = threading.Event()

        def look() -> bool:
            begun.set()
            assert self.go_on.wait(60)
            return outcome

        found = self.threads.submit(self.looks.share, look)
        assert begun.wait(60)
        self.door.came.acquire()
        return found

    def other(self, look: Callable[[], bool]) -> Future[bool]:
        found = self.threads.submit(self.looks.share, look)
        assert self.door.came.acquire(timeout=60)
        return found


@pytest.fixture
def shared() -> Iterator[SharedLook]:
    made = SharedLook()
    yield made
    made.go_on.set()
    made.threads.shutdown()


def test_s05_a_look_that_began_before_a_request_came_is_not_good_for_it(shared: SharedLook) -> None:
    first = shared.first(outcome=True)
    second = shared.other(lambda: False)
    shared.go_on.set()
    assert (first.result(60), second.result(60)) == (True, False)


def test_requests_that_wait_together_share_a_look(shared: SharedLook) -> None:
    taken: list[bool] = []
    first = shared.first(outcome=False)
    others = [shared.other(lambda: taken.append(True) or True) for _ in range(7)]
    shared.go_on.set()
    assert [one.result(60) for one in (first, *others)] == [False, *[True] * 7]
    assert len(taken) == 1


def test_a_look_that_fails_says_no_to_those_who_wait(shared: SharedLook) -> None:
    first = shared.first(outcome=True)
    second, third = (shared.other(lambda: bool(1 / 0)) for _ in range(2))
    shared.go_on.set()
    assert first.result(60)
    assert isinstance(second.exception(60), ZeroDivisionError) != isinstance(third.exception(60), ZeroDivisionError)
    assert not (third.result() if third.exception() is None else second.result())


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_but_a_plain_request_is_answered_from_memory(shop: Shop, policy: str) -> None:
    tenant_is(policy=policy)(shop)
    shop.record(WHO, "12.25")
    url, one = url_of(shop, WHO), Visitor(serve(shop))
    statements = Statements(shop)
    one.get(url)
    assert statements.during(lambda: one.get(url)) == 1
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert one.get(url, headers=elsewhere).status_code == 403
    assert one.request("HEAD", url).data == b""
    assert one.post(url).status_code == 405
    german = {"Accept-Language": "de"}
    assert shown(one.get(url, headers=german)) == shown(Visitor(serve(shop)).get(url, headers=german))
    assert shown(one.get(f"{url}?language=de")) == shown(Visitor(serve(shop)).get(f"{url}?language=de"))
    spoken = {"Cookie": "sr-language=es"}
    assert shown(one.get(url, headers=spoken)) == shown(Visitor(serve(shop)).get(url, headers=spoken))
    tag = one.get(url).headers.get("ETag")
    assert tag is None or one.get(url, headers={"If-None-Match": tag}).status_code == 304


def test_l09_a_session_is_never_remembered(shop: Shop) -> None:
    shop.record(WHO, "12.25")
    url, app = url_of(shop, WHO), serve(shop)
    opened, stranger = Visitor(app), Visitor(app)
    assert opened.unlock(url, shop.code(WHO)).status_code == 303
    assert "Open until" in opened.get(url).text
    for _ in range(2):
        assert "Open until" not in stranger.get(url).text


def test_h14_z06_a_page_belongs_to_its_host_and_to_the_address_as_typed(shop: Shop) -> None:
    """The same link on the platform's own host, or typed in capitals, is another page."""
    tenant_is(policy="OPEN")(shop)
    with shop.db.write(shop.scope) as connection:
        connection.execute(host.delete().where(host.c.tenant_id == bindparam("t")), {"t": shop.scope.config})
    shop.record(WHO, "12.25")
    app, path = serve(shop), shop.link(WHO).path
    for url in (f"localhost{path}", f"localhost{path.upper().replace('/C/', '/c/')}"):
        for _ in range(2):
            assert shown(Visitor(app).get(url)) == shown(Visitor(serve(shop)).get(url))


def test_l05_every_look_is_counted(shop: Shop) -> None:
    shop.record(WHO, "12.25")
    gate, url = serve(shop), url_of(shop, WHO)
    one, parts = Visitor(gate), gate._applications[Role.SERVING].extensions[EXTENSION]
    for _ in range(3):
        one.get(url)
    one.get(url, headers={"Accept": "*/*"})
    (count,) = parts.views._counts.values()
    assert count == 3


def test_what_is_remembered_has_an_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 2)
    for who in ("cust_a", "cust_b", "cust_c"):
        shop.record(who, "1")
    one, statements = Visitor(serve(shop)), Statements(shop)
    for who in ("cust_a", "cust_b", "cust_a", "cust_c"):
        one.get(url_of(shop, who))
    costs = {
        who: statements.during(lambda url=url_of(shop, who): one.get(url)) for who in ("cust_a", "cust_c", "cust_b")
    }
    assert (costs["cust_a"], costs["cust_c"]) == (1, 1)
    assert costs["cust_b"] > 1


def test_a_database_that_cannot_be_asked_is_said_so(shop: Shop) -> None:
    shop.record(WHO, "1")
    url, one = url_of(shop, WHO), Visitor(serve(shop))
    assert one.get(url).status_code == 200

    def gone(*_arguments: Any) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    event.listen(shop.db.engine, "before_cursor_execute", gone)
    assert one.get(url).status_code == 503
    event.remove(shop.db.engine, "before_cursor_execute", gone)
    assert one.get(url).status_code == 200
