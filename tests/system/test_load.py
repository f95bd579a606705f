"""Batches from eight senders while web workers are killed and database connections cut: none lost, none doubled."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, select

from live_server import LiveServer, serving
from shared_record.clock import SystemClock
from shared_record.db.engine import Database
from shared_record.db.schema import delta_detail, leaf, period_tree
from shared_record.keys import KeyRing
from shared_record.tenancy.tenants import update_tenant
from world import Shop, open_shop

SECONDS, MANY_SECONDS = 6, 60
SENDERS, BATCH, CUSTOMERS = 8, 100, 4
EVERY = 0.4
"""Seconds between one act of violence and the next."""
GROWN_UP = 6
"""Seconds after which a respawned worker may be killed: granian gives up when one ends within 5.5 s of its start."""
PATIENCE = 60
"""Seconds after the end in which the last batches must have been answered."""
ONCE_MORE = 0.1
"""How often an answered batch is sent again."""


@dataclass(frozen=True)
class Kind:
    """How a sender makes sure that a batch which is sent again is recorded once."""

    name: str
    key: bool = False
    reference: bool = False

    @property
    def repeats(self) -> bool:
        return self.key or self.reference


KINDS = (Kind("key", key=True), Kind("reference", reference=True), Kind("both", True, True), Kind("neither"))


@dataclass
class Journal:
    """What one sender was told: the results of each answered batch; ``open`` are those of which it heard nothing."""

    kind: Kind
    answered: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_senders_journals_equal_the_ledger(db: Database, keys: KeyRing, tmp_path: Path, soak: bool) -> None:
    shop = open_shop(db, keys, SystemClock(), tmp_path)  # type: ignore[arg-type]  its clock runs by itself
    with db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"api_rate": 100_000, "api_burst": 100_000})
    journals = [Journal(KINDS[number % len(KINDS)]) for number in range(SENDERS)]
    folder = tmp_path / "data"
    folder.mkdir()
    with serving(shop, folder, web_processes=3) as live:
        key = shop.api_key()
        until = time.monotonic() + (MANY_SECONDS if soak else SECONDS)
        senders = [_Sender(live, key, number, journal, until) for number, journal in enumerate(journals)]
        with violence(live, db.url) as acts, together(sender.run for sender in senders):
            pass
        violent = Counter(acts)
    assert violent["killed"] >= 1, violent
    assert violent["cut"] >= 2, violent
    failures: Counter[str] = sum((journal.failures for journal in journals), Counter())
    assert failures, "nothing went wrong for any sender"
    rows = ledger(shop)
    for kind in KINDS:
        compare(kind, [journal for journal in journals if journal.kind == kind], rows[kind.name])
    totals_and_numbers_add_up(shop, rows)
    count = sum(len(found) for found in rows.values())
    print(f"{count:,} deltas; {dict(violent)}; senders saw {dict(failures)}")


# --- Sending ---------------------------------------------------------------------------------------------------------


class _Sender:
    def __init__(self, live: LiveServer, key: str, number: int, journal: Journal, until: float) -> None:
        self.live, self.key, self.number, self.journal, self.until = live, key, number, journal, until
        self.chance, self.breath = random.Random(number), threading.Event()
        self.wire = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)

    def run(self) -> None:
        kind = self.journal.kind
        for count in itertools.count():
            if time.monotonic() > self.until:
                break
            batch = f"{kind.name}-{self.number}-{count}"
            results = self._post(batch)
            while results is None and kind.repeats:
                results = self._post(batch)
            if results is None:
                self.journal.open.add(batch)
                continue
            self.journal.answered[batch] = results
            if kind.repeats and self.chance.random() < ONCE_MORE:
                self._again(batch, results)
        self.wire.close()

    def _again(self, batch: str, results: list[dict[str, Any]]) -> None:
        while (repeated := self._post(batch)) is None:
            pass
        assert [told(one) for one in repeated] == [told(one) for one in results]

    def _post(self, batch: str) -> list[dict[str, Any]] | None:
        """Send a batch; return the results of its deltas, or ``None`` where it is not known what became of it."""
        assert time.monotonic() < self.until + PATIENCE, f"{batch} is not answered: {self.journal.failures}"
        kind = self.journal.kind
        deltas = [
            {"customerId": f"cust_{kind.name}_{n % CUSTOMERS}", "delta": n + 0.25, "reason": f"{batch}-{n}"}
            | ({"referenceId": f"{batch}-{n}"} if kind.reference else {})
            for n in range(BATCH)
        ]
        headers = {"Host": f"localhost:{self.live.port}", "X-Api-Key": self.key, "Content-Type": "application/json"}
        headers |= {"Idempotency-Key": batch} if kind.key else {}
        try:
            self.wire.request("POST", "/api/v1/balance/delta/batch", json.dumps({"deltas": deltas}), headers)
            answer = self.wire.getresponse()
            code, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.wire.close()
            self.journal.failures[type(error).__name__] += 1
            self.breath.wait(0.05)
            return None
        if code != 201:
            # A failure that is answered tells that nothing happened; a request on its way is asked for again.
            assert code in (202, 503), (code, body)
            self.journal.failures[str(code)] += 1
            return None
        data = json.loads(body)["data"]
        assert (data["totalQueued"], data["totalFailed"]) == (BATCH, 0)
        results: list[dict[str, Any]] = data["results"]
        return results


def told(result: dict[str, Any]) -> tuple[str, str, str]:
    """Return what an answer says for good; whether it was given before is not part of it."""
    return result["recordId"], result["receiptId"], result["sequenceNumber"]


@contextmanager
def together(tasks: Iterator[Callable[[], None]]) -> Iterator[None]:
    """Run all tasks at once and wait for them; raise what one of them raised."""
    raised: list[BaseException] = []

    def one(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=one, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


# --- Violence --------------------------------------------------------------------------------------------------------


@contextmanager
def violence(live: LiveServer, url: str) -> Iterator[list[str]]:
    """Kill a web worker and cut every connection to the database, in turn, until the block ends; yield what was done.

    A worker is only killed while all of them serve.
    """
    acts: list[str] = []
    known = dict.fromkeys(live.workers(), time.monotonic() - GROWN_UP)
    over = threading.Event()
    admin = make_url(url).set(drivername="postgresql").render_as_string()

    def cut() -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        acts.append("cut")

    def kill() -> None:
        now, workers = time.monotonic(), live.workers()
        grown = [pid for pid in workers if now - known.setdefault(pid, now) >= GROWN_UP]
        if live.is_complete() and grown:
            with suppress(ProcessLookupError):
                os.kill(random.choice(grown), signal.SIGKILL)
                acts.append("killed")

    def run() -> None:
        for act in itertools.cycle((kill, cut)):
            if over.wait(EVERY):
                return
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield acts
    finally:
        over.set()
        thread.join()


# --- What must hold --------------------------------------------------------------------------------------------------


def ledger(shop: Shop) -> dict[str, dict[str, tuple[str, str]]]:
    """Return record id and receipt id of what is recorded, by reason; a reason that occurs twice is a doubled delta."""
    query = select(leaf.c.record_id, leaf.c.hash, delta_detail.c.reason).where(
        leaf.c.tenant_id == shop.scope.plane,
        delta_detail.c.tenant_id == leaf.c.tenant_id,
        delta_detail.c.tree_id == leaf.c.tree_id,
        delta_detail.c.seq == leaf.c.seq,
    )
    found: dict[str, dict[str, tuple[str, str]]] = {kind.name: {} for kind in KINDS}
    with shop.db.read(shop.scope) as connection:
        for row in connection.execute(query):
            mine = found[row.reason.partition("-")[0]]
            assert row.reason not in mine, f"{row.reason} is recorded twice"
            mine[row.reason] = row.record_id, f"0x{row.hash.hex()}"
    return found


def compare(kind: Kind, journals: list[Journal], rows: dict[str, tuple[str, str]]) -> None:
    """All that was acknowledged is recorded as it was told; of what was not, whole batches may be."""
    acknowledged = {
        f"{batch}-{number}": told(result)[:2]
        for journal in journals
        for batch, results in journal.answered.items()
        for number, result in enumerate(results)
    }
    assert acknowledged
    assert acknowledged.items() <= rows.items()
    unheard: Counter[str] = Counter(reason.rpartition("-")[0] for reason in rows.keys() - acknowledged.keys())
    assert unheard.keys() <= {batch for journal in journals for batch in journal.open}
    assert set(unheard.values()) <= {BATCH}
    assert kind.repeats <= (not unheard)


def totals_and_numbers_add_up(shop: Shop, rows: dict[str, dict[str, tuple[str, str]]]) -> None:
    """What each customer's counters say is what its rows say, and their numbers have no gap."""
    trees = select(period_tree).where(period_tree.c.tenant_id == shop.scope.plane)
    leaves = select(leaf.c.tree_id, leaf.c.seq, leaf.c.qty).where(leaf.c.tenant_id == shop.scope.plane)
    with shop.db.read(shop.scope) as connection:
        found = {row.tree_id: (row.size, Decimal(row.total)) for row in connection.execute(trees)}
        numbers: dict[str, list[int]] = {}
        totals: Counter[str] = Counter()
        for row in connection.execute(leaves):
            numbers.setdefault(row.tree_id, []).append(row.seq)
            totals[row.tree_id] += Decimal(row.qty)  # type: ignore[assignment]
    assert {tree: (len(seqs), totals[tree]) for tree, seqs in numbers.items()} == found
    assert all(sorted(seqs) == list(range(1, len(seqs) + 1)) for seqs in numbers.values())
    assert sum(len(seqs) for seqs in numbers.values()) == sum(len(one) for one in rows.values())
