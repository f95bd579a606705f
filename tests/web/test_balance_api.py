"""The recording calls on both engines: what is answered, what is written, and what is refused without a trace."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from shared_record.access.apikeys import KeyUses
from shared_record.access.throttle import Throttle
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import customer, leaf
from shared_record.errors import ConflictError, NotFoundError, UnavailableError
from shared_record.keys import KeyRing
from shared_record.web.api.balance import balance
from shared_record.web.api.envelope import failure
from shared_record.web.runtime import EXTENSION
from world import Shop, open_shop

DELTA = "/api/v1/balance/delta"
GOOD = {"customerId": "c-1", "delta": -5, "reason": "api calls"}


@pytest.fixture
def shop(db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path) -> Shop:
    return open_shop(db, keys, clock, tmp_path)


@pytest.fixture
def client(shop: Shop) -> FlaskClient:
    """A client of the blueprint alone: hosts and the rest of the application have tests of their own."""
    app = Flask(__name__)
    app.extensions[EXTENSION] = SimpleNamespace(
        db=shop.db, keys=shop.keys, clock=shop.clock, throttle=Throttle(), key_uses=KeyUses()
    )
    app.register_blueprint(balance)
    app.register_error_handler(Exception, failure)
    return app.test_client()


@pytest.fixture
def key(shop: Shop) -> str:
    return shop.api_key()


def post(client: FlaskClient, key: str, body: Any, path: str = DELTA, **headers: str) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return client.post(path, data=data, content_type="application/json", headers={"X-Api-Key": key, **headers})


def written(shop: Shop, table: Any = leaf) -> int:
    with shop.db.read(shop.scope) as connection:
        query = select(func.count()).select_from(table).where(table.c.tenant_id == shop.scope.plane)
        return int(connection.execute(query).scalar_one())


def error_of(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.get_json()
    assert (body["success"], body["statusCode"], body["error"]["code"]) == (False, status, code)
    check_headers(response)
    error: dict[str, Any] = body["error"]
    return error


def check_headers(response: TestResponse) -> None:
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


# --- Emit ------------------------------------------------------------------------------------------------------------


def test_emit_and_ask(client: FlaskClient, key: str, shop: Shop) -> None:
    sent = GOOD | {
        "referenceId": "job-9",
        "metadata": {"b": 1.5, "a": "é"},
        "occurredAt": "2026-11-22T09:00:00.1234567Z",
    }
    response = post(client, key, sent)
    assert response.status_code == 201
    check_headers(response)
    body = response.get_json()
    data = body["data"]
    assert body["success"] is True
    assert data["recordId"].startswith("rec_")
    assert len(data["receiptId"]) == 66
    expected = {"status": "QUEUED", "customerId": "c-1", "delta": -5, "deltaExact": "-5", "referenceId": "job-9"}
    assert data.items() >= (expected | {"createdAt": "2026-11-22T12:00:00.000Z", "sequenceNumber": "1"}).items()
    second = post(client, key, GOOD | {"adjusts": {"referenceId": "job-9"}}).get_json()["data"]

    status = client.get(f"{DELTA}/{data['recordId']}", headers={"X-Api-Key": key})
    check_headers(status)
    known = status.get_json()["data"]
    assert known.items() >= data.items()
    assert known["metadata"] == sent["metadata"]
    assert (known["reason"], known["occurredAt"]) == (sent["reason"], sent["occurredAt"])
    assert (known["verifiedAt"], known["dataPurged"], known["proof"]["previousProofHash"]) == (None, False, None)
    later = client.get(f"{DELTA}/{second['recordId']}", headers={"X-Api-Key": key}).get_json()["data"]
    assert later["adjusts"] == {"recordId": data["recordId"]}
    assert later["proof"]["previousProofHash"] == data["receiptId"]
    assert "referenceId" not in later

    shop.checkpoint()
    verified = client.get(f"{DELTA}/{data['recordId']}", headers={"X-Api-Key": key}).get_json()["data"]
    assert verified["status"] == "VERIFIED"
    assert verified["receiptId"] == data["receiptId"]
    assert verified["verifiedAt"]


@pytest.mark.parametrize("literal", ["-5", "0.1", "12345678901234567890.123456789012345678901234", "1E+2", "-1.50"])
def test_amounts_are_exact_literals(client: FlaskClient, key: str, literal: str) -> None:
    response = post(client, key, b'{"customerId":"c-1","reason":"x","delta":%b}' % literal.encode())
    data = json.loads(response.data, parse_float=Decimal, parse_int=Decimal)["data"]
    assert data["delta"] == Decimal(literal) == Decimal(data["deltaExact"])
    status = client.get(f"{DELTA}/{data['recordId']}", headers={"X-Api-Key": key})
    assert json.loads(status.data, parse_float=Decimal, parse_int=Decimal)["data"]["delta"] == Decimal(literal)


def test_a_retry_gets_the_first_answer(client: FlaskClient, key: str, shop: Shop) -> None:
    first = post(client, key, GOOD | {"referenceId": "r-1"})
    assert "Idempotent-Replayed" not in first.headers
    shop.checkpoint()
    for again in (GOOD | {"delta": "-5.0"}, GOOD | {"metadata": None}):
        replay = post(client, key, again | {"referenceId": "r-1"})
        assert (replay.status_code, replay.data) == (201, first.data)
        assert replay.headers["Idempotent-Replayed"] == "true"
    assert written(shop) == 1


def test_a_reference_with_other_content_is_a_conflict(client: FlaskClient, key: str, shop: Shop) -> None:
    post(client, key, GOOD | {"referenceId": "r-1"})
    error = error_of(post(client, key, GOOD | {"referenceId": "r-1", "delta": -6}), 409, "REFERENCE_CONFLICT")
    assert error["details"][0]["pointer"] == "/referenceId"
    assert written(shop) == 1
    assert post(client, key, GOOD | {"referenceId": "r-1", "delta": -6, "customerId": "c-2"}).status_code == 201


def test_adjusting_what_is_not_there(client: FlaskClient, key: str, shop: Shop) -> None:
    other = post(client, key, GOOD | {"customerId": "c-2"}).get_json()["data"]["recordId"]
    for adjusts in ({"referenceId": "nope"}, {"recordId": "rec_nope"}, {"recordId": other}):
        error = error_of(post(client, key, GOOD | {"adjusts": adjusts}), 400, "ADJUSTS_NOT_FOUND")
        assert error["details"][0]["pointer"] == "/adjusts"
    assert written(shop) == 1


# --- Refused without a trace -----------------------------------------------------------------------------------------

BOMBS: list[tuple[bytes, str, str]] = [
    (b'{"delta":1,"delta":2}', "VALIDATION_ERROR", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":NaN}', "VALIDATION_ERROR", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":-Infinity}', "VALIDATION_ERROR", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":1e3000000}', "AMOUNT_PRECISION", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":1e400}', "AMOUNT_PRECISION", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":%b}' % (b"9" * 1_000_000), "AMOUNT_PRECISION", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":0}', "VALIDATION_ERROR", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":true}', "VALIDATION_ERROR", "/delta"),
    (b'{"customerId":"c-1","reason":"x","delta":1,"tenant_id":"t"}', "VALIDATION_ERROR", "/tenant_id"),
    (b'{"customerId":"c-1","reason":"x","delta":1,"vendorAccountId":"v"}', "VALIDATION_ERROR", "/vendorAccountId"),
    (b'{"customerId":"c-1","reason":"\\u0000","delta":1}', "VALIDATION_ERROR", "/reason"),
    (b'{"customerId":"c-1","reason":"\\ud800","delta":1}', "VALIDATION_ERROR", "/reason"),
    (b'{"customerId":"c-1","reason":"x","delta":1,"metadata":{"a":1e999}}', "VALIDATION_ERROR", "/metadata/a"),
    (
        b'{"customerId":"c-1","reason":"x","delta":1,"occurredAt":"2026-11-22T13:00:01Z"}',
        "VALIDATION_ERROR",
        "/occurredAt",
    ),
    (b"[" * 5_000, "VALIDATION_ERROR", ""),
    (b"", "VALIDATION_ERROR", ""),
    (b"\xff", "VALIDATION_ERROR", ""),
]


@pytest.mark.parametrize(("body", "code", "pointer"), BOMBS, ids=[body[:60].decode("latin-1") for body, _, _ in BOMBS])
def test_g09_to_g13_name_the_field_and_write_nothing(
    client: FlaskClient, key: str, shop: Shop, body: bytes, code: str, pointer: str
) -> None:
    error = error_of(post(client, key, body), 400, code)
    assert [detail["pointer"] for detail in error["details"]] == [pointer]
    assert (written(shop), written(shop, customer)) == (0, 0)


def test_g08_size_type_and_coding(client: FlaskClient, key: str, shop: Shop) -> None:
    error_of(post(client, key, b" " * (1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE")
    error_of(client.post(DELTA, data="a=1", headers={"X-Api-Key": key}), 415, "UNSUPPORTED_MEDIA_TYPE")
    error_of(client.post(DELTA, data={"a": "1"}, headers={"X-Api-Key": key}), 415, "UNSUPPORTED_MEDIA_TYPE")
    error_of(post(client, key, GOOD, **{"Content-Encoding": "gzip"}), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert written(shop, customer) == 0


# --- Batch -----------------------------------------------------------------------------------------------------------


def test_batch(client: FlaskClient, key: str, shop: Shop) -> None:
    post(client, key, GOOD | {"referenceId": "r-1"})
    items = [
        GOOD | {"referenceId": "r-1"},
        GOOD | {"customerId": "c-2", "delta": 2.5},
        GOOD | {"delta": "0"},
        GOOD | {"delta": "9" * 30},
        GOOD | {"referenceId": "r-1", "delta": 1},
        GOOD | {"adjusts": {"recordId": "rec_nope"}},
        GOOD | {"referenceId": "r-2"},
        GOOD | {"referenceId": "r-2"},
    ]
    response = post(client, key, {"deltas": items}, DELTA + "/batch")
    assert response.status_code == 201
    check_headers(response)
    data = response.get_json()["data"]
    assert (data["totalQueued"], data["totalFailed"]) == (4, 4)
    results = data["results"]
    assert [result["index"] for result in results] == list(range(8))
    assert [result["customerId"] for result in results] == [item["customerId"] for item in items]
    assert [result.get("error") for result in results] == [
        None,
        None,
        "VALIDATION_ERROR",
        "AMOUNT_PRECISION",
        "REFERENCE_CONFLICT",
        "ADJUSTS_NOT_FOUND",
        None,
        None,
    ]
    assert [result.get("idempotent") for result in results] == [True, *[None] * 6, True]
    assert results[6]["recordId"] == results[7]["recordId"]
    assert results[1]["deltaExact"] == "2.5"
    assert all(result["status"] == ("FAILED" if "error" in result else "QUEUED") for result in results)
    assert written(shop) == 3


def test_one_item_of_the_wrong_shape_refuses_the_batch(client: FlaskClient, key: str, shop: Shop) -> None:
    items = [GOOD, GOOD, GOOD, GOOD | {"delta": None}, GOOD | {"price": 1}]
    error = error_of(post(client, key, {"deltas": items}, DELTA + "/batch"), 400, "VALIDATION_ERROR")
    assert [detail["pointer"] for detail in error["details"]] == ["/deltas/3/delta", "/deltas/4/price"]
    for deltas in ([], [GOOD] * 101):
        error_of(post(client, key, {"deltas": deltas}, DELTA + "/batch"), 400, "VALIDATION_ERROR")
    assert (written(shop), written(shop, customer)) == (0, 0)


def test_a_full_batch(client: FlaskClient, key: str, shop: Shop) -> None:
    data = post(client, key, {"deltas": [GOOD] * 100}, DELTA + "/batch").get_json()["data"]
    assert (data["totalQueued"], written(shop)) == (100, 100)
    assert [result["sequenceNumber"] for result in data["results"]] == [str(n) for n in range(1, 101)]


# --- Keys, planes, addresses -----------------------------------------------------------------------------------------


def test_g01_no_key_no_answer(client: FlaskClient, key: str) -> None:
    for headers in ({}, {"X-Api-Key": ""}, {"X-Api-Key": key[:-1]}, {"Authorization": f"Bearer {key}"}):
        response = client.post(DELTA, json=GOOD, headers=headers)
        error_of(response, 401, "INVALID_API_KEY")
        assert response.headers["WWW-Authenticate"]
        error_of(client.get(f"{DELTA}/rec_1", headers=headers), 401, "INVALID_API_KEY")


def test_g02_a_key_needs_the_scope(client: FlaskClient, shop: Shop) -> None:
    reader, writer = shop.api_key(scopes=["record:read"]), shop.api_key(scopes=["record:write"])
    error_of(post(client, reader, GOOD), 403, "FORBIDDEN_SCOPE")
    error_of(post(client, reader, {"deltas": [GOOD]}, DELTA + "/batch"), 403, "FORBIDDEN_SCOPE")
    record_id = post(client, writer, GOOD).get_json()["data"]["recordId"]
    error_of(client.get(f"{DELTA}/{record_id}", headers={"X-Api-Key": writer}), 403, "FORBIDDEN_SCOPE")
    assert client.get(f"{DELTA}/{record_id}", headers={"X-Api-Key": reader}).status_code == 200


def test_g03_planes_and_tenants_do_not_see_each_other(
    client: FlaskClient, key: str, shop: Shop, tmp_path: Path
) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    record_id = post(client, key, GOOD | {"referenceId": "r-1"}).get_json()["data"]["recordId"]
    unknown = client.get(f"{DELTA}/rec_unknown", headers={"X-Api-Key": key}).data
    for foreign in (shop.api_key(test=True), other.api_key()):
        response = client.get(f"{DELTA}/{record_id}", headers={"X-Api-Key": foreign})
        error_of(response, 404, "NOT_FOUND")
        assert response.data == unknown
        fresh = post(client, foreign, GOOD | {"referenceId": "r-1", "delta": 7})
        assert fresh.get_json()["data"]["recordId"] != record_id
    assert written(shop) == 1


@pytest.mark.parametrize("record_id", ["%00", "rec_%00", "%ff", "é", "a" * 3_000, "%27%20OR%201=1", "%0a"])
def test_ids_that_cannot_exist_are_unknown(client: FlaskClient, key: str, record_id: str) -> None:
    error_of(client.get(f"{DELTA}/{record_id}", headers={"X-Api-Key": key}), 404, "NOT_FOUND")


def test_an_id_may_be_percent_encoded(client: FlaskClient, key: str) -> None:
    record_id = post(client, key, GOOD).get_json()["data"]["recordId"]
    assert client.get(f"{DELTA}/%72{record_id[1:]}/", headers={"X-Api-Key": key}).status_code == 200


def test_errors_of_addresses_are_json_and_nothing_redirects(client: FlaskClient, key: str) -> None:
    error_of(client.get("/api/v1/balance/nothing"), 404, "NOT_FOUND")
    response = client.put(DELTA, json=GOOD)
    error_of(response, 405, "METHOD_NOT_ALLOWED")
    assert "POST" in response.headers["Allow"]
    assert post(client, key, GOOD, DELTA + "/").status_code == 201
    assert post(client, key, {"deltas": [GOOD]}, DELTA + "/batch/").status_code == 201


# --- Failures of ours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (OperationalError("SELECT :x", {"x": "private"}, Exception("gone")), 503, "SERVICE_UNAVAILABLE"),
        (UnavailableError("The key ring cannot be read."), 503, "SERVICE_UNAVAILABLE"),
        (NotFoundError("No such customer.", code="CUSTOMER_NOT_FOUND"), 404, "CUSTOMER_NOT_FOUND"),
        (ConflictError("It was erased.", code="CUSTOMER_ERASED"), 409, "CUSTOMER_ERASED"),
        (ZeroDivisionError("private"), 500, "INTERNAL_ERROR"),
    ],
)
def test_failures_keep_to_the_envelope(
    client: FlaskClient,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    status: int,
    code: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("shared_record.web.api.balance.record_deltas", fail)
    with caplog.at_level(logging.DEBUG):
        response = post(client, key, GOOD)
    error = error_of(response, status, code)
    assert "private" not in response.text + caplog.text
    if status == 503:
        assert int(response.headers["Retry-After"]) == error["retryAfterSeconds"] <= 5
    if status == 500:
        assert error["requestId"] in caplog.text
        assert "in fail" in caplog.text
