"""Compares a file with an older one that was kept: the log and the record must have grown, and nothing else.

What the two files hold decides first. Only what leads from one checkpoint to the other may be missing; it is asked of
the log, and believed where it leads to the newer file's own signed checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from shared_record.ledger import entry
from shared_record.ledger.note import Policy, b64decode
from shared_record.ledger.origin import is_later_origin
from shared_record.ledger.receipt import Included
from shared_record.verifier import evidence
from shared_record.verifier.chain import stated_period
from shared_record.verifier.files import check_file
from shared_record.verifier.material import Material, read_material
from shared_record.verifier.subtrees import fold_split, included_from, split_ranges
from shared_record.verifier.trust import (
    Difference,
    KeySource,
    Outcome,
    Result,
    Run,
    Unusable,
    choose_keys,
    conclude,
    open_checkpoint,
    parsed,
)
from shared_record.verifier.watch import Fetch, subtree_roots

MAX_ANSWER = 100_000


def check_since(
    newer: BinaryIO | Path,
    older: Path,
    sources: Sequence[KeySource] = (),
    policy: Policy | None = None,
    fetch: Fetch | None = None,
) -> Outcome:
    """Check ``newer`` by itself, then that it continues ``older``. Without ``fetch`` nothing but the files is used.

    A contradiction between the two comes with evidence. An older file that cannot be checked, or does not match, says
    nothing about the newer one: "could not be checked".
    """
    outcome = check_file(newer, sources, policy)
    if outcome.result is not Result.MATCHES:
        return outcome

    def compare(run: Run) -> None:
        # The newer file's key counts for the older one as well, so that one first use is enough.
        known = [*sources, (outcome.key_source or "the newer file", {outcome.origin: outcome.vkeys})]
        run.sources = known
        now, before = read_material(newer), _kept(older, known, run)
        run.checked.append(f"The older file is of the log {before.checkpoint.origin} at size {before.checkpoint.size}.")
        run.keys = []
        choose_keys(now.checkpoint.origin, (), run)
        _check_origin(now, before)
        _check_log(now, before, fetch, run)
        _check_record(now, before, run)

    found = conclude(Run(sources, not_checked=[]), compare)
    return replace(
        outcome,
        result=found.result,
        reason=found.reason,
        checked=outcome.checked + found.checked,
        not_checked=outcome.not_checked + found.not_checked,
        evidence=found.evidence,
    )


def _kept(older: Path, sources: Sequence[KeySource], run: Run) -> Material:
    """Read the older file; what is not in order itself is ``Unusable``."""
    material = read_material(older)
    if material.statement is None:
        try:
            choose_keys(material.checkpoint.origin, (), run)
            open_checkpoint(material.note, run)
        except Difference as error:
            raise Unusable(f"the older file does not match: {error}") from error
        return material
    found = check_file(older, sources)
    if found.result is not Result.MATCHES:
        raise Unusable(
            f"the older file {'does not match' if found.result is Result.DIFFERS else 'is of no use'}: {found.reason}"
        )
    return material


def _check_origin(now: Material, before: Material) -> None:
    origin, former = now.checkpoint.origin, before.checkpoint.origin
    if is_later_origin(origin, former):
        raise Unusable(
            f"the log {former} declared a new origin: {origin}. What it signed before is not under the new one"
        )
    if origin != former:
        raise Difference(f"the newer file is of the log {origin}, the older one of {former}")


# --- The log ---------------------------------------------------------------------------------------------------------


def _check_log(now: Material, before: Material, fetch: Fetch | None, run: Run) -> None:
    new, old = now.checkpoint, before.checkpoint
    if new.size < old.size:
        raise Difference(f"the log has size {new.size}, and had {old.size} in the older file")
    if old.size == 0:
        return
    hashes: list[bytes] | None = []
    if new.size == old.size:
        differs = new.root != old.root
    else:
        ranges = split_ranges(old.size, new.size)
        hashes = now.log(ranges) if now.log else None
        if hashes is None and fetch is None:
            raise Unusable(f"the files do not hold what leads from size {old.size} of the log to {new.size}")
        if hashes is None and fetch is not None:
            hashes = _asked(fetch, now, before)
        root, led_to = parsed("what the log answers", lambda given: fold_split(old.size, new.size, given), hashes or [])
        if led_to != new.root:
            raise Unusable("what the log answers does not lead to the checkpoint of the newer file")
        differs = root != old.root
    if differs:
        vkeys = [str(key) for key in run.keys]
        run.evidence = evidence.fork(new.origin, vkeys, before.note, now.note, hashes or [])
        raise Difference(f"fork: the log at size {new.size} does not extend size {old.size} as the older file has it")
    run.checked.append(f"The log at size {new.size} extends the older file's checkpoint of size {old.size}.")


def _asked(fetch: Fetch, now: Material, before: Material) -> list[bytes]:
    """Return the subtrees between the two sizes as the log's server gives them: as a proof, or else from its tiles."""
    old, new = before.checkpoint.size, now.checkpoint.size
    ranges = split_ranges(old, new)
    try:
        answer = fetch(f"consistency?from={old}&to={new}", MAX_ANSWER)
    except OSError as error:
        try:
            return subtree_roots(fetch, new, ranges)
        except OSError:
            raise Unusable(f"the log cannot be read: {error}") from error
    given: dict[str, Any] = parsed("what the log answers", json.loads, answer)
    try:
        hashes = [b64decode(one) for one in given["proof"]]
        # A proof leaves out the older tree where that is a whole subtree: its root is known to who asks.
        return hashes if len(hashes) == len(ranges) else [b64decode(given["from"]["root"]), *hashes]
    except (KeyError, TypeError, ValueError) as error:
        raise Unusable("what the log answers is malformed") from error


# --- The record ------------------------------------------------------------------------------------------------------


def _check_record(now: Material, before: Material, run: Run) -> None:
    if before.statement is None or now.statement is None:
        return
    new, old = (entry.parse_head(stated.chain.head) for stated in (now.statement, before.statement))
    if new.cust != old.cust:
        raise Difference(f"the newer file is of the customer {new.cust}, the older one of {old.cust}")
    if now.statement.chain.log_index < before.statement.chain.log_index:
        raise Difference("the newer file's head is of an earlier epoch than the older one's")
    row, kept = (
        stated_period(head, stated.rec, stated.period)
        for head, stated in ((new, now.statement), (old, before.statement))
    )
    if row.period == kept.period:
        if row.rec != kept.rec:
            raise Difference(f"the record of {row.period} is {row.rec}, in the older file {kept.rec}")
        _check_growth(now, before, row, kept, run)
    else:
        _check_other_period(new, kept, run)


def _check_growth(now: Material, before: Material, row: entry.OpenPeriod, kept: entry.OpenPeriod, run: Run) -> None:
    assert now.statement
    assert before.statement
    vkeys = [str(key) for key in run.keys]
    sides = (before.statement, now.statement)
    if row.size < kept.size:
        run.evidence = evidence.rewritten_record(now.checkpoint.origin, vkeys, *sides, ())
        raise Difference(f"the record of {row.period} has {row.size} rows, and had {kept.size} in the older file")
    hashes = [row.root] if row.size == kept.size else now.record and now.record(split_ranges(kept.size, row.size))
    if not hashes:
        raise Unusable(f"the files do not hold what leads from the {kept.size} rows of the older one to {row.size}")
    root, led_to = fold_split(kept.size, row.size, hashes)
    if led_to != row.root:
        raise Unusable("the rows of the newer file do not lead to the record that its head states")
    if root != kept.root:
        pair = _rewritten(now, before, row.size, kept.size)
        run.evidence = (
            evidence.rewritten_delta(now.checkpoint.origin, vkeys, (sides[0], pair[0]), (sides[1], pair[1]))
            if pair
            else evidence.rewritten_record(now.checkpoint.origin, vkeys, *sides, hashes)
        )
        which = f"row {pair[0].index + 1} is not" if pair else f"the first {kept.size} rows are not"
        raise Difference(f"{which} as the older file has {'it' if pair else 'them'}")
    run.checked.append(f"The first {kept.size} rows of {row.period} are those of the older file.")


def _rewritten(now: Material, before: Material, size: int, old_size: int) -> tuple[Included, Included] | None:
    """Return the first row that both files hold with different contents, with its paths."""
    if now.texts is not None and before.texts is not None:
        for index, (text, was) in enumerate(zip(now.texts(), before.texts(), strict=False)):
            if text != was:
                (old,), (new,) = included_from(before.texts, [index], old_size), included_from(now.texts, [index], size)
                return old, new
        return None
    for place in before.places:
        if now.texts is not None:
            text = next(islice(now.texts(), place.index, None), place.text)
            if text != place.text:
                return place, included_from(now.texts, [place.index], size)[0]
        for other in now.places:
            if other.index == place.index and other.text != place.text:
                return place, other
    return None


def _check_other_period(new: entry.Head, kept: entry.OpenPeriod, run: Run) -> None:
    """The older file is of another period: its row is stated beside the newer one, or as the period before."""
    found = [(row.size, row.root) for row in new.open if (row.rec, row.period) == (kept.rec, kept.period)]
    if new.prev is not None and new.prev.period == kept.period:
        found.append((new.prev.size, new.prev.root))
    for size, root in found:
        if size < kept.size or (size == kept.size and root != kept.root):
            raise Difference(f"the newer head states another record of {kept.period} than the older file")
        run.checked.append(
            f"The newer head states {size} rows of {kept.period}; the older file has {kept.size} of them."
        )
    if not any(root == kept.root for _, root in found):
        run.not_checked.append(f"Not checked: the rows of {kept.period}, which the newer file does not hold.")
