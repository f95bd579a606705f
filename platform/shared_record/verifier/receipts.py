"""Checks a receipt (C2SP tlog-proof) of one delta or one window. No network, no database, nothing raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from shared_record.ledger import amounts, entry, merkle, note
from shared_record.ledger.receipt import (
    HEADER,
    MAX_RECEIPT,
    Included,
    Receipt,
    Window,
    check_canonical,
    earlier_root,
    parse_receipt,
    split_receipt,
)
from shared_record.verifier.chain import Chain, check_chain, stated_period
from shared_record.verifier.trust import Difference, KeySource, Outcome, Run, Unusable, conclude, parsed

NOT_CHECKED = "Not checked: prices, contract terms, and how the vendor measured usage."
ROOT_NOT_CHECKED = (
    "Not checked: the proof root of this window, since it does not start with its record; it needs the rows themselves."
)

T = TypeVar("T")


def check_receipt(given: str | bytes, sources: Sequence[KeySource] = (), policy: note.Policy | None = None) -> Outcome:
    """Check a receipt, of one period or of several. It names no key, so one of ``sources`` must know its log."""

    def check(run: Run) -> None:
        run.not_checked = [NOT_CHECKED]
        parts = read_parts(given)
        if len(parts) == 1:
            check_proof(parts[0], _origin(parts[0]), (), run)
        else:
            _check_parts(parts, run)

    return conclude(Run(sources, policy=policy), check)


def read_receipt(given: str | bytes) -> Receipt:
    """Return the parsed receipt of one period; ``Unusable`` says what it is instead."""
    parts = read_parts(given)
    if len(parts) > 1:
        raise Unusable("the receipt is of several periods, and one of a single period is needed here")
    return parts[0]


def read_parts(given: str | bytes) -> list[Receipt]:
    """Return the parsed receipt: its parts, in their order, where it is of several periods."""
    if len(given) > 4 * MAX_RECEIPT:
        raise Unusable("the file is too long for a receipt")
    try:
        text = given if isinstance(given, str) else given.decode()
    except UnicodeDecodeError as error:
        raise Unusable("the receipt is not UTF-8") from error
    header = text.partition("\n")[0]
    if header != HEADER and header.startswith(HEADER.rpartition("@")[0]):
        raise Unusable(f"the file has another version of the format than {HEADER}")
    parts = [parsed("the receipt", parse_receipt, part) for part in split_receipt(text)]
    for number, receipt in enumerate(parts, start=1):
        expected = (number, len(parts)) if len(parts) > 1 else None
        found = receipt.window.part if receipt.window else None
        if found != expected:
            is_part = f"part {found[0]} of {found[1]}" if found else "a receipt of its own"
            raise Difference(f"the file has {len(parts)} parts, and number {number} says that it is {is_part}")
    return parts


def _check_parts(parts: Sequence[Receipt], run: Run) -> None:
    """Check a window over several periods: each part, and that nothing lies between one and the next."""
    rows, total, periods = 0, "0", list[str]()
    for number, receipt in enumerate(parts, start=1):
        before = run.customer_ref, run.unit
        check_proof(receipt, _origin(receipt), (), run)
        if number > 1 and (run.customer_ref, run.unit) != before:
            raise Difference(f"part {number} is of another customer or unit than the one before")
        if periods and run.period <= periods[-1]:
            raise Difference(f"part {number} is of {run.period}, which does not follow {periods[-1]}")
        window = receipt.window
        if window is None or (window.start and number > 1) or (window.end < receipt.entry.size and number < len(parts)):
            raise Difference(f"part {number} leaves out rows of {run.period} that the window has")
        rows, total = rows + run.rows, amounts.add(total, run.total)
        periods.append(run.period)
    run.rows, run.total, run.covered = rows, total, rows
    run.period = f"{periods[0]} to {periods[-1]}"
    run.checked.append(f"The {len(parts)} periods of the window are {rows} rows and {total} {run.unit}.")


def _origin(receipt: Receipt) -> str:
    return receipt.checkpoint.partition("\n")[0]


def check_proof(receipt: Receipt, origin: str, vkeys: Sequence[str], run: Run) -> entry.Head:
    """Prove ``receipt`` up to a checkpoint of the log ``origin``; ``vkeys`` are those of the file. Returns the head."""
    delta = parsed("the entry", _canonical(entry.parse_entry), receipt.entry.text)
    head = parsed("the head", _canonical(entry.parse_head), receipt.head.text)
    parsed("the epoch record", _canonical(entry.parse_epoch), receipt.epoch)
    before = receipt.window.before if receipt.window else None
    previous = parsed("the entry before", _canonical(entry.parse_entry), before.text) if before else None
    run.origin, run.customer_ref, run.period, run.unit = origin, head.cust, delta.period, delta.unit
    row = stated_period(head, delta.rec, delta.period)
    _check_leaf(delta, receipt.entry, row)
    if receipt.window is None:
        amount, count = delta.qty, 1
        leaf = merkle.leaf_hash(receipt.entry.text.encode())
        run.checked.append(
            f"Delta {delta.seq} of {delta.period} ({delta.qty} {delta.unit}, receipt {entry.receipt_id(leaf)}) is in "
            f"the record of {row.size} that the customer's head states."
        )
    else:
        count = receipt.window.size
        amount = _check_window(receipt.window, receipt.entry, delta, previous, row, run)
    check_chain(head, chain_of(receipt), origin, vkeys, run)
    run.rows, run.total, run.covered = count, amount, count
    return head


def _check_leaf(delta: entry.Entry, place: Included, row: entry.OpenPeriod) -> None:
    if delta.seq != place.index + 1 or delta.mseq != delta.seq:
        raise Difference(f"the entry has the sequence number {delta.seq}, but is proved at {place.index + 1}")
    if place.size != row.size:
        raise Difference(f"the proof has a record of {place.size} rows, the head one of {row.size}")
    leaf = merkle.leaf_hash(place.text.encode())
    if not merkle.verify_inclusion(leaf, place.index, row.size, place.path, row.root):
        raise Difference(f"entry {delta.seq} is not in the record that the head states")
    ((meter, unit, count, total),) = row.totals if len(row.totals) == 1 else [("", "", 0, "")]
    if (meter, unit, count) != (delta.meter, delta.unit, row.size) or delta.meter != entry.METER:
        raise Difference(f"the head states other totals than one of {row.size} rows in {delta.unit}")
    if delta.seq == row.size and delta.total != total:
        raise Difference(f"the head states a total of {total}, the last entry {delta.total}")


def _check_window(
    window: Window,
    last: Included,
    delta: entry.Entry,
    previous: entry.Entry | None,
    row: entry.OpenPeriod,
    run: Run,
) -> str:
    if delta.seq != window.end:
        raise Difference(f"the window ends after row {window.end}, but the entry is row {delta.seq}")
    if delta.total != window.closing:
        raise Difference(f"the closing total is {window.closing}, the last entry has {delta.total}")
    if (previous.seq if previous else 0) != window.start:
        raise Difference(f"the window starts after row {window.start}, and another row is shown as the one before")
    if previous is not None and window.before is not None:
        if (previous.rec, previous.period, previous.unit) != (delta.rec, delta.period, delta.unit):
            raise Difference("the entry before the window is of another record")
        _check_leaf(previous, window.before, row)
    opening = previous.total if previous else "0"
    if opening != window.opening:
        raise Difference(f"the opening total is {window.opening}, the entry before has {opening}")
    if window.start and window.root is not None:
        run.not_checked.append(ROOT_NOT_CHECKED)
    elif not window.start and window.root != earlier_root(last):
        raise Difference(f"the root of the window is not that of the record's first {window.end} rows")
    amount = amounts.add(window.closing, "-" + opening if opening[0] != "-" else opening[1:])
    run.checked.append(
        f"Rows {window.start + 1} to {window.end} of {delta.period} are {window.size} rows and {amount} {delta.unit}: "
        f"the running total goes from {opening} to {window.closing}."
    )
    return amount


def chain_of(receipt: Receipt) -> Chain:
    """Return the part of ``receipt`` from the head on."""
    head = receipt.head
    return Chain(
        head=head.text,
        slot_index=head.index,
        slot_count=head.size,
        slot_path=head.path,
        epoch=receipt.epoch,
        log_index=receipt.index,
        log_path=receipt.path,
        log_size=None,
        checkpoint=receipt.checkpoint,
    )


def _canonical(read: Callable[[str], T]) -> Callable[[str], T]:
    def strictly(text: str) -> T:
        check_canonical(text)
        return read(text)

    return strictly
