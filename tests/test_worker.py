"""The job loop: its rounds, what it does when something is wrong, and that it may be killed at any time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import bindparam, select

from shared_record import worker as worker_module
from shared_record.clock import SystemClock
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.db.lookup import list_due
from shared_record.db.schema import checkpoint, epoch, epoch_member, leaf, log, node, period_tree, statement
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.ledger import merkle
from shared_record.ledger.checkpoints import HEARTBEAT
from shared_record.ledger.entry import parse_epoch
from shared_record.ledger.intake import Accepted
from shared_record.ledger.locks import FileLockStore
from shared_record.ledger.note import parse_checkpoint
from shared_record.ledger.records import find_delta
from shared_record.tenancy.tenants import update_tenant
from shared_record.verifier.checks import Result, check_export
from shared_record.worker import RETRY, Worker
from world import Shop, open_shop

INTERVAL = 10
KILLS = 10


@pytest.fixture
def worker(shop: Shop) -> Worker:
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, INTERVAL)


def record(shop: Shop, amount: str = "1", customer: str = "cust_a") -> str:
    [accepted] = shop.record(customer, amount)
    assert isinstance(accepted, Accepted)
    return accepted.record_id


def state(shop: Shop, record_id: str) -> str:
    found = find_delta(shop.db, shop.scope, record_id)
    assert found is not None
    return found.state


def log_of(shop: Shop):
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(log).where(log.c.tenant_id == shop.scope.plane)).one()


# --- Rounds ----------------------------------------------------------------------------------------------------------


def test_a_round_integrates_at_once_and_publishes_at_the_interval(shop: Shop, worker: Worker) -> None:
    first = record(shop)
    assert state(shop, first) == "recording"
    assert worker.run_once() == 1
    assert state(shop, first) == "verified"  # the first epoch waits for nothing
    second = record(shop)
    shop.clock.advance(seconds=1)
    assert worker.run_once() == 1
    assert state(shop, second) == "recorded"
    shop.clock.advance(seconds=INTERVAL - 2)
    worker.run_once()
    assert (state(shop, second), log_of(shop).size) == ("recorded", 1)
    shop.clock.advance(seconds=1)
    assert worker.run_once() == 1
    assert (state(shop, second), log_of(shop).size) == ("verified", 2)


def test_a_tenants_own_interval_counts(shop: Shop, worker: Worker) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"checkpoint_seconds": 60})
    record(shop)
    worker.run_once()
    later = record(shop)
    shop.clock.advance(seconds=59)
    worker.run_once()
    assert state(shop, later) == "recorded"
    shop.clock.advance(seconds=1)
    worker.run_once()
    assert state(shop, later) == "verified"


def test_an_idle_log_is_left_alone_until_its_daily_heartbeat(shop: Shop, worker: Worker) -> None:
    record(shop)
    assert worker.run_once() == 1
    assert list_due(shop.db, shop.clock.now()) == []
    for _ in range(3):
        shop.clock.advance(hours=7)
        assert worker.run_once() == 0
    shop.clock.set(shop.clock.now() + HEARTBEAT - timedelta(hours=21))
    assert worker.run_once() == 1
    assert log_of(shop).size == 2
    assert worker.run_once() == 0


def test_a_month_is_closed_when_it_is_over(shop: Shop, worker: Worker) -> None:
    record(shop)
    worker.run_once()
    shop.clock.set(shop.clock.now().replace(month=12, day=1, hour=0, minute=0, second=0))
    late = record(shop, "2")
    assert worker.run_once() == 1
    with shop.db.read(shop.scope) as connection:
        query = select(period_tree.c.period, period_tree.c.status).where(period_tree.c.tenant_id == shop.scope.plane)
        assert sorted(connection.execute(query).all()) == [("2026-11", "closed"), ("2026-12", "open")]
        kept = select(statement.c.epoch).where(statement.c.tenant_id == shop.scope.plane)
        assert connection.execute(kept).scalars().all() == [1]
    assert state(shop, late) == "verified"


# --- When something is wrong -----------------------------------------------------------------------------------------


def test_a_halted_log_is_not_signed_while_integrating_goes_on(shop: Shop, worker: Worker) -> None:
    record(shop)
    worker.run_once()
    origin = log_of(shop).origin
    body = shop.locks.read(origin)
    assert body is not None
    assert shop.locks.swap(origin, body, body.replace("\n1\n", "\n7\n")) != body
    shop.clock.advance(seconds=INTERVAL)
    first = record(shop)
    assert worker.run_once() == 0
    assert "size 7" in log_of(shop).halted
    for _ in range(3):
        second = record(shop)
        shop.clock.advance(seconds=RETRY.total_seconds() + 1)
        worker.run_once()
        assert {state(shop, first), state(shop, second)} == {"recorded"}
    assert published(shop) == [1]


def test_without_the_lock_store_intake_goes_on_and_the_worker_tries_again(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    worker = Worker(shop.db, shop.keys, shop.clock, FileLockStore(folder), INTERVAL)
    record(shop)
    worker.run_once()
    shutil.move(folder, tmp_path / "away")
    folder.write_text("a file where the folder was")
    shop.clock.advance(seconds=INTERVAL)
    first = record(shop)
    assert worker.run_once() == 0
    second = record(shop)
    assert (state(shop, first), state(shop, second)) == ("recorded", "recording")
    folder.unlink()
    shutil.move(tmp_path / "away", folder)
    shop.clock.advance(seconds=RETRY.total_seconds() - 1)
    assert worker.run_once() == 1  # integrating goes on; publishing is not tried in every round
    assert (state(shop, first), state(shop, second)) == ("recorded", "recorded")
    shop.clock.advance(seconds=1)
    assert worker.run_once() == 1
    assert (state(shop, first), state(shop, second), log_of(shop).halted) == ("verified", "verified", None)


def test_a_broken_tenant_does_not_hold_up_another(
    shop: Shop, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="zeta", hosts=("usage.zeta.localhost",))
    original = worker_module.make_checkpoint

    def broken(db, keys, clock, locks, lease):
        if lease.scope == shop.scope:
            raise OSError("no such volume")
        return original(db, keys, clock, locks, lease)

    monkeypatch.setattr(worker_module, "make_checkpoint", broken)
    mine, theirs = record(shop), record(other)
    assert worker.run_once() == 1
    assert (state(shop, mine), state(other, theirs)) == ("recorded", "verified")


# --- Several workers -------------------------------------------------------------------------------------------------


def test_two_workers_at_once_make_one_sequence_of_epochs(shop: Shop) -> None:
    stop, failures = threading.Event(), []

    def work() -> None:
        own = Database(shop.db.url)
        worker = Worker(own, shop.keys, shop.clock, shop.locks, 0)
        try:
            while not stop.is_set():
                worker.run_once()
        except Exception as error:
            failures.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(25):
            newest = record(shop, str(number + 1), f"cust_{number % 3}")
            shop.clock.advance(seconds=1)
            time.sleep(0.02)
        limit = time.monotonic() + 20
        while state(shop, newest) != "verified" and not failures and time.monotonic() < limit:
            # A worker that lost a race waits RETRY by this clock, which only the test moves.
            shop.clock.advance(seconds=RETRY.total_seconds())
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert state(shop, newest) == "verified"
    check_ledger(shop)
    assert len(published(shop)) > 2


# --- Killed at any instruction ---------------------------------------------------------------------------------------

WORKER = """
import sys, threading
from datetime import timedelta
from pathlib import Path
from shared_record import worker
from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from shared_record.ledger.locks import FileLockStore
worker.LEASE = timedelta(milliseconds=300)  # else each killed worker would hold the work up for minutes
worker.RETRY = timedelta(milliseconds=50)
url, keys, locks = sys.argv[1:]
loop = worker.Worker(Database(url), KeyRing.load(Path(keys)), SystemClock(), FileLockStore(Path(locks)), 0)
print("runs", flush=True)
loop.run(threading.Event(), poll_seconds=0.01)
"""


def test_a_worker_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path, keys: KeyRing) -> None:
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    migrate.upgrade(url)
    keys.save(tmp_path / "keys.json")
    db = Database(url)
    clock = SystemClock()
    shop = open_shop(db, keys, clock, tmp_path)  # type: ignore[arg-type]  its clock runs by itself
    accepted: list[str] = []
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            results = shop.record(f"cust_{number % 4}", *[str(number + n) for n in range(5)])
            accepted.extend(one.record_id for one in results if isinstance(one, Accepted))
            time.sleep(0.01)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for round_ in range(KILLS):
            child = start_worker(url, tmp_path)
            time.sleep(0.35 + 0.037 * round_)  # past the former one's lease, then into another moment each time
            child.kill()
            assert child.wait(10) == -signal.SIGKILL
            child.stdout.close()
            check_ledger(shop)
    finally:
        stop.set()
        loader.join()
    time.sleep(0.3)
    worker = Worker(db, keys, clock, shop.locks, 0)
    limit = time.monotonic() + 15
    while any(state(shop, one) != "verified" for one in accepted[-20:]) and time.monotonic() < limit:
        worker.run_once()
        time.sleep(0.05)
    check_ledger(shop)
    assert len(published(shop)) > KILLS / 2
    with db.read(shop.scope) as connection:
        query = select(leaf.c.record_id).where(leaf.c.tenant_id == shop.scope.plane)
        assert sorted(connection.execute(query).scalars()) == sorted(accepted)
    for customer in range(4):
        check_exported(shop, f"cust_{customer}")
    db.dispose()


def start_worker(url: str, folder: Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", WORKER, url, str(folder / "keys.json"), str(folder / "locks")]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=quiet)
    assert child.stdout is not None
    assert child.stdout.readline() == "runs\n"
    return child


# --- Invariants ------------------------------------------------------------------------------------------------------


def published(shop: Shop) -> list[int]:
    with shop.db.read(shop.scope) as connection:
        query = select(checkpoint.c.size, checkpoint.c.state).where(checkpoint.c.tenant_id == shop.scope.plane)
        return sorted(row.size for row in connection.execute(query) if row.state == "published")


def check_ledger(shop: Shop) -> None:
    """What must hold at every instant, whoever was killed where."""
    of = {"t": shop.scope.plane}
    with shop.db.read(shop.scope, snapshot=True) as connection:

        def every(table, *order):
            return connection.execute(
                select(table).where(table.c.tenant_id == bindparam("t")).order_by(*order), of
            ).all()

        trees, leaves = every(period_tree), every(leaf, leaf.c.tree_id, leaf.c.seq)
        epochs, members = every(epoch, epoch.c.n), every(epoch_member, epoch_member.c.epoch)
        checkpoints, nodes = every(checkpoint, checkpoint.c.size), every(node)
        [state_] = every(log)
    hashes: dict[str, list[bytes]] = {}
    for row in leaves:
        hashes.setdefault(row.tree_id, []).append(row.hash)
        assert row.seq == len(hashes[row.tree_id])
        assert row.hash == merkle.leaf_hash(row.entry.encode())
    for tree in trees:
        mine = hashes.get(tree.tree_id, [])
        assert tree.psize <= tree.vsize <= tree.size == len(mine)
        if tree.vsize:
            assert merkle.frontier_root(merkle.split_hashes(tree.frontier)) == merkle.root(mine[: tree.vsize])
        if tree.psize:
            assert tree.proot == merkle.root(mine[: tree.psize])
    for row in nodes:
        size = 1 << row.level
        assert row.hash == merkle.root(hashes[row.tree_id][row.idx * size : (row.idx + 1) * size])
    for row in members:
        assert row.root == merkle.root(hashes[row.tree_id][: row.size])
    assert [row.n for row in epochs] == list(range(state_.size))
    assert [row.size for row in checkpoints] == list(range(1, state_.size + 1))
    assert [row.state for row in checkpoints[:-1]] == ["published"] * len(checkpoints[:-1])
    before = b""
    for row, signed in zip(epochs, checkpoints, strict=True):
        assert row.hash == merkle.leaf_hash(row.entry.encode())
        assert parse_epoch(row.entry).prev == before
        before = row.hash
        body = parse_checkpoint(signed.body)
        assert (body.size, body.root) == (signed.size, merkle.root([one.hash for one in epochs[: signed.size]]))
        assert (signed.note is not None) == (signed.state == "published")
    # The store has the newest body, or the one before while the newest is only prepared.
    assert shop.locks.read(state_.origin) in [None, *(row.body for row in checkpoints)][-2:]


def check_exported(shop: Shop, customer: str) -> None:
    """An export of everything matches, and nothing in it is left uncovered."""
    kind = load_plugins().export_formats["json"]
    period = SystemClock().now().strftime("%Y-%m")
    with tempfile.TemporaryFile() as file:
        who = shop.link(customer).customer_id
        build_export(shop.db, shop.keys, shop.clock, shop.scope, who, period, kind, file)
        file.seek(0)
        outcome = check_export(file)
    assert (outcome.result, outcome.reason, outcome.not_covered) == (Result.MATCHES, None, 0)
