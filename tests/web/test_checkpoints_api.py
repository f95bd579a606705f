"""Checkpoints and receipts over HTTP: one document per window, proofs of invoices, and what each caller is shown."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import func, select

from client import url_of
from shared_record.access import links
from shared_record.db.schema import audit_event, receipt
from shared_record.ledger import merkle
from shared_record.tenancy.policies import Policy
from shared_record.web.api import checkpoints
from web.api_client import ApiClient
from world import Shop, open_shop

CHECKPOINT = "/api/v1/balance/checkpoint"


@pytest.fixture
def api(shop: Shop) -> ApiClient:
    """A client with a key of default scopes; nothing is recorded yet."""
    return ApiClient(shop)


def rows_in(shop: Shop, table, *where) -> int:
    with shop.db.read(shop.scope) as connection:
        query = select(func.count()).select_from(table).where(table.c.tenant_id == shop.scope.plane, *where)
        return int(connection.execute(query).scalar_one())


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def test_the_same_window_is_the_same_checkpoint_until_something_is_new(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5", "7.25")
    first = api.post(CHECKPOINT, {"customerId": "cust_a"})
    assert re.fullmatch("chk_[0-9a-hjkmnp-tv-z]{26}", first["checkpointId"])
    assert (first["status"], first["deltaCount"], first["deltasCount"], first["period"]) == ("QUEUED", 2, 2, "2026-11")
    assert first["proofRoot"] == first["merkleRoot"]
    assert api.post(CHECKPOINT, {"customerId": "cust_a", "period": "2026-11"}) == first
    shop.checkpoint()
    assert api.post(CHECKPOINT, {"customerId": "cust_a"}) == first | {"status": "VERIFIED"}
    shop.record("cust_a", "1")
    second = api.post(CHECKPOINT, {"customerId": "cust_a"})
    assert (second["revision"], second["deltaCount"], second["netChangeExact"]) == (2, 3, "13.25")
    assert second["checkpointId"] != first["checkpointId"]


def test_an_empty_window_has_no_document(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5")
    data = api.post(CHECKPOINT, {"customerId": "cust_a", "period": "2026-10"})
    assert (data["deltaCount"], data["proofRoot"], data["merkleRoot"], data["checkpointId"]) == (0, None, None, None)
    later = api.post(CHECKPOINT, {"customerId": "cust_a", "startDate": "2026-11-23", "endDate": "2026-11-24"})
    assert (later["startingBalanceExact"], later["finalBalanceExact"]) == ("5", "5")
    assert rows_in(shop, receipt) == 0


def test_an_empty_body_asks_for_all_active_customers(
    shop: Shop, api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cust_b", "cust_a", "cust_c"):
        shop.record(name, "1")
    shop.checkpoint()
    shop.record("cust_b", "1")
    data = api.post(CHECKPOINT, {})
    assert [one["customerId"] for one in data["checkpoints"]] == ["cust_a", "cust_b", "cust_c"]
    assert [one["status"] for one in data["checkpoints"]] == ["VERIFIED", "QUEUED", "VERIFIED"]
    assert (data["status"], data["nextCustomerId"], data["period"]) == ("QUEUED", None, "2026-11")
    assert api.post(CHECKPOINT, {"period": "2026-10"})["checkpoints"] == []
    monkeypatch.setattr(checkpoints, "CUSTOMERS_A_CALL", 2)
    part = api.post(CHECKPOINT, {})
    assert (len(part["checkpoints"]), part["nextCustomerId"]) == (2, "cust_b")
    rest = api.post(CHECKPOINT, {"afterCustomerId": "cust_b"})
    assert [part["checkpoints"] + rest["checkpoints"], rest["nextCustomerId"]] == [data["checkpoints"], None]


REFUSED = [
    ({"customerId": "nobody"}, 404, "CUSTOMER_NOT_FOUND"),
    ({"customerId": "cust_a", "afterCustomerId": "cust_a"}, 400, "VALIDATION_ERROR"),
    ({"period": "2026-11", "timePreset": "current_month"}, 400, "INVALID_SCOPE_COMBINATION"),
    ({"startDate": "2020-01-01", "endDate": "2026-01-01"}, 400, "SCOPE_TOO_WIDE"),
    ({"period": "2027-01"}, 400, "VALIDATION_ERROR"),
    ({"startingCheckpoint": "rec_1"}, 400, "VALIDATION_ERROR"),
    ({"vendorAccountId": "v"}, 400, "VALIDATION_ERROR"),
    ([], 400, "VALIDATION_ERROR"),
]


def test_what_is_no_checkpoint(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    for body, status, code in REFUSED:
        assert api.post(CHECKPOINT, body, status=status)["code"] == code, body
    assert rows_in(shop, receipt) == 0


def test_an_idempotency_key_gets_the_first_answer_again(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    first = api.post(CHECKPOINT, {"customerId": "cust_a"}, **{"Idempotency-Key": "k-1"})
    shop.record("cust_a", "1")
    shop.checkpoint()
    assert api.post(CHECKPOINT, {"customerId": "cust_a"}, **{"Idempotency-Key": "k-1"}) == first
    assert api.post(CHECKPOINT, {}, status=409, **{"Idempotency-Key": "k-1"})["code"] == "IDEMPOTENCY_CONFLICT"


def test_checkpoints_are_listed_by_customer_and_window(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    november = api.post(CHECKPOINT, {})["checkpoints"]
    shop.clock.advance(days=20)
    shop.record("cust_a", "1")
    december = api.post(CHECKPOINT, {})["checkpoints"]
    listed = api.get("/api/v1/balance/checkpoints")
    assert listed["checkpoints"][0]["checkpointId"] == december[0]["checkpointId"]
    assert listed["pagination"] == {"limit": 100, "offset": 0, "total": 3}
    of_a = api.get("/api/v1/balance/checkpoints", customerId="cust_a", limit=1, offset=1)
    assert [one["checkpointId"] for one in of_a["checkpoints"]] == [november[0]["checkpointId"]]
    assert of_a["pagination"]["total"] == 2
    in_november = api.get("/api/v1/balance/checkpoints", period="2026-11")
    assert {one["customerId"] for one in in_november["checkpoints"]} == {"cust_a", "cust_b"}
    assert api.get("/api/v1/balance/checkpoints", startDate="2025-01-01", endDate="2025-02-01")["checkpoints"] == []
    assert api.get("/api/v1/balance/checkpoints", customerId="nobody", status=404)["code"] == "CUSTOMER_NOT_FOUND"


def test_two_checkpoints_are_compared_by_what_lies_between(shop: Shop, api: ApiClient) -> None:
    path = "/api/v1/balance/checkpoints/compare"
    shop.record("cust_a", "5")
    first = api.post(CHECKPOINT, {"customerId": "cust_a"})
    late, _ = shop.record("cust_a", "2", "-0.5")
    second = api.post(CHECKPOINT, {"customerId": "cust_a"})
    asked = {"customerId": "cust_a", "from": first["checkpointId"], "to": second["proofRoot"]}
    data = api.post(path, asked, status=200)
    assert (data["netChangeExact"], data["deltaCount"], data["sameRoot"]) == ("1.5", 2, False)
    assert data["added"][0]["recordId"] == late.record_id
    assert (data["from"], data["to"]) == (first, second)
    same = {"customerId": "cust_a", "from": first["proofRoot"][2:], "to": first["checkpointId"]}
    assert api.post(path, same, status=200)["sameRoot"] is True
    swapped = {"customerId": "cust_a", "from": second["checkpointId"], "to": first["checkpointId"]}
    assert api.post(path, swapped, status=400)["details"][0]["pointer"] == "/from"
    shop.record("cust_b", "1")
    error = api.post(path, swapped | {"customerId": "cust_b"}, status=404)
    assert [detail["pointer"] for detail in error["details"]] == ["/from", "/to"]


# --- Proofs of invoices ----------------------------------------------------------------------------------------------


def test_the_proof_of_an_invoice_holds_what_is_printed(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5", "7.25")
    shop.clock.advance(days=20)
    shop.record("cust_a", "100")
    data = api.get("/api/v1/balance/invoice-proof/cust_a", period="2026-11")
    assert api.get("/api/v1/balance/receipt/cust_a", period="2026-11") == data
    link = shop.link("cust_a")
    assert data["customerLinkUrl"] == data["verifyUrl"] == f"http://{link.host}:8000{link.path}"
    assert data["customerLinkHost"] == link.host
    assert data["verificationApiUrl"] == f"http://{link.host}:8000/api/v1/verify/{data['proofRoot']}"
    assert data["verificationExplorerUrl"] == f"http://{link.host}:8000/verify/{data['proofRoot']}"
    assert (data["deltaCount"], data["startingBalanceExact"], data["finalBalanceExact"]) == (2, "0", "12.25")
    hashes = [bytes.fromhex(text[2:]) for text in data["verification"]["itemHashes"]]
    assert "0x" + merkle.root(hashes).hex() == data["proofRoot"]
    assert [(one["period"], one["netChangeExact"]) for one in data["windowSummaries"]] == [("2026-11", "12.25")]
    assert data["accessHint"] is None
    assert data["receiptId"] == api.post(CHECKPOINT, {"customerId": "cust_a", "period": "2026-11"})["checkpointId"]
    for url in (data["verificationApiUrl"], data["verificationExplorerUrl"]):
        assert api.visitor.get(url).status_code == 200
    # The current month follows on the one before.
    current = api.get("/api/v1/balance/receipt/cust_a")
    assert (current["period"], current["startingBalanceExact"], current["finalBalanceExact"]) == (
        "2026-12",
        "12.25",
        "112.25",
    )


def test_a_proof_of_nothing_has_links_and_no_document(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    data = api.get("/api/v1/balance/receipt/cust_a", period="2026-10")
    assert (data["receiptId"], data["proofRoot"], data["deltaCount"]) == (None, None, 0)
    assert (data["verificationApiUrl"], data["verificationExplorerUrl"]) == (None, None)
    assert data["customerLinkUrl"]


def test_without_a_link_people_are_sent_to_the_receipt(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")
    data = api.get("/api/v1/balance/receipt/cust_a")
    assert data["verifyUrl"].endswith(f"/receipt/{data['receiptId']}")
    assert (data["customerLinkUrl"], data["customerLinkHost"]) == (None, None)


def test_the_access_code_is_for_keys_that_may_see_it_and_each_look_is_audited(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "1")
    api.get("/api/v1/balance/receipt/cust_a")
    revealed = audit_event.c.event == "code.revealed"
    assert rows_in(shop, audit_event, revealed) == 0
    finance = ApiClient(shop, shop.api_key(scopes=["record:read", "code:reveal"]))
    assert finance.get("/api/v1/balance/receipt/cust_a")["accessHint"] == shop.code("cust_a")
    assert rows_in(shop, audit_event, revealed, audit_event.c.actor.like("key:%")) == 1


# --- Documents -------------------------------------------------------------------------------------------------------


def test_a_document_is_written_as_it_is_asked_for(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5", "7.25", "1", reason="api calls")
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})
    path = f"/api/v1/balance/receipts/{made['checkpointId']}"
    plain = api.get(path)
    assert (plain["customerId"], plain["customerDisplayName"], plain["preview"]) == ("cust_a", None, False)
    assert (plain["period"]["label"], plain["period"]["name"]) == ("2026-11", "November 2026")
    assert (plain["summary"]["recordCount"], plain["summary"]["netChangeExact"]) == (3, "13.25")
    assert plain["records"][0]["reason"] == "api calls"
    assert plain["links"]["pdf"] == f"{plain['links']['permalink']}.pdf"
    asked = api.get(
        path, customerDisplayName="true", locale="de-DE", timezone="Asia/Kolkata", unit="credits", limit=1, offset=2
    )
    assert (asked["locale"], asked["unitLabel"], asked["unit"]) == ("de-DE", "credits", "API credits")
    assert [row["time"] for row in asked["records"]] == ["2026-11-22T17:30:00.000+05:30"]
    assert asked["pagination"] == {"limit": 1, "offset": 2, "total": 3}
    for query in ({"locale": "xx-Nowhere"}, {"timezone": "Mars/Base"}, {"timezone": "../etc"}, {"unit": ""}):
        assert api.get(path, status=400, **query)["code"] == "VALIDATION_ERROR"
    shop.record("cust_a", "1")
    later = api.post(CHECKPOINT, {"customerId": "cust_a"})
    assert api.get(path)["laterReceiptId"] == later["checkpointId"]


def test_a_preview_is_the_document_without_an_id(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5")
    preview = api.get("/api/v1/balance/receipts/preview", customerId="cust_a", period="2026-11")
    assert (preview["preview"], preview["receiptId"], rows_in(shop, receipt)) == (True, None, 0)
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})
    document = api.get(f"/api/v1/balance/receipts/{made['checkpointId']}")
    differ = {name for name in document if document[name] != preview[name]}
    assert differ == {"preview", "receiptId", "links"}
    assert preview["links"]["permalink"] is None
    empty = api.get("/api/v1/balance/receipts/preview", customerId="cust_a", period="2026-10", status=404)
    assert empty["code"] == "EMPTY_WINDOW"
    missing = api.get("/api/v1/balance/receipts/preview", period="2027-10", status=400)
    assert {detail["pointer"] for detail in missing["details"]} == {"/customerId", "/period"}


def test_receipts_of_a_customer_are_an_array(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5")
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})
    [item] = api.get("/api/v1/balance/customers/cust_a/receipts", limit=25)
    assert (item["receiptId"], item["status"]) == (made["checkpointId"], "QUEUED")
    assert api.visitor.get(item["permalink"]).status_code == 200
    assert api.get("/api/v1/balance/customers/cust_a/receipts", offset=1) == []


def test_g03_documents_of_others_are_not_found(shop: Shop, api: ApiClient, tmp_path: Path) -> None:
    shop.record("cust_a", "5")
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})["checkpointId"]
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    for foreign in (ApiClient(other), ApiClient(shop, shop.api_key(test=True))):
        for receipt_id in (made, "chk_" + "0" * 26, "nothing"):
            error = foreign.get(f"/api/v1/balance/receipts/{receipt_id}", status=404)
            assert error["code"] == "RECEIPT_NOT_FOUND"
        assert foreign.get("/api/v1/balance/checkpoints")["checkpoints"] == []


# --- Public ----------------------------------------------------------------------------------------------------------


def test_the_public_document_shows_the_outer_tier(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5", "7.25", reason="secret reason")
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})
    shop.checkpoint()
    path = f"/api/v1/receipt/{made['checkpointId']}"
    stranger = api.get(path, customerDisplayName="true")
    assert (stranger["customerId"], stranger["customerDisplayName"], stranger["records"]) == (None, None, [])
    assert (stranger["state"], stranger["summary"]["netChangeExact"]) == ("verified", "12.25")
    assert stranger["recordedBy"]["id"].startswith("t_")
    assert "secret" not in str(stranger)
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.OPEN, "test")
    seen = api.get(path)
    assert (seen["customerId"], [row["reason"] for row in seen["records"]]) == ("cust_a", ["secret reason"] * 2)


def test_verify_takes_ids_and_roots(shop: Shop, api: ApiClient) -> None:
    first, _ = shop.record("cust_a", "5", "7.25")
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})
    shop.checkpoint()
    names = [made["checkpointId"], made["proofRoot"], made["proofRoot"][2:], first.receipt_id, first.receipt_id[2:]]
    for (name, count), source in product(zip(names, (2, 2, 2, 1, 1), strict=True), ("db", "chain", "both")):
        data = api.get(f"/api/v1/verify/{name}", source=source)
        assert (data["verified"], data["summary"]["recordCount"], data["records"]) == (source != "chain", count, [])
        assert data["verification"]["verificationReference"] == data["proofRoot"]
        assert api.visitor.get(data["verification"]["verificationExplorerUrl"]).status_code == 200


def test_a_root_that_two_windows_share_is_one_answer(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5")
    month = api.post(CHECKPOINT, {"customerId": "cust_a"})
    days = api.post(CHECKPOINT, {"customerId": "cust_a", "startDate": "2026-11-20", "endDate": "2026-11-23"})
    assert (month["proofRoot"], month["checkpointId"] != days["checkpointId"]) == (days["proofRoot"], True)
    assert api.get(f"/api/v1/verify/{month['proofRoot']}")["summary"]["recordCount"] == 1


def test_the_page_of_a_root_opens_by_tier(shop: Shop, api: ApiClient) -> None:
    shop.record("cust_a", "5", "7.25")
    made = api.post(CHECKPOINT, {"customerId": "cust_a"})
    page = f"{shop.hosts[0]}/verify/{made['proofRoot']}"
    assert "12.25" in api.visitor.get(page).text
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.GATED, "test")
    assert "12.25" not in api.visitor.get(page).text
    api.visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    assert "12.25" in api.visitor.get(page).text
