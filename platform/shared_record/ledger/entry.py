"""The texts that are hashed: delta entries, heads and epoch records, as RFC 8785 JSON in a narrow profile. Pure.

The profile: strings, integers from 0 to 2^53-1, objects and arrays of these; no float, no null, keys ``[a-zA-Z]+``.
Within it ``orjson`` with sorted keys writes exactly RFC 8785. Texts are stored and shown verbatim; a verifier hashes
the bytes it is given and never writes them anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

import orjson

from shared_record.clock import rfc3339
from shared_record.errors import Detail, InvalidInputError
from shared_record.ledger.note import b64decode, b64encode

DELTA = "sr.delta/v1"
HEAD = "sr.head/v1"
EPOCH = "sr.epoch/v1"
METER = "usage"
MAX_ENTRY = 65_535
"""Bytes; the entry limit of C2SP tlog-tiles."""
MAX_INTEGER = 2**53 - 1

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def jcs(value: object) -> str:
    """Return RFC 8785 text of ``value``, which must be within the profile of this module."""
    return orjson.dumps(value, option=_OPTIONS).decode()


# --- Delta entries ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``sr.delta/v1`` entry. ``qty`` and ``total`` are canonical decimals, ``mh`` and ``salt`` lower-case hex."""

    rec: str
    period: str
    seq: int
    mseq: int
    meter: str
    unit: str
    qty: str
    total: str
    id: str
    rx: str
    salt: str
    mh: str
    at: str | None = None
    adj: str | None = None


def entry_text(
    *,
    rec: str,
    period: str,
    seq: int,
    unit: str,
    qty: str,
    total: str,
    record_id: str,
    rx: str,
    salt: str,
    mh: str,
    at: str | None = None,
    adj: str | None = None,
) -> str:
    """Return the text of one delta: the leaf is its UTF-8. There is one meter, so ``mseq`` equals ``seq``."""
    fields: dict[str, str | int] = {
        "id": record_id,
        "meter": METER,
        "mh": mh,
        "mseq": seq,
        "period": period,
        "qty": qty,
        "rec": rec,
        "rx": rx,
        "salt": salt,
        "seq": seq,
        "total": total,
        "typ": DELTA,
        "unit": unit,
    }
    if at is not None:
        fields["at"] = at
    if adj is not None:
        fields["adj"] = adj
    data = orjson.dumps(fields, option=_OPTIONS)
    if len(data) > MAX_ENTRY:
        raise ValueError(f"an entry has at most {MAX_ENTRY} bytes")
    return data.decode()


def entry_salt(customer_key: bytes, tree_id: str, seq: int) -> str:
    """Return the 128-bit salt of an entry in hex; without ``customer_key`` (erased) it cannot be found again."""
    return hashlib.sha256(b"%b%b%d" % (customer_key, tree_id.encode(), seq)).hexdigest()[:32]


def receipt_id(leaf_hash: bytes) -> str:
    """Return the public receipt id of a delta: its RFC 6962 leaf hash."""
    return "0x" + leaf_hash.hex()


_MOMENT = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
_DIGITS = r"(?:\.[0-9]{0,23}[1-9])?"
_IDENTIFIER = r"[A-Za-z0-9_.:-]{1,64}"
_TEXT_FIELDS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "rec": _IDENTIFIER,
        "period": r"[0-9]{4}-(?:0[1-9]|1[0-2])",
        "meter": r"[a-z][a-z0-9._-]{0,63}",
        "unit": r"[^\x00-\x1f\x7f\ud800-\udfff]{1,64}",
        "qty": r"-?(?!0\Z)(?:0|[1-9][0-9]{0,19})" + _DIGITS,
        "total": r"(?!-0\Z)-?(?:0|[1-9][0-9]{0,29})" + _DIGITS,
        "id": _IDENTIFIER,
        "rx": _MOMENT + r"\.[0-9]{3}Z",
        "at": _MOMENT + r"(?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])",
        "adj": _IDENTIFIER,
        "mh": r"[0-9a-f]{64}",
        "salt": r"[0-9a-f]{32}",
    }.items()
}
_NUMBER_FIELDS = ("seq", "mseq")
_OPTIONAL = {"at", "adj"}
_ALL_FIELDS = {"typ", *_TEXT_FIELDS, *_NUMBER_FIELDS}


def parse_entry(text: str) -> Entry:
    """Read a delta strictly; whatever is not exactly of this form is a ``ValueError`` with a plain message."""
    if len(text.encode()) > MAX_ENTRY:
        raise ValueError(f"an entry has at most {MAX_ENTRY} bytes")
    return entry_of(parse_profile(text))


def entry_of(fields: dict[str, Any]) -> Entry:
    """Turn the members of a parsed delta into an ``Entry``, as strictly as ``parse_entry``."""
    _check_type(fields, DELTA, _ALL_FIELDS, _OPTIONAL)
    for name, pattern in _TEXT_FIELDS.items():
        if name in fields and not (isinstance(fields[name], str) and pattern.fullmatch(fields[name])):
            raise ValueError(f"the field {name} is malformed")
    for name in _NUMBER_FIELDS:
        if type(fields[name]) is not int or fields[name] < 1:
            raise ValueError(f"the field {name} is not a number from 1")
    return Entry(**{name: value for name, value in fields.items() if name != "typ"})


# --- Details and metadata --------------------------------------------------------------------------------------------


def detail_hash(salt: bytes, reason: str | None, reference: str | None, metadata: str | None) -> str:
    """Return ``mh`` in hex: SHA-256 of ``salt`` and RFC 8785 ``{metadata, reason, referenceId}``, absent as null.

    ``metadata`` is text, as ``canonical_metadata`` made it or as an export holds it.
    """
    try:
        texts = (orjson.dumps(reason), orjson.dumps(reference))
    except TypeError as error:
        raise ValueError("a detail is not valid Unicode") from error
    jcs_metadata = b"null" if metadata is None else metadata.encode()
    return hashlib.sha256(b'%b{"metadata":%b,"reason":%b,"referenceId":%b}' % (salt, jcs_metadata, *texts)).hexdigest()


MAX_DEPTH = 32


def canonical_metadata(value: object, pointer: str = "/metadata") -> str:
    """Return RFC 8785 text of parsed JSON; ``InvalidInputError`` names the place of what has no exact form in it.

    Numbers are IEEE 754 doubles there, so an integer beyond 2^53-1 or a ``Decimal`` that no double holds is refused:
    send such a value as a string.
    """
    return _canonical(value, pointer, 0)


def _canonical(value: object, pointer: str, depth: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value, pointer)
    if isinstance(value, int | float | Decimal):
        return _number(value, pointer)
    if depth == MAX_DEPTH:
        raise _refused(pointer, f"Nest metadata at most {MAX_DEPTH} levels deep.")
    if isinstance(value, list | tuple):
        return f"[{','.join(_canonical(item, f'{pointer}/{i}', depth + 1) for i, item in enumerate(value))}]"
    if isinstance(value, Mapping):
        members = []
        for name, item in value.items():
            if not isinstance(name, str):
                raise _refused(pointer, "Names in metadata are strings.")
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            text = f"{_string(name, pointer)}:{_canonical(item, place, depth + 1)}"
            # RFC 8785, section 3.2.3: by UTF-16 code units, not by code points.
            members.append((name.encode("utf-16-be"), text))
        return f"{{{','.join(text for _, text in sorted(members))}}}"
    raise _refused(pointer, "This is not a JSON value.")


def _string(value: str, pointer: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise _refused(pointer, "This text is not valid Unicode.") from error


def _number(value: float | Decimal, pointer: str) -> str:
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise _refused(pointer, "An integer in metadata is at most 2^53-1; send a larger one as a string.")
        return str(value)
    double = float(value)
    if double - double != 0:
        raise _refused(pointer, "A number in metadata is finite and within the range of a double.")
    if isinstance(value, Decimal) and Decimal(repr(double)) != value:
        raise _refused(pointer, "This number has more digits than a double holds; send it as a string.")
    return format_double(double)


def format_double(value: float) -> str:
    """Return a finite double as ECMAScript writes it (RFC 8785, section 3.2.2.3)."""
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + int(exponent)
    prefix = "-" if sign else ""
    if 0 < point <= 21:
        if len(text) <= point:
            return f"{prefix}{text.ljust(point, '0')}"
        return f"{prefix}{text[:point]}.{text[point:]}"
    if -6 < point <= 0:
        return f"{prefix}0.{'0' * -point}{text}"
    fraction = f".{text[1:]}" if len(text) > 1 else ""
    return f"{prefix}{text[0]}{fraction}e{point - 1:+d}"


def _refused(pointer: str, message: str) -> InvalidInputError:
    return InvalidInputError(message, details=(Detail(pointer, "VALIDATION_ERROR", message),))


# --- Heads -----------------------------------------------------------------------------------------------------------

_REF = re.compile(r"s(0|[1-9][0-9]{0,9})-[0-9a-f]{16}", re.ASCII)


class OpenPeriod(NamedTuple):
    """One period of a customer as a head states it: ``totals`` holds (meter, unit, count, total) per meter."""

    period: str
    rec: str
    root: bytes
    size: int
    totals: tuple[tuple[str, str, int, str], ...]


@dataclass(frozen=True, slots=True)
class PreviousPeriod:
    """The final head of the period before: its epoch and leaf hash, and the period's final root and size."""

    epoch: int
    leaf: bytes
    period: str
    root: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """One parsed ``sr.head/v1``; ``slot`` is the one that ``cust`` names."""

    cust: str
    slot: int
    epoch: int
    open: tuple[OpenPeriod, ...]
    prev: PreviousPeriod | None


def slot_of(customer_ref: str) -> int:
    """Return the slot that a customer reference ``s<slot>-<16 hex>`` names; else ``ValueError``."""
    match = _REF.fullmatch(customer_ref)
    if match is None:
        raise ValueError("a customer reference is s<slot>-<16 hex digits>")
    return int(match[1])


def head_fragment(open_periods: Sequence[OpenPeriod], prev: PreviousPeriod | None) -> str:
    """Return the middle of a head, which stays the same until the customer's data changes."""
    before: dict[str, str | int] = {}
    if prev is not None:
        before = {
            "epoch": prev.epoch,
            "leaf": b64encode(prev.leaf),
            "period": prev.period,
            "root": b64encode(prev.root),
            "size": prev.size,
        }
    return _open_text(open_periods) + "," + jcs({"prev": before, "typ": HEAD})[1:-1]


def replace_open(fragment: str, open_periods: Sequence[OpenPeriod]) -> str:
    """Return ``fragment`` with other open periods; what it says of the period before them stays."""
    return _open_text(open_periods) + fragment[fragment.index(_PREV) :]


_PREV = ',"prev":'
"""Never within a text of the fragment, where a quotation mark has a backslash before it."""


def _open_text(open_periods: Sequence[OpenPeriod]) -> str:
    # All but ``totals``, which have the unit's name, is plain ASCII that needs no escaping.
    rows = [
        f'{{"period":"{period}","rec":"{rec}","root":"{b64encode(root)}","size":{size},"totals":{jcs(totals)}}}'
        for period, rec, root, size, totals in open_periods
    ]
    return f'"open":[{",".join(rows)}]'


def head_text(customer_ref: str, epoch: int, fragment: str, z: str) -> str:
    """Return the head of one customer: a leaf of the slot tree. ``z`` is the blinding value, 32 hex digits."""
    return f'{{"cust":"{customer_ref}","epoch":{epoch},{fragment},"z":"{z}"}}'


def parse_head(text: str) -> Head:
    """Read a head strictly; else ``ValueError``."""
    fields = parse_profile(text)
    _check_type(fields, HEAD, {"cust", "epoch", "open", "prev", "typ", "z"})
    cust = _text(fields, "cust")
    if not re.fullmatch(r"[0-9a-f]{32}", _text(fields, "z")):
        raise ValueError("the field z is malformed")
    if not isinstance(fields["open"], list):
        raise ValueError("the field open is malformed")
    rows = tuple(_open_period(row) for row in fields["open"])
    prev = None if fields["prev"] == {} else _previous_period(fields["prev"])
    return Head(cust, slot_of(cust), _count(fields, "epoch"), rows, prev)


def _open_period(row: object) -> OpenPeriod:
    fields = _object(row, {"period", "rec", "root", "size", "totals"})
    totals = fields["totals"]
    if not isinstance(totals, list):
        raise ValueError("the field totals is malformed")
    return OpenPeriod(
        _text(fields, "period"),
        _text(fields, "rec"),
        _hash(fields, "root"),
        _count(fields, "size"),
        tuple(_meter_total(total) for total in totals),
    )


def _meter_total(value: object) -> tuple[str, str, int, str]:
    match value:
        case [str(meter), str(unit), int(count), str(total)] if not isinstance(count, bool) and _TEXT_FIELDS[
            "total"
        ].fullmatch(total):
            return meter, unit, count, total
    raise ValueError("the field totals is malformed")


def _previous_period(value: object) -> PreviousPeriod:
    fields = _object(value, {"epoch", "leaf", "period", "root", "size"})
    return PreviousPeriod(
        _count(fields, "epoch"),
        _hash(fields, "leaf"),
        _text(fields, "period"),
        _hash(fields, "root"),
        _count(fields, "size"),
    )


# --- Epoch records ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Epoch:
    """One parsed ``sr.epoch/v1``: leaf ``epoch`` of the tenant log.

    ``former``, in the first epoch of a new origin, is the body of the last checkpoint of the one before.
    """

    epoch: int
    prev: bytes
    root: bytes
    slots: int
    ts: str
    keys: tuple[str, ...]
    anchors: tuple[str, ...]
    former: str | None = None


def epoch_text(
    *,
    epoch: int,
    prev: bytes,
    root: bytes,
    slots: int,
    ts: datetime,
    keys: Iterable[str] = (),
    anchors: Iterable[str] = (),
    former: str | None = None,
) -> str:
    """Return an epoch record. ``prev`` is the leaf hash of the one before (empty for epoch 0), ``keys`` new vkeys."""
    fields: dict[str, object] = {
        "anchors": list(anchors),
        "epoch": epoch,
        "prev": b64encode(prev),
        "root": b64encode(root),
        "slots": slots,
        "ts": rfc3339(ts),
        "typ": EPOCH,
    }
    vkeys = list(keys)
    if vkeys:
        fields["keys"] = vkeys
    if former is not None:
        fields["former"] = former
    return jcs(fields)


def parse_epoch(text: str) -> Epoch:
    """Read an epoch record strictly; else ``ValueError``."""
    fields = parse_profile(text)
    names = {"anchors", "epoch", "former", "keys", "prev", "root", "slots", "ts", "typ"}
    _check_type(fields, EPOCH, names, {"former", "keys"})
    epoch, slots, ts = _count(fields, "epoch"), _count(fields, "slots"), _text(fields, "ts")
    if slots < 1 or slots & (slots - 1):
        raise ValueError("the number of slots is a power of two")
    if not _TEXT_FIELDS["rx"].fullmatch(ts):
        raise ValueError("the field ts is malformed")
    prev = b"" if epoch == 0 and fields["prev"] == "" else _hash(fields, "prev")
    keys, anchors = _texts(fields.get("keys", [])), _texts(fields["anchors"])
    former = _text(fields, "former") if "former" in fields else None
    if former is not None and epoch:
        raise ValueError("only the first epoch of an origin names a former one")
    return Epoch(epoch, prev, _hash(fields, "root"), slots, ts, keys, anchors, former)


def padding_leaf() -> bytes:
    """Return a leaf for a slot that no customer has: it starts with 0xFF, so it can never be JSON."""
    return b"\xff" + os.urandom(32)


# --- Strict reading --------------------------------------------------------------------------------------------------


def parse_profile(text: str) -> dict[str, Any]:
    """Read one JSON object in which no key occurs twice and every number is within the profile; else ``ValueError``."""
    try:
        value = PROFILE_DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("the text is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError("the text is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("the text is not a JSON object")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object (a ``json`` hook); a key that occurs twice is a ``ValueError``."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 16 else -1
    if not 0 <= value <= MAX_INTEGER or text == "-0":
        raise ValueError("an integer is out of range")
    return value


PROFILE_DECODER = json.JSONDecoder(
    object_pairs_hook=unique_keys, parse_float=_no_number, parse_int=_integer, parse_constant=_no_number
)
"""Reads JSON of this profile: ``ValueError`` for a key that occurs twice or a number that is not within it."""


def _check_keys(fields: Mapping[str, Any], allowed: set[str], optional: set[str]) -> None:
    if unknown := fields.keys() - allowed:
        raise ValueError(f"the field {min(unknown)[:40]} is unknown")
    if missing := allowed - optional - fields.keys():
        raise ValueError(f"the field {min(missing)} is missing")


def _check_type(fields: Mapping[str, Any], typ: str, allowed: set[str], optional: Iterable[str] = ()) -> None:
    if fields.get("typ") != typ:
        raise ValueError(f"the type of the text is not {typ}")
    _check_keys(fields, allowed, set(optional))


def _object(value: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object was expected")
    _check_keys(value, keys, set())
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise ValueError(f"the field {name} is not text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of texts was expected")
    return tuple(value)


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields[name]
    if type(value) is not int:
        raise ValueError(f"the field {name} is not a number")
    return value


def _hash(fields: Mapping[str, Any], name: str) -> bytes:
    value = b64decode(_text(fields, name))
    if len(value) != 32:
        raise ValueError(f"the field {name} is not a hash")
    return value
