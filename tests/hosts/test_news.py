"""News of hosts on a real Valkey that is killed and comes back: it only ever shortens the wait."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from uuid import UUID

import pytest

from hosts.test_resolver import Seconds, add_hosts, add_tenant, host_row, set_role
from servers import free_port, valkey
from shared_record.db.engine import Database
from shared_record.hosts import news as module
from shared_record.hosts.news import HostNews
from shared_record.hosts.resolver import Resolver, Role

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOST = "usage.acme.example"


@pytest.fixture
def acme(db: Database) -> UUID:
    tenant_id = add_tenant(db, "acme")
    add_hosts(db, tenant_id, host_row(tenant_id, HOST, "serving", primary=True))
    return tenant_id


class Web:
    """One web process whose clock stands still: it learns of a change by news or not at all."""

    def __init__(self, db: Database, url: str) -> None:
        self.heard = threading.Event()
        self.resolver = Resolver(db, ["localhost"], Seconds(), HostNews(url))
        look_again = self.resolver.look_again

        def hear() -> None:
            look_again()
            self.heard.set()

        self.resolver.look_again = hear  # type: ignore[method-assign]
        assert self.role() is Role.SERVING

    def role(self) -> Role:
        found = self.resolver.resolve(HOST)
        assert found is not None
        return found.role

    def has_heard(self) -> bool:
        heard = self.heard.wait(20)
        self.heard.clear()
        return heard


def test_a_change_is_known_at_once_in_every_process(db: Database, acme: UUID, redis_url: str) -> None:
    processes = [Web(db, redis_url) for _ in range(3)]
    assert all(one.has_heard() for one in processes)  # that they listen now
    assert {one.role() for one in processes} == {Role.SERVING}
    set_role(db, acme, HOST, "suspended")
    assert {one.role() for one in processes} == {Role.SERVING}  # their clocks stand still
    assert HostNews(redis_url).announce()
    assert all(one.has_heard() for one in processes)
    assert {one.role() for one in processes} == {Role.SUSPENDED}


def test_a_valkey_that_was_killed_and_came_back_is_listened_to_again(
    db: Database, acme: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.05)
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with ExitStack() as first:
        first.enter_context(valkey(port=port))
        web = Web(db, url)
        assert web.has_heard()
    assert not HostNews(url).announce()
    set_role(db, acme, HOST, "suspended")
    web.resolver._monotonic.value += 1  # type: ignore[attr-defined]
    assert web.role() is Role.SUSPENDED  # within a second, as without Redis
    set_role(db, acme, HOST, "serving")
    with valkey(port=port):
        assert web.has_heard()  # on subscribing: what was said meanwhile was missed
        assert web.role() is Role.SERVING
        set_role(db, acme, HOST, "suspended")
        assert HostNews(url).announce()
        assert web.has_heard()
        assert web.role() is Role.SUSPENDED


def test_without_redis_nobody_is_told_and_nothing_is_started(db: Database, acme: UUID) -> None:
    before = threading.active_count()
    news = HostNews()
    assert not news.announce()
    news.follow(lambda: None)
    assert threading.active_count() == before


def test_one_process_listens_once(db: Database, acme: UUID, redis_url: str) -> None:
    web = Web(db, redis_url)
    assert web.has_heard()
    before = threading.active_count()
    for _ in range(20):
        web.role()
    assert threading.active_count() == before


def test_a_valkey_that_is_not_there_does_not_keep_hosts_from_being_found(db: Database, acme: UUID) -> None:
    resolver = Resolver(db, ["localhost"], Seconds(), HostNews(f"redis://127.0.0.1:{free_port()}/0"))
    assert resolver.resolve(HOST) is not None
    assert resolver.resolve("usage.other.example") is None
