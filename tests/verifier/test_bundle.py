from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from shared_record.plugin import ExportOptions, ExportSummary
from shared_record.verifier.bundle import check_bundle
from shared_record.verifier.files import check_file
from shared_record.verifier.trust import Outcome, Result
from verifier.test_checks import AMOUNTS, LOG, OTHER_VKEY, TRUSTED, VKEY, Log, build

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "plugins/export_bundle/src/shared_record_export_bundle/__init__.py"
VERIFIERS = ("verify.html", "verify.py")


def load_plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shared_record_export_bundle_by_path", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # The plugin finds its README.txt by its own name.
    spec.submodule_search_locations = [str(SOURCE.parent)]
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PLUGIN = load_plugin()


def write(log: Log) -> tuple[bytes, ExportSummary]:
    out = io.BytesIO()
    summary = PLUGIN.Bundle().write(iter(log.rows), out, ExportOptions(log.facts))
    return out.getvalue(), summary


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def consistent(files: Mapping[str, bytes]) -> bytes:
    """Pack ``files`` with a manifest that lists them as they are, as somebody would who knows how that is made."""
    lines = files["manifest.json"].decode().split("\n")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "manifest.json"}
    listed = ",\n".join(f'"{name}":"{digests[name]}"' for name in sorted(digests))
    text = f'{lines[0]}\n{lines[1]}\n"files":{{\n{listed}}},\n'
    own = hashlib.sha256(text.encode()).hexdigest()
    return packed({**files, "manifest.json": f'{text}"sha256":"{own}"}}\n'.encode()})


def check(data: bytes) -> Outcome:
    return check_bundle(io.BytesIO(data), TRUSTED)


VALID, SUMMARY = write(LOG)
MEMBERS = unpacked(VALID)


@pytest.mark.parametrize("covered", range(1, 8))
def test_a_valid_bundle_matches(covered: int) -> None:
    outcome = check(write(build(AMOUNTS, covered))[0])
    assert (outcome.reason, outcome.result) == (None, Result.MATCHES)
    assert (outcome.rows, outcome.covered, outcome.total) == (7, covered, LOG.rows[-1].running_total)
    assert (outcome.vendor, outcome.period, outcome.key_source) == ("Acme", "2026-11", "the policy file")


def test_the_summary_is_the_ledgers() -> None:
    assert ExportSummary(7, LOG.rows[-1].running_total, LOG.rows[0].record_id, LOG.rows[-1].record_id) == SUMMARY


def test_the_same_record_gives_the_same_bytes() -> None:
    assert write(LOG)[0] == VALID
    with zipfile.ZipFile(io.BytesIO(VALID)) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_unpacked_bundle_matches_and_may_hold_other_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(VALID)) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert check_file(tmp_path, TRUSTED).result is Result.MATCHES
    (tmp_path / "entries.jsonl").unlink()
    outcome = check_file(tmp_path, TRUSTED)
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "entries.jsonl is missing")


def test_the_key_of_the_bundle_itself_is_said_to_be_that() -> None:
    outcome = check_bundle(io.BytesIO(VALID))
    assert (outcome.result, outcome.key_from_file, outcome.vkeys) == (Result.MATCHES, True, (VKEY,))


@pytest.mark.parametrize("parts", [(), AMOUNTS])
def test_without_a_checkpoint_the_rows_are_still_replayed(parts: tuple[str, ...]) -> None:
    data, _ = write(build(parts, 0))
    names = {"README.txt", "manifest.json", "entries.jsonl", "details.jsonl", *VERIFIERS}
    assert unpacked(data).keys() == names
    outcome = check(data)
    assert (outcome.result, outcome.reason) == (Result.UNKNOWN, "no checkpoint covers this record yet")
    assert outcome.rows == len(parts)


def test_details_that_retention_removed_still_match() -> None:
    log = build(change=lambda row: row._replace(reference=None, reason=None, metadata_json=None, detail_salt=None))
    data, _ = write(log)
    assert unpacked(data)["details.jsonl"] == b'{"detailSalt":null}\n' * 7
    assert "those of 7 rows were removed" in " ".join(check(data).checked)


def edited(name: str, old: bytes, new: bytes) -> dict[str, bytes]:
    assert old in MEMBERS[name]
    return {**MEMBERS, name: MEMBERS[name].replace(old, new, 1)}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (edited("entries.jsonl", b'"qty":"1000"', b'"qty":"1001"'), "record 4: running total is 1003.75"),
        (edited("entries.jsonl", b"T08:03", b"T08:04"), "the root over the first 5 rows is not the root in the proof"),
        (edited("details.jsonl", b"batch 3", b"batch 4"), "record 3: reason, reference or metadata are not those"),
        (edited("details.jsonl", b"ref-3", b"ref-4"), "record 3: reason, reference or metadata are not those"),
        (edited("head.json", b"s2-", b"s3-"), "head.json is not the one in the receipt"),
        (edited("epoch.json", b'"epoch":2', b'"epoch":3'), "epoch.json is not the one in the receipt"),
        (edited("policy", VKEY.encode(), OTHER_VKEY.encode()), "the file names another key for the log"),
        (edited("known-checkpoints/3.note", b"\n3\n", b"\n4\n"), "the checkpoint is not signed by the key"),
    ],
)
def test_a_forger_who_mends_the_manifest_is_found_by_the_rest(files: dict[str, bytes], reason: str) -> None:
    outcome = check(consistent(files))
    assert outcome.result is Result.DIFFERS
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)
    assert check(packed(files)).result is not Result.MATCHES


@pytest.mark.parametrize(
    ("files", "result", "reason"),
    [
        ({}, Result.UNKNOWN, "manifest.json is missing"),
        ({**MEMBERS, "more.txt": b""}, Result.DIFFERS, "more.txt is not among the files"),
        (edited("manifest.json", b"bundle@v1", b"bundle@v2"), Result.UNKNOWN, "manifest.json is not one of"),
        (edited("manifest.json", b'"size":7', b'"size":8'), Result.DIFFERS, "manifest.json is not as it was written"),
        ({**MEMBERS, "manifest.json": b"\xff"}, Result.UNKNOWN, "manifest.json is not UTF-8"),
        ({**MEMBERS, "README.txt": b"x" * 5_000_000}, Result.UNKNOWN, "README.txt is too long"),
        (edited("entries.jsonl", b"\n", b""), Result.UNKNOWN, "record 1 is malformed"),
        (edited("entries.jsonl", b"{", b"\xff"), Result.UNKNOWN, "entries.jsonl: line 1 is not UTF-8"),
        (edited("details.jsonl", b'{"detailSalt"', b'{ "detailSalt"'), Result.UNKNOWN, "record 1 is malformed"),
    ],
)
def test_other_bundles(files: dict[str, bytes], result: Result, reason: str) -> None:
    outcome = check(packed(files))
    assert outcome.result is result
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize(
    "data", [b"PK", b"PK\x03\x04" + bytes(1000), VALID[: len(VALID) // 2], VALID[200:], b"PK\x05\x06" + b"\xff" * 18]
)
def test_broken_zip_files_cannot_be_checked(data: bytes) -> None:
    assert check_file(io.BytesIO(data), TRUSTED).result is Result.UNKNOWN


def test_every_changed_byte_of_every_file_is_refused(tmp_path: Path) -> None:
    files = unpacked(write(build(("5", "-1.25", "7"), 2))[0])
    every_changed_byte(files, tmp_path, lambda: check_bundle(tmp_path, TRUSTED).result is Result.MATCHES)


def every_changed_byte(files: Mapping[str, bytes], folder: Path, matches: Callable[[], bool]) -> None:
    """Change every byte of all files but the verifiers, one at a time, in an unpacked bundle: none may match."""
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    assert matches()
    for name in files.keys() - set(VERIFIERS):
        with (folder / name).open("r+b", buffering=0) as file:
            for position, byte in enumerate(files[name]):
                for value in (bytes([byte ^ 1]), bytes([byte])):
                    file.seek(position)
                    file.write(value)
                    assert value[0] == byte or not matches(), (name, position)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    (tmp_path / "large.zip").write_bytes(write(build(("1",) * 3000, 3000))[0])
    tracemalloc.start()
    try:
        outcome = check_bundle(tmp_path / "large.zip", TRUSTED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.result is Result.MATCHES
    assert peak < 600_000
