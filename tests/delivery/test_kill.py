"""A worker killed with SIGKILL at any moment loses no event: what was accepted as durable reaches the receiver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from receiver import receiving
from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.delivery import webhooks
from shared_record.delivery.egress import Egress
from shared_record.keys import KeyRing
from shared_record.ledger.intake import Accepted
from shared_record.settings import load_settings
from world import open_shop

KILLS = 200
PATIENCE = 60
"""Seconds without anything new after which nothing more is expected."""
WORKER = """
import sys, threading
from datetime import timedelta
from pathlib import Path
from shared_record import worker
from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.delivery import deliver
from shared_record.delivery.egress import Egress
from shared_record.keys import KeyRing
from shared_record.ledger.announce import expand
from shared_record.ledger.locks import FileLockStore
from shared_record.settings import load_settings
# Short leases, else each killed worker would hold the work up for a minute; short pauses for the same reason.
worker.LEASE = deliver.LEASE = timedelta(milliseconds=250)
worker.RETRY = deliver.LONGEST_PAUSE = timedelta(milliseconds=50)
deliver.RETRIES = (timedelta(milliseconds=50),) * 500
url, keys, locks = sys.argv[1:]
ring, clock = KeyRing.load(Path(keys)), SystemClock()
loop = worker.Worker(Database(url), ring, clock, FileLockStore(Path(locks)), 0)
sender = deliver.Deliverer(Database(url), ring, clock, Egress(load_settings().egress_allow), expand)
stop = threading.Event()
threading.Thread(target=sender.run, args=(stop, 0.01), daemon=True).start()
print("runs", flush=True)
loop.run(stop, poll_seconds=0.01)
"""


def test_w06_no_event_is_lost_when_the_worker_is_killed_again_and_again(
    database_url: str, tmp_path: Path, keys: KeyRing, soak: bool
) -> None:
    keys.save(tmp_path / "keys.json")
    db = Database(database_url)
    clock = SystemClock()
    shop = open_shop(db, keys, clock, tmp_path)  # type: ignore[arg-type]  its clock runs by itself
    allow = {"SHARED_RECORD_EGRESS_ALLOW": "127.0.0.0/8"}
    egress = Egress(load_settings(allow).egress_allow)
    kills = KILLS if soak else KILLS // 20
    accepted: list[str] = []
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            results = shop.record(f"cust_{number % 4}", *[str(number + n) for n in range(20)])
            accepted.extend(one.record_id for one in results if isinstance(one, Accepted))
            time.sleep(0.03)

    def start() -> subprocess.Popen[str]:
        line = [sys.executable, "-c", WORKER, database_url, str(tmp_path / "keys.json"), str(tmp_path / "locks")]
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
        child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=quiet | allow)
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        return child

    with receiving() as receiver:

        def flaky(handler, _received) -> None:  # every 50th is refused
            handler.send_response(503 if len(receiver.received) % 50 == 0 else 200)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        receiver.answer = flaky
        with db.write(shop.scope) as connection:
            webhooks.create_endpoint(connection, keys, clock, shop.scope, egress, url=receiver.url)
        loader = threading.Thread(target=load)
        loader.start()
        try:
            for round_ in range(kills):
                child = start()
                time.sleep(0.3 + 0.031 * (round_ % 20))  # past the former one's lease, then into another moment
                child.kill()
                assert child.wait(10) == -signal.SIGKILL
                assert child.stdout is not None
                child.stdout.close()
        finally:
            stop.set()
            loader.join()
        receiver.answer = 200
        child = start()
        told: set[str] = set()
        patience = time.monotonic() + PATIENCE
        while not told >= set(accepted) and time.monotonic() < patience:
            time.sleep(0.2)
            before = len(told)
            told = {one["data"]["recordId"] for one in receiver.events("delta.verified")}
            if len(told) > before:
                patience = time.monotonic() + PATIENCE
        child.kill()
        child.wait(10)
        assert child.stdout is not None
        child.stdout.close()
        bodies = receiver.events("delta.verified")
        assert {one["data"]["recordId"] for one in bodies} == set(accepted)
        ids = {one["data"]["recordId"]: set() for one in bodies}
        for one in bodies:
            ids[one["data"]["recordId"]].add(one["id"])
        assert all(len(found) == 1 for found in ids.values())  # sent twice perhaps, but always under one id
        assert {one["data"]["customerId"] for one in receiver.events("customer.created")} == {
            f"cust_{n}" for n in range(4)
        }
    db.dispose()
