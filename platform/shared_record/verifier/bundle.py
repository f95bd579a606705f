"""Checks an export bundle (``.zip``, or the folder it was unpacked to): its digests, every row, and its receipt.

No network, no database, nothing raises. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from shared_record.ledger import entry, merkle, note
from shared_record.ledger.receipt import Receipt, check_canonical
from shared_record.verifier.checks import MAX_LINE
from shared_record.verifier.receipts import check_proof, read_receipt
from shared_record.verifier.replay import Record, Replay, expect, present, record_of, typed
from shared_record.verifier.trust import (
    AnchorFile,
    Difference,
    KeySource,
    Outcome,
    Run,
    Unusable,
    conclude,
    open_checkpoint,
    parsed,
)

FORMAT = "shared-record/bundle@v1"
MANIFEST, ENTRIES, DETAILS, RECEIPT = "manifest.json", "entries.jsonl", "details.jsonl", "receipt.tlog-proof"
ALWAYS = {"README.txt", DETAILS, ENTRIES, "verify.html", "verify.py"}
PROVED = {"epoch.json", "head.json", "policy", RECEIPT}
MAX_FILES = 1000

_ANCHOR = re.compile(r"anchors/(0|[1-9][0-9]{0,15})\.([a-z][a-z0-9_]{0,62})", re.ASCII)
_KNOWN = re.compile(r"known-checkpoints/(0|[1-9][0-9]{0,15})\.note", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SELF_DIGEST = re.compile(r'"sha256":"([0-9a-f]{64})"\}\n\Z')
_DETAILS = re.compile(r'\{"detailSalt":"([0-9a-f]{32})",("metadata":.*\})', re.DOTALL)
_REMOVED = '{"detailSalt":null}'
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)

Open = Callable[[str], IO[bytes]]


def check_bundle(
    file: BinaryIO | Path, sources: Sequence[KeySource] = (), policy: note.Policy | None = None
) -> Outcome:
    """Check a bundle: a ZIP file, an open seekable one, or the folder it was unpacked to."""

    def check(run: Run) -> None:
        with _opened(file) as (names, open_member):
            _check(names, open_member, run)

    return conclude(Run(sources, policy=policy), check)


def read_bundle_parts(file: BinaryIO | Path) -> tuple[Receipt, list[str], Callable[[], Iterator[str]]] | None:
    """Return receipt, keys and entries of a bundle without judging what they say; ``None`` without a receipt.

    The entries' texts are read anew with each call. What is no bundle is ``Unusable``, also while entries are read.
    """

    def entries() -> Iterator[str]:
        with _opened(file) as (names, open_member), _open(ENTRIES, names, open_member) as stream:
            yield from _Lines(ENTRIES, stream)

    with _opened(file) as (names, open_member):
        if RECEIPT not in _read_manifest(_read(MANIFEST, names, open_member)).digests:
            return None
        receipt = read_receipt(_read(RECEIPT, names, open_member))
        return receipt, parsed("the policy", _policy_keys, _read("policy", names, open_member)), entries


class _Manifest(NamedTuple):
    record: Record
    digests: Mapping[str, str]


@contextmanager
def _opened(file: BinaryIO | Path) -> Iterator[tuple[set[str] | None, Open]]:
    """Give the names in the bundle (``None`` for a folder, which may hold other files) and a way to open them."""
    if isinstance(file, Path) and file.is_dir():
        folder = file
        yield None, lambda name: (folder / name).open("rb")
        return
    try:
        archive = zipfile.ZipFile(file)
    except _BROKEN_ZIP as error:
        raise Unusable("this is not a complete ZIP file") from error
    with archive:
        infos = archive.infolist()
        names = {info.filename for info in infos}
        if len(infos) > MAX_FILES or len(names) < len(infos):
            raise Unusable("the ZIP file holds too many files, or one name twice")
        if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in infos):
            raise Unusable("the ZIP file is packed in a way that is not used here")
        try:
            yield names, archive.open
        except _BROKEN_ZIP as error:
            raise Unusable("the ZIP file is damaged") from error


def _check(names: set[str] | None, open_member: Open, run: Run) -> None:
    manifest = _read_manifest(_read(MANIFEST, names, open_member))
    record = present(manifest.record, run)
    for name in sorted(names - manifest.digests.keys() - {MANIFEST} if names else ()):
        raise Difference(f"{name} is not among the files that {MANIFEST} lists")
    texts: dict[str, bytes] = {}
    for name in sorted(manifest.digests.keys() - {ENTRIES, DETAILS}):
        texts[name] = _read(name, names, open_member)
        _compare_digest(name, hashlib.sha256(texts[name]).hexdigest(), manifest)
    receipt = read_receipt(texts[RECEIPT]) if RECEIPT in texts else None
    replay = Replay(record, _covered(receipt), run)
    _check_rows(names, open_member, replay, manifest)
    run.checked.append(f"The file is a complete {FORMAT} bundle: {len(manifest.digests)} files have their digests.")
    replay.check_totals()
    if receipt is None or receipt.window is None or receipt.window.root is None:
        raise Unusable("no checkpoint covers this record yet")
    _check_copies(receipt, texts)
    vkeys = parsed("the policy", _policy_keys, texts["policy"])
    root, size, total = receipt.window.root, run.rows, run.total
    head = check_proof(receipt, record.origin, vkeys, run)
    run.rows, run.total = size, total
    replay.check_head(head, root)
    _check_known(receipt, texts, run)
    run.anchors += _anchors(texts)


# --- Reading ---------------------------------------------------------------------------------------------------------


def _open(name: str, names: set[str] | None, open_member: Open) -> IO[bytes]:
    if names is not None and name not in names:
        raise Unusable(f"{name} is missing")
    try:
        return open_member(name)
    except FileNotFoundError as error:
        raise Unusable(f"{name} is missing") from error


def _read(name: str, names: set[str] | None, open_member: Open) -> bytes:
    with _open(name, names, open_member) as stream:
        data = stream.read(MAX_LINE + 1)
    if len(data) > MAX_LINE:
        raise Unusable(f"{name} is too long")
    return data


def _read_manifest(data: bytes) -> _Manifest:
    text = _decoded(MANIFEST, data)
    if not text.startswith(f'{{"format":"{FORMAT}",\n'):
        raise Unusable(f"{MANIFEST} is not one of {FORMAT}, or of another version of it")
    stated = _SELF_DIGEST.search(text)
    if stated is None:
        raise Unusable(f"{MANIFEST} ends early")
    if hashlib.sha256(text[: stated.start()].encode()).hexdigest() != stated[1]:
        raise Difference(f"{MANIFEST} is not as it was written: its own digest differs")
    return parsed(MANIFEST, _manifest_of, text)


def _manifest_of(text: str) -> _Manifest:
    fields = entry.parse_profile(text)
    expect(fields, "format record files sha256", "the manifest")
    digests = typed(fields, "files", dict)
    for name in digests:
        if not _SHA256.fullmatch(typed(digests, name, str)):
            raise ValueError("a digest is not 64 hex digits")
    known = {name for name in digests if _KNOWN.fullmatch(name)}
    anchors = {name for name in digests if _ANCHOR.fullmatch(name)}
    if digests.keys() - known - anchors not in (ALWAYS, ALWAYS | PROVED) or bool(known) != (RECEIPT in digests):
        raise ValueError("it lists other files than a bundle has")
    return _Manifest(record_of(typed(fields, "record", dict)), digests)


def _policy_keys(data: bytes) -> list[str]:
    policy = note.parse_policy(data.decode())
    return [vkey for vkeys in policy.logs.values() for vkey in vkeys]


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unusable(f"{name} is not UTF-8") from error


class _Lines:
    """The lines of one file, and the digest of what was read."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._name, self._stream, self._hash = name, stream, hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        number = 0
        while line := self._stream.readline(MAX_LINE + 1):
            number += 1
            self._hash.update(line)
            if len(line) > MAX_LINE or not line.endswith(b"\n"):
                raise Unusable(f"{self._name}: line {number} is too long or ends early")
            yield _decoded(f"{self._name}: line {number}", line[:-1])

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


# --- Checking --------------------------------------------------------------------------------------------------------


def _covered(receipt: Receipt | None) -> int:
    if receipt is None:
        return 0
    if receipt.window is None or receipt.window.start:
        raise Unusable("the receipt is not that of a record from its first row")
    return receipt.window.end


def _check_rows(names: set[str] | None, open_member: Open, replay: Replay, manifest: _Manifest) -> None:
    with ExitStack() as stack:
        entries = _Lines(ENTRIES, stack.enter_context(_open(ENTRIES, names, open_member)))
        details = _Lines(DETAILS, stack.enter_context(_open(DETAILS, names, open_member)))
        for text, detail in itertools.zip_longest(entries, details):
            if text is None or detail is None:
                raise Difference(f"record {replay.number}: {ENTRIES} and {DETAILS} are not equally long")
            delta = parsed(f"record {replay.number}", _read_entry, text)
            leaf = merkle.leaf_hash(text.encode())
            replay.compare(delta, leaf)
            _check_details(detail, delta, replay)
            replay.accept(leaf)
        for lines, name in ((entries, ENTRIES), (details, DETAILS)):
            _compare_digest(name, lines.digest, manifest)


def _read_entry(text: str) -> entry.Entry:
    check_canonical(text)
    return entry.parse_entry(text)


def _check_details(line: str, delta: entry.Entry, replay: Replay) -> None:
    if line == _REMOVED:
        replay.removed += 1
        return
    match = _DETAILS.fullmatch(line)
    if match is None:
        raise Unusable(f"record {replay.number} is malformed: its details are not as they are written")
    # What follows the salt is the very text that was hashed with it.
    if hashlib.sha256(bytes.fromhex(match[1]) + b"{" + match[2].encode()).hexdigest() != delta.mh:
        raise Difference(f"record {replay.number}: reason, reference or metadata are not those that were recorded")


def _compare_digest(name: str, digest: str, manifest: _Manifest) -> None:
    if digest != manifest.digests[name]:
        raise Difference(f"{name} is not the file that {MANIFEST} lists: its digest differs")


def _check_copies(receipt: Receipt, texts: Mapping[str, bytes]) -> None:
    for name, text in (("head.json", receipt.head.text), ("epoch.json", receipt.epoch)):
        if texts[name] != text.encode():
            raise Difference(f"{name} is not the one in the receipt")


def _check_known(receipt: Receipt, texts: Mapping[str, bytes], run: Run) -> None:
    """Every older checkpoint must be signed too; of the receipt's own size there is its own and no other."""
    newest = note.parse_checkpoint(receipt.checkpoint.rpartition("\n\n")[0] + "\n")
    keys = list(run.keys)
    if f"known-checkpoints/{newest.size}.note" not in texts:
        raise Difference("the checkpoint of the receipt is not among the known checkpoints")
    for name, data in sorted(texts.items()):
        if not (match := _KNOWN.fullmatch(name)):
            continue
        text = _decoded(name, data)
        known = open_checkpoint(text, run)
        run.keys = keys
        if (known.origin, known.size) != (newest.origin, int(match[1])):
            raise Difference(f"{name} is a checkpoint of another log or size")
        if known.size == newest.size and text != receipt.checkpoint:
            raise Difference(f"{name} is not the checkpoint of the receipt")


def _anchors(texts: Mapping[str, bytes]) -> Iterator[AnchorFile]:
    """Yield the anchors' proofs: each is base64 on one line, of the known checkpoint of the same size."""
    for name, data in sorted(texts.items()):
        if match := _ANCHOR.fullmatch(name):
            known = texts.get(f"known-checkpoints/{match[1]}.note", b"")
            try:
                proof = note.b64decode(data.decode().removesuffix("\n"))
            except ValueError:
                proof = b""
            yield AnchorFile(name, match[2], int(match[1]), hashlib.sha256(known).digest(), proof)
