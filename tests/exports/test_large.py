"""Exports of any size need the same memory, and one that is killed leaves nothing that looks like a whole file."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared_record.clock import period_of
from world import Shop

CUSTOMER = "cust-0001"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MIB = 1 << 20
# Exports in a process of its own, and prints the most memory it ever had, in KiB. (getrusage would count what the
# process that started it had.)
MEASURED = r"""
import re, sys
from pathlib import Path
from shared_record.cli import cli
cli.main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""
# Exports in children that the kernel kills at the write that passes so many bytes; prints how each one ended.
KILLED = """
import os, resource, signal, sys
from pathlib import Path
from shared_record.cli import cli
from shared_record.hooks.loader import load_plugins
load_plugins()
folder, limits, arguments = Path(sys.argv[1]), map(int, sys.argv[2].split(",")), sys.argv[3:]
for limit in limits:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        cli.main([*arguments, "--output", str(folder / f"{limit}.out")], standalone_mode=False)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def stage() -> ModuleType:
    """The module of the benchmarks that writes any number of deltas in bulk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("stage")


@pytest.fixture(scope="module")
def large(stage: ModuleType, soak: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """An installation on disk with 100,000 deltas; with ``--soak`` ten million."""
    with stage.shop_on_sqlite(tmp_path_factory.mktemp("large")) as shop:
        if soak:
            stage.multiply(shop, 10_000_000)
        else:
            stage.fill(shop, 100_000)
        yield shop


@pytest.fixture(scope="module")
def small(stage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The same with 1,000 deltas."""
    with stage.shop_on_sqlite(tmp_path_factory.mktemp("small")) as shop:
        shop.record(CUSTOMER, *["0.25"] * 1_000, reason="=1+1")
        yield shop


def run(shop: Shop, script: str, *arguments: str) -> list[str]:
    environment = os.environ | {"SHARED_RECORD_DATA_DIR": str(Path(str(shop.db.engine.url.database)).parent)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def export(shop: Shop, slug: str) -> list[str]:
    return ["export", CUSTOMER, "--tenant", "acme", "--period", period_of(shop.clock.now()), "--format", slug]


@pytest.mark.parametrize("slug", ["csv", "jsonl", "parquet"])
def test_x03_memory_stays_the_same_whatever_the_number_of_rows(large: Shop, tmp_path: Path, slug: str) -> None:
    target = tmp_path / f"out.{slug}"
    lines = run(large, MEASURED, *export(large, slug), "--output", str(target))
    found = lines[0].rpartition(": ")[2]
    print(f"\n{slug}: {found} At most {int(lines[-1]) // 1024} MiB of memory.")  # for docs/proof.md
    assert int(lines[-1]) * 1024 < 200 * MIB
    assert target.stat().st_size > 5 * MIB


def whole_csv(data: bytes) -> bool:
    *rows, last, end = data.split(b"\r\n")
    return end == b"" and last.startswith(b"total,%d," % (len(rows) - 1))


def whole_jsonl(data: bytes) -> bool:
    *rows, last, end = data.split(b"\n")
    return end == b"" and b'"rows":%d,' % len(rows) in last and "manifest" in json.loads(last)


def whole_json(data: bytes) -> bool:
    try:
        return bool(json.loads(data))
    except ValueError:
        return False


def whole_parquet(data: bytes) -> bool:
    try:
        return b"shared_record.manifest" in pq.ParquetFile(io.BytesIO(data)).metadata.metadata
    except pa.ArrowInvalid:
        return False


WHOLE: dict[str, Callable[[bytes], bool]] = {
    "bundle": lambda data: zipfile.is_zipfile(io.BytesIO(data)),
    "csv": whole_csv,
    "json": whole_json,
    "jsonl": whole_jsonl,
    "parquet": whole_parquet,
    "xlsx": lambda data: zipfile.is_zipfile(io.BytesIO(data)),
}


@pytest.mark.parametrize("slug", ["csv", "jsonl", "parquet"])
def test_x04_killed_at_20_offsets_no_file_looks_complete_that_is_not(small: Shop, tmp_path: Path, slug: str) -> None:
    data = whole(small, tmp_path, slug)
    limits = [len(data) * n // 20 - 8 for n in range(1, 21)]
    ends = run(small, KILLED, str(tmp_path), ",".join(map(str, limits)), *export(small, slug))
    assert [int(end) for end in ends] == [-signal.SIGXFSZ] * 20
    assert [path.name for path in tmp_path.glob("*.out")] == ["whole.out"]
    for part in tmp_path.glob("*.part"):
        assert not WHOLE[slug](part.read_bytes()), part


@pytest.mark.parametrize("slug", WHOLE)
def test_x04_a_file_that_was_cut_off_shows_it(small: Shop, tmp_path: Path, slug: str) -> None:
    data = whole(small, tmp_path, slug)
    anywhere = {len(data) * n // 20 - 8 for n in range(1, 21)}
    after_lines = {data.rfind(b"\n", 0, offset) + 1 for offset in anywhere}
    assert not any(WHOLE[slug](data[:offset]) for offset in anywhere | after_lines)


def whole(shop: Shop, folder: Path, slug: str) -> bytes:
    target = folder / "whole.out"
    run(shop, MEASURED, *export(shop, slug), "--output", str(target))
    data = target.read_bytes()
    assert WHOLE[slug](data)
    return data
