"""Looks in a file for a total that the log signed and that its own rows contradict, and writes the evidence of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from shared_record.ledger import amounts, entry, merkle
from shared_record.ledger.receipt import Included
from shared_record.verifier.chain import check_chain, stated_period
from shared_record.verifier.evidence import check_evidence, wrong_total
from shared_record.verifier.material import Material, read_material
from shared_record.verifier.subtrees import included_from
from shared_record.verifier.trust import KeySource, Result, Run, conclude, parsed


def find_wrong_total(file: BinaryIO | Path, sources: Sequence[KeySource]) -> str | None:
    """Return evidence of a wrong total, or ``None``: also where the rows in the file are not those that were signed."""

    def look(run: Run) -> None:
        material = read_material(file)
        stated = material.statement
        if stated is None:
            return
        head = parsed("the head", entry.parse_head, stated.chain.head)
        check_chain(head, stated.chain, material.checkpoint.origin, material.vkeys, run)
        row = stated_period(head, stated.rec, stated.period)
        places = parsed("a row", lambda given: _contradiction(given, row), material)
        vkeys = [str(key) for key in run.keys]
        if places:
            run.evidence = wrong_total(material.checkpoint.origin, vkeys, stated, places)

    found = conclude(Run(sources), look).evidence
    return found if found is not None and proves(found, sources) else None


def proves(evidence: str, sources: Sequence[KeySource]) -> bool:
    """Tell whether ``evidence`` convinces the judge that others will ask."""
    return check_evidence(evidence.encode(), sources).result is Result.MATCHES


def _contradiction(material: Material, row: entry.OpenPeriod) -> Sequence[Included]:
    if material.texts is None:
        return _among(material.places, row)
    texts = material.texts
    if merkle.root(merkle.leaf_hash(text.encode()) for text in texts()) != row.root:
        return ()
    return included_from(texts, _first_wrong(texts(), row), row.size)


def _first_wrong(texts: Iterable[str], row: entry.OpenPeriod) -> list[int]:
    """Return which entries show a wrong total: two neighbours, the first, or the last beside the head."""
    total, unit = "0", ""
    for index, text in enumerate(texts):
        delta = entry.parse_entry(text)
        if amounts.add(total, delta.qty) != delta.total:
            return [index - 1, index] if index else [0]
        total, unit = delta.total, delta.unit
    return [row.size - 1] if row.totals != ((entry.METER, unit, row.size, total),) else []


def _among(places: Sequence[Included], row: entry.OpenPeriod) -> Sequence[Included]:
    """Return the entries of a receipt, in order, if they are neighbours or the last one: the judge decides."""
    ordered = sorted(places, key=lambda place: place.index)
    if len(ordered) == 2 and ordered[1].index == ordered[0].index + 1:
        first, second = (entry.parse_entry(place.text) for place in ordered)
        if amounts.add(first.total, second.qty) != second.total:
            return ordered
    return ordered[-1:] if ordered and ordered[-1].index in (0, row.size - 1) else ()
