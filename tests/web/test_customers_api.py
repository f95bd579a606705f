"""Customers by key and by access token."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from client import Visitor, serve
from shared_record.access import apikeys
from shared_record.db.schema import audit_event
from web.api_client import ApiClient
from world import Shop

LIST = "/api/v1/balance/customers"


def test_g14_the_list_is_paged_and_searched(shop: Shop) -> None:
    for number in range(5):
        shop.record(f"Cust_{number}", "1", "2")
    client = ApiClient(shop)
    found = client.get(LIST, page=2, limit=2)
    assert [one["customerId"] for one in found["customers"]] == ["Cust_2", "Cust_3"]
    assert found["pagination"] == {"total": 5, "page": 2, "limit": 2, "totalPages": 3}
    one = client.get(LIST, search="cUST_4")["customers"]
    assert [(row["customerId"], row["totalDeltas"]) for row in one] == [("Cust_4", 2)]
    assert one[0]["firstDeltaAt"] == one[0]["lastDeltaAt"]
    assert client.get(LIST, search="t%4")["customers"] == [], "a wildcard of SQL is a character like any other"
    assert client.get(LIST, search="ust_")["pagination"]["total"] == 5
    assert client.get(LIST, page=9)["customers"] == []


@pytest.mark.parametrize(
    "query", [{"page": "0"}, {"limit": "101"}, {"limit": "1_0"}, {"page": "-1"}, {"search": "x" * 129}, {"foo": "1"}]
)
def test_bad_queries_name_the_parameter(shop: Shop, query: dict[str, str]) -> None:
    error = ApiClient(shop).get(LIST, status=400, **query)
    assert error["details"][0]["pointer"] == f"/{next(iter(query))}"


def test_detail_balances_and_pages_of_activity(shop: Shop) -> None:
    shop.record("cust_a", "1.5", "2", "-0.5")
    shop.checkpoint()
    shop.record("cust_a", "100")
    found = ApiClient(shop).get(f"{LIST}/cust_a", deltaLimit=2)
    assert (str(found["computedBalance"]), found["recordedBalance"]) == ("3", 103)
    items = found["recentActivity"]["items"]
    assert [(one["deltaExact"], one["status"]) for one in items] == [("100", "QUEUED"), ("-0.5", "VERIFIED")]
    assert found["recentActivity"]["pagination"] == {"total": 4, "page": 1, "limit": 2, "totalPages": 2}
    assert (items[0]["verificationReference"], len(items[1]["verificationReference"])) == (None, 66)
    older = ApiClient(shop).get(f"{LIST}/cust_a", deltaLimit=3, deltaPage=2)["recentActivity"]["items"]
    assert [one["deltaExact"] for one in older] == ["1.5"]
    assert ApiClient(shop).get(f"{LIST}/cust_a", period="2020-01")["recentActivity"]["items"] == []
    assert len(found["customerReference"]) == 42


def test_counts(shop: Shop) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    shop.record("cust_b", "5")
    found = ApiClient(shop).get(f"{LIST}/summary")
    assert (found["totalCustomers"], found["totalDeltas"], found["verifiedDeltas"], found["unverifiedDeltas"]) == (
        2,
        3,
        2,
        1,
    )


def test_g02_unknown_and_foreign_customers_are_the_same(shop: Shop) -> None:
    shop.record("cust_a", "1")
    test_plane = ApiClient(shop, shop.api_key(test=True))
    assert test_plane.get(f"{LIST}/cust_a", status=404)["code"] == "CUSTOMER_NOT_FOUND"
    assert test_plane.get(LIST)["customers"] == []


# --- By access token -------------------------------------------------------------------------------------------------


def token(shop: Shop) -> str:
    with shop.db.write(shop.scope) as connection:
        return apikeys.create_token(connection, shop.clock, shop.scope, name="console", actor="test")


def create(shop: Shop, bearer: str, body: Any) -> TestResponse:
    headers = {"Authorization": f"Bearer {bearer}", "X-Api-Key": "pk_test_x.y"}
    return Visitor(serve(shop)).post("localhost/dashboard/customers", json=body, headers=headers)


def test_a_customer_is_made_with_a_link_and_an_audit_row(shop: Shop) -> None:
    body = {"displayName": "Northwind Ltd", "customerId": "cust_n", "sharingStateHint": "GATED", "unitLabel": "calls"}
    response = create(shop, token(shop), body)
    assert response.status_code == 201, response.text
    answer = response.get_json()
    assert (answer["success"], answer["statusCode"]) == (True, 201)
    data = answer["data"]
    assert (data["displayName"], data["sharingStateHint"], data["unitLabel"]) == ("Northwind Ltd", "GATED", "calls")
    assert data["customerLinkUrl"].endswith(str(shop.link("cust_n").path))
    with shop.db.read(shop.scope) as connection:
        query = select(audit_event.c.event).where(audit_event.c.tenant_id == shop.scope.plane)
        assert "customer.created" in set(connection.execute(query).scalars())
    again = create(shop, token(shop), body)
    assert (again.status_code, again.get_json()["error"]["code"]) == (409, "CUSTOMER_EXISTS")


def test_without_an_id_one_is_made_up(shop: Shop) -> None:
    first, second = (create(shop, token(shop), {"displayName": "A"}).get_json()["data"] for _ in range(2))
    assert first["customerId"] != second["customerId"]
    assert first["sharingStateHint"] == "INHERIT"


def test_one_that_came_with_its_deltas_is_a_conflict_with_guidance(shop: Shop) -> None:
    shop.record("cust_a", "1")
    error = create(shop, token(shop), {"displayName": "A", "customerId": "cust_a"}).get_json()["error"]
    assert error["code"] == "CUSTOMER_EXISTS"
    assert "first delta" in error["message"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/displayName"),
        ({"displayName": ""}, "/displayName"),
        ({"displayName": "A", "customerId": "no spaces"}, "/customerId"),
        ({"displayName": "A", "sharingStateHint": "PUBLIC"}, "/sharingStateHint"),
        ({"displayName": "A", "eventCadence": "DAILY"}, "/eventCadence"),
        ({"displayName": "A", "other": 1}, "/other"),
    ],
)
def test_mistakes_are_named(shop: Shop, body: Any, place: str) -> None:
    response = create(shop, token(shop), body)
    assert response.status_code == 400
    assert response.get_json()["error"]["details"][0]["pointer"] == place


def test_without_a_valid_token_nothing_is_made(shop: Shop) -> None:
    for bearer in ("", "srp_x.y", shop.api_key()):
        response = create(shop, bearer, {"displayName": "A"})
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
