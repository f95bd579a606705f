"""Workers are killed again and again while deltas come in: nothing acknowledged is lost, doubled or signed twice."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.db.schema import checkpoint, leaf, period_tree
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.ledger import logs
from shared_record.ledger.audit import audit
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.proofs import write_receipt
from shared_record.ledger.receipts import Span
from shared_record.ledger.records import find_by_hash
from shared_record.verifier.checks import Result, check_export
from shared_record.worker import Worker
from verify_script import SCRIPT, VERIFY
from world import Shop, open_shop

KILLS, FEW_KILLS = 200, 20
AUDIT_EVERY = 20
SENDERS = 2
CUSTOMERS = tuple(f"cust_{number}" for number in range(4))
LIFE = 0.4
STEPS = 120
"""A checkpoint takes about 30."""


def test_workers_killed_under_load_lose_double_and_fork_nothing(
    db: Database, keys: KeyRing, tmp_path: Path, soak: bool
) -> None:
    shop = open_shop(db, keys, SystemClock(), tmp_path)  # type: ignore[arg-type]  its clock runs by itself
    keys.save(tmp_path / "keys.json")
    kills, chance = KILLS if soak else FEW_KILLS, random.Random(KILLS)
    bodies: dict[int, str] = {}
    receipts: dict[str, str] = {}
    with nursery(db.url, tmp_path) as worker, senders(shop) as journal:
        for number in range(1, kills + 1):
            at_a_step = chance.choice([True, False])
            ended_by = worker.run(chance.randint(1, STEPS), 5) if at_a_step else worker.run(0, chance.uniform(0, LIFE))
            assert ended_by == signal.SIGKILL
            take_receipt(shop, chance, journal, receipts)
            see_bodies(shop, bodies)
            if number % AUDIT_EVERY == 0:
                assert list(audit(db, keys, shop.locks, shop.scope)) == []
    finish(shop)
    see_bodies(shop, bodies)
    assert len(bodies) > kills / 8
    assert shop.locks.read(origin(shop)) == bodies[max(bodies)]
    assert list(audit(db, keys, shop.locks, shop.scope)) == []
    each_acknowledged_delta_is_recorded_once(shop, journal)
    take_receipt(shop, chance, journal, receipts)
    verify_all(shop, receipts, tmp_path)
    for name in CUSTOMERS:
        an_export_covers_everything(shop, name)
    print(f"{kills} kills, {len(journal):,} deltas, {len(bodies):,} checkpoints, {len(receipts):,} receipts verified")


# --- Workers and senders ---------------------------------------------------------------------------------------------


class Nursery:
    """The program that starts and kills workers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, stop_at: int, seconds: float) -> int:
        """Run a worker until it is killed, by itself at a step or after that time; return the signal that ended it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{stop_at} {seconds}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def nursery(url: str, folder: Path) -> Iterator[Nursery]:
    tests = Path(__file__).parents[1]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
    with subprocess.Popen(
        [sys.executable, tests / "worker_nursery.py", url, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=quiet,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Nursery(process)  # leaving closes its input, which ends it


Journal = dict[str, Accepted]
"""What each sender was told, by its reference."""


@contextmanager
def senders(shop: Shop) -> Iterator[Journal]:
    """Threads that send without pause, send again what was not answered, and note down each answer."""
    journal: Journal = {}
    failures: list[BaseException] = []
    stop = threading.Event()

    def send(sender: int) -> None:
        chance = random.Random(sender)
        for number in itertools.count():
            batch = [
                Delta(chance.choice(CUSTOMERS), str(chance.randint(1, 999)), "usage", f"{sender}/{number}/{n}")
                for n in range(chance.randint(1, 5))
            ]
            for _ in range(chance.choice([1, 1, 1, 2])):  # one in four as though its answer had been lost
                note(journal, deliver(shop, batch))
            if stop.wait(chance.uniform(0, 0.03)):
                return

    def attempt(sender: int) -> None:
        try:
            send(sender)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt, args=(sender,)) for sender in range(SENDERS)]
    for thread in threads:
        thread.start()
    try:
        yield journal
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def deliver(shop: Shop, batch: list[Delta]) -> list[Accepted]:
    while True:
        try:
            results = shop.record_many(batch)
        except OperationalError:
            continue  # not acknowledged: the same again
        found = [one for one in results if isinstance(one, Accepted)]
        assert len(found) == len(batch)
        return found


def note(journal: Journal, answers: list[Accepted]) -> None:
    for one in answers:
        assert one.reference_id is not None
        first = journal.setdefault(one.reference_id, one)
        assert (first.record_id, first.receipt_id, first.sequence) == (one.record_id, one.receipt_id, one.sequence)


def finish(shop: Shop) -> None:
    """Let a worker that nobody kills do what is left."""
    worker = Worker(shop.db, shop.keys, shop.clock, shop.locks, 0)
    limit = time.monotonic() + 120
    while uncovered(shop):
        assert time.monotonic() < limit
        worker.run_once()
        time.sleep(0.01)


# --- What must hold --------------------------------------------------------------------------------------------------


def uncovered(shop: Shop) -> bool:
    mine = (period_tree.c.tenant_id == shop.scope.plane) & (period_tree.c.psize < period_tree.c.size)
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(period_tree.c.tree_id).where(mine)).first() is not None


def origin(shop: Shop) -> str:
    return f"localhost/log/{shop.slug}"


def see_bodies(shop: Shop, bodies: dict[int, str]) -> None:
    """Every checkpoint that was ever seen published is still there, the same, and no size is missing."""
    query = select(checkpoint.c.size, checkpoint.c.body, checkpoint.c.state)
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(
            query.where(checkpoint.c.tenant_id == shop.scope.plane).order_by(checkpoint.c.size)
        ).all()
    assert [row.size for row in rows] == list(range(1, len(rows) + 1))
    published = {row.size: row.body for row in rows if row.state == "published"}
    assert len(rows) - len(published) <= 1
    assert bodies.items() <= published.items()
    bodies.update(published)


def each_acknowledged_delta_is_recorded_once(shop: Shop, journal: Journal) -> None:
    query = select(leaf.c.record_id, leaf.c.qty, leaf.c.hash).where(leaf.c.tenant_id == shop.scope.plane)
    with shop.db.read(shop.scope) as connection:
        rows = sorted((row.record_id, row.qty, f"0x{row.hash.hex()}") for row in connection.execute(query))
    assert rows == sorted((one.record_id, one.amount, one.receipt_id) for one in journal.values())
    sequences: dict[str, list[int]] = {}
    for one in journal.values():
        sequences.setdefault(one.customer_id, []).append(one.sequence)
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in sequences.values())


def take_receipt(shop: Shop, chance: random.Random, journal: Journal, receipts: dict[str, str]) -> None:
    """Keep the receipt of some delta that is covered by now."""
    acknowledged = list(journal.values())
    for one in chance.sample(acknowledged, min(5, len(acknowledged))):
        with shop.db.read(shop.scope, snapshot=True) as connection:
            found = find_by_hash(connection, shop.scope, bytes.fromhex(one.receipt_id[2:]))
            assert found is not None
            _, row = found
            if row.seq > row.period.psize:
                continue
            span = Span(row.period.tree_id, row.period.period, row.seq - 1, row.seq)
            text = write_receipt(connection, shop.keys, shop.scope, [span], window=False)
        assert text is not None
        receipts[text] = one.amount
        return


def verify_all(shop: Shop, receipts: dict[str, str], folder: Path) -> None:
    """Receipts handed out at any time verify with the script that is handed out, and the last one as users do it."""
    with shop.db.read(shop.scope) as connection:
        policy = "".join(f"log {vkey}\n" for vkey in logs.read_vkeys(connection, shop.scope))
    (folder / "policy").write_text(policy)
    file = folder / "one.tlog-proof"
    outcomes: Counter[str] = Counter()
    for text, amount in receipts.items():
        file.write_text(text)
        found = VERIFY.check(file, VERIFY.policy(policy))
        assert (found["result"], found["total"], found["key"]) == ("matches", amount, "the policy file")
        outcomes[found["result"]] += 1
    assert outcomes["matches"] > 5
    said = subprocess.run([sys.executable, SCRIPT, file, "--policy", folder / "policy"], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    assert "Matches" in said.stdout


def an_export_covers_everything(shop: Shop, customer: str) -> None:
    with tempfile.TemporaryFile() as file:
        who, period = shop.link(customer).customer_id, shop.clock.now().strftime("%Y-%m")
        kind = load_plugins().export_formats["json"]
        build_export(shop.db, shop.keys, shop.clock, shop.scope, who, period, kind, file)
        file.seek(0)
        outcome = check_export(file)
    assert (outcome.result, outcome.reason, outcome.not_covered) == (Result.MATCHES, None, 0)
