"""Evidence (``sr.evidence/v1``): a small file that proves to anybody that a log contradicts itself. No network.

Each kind holds nothing but signed statements and the hashes that show why they cannot both be true. Whoever reads one
needs the log's key, and neither the record nor the server. One JSON object in one spelling: ``format``, ``kind``,
``origin``, ``vkeys``, then the members of its kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shared_record.ledger import amounts, entry, merkle
from shared_record.ledger.note import Checkpoint, b64decode, b64encode
from shared_record.ledger.receipt import MAX_PATH, Included
from shared_record.verifier.chain import Chain, check_chain, stated_period
from shared_record.verifier.replay import expect, typed
from shared_record.verifier.subtrees import fold_split
from shared_record.verifier.trust import (
    Difference,
    KeySource,
    Outcome,
    Run,
    choose_keys,
    conclude,
    open_checkpoint,
    parsed,
)

FORMAT = "sr.evidence/v1"
MAX_EVIDENCE = 200_000
NOT_CHECKED = "Not checked: how it came to this, and which of the two statements is the right one."

_START = b'{"format":"sr.evidence/'
_COMMON = "format kind origin vkeys"


class Statement(NamedTuple):
    """A record as a signed checkpoint states it."""

    chain: Chain
    rec: str
    period: str


# --- Writing ---------------------------------------------------------------------------------------------------------


def fork(origin: str, vkeys: Sequence[str], older: str, newer: str, hashes: Sequence[bytes]) -> str:
    """Return evidence that two checkpoints (notes) are of trees of which neither extends the other.

    ``hashes`` are the roots of ``subtrees.split_ranges`` in the newer tree; none if both are of one size.
    """
    return _write("fork", origin, vkeys, {"older": older, "newer": newer, "hashes": _texts(hashes)})


def wrong_total(origin: str, vkeys: Sequence[str], stated: Statement, entries: Sequence[Included]) -> str:
    """Return evidence from two neighbouring entries, the first one, or the last one beside what the head states."""
    return _write(
        "wrong-total", origin, vkeys, {"statement": _statement(stated), "entries": [_place(one) for one in entries]}
    )


def rewritten_delta(
    origin: str, vkeys: Sequence[str], older: tuple[Statement, Included], newer: tuple[Statement, Included]
) -> str:
    """Return evidence that one row of one record has two contents."""
    members = {
        "older": _statement(older[0]),
        "newer": _statement(newer[0]),
        "entries": [_place(older[1]), _place(newer[1])],
    }
    return _write("rewritten-delta", origin, vkeys, members)


def rewritten_record(
    origin: str, vkeys: Sequence[str], older: Statement, newer: Statement, hashes: Sequence[bytes]
) -> str:
    """Return evidence that a record does not begin with the rows it had before, or has fewer (then no ``hashes``)."""
    members = {"older": _statement(older), "newer": _statement(newer), "hashes": _texts(hashes)}
    return _write("rewritten-record", origin, vkeys, members)


def _write(kind: str, origin: str, vkeys: Sequence[str], members: Mapping[str, object]) -> str:
    return _dump({"format": FORMAT, "kind": kind, "origin": origin, "vkeys": list(vkeys), **members})


def _dump(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def _statement(stated: Statement) -> dict[str, object]:
    chain = stated.chain
    return {
        "record": stated.rec,
        "period": stated.period,
        "head": chain.head,
        "slot": [chain.slot_index, chain.slot_count, _texts(chain.slot_path)],
        "epoch": chain.epoch,
        "log": [chain.log_index, _texts(chain.log_path)],
        "checkpoint": chain.checkpoint,
    }


def _place(one: Included) -> list[object]:
    return [one.text, one.index, one.size, _texts(one.path)]


def _texts(hashes: Sequence[bytes]) -> list[str]:
    return [b64encode(one) for one in hashes]


# --- Judging ---------------------------------------------------------------------------------------------------------


def is_evidence(data: bytes) -> bool:
    """Tell whether ``data`` says that it is evidence, of any version."""
    return data.startswith(_START)


def check_evidence(data: bytes, sources: Sequence[KeySource] = ()) -> Outcome:
    """Judge evidence: it matches if it proves what its kind says. Keys as with every file; nothing raises."""

    def check(run: Run) -> None:
        run.not_checked = [NOT_CHECKED]
        fields = parsed("the evidence", _read, data)
        run.origin = fields["origin"]
        proved = parsed("the evidence", lambda given: _KINDS[given["kind"]](given, run), fields)
        run.checked.append(f"This file proves that {proved}.")

    return conclude(Run(sources), check)


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_EVIDENCE:
        raise ValueError("evidence is not that long")
    text = data.decode()
    fields = entry.parse_profile(text.removesuffix("\n"))
    if fields.get("format") != FORMAT:
        raise ValueError(f"it is of another version than {FORMAT}")
    if _dump(fields) != text:
        raise ValueError("it is not as it was written")
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError("its kind is unknown")
    expect(fields, f"{_COMMON} {_MEMBERS[kind]}", "the evidence")
    typed(fields, "origin", str)
    return fields


def _check_fork(fields: Mapping[str, Any], run: Run) -> str:
    older, newer = (_signed(typed(fields, name, str), fields, run) for name in ("older", "newer"))
    hashes = _hashes(fields, "hashes")
    if older.size == newer.size and older.root != newer.root and not hashes:
        return f"the log signed two different trees of size {newer.size}"
    if not 0 < older.size < newer.size:
        raise Difference("it does not prove a fork: the checkpoints do not contradict each other")
    old, new = fold_split(older.size, newer.size, hashes)
    if new != newer.root:
        raise Difference("it does not prove a fork: its hashes do not lead to the newer checkpoint")
    if old == older.root:
        raise Difference("it does not prove a fork: the newer checkpoint extends the older one")
    return f"the log signed size {older.size}, then a tree of size {newer.size} that does not begin with it"


def _check_wrong_total(fields: Mapping[str, Any], run: Run) -> str:
    row, _, _ = _stated(typed(fields, "statement", dict), fields, run)
    places = [_proved(one, row) for one in typed(fields, "entries", list)]
    if len(places) == 2 and places[1].index == places[0].index + 1:
        first, second = (entry.parse_entry(one.text) for one in places)
        found = amounts.add(first.total, second.qty)
        if found != second.total:
            return (
                f"the total after row {places[1].index + 1} of {row.period} is {found} {second.unit}, "
                f"and the log states {second.total}"
            )
    elif len(places) == 1:
        (place,) = places
        only = entry.parse_entry(place.text)
        if place.index == 0 and only.total != amounts.add(only.qty, "0"):
            return f"the first row of {row.period} is {only.qty} {only.unit}, and its total is stated as {only.total}"
        if place.index == row.size - 1 and row.totals != ((entry.METER, only.unit, row.size, only.total),):
            stated = ", ".join(f"{total} {unit} in {count} rows" for _, unit, count, total in row.totals)
            return (
                f"the last row of {row.period} has the total {only.total} {only.unit} in {row.size} rows, "
                f"and the head states {stated or 'none'}"
            )
    raise Difference("it does not prove a wrong total: its entries add up")


def _check_rewritten_delta(fields: Mapping[str, Any], run: Run) -> str:
    older, newer = _both(fields, run)
    first, second = (_proved(one, row) for one, row in zip(_pair(fields), (older, newer), strict=True))
    if first.index != second.index or first.text == second.text:
        raise Difference("it does not prove a rewritten delta: its entries are one, or of different rows")
    return f"row {first.index + 1} of {newer.period} had two contents under signed checkpoints"


def _check_rewritten_record(fields: Mapping[str, Any], run: Run) -> str:
    hashes = _hashes(fields, "hashes")
    (older, _, before), (newer, _, after) = (
        _stated(typed(fields, name, dict), fields, run) for name in ("older", "newer")
    )
    _check_same(fields, run)
    if not hashes and before < after and newer.size < older.size:
        return f"the record of {newer.period} had {older.size} rows in epoch {before}, {newer.size} in epoch {after}"
    if not 0 < older.size <= newer.size:
        raise Difference("it does not prove a rewritten record: the statements do not contradict each other")
    old, new = fold_split(older.size, newer.size, hashes)
    if new != newer.root:
        raise Difference("it does not prove a rewritten record: its hashes do not lead to the newer one")
    if old == older.root:
        raise Difference("it does not prove a rewritten record: the newer one begins with the older one")
    return f"the first {older.size} rows of {newer.period} had two contents under signed checkpoints"


_KINDS = {
    "fork": _check_fork,
    "wrong-total": _check_wrong_total,
    "rewritten-delta": _check_rewritten_delta,
    "rewritten-record": _check_rewritten_record,
}
_MEMBERS = {
    "fork": "older newer hashes",
    "wrong-total": "statement entries",
    "rewritten-delta": "older newer entries",
    "rewritten-record": "older newer hashes",
}


def _both(fields: Mapping[str, Any], run: Run) -> tuple[entry.OpenPeriod, entry.OpenPeriod]:
    older, newer = (_stated(typed(fields, name, dict), fields, run)[0] for name in ("older", "newer"))
    _check_same(fields, run)
    return older, newer


def _check_same(fields: Mapping[str, Any], run: Run) -> None:
    older, newer = fields["older"], fields["newer"]
    customers = {parsed("the head", entry.parse_head, one["head"]).cust for one in (older, newer)}
    if any(older[name] != newer[name] for name in ("record", "period")) or len(customers) != 1:
        raise Difference("it does not prove anything: the two statements are of different records")
    run.customer_ref = customers.pop()


def _signed(text: str, fields: Mapping[str, Any], run: Run) -> Checkpoint:
    choose_keys(fields["origin"], _strings(fields, "vkeys"), run)
    found = open_checkpoint(text, run)
    if found.origin != fields["origin"]:
        raise Difference(f"it does not prove anything: a checkpoint is of the log {found.origin}")
    return found


def _stated(given: Mapping[str, Any], fields: Mapping[str, Any], run: Run) -> tuple[entry.OpenPeriod, entry.Head, int]:
    """Prove a statement; return the row of its record, its head, and its epoch."""
    expect(given, "record period head slot epoch log checkpoint", "a statement")
    text = typed(given, "head", str)
    slot, count, slot_path = typed(given, "slot", list)
    index, path = typed(given, "log", list)
    chain = Chain(
        head=text,
        slot_index=_number(slot),
        slot_count=_number(count),
        slot_path=_decoded(slot_path),
        epoch=typed(given, "epoch", str),
        log_index=_number(index),
        log_path=_decoded(path),
        log_size=None,
        checkpoint=typed(given, "checkpoint", str),
    )
    head = parsed("the head", entry.parse_head, text)
    check_chain(head, chain, fields["origin"], _strings(fields, "vkeys"), run)
    run.customer_ref = head.cust
    row = stated_period(head, typed(given, "record", str), typed(given, "period", str))
    run.period = row.period
    return row, head, chain.log_index


def _proved(given: object, row: entry.OpenPeriod) -> Included:
    if not isinstance(given, list) or len(given) != 4 or not isinstance(given[0], str):
        raise ValueError("an entry is not [text, index, size, path]")
    place = Included(given[0], _number(given[1]), _number(given[2]), tuple(_decoded(given[3])))
    leaf = merkle.leaf_hash(place.text.encode())
    if place.size != row.size or not merkle.verify_inclusion(leaf, place.index, row.size, place.path, row.root):
        raise Difference(f"it does not prove anything: an entry is not in the record of {row.period} that is stated")
    return place


def _pair(fields: Mapping[str, Any]) -> list[object]:
    found = typed(fields, "entries", list)
    if len(found) != 2:
        raise ValueError("two entries were expected")
    return found


def _hashes(fields: Mapping[str, Any], name: str) -> list[bytes]:
    return _decoded(fields[name])


def _decoded(values: object) -> list[bytes]:
    if not isinstance(values, list) or len(values) > 2 * MAX_PATH or not all(isinstance(one, str) for one in values):
        raise ValueError("a list of hashes was expected")
    return [b64decode(one) for one in values]


def _strings(fields: Mapping[str, Any], name: str) -> list[str]:
    values = typed(fields, name, list)
    if not all(isinstance(one, str) for one in values):
        raise ValueError(f"{name} is not a list of texts")
    return values


def _number(value: object) -> int:
    if type(value) is not int:
        raise ValueError("a number was expected")
    return value
