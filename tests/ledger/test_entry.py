from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from shared_record.errors import InvalidInputError
from shared_record.ledger import entry, merkle

FIELDS: dict[str, Any] = {
    "rec": "r_0123456789abcdef",
    "period": "2026-11",
    "seq": 418,
    "unit": "call",
    "qty": "8",
    "total": "2514",
    "record_id": "rec_01",
    "rx": "2026-11-22T09:00:00.000Z",
    "salt": "0" * 32,
    "mh": "a" * 64,
}
TEXT = entry.entry_text(**FIELDS)
unicode_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
safe_integers = st.integers(-entry.MAX_INTEGER, entry.MAX_INTEGER)
json_values = st.recursive(
    st.none() | st.booleans() | safe_integers | st.floats(allow_nan=False, allow_infinity=False) | unicode_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(unicode_text, inner, max_size=4),
    max_leaves=20,
)
profile_values = st.recursive(
    st.integers(0, entry.MAX_INTEGER) | unicode_text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.from_regex(r"[a-zA-Z]{1,16}", fullmatch=True), inner)
    ),
    max_leaves=20,
)


def canonical(value: object) -> str:
    return rfc8785.dumps(value).decode()  # type: ignore[arg-type]


# --- Delta entries ---------------------------------------------------------------------------------------------------


@given(profile_values)
def test_jcs_is_rfc_8785_within_the_profile(value: object) -> None:
    assert entry.jcs(value) == canonical(value)


def test_an_entry_has_exactly_these_bytes() -> None:
    assert TEXT == (
        '{"id":"rec_01","meter":"usage","mh":"' + "a" * 64 + '","mseq":418,"period":"2026-11","qty":"8",'
        '"rec":"r_0123456789abcdef","rx":"2026-11-22T09:00:00.000Z","salt":"00000000000000000000000000000000",'
        '"seq":418,"total":"2514","typ":"sr.delta/v1","unit":"call"}'
    )
    assert entry.receipt_id(merkle.leaf_hash(TEXT.encode())) == "0x" + hashlib.sha256(b"\0" + TEXT.encode()).hexdigest()


@given(
    unicode_text.filter(bool), st.none() | st.just("2026-11-22T09:00:00.123456789+01:00"), st.none() | st.just("rec_0")
)
def test_entries_are_rfc_8785(unit: str, at: str | None, adj: str | None) -> None:
    text = entry.entry_text(**{**FIELDS, "unit": unit, "at": at, "adj": adj})
    assert text == canonical(json.loads(text))
    assert ("at" in json.loads(text), "adj" in json.loads(text)) == (at is not None, adj is not None)


def test_entry_round_trip() -> None:
    text = entry.entry_text(**FIELDS, at="2026-10-31T23:59:59Z", adj="rec_00")
    parsed = asdict(entry.parse_entry(text))
    expected = {**FIELDS, "id": "rec_01", "mseq": 418, "meter": "usage", "at": "2026-10-31T23:59:59Z", "adj": "rec_00"}
    del expected["record_id"]
    assert parsed == expected


@pytest.mark.parametrize("qty", ["1", "-1", "0.5", "-0.5", "9" * 20 + "." + "9" * 24, "10", "100.001"])
def test_canonical_quantities(qty: str) -> None:
    assert entry.parse_entry(entry.entry_text(**{**FIELDS, "qty": qty})).qty == qty


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"qty": qty}
            for qty in ("0", "-0", "1.0", "0.50", "01", "+1", "1e3", ".5", "1.", "9" * 21, "0." + "1" * 25, "")
        ),
        *({"total": total} for total in ("-0", "1.0", "9" * 31, "x", "1\n")),
        {"period": "2026-13"},
        {"period": "2026-1"},
        {"rx": "2026-11-22T09:00:00Z"},
        {"rx": "2026-11-22 09:00:00.000Z"},
        {"at": "yesterday"},
        {"salt": "0" * 31},
        {"salt": "G" * 32},
        {"mh": "A" * 64},
        {"unit": ""},
        {"unit": "a\nb"},
        {"unit": "x" * 65},
        {"record_id": "a b"},
        {"rec": ""},
        {"adj": "\x1b"},
        {"seq": 0},
    ],
)
def test_malformed_fields(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the field \w+ is"):
        entry.parse_entry(entry.entry_text(**{**FIELDS, **change}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        (TEXT + "x", "not JSON"),
        ("[" * 100_000, "entry has at most|nested too deeply"),
        ("[" * 60_000, "nested too deeply"),
        (TEXT.replace('"seq":418', '"seq":418,"seq":418'), "occurs twice"),
        (TEXT.replace('"seq":418', '"seq":418.0'), "not an integer"),
        (TEXT.replace('"seq":418', '"seq":NaN'), "not an integer"),
        (TEXT.replace('"seq":418', '"seq":-418'), "out of range"),
        (TEXT.replace('"seq":418', '"seq":9007199254740992'), "out of range"),
        (TEXT.replace('"seq":418', '"seq":' + "9" * 5000), "out of range"),
        (TEXT.replace('"seq":418', '"seq":true'), "seq is not a number"),
        (TEXT.replace('"seq":418', '"seq":"418"'), "seq is not a number"),
        (TEXT.replace('"qty":"8"', '"qty":8'), "qty is malformed"),
        (TEXT.replace('"qty":"8"', '"qty":null'), "qty is malformed"),
        (TEXT.replace('"unit":"call"', '"unit":"\\ud800"'), "unit is malformed"),
        (TEXT.replace('"id":"rec_01",', ""), "id is missing"),
        (TEXT.replace('"id"', '"extra":1,"id"'), "extra is unknown"),
        (TEXT.replace("delta/v1", "delta/v2"), "sr.delta/v1"),
        (TEXT.replace('"call"', '"' + "x" * entry.MAX_ENTRY + '"'), "at most 65535 bytes"),
    ],
)
def test_malformed_entries(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entry.parse_entry(text)


def test_an_entry_that_is_too_long_is_not_built() -> None:
    with pytest.raises(ValueError, match="at most 65535 bytes"):
        entry.entry_text(**{**FIELDS, "unit": "x" * entry.MAX_ENTRY})


def test_salt() -> None:
    expected = hashlib.sha256(b"k" * 32 + b"r_1" + b"12").hexdigest()[:32]
    assert entry.entry_salt(b"k" * 32, "r_1", 12) == expected


# --- Details and metadata --------------------------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16), st.none() | unicode_text, st.none() | unicode_text, json_values)
def test_detail_hash(salt: bytes, reason: str | None, reference: str | None, metadata: object) -> None:
    text = None if metadata is None else entry.canonical_metadata(metadata)
    body = rfc8785.dumps({"reason": reason, "referenceId": reference, "metadata": metadata})  # type: ignore[dict-item]
    assert entry.detail_hash(salt, reason, reference, text) == hashlib.sha256(salt + body).hexdigest()


def test_a_detail_that_is_not_unicode_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Unicode"):
        entry.detail_hash(bytes(16), "\ud800", None, None)


@given(json_values)
def test_metadata_is_rfc_8785(value: object) -> None:
    assert entry.canonical_metadata(value) == canonical(value)


@given(st.binary(min_size=8, max_size=8))
def test_every_double_is_written_as_ecmascript_writes_it(bits: bytes) -> None:
    (value,) = struct.unpack(">d", bits)
    if math.isfinite(value):
        assert entry.format_double(value) == canonical(value)


# RFC 8785, appendix B.
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
    ],
)
def test_rfc_8785_numbers(bits: str, text: str) -> None:
    assert entry.format_double(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


def test_keys_are_sorted_by_utf_16() -> None:
    # U+1F600 is above U+FB33, but its first UTF-16 code unit is below.
    value = {"\ufb33": 1, "\U0001f600": 2, "\r": 3, "€": 4, "1": 5, "\x80": 6, "ö": 7}
    assert entry.canonical_metadata(value) == canonical(value)
    assert list(json.loads(entry.canonical_metadata(value))) == ["\r", "1", "\x80", "ö", "€", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(("value", "text"), [("0.5", "0.5"), ("1.50", "1.5"), ("1E+2", "100"), ("1e-7", "1e-7")])
def test_decimals_that_a_double_holds(value: str, text: str) -> None:
    assert entry.canonical_metadata({"n": Decimal(value)}) == f'{{"n":{text}}}'


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": 2**53}, "/metadata/a"),
        ({"a": [1, -(2**53)]}, "/metadata/a/1"),
        ({"a/b~c": Decimal("0.1000000000000000000001")}, "/metadata/a~1b~0c"),
        ([Decimal("1e400")], "/metadata/0"),
        ([Decimal("NaN")], "/metadata/0"),
        ([math.inf], "/metadata/0"),
        ({"a": "\ud800"}, "/metadata/a"),
        ({"\ud800": 1}, "/metadata"),
        ({1: 1}, "/metadata"),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "/metadata/a"),
    ],
)
def test_metadata_without_an_exact_form(value: object, pointer: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        entry.canonical_metadata(value)
    assert [detail.pointer for detail in caught.value.details] == [pointer]


def test_metadata_depth() -> None:
    value: list[Any] = []
    for _ in range(entry.MAX_DEPTH - 1):
        value = [value]
    assert entry.canonical_metadata(value) == canonical(value)
    with pytest.raises(InvalidInputError, match="deep"):
        entry.canonical_metadata([value])


# --- Heads and epochs ------------------------------------------------------------------------------------------------

REF = "s12-0123456789abcdef"
OPEN = entry.OpenPeriod("2026-11", "r_1", b"\1" * 32, 2, (("usage", "call", 2, "3.5"),))
PREVIOUS = entry.PreviousPeriod(4, b"\2" * 32, "2026-10", b"\3" * 32, 9)


@pytest.mark.parametrize("prev", [None, PREVIOUS])
@pytest.mark.parametrize("rows", [(), (OPEN,), (OPEN, OPEN)])
def test_heads(rows: tuple[entry.OpenPeriod, ...], prev: entry.PreviousPeriod | None) -> None:
    text = entry.head_text(REF, 7, entry.head_fragment(rows, prev), "f" * 32)
    assert text == canonical(json.loads(text))
    assert entry.parse_head(text) == entry.Head(REF, 12, 7, rows, prev)


def test_a_head_has_exactly_these_bytes() -> None:
    assert entry.head_text(REF, 7, entry.head_fragment((OPEN,), None), "f" * 32) == (
        '{"cust":"s12-0123456789abcdef","epoch":7,"open":[{"period":"2026-11","rec":"r_1",'
        '"root":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","size":2,"totals":[["usage","call",2,"3.5"]]}],'
        '"prev":{},"typ":"sr.head/v1","z":"ffffffffffffffffffffffffffffffff"}'
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (REF, "s012-0123456789abcdef"),
        (REF, "12-0123456789abcdef"),
        ("f" * 32, "F" * 32),
        ('"epoch":7', '"epoch":"7"'),
        ('"prev":{}', '"prev":{"epoch":1}'),
        ('"prev":{}', '"prev":null'),
        ("[{", "[null,{"),
        ("[[", "[[],["),
        ('"usage"', "1"),
        ('"3.5"', '"3.50"'),
        ('"call",2', '"call",true'),
        ("AQE=", "AQF="),
        ("sr.head/v1", "sr.head/v2"),
        ('"open"', '"Open"'),
    ],
)
def test_malformed_heads(old: str, new: str) -> None:
    text = entry.head_text(REF, 7, entry.head_fragment((OPEN,), None), "f" * 32)
    assert old in text
    with pytest.raises(ValueError):
        entry.parse_head(text.replace(old, new))


@pytest.mark.parametrize("keys", [(), ("vkey+1", "vkey+2")])
@pytest.mark.parametrize(("number", "prev"), [(0, b""), (3, b"\4" * 32)])
def test_epochs(number: int, prev: bytes, keys: tuple[str, ...]) -> None:
    ts = datetime(2026, 11, 22, 9, tzinfo=UTC)
    text = entry.epoch_text(epoch=number, prev=prev, root=b"\5" * 32, slots=8, ts=ts, keys=keys, anchors=["aa"])
    assert text == canonical(json.loads(text))
    assert ("keys" in json.loads(text)) == bool(keys)
    parsed = entry.parse_epoch(text)
    assert parsed == entry.Epoch(number, prev, b"\5" * 32, 8, "2026-11-22T09:00:00.000Z", keys, ("aa",))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"slots":8', '"slots":6'), ('"slots":8', '"slots":0'), ("Z", ""), ('"prev":"', '"prev":"AA'), ("[]", "[1]")],
)
def test_malformed_epochs(old: str, new: str) -> None:
    ts = datetime(2026, 11, 22, 9, tzinfo=UTC)
    text = entry.epoch_text(epoch=0, prev=b"", root=b"\5" * 32, slots=8, ts=ts)
    assert old in text
    with pytest.raises(ValueError):
        entry.parse_epoch(text.replace(old, new))


def test_padding_is_no_json_and_never_the_same() -> None:
    leaf = entry.padding_leaf()
    assert len(leaf) == 33
    assert leaf[0] == 0xFF
    assert leaf != entry.padding_leaf()
