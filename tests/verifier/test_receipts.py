from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest

from shared_record.ledger import amounts, merkle, note
from shared_record.ledger.entry import parse_entry
from shared_record.ledger.receipt import HEADER, Included, Receipt, Window, build_receipt
from shared_record.verifier.files import check_file
from shared_record.verifier.receipts import ROOT_NOT_CHECKED, check_receipt
from shared_record.verifier.trust import Result
from verifier.test_checks import AMOUNTS, KEY, LOG, ORIGIN, OTHER_VKEY, TRUSTED, Log, build


def receipt_of(log: Log, start: int | None, end: int) -> Receipt:
    """The receipt of row ``end`` alone (``start`` is ``None``), or of the window ``[start, end)``."""
    proof = log.facts.proof
    assert proof
    leaves = [bytes.fromhex(row.receipt_id[2:]) for row in log.rows]

    def included(index: int) -> Included:
        path = merkle.inclusion_path(leaves[: proof.size], index) if index < proof.size else []
        return Included(log.rows[index].entry, index, proof.size, tuple(path))

    window = None
    if start is not None:
        before = included(start - 1) if start else None
        opening = log.rows[start - 1].running_total if start else "0"
        closing = log.rows[end - 1].running_total
        window = Window(start, end, merkle.root(leaves[start:end]), opening, closing, before)
    head = Included(proof.head, proof.slot_index, proof.slot_count, proof.slot_path)
    return Receipt(included(end - 1), head, proof.epoch, proof.log_index, proof.log_path, proof.checkpoint, window)


def over_periods(*parts: Receipt) -> str:
    """Write ``parts`` as one receipt over as many periods."""
    numbered = [
        replace(one, window=one.window and replace(one.window, part=(number, len(parts))))
        for number, one in enumerate(parts, start=1)
    ]
    return "".join(map(build_receipt, numbered))


OCTOBER = build(("1", "2.5", "-4"), 3, period="2026-10")
LATER = build(("8",), 1, period="2026-12")
DELTA, WHOLE, PART, INNER = (receipt_of(LOG, *span) for span in ((None, 3), (0, 5), (0, 3), (1, 4)))


def test_a_window_over_three_periods_matches() -> None:
    text = over_periods(receipt_of(OCTOBER, 1, 3), WHOLE, receipt_of(LATER, 0, 1))
    outcome = check_receipt(text, TRUSTED)
    assert (outcome.reason, outcome.result, outcome.rows) == (None, Result.MATCHES, 8)
    total = amounts.add(amounts.add("-1.5", LOG.rows[4].running_total), "8")
    assert (outcome.total, outcome.period) == (total, "2026-10 to 2026-12")
    assert check_file(BytesIO(text.encode()), TRUSTED) == outcome


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((receipt_of(OCTOBER, 0, 2), WHOLE), "part 1 leaves out rows of 2026-10"),
        ((receipt_of(OCTOBER, 0, 3), INNER), "part 2 leaves out rows of 2026-11"),
        ((WHOLE, receipt_of(OCTOBER, 0, 3)), "part 2 is of 2026-10, which does not follow 2026-11"),
        ((WHOLE, WHOLE), "part 2 is of 2026-11, which does not follow 2026-11"),
    ],
)
def test_nothing_lies_between_the_periods_of_a_window(parts: tuple[Receipt, ...], reason: str) -> None:
    outcome = check_receipt(over_periods(*parts), TRUSTED)
    assert outcome.result is Result.DIFFERS
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


def test_every_part_of_a_receipt_is_needed() -> None:
    parts = over_periods(receipt_of(OCTOBER, 0, 3), WHOLE, receipt_of(LATER, 0, 1)).split(HEADER)[1:]
    for kept in ([0], [1], [0, 1], [0, 2], [1, 2], [0, 1, 1], [1, 0, 2], [0, 1, 2, 2]):
        outcome = check_receipt("".join(HEADER + parts[one] for one in kept), TRUSTED)
        assert outcome.result is Result.DIFFERS
        assert "says that it is part" in str(outcome.reason)
    plain = build_receipt(receipt_of(OCTOBER, 0, 3)) + build_receipt(WHOLE)
    assert "says that it is a receipt of its own" in str(check_receipt(plain, TRUSTED).reason)


@pytest.mark.parametrize("covered", [1, 2, 3, 4, 5, 6, 7])
def test_every_delta_and_every_window_matches(covered: int) -> None:
    log = build(AMOUNTS, covered)
    for end in range(1, covered + 1):
        outcome = check_receipt(build_receipt(receipt_of(log, None, end)), TRUSTED)
        assert (outcome.reason, outcome.result, outcome.rows) == (None, Result.MATCHES, 1)
        assert outcome.total == log.rows[end - 1].amount
        for start in range(end):
            outcome = check_receipt(build_receipt(receipt_of(log, start, end)).encode(), TRUSTED)
            assert (outcome.reason, outcome.result, outcome.rows) == (None, Result.MATCHES, end - start)
            assert (ROOT_NOT_CHECKED in outcome.not_checked) == bool(start)


def window(base: Receipt, **changes: object) -> Receipt:
    assert base.window
    return replace(base, window=replace(base.window, **changes))  # type: ignore[arg-type]


ROOT = b"\1" * 32


@pytest.mark.parametrize(
    ("receipt", "reason"),
    [
        (replace(DELTA, entry=replace(DELTA.entry, index=3)), "the entry has the sequence number 3"),
        (replace(DELTA, entry=replace(DELTA.entry, size=6)), "the proof has a record of 6 rows"),
        (replace(DELTA, entry=replace(DELTA.entry, path=DELTA.entry.path[1:])), "entry 3 is not in the record"),
        (
            replace(DELTA, entry=replace(DELTA.entry, text=DELTA.entry.text.replace("T08:03", "T08:04"))),
            "entry 3 is not in the record",
        ),
        (replace(DELTA, head=replace(DELTA.head, index=1)), "the head is proved at slot 1"),
        (replace(DELTA, head=replace(DELTA.head, size=8)), "the proof has 8 slots"),
        (replace(DELTA, head=replace(DELTA.head, path=())), "the head is not in slot 2"),
        (replace(DELTA, index=1), "the epoch record is 2, but it is proved at 1"),
        (replace(DELTA, path=()), "epoch 2 is not in the log"),
        (window(WHOLE, root=ROOT), "the root of the window is not that of the record's first 5 rows"),
        (window(PART, root=ROOT), "the root of the window is not that of the record's first 3 rows"),
        (window(PART, opening="1"), "the opening total is 1"),
        (window(PART, closing="1"), "the closing total is 1"),
        (window(PART, end=4), "the window ends after row 4"),
        (window(INNER, start=2), "the window starts after row 2"),
        (window(INNER, before=None), "the window starts after row 1"),
        (window(PART, before=INNER.window and INNER.window.before), "the window starts after row 0"),
        (window(INNER, before=DELTA.entry), "the window starts after row 1"),
    ],
)
def test_the_first_difference_is_named(receipt: Receipt, reason: str) -> None:
    outcome = check_receipt(build_receipt(receipt), TRUSTED)
    assert outcome.result is Result.DIFFERS
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


def test_a_wrong_total_in_a_signed_head_is_found_from_the_last_row() -> None:
    log = build(total_stated="7")
    assert check_receipt(build_receipt(receipt_of(log, None, 3)), TRUSTED).result is Result.MATCHES
    outcome = check_receipt(build_receipt(receipt_of(log, 0, 5)), TRUSTED)
    assert outcome.reason == f"the head states a total of 7, the last entry {parse_entry(WHOLE.entry.text).total}"


def test_the_key_comes_from_elsewhere() -> None:
    text = build_receipt(DELTA)
    outcome = check_receipt(text)
    assert outcome.result is Result.UNKNOWN
    assert outcome.reason == f"no key of the log {ORIGIN} is known, and the file names none"
    outcome = check_receipt(text, [("the policy file", {ORIGIN: [OTHER_VKEY]})])
    assert outcome.result is Result.DIFFERS
    resigned = note.sign_note(DELTA.checkpoint.partition("\n\n")[0] + "\n", "w.example/w", KEY)
    line = resigned.rpartition("\n\n")[2]
    assert check_receipt(text + line, TRUSTED).result is Result.MATCHES, "an unknown signature line is ignored"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"c2sp.org/tlog-proof@v2\nextra\n", "the file has another version of the format"),
        (b"c2sp.org/tlog-proof@v1\n\xff\n", "the receipt is not UTF-8"),
        (b"c2sp.org/tlog-proof@v1\n", "the receipt is malformed"),
        (b"c2sp.org/tlog-proof@v1" + b"\0" * 5_000_000, "the file is too long for a receipt"),
        (build_receipt(DELTA).encode()[:-50], "the checkpoint"),
        (build_receipt(replace(DELTA, epoch="{}")).encode(), "the epoch record is malformed"),
        (build_receipt(replace(DELTA, epoch=DELTA.epoch.replace(":", ": ", 1))).encode(), "the epoch record is"),
    ],
)
def test_what_cannot_be_checked_says_why(data: bytes, reason: str) -> None:
    outcome = check_receipt(data, TRUSTED)
    assert outcome.result is not Result.MATCHES
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


def test_any_file_is_told_apart(tmp_path: object) -> None:
    assert check_file(BytesIO(build_receipt(WHOLE).encode()), TRUSTED).result is Result.MATCHES
    assert check_file(BytesIO(LOG.export()), TRUSTED).result is Result.MATCHES


@pytest.mark.parametrize("receipt", [DELTA, WHOLE, PART, INNER])
def test_every_changed_byte_is_refused(receipt: Receipt) -> None:
    data = build_receipt(receipt).encode()
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        outcome = check_receipt(changed, TRUSTED)
        # The one thing that a receipt of an inner window cannot prove is its root, and the outcome says so.
        if outcome.result is Result.MATCHES:
            assert receipt is INNER
            assert ROOT_NOT_CHECKED in outcome.not_checked
            assert changed.partition(b"\nindex")[2] == data.partition(b"\nindex")[2]
        else:
            assert outcome.reason
