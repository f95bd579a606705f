from __future__ import annotations

import hashlib
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as CliResult
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_record_export_json import Json

from shared_record.cli import verify as cli
from shared_record.clock import period_bounds, rfc3339
from shared_record.ledger import amounts, entry, merkle, note
from shared_record.plugin import ExportOptions, ExportRow, RecordFacts, RecordProof
from shared_record.verifier.checks import Outcome, Result, check_export

ORIGIN = "app.example/log/t1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
VKEY = str(note.VerifierKey.of(ORIGIN, KEY))
OTHER_VKEY = str(note.VerifierKey.of(ORIGIN, OTHER_KEY))
TRUSTED = [("the policy file", {ORIGIN: [VKEY]})]
REF, SLOT, SLOTS, TREE, PERIOD, UNIT = "s2-0123456789abcdef", 2, 4, "r_0123456789abcdef", "2026-11", "call"
START = datetime(2026, 11, 3, 8, tzinfo=UTC)
AMOUNTS = ("5", "-1.25", "0.000000000000000000000001", "1000", "7", "2.5", "12345678901234567890")


@dataclass(frozen=True)
class Log:
    """A log of three epochs with one customer: the last epoch covers the first ``covered`` of its rows."""

    facts: RecordFacts
    rows: tuple[ExportRow, ...]

    def export(self) -> bytes:
        out = io.BytesIO()
        Json().write(iter(self.rows), out, ExportOptions(self.facts))
        return out.getvalue()


def build_row(
    seq: int, amount: str, total: str, covered: int, key: bytes = b"k" * 32, period: str = PERIOD
) -> ExportRow:
    reason, reference, metadata = f"batch {seq}", f"ref-{seq}", entry.canonical_metadata({"n": seq, "at": 0.5})
    salt = hashlib.sha256(b"%d" % seq).digest()[:16]
    moment = START + timedelta(minutes=seq)
    text = entry.entry_text(
        rec=TREE,
        period=period,
        seq=seq,
        unit=UNIT,
        qty=amount,
        total=total,
        record_id=f"rec_{seq:026d}",
        rx=rfc3339(moment),
        salt=entry.entry_salt(key, TREE, seq),
        mh=entry.detail_hash(salt, reason, reference, metadata),
    )
    return ExportRow(
        seq=seq,
        record_id=f"rec_{seq:026d}",
        receipt_id=entry.receipt_id(merkle.leaf_hash(text.encode())),
        recorded=rfc3339(moment),
        used_at=None,
        amount=amount,
        running_total=total,
        unit=UNIT,
        state="verified" if seq <= covered else "recorded",
        adjusts=None,
        reference=reference,
        reason=reason,
        metadata_json=metadata,
        detail_salt=salt.hex(),
        entry=text,
    )


def build(
    parts: tuple[str, ...] = AMOUNTS,
    covered: int = 5,
    *,
    size_stated: int | None = None,
    total_stated: str | None = None,
    head_ref: str = REF,
    head_epoch: int = 2,
    slot: int = SLOT,
    meter: str = "usage",
    origin: str = ORIGIN,
    period: str = PERIOD,
    change: Callable[[ExportRow], ExportRow] = lambda row: row,
) -> Log:
    rows, total, totals = [], "0", ["0"]
    for seq, amount in enumerate(parts, start=1):
        total = amounts.add(total, amount)
        totals.append(total)
        rows.append(change(build_row(seq, amount, total, covered, period=period)))
    start, end = period_bounds(period)
    facts = RecordFacts(
        vendor="Acme",
        log_origin=ORIGIN,
        customer_ref=REF,
        tree_id=TREE,
        period=period,
        start=start,
        end=end,
        zone="Europe/Vienna",
        unit=UNIT,
        as_of=START + timedelta(days=1),
        size=len(rows),
        total=total,
        covered_size=covered,
        covered_total=totals[covered],
        proof=None,
    )
    if not covered:
        return Log(facts, tuple(rows))
    root = merkle.root([bytes.fromhex(row.receipt_id[2:]) for row in rows[:covered]])
    stated = entry.OpenPeriod(
        period,
        TREE,
        root,
        covered if size_stated is None else size_stated,
        ((meter, UNIT, covered, total_stated or totals[covered]),),
    )
    head = entry.head_text(head_ref, head_epoch, entry.head_fragment((stated,), None), "e" * 32)
    slots = [merkle.leaf_hash(b"\xff%d" % i) for i in range(SLOTS)]
    slots[slot] = merkle.leaf_hash(head.encode())
    leaves: list[bytes] = []
    text = ""
    for number in range(3):
        text = entry.epoch_text(
            epoch=number, prev=leaves[-1] if leaves else b"", root=merkle.root(slots), slots=SLOTS, ts=START
        )
        leaves.append(merkle.leaf_hash(text.encode()))
    proof = RecordProof(
        size=covered,
        root=root,
        head=head,
        slot_index=slot,
        slot_count=SLOTS,
        slot_path=tuple(merkle.inclusion_path(slots, slot)),
        epoch=text,
        log_index=2,
        log_size=3,
        log_path=tuple(merkle.inclusion_path(leaves, 2)),
        checkpoint=note.sign_note(note.checkpoint_body(origin, 3, merkle.root(leaves)), ORIGIN, KEY),
        vkeys=(VKEY,),
    )
    return Log(replace(facts, proof=proof), tuple(rows))


def check(data: bytes, sources: Any = TRUSTED) -> Outcome:
    return check_export(io.BytesIO(data), sources)


LOG = build()
VALID = LOG.export()
LINES = VALID.split(b"\n")
FIRST_ROW = 4


# --- Valid files -----------------------------------------------------------------------------------------------------


def test_a_valid_file_matches() -> None:
    outcome = check(VALID)
    assert outcome.reason is None
    assert outcome.result is Result.MATCHES
    assert (outcome.rows, outcome.covered, outcome.not_covered) == (7, 5, 2)
    assert (outcome.vendor, outcome.origin, outcome.period) == ("Acme", ORIGIN, PERIOD)
    assert outcome.total == amounts.add(LOG.rows[-1].running_total, "0")
    assert (outcome.key_source, outcome.key_from_file, outcome.vkeys) == ("the policy file", False, (VKEY,))
    assert len(outcome.checked) == 8


@pytest.mark.parametrize("count", [1, 2, 3, 300])
def test_other_sizes_match_when_wholly_covered(count: int) -> None:
    outcome = check(build(("1",) * count, count).export())
    assert (outcome.result, outcome.covered, outcome.not_covered) == (Result.MATCHES, count, 0)


def test_details_that_retention_removed_still_match() -> None:
    log = build(change=lambda row: row._replace(reference=None, reason=None, metadata_json=None, detail_salt=None))
    outcome = check(log.export())
    assert outcome.result is Result.MATCHES
    assert "those of 7 rows were removed" in " ".join(outcome.checked)


@pytest.mark.parametrize("parts", [(), AMOUNTS])
def test_without_a_checkpoint_the_rows_are_still_replayed(parts: tuple[str, ...]) -> None:
    log = build(parts, 0)
    outcome = check(log.export())
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "no checkpoint covers this record yet")
    assert (outcome.rows, outcome.covered) == (len(parts), 0)
    broken = log.export().replace(b'"total":"5"', b'"total":"6"')
    assert not parts or check(broken).result is Result.DIFFERS


def test_a_path_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(VALID)
    assert check_export(tmp_path / "a.json", TRUSTED).result is Result.MATCHES
    outcome = check_export(tmp_path / "none.json", TRUSTED)
    assert outcome.result is Result.UNKNOWN
    assert outcome.reason == "the file cannot be read: No such file or directory"


# --- Changed rows ----------------------------------------------------------------------------------------------------


def test_every_changed_digit_of_every_row_is_noticed() -> None:
    offset = 0
    seen = 0
    for number, line in enumerate(LINES):
        if FIRST_ROW <= number < FIRST_ROW + len(LOG.rows):
            for match in re.finditer(rb"[0-9]", line):
                position = offset + match.start()
                digit = b"%d" % ((int(match[0]) + 1) % 10)
                outcome = check(VALID[:position] + digit + VALID[position + 1 :])
                assert outcome.result is not Result.MATCHES, (number, match.start())
                seen += 1
        offset += len(line) + 1
    assert seen > 1000


def rehash(row: ExportRow, old: str, new: str) -> ExportRow:
    """Change the entry and its receipt id with it, as somebody would who knows how they are made."""
    assert old in row.entry
    text = row.entry.replace(old, new)
    return row._replace(entry=text, receipt_id=entry.receipt_id(merkle.leaf_hash(text.encode())))


def changed(seq: int, old: str, new: str) -> bytes:
    rows = [rehash(row, old, new) if row.seq == seq else row for row in LOG.rows]
    return replace(LOG, rows=tuple(rows)).export()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (changed(4, '"total":"1003.75', '"total":"1004.75'), "record 4: running total is 1004.75"),
        (changed(4, '"qty":"1000"', '"qty":"1001"'), "record 4: running total is 1003.75"),
        (changed(4, '"seq":4', '"seq":5'), "record 4: sequence number is 5, expected 4"),
        (changed(4, '"mseq":4', '"mseq":5'), "record 4: sequence number of the meter is 5, expected 4"),
        (changed(4, PERIOD + '"', '2026-10"'), "record 4: period is 2026-10, expected 2026-11"),
        (changed(4, TREE, "r_0"), f"record 4: record tree is r_0, expected {TREE}"),
        (changed(4, '"call"', '"byte"'), "record 4: unit is byte, expected call"),
        (changed(4, '"usage"', '"other"'), "record 4: meter is other, expected usage"),
        (changed(4, "T08:04", "T08:05"), "the root over the first 5 rows is not the root in the proof"),
        (VALID.replace(b"batch 3", b"batch 4"), "record 3: reason, reference or metadata are not those"),
        (VALID.replace(b'"at":0.5,"n":3', b'"at":0.5,"n":4'), "record 3: reason, reference or metadata are not those"),
        (VALID.replace(b"verified", b"recorded", 1), "record 1: state is recorded, but the proof covers 5 rows"),
        (VALID.replace(b'"recorded"', b'"verified"', 1), "record 6: state is verified, but the proof covers 5 rows"),
    ],
)
def test_the_first_difference_is_named(data: bytes, reason: str) -> None:
    outcome = check(data)
    assert data != VALID
    assert outcome.result is Result.DIFFERS
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


def test_details_without_their_salt_do_not_match() -> None:
    log = build(change=lambda row: row._replace(detail_salt=None))
    assert check(log.export()).reason == "record 1: details are shown without the salt that ties them to the entry"


@pytest.mark.parametrize("missing", range(7))
def test_a_dropped_row_is_noticed(missing: int) -> None:
    rows = LOG.rows[:missing] + LOG.rows[missing + 1 :]
    outcome = check(replace(LOG, rows=rows).export())
    assert outcome.result is Result.DIFFERS
    facts = replace(LOG.facts, size=6, total=rows[-1].running_total)
    assert check(Log(facts, rows).export()).result is (Result.MATCHES if missing == 6 else Result.DIFFERS)


@pytest.mark.parametrize("first", range(6))
def test_swapped_and_repeated_rows_are_noticed(first: int) -> None:
    rows = list(LOG.rows)
    rows[first], rows[first + 1] = rows[first + 1], rows[first]
    outcome = check(replace(LOG, rows=tuple(rows)).export())
    assert outcome.reason == f"record {first + 1}: sequence number is {first + 2}, expected {first + 1}"
    rows[first] = rows[first + 1]
    assert check(replace(LOG, rows=tuple(rows)).export()).result is Result.DIFFERS


def test_a_rewritten_record_needs_the_key() -> None:
    """Everything is made anew and agrees with itself, but the vendor's key signed something else."""
    forged = build(("6", *AMOUNTS[1:]))
    assert forged.facts.proof is not None
    assert LOG.facts.proof is not None
    proof = replace(forged.facts.proof, checkpoint=LOG.facts.proof.checkpoint)
    outcome = check(replace(forged, facts=replace(forged.facts, proof=proof)).export())
    assert (outcome.result, outcome.reason) == (Result.DIFFERS, "epoch 2 is not in the log that the checkpoint signs")


# --- Changed blocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 8}, "the record block's number of rows is 8, the rows give 7"),
        ({"total": "1"}, "the record block's total is 1, the rows give "),
        ({"covered_total": "1"}, "the record block's total of the covered rows is 1, the rows give "),
        ({"covered_size": 4}, "the record block says 4 rows are covered, the proof says 5"),
        ({"size": 4}, "the proof covers 5 rows, the record block says there are 4"),
        ({"tree_id": "r_1"}, "record 1: record tree is"),
        ({"unit": "byte"}, "record 1: unit is"),
        ({"customer_ref": "s3-0123456789abcdef"}, "the head is that of s2-"),
        ({"log_origin": "app.example/log/t2"}, "the checkpoint is not signed by the key from"),
    ],
)
def test_a_changed_record_block(change: dict[str, Any], reason: str) -> None:
    data = replace(LOG, facts=replace(LOG.facts, **change)).export()
    sources = [("somewhere", {ORIGIN: [VKEY], "app.example/log/t2": [VKEY.replace("/t1", "/t2")]})]
    if "log_origin" in change:
        sources[0][1]["app.example/log/t2"] = [str(note.VerifierKey.of("app.example/log/t2", KEY))]
    outcome = check(data, sources)
    assert outcome.result is Result.DIFFERS
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 4}, "the record block says 5 rows are covered, the proof says 4"),
        ({"root": bytes(32)}, "the root over the first 5 rows is not the root in the proof"),
        ({"slot_index": 1}, "the head is proved at slot 1, its customer has slot 2"),
        ({"slot_count": 8}, "the proof has 8 slots, the epoch record 4"),
        ({"slot_path": (bytes(32),) * 2}, "the head is not in slot 2 of epoch 2"),
        ({"slot_path": ()}, "the head is not in slot 2 of epoch 2"),
        ({"log_index": 1}, "the epoch record is 2, but it is proved at 1"),
        ({"log_size": 4}, "the proof has a log of 4 epochs, the checkpoint one of 3"),
        ({"log_path": (bytes(32),)}, "epoch 2 is not in the log that the checkpoint signs"),
        ({"vkeys": (OTHER_VKEY,)}, f"the file names another key for the log {ORIGIN} than the policy file"),
    ],
)
def test_a_changed_proof_block(change: dict[str, Any], reason: str) -> None:
    assert LOG.facts.proof is not None
    data = replace(LOG, facts=replace(LOG.facts, proof=replace(LOG.facts.proof, **change))).export()
    assert (check(data).result, check(data).reason) == (Result.DIFFERS, reason)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (build(size_stated=6), "the head states 6 rows and another root than the proof, which has 5"),
        (build(total_stated="9"), "the head states other totals than "),
        (build(meter="other"), "the head states other totals than "),
        (build(head_ref="s2-ffffffffffffffff"), "the head is that of s2-ffffffffffffffff"),
        (build(head_epoch=3), "the head is of epoch 3, the epoch record is 2"),
        (build(slot=3), "the head is proved at slot 3, its customer has slot 2"),
        (build(origin="app.example/log/t9"), "the checkpoint is of the log app.example/log/t9"),
    ],
)
def test_a_log_that_signed_something_false(log: Log, reason: str) -> None:
    outcome = check(log.export())
    assert outcome.result is Result.DIFFERS
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_the_first_source_that_knows_the_log_counts() -> None:
    sources = [("a", {}), ("b", {ORIGIN: [OTHER_VKEY, VKEY]}), ("c", {ORIGIN: [OTHER_VKEY]})]
    outcome = check(VALID, sources)
    assert (outcome.result, outcome.key_source, outcome.vkeys) == (Result.MATCHES, "b", (VKEY,))


def test_a_foreign_key_does_not_match() -> None:
    assert check(VALID, [("a", {ORIGIN: [OTHER_VKEY]})]).result is Result.DIFFERS
    data = VALID.replace(VKEY.encode(), OTHER_VKEY.encode())
    outcome = check(data, [("a", {ORIGIN: [OTHER_VKEY]})])
    assert outcome.reason == "the checkpoint is not signed by the key from a: no signature by a known key"


def test_an_unknown_log_is_judged_by_the_key_in_the_file_and_that_is_said() -> None:
    outcome = check(VALID, [("a", {"app.example/log/t2": [OTHER_VKEY]})])
    assert (outcome.result, outcome.key_source, outcome.key_from_file) == (Result.MATCHES, "this file", True)
    assert outcome.fingerprints == (hashlib.sha256(VKEY.encode()).hexdigest(),)


def test_only_a_key_that_signed_counts() -> None:
    assert LOG.facts.proof is not None
    proof = replace(LOG.facts.proof, vkeys=(OTHER_VKEY, VKEY))
    outcome = check(replace(LOG, facts=replace(LOG.facts, proof=proof)).export(), [])
    assert (outcome.result, outcome.vkeys) == (Result.MATCHES, (VKEY,))


def test_no_key_at_all() -> None:
    assert LOG.facts.proof is not None
    data = replace(LOG, facts=replace(LOG.facts, proof=replace(LOG.facts.proof, vkeys=()))).export()
    assert check(data, []).reason == f"no key of the log {ORIGIN} is known, and the file names none"
    assert check(data).result is Result.MATCHES
    assert check(VALID, [("a", {ORIGIN: ["rubbish"]})]).result is Result.UNKNOWN


# --- Files that cannot be checked ------------------------------------------------------------------------------------


def test_a_file_that_ends_early_never_matches() -> None:
    for length in range(len(VALID)):
        outcome = check(VALID[:length])
        assert outcome.result is Result.UNKNOWN, length


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"record_id,sequence\r\nrec_1,1\r\n", "this is not a shared-record/export@v1 file"),
        (b"\x1f\x8b\x08\x00rubbish\n", "line 1 is not UTF-8"),
        (json.dumps(json.loads(VALID), indent=2).encode() + b"\n", "this is not a shared-record/export@v1 file"),
        (VALID.replace(b"\n", b"\r\n"), "this is not a shared-record/export@v1 file"),
        (VALID.replace(b"export@v1", b"export@v2"), "the file has another version of the format"),
        (VALID + b"x", "something follows the end"),
        (VALID + b"\n", "something follows the end"),
        (VALID.replace(b'"size":7', b'"size":7.0'), "the record block is malformed"),
        (VALID.replace(b'"size":7', b'"size":7,"size":7'), "the record block is malformed: a key occurs twice"),
        (VALID.replace(b'"vendor":"Acme"', b'"vendor":"\\ud800"'), "the record block is malformed"),
        (VALID.replace(b'"period":"2026-11"', b'"period":"2026-13"', 1), "the record block is malformed"),
        (VALID.replace(b'"period":"2026-11"', b'"period":"9999-12"', 1), "the record block is malformed"),
        (
            VALID.replace(b'"period":"2026-11"', b'"period":"2026-10"', 1),
            "the record block is malformed: start and end",
        ),
        (VALID.replace(b'"size":5,"root"', b'"size":0,"root"'), "the proof block is malformed"),
        (VALID.replace(b'"head":"{', b'"head":"['), "the head is malformed"),
        (VALID.replace(b'"rows":[', b'"rows": ['), "the file was re-formatted or damaged"),
        (VALID.replace(b"\n]}", b",\n]}"), "the list of rows is damaged"),
        (VALID.replace(b'"reason":"batch 1"', b'"reason":"\\ud800"'), "record 1 is malformed"),
        (VALID.replace(b'"reason":"batch 1"', b'"reason":1'), "record 1 is malformed"),
        (VALID.replace(b'"reason":"batch 1"', b'"reason":' + b"[" * 100_000), "record 1 is malformed"),
        (VALID.replace(b'"n":1', b'"n":NaN'), "record 1 is malformed: NaN is not JSON"),
        (VALID.replace(b'"n":1', b'"n":1,"n":1'), "record 1 is malformed: a key occurs twice"),
        (VALID.replace(b'"n":1', b'"n":' + b"9" * 5000), "record 1 is malformed"),
        (VALID.replace(b'"detailSalt":"', b'"detailSalt":"zz', 1), "record 1 is malformed: the salt"),
        (VALID.replace(b'"entry":{', b'"entry":{"\x1b[31m":1,', 1), "record 1 is malformed"),
        (
            VALID.replace(b'"entry":{', b'"entry":{"\\u001b[31m":1,', 1),
            "record 1 is malformed: the field ?[31m is unknown",
        ),
        (VALID.replace(b"batch 1", b"x" * (5 * 1024 * 1024)), "line 5 is too long"),
    ],
)
def test_what_cannot_be_checked_says_why(data: bytes, reason: str) -> None:
    outcome = check(data)
    assert outcome.result is Result.UNKNOWN
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


def unproved() -> set[int]:
    """Positions of the values that nothing vouches for, and that the outcome lists as not checked."""
    found: set[int] = set()
    for name in (b"vendor", b"zone", b"asOf"):
        match = re.search(rb'"%b":"([^"]*)"' % name, VALID)
        assert match
        found |= set(range(*match.span(1)))
    return found


PROVED = sorted(set(range(len(VALID))) - unproved())


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_changed_byte_ever_matches(data: st.DataObject) -> None:
    position = data.draw(st.sampled_from(PROVED))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != VALID[position]))
    outcome = check(VALID[:position] + bytes([byte]) + VALID[position + 1 :])
    assert outcome.result in (Result.DIFFERS, Result.UNKNOWN)
    assert outcome.reason


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(VALID)), st.integers(0, 200), st.binary(max_size=50))
def test_splices_never_raise(start: int, length: int, new: bytes) -> None:
    data = VALID[:start] + new + VALID[start + length :]
    outcome = check(data)
    touched = set(range(start, start + length)) | ({start} if new else set())
    if outcome.result is Result.MATCHES and data != VALID:
        assert touched & unproved()


@given(st.binary(max_size=2000))
def test_random_bytes_never_raise(data: bytes) -> None:
    assert check(data).result is Result.UNKNOWN
    assert check(LINES[0] + b"\n" + data).result is Result.UNKNOWN


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(build(("1",) * 3000, 3000).export())
    assert (tmp_path / "large.json").stat().st_size > 1_500_000
    tracemalloc.start()
    try:
        outcome = check_export(tmp_path / "large.json", TRUSTED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.result is Result.MATCHES
    assert peak < 300_000


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliResult]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(cli, "local_log_keys", dict)
    (tmp_path / "valid.json").write_bytes(VALID)
    (tmp_path / "policy").write_text(f"log {VKEY}\nquorum none\n")

    def invoke(*arguments: str, stdin: bytes | None = None) -> CliResult:
        known = {"VALID": str(tmp_path / "valid.json"), "POLICY": str(tmp_path / "policy")}
        return CliRunner().invoke(cli.verify, [known.get(word, word) for word in arguments], input=stdin)

    return invoke


def test_verify_remembers_the_key_of_the_first_file(run: Callable[..., CliResult], tmp_path: Path) -> None:
    first = run("VALID")
    assert first.exit_code == 0, first.output
    fingerprint = hashlib.sha256(VKEY.encode()).hexdigest()
    assert f"The key was taken from this file; compare {fingerprint}" in first.output
    assert (tmp_path / "config/shared-record/known-logs").read_text() == f"quorum none\nlog {VKEY}\n"
    second = run("VALID")
    assert second.exit_code == 0
    assert "signed by the key from the known-logs file" in second.output
    foreign = tmp_path / "foreign.json"
    foreign.write_bytes(VALID.replace(VKEY.encode(), OTHER_VKEY.encode()))
    third = run(str(foreign))
    assert third.exit_code == 4
    assert "Does not match: the file names another key" in third.output


def test_verify_with_a_policy(run: Callable[..., CliResult], tmp_path: Path) -> None:
    outcome = run("--policy", "POLICY", "VALID")
    assert outcome.exit_code == 0
    assert "Acme, 2026-11: 7 rows" in outcome.output
    assert "Covered by the checkpoint: 5 rows; not yet covered: 2." in outcome.output
    assert "Matches.\nNot checked: prices" in outcome.output
    assert not (tmp_path / "config").exists()


def test_verify_with_a_policy_that_asks_for_a_witness(run: Callable[..., CliResult], tmp_path: Path) -> None:
    witness = "witness.example/w1+e75f6532+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
    (tmp_path / "policy").write_text(f"log {VKEY}\nwitness w {witness}\nquorum w\n")
    outcome = run("--policy", "POLICY", "VALID")
    assert outcome.exit_code == 5
    assert "the checkpoint is witnessed 0/1, and the policy asks for the quorum w" in outcome.output
    (tmp_path / "policy").write_text(f"log {VKEY}\nwitness w {witness}\nquorum none\n")
    outcome = run("--policy", "POLICY", "VALID")
    assert outcome.exit_code == 0
    assert "The checkpoint is witnessed 0/1." in outcome.output


def test_verify_shows_no_total_of_rows_it_did_not_finish(run: Callable[..., CliResult], tmp_path: Path) -> None:
    (tmp_path / "changed.json").write_bytes(changed(4, '"total":"1003.75', '"total":"1004.75'))
    outcome = run("--policy", "POLICY", str(tmp_path / "changed.json"))
    assert outcome.exit_code == 4
    assert outcome.output.startswith("Acme, 2026-11\n")
    assert "Does not match: record 4: running total is 1004.75" in outcome.output


def test_verify_require_covered(run: Callable[..., CliResult]) -> None:
    outcome = run("--require-covered", "--policy", "POLICY", "VALID")
    assert outcome.exit_code == 5
    assert "Could not be checked (because 2 rows are not yet covered by a checkpoint)." in outcome.output


def test_verify_as_json_from_standard_input(run: Callable[..., CliResult]) -> None:
    outcome = run("--json", "--policy", "POLICY", "-", stdin=VALID)
    assert outcome.exit_code == 0
    form = json.loads(outcome.output)
    assert (form["result"], form["reason"], form["rows"], form["notCovered"]) == ("matches", None, 7, 2)
    assert form["key"]["vkeys"] == [VKEY]
    outcome = run("--json", "-", stdin=VALID[:-3])
    assert outcome.exit_code == 5
    assert json.loads(outcome.output)["reason"].startswith("the file ends early")


@pytest.mark.parametrize("policy", ["rubbish\n", None])
def test_verify_with_keys_that_cannot_be_read(
    run: Callable[..., CliResult], tmp_path: Path, policy: str | None
) -> None:
    (tmp_path / "policy").unlink()
    if policy is not None:
        (tmp_path / "policy").write_text(policy)
    outcome = run("--policy", "POLICY", "VALID")
    assert outcome.exit_code == 5
    assert "Could not be checked (because the keys cannot be read" in outcome.output


def test_verify_help_has_examples(run: Callable[..., CliResult]) -> None:
    output = run("--help").output
    assert "shared-record verify --policy acme.policy record-2026-11.json" in output
    assert "4 it does not match" in output
