"""What a delta may say: every mistake named at once, by pointer; and the documents that answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.errors import InvalidInputError
from shared_record.ledger.intake import Accepted, Delta, Rejected
from shared_record.ledger.records import DeltaStatus
from shared_record.web.api import models
from shared_record.web.api.json_body import Number, parse_json
from shared_record.web.api.models import Unrecordable, read_batch, read_emit

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GOOD = {"customerId": "acme", "delta": Number("-5"), "reason": "api calls"}


def emit(**changes: Any) -> Delta:
    return read_emit({key: value for key, value in (GOOD | changes).items() if value is not ...}, NOW)


def mistakes(**changes: Any) -> tuple[str, list[tuple[str, str]]]:
    with pytest.raises(InvalidInputError) as caught:
        emit(**changes)
    return caught.value.code, [(detail.pointer, detail.code) for detail in caught.value.details]


def test_a_whole_delta() -> None:
    body = b"""{"customerId": "a.B:c_9-", "delta": -1.50, "reason": "usage_summary", "referenceId": "job-9",
               "metadata": {"b": [1.0, 2e3, -0], "a": "\\u00e9"}, "adjusts": {"referenceId": "job-8"},
               "occurredAt": "2026-11-22T10:00:00.1234567+01:00"}"""
    assert read_emit(parse_json(body), NOW) == Delta(
        customer_id="a.B:c_9-",
        amount="-1.5",
        reason="usage_summary",
        reference_id="job-9",
        metadata='{"a":"é","b":[1,2000,0]}',
        occurred_at="2026-11-22T09:00:00.1234567Z",
        adjusts_reference="job-8",
    )


def test_null_is_absent() -> None:
    assert emit(referenceId=None, metadata=None, occurredAt=None, adjusts=None) == emit()
    assert emit(adjusts={"recordId": "rec_1", "referenceId": None}).adjusts_record == "rec_1"


# --- Shape -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"customerId": ...}, "/customerId"),
        ({"customerId": ""}, "/customerId"),
        ({"customerId": "a b"}, "/customerId"),
        ({"customerId": "a\n"}, "/customerId"),
        ({"customerId": "ä"}, "/customerId"),
        ({"customerId": "a" * 129}, "/customerId"),
        ({"customerId": Number("7")}, "/customerId"),
        ({"delta": ...}, "/delta"),
        ({"delta": None}, "/delta"),
        ({"delta": True}, "/delta"),
        ({"delta": [Number("1")]}, "/delta"),
        ({"delta": "1e3"}, "/delta"),
        ({"delta": " 1"}, "/delta"),
        ({"delta": "NaN"}, "/delta"),
        ({"delta": Number("0.00")}, "/delta"),
        ({"delta": "-0"}, "/delta"),
        ({"reason": ...}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"reason": Number("1")}, "/reason"),
        ({"reason": "é" * 501}, "/reason"),
        ({"referenceId": ""}, "/referenceId"),
        ({"referenceId": "r" * 256}, "/referenceId"),
        ({"metadata": "text"}, "/metadata"),
        ({"metadata": []}, "/metadata"),
        ({"metadata": {"a": {"b/c": Number("9007199254740992")}}}, "/metadata/a/b~1c"),
        ({"metadata": {"a": Number("1e400")}}, "/metadata/a"),
        ({"metadata": {"a": [Number("0.1000000000000000055511151231257827")]}}, "/metadata/a/0"),
        ({"metadata": {"a": Number("9" * 1_000_000)}}, "/metadata/a"),
        ({"metadata": {"a": "x" * models.MAX_METADATA}}, "/metadata"),
        ({"adjusts": {}}, "/adjusts"),
        ({"adjusts": {"recordId": "r", "referenceId": "r"}}, "/adjusts"),
        ({"adjusts": {"recordId": "r", "amount": Number("1")}}, "/adjusts/amount"),
        ({"adjusts": "rec_1"}, "/adjusts"),
        ({"tenantId": "t"}, "/tenantId"),
        ({"vendorAccountId": "v"}, "/vendorAccountId"),
        ({"a/b": "v"}, "/a~1b"),
    ],
)
def test_each_mistake_is_named(changes: dict[str, Any], pointer: str) -> None:
    code, found = mistakes(**changes)
    assert code == "VALIDATION_ERROR"
    assert found == [(pointer, "VALIDATION_ERROR")]


@pytest.mark.parametrize("document", [None, [], "text", Number("1"), True])
def test_a_body_is_an_object(document: object) -> None:
    for read in (read_emit, read_batch):
        with pytest.raises(InvalidInputError) as caught:
            read(document, NOW)
        assert [(detail.pointer, detail.message) for detail in caught.value.details] == [("", "This is a JSON object.")]


def test_all_mistakes_at_once() -> None:
    code, found = mistakes(customerId="", reason=..., delta=Number("1e30"), metadata={"a": Number("1e999")}, extra="x")
    assert code == "VALIDATION_ERROR"
    assert {pointer for pointer, _ in found} == {"/customerId", "/reason", "/delta", "/metadata/a", "/extra"}
    assert ("/delta", "AMOUNT_PRECISION") in found


def test_vendor_account_id_is_explained() -> None:
    with pytest.raises(InvalidInputError, match="vendorAccountId belongs to middleware tenants"):
        emit(vendorAccountId="v")


def test_limits_are_inclusive() -> None:
    assert emit(customerId="a" * 128, reason="é" * 500, referenceId="r" * 255)
    metadata = {"a": "x" * (models.MAX_METADATA - len('{"a":""}'))}
    assert emit(metadata=metadata).metadata == json.dumps(metadata, separators=(",", ":"))


@pytest.mark.parametrize("amount", ["1" * 21, "0." + "0" * 24 + "1", "1e20", "1e-25", "1e3000000", "9" * 1_000_000])
def test_g11_too_many_digits(amount: str) -> None:
    assert mistakes(delta=Number(amount)) == ("AMOUNT_PRECISION", [("/delta", "AMOUNT_PRECISION")])
    if "e" not in amount:
        assert mistakes(delta=amount) == ("AMOUNT_PRECISION", [("/delta", "AMOUNT_PRECISION")])


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=20))
def test_amounts_are_exact_in_and_out(value: Decimal) -> None:
    if not value:
        return
    for delta in (Number(f"{value:f}"), f"{value:f}", Number(f"{value:e}")):
        amount = emit(delta=delta).amount
        assert Decimal(amount) == value
        written = orjson.dumps(models.exact("delta", amount))
        assert json.loads(written, parse_float=Decimal, parse_int=Decimal) == {"delta": value, "deltaExact": amount}


# --- Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z"),
        ("2026-11-22t12:00:00.000z", "2026-11-22T12:00:00Z"),
        ("2026-11-22T12:00:00.120000000Z", "2026-11-22T12:00:00.12Z"),
        ("2026-11-22T12:00:00.123456789-00:30", "2026-11-22T12:30:00.123456789Z"),
        ("2026-11-23T02:59:59+14:00", "2026-11-22T12:59:59Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:60Z"),
        ("2017-01-01T00:59:60.5+01:00", "2016-12-31T23:59:60.5Z"),
        ("2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z"),
    ],
)
def test_times_are_kept_in_utc(sent: str, kept: str) -> None:
    assert emit(occurredAt=sent).occurred_at == kept


@pytest.mark.parametrize(
    "sent",
    [
        "2026-11-22T12:00:00",
        "2026-11-22 12:00:00Z",
        "2026-11-22",
        "20261122T120000Z",
        "2026-11-22T12:00Z",
        "2026-11-22T12:00:00,5Z",
        "2026-11-22T12:00:00.Z",
        "2026-11-22T12:00:00.1234567890Z",
        "2026-02-30T12:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T12:00:60Z",
        "2026-11-22T12:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "２026-11-22T12:00:00Z",
        "2026-11-22T13:00:01Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-01:00",
        "2026-11-22T12:00:00Z\n",
        Number("1795348800"),
    ],
)
def test_g13_other_times_are_refused(sent: object) -> None:
    assert mistakes(occurredAt=sent) == ("VALIDATION_ERROR", [("/occurredAt", "VALIDATION_ERROR")])


@given(st.datetimes(timezones=st.timezones(), allow_imaginary=False))
def test_any_moment_that_has_passed_is_kept(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is None or offset % timedelta(minutes=1) or moment.year in (1, 9999) or moment > NOW:
        return
    kept = emit(occurredAt=moment.isoformat()).occurred_at
    assert kept is not None
    assert datetime.fromisoformat(kept) == moment.astimezone(UTC)


# --- Batches ---------------------------------------------------------------------------------------------------------


def test_the_shape_of_one_item_refuses_the_batch() -> None:
    items = [GOOD, GOOD | {"delta": None, "x": None}, GOOD, GOOD | {"delta": "abc", "metadata": {"a": Number("1e999")}}]
    with pytest.raises(InvalidInputError) as caught:
        read_batch({"deltas": items}, NOW)
    assert [detail.pointer for detail in caught.value.details] == [
        "/deltas/1/delta",
        "/deltas/1/x",
        "/deltas/3/delta",
        "/deltas/3/metadata/a",
    ]


@pytest.mark.parametrize("document", [{}, {"deltas": None}, {"deltas": []}, {"deltas": [GOOD] * 101}, {"deltas": GOOD}])
def test_a_batch_has_1_to_100_items(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_batch(document, NOW)
    assert [detail.pointer for detail in caught.value.details] == ["/deltas"]
    assert len(read_batch({"deltas": [GOOD] * 100}, NOW)) == 100


def test_an_amount_that_cannot_be_recorded_fails_its_item_alone() -> None:
    zero, long = GOOD | {"delta": "0.0"}, GOOD | {"delta": Number("1e3000000")}
    items = read_batch({"deltas": [GOOD, zero, long, GOOD | {"referenceId": "r"}, GOOD]}, NOW)
    assert [isinstance(item, Unrecordable) for item in items] == [False, True, True, False, False]
    first = Accepted("rec_1", "0x01", "acme", "-5", None, NOW, 1, replayed=False)
    outcomes = [first, Rejected("REFERENCE_CONFLICT", "Other content.", "referenceId"), first]
    answer = orjson.loads(orjson.dumps(models.batch_answer(items, outcomes)))
    assert (answer["totalQueued"], answer["totalFailed"]) == (2, 3)
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3, 4]
    assert [result.get("error") for result in answer["results"]] == [
        None,
        "VALIDATION_ERROR",
        "AMOUNT_PRECISION",
        "REFERENCE_CONFLICT",
        None,
    ]
    assert answer["results"][2]["pointer"] == "/deltas/2/delta"
    assert "delta" not in answer["results"][2]
    conflict = answer["results"][3]
    assert (conflict["status"], conflict["delta"], conflict["deltaExact"]) == ("FAILED", -5, "-5")


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_the_answer_to_a_replay_is_the_first_answer() -> None:
    first = Accepted("rec_1", "0xab", "acme", "-0.10", "r", NOW, 7, replayed=False)
    again = Accepted("rec_1", "0xab", "acme", "-0.10", "r", NOW, 7, replayed=True)
    assert orjson.dumps(models.emitted(first)) == orjson.dumps(models.emitted(again))
    assert b'"delta":-0.10,"deltaExact":"-0.10"' in orjson.dumps(models.emitted(first))


def make_status(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "record_id": "rec_2",
        "receipt_id": "0xab",
        "customer_id": "acme",
        "amount": "12345678901234567890.5",
        "state": "verified",
        "reason": "api calls",
        "reference_id": None,
        "metadata": '{"a":1.5}',
        "adjusts": "rec_1",
        "occurred_at": "2026-11-22T09:00:00.1234567Z",
        "created_at": NOW,
        "verified_at": NOW,
        "sequence": 12,
        "previous_hash": "0xcd",
        "epoch": 3,
        "purged": False,
    }
    answer: dict[str, Any] = orjson.loads(orjson.dumps(models.status_answer(DeltaStatus(**(fields | changes)))))
    return answer


def test_the_status_of_a_delta() -> None:
    answer = make_status()
    assert answer["proof"] == {
        "contentHash": "0xab",
        "itemHash": "0xab",
        "proofHash": "0xab",
        "previousProofHash": "0xcd",
        "itemHashes": ["0xab"],
    }
    assert (answer["metadata"], answer["adjusts"], answer["sequenceNumber"]) == (
        {"a": 1.5},
        {"recordId": "rec_1"},
        "12",
    )
    assert "referenceId" not in answer
    assert answer["deltaExact"] == "12345678901234567890.5"
    assert [make_status(state=state)["status"] for state in ("recording", "recorded", "verified")] == [
        "QUEUED",
        "PROCESSING",
        "VERIFIED",
    ]


def test_a_purged_delta_says_so() -> None:
    answer = make_status(reason=None, metadata=None, purged=True, verified_at=None)
    assert (answer["dataPurged"], answer["verifiedAt"]) == (True, None)
    assert not {"reason", "metadata", "referenceId"} & answer.keys()
