"""Webhooks over the API: endpoints, deliveries and retry, through the whole application."""

from __future__ import annotations

import ipaddress

import pytest
from sqlalchemy import select

from receiver import receiving
from shared_record.db.schema import audit_event
from shared_record.delivery.deliver import Deliverer
from shared_record.delivery.egress import Egress
from shared_record.delivery.events import EVENTS, delivery_id, split_id
from shared_record.ledger.announce import expand
from web.api_client import ApiClient
from world import Shop

URL = "https://billing.acme.example/hooks"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def api(shop: Shop) -> ApiClient:
    return ApiClient(shop, egress_allow=LOOPBACK)


def test_an_endpoint_is_made_read_changed_rotated_and_removed(api: ApiClient) -> None:
    made = api.post("/api/v1/webhooks", {"url": URL, "description": "billing", "events": ["delta.verified"]})
    assert made["secret"].startswith("whsec_")
    path = f"/api/v1/webhooks/{made['id']}"
    seen = {name: value for name, value in made.items() if name != "secret"}
    assert api.get(path) == seen
    assert api.get("/api/v1/webhooks") == {"webhooks": [seen]}
    changed = api.call("PATCH", path, status=200, json={"enabled": False})
    assert (changed["enabled"], changed["active"], changed["events"]) == (False, False, ["delta.verified"])
    assert api.call("PATCH", path, status=200, json={"events": None, "enabled": True})["events"] is None
    rotated = api.post(f"{path}/rotate-secret", {}, status=200)
    assert rotated["secret"] not in (made["secret"], None)
    assert rotated["formerSecretUntil"] == "2026-11-23T12:00:00.000Z"
    assert api.post(f"{path}/rotate-secret", {"overlap": False}, status=200)["formerSecretUntil"] is None
    assert api.call("DELETE", path, status=200) == {"id": made["id"], "deleted": True}
    for method in ("GET", "DELETE"):
        assert api.call(method, path, status=404)["code"] == "NOT_FOUND"
    with api.shop.db.read(api.shop.scope) as connection:
        of = audit_event.c.tenant_id == api.shop.scope.plane
        rows = connection.execute(select(audit_event.c.event, audit_event.c.detail).where(of)).all()
    names = [row.event for row in rows if row.event.startswith("webhook.")]
    assert sorted(set(names)) == ["webhook.created", "webhook.deleted", "webhook.rotated", "webhook.updated"]
    assert all(secret not in str(rows) for secret in (made["secret"], rotated["secret"]))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"/url"}),
        ({"url": "http://169.254.169.254/latest/meta-data"}, {"/url"}),
        ({"url": "https://0x7f000001/"}, {"/url"}),
        ({"url": "https://localhost:22/"}, {"/url"}),
        ({"url": URL, "events": ["delta.lost", "delta.verified", "x"]}, {"/events/0", "/events/2"}),
        ({"url": URL, "events": []}, {"/events"}),
        ({"url": 5, "events": "delta.verified", "extra": 1}, {"/url", "/events", "/extra"}),
        ({"url": URL, "description": "a\0b"}, {"/description"}),
    ],
)
def test_w01_w03_what_cannot_be_an_endpoint_is_refused_with_its_places(shop: Shop, body, expected) -> None:
    api = ApiClient(shop)
    error = api.post("/api/v1/webhooks", body, status=400)
    assert {one["pointer"] for one in error["details"]} == expected
    assert api.get("/api/v1/webhooks") == {"webhooks": []}


def test_deliveries_are_listed_and_any_event_of_a_range_is_sent_again(api: ApiClient) -> None:
    shop = api.shop
    sender = Deliverer(shop.db, shop.keys, shop.clock, Egress(LOOPBACK), expand)
    with receiving(500) as receiver:
        made = api.post("/api/v1/webhooks", {"url": receiver.url, "events": ["delta.verified"]})
        shop.record("cust_a", "1", "2", "3")
        shop.checkpoint()
        sender.run_once()
        [failed] = api.get("/api/v1/balance/webhooks")["deliveries"]
        assert (failed["deliveryStatus"], failed["attempts"], failed["lastResponseCode"]) == ("PENDING", 1, 500)
        assert failed["webhookId"] == made["id"]
        receiver.answer = 200
        shop.clock.advance(hours=1)
        sender.run_once()
        listed = api.get("/api/v1/balance/webhooks", limit="2", offset="1")
        assert listed["pagination"] == {"limit": 2, "offset": 1, "total": 3}
        assert [one["deliveryStatus"] for one in listed["deliveries"]] == ["DELIVERED"] * 2
        assert (
            api.call("GET", "/api/v1/balance/webhooks", status=200, query_string={"status": "pending"})["deliveries"]
            == []
        )
        third = receiver.ids[-1]
        assert api.post(f"/api/v1/balance/webhooks/{third}/retry", {}, status=200) == {"eventId": third, "queued": True}
        assert sender.run_once() == 1
        assert receiver.ids[-1] == third
        [one] = api.get("/api/v1/balance/webhooks", eventId=third)["deliveries"]
        assert one["attempts"] == 2
        whole, _ = split_id(third)
        for unknown in (delivery_id(whole, 4), "evt_" + "0" * 26, "x"):
            path = f"/api/v1/balance/webhooks/{unknown}/retry"
            assert api.post(path, {}, status=404)["code"] == "NOT_FOUND"
    sender.close()


def test_a_sample_of_each_event_can_be_sent(api: ApiClient) -> None:
    shop = api.shop
    sender = Deliverer(shop.db, shop.keys, shop.clock, Egress(LOOPBACK), expand)
    with receiving() as receiver:
        made = api.post("/api/v1/webhooks", {"url": receiver.url})
        path = f"/api/v1/webhooks/{made['id']}/test"
        assert api.post(path, {}, status=201)["event"] == "delta.verified"
        for name in EVENTS:
            api.post(path, {"event": name}, status=201)
        assert api.post(path, {"event": "delta.lost"}, status=400)["details"][0]["pointer"] == "/event"
        assert sender.run_once() == len(EVENTS) + 1
        api.call("PATCH", f"/api/v1/webhooks/{made['id']}", status=200, json={"enabled": False})
        assert api.post(path, {}, status=409)["code"] == "ENDPOINT_DISABLED"
    sender.close()


def test_the_planes_have_endpoints_of_their_own_and_scopes_are_asked_for(api: ApiClient) -> None:
    made = api.post("/api/v1/webhooks", {"url": URL})
    other = ApiClient(api.shop, api.shop.api_key(test=True))
    assert other.get("/api/v1/webhooks") == {"webhooks": []}
    assert other.get(f"/api/v1/webhooks/{made['id']}", status=404)["code"] == "NOT_FOUND"
    assert other.call("DELETE", f"/api/v1/webhooks/{made['id']}", status=404)["code"] == "NOT_FOUND"
    reading = ApiClient(api.shop, api.shop.api_key(scopes=["record:read"]))
    assert reading.get("/api/v1/webhooks", status=403)["code"] == "FORBIDDEN_SCOPE"
    assert reading.get("/api/v1/balance/webhooks")["deliveries"] == []
    retry = "/api/v1/balance/webhooks/evt_x/retry"
    assert reading.post(retry, {}, status=403)["code"] == "FORBIDDEN_SCOPE"


def test_bad_queries_are_refused_with_their_places(api: ApiClient) -> None:
    error = api.call(
        "GET",
        "/api/v1/balance/webhooks",
        status=400,
        query_string={"status": "gone", "limit": "0", "offset": "-1", "other": "1"},
    )
    assert {one["pointer"] for one in error["details"]} == {"/status", "/limit", "/offset", "/other"}
