"""The record behind a link as JSON, by handle and by key: one set of figures, tiers by policy, nobody else's data."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from werkzeug.test import TestResponse

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.access.apikeys import DEFAULT_SCOPES, RECORD_READ
from web.api_client import ApiClient
from world import Shop

INNER = ("periods", "periods/2026-11", "activity", "timeline", "export?format=json", "history", "disclosure")


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """Two months with a correction, the first of them closed."""
    shop.clock.set(datetime(2026, 10, 5, 9, 0, tzinfo=UTC))
    shop.record("cust_a", "1.5", "2", reason="october")
    shop.record("cust_b", "1000")
    shop.clock.set(datetime(2026, 11, 1, 0, 5, tzinfo=UTC))
    shop.close()
    shop.checkpoint()
    shop.clock.set(datetime(2026, 11, 2, 9, 0, tzinfo=UTC))
    shop.record("cust_a", "10", reference_id="job-1")
    shop.record("cust_a", "-0.25", adjusts_reference="job-1")
    return shop


def api(shop: Shop, customer: str, path: str = "") -> str:
    host, _, rest = url_of(shop, customer).partition("/")
    return f"{host}/api/v1/{rest}{'/' if path else ''}{path}"


def compare(visitor: Visitor, shop: Shop, customer: str, **headers: str) -> TestResponse:
    return visitor.post(api(shop, customer, "compare"), json={"first": "2026-10", "second": "2026-11"}, headers=headers)


def unlocked(shop: Shop, customer: str) -> Visitor:
    visitor = Visitor(serve(shop))
    assert visitor.unlock(url_of(shop, customer), shop.code(customer)).status_code == 303
    return visitor


def test_the_outer_tier_shows_the_landing_page_and_nothing_more(filled: Shop) -> None:
    visitor = Visitor(serve(filled))
    live = visitor.get(api(filled, "cust_a")).get_json()["data"]
    assert (live["period"], live["total"], live["records"]) == ("2026-11", "9.75", 2)
    assert live["verified"] == {"total": "0", "records": 0}
    assert set(live["recent"][0]) == {"recordedAt", "state", "amount"}
    assert visitor.get(api(filled, "cust_a", "live")).get_json()["data"] == live
    denied = {visitor.get(api(filled, "cust_a", path)).data for path in INNER}
    assert len(denied) == 1, "what is denied tells nothing of what is there"
    assert json.loads(denied.pop())["error"]["code"] == "STEP_UP_REQUIRED"
    assert compare(visitor, filled, "cust_a").status_code == 401


@pytest.mark.parametrize("policy", ["TWO_TIER", "GATED", "OPEN"])
def test_policy_decides_what_opens_without_a_session(filled: Shop, policy: str) -> None:
    with filled.db.write(filled.scope) as connection:
        links.set_customer_policy(connection, filled.clock, filled.scope, "cust_a", policy, "test")
    stranger = Visitor(serve(filled))
    outer = [stranger.get(api(filled, "cust_a", path)).status_code for path in ("", "live")]
    inner = [stranger.get(api(filled, "cust_a", path)).status_code for path in INNER[:-1]]
    assert set(outer) == {401 if policy == "GATED" else 200}
    assert set(inner) == {200 if policy == "OPEN" else 401}
    inside = unlocked(filled, "cust_a") if policy != "OPEN" else stranger
    assert {inside.get(api(filled, "cust_a", path)).status_code for path in ("", *INNER[:-1])} == {200}


def test_by_key_and_by_handle_the_figures_are_the_same(filled: Shop) -> None:
    client, visitor = ApiClient(filled), unlocked(filled, "cust_a")
    by_key = "/api/v1/middleware/customers/cust_a"
    for path in ("live", "periods", "periods/2026-10", "activity", "timeline"):
        seen = visitor.get(api(filled, "cust_a", path)).get_json()["data"]
        asked = client.call("GET", f"{by_key}/{path}", status=200)
        assert seen == json.loads(json.dumps(asked, default=str)), path
    assert client.get(f"{by_key}/period/2026-10") == client.get(f"{by_key}/periods/2026-10")


def test_periods_and_days_add_up(filled: Shop) -> None:
    client = ApiClient(filled)
    periods = client.get("/api/v1/middleware/customers/cust_a/periods")["periods"]
    assert [(one["period"], one["total"], one["records"], one["state"]) for one in periods] == [
        ("2026-11", "9.75", 2, "open"),
        ("2026-10", "3.5", 2, "closed"),
    ]
    october = client.get("/api/v1/middleware/customers/cust_a/periods/2026-10")
    assert october["days"] == [{"day": "2026-10-05", "total": "3.5", "records": 2}]
    assert october["receiptId"].startswith("chk_")
    by_receipt = client.get(f"/api/v1/middleware/customers/cust_a/periods/{october['receiptId']}")
    assert by_receipt["total"] == "3.5"
    assert len(october["fingerprint"]) == 9


def test_activity_pages_forth_and_back(filled: Shop) -> None:
    client, path = ApiClient(filled), "/api/v1/middleware/customers/cust_a/activity"
    first = client.get(path, limit=1)
    assert (first["count"], first["total"], [row["amount"] for row in first["records"]]) == (2, "9.75", ["-0.25"])
    second = client.get(path, limit=1, older=first["older"])
    assert [row["amount"] for row in second["records"]] == ["10"]
    assert client.get(path, limit=1, newer=second["newer"])["records"] == first["records"]
    assert client.get(path, reference="job-1")["total"] == "10"
    assert client.get(path, reference="nothing")["records"] == []
    assert client.get(path, status=400, older="x")["details"][0]["pointer"] == "/older"


def test_timeline_names_what_happened(filled: Shop) -> None:
    with filled.db.write(filled.scope) as connection:
        links.rotate_code(connection, filled.keys, filled.clock, filled.scope, "cust_a", "someone@vendor")
    facts = ApiClient(filled).get("/api/v1/middleware/customers/cust_a/timeline")["facts"]
    kinds = [fact["kind"] for fact in facts]
    assert {"period_opened", "period_closed", "correction_recorded", "receipt_issued", "access_code_replaced"} <= set(
        kinds
    )
    assert [fact["at"] for fact in facts] == sorted((fact["at"] for fact in facts), reverse=True)
    assert "someone@vendor" not in json.dumps(facts)


def test_compare_by_month_or_receipt(filled: Shop) -> None:
    client, path = ApiClient(filled), "/api/v1/middleware/customers/cust_a/compare"
    found = client.post(path, {"first": "2026-10", "second": "2026-11"}, status=200)
    assert found["difference"] == {"total": "6.25", "records": 0}
    receipt = client.get("/api/v1/middleware/customers/cust_a/periods")["periods"][1]["receiptId"]
    assert client.post(path, {"first": receipt, "second": "2026-11"}, status=200) == found
    assert client.post(path, {"first": "2026-09", "second": "2026-11"}, status=404)["code"] == "PERIOD_NOT_FOUND"
    assert unlocked(filled, "cust_a").post(api(filled, "cust_a", "compare"), json={}).status_code == 400


def test_g01_another_customers_receipt_is_no_period_of_mine(filled: Shop) -> None:
    client = ApiClient(filled)
    theirs = client.get("/api/v1/middleware/customers/cust_b/periods")["periods"][0]["receiptId"]
    assert theirs
    own = "/api/v1/middleware/customers/cust_a"
    missing = client.get(f"{own}/periods/2020-01", status=404)
    assert client.get(f"{own}/periods/{theirs}", status=404) == missing
    body = {"first": theirs, "second": "2026-11"}
    assert client.post(f"{own}/compare", body, status=404)["code"] == "PERIOD_NOT_FOUND"


def test_a_post_from_another_site_is_refused(filled: Shop) -> None:
    visitor = unlocked(filled, "cust_a")
    assert compare(visitor, filled, "cust_a").status_code == 200
    refused = compare(visitor, filled, "cust_a", Origin="https://evil.example")
    assert refused.get_json()["error"]["code"] == "FOREIGN_ORIGIN"


def test_export_by_both_ways_is_one_file(filled: Shop) -> None:
    client, visitor = ApiClient(filled), unlocked(filled, "cust_a")
    seen = visitor.get(api(filled, "cust_a", "export?format=csv&period=2026-10"))
    asked = client.visitor.get(
        "localhost/api/v1/middleware/customers/cust_a/export?format=csv&period=2026-10",
        headers={"X-Api-Key": client.key},
    )
    assert seen.status_code == asked.status_code == 200
    assert seen.data == asked.data
    assert seen.content_length == len(seen.data)
    gone = "/api/v1/middleware/customers/cust_a/export"
    assert client.get(gone, status=404, format="bundle")["code"] == "FORMAT_NOT_FOUND", "not enabled by this tenant"


def test_the_access_link_never_holds_the_code(filled: Shop) -> None:
    found = ApiClient(filled).get("/api/v1/middleware/customers/cust_a/access-link")
    link = filled.link("cust_a")
    assert found["url"].endswith(str(link.path))
    assert (found["policy"], found["ownPolicy"], found["hasAccessCode"]) == ("TWO_TIER", "INHERIT", True)
    assert filled.code("cust_a") not in json.dumps(found)


def test_record_by_vendor_account(filled: Shop) -> None:
    client = ApiClient(filled)
    with filled.db.read(filled.scope) as connection:
        from shared_record.tenancy.tenants import public_id

        own = public_id(connection, filled.scope)
    found = client.get(f"/api/v1/middleware/vendors/{own}/customers/cust_a/record")
    assert found["total"] == "9.75"
    client.get("/api/v1/middleware/vendors/t_other/customers/cust_a/record", status=404)


def test_readiness_and_bundle_by_key(filled: Shop) -> None:
    client = ApiClient(filled)
    ready = client.get("/api/v1/middleware/readiness", period="2026-10")
    assert [(one["customerId"], one["ready"]) for one in ready["customers"]] == [("cust_a", True), ("cust_b", True)]
    assert (
        client.get("/api/v1/middleware/readiness", period="2026-10", limit=1, page=2)["customers"][0]
        == (ready["customers"][1])
    )
    bundle: dict[str, Any] = client.get("/api/v1/customers/cust_a/invoice-bundle", period="2026-10")
    assert (bundle["ready"], bundle["accessCode"], bundle["total"]["amount"]) == (True, None, "3.5")
    assert client.get("/api/v1/middleware/customers/cust_a/close-package", period="2026-10") == bundle
    revealing = ApiClient(filled, filled.api_key(scopes=(*DEFAULT_SCOPES, "code:reveal")))
    shown = revealing.get("/api/v1/customers/cust_a/invoice-bundle", period="2026-10")["accessCode"]
    assert shown.replace("-", "") == filled.code("cust_a")
    narrow = ApiClient(filled, filled.api_key(scopes=(RECORD_READ,)))
    assert narrow.get("/api/v1/customers/cust_a/invoice-bundle", status=403)["code"] == "FORBIDDEN_SCOPE"
