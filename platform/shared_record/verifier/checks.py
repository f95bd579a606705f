"""Checks an exported record against itself and against the signed checkpoint it carries. No network, no database.

Three outcomes only: it matches, it does not match (the first difference is named), or it could not be checked (and
why). Whatever bytes the file holds, nothing raises. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeVar

from shared_record.clock import period_bounds, rfc3339
from shared_record.ledger import amounts, entry, merkle, note

FORMAT = "shared-record/export@v1"
MAX_LINE = 4 * 1024 * 1024
NOT_CHECKED = (
    "Not checked: prices, contract terms, how the vendor measured usage, and the vendor name, time zone and time of "
    "export that the file shows."
)

KeySource = tuple[str, Mapping[str, Sequence[str]]]
"""Where keys come from, for people (for example ``the policy file``), and what it knows: origin to vkeys."""

T = TypeVar("T")
Given = TypeVar("Given")


class Result(StrEnum):
    """What a check found."""

    MATCHES = "matches"
    DIFFERS = "does not match"
    UNKNOWN = "could not be checked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found: ``reason`` names the first difference, or why nothing could be said.

    The first ``rows`` rows were read and found good, and sum to ``total``; the checkpoint proves ``covered`` of them.
    ``vkeys`` are the keys that counted, from ``key_source``; ``key_from_file`` says that nobody but the file itself
    vouches for them.
    """

    result: Result
    reason: str | None
    checked: tuple[str, ...]
    vendor: str
    origin: str
    customer_ref: str
    period: str
    unit: str
    total: str
    rows: int
    covered: int
    key_source: str | None
    key_from_file: bool
    vkeys: tuple[str, ...]
    fingerprints: tuple[str, ...]

    @property
    def not_covered(self) -> int:
        """How many rows no checkpoint covers yet."""
        return self.rows - self.covered


def check_export(file: BinaryIO | Path, sources: Sequence[KeySource] = ()) -> Outcome:
    """Check a JSON export. The first of ``sources`` that knows the log says which keys count; else the file's own."""
    run = _Run()
    result, reason = Result.MATCHES, None
    try:
        if isinstance(file, Path):
            with file.open("rb") as stream:
                _check(stream, sources, run)
        else:
            _check(file, sources, run)
    except _Difference as difference:
        result, reason = Result.DIFFERS, str(difference)
    except _Unusable as unusable:
        result, reason = Result.UNKNOWN, str(unusable)
    except OSError as error:
        result, reason = Result.UNKNOWN, f"the file cannot be read: {error.strerror or error}"
    record = run.record
    return Outcome(
        result=result,
        reason=None if reason is None else _printable(reason),
        checked=tuple(_printable(line) for line in run.checked),
        vendor=_printable(record.vendor) if record else "",
        origin=_printable(record.origin) if record else "",
        customer_ref=record.customer_ref if record else "",
        period=record.period if record else "",
        unit=_printable(record.unit) if record else "",
        total=run.shown_total,
        rows=run.rows,
        covered=run.covered,
        key_source=run.key_source,
        key_from_file=run.key_from_file,
        vkeys=tuple(str(key) for key in run.keys),
        fingerprints=tuple(key.fingerprint for key in run.keys),
    )


class _Difference(Exception):
    """The file contradicts itself, its proof, or a known key."""


class _Unusable(Exception):
    """Nothing can be said of the file."""


class _Record(NamedTuple):
    vendor: str
    origin: str
    customer_ref: str
    slot: int
    tree_id: str
    period: str
    unit: str
    size: int
    total: str
    covered_size: int
    covered_total: str


class _Proof(NamedTuple):
    size: int
    root: bytes
    head: str
    slot_index: int
    slot_count: int
    slot_path: list[bytes]
    epoch: str
    log_index: int
    log_size: int
    log_path: list[bytes]
    checkpoint: str
    vkeys: list[str]


@dataclass(slots=True)
class _Run:
    record: _Record | None = None
    checked: list[str] = field(default_factory=list)
    frontier: list[bytes] = field(default_factory=list)
    rows: int = 0
    removed: int = 0
    total: amounts.Total = field(default_factory=amounts.Total)
    shown_total: str = "0"
    covered: int = 0
    covered_root: bytes = merkle.EMPTY_ROOT
    covered_total: str = "0"
    key_source: str | None = None
    key_from_file: bool = False
    keys: list[note.VerifierKey] = field(default_factory=list)


def _check(stream: BinaryIO, sources: Sequence[KeySource], run: _Run) -> None:
    lines = _lines(stream)
    _read_format(lines)
    record = run.record = _parsed("the record block", _read_record, _member(next(lines), "record"))
    proof = _parsed("the proof block", _read_proof, _member(next(lines), "proof"))
    _check_record(record, proof)
    if next(lines) != '"rows":[':
        raise _Unusable("the file was re-formatted or damaged after the proof block; use the export as it was saved")
    covered = proof.size if proof else 0
    for row in _rows(stream, lines):
        _check_row(row, record, covered, run)
    run.checked.append(f"The file is a complete {FORMAT} document.")
    _check_totals(record, covered, run)
    if proof is None:
        raise _Unusable("no checkpoint covers this record yet")
    head = _check_head(record, proof, run)
    epoch = _check_epoch(head, proof, run)
    _check_checkpoint(epoch, record, proof, sources, run)
    run.covered = covered


# --- Reading ---------------------------------------------------------------------------------------------------------


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Yield lines without their newline. The end is an error here: a complete file stops being read before it."""
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise _Unusable(f"line {number} is too long")
        if not line.endswith(b"\n"):
            break
        try:
            yield line[:-1].decode()
        except UnicodeDecodeError as error:
            raise _Unusable(f"line {number} is not UTF-8") from error
    raise _Unusable("the file is empty" if not number else f"the file ends early, in or after line {number}")


def _read_format(lines: Iterator[str]) -> None:
    first = next(lines)
    if first == f'{{"format":"{FORMAT}",':
        return
    if re.match(r'\{"format":"shared-record/export@v(?!1")', first):
        raise _Unusable(f"the file has another version of the format than {FORMAT}")
    raise _Unusable(f"this is not a {FORMAT} file as it was saved; only JSON exports carry proofs")


def _member(line: str, name: str) -> str:
    prefix = f'"{name}":'
    if not line.startswith(prefix) or not line.endswith(","):
        raise _Unusable(f"the {name} block is not where it belongs: the file was re-formatted or damaged")
    return line[len(prefix) : -1]


def _parsed(what: str, read: Callable[[Given], T], given: Given) -> T:
    try:
        return read(given)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _Unusable(f"{what} is malformed: it is not JSON") from error
    except (ValueError, OverflowError) as error:
        raise _Unusable(f"{what} is malformed: {error}") from error


def _read_record(text: str) -> _Record:
    fields = entry.parse_profile(text)
    _expect(
        fields, "vendor logOrigin customerRef treeId period start end zone unit asOf size total covered", "the record"
    )
    covered = _typed(fields, "covered", dict)
    _expect(covered, "size total", "covered")
    for name in ("start", "end", "zone", "asOf"):
        _typed(fields, name, str)
    period = _typed(fields, "period", str)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}", period):
        raise ValueError("period is not YYYY-MM")
    if (fields["start"], fields["end"]) != tuple(rfc3339(bound) for bound in period_bounds(period)):
        raise ValueError(f"start and end are not those of {period}")
    reference = _typed(fields, "customerRef", str)
    return _Record(
        vendor=_typed(fields, "vendor", str),
        origin=_typed(fields, "logOrigin", str),
        customer_ref=reference,
        slot=entry.slot_of(reference),
        tree_id=_typed(fields, "treeId", str),
        period=period,
        unit=_typed(fields, "unit", str),
        size=_typed(fields, "size", int),
        total=_typed(fields, "total", str),
        covered_size=_typed(covered, "size", int),
        covered_total=_typed(covered, "total", str),
    )


def _read_proof(text: str) -> _Proof | None:
    if text == "null":
        return None
    fields = entry.parse_profile(text)
    _expect(fields, "size root head slot epoch log checkpoint vkeys", "the proof")
    slot, log = _typed(fields, "slot", dict), _typed(fields, "log", dict)
    _expect(slot, "index count path", "slot")
    _expect(log, "index size path", "log")
    size = _typed(fields, "size", int)
    if size < 1:
        raise ValueError("a proof covers at least one row")
    return _Proof(
        size=size,
        root=_hash(_typed(fields, "root", str)),
        head=_typed(fields, "head", str),
        slot_index=_typed(slot, "index", int),
        slot_count=_typed(slot, "count", int),
        slot_path=[_hash(node) for node in _texts(slot, "path")],
        epoch=_typed(fields, "epoch", str),
        log_index=_typed(log, "index", int),
        log_size=_typed(log, "size", int),
        log_path=[_hash(node) for node in _texts(log, "path")],
        checkpoint=_typed(fields, "checkpoint", str),
        vkeys=_texts(fields, "vkeys"),
    )


def _rows(stream: BinaryIO, lines: Iterator[str]) -> Iterator[str]:
    line = next(lines)
    while line != "]}":
        following = next(lines)
        if line.endswith(",") == (following == "]}"):
            raise _Unusable("the list of rows is damaged")
        yield line.removesuffix(",")
        line = following
    if stream.read(1):
        raise _Unusable("something follows the end of the document")


class _Row(NamedTuple):
    entry: entry.Entry
    leaf: bytes
    receipt_id: str
    state: str
    reason: str | None
    reference: str | None
    metadata: str
    salt: str | None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=entry.unique_keys, parse_constant=_no_constant)
_ROW_FIELDS = ("entry", "receiptId", "state", "reason", "referenceId", "metadata", "detailSalt")


def _read_row(line: str) -> _Row:
    """Read one row line. Entry and metadata are hashed as they stand here, so their exact extent is kept."""
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    position, opening = 0, "{"
    for name in _ROW_FIELDS:
        prefix = f'{opening}"{name}":'
        if not line.startswith(prefix, position):
            raise ValueError(f"{name} is not where it belongs")
        start = position + len(prefix)
        decoder = entry.PROFILE_DECODER if name == "entry" else _DECODER
        values[name], position = decoder.raw_decode(line, start)
        texts[name] = line[start:position]
        opening = ","
    if line[position:] != "}":
        raise ValueError("something follows the last field")
    if len(texts["entry"].encode()) > entry.MAX_ENTRY:
        raise ValueError("the entry is too long")
    return _Row(
        entry=entry.entry_of(_typed(values, "entry", dict)),
        leaf=merkle.leaf_hash(texts["entry"].encode()),
        receipt_id=_typed(values, "receiptId", str),
        state=_typed(values, "state", str),
        reason=_optional(values, "reason"),
        reference=_optional(values, "referenceId"),
        metadata=texts["metadata"],
        salt=_optional(values, "detailSalt"),
    )


# --- Checking --------------------------------------------------------------------------------------------------------


def _check_record(record: _Record, proof: _Proof | None) -> None:
    covered = proof.size if proof else 0
    if record.covered_size != covered:
        raise _Difference(f"the record block says {record.covered_size} rows are covered, the proof says {covered}")
    if covered > record.size:
        raise _Difference(f"the proof covers {covered} rows, the record block says there are {record.size}")


def _check_row(line: str, record: _Record, covered: int, run: _Run) -> None:
    number = run.rows + 1
    row = _parsed(f"record {number}", _read_row, line)
    delta = row.entry
    _same(number, "sequence number", delta.seq, number)
    _same(number, "receipt id", row.receipt_id, entry.receipt_id(row.leaf))
    _same(number, "running total", delta.total, run.total.add(delta.qty))
    _same(number, "period", delta.period, record.period)
    _same(number, "record tree", delta.rec, record.tree_id)
    _same(number, "unit", delta.unit, record.unit)
    _same(number, "meter", delta.meter, entry.METER)
    _same(number, "sequence number of the meter", delta.mseq, delta.seq)
    _check_details(number, row, run)
    if (row.state == "verified") != (number <= covered) or row.state not in ("verified", "recorded", "recording"):
        raise _Difference(f"record {number}: state is {row.state}, but the proof covers {covered} rows")
    merkle.push(run.frontier, run.rows, (row.leaf,))
    run.rows, run.shown_total = number, delta.total
    if number == covered:
        run.covered_root, run.covered_total = merkle.frontier_root(run.frontier), run.total.text


def _check_details(number: int, row: _Row, run: _Run) -> None:
    if row.salt is None:
        if (row.reason, row.reference, row.metadata) != (None, None, "null"):
            raise _Difference(f"record {number}: details are shown without the salt that ties them to the entry")
        run.removed += 1
        return
    if not re.fullmatch(r"[0-9a-f]{32}", row.salt):
        raise _Unusable(f"record {number} is malformed: the salt of its details is not 32 hex digits")
    try:
        found = entry.detail_hash(bytes.fromhex(row.salt), row.reason, row.reference, row.metadata)
    except ValueError as error:
        raise _Unusable(f"record {number} is malformed: {error}") from error
    if found != row.entry.mh:
        raise _Difference(f"record {number}: reason, reference or metadata are not those that were recorded")


def _check_totals(record: _Record, covered: int, run: _Run) -> None:
    if run.rows < covered:
        raise _Difference(f"the file holds {run.rows} rows, the proof covers {covered}")
    for what, shown, found in (
        ("number of rows", record.size, run.rows),
        ("total", record.total, run.total.text),
        ("total of the covered rows", record.covered_total, run.covered_total),
    ):
        if shown != found:
            raise _Difference(f"the record block's {what} is {shown}, the rows give {found}")
    run.checked.append(f"Rows are numbered 1 to {run.rows} without a gap, and each hashes to its receipt id.")
    run.checked.append(f"Running totals add up row by row, to {run.total.text} {record.unit}.")
    removed = f"; those of {run.removed} rows were removed" if run.removed else ""
    run.checked.append(f"Reasons, references and metadata are those that were recorded{removed}.")


def _check_head(record: _Record, proof: _Proof, run: _Run) -> entry.Head:
    if run.covered_root != proof.root:
        raise _Difference(f"the root over the first {proof.size} rows is not the root in the proof")
    head = _parsed("the head", entry.parse_head, proof.head)
    stated = [row for row in head.open if (row.rec, row.period) == (record.tree_id, record.period)]
    if len(stated) != 1:
        raise _Difference(f"the head does not state the record {record.tree_id} of {record.period}")
    row = stated[0]
    if (row.size, row.root) != (proof.size, proof.root):
        raise _Difference(f"the head states {row.size} rows and another root than the proof, which has {proof.size}")
    expected = ((entry.METER, record.unit, proof.size, run.covered_total),)
    if row.totals != expected:
        raise _Difference(f"the head states other totals than {run.covered_total} {record.unit} in {proof.size} rows")
    if head.cust != record.customer_ref:
        raise _Difference(f"the head is that of {head.cust}, the record is that of {record.customer_ref}")
    run.checked.append(f"The first {proof.size} rows have the root and the total that the customer's head states.")
    return head


def _check_epoch(head: entry.Head, proof: _Proof, run: _Run) -> entry.Epoch:
    epoch = _parsed("the epoch record", entry.parse_epoch, proof.epoch)
    if proof.slot_index != head.slot:
        raise _Difference(f"the head is proved at slot {proof.slot_index}, its customer has slot {head.slot}")
    if head.epoch != epoch.epoch:
        raise _Difference(f"the head is of epoch {head.epoch}, the epoch record is {epoch.epoch}")
    if proof.slot_count != epoch.slots:
        raise _Difference(f"the proof has {proof.slot_count} slots, the epoch record {epoch.slots}")
    leaf = merkle.leaf_hash(proof.head.encode())
    if not merkle.verify_inclusion(leaf, head.slot, epoch.slots, proof.slot_path, epoch.root):
        raise _Difference(f"the head is not in slot {head.slot} of epoch {epoch.epoch}")
    run.checked.append(f"The head is in slot {head.slot}, the customer's own, of epoch {epoch.epoch} ({epoch.ts}).")
    return epoch


def _check_checkpoint(
    epoch: entry.Epoch, record: _Record, proof: _Proof, sources: Sequence[KeySource], run: _Run
) -> None:
    _choose_keys(record.origin, proof.vkeys, sources, run)
    try:
        body = note.open_note(proof.checkpoint, run.keys)
    except ValueError as error:
        raise _Difference(f"the checkpoint is not signed by the key from {run.key_source}: {error}") from error
    # Only a key that signed is worth remembering: a file could list others beside it.
    run.keys = [key for key in run.keys if _signed(proof.checkpoint, key)]
    checkpoint = _parsed("the checkpoint", note.parse_checkpoint, body)
    if checkpoint.origin != record.origin:
        raise _Difference(f"the checkpoint is of the log {checkpoint.origin}, the record of {record.origin}")
    if proof.log_size != checkpoint.size:
        raise _Difference(f"the proof has a log of {proof.log_size} epochs, the checkpoint one of {checkpoint.size}")
    if proof.log_index != epoch.epoch:
        raise _Difference(f"the epoch record is {epoch.epoch}, but it is proved at {proof.log_index}")
    leaf = merkle.leaf_hash(proof.epoch.encode())
    if not merkle.verify_inclusion(leaf, epoch.epoch, checkpoint.size, proof.log_path, checkpoint.root):
        raise _Difference(f"epoch {epoch.epoch} is not in the log that the checkpoint signs")
    run.checked.append(f"Epoch {epoch.epoch} is in the log {checkpoint.origin} at size {checkpoint.size}.")
    run.checked.append(f"The checkpoint of that size is signed by the key from {run.key_source}.")


def _choose_keys(origin: str, vkeys: Sequence[str], sources: Sequence[KeySource], run: _Run) -> None:
    own = [key for key in _parsed("the list of keys", _keys, vkeys) if key.name == origin]
    for name, logs in sources:
        if known := logs.get(origin):
            run.key_source, run.keys = name, _parsed(f"the key from {name}", _keys, known)
            if own and not {str(key) for key in own} & {str(key) for key in run.keys}:
                raise _Difference(f"the file names another key for the log {origin} than {name}")
            return
    if not own:
        raise _Unusable(f"no key of the log {origin} is known, and the file names none")
    run.key_source, run.key_from_file, run.keys = "this file", True, own


def _signed(text: str, key: note.VerifierKey) -> bool:
    try:
        note.open_note(text, [key])
    except ValueError:
        return False
    return True


# --- Small readers ---------------------------------------------------------------------------------------------------


def _same(number: int, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise _Difference(f"record {number}: {what} is {found}, expected {expected}")


def _expect(fields: Mapping[str, Any], names: str, where: str) -> None:
    if fields.keys() != set(names.split()):
        raise ValueError(f"the fields of {where} are not {names}")


def _typed(fields: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = fields[name]
    if type(value) is not kind:
        raise ValueError(f"{name} is of another type")
    if isinstance(value, str):
        value.encode()  # A lone surrogate is a ValueError here rather than where the text is printed.
    return value


def _optional(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields[name] is None else _typed(fields, name, str)


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    return [_typed({name: item}, name, str) for item in _typed(fields, name, list)]


def _hash(text: str) -> bytes:
    value = note.b64decode(text)
    if len(value) != merkle.HASH_SIZE:
        raise ValueError("a hash has 32 bytes")
    return value


def _keys(vkeys: Sequence[str]) -> list[note.VerifierKey]:
    return [note.VerifierKey.parse(vkey) for vkey in vkeys]


def _printable(text: str) -> str:
    """Return file content so that a terminal takes it as text: no control characters, no endless lines."""
    clipped = text if len(text) <= 300 else text[:299] + "…"
    return "".join(c if c.isprintable() else "?" for c in clipped)
