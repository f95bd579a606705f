"""What customers do is told, and a request that only reads writes nothing itself."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import event

from client import Visitor, serve, url_of
from posting import Post
from receiver import Receiver
from shared_record.delivery import occurrences as module
from shared_record.delivery.occurrences import Occurrences
from shared_record.tenancy.tenants import update_tenant


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> list[Occurrences]:
    """The buffers of applications made in the test, which write only when they are told to."""
    made: list[Occurrences] = []
    original = Occurrences.__init__

    def remember(self, *arguments) -> None:
        original(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Occurrences, "__init__", remember)
    monkeypatch.setattr(module, "FLUSH_SECONDS", 3_600.0)
    return made


def test_views_exports_and_comparisons_are_told_without_a_write_in_the_request(
    post: Post, receiver: Receiver, buffers: list[Occurrences]
) -> None:
    shop = post.shop
    post.endpoint(receiver.url, "customer.shared_record_viewed", "customer.export_downloaded", "customer.compare_run")
    shop.record("cust_a", "1")
    shop.clock.advance(days=20)
    shop.record("cust_a", "2")
    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    [buffer] = buffers
    visitor.unlock(url, shop.code("cust_a"))
    statements: list[str] = []
    event.listen(shop.db.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for _ in range(3):
        assert visitor.get(url).status_code == 200
    assert visitor.get(f"{url}.json").status_code == 200
    assert visitor.get(f"{url}/export/file?format=json&period=2026-11").status_code == 200
    assert visitor.get(f"{url}/export/file?format=json&period=2020-01").status_code == 404
    assert visitor.get(f"{url}/compare?a=2026-11&b=2026-12").status_code == 200
    assert visitor.get(f"{url}/compare?a=2026-11&b=1999-12").status_code == 400
    assert not [text for text in statements if "webhook_event" in text]
    assert buffer.flush() == 3
    assert post.send() == 3
    for name, detail in {
        "customer.shared_record_viewed": {},
        "customer.export_downloaded": {"period": "2026-11", "format": "json"},
        "customer.compare_run": {"first": "2026-11", "second": "2026-12"},
    }.items():
        [body] = receiver.events(name)
        assert body["data"] == {"customerId": "cust_a", **detail, "at": "2026-12-12T12:00:00.000Z"}
    text = b"".join(one.body for one in receiver.received).decode()
    assert url.rsplit("/", 1)[1] not in text  # no handle


def test_a_view_is_told_once_a_day_by_however_many_processes(
    post: Post, receiver: Receiver, buffers: list[Occurrences]
) -> None:
    shop = post.shop
    post.endpoint(receiver.url, "customer.shared_record_viewed")
    shop.record("cust_a", "1")
    visitors, url = [Visitor(serve(shop)) for _ in range(2)], url_of(shop, "cust_a")
    for _ in range(2):
        for visitor in visitors:
            assert visitor.get(url).status_code == 200
        assert [one.flush() for one in buffers] == [1, 1]
        assert post.send() == 1
        shop.clock.advance(days=1)


def test_a_gated_record_is_not_viewed_by_one_who_has_not_passed(
    post: Post, receiver: Receiver, buffers: list[Occurrences]
) -> None:

    shop = post.shop
    post.endpoint(receiver.url)
    post.write(update_tenant, {"policy": "GATED"})
    shop.record("cust_a", "1")
    visitor = Visitor(serve(shop))
    visitor.get(url_of(shop, "cust_a"))
    visitor.get(url_of(shop, "cust_a")[:-1] + "0")
    assert buffers[0].flush() == 0


def test_what_is_noted_is_written_by_a_thread_of_its_own(
    post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.02)
    shop = post.shop
    post.endpoint(receiver.url, "customer.export_downloaded")
    shop.record("cust_a", "1")
    buffer = Occurrences(shop.db, shop.clock)
    buffer.add(shop.scope, "customer.export_downloaded", shop.link("cust_a").customer_id, {"customerId": "cust_a"})
    limit = time.monotonic() + 60
    while not post.send() and time.monotonic() < limit:
        time.sleep(0.02)
    assert [one["data"]["customerId"] for one in receiver.events("customer.export_downloaded")] == ["cust_a"]
