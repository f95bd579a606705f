"""Verification bundles for Shared Record: a ZIP file with every row, the proof, and two verifiers that need no server.

The format is ``shared-record/bundle@v1``; the README beside this package says what each file holds, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import IO, BinaryIO, ClassVar

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    RecordFacts,
    RecordProof,
    Tally,
    forward_only,
    hookimpl,
    mark,
    standalone_verifiers,
    utc_text,
    zip_member,
)

FORMAT = "shared-record/bundle@v1"
_IN_MEMORY = 4 * 1024 * 1024


class Bundle(ExportFormat):
    """Everything needed to check the record offline, today or in ten years."""

    slug: ClassVar[str] = "bundle"
    title: ClassVar[str] = mark("Verification bundle (ZIP)")
    media_type: ClassVar[str] = "application/zip"
    extension: ClassVar[str] = "zip"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write the ZIP file. Members are sorted by name, so entries wait on disk while details are written."""
        record = options.record
        small = {"README.txt": resources.files(__name__).joinpath("README.txt").read_bytes(), **standalone_verifiers()}
        with (
            tempfile.SpooledTemporaryFile(_IN_MEMORY) as entries,
            zipfile.ZipFile(forward_only(out), "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            _store(archive, "README.txt", small["README.txt"])
            with archive.open(zip_member("details.jsonl"), "w", force_zip64=True) as details:
                replay = _Replay(record.proof, _Hashing(entries), _Hashing(details))
                for row in rows:
                    replay.add(row)
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in small.items()}
            digests |= {"details.jsonl": replay.details.digest, "entries.jsonl": replay.entries.digest}
            entries.seek(0)
            with archive.open(zip_member("entries.jsonl"), "w", force_zip64=True) as member:
                while block := entries.read(1 << 20):
                    member.write(block)
            proved = _proved(record.proof, replay) if record.proof else {}
            digests |= {name: hashlib.sha256(data).hexdigest() for name, data in proved.items()}
            rest = {**small, **proved, "manifest.json": _manifest(record, digests)}
            for name in sorted(rest.keys() - {"README.txt"}):
                _store(archive, name, rest[name])
        return replay.summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer bundles."""
    return [Bundle]


class _Hashing:
    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._hash = out, hashlib.sha256()

    def write(self, line: str) -> None:
        data = line.encode()
        self._hash.update(data)
        self._out.write(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class _Replay:
    """Writes the two lines of each row, and keeps what the summary and the receipt need."""

    def __init__(self, proof: RecordProof | None, entries: _Hashing, details: _Hashing) -> None:
        self.entries, self.details = entries, details
        self.last_covered: str = ""
        self.closing = "0"
        self.path: list[bytes] = []
        self._covered = proof.size if proof else 0
        self._frontier: list[bytes] = []
        self._tally = Tally()

    def add(self, row: ExportRow) -> None:
        self.entries.write(f"{row.entry}\n")
        self.details.write(f"{_details(row)}\n")
        self._tally.add(row)
        if self._tally.rows == self._covered:
            # Left of a tree's last leaf stand the complete subtrees of all others: they are its audit path.
            self.path = self._frontier[::-1]
            self.last_covered, self.closing = row.entry, row.running_total
        elif self._tally.rows < self._covered:
            self._push(hashlib.sha256(b"\0" + row.entry.encode()).digest())

    def _push(self, h: bytes) -> None:
        index = self._tally.rows - 1
        while index & 1:
            h = hashlib.sha256(b"\1" + self._frontier.pop() + h).digest()
            index >>= 1
        self._frontier.append(h)

    @property
    def summary(self) -> ExportSummary:
        return self._tally.summary


def _details(row: ExportRow) -> str:
    if row.detail_salt is None:
        return '{"detailSalt":null}'
    return (
        f'{{"detailSalt":"{row.detail_salt}","metadata":{row.metadata_json or "null"},'
        f'"reason":{_json(row.reason)},"referenceId":{_json(row.reference)}}}'
    )


def _proved(proof: RecordProof, replay: _Replay) -> dict[str, bytes]:
    policy = "".join(f"log {vkey}\n" for vkey in proof.vkeys) + "quorum none\n"
    files = {
        "epoch.json": proof.epoch,
        "head.json": proof.head,
        f"known-checkpoints/{proof.log_size}.note": proof.checkpoint,
        "policy": policy,
        "receipt.tlog-proof": _receipt(proof, replay),
    }
    for anchored in proof.anchors:
        files[f"known-checkpoints/{anchored.size}.note"] = anchored.note
        files[f"anchors/{anchored.size}.{anchored.kind}"] = f"{_base64(anchored.proof)}\n"
    return {name: text.encode() for name, text in files.items()}


def _receipt(proof: RecordProof, replay: _Replay) -> str:
    """Return the receipt of rows 1 to ``proof.size`` (C2SP tlog-proof; ``extra`` is RFC 8785 JSON)."""
    extra = {
        "entry": replay.last_covered,
        "epoch": proof.epoch,
        "head": proof.head,
        "rec": [proof.size - 1, proof.size, [_base64(node) for node in replay.path]],
        "slot": [proof.slot_index, proof.slot_count, [_base64(node) for node in proof.slot_path]],
        "window": {
            "before": {},
            "closing": replay.closing,
            "from": 0,
            "opening": "0",
            "root": _base64(proof.root),
            "size": proof.size,
            "to": proof.size,
        },
    }
    path = "".join(f"{_base64(node)}\n" for node in proof.log_path)
    return (
        f"c2sp.org/tlog-proof@v1\nextra {_base64(_json(extra).encode())}\nindex {proof.log_index}\n{path}\n"
        f"{proof.checkpoint}"
    )


def _manifest(record: RecordFacts, digests: Mapping[str, str]) -> bytes:
    facts = {
        "vendor": record.vendor,
        "logOrigin": record.log_origin,
        "customerRef": record.customer_ref,
        "treeId": record.tree_id,
        "period": record.period,
        "start": utc_text(record.start),
        "end": utc_text(record.end),
        "zone": record.zone,
        "unit": record.unit,
        "asOf": utc_text(record.as_of),
        "size": record.size,
        "total": record.total,
        "covered": {"size": record.covered_size, "total": record.covered_total},
    }
    files = ",\n".join(f"{_json(name)}:{_json(digests[name])}" for name in sorted(digests))
    text = f'{{"format":{_json(FORMAT)},\n"record":{_json(facts)},\n"files":{{\n{files}}},\n'
    return f'{text}"sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    with archive.open(zip_member(name), "w") as member:
        member.write(data)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
