"""Replays the rows of one record: numbers, running totals and hashes, then what the head states of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from shared_record.clock import period_bounds, rfc3339
from shared_record.ledger import amounts, entry, merkle
from shared_record.verifier.chain import stated_period
from shared_record.verifier.trust import Difference, Run

T = TypeVar("T")


class Record(NamedTuple):
    """The record block of an export: whose rows these are, and what they are said to come to."""

    vendor: str
    origin: str
    customer_ref: str
    tree_id: str
    period: str
    unit: str
    size: int
    total: str
    covered_size: int
    covered_total: str


def read_record(text: str) -> Record:
    """Read a record block strictly; else ``ValueError``."""
    return record_of(entry.parse_profile(text))


def record_of(fields: Mapping[str, Any]) -> Record:
    """Turn the members of a parsed record block into a ``Record``; else ``ValueError``."""
    expect(
        fields, "vendor logOrigin customerRef treeId period start end zone unit asOf size total covered", "the record"
    )
    covered = typed(fields, "covered", dict)
    expect(covered, "size total", "covered")
    for name in ("start", "end", "zone", "asOf"):
        typed(fields, name, str)
    period = typed(fields, "period", str)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}", period):
        raise ValueError("period is not YYYY-MM")
    if (fields["start"], fields["end"]) != tuple(rfc3339(bound) for bound in period_bounds(period)):
        raise ValueError(f"start and end are not those of {period}")
    reference = typed(fields, "customerRef", str)
    entry.slot_of(reference)
    return Record(
        vendor=typed(fields, "vendor", str),
        origin=typed(fields, "logOrigin", str),
        customer_ref=reference,
        tree_id=typed(fields, "treeId", str),
        period=period,
        unit=typed(fields, "unit", str),
        size=typed(fields, "size", int),
        total=typed(fields, "total", str),
        covered_size=typed(covered, "size", int),
        covered_total=typed(covered, "total", str),
    )


def present(record: Record, run: Run) -> Record:
    """Note in ``run`` whose record this is said to be, and return it."""
    run.vendor, run.origin, run.customer_ref = record.vendor, record.origin, record.customer_ref
    run.period, run.unit = record.period, record.unit
    return record


class Replay:
    """The rows of ``record`` one by one. Memory does not grow with them."""

    def __init__(self, record: Record, covered: int, run: Run) -> None:
        self.record, self.covered, self.run = record, covered, run
        self.removed = 0
        self.covered_root, self.covered_total = merkle.EMPTY_ROOT, "0"
        self._frontier: list[bytes] = []
        self._total = amounts.Total()
        if record.covered_size != covered:
            raise Difference(f"the record block says {record.covered_size} rows are covered, the proof says {covered}")
        if covered > record.size:
            raise Difference(f"the proof covers {covered} rows, the record block says there are {record.size}")

    @property
    def number(self) -> int:
        """The number of the next row."""
        return self.run.rows + 1

    def compare(self, delta: entry.Entry, leaf: bytes, receipt_id: str | None = None) -> None:
        """Compare the next row with what must come next, and with the ``receipt_id`` it is shown under."""
        self._same("sequence number", delta.seq, self.number)
        if receipt_id is not None:
            self._same("receipt id", receipt_id, entry.receipt_id(leaf))
        self._same("running total", delta.total, self._total.add(delta.qty))
        self._same("period", delta.period, self.record.period)
        self._same("record tree", delta.rec, self.record.tree_id)
        self._same("unit", delta.unit, self.record.unit)
        self._same("meter", delta.meter, entry.METER)
        self._same("sequence number of the meter", delta.mseq, delta.seq)

    def accept(self, leaf: bytes) -> None:
        """Count the row that was just compared."""
        merkle.push(self._frontier, self.run.rows, (leaf,))
        self.run.rows += 1
        self.run.total = self._total.text
        if self.run.rows == self.covered:
            self.covered_root, self.covered_total = merkle.frontier_root(self._frontier), self.run.total

    def check_totals(self) -> None:
        """Compare what the rows gave with the record block."""
        run, record = self.run, self.record
        if run.rows < self.covered:
            raise Difference(f"the file holds {run.rows} rows, the proof covers {self.covered}")
        for what, shown, found in (
            ("number of rows", record.size, run.rows),
            ("total", record.total, run.total),
            ("total of the covered rows", record.covered_total, self.covered_total),
        ):
            if shown != found:
                raise Difference(f"the record block's {what} is {shown}, the rows give {found}")
        run.checked.append(f"Rows are numbered 1 to {run.rows} without a gap, and each hashes to its receipt id.")
        run.checked.append(f"Running totals add up row by row, to {run.total} {record.unit}.")
        removed = f"; those of {self.removed} rows were removed" if self.removed else ""
        run.checked.append(f"Reasons, references and metadata are those that were recorded{removed}.")

    def check_head(self, head: entry.Head, root: bytes) -> None:
        """Compare the covered rows with the ``root`` in the proof and with what ``head`` states."""
        record, size = self.record, self.covered
        if self.covered_root != root:
            raise Difference(f"the root over the first {size} rows is not the root in the proof")
        row = stated_period(head, record.tree_id, record.period)
        if (row.size, row.root) != (size, root):
            raise Difference(f"the head states {row.size} rows and another root than the proof, which has {size}")
        if row.totals != ((entry.METER, record.unit, size, self.covered_total),):
            raise Difference(f"the head states other totals than {self.covered_total} {record.unit} in {size} rows")
        if head.cust != record.customer_ref:
            raise Difference(f"the head is that of {head.cust}, the record is that of {record.customer_ref}")
        self.run.checked.append(f"The first {size} rows have the root and the total that the customer's head states.")

    def _same(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise Difference(f"record {self.number}: {what} is {found}, expected {expected}")


def expect(fields: Mapping[str, Any], names: str, where: str) -> None:
    """Refuse other members than ``names`` with ``ValueError``."""
    if fields.keys() != set(names.split()):
        raise ValueError(f"the fields of {where} are not {names}")


def typed(fields: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a member of exactly this type; else ``ValueError``."""
    value = fields[name]
    if type(value) is not kind:
        raise ValueError(f"{name} is of another type")
    if isinstance(value, str):
        value.encode()  # A lone surrogate is a ValueError here rather than where the text is printed.
    return value
