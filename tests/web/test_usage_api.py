"""Balances from the record over HTTP: derive, compare, gaps, usage and limits, held against what they declare."""

from __future__ import annotations

import json
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from shared_record.db.schema import webhook_event
from shared_record.delivery.egress import Egress
from shared_record.delivery.webhooks import create_endpoint
from shared_record.ledger import erasure
from shared_record.tenancy.tenants import update_tenant
from web.api_client import ApiClient
from world import Shop, open_shop

DERIVE = "/api/v1/balance/derive/cust_a"
COMPARE = "/api/v1/balance/compare"


@pytest.fixture
def api(shop: Shop) -> ApiClient:
    """A client with a key of default scopes; nothing is recorded yet."""
    return ApiClient(shop)


def test_derive_counts_verified_deltas_and_tells_what_else_is_recorded(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5", "0.1", "-1.000000000000000000000001")
    shop.checkpoint()
    shop.record("cust_a", "100")
    data = api.get(DERIVE, startingBalance="2.5")
    assert data["computedBalanceExact"] == "6.599999999999999999999999"
    assert data["computedBalance"] == Decimal(data["computedBalanceExact"])
    assert data["recordedBalanceExact"] == "106.599999999999999999999999"
    assert (data["deltaCount"], data["deltasCount"], data["recordedDeltaCount"]) == (3, 3, 4)
    assert data["asOf"] == {"size": 4, "psize": 3, "checkpoint": 1}
    assert data["scope"] == {
        "period": "2026-11",
        "startDate": "2026-11-01T00:00:00.000Z",
        "endDate": "2026-12-01T00:00:00.000Z",
    }
    assert [row["deltaExact"] for row in data["deltas"]] == ["5", "0.1", "-1.000000000000000000000001"]
    assert {row["status"] for row in data["deltas"]} == {"VERIFIED"}
    assert data["deltas"][0]["verifiedAt"] == "2026-11-22T12:10:00.000Z"
    assert data["latestReceiptId"] == data["deltas"][-1]["receiptId"] == data["deltas"][-1]["itemHash"]
    assert "breakdown" not in data


def test_derive_before_the_first_checkpoint(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5")
    data = api.get(DERIVE)
    assert (data["computedBalance"], data["recordedBalance"], data["deltas"]) == (0, 5, [])
    assert (data["latestReceiptId"], data["asOf"]["checkpoint"]) == (None, None)


def test_a_page_moves_the_rows_and_not_the_balance(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", *[str(n) for n in range(1, 8)])
    shop.clock.advance(days=10)
    shop.record("cust_a", "8", "9")
    shop.checkpoint()
    both = {"startDate": "2026-11-01", "endDate": "2027-01-01"}
    seen = []
    for offset in range(0, 12, 3):
        data = api.get(DERIVE, **both, limit=3, offset=offset)
        assert (data["computedBalance"], data["pagination"]) == (45, {"limit": 3, "offset": offset, "total": 9})
        seen += [row["delta"] for row in data["deltas"]]
    assert seen == list(range(1, 10))


def test_a_derivation_goes_on_from_the_last_one(shop: Shop, api: ApiClient) -> None:
    first, *_ = shop.record("cust_a", "5", "7")
    shop.checkpoint()
    before = api.get(DERIVE, timePreset="current_month")
    shop.clock.advance(days=20)
    shop.record("cust_a", "-2")
    shop.checkpoint()
    given = {"startingBalance": before["computedBalanceExact"], "startingCheckpoint": before["latestReceiptId"]}
    data = api.get(DERIVE, **given)
    assert (data["computedBalance"], data["deltaCount"]) == (10, 1)
    assert data["scope"] == {"period": None, "startDate": "2026-11-22T12:00:00.000Z", "endDate": None}
    by_id = api.get(DERIVE, startingCheckpoint=first.record_id, startingCheckpointType="anchorId")
    assert by_id["computedBalance"] == 5
    receipt = api.post("/api/v1/balance/checkpoint", {"customerId": "cust_a", "period": "2026-11"})
    after = api.get(DERIVE, startingCheckpoint=receipt["proofRoot"][2:], startingCheckpointType="proofRoot")
    assert after["computedBalance"] == -2
    shop.record("cust_b", "1")
    for unknown in (first.record_id, first.receipt_id, receipt["proofRoot"], "rec_none"):
        error = api.get("/api/v1/balance/derive/cust_b", startingCheckpoint=unknown, status=404)
        assert error["code"] == "CHECKPOINT_NOT_FOUND"


def test_breakdowns_add_up_to_the_window(shop: Shop, api: ApiClient) -> None:
    for amount in ("1", "2", "4", "8"):
        shop.record("cust_a", amount)
        shop.clock.advance(days=4)
    shop.checkpoint()
    shop.record("cust_a", "16")
    scope = {"startDate": "2026-11-22T12:00:00.001Z", "endDate": "2027-01-01"}
    days = api.get(DERIVE, **scope, granularity="day")["breakdown"]
    assert [(one["bucket"], one["net"], one["recordedNet"]) for one in days] == [
        ("2026-11-26", 2, 2),
        ("2026-11-30", 4, 4),
        ("2026-12-04", 8, 8),
        ("2026-12-08", 0, 16),
    ]
    weeks = api.get(DERIVE, **scope, granularity="week")["breakdown"]
    assert [(one["bucket"], one["net"], one["deltaCount"]) for one in weeks] == [
        ("2026-11-23", 2, 1),
        ("2026-11-30", 12, 2),
        ("2026-12-07", 0, 0),
    ]
    months = api.get(DERIVE, **scope, granularity="month")["breakdown"]
    assert [(one["bucket"], one["net"], one["recordedDeltaCount"]) for one in months] == [
        ("2026-11", 6, 2),
        ("2026-12", 8, 2),
    ]


REFUSED = [
    ({"period": "2026-11", "timePreset": "custom"}, "INVALID_SCOPE_COMBINATION"),
    ({"startDate": "2024-01-01", "endDate": "2026-02-01"}, "SCOPE_TOO_WIDE"),
    ({"period": "2026-12"}, "VALIDATION_ERROR"),
    ({"limit": "1001"}, "VALIDATION_ERROR"),
    ({"limit": "0"}, "VALIDATION_ERROR"),
    ({"offset": "-1"}, "VALIDATION_ERROR"),
    ({"startingBalance": "1e99"}, "AMOUNT_PRECISION"),
    ({"startingBalance": "ten"}, "VALIDATION_ERROR"),
    ({"granularity": "hour"}, "VALIDATION_ERROR"),
    ({"unknown": "1"}, "VALIDATION_ERROR"),
]


def test_what_cannot_be_derived(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    for query, code in REFUSED:
        assert api.get(DERIVE, status=400, **query)["code"] == code, query


def test_a_starting_balance_may_be_written_as_clients_print_floats(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    for text in ("0", "-0.0", "100.5", "1e-07", "1E+19", "-12345678901234567890.5"):
        assert api.get(DERIVE, startingBalance=text)["startingBalance"] == Decimal(text)


def test_compare_states_facts_about_both_balances(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "0.1", "0.2")
    shop.checkpoint()
    body = {"customerId": "cust_a", "yourBalance": 0.3, "theirBalance": "0.31", "startingBalance": 0}
    data = api.post(COMPARE, body | {"granularity": "month"})
    assert (data["matchesYours"], data["matchesTheirs"], data["neutralBalanceExact"]) == (True, False, "0.3")
    assert (data["yourDifferenceExact"], data["theirDifferenceExact"], data["deltaCount"]) == ("0", "0.01", 2)
    assert data["breakdown"][0]["netExact"] == "0.3"
    shop.record("cust_a", "1")
    again = api.post(COMPARE, body | {"startingBalance": "10"})
    assert (again["neutralBalanceExact"], again["recordedBalanceExact"]) == ("10.3", "11.3")
    assert again["yourDifferenceExact"] == "-10"


def test_a_comparison_is_told_to_who_subscribes(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    body = {"customerId": "cust_a", "yourBalance": 1, "theirBalance": 1}
    api.post(COMPARE, body)
    assert events_of(shop) == []
    with shop.db.write(shop.scope) as connection:
        egress = Egress(allow=(ip_network("127.0.0.0/8"),))
        url = "http://127.0.0.1:9/hook"
        create_endpoint(connection, shop.keys, shop.clock, shop.scope, egress, url=url, wanted=["customer.compare_run"])
    api.post(COMPARE, body)
    [event] = events_of(shop)
    assert (event["customerId"], event["scope"]["period"]) == ("cust_a", "2026-11")


def events_of(shop: Shop) -> list[dict[str, Any]]:
    with shop.db.read(shop.scope) as connection:
        query = select(webhook_event.c.data).where(webhook_event.c.tenant_id == shop.scope.plane)
        return [json.loads(data) for data in connection.execute(query).scalars()]


def test_compare_names_every_mistake(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    body = {"customerId": "cust_a", "yourBalance": None, "period": "x", "startDate": "y"}
    error = api.post(COMPARE, body, status=400)
    assert {detail["pointer"] for detail in error["details"]} == {
        "/yourBalance",
        "/theirBalance",
        "/period",
        "/startDate",
    }


def test_gaps_are_told_honestly(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1", "2")
    shop.clock.advance(days=20)
    shop.record("cust_a", "3")
    path = "/api/v1/balance/gaps/cust_a"
    data = api.get(path)
    assert (data["fromSequence"], data["toSequence"], data["gaps"], data["complete"]) == ("1", "3", [], True)
    beyond = api.get(path, fromSequence=2, toSequence=10)
    assert (beyond["gaps"], beyond["gapCount"], beyond["complete"]) == ([{"from": "4", "to": "10"}], 7, False)
    assert api.get(path, fromSequence=9)["complete"] is True
    for query in ({"fromSequence": 5, "toSequence": 4}, {"fromSequence": 0}, {"limit": "no"}):
        assert api.get(path, status=400, **query)["code"] == "VALIDATION_ERROR"


def test_usage_counts_the_month_of_the_whole_plane(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1", "2")
    shop.record("cust_b", "1")
    data = api.get("/api/v1/balance/usage")
    assert (data["allowed"], data["consumedDeltas"], data["period"]) == (True, 3, "2026-11")
    assert data["remaining"] == 2**53 - 1
    shop.clock.advance(days=20)
    assert api.get("/api/v1/balance/usage")["consumedDeltas"] == 0
    test_plane = ApiClient(shop, shop.api_key(test=True))
    assert test_plane.get("/api/v1/balance/usage")["consumedDeltas"] == 0


def test_limits_are_those_that_hold(shop: Shop, api: ApiClient) -> None:
    limits = {"maxScopeMonths": 24, "maxLastNDays": 730, "maxRetentionDays": None}
    assert api.get("/api/v1/balance/limits") == limits
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"retention_days": 90})
    assert api.get("/api/v1/balance/limits") == limits | {"maxRetentionDays": 90}


def test_an_unknown_customer_is_not_found(api: ApiClient) -> None:
    for customer in ("nobody", "%ff", "é", "x" * 129):
        for path in ("derive", "gaps", "receipt", "invoice-proof"):
            assert api.get(f"/api/v1/balance/{path}/{customer}", status=404)["code"] == "CUSTOMER_NOT_FOUND"


def test_g03_another_tenants_and_an_erased_customer_are_the_same_as_none(
    shop: Shop, api: ApiClient, tmp_path: Path
) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    other.record("cust_a", "1")
    shop.record("gone", "1")
    with shop.db.write(shop.scope) as connection:
        erasure.erase_customer(connection, shop.clock, shop.scope, "gone", "test")
    answers = [api.get(f"/api/v1/balance/derive/{name}", status=404) for name in ("cust_a", "gone", "never")]
    assert answers[0] == answers[1] == answers[2]


def test_g02_reading_needs_the_scope(shop: Shop) -> None:
    shop.record("cust_a", "1")
    writer = ApiClient(shop, shop.api_key(scopes=["record:write"]))
    for path in ("usage", "limits", "derive/cust_a", "gaps/cust_a", "checkpoints", "receipt/cust_a"):
        assert writer.get(f"/api/v1/balance/{path}", status=403)["code"] == "FORBIDDEN_SCOPE"
    reader = ApiClient(shop, shop.api_key(scopes=["record:read"]))
    assert reader.post("/api/v1/balance/checkpoint", {}, status=403)["code"] == "FORBIDDEN_SCOPE"
