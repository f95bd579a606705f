"""Workers and web servers that die: a file is offered whole or not at all, and nobody takes a part for the whole."""

from __future__ import annotations

import base64
import hashlib
import http.client
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import bindparam

from live_server import serving
from shared_record.clock import SystemClock, period_of
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.db.schema import export_job
from shared_record.exports import building, jobs
from shared_record.exports.building import Builder, folder_of
from shared_record.exports.jobs import Export
from shared_record.exports.service import PLAIN
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.worker import Worker
from world import Shop, open_shop

TESTS = Path(__file__).parents[1]
ROWS = 400
_FORGET = export_job.update().where(export_job.c.tenant_id == bindparam("t")).values(attempts=0)

Run = Callable[[str, int], int]


@contextmanager
def nursery(shop: Shop, folder: Path) -> Iterator[Run]:
    """Start the program that starts workers; what is yielded runs one and returns the signal that ended it."""
    shop.keys.save(folder / "keys.json")
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
    command = [sys.executable, TESTS / "export_nursery.py", shop.db.url, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet, cwd=TESTS
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def run(kind: str, number: int) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            shop.clock.advance(seconds=building.LEASE.seconds)
            process.stdin.write(f"{kind} {number} {shop.clock.now().isoformat()}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


def look(shop: Shop, asked: Export, folder: Path) -> str:
    """Return the state of an export; what is ready must be whole. Its deaths so far are forgiven."""
    with shop.db.write(shop.scope) as connection:
        found = jobs.find(connection, shop.clock, shop.scope, asked.customer_id, asked.export_id)
        connection.execute(_FORGET, {"t": shop.scope.plane})
    assert found is not None
    if found.state == jobs.READY:
        data = (folder_of(folder / "exports", shop.scope) / str(found.file)).read_bytes()
        assert (len(data), hashlib.sha256(data).digest()) == (found.length, found.sha256)
    else:
        assert (found.file, found.length, found.sha256) == (None, None, None)
    return found.state


@pytest.fixture
def asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Export]:
    """Have a file of 400 rows prepared, each time a new one."""
    monkeypatch.setattr(jobs, "AT_ONCE", 2)
    shop.record("cust_a", *["0.25"] * ROWS)

    def ask() -> Export:
        who = shop.link("cust_a").customer_id
        return jobs.ask(shop.db, shop.clock, shop.scope, who, "2026-11", "json", "en", anew=True)

    return ask


def test_x04_a_worker_killed_at_20_offsets_of_a_file_offers_none_of_them(
    shop: Shop, tmp_path: Path, asked: Callable[[], Export]
) -> None:
    with nursery(shop, tmp_path) as run:
        first = asked()
        assert run("life", 0) == 0
        assert look(shop, first, tmp_path) == jobs.READY
        [whole] = folder_of(tmp_path / "exports", shop.scope).iterdir()
        length, second = whole.stat().st_size, asked()
        for n in range(20):
            assert run("bytes", max(0, length * n // 19 - 40)) == -signal.SIGKILL
            assert look(shop, second, tmp_path) == jobs.PREPARING
        assert run("life", 0) == 0
    assert look(shop, second, tmp_path) == jobs.READY
    assert len(list(folder_of(tmp_path / "exports", shop.scope).iterdir())) == 1


@pytest.mark.parametrize("kind", ["step", "disk"])
def test_x04_a_worker_killed_at_any_step_leaves_a_whole_file_or_none(
    shop: Shop, tmp_path: Path, asked: Callable[[], Export], kind: str
) -> None:
    outcomes = []
    with nursery(shop, tmp_path) as run:
        for number in range(1, 100):
            one = asked()
            ended_by = run(kind, number)
            if ended_by == 0:
                break
            assert ended_by == -signal.SIGKILL
            outcomes.append(look(shop, one, tmp_path))
            assert run("life", 0) == 0
            assert look(shop, one, tmp_path) == jobs.READY
            assert len(list(folder_of(tmp_path / "exports", shop.scope).iterdir())) == 1
    assert len(outcomes) >= (10 if kind == "step" else 6)
    assert outcomes[0] == jobs.PREPARING
    assert sorted(outcomes) == outcomes  # once it is ready, it stays so


def test_x04_a_download_cut_off_at_20_offsets_is_seen_to_be(tmp_path: Path, keys: KeyRing, soak: bool) -> None:
    """A real server's process is killed while it sends a prepared file of 60,000 rows; CI takes 4 of the offsets."""
    url = f"sqlite:///{tmp_path / 'shared-record.sqlite3'}"
    migrate.upgrade(url)
    db = Database(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS.parent / "benchmarks"))
        stage = importlib.import_module("stage")
    shop = open_shop(db, keys, SystemClock(), tmp_path, policy="OPEN")  # type: ignore[arg-type]  it runs by itself
    stage.fill(shop, 60_000)
    month, who = period_of(shop.clock.now()), shop.link(stage.CUSTOMER).customer_id
    formats = load_plugins().export_formats
    builder = Builder(db, keys, shop.clock, formats, tmp_path / "exports", lambda _scope, _who: PLAIN)
    jobs.ask(db, shop.clock, shop.scope, who, month, "json", "en")
    assert Worker(db, keys, shop.clock, shop.locks, 10, exports=builder).export_once() == 1
    target = f"{shop.link(stage.CUSTOMER).path}/export/file?{urlencode({'period': month, 'format': 'json'})}"
    [path] = folder_of(tmp_path / "exports", shop.scope).iterdir()
    length, cut = path.stat().st_size, 0
    for n in range(20) if soak else range(1, 20, 5):
        with serving(shop, tmp_path) as server:  # anew: one whose processes die one after the other gives up
            cut += killed_at(server, shop.hosts[0], target, length * n // 20)
    with serving(shop, tmp_path) as server:
        whole, headers = fetch(server.port, shop.hosts[0], target)
    assert cut >= (10 if soak else 2)  # what the kernel has taken arrives in any case
    assert whole == path.read_bytes()
    digest = base64.b64encode(hashlib.sha256(whole).digest()).decode()
    assert (headers["content-length"], headers["repr-digest"]) == (str(length), f"sha-256=:{digest}:")
    db.dispose()


def killed_at(server, host: str, target: str, offset: int) -> bool:
    """Kill the sending process once ``offset`` bytes are read; return whether the reader saw the file cut off."""
    connection, answer = begin(server.port, host, target)
    data, workers = answer.read(offset), server.workers()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    try:
        data += answer.read()
        is_cut = False
    except (http.client.IncompleteRead, OSError):
        is_cut = True
    finally:
        connection.close()
    assert is_cut or len(data) == int(answer.headers["Content-Length"])
    return is_cut


def fetch(port: int, host: str, target: str) -> tuple[bytes, dict[str, str]]:
    connection, answer = begin(port, host, target)
    try:
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}
    finally:
        connection.close()


def begin(port: int, host: str, target: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Ask until there is a process again that answers; its answer can fill only a small buffer ahead."""
    limit = SystemClock().now() + timedelta(seconds=60)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.sock = socket.socket()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sock.settimeout(10)
            connection.sock.connect(("127.0.0.1", port))
            connection.request("GET", target, headers={"Host": f"{host}:{port}"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return connection, answer
        except OSError:
            connection.close()
            assert SystemClock().now() < limit
