"""Checks an exported record against itself and against the signed checkpoint it carries. No network, no database.

Three outcomes only: it matches, it does not match (the first difference is named), or it could not be checked (and
why). Whatever bytes the file holds, nothing raises. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from shared_record.ledger import entry, merkle, note
from shared_record.verifier.chain import Chain, check_chain
from shared_record.verifier.replay import Record, Replay, expect, present, read_record, typed
from shared_record.verifier.trust import (
    NOT_CHECKED,
    Difference,
    KeySource,
    Outcome,
    Result,
    Run,
    Unusable,
    conclude,
    parsed,
)

__all__ = ["FORMAT", "MAX_LINE", "NOT_CHECKED", "KeySource", "Outcome", "Result", "check_export", "read_lines"]

FORMAT = "shared-record/export@v1"
MAX_LINE = 4 * 1024 * 1024


def check_export(
    file: BinaryIO | Path, sources: Sequence[KeySource] = (), policy: note.Policy | None = None
) -> Outcome:
    """Check a JSON export.

    The first of ``sources`` that knows the log says which keys count; else the file's own. ``policy``: whose witnesses
    and quorum count.
    """

    def check(run: Run) -> None:
        if isinstance(file, Path):
            with file.open("rb") as stream:
                _check(stream, run)
        else:
            _check(file, run)

    return conclude(Run(sources, policy=policy), check)


class _Proof(NamedTuple):
    size: int
    root: bytes
    vkeys: list[str]
    chain: Chain


class ExportParts(NamedTuple):
    """The blocks of an export, and the texts of its entries, which are read as they are asked for."""

    record: Record
    size: int
    chain: Chain | None
    vkeys: Sequence[str]
    entries: Iterator[str]


def read_export_parts(stream: BinaryIO) -> ExportParts:
    """Read an export without judging what it says; what is none is ``Unusable``, also while entries are read."""
    lines = read_lines(stream)
    _read_format(lines)
    record = parsed("the record block", read_record, _member(next(lines), "record"))
    proof = parsed("the proof block", _read_proof, _member(next(lines), "proof"))
    next(lines)
    entries = (parsed("a row", _entry_text, row) for row in _rows(stream, lines))
    return ExportParts(record, proof.size if proof else 0, proof and proof.chain, proof.vkeys if proof else (), entries)


def _entry_text(line: str) -> str:
    start = len('{"entry":')
    _, end = entry.PROFILE_DECODER.raw_decode(line, start)
    return line[start:end]


def _check(stream: BinaryIO, run: Run) -> None:
    lines = read_lines(stream)
    _read_format(lines)
    record = present(parsed("the record block", read_record, _member(next(lines), "record")), run)
    proof = parsed("the proof block", _read_proof, _member(next(lines), "proof"))
    replay = Replay(record, proof.size if proof else 0, run)
    if next(lines) != '"rows":[':
        raise Unusable("the file was re-formatted or damaged after the proof block; use the export as it was saved")
    for row in _rows(stream, lines):
        _check_row(row, replay)
    run.checked.append(f"The file is a complete {FORMAT} document.")
    replay.check_totals()
    if proof is None:
        raise Unusable("no checkpoint covers this record yet")
    head = parsed("the head", entry.parse_head, proof.chain.head)
    replay.check_head(head, proof.root)
    check_chain(head, proof.chain, record.origin, proof.vkeys, run)
    run.covered = proof.size


# --- Reading ---------------------------------------------------------------------------------------------------------


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """Yield lines without their newline. The end is an error here: a complete file stops being read before it."""
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise Unusable(f"line {number} is too long")
        if not line.endswith(b"\n"):
            break
        try:
            yield line[:-1].decode()
        except UnicodeDecodeError as error:
            raise Unusable(f"line {number} is not UTF-8") from error
    raise Unusable("the file is empty" if not number else f"the file ends early, in or after line {number}")


def _read_format(lines: Iterator[str]) -> None:
    first = next(lines)
    if first == f'{{"format":"{FORMAT}",':
        return
    if re.match(r'\{"format":"shared-record/export@v(?!1")', first):
        raise Unusable(f"the file has another version of the format than {FORMAT}")
    raise Unusable(f"this is not a {FORMAT} file as it was saved; only JSON exports carry proofs")


def _member(line: str, name: str) -> str:
    prefix = f'"{name}":'
    if not line.startswith(prefix) or not line.endswith(","):
        raise Unusable(f"the {name} block is not where it belongs: the file was re-formatted or damaged")
    return line[len(prefix) : -1]


def _read_proof(text: str) -> _Proof | None:
    if text == "null":
        return None
    fields = entry.parse_profile(text)
    expect(fields, "size root head slot epoch log checkpoint vkeys", "the proof")
    slot, log = typed(fields, "slot", dict), typed(fields, "log", dict)
    expect(slot, "index count path", "slot")
    expect(log, "index size path", "log")
    size = typed(fields, "size", int)
    if size < 1:
        raise ValueError("a proof covers at least one row")
    chain = Chain(
        head=typed(fields, "head", str),
        slot_index=typed(slot, "index", int),
        slot_count=typed(slot, "count", int),
        slot_path=[_hash(node) for node in _texts(slot, "path")],
        epoch=typed(fields, "epoch", str),
        log_index=typed(log, "index", int),
        log_path=[_hash(node) for node in _texts(log, "path")],
        log_size=typed(log, "size", int),
        checkpoint=typed(fields, "checkpoint", str),
    )
    return _Proof(size, _hash(typed(fields, "root", str)), _texts(fields, "vkeys"), chain)


def _rows(stream: BinaryIO, lines: Iterator[str]) -> Iterator[str]:
    line = next(lines)
    while line != "]}":
        following = next(lines)
        if line.endswith(",") == (following == "]}"):
            raise Unusable("the list of rows is damaged")
        yield line.removesuffix(",")
        line = following
    if stream.read(1):
        raise Unusable("something follows the end of the document")


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
        entry=entry.entry_of(typed(values, "entry", dict)),
        leaf=merkle.leaf_hash(texts["entry"].encode()),
        receipt_id=typed(values, "receiptId", str),
        state=typed(values, "state", str),
        reason=_optional(values, "reason"),
        reference=_optional(values, "referenceId"),
        metadata=texts["metadata"],
        salt=_optional(values, "detailSalt"),
    )


# --- Checking --------------------------------------------------------------------------------------------------------


def _check_row(line: str, replay: Replay) -> None:
    number, covered = replay.number, replay.covered
    row = parsed(f"record {number}", _read_row, line)
    replay.compare(row.entry, row.leaf, row.receipt_id)
    _check_details(row, replay)
    if (row.state == "verified") != (number <= covered) or row.state not in ("verified", "recorded", "recording"):
        raise Difference(f"record {number}: state is {row.state}, but the proof covers {covered} rows")
    replay.accept(row.leaf)


def _check_details(row: _Row, replay: Replay) -> None:
    number = replay.number
    if row.salt is None:
        if (row.reason, row.reference, row.metadata) != (None, None, "null"):
            raise Difference(f"record {number}: details are shown without the salt that ties them to the entry")
        replay.removed += 1
        return
    if not re.fullmatch(r"[0-9a-f]{32}", row.salt):
        raise Unusable(f"record {number} is malformed: the salt of its details is not 32 hex digits")
    try:
        found = entry.detail_hash(bytes.fromhex(row.salt), row.reason, row.reference, row.metadata)
    except ValueError as error:
        raise Unusable(f"record {number} is malformed: {error}") from error
    if found != row.entry.mh:
        raise Difference(f"record {number}: reason, reference or metadata are not those that were recorded")


# --- Small readers ---------------------------------------------------------------------------------------------------


def _optional(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields[name] is None else typed(fields, name, str)


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    return [typed({name: item}, name, str) for item in typed(fields, name, list)]


def _hash(text: str) -> bytes:
    value = note.b64decode(text)
    if len(value) != merkle.HASH_SIZE:
        raise ValueError("a hash has 32 bytes")
    return value
