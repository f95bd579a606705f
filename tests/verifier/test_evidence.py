from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from shared_record.ledger.receipt import Included, build_receipt
from shared_record.verifier import evidence
from shared_record.verifier.evidence import Statement, check_evidence
from shared_record.verifier.files import check_file
from shared_record.verifier.subtrees import from_leaves, included_from, split_ranges
from shared_record.verifier.totals import find_wrong_total
from shared_record.verifier.trust import Outcome, Result
from verifier.history import History, rows_of
from verifier.test_bundle import write
from verifier.test_checks import ORIGIN, OTHER_VKEY, PERIOD, TREE, TRUSTED, VKEY, Log
from verifier.test_receipts import receipt_of


def stated(log: Log) -> Statement:
    assert log.facts.proof
    proof = log.facts.proof
    chain = evidence.Chain(
        proof.head,
        proof.slot_index,
        proof.slot_count,
        proof.slot_path,
        proof.epoch,
        proof.log_index,
        proof.log_path,
        None,
        proof.checkpoint,
    )
    return Statement(chain, TREE, PERIOD)


def places(log: Log, *indexes: int) -> list[Included]:
    return included_from(lambda: (row.entry for row in log.rows), indexes, len(log.rows))


def history_of_a_fork() -> tuple[str, str, list[bytes]]:
    one, other = History().idle(3), History().idle(2)
    older = one.checkpoint()
    other.state(rows_of(("1",)))
    other.idle(4)
    hashes = from_leaves(lambda: other.leaves)(split_ranges(3, 7))
    assert hashes
    return older, other.checkpoint(), hashes


HISTORY = History()
OLDER = HISTORY.state(rows_of(("5", "1", "2", "3")))
NEWER = HISTORY.state(rows_of(("5", "1", "7", "3", "8")))
WRONG_SUM = HISTORY.state(rows_of(("5", "1", "2", "3"), ("5", "6", "9", "12")))
WRONG_START = HISTORY.state(rows_of(("5", "1"), ("6", "7")))
WRONG_HEAD = HISTORY.state(rows_of(("5", "1", "2")), total_stated="9")
SPLIT = from_leaves(lambda: (bytes.fromhex(row.receipt_id[2:]) for row in NEWER.rows))(split_ranges(4, 5))
assert SPLIT

EVIDENCE = {
    "fork": evidence.fork(ORIGIN, [VKEY], *history_of_a_fork()),
    "wrong sum": evidence.wrong_total(ORIGIN, [VKEY], stated(WRONG_SUM), places(WRONG_SUM, 1, 2)),
    "wrong start": evidence.wrong_total(ORIGIN, [VKEY], stated(WRONG_START), places(WRONG_START, 0)),
    "wrong head": evidence.wrong_total(ORIGIN, [VKEY], stated(WRONG_HEAD), places(WRONG_HEAD, 2)),
    "rewritten delta": evidence.rewritten_delta(
        ORIGIN, [VKEY], (stated(OLDER), places(OLDER, 2)[0]), (stated(NEWER), places(NEWER, 2)[0])
    ),
    "rewritten record": evidence.rewritten_record(ORIGIN, [VKEY], stated(OLDER), stated(NEWER), SPLIT),
    "shrunk record": evidence.rewritten_record(ORIGIN, [VKEY], stated(NEWER), stated(WRONG_HEAD), ()),
}
PROVED = {
    "fork": "the log signed size 3, then a tree of size 7 that does not begin with it",
    "wrong sum": "the total after row 3 of 2026-11 is 8 call, and the log states 9",
    "wrong start": "the first row of 2026-11 is 5 call, and its total is stated as 6",
    "wrong head": "the last row of 2026-11 has the total 8 call in 3 rows, and the head states 9 call in 3 rows",
    "rewritten delta": "row 3 of 2026-11 had two contents under signed checkpoints",
    "rewritten record": "the first 4 rows of 2026-11 had two contents under signed checkpoints",
    "shrunk record": "the record of 2026-11 had 5 rows in epoch 1, 3 in epoch 4",
}


def judge(text: str, sources: Any = TRUSTED) -> Outcome:
    return check_evidence(text.encode(), sources)


@pytest.mark.parametrize("name", EVIDENCE)
def test_each_kind_proves_what_it_says(name: str) -> None:
    outcome = check_file(io.BytesIO(EVIDENCE[name].encode()), TRUSTED)
    assert (outcome.reason, outcome.result) == (None, Result.MATCHES)
    assert outcome.checked[-1] == f"This file proves that {PROVED[name]}."
    assert outcome.origin == ORIGIN
    assert len(EVIDENCE[name]) < 20_000


@pytest.mark.parametrize("name", EVIDENCE)
def test_every_changed_byte_of_evidence_is_refused(name: str) -> None:
    data = EVIDENCE[name].encode()
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        outcome = check_evidence(changed, TRUSTED)
        assert outcome.result is not Result.MATCHES, position
        assert outcome.reason


@pytest.mark.parametrize("name", EVIDENCE)
def test_cut_evidence_and_missing_members_are_refused(name: str) -> None:
    text = EVIDENCE[name]
    for length in range(0, len(text), 97):
        assert judge(text[:length]).result is Result.UNKNOWN
    fields = json.loads(text)
    for member in fields:
        for wrong in (
            {k: v for k, v in fields.items() if k != member},
            {**fields, member: [1]},
            {**fields, member: {}},
        ):
            assert judge(json.dumps(wrong, separators=(",", ":")) + "\n").result is not Result.MATCHES


def test_evidence_needs_the_key_of_the_log() -> None:
    outcome = judge(EVIDENCE["fork"], [])
    assert (outcome.result, outcome.key_from_file, outcome.vkeys) == (Result.MATCHES, True, (VKEY,))
    assert judge(EVIDENCE["fork"], [("a", {ORIGIN: [OTHER_VKEY]})]).result is Result.DIFFERS
    assert judge(EVIDENCE["fork"].replace(VKEY, OTHER_VKEY), []).result is Result.DIFFERS


def test_an_honest_log_gives_no_evidence() -> None:
    history = History()
    older = history.state(rows_of(("5", "1", "2", "3")))
    newer = history.state(rows_of(("5", "1", "2", "3", "8")))
    leaves = [bytes.fromhex(row.receipt_id[2:]) for row in newer.rows]
    hashes, log = (
        from_leaves(lambda: leaves)(split_ranges(4, 5)),
        from_leaves(lambda: history.leaves)(split_ranges(1, 2)),
    )
    assert hashes
    assert log
    first, second = older.facts.proof, newer.facts.proof
    assert first
    assert second
    claims = [
        evidence.fork(ORIGIN, [VKEY], first.checkpoint, second.checkpoint, log),
        evidence.fork(ORIGIN, [VKEY], first.checkpoint, first.checkpoint, ()),
        evidence.fork(ORIGIN, [VKEY], second.checkpoint, first.checkpoint, log),
        evidence.wrong_total(ORIGIN, [VKEY], stated(newer), places(newer, 1, 2)),
        evidence.wrong_total(ORIGIN, [VKEY], stated(newer), places(newer, 0)),
        evidence.wrong_total(ORIGIN, [VKEY], stated(newer), places(newer, 4)),
        evidence.wrong_total(ORIGIN, [VKEY], stated(newer), places(newer, 2)),
        evidence.wrong_total(ORIGIN, [VKEY], stated(newer), places(newer, 0, 2)),
        evidence.wrong_total(ORIGIN, [VKEY], stated(newer), ()),
        evidence.rewritten_delta(
            ORIGIN, [VKEY], (stated(older), places(older, 2)[0]), (stated(newer), places(newer, 2)[0])
        ),
        evidence.rewritten_delta(
            ORIGIN, [VKEY], (stated(older), places(older, 2)[0]), (stated(newer), places(newer, 3)[0])
        ),
        evidence.rewritten_record(ORIGIN, [VKEY], stated(older), stated(newer), hashes),
        evidence.rewritten_record(ORIGIN, [VKEY], stated(newer), stated(older), ()),
    ]
    for claim in claims:
        outcome = judge(claim)
        assert outcome.result is Result.DIFFERS
        assert outcome.reason is not None
        assert outcome.reason.startswith("it does not prove ")


# --- Finding a wrong total in a file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "name"), [(WRONG_SUM, "wrong sum"), (WRONG_START, "wrong start"), (WRONG_HEAD, "wrong head")]
)
def test_a_wrong_total_is_found_in_a_file_that_differs(log: Log, name: str) -> None:
    for data in (write(log)[0], log.export()):
        assert check_file(io.BytesIO(data), TRUSTED).result is Result.DIFFERS
        found = find_wrong_total(io.BytesIO(data), TRUSTED)
        assert found
        assert judge(found).checked[-1] == f"This file proves that {PROVED[name]}."


def test_a_wrong_total_is_found_in_receipts() -> None:
    head = build_receipt(receipt_of(WRONG_HEAD, 0, 3)).encode()
    neighbours = build_receipt(receipt_of(WRONG_SUM, 2, 3)).encode()
    for data, name in ((head, "wrong head"), (neighbours, "wrong sum")):
        found = find_wrong_total(io.BytesIO(data), TRUSTED)
        assert found
        assert judge(found).checked[-1] == f"This file proves that {PROVED[name]}."


def test_a_file_that_somebody_changed_gives_no_evidence() -> None:
    good = HISTORY.fork().state(rows_of(("5", "1", "2")))
    changed = replace(good, rows=rows_of(("5", "1", "2"), ("5", "6", "9")))
    for data in (good.export(), changed.export(), b"", b"PK", b"{}", write(changed)[0], b"c2sp.org/tlog-proof@v1\n"):
        assert find_wrong_total(io.BytesIO(data), TRUSTED) is None


def test_evidence_of_a_wrong_total_stays_small() -> None:
    totals = [str(n + (n > 4000)) for n in range(1, 5001)]
    log = History().idle(500).state(rows_of(["1"] * 5000, totals))
    found = find_wrong_total(io.BytesIO(log.export()), TRUSTED)
    assert found
    assert len(found) < 20_000
    assert "the total after row 4001" in judge(found).checked[-1]
