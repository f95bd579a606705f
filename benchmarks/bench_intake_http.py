"""Intake over HTTP: batches against ``COPY`` of the rows they wrote, single calls against the SQL they send."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from bench_intake import TABLES, Rows
from measure import Limit, Result, alternate, scaled
from psycopg import sql
from sqlalchemy import event, make_url
from stage import durable_postgresql, temporary_folder

from client import Visitor, serve
from live_server import serving
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from shared_record.ledger.intake import Delta
from shared_record.tenancy.tenants import update_tenant
from world import Shop, open_shop

BATCH = 100
CONNECTIONS = 8
"""More than there are processes to answer: granian spreads few over them as it happens, often all over one."""
PROCESSES = 2
CUSTOMERS = 10
BATCHES = 40
CALLS = 250
ROUNDS = 5
TWIN, TRACED = "twin", "traced"


def intake_http(scale: float) -> Result:
    """Post batches of 100 deltas over kept-open connections; against them, copy the same rows over as many.

    As in ``intake``, the copies go into a second database of the same schema as its superuser, in transactions of 100
    rows of each table. Over HTTP come the key, its limit, reading and checking the body, and the answer.
    """
    batches = scaled(BATCHES, scale, 1)
    with _stage() as stage:
        sender, copier = _Sender(stage, batches, _batch_body, "/api/v1/balance/delta/batch"), _Copier(stage, batches)
        sender.rate()  # warm caches, statements and plans
        copier.rate()
        stage.analyse()
        rounds = alternate(sender.rate, copier.rate, ROUNDS)
        copier.close()
    return Result(
        "intake-http",
        rounds.measured * BATCH,
        rounds.reference * BATCH,
        rounds.ratio,
        Limit("≥", 0.25),
        "deltas/s",
        f"batches of {BATCH} over {CONNECTIONS} connections, PostgreSQL with fsync; COPY of the same rows over as many",
    )


def single_http(scale: float) -> Result:
    """Post single deltas over kept-open connections; against them, psycopg sends the statements of such calls.

    The statements are noted while calls are carried out in this process on one database, and sent, with the same
    parameters in the same transactions, to another that was like it before.
    """
    calls = scaled(CALLS, scale, 2)
    with _stage() as stage:
        sender, player = _Sender(stage, calls, _single_body, "/api/v1/balance/delta"), _Player(stage, calls)
        sender.rate()
        player.rate()
        stage.analyse()
        rounds = alternate(sender.rate, player.rate, ROUNDS)
        player.close()
    return Result(
        "single-http",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≥", 0.5),
        "calls/s",
        f"over {CONNECTIONS} connections, PostgreSQL with fsync; psycopg with the SQL of these calls over as many",
    )


# --- What both are measured on ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    shop: Shop
    folder: Path
    port: int
    key: str

    def url(self, name: str) -> str:
        """Return the superuser's URL of a database, as psycopg reads it."""
        return make_url(self.shop.db.url).set(drivername="postgresql", database=name).render_as_string()

    @property
    def databases(self) -> tuple[str, str, str]:
        """The names of what is served, its copy as it was at the start, and another such copy."""
        return make_url(self.shop.db.url).database or "", TWIN, TRACED

    def analyse(self) -> None:
        """Bring statistics up to date, as autovacuum does within a minute wherever deltas come in."""
        for name in self.databases:
            with psycopg.connect(self.url(name), autocommit=True) as connection:
                connection.execute("ANALYZE")


@contextmanager
def _stage() -> Iterator[_Stage]:
    """Serve a tenant whose customers have begun, with two copies of its database beside it."""
    with ExitStack() as stack:
        server, folder = stack.enter_context(durable_postgresql()), stack.enter_context(temporary_folder())
        db = Database(server)
        stack.callback(db.dispose)
        shop = open_shop(db, KeyRing.generate(), SteppedClock(datetime.now(UTC)), folder)
        with db.write(shop.scope) as connection:
            update_tenant(connection, shop.scope, {"api_rate": 100_000, "api_burst": 100_000})
        shop.record_many([Delta(name, "1", "opening") for lane in range(CONNECTIONS) for name in _customers(lane)])
        key = shop.api_key()
        db.dispose()
        for name in (TWIN, TRACED):
            with psycopg.connect(_plain(server, "template1"), autocommit=True) as connection:
                copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
                connection.execute(copy.format(sql.Identifier(name), sql.Identifier(make_url(server).database or "")))
        live = stack.enter_context(serving(shop, folder, web_processes=PROCESSES, log_level="warning"))
        yield _Stage(shop, folder, live.port, key)


def _plain(url: str, database: str) -> str:
    return make_url(url).set(drivername="postgresql", database=database).render_as_string()


def _customers(lane: int) -> list[str]:
    """Return the customers of one connection: no two connections wait for each other's records."""
    return [f"cust-{lane}-{i:04d}" for i in range(CUSTOMERS)]


def _item(lane: int, number: int) -> dict[str, object]:
    return {
        "customerId": _customers(lane)[number % CUSTOMERS],
        "delta": number % 500 + 1.25,
        "reason": "API requests",
        "referenceId": f"request-{lane}-{number:09d}",
        "metadata": {"endpoint": "/v1/search", "region": "eu-west"},
    }


def _batch_body(lane: int, number: int) -> object:
    return {"deltas": [_item(lane, i) for i in range(number * BATCH, (number + 1) * BATCH)]}


def _single_body(lane: int, number: int) -> object:
    return _item(lane, number)


# --- Over HTTP -------------------------------------------------------------------------------------------------------


class _Sender:
    """Posts so many bodies on each connection, each as soon as the one before is answered."""

    def __init__(self, stage: _Stage, each: int, body: Callable[[int, int], object], path: str) -> None:
        self.stage, self.each, self.body, self.path, self.sent = stage, each, body, path, 0

    def rate(self) -> float:
        numbers = range(self.sent, self.sent + self.each)
        self.sent += self.each
        lanes = [[self._request(lane, number) for number in numbers] for lane in range(CONNECTIONS)]
        took = asyncio.run(_send(self.stage.port, lanes))
        return CONNECTIONS * self.each / took

    def _request(self, lane: int, number: int) -> bytes:
        body = json.dumps(self.body(lane, number)).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost:{self.stage.port}\r\nContent-Type: application/json\r\n"
            f"X-Api-Key: {self.stage.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def _send(port: int, lanes: Sequence[Sequence[bytes]]) -> float:
    wires = [await asyncio.open_connection("127.0.0.1", port) for _ in lanes]
    start = time.perf_counter()
    await asyncio.gather(*(_lane(*wire, lane) for wire, lane in zip(wires, lanes, strict=True)))
    took = time.perf_counter() - start
    for _, writer in wires:
        writer.close()
    return took


async def _lane(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: Sequence[bytes]) -> None:
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 201") or b'"FAILED"' in body:
            raise RuntimeError(f"{head[:40]!r}: {body[:300]!r}")


# --- The references --------------------------------------------------------------------------------------------------


class _Copier:
    """Copies what was recorded since it last looked, and counts only the writing."""

    def __init__(self, stage: _Stage, batches: int) -> None:
        self.stage, self.batches = stage, batches
        served, twin, _ = stage.databases
        self.source = psycopg.connect(stage.url(served), autocommit=True)
        self.rows = Rows(self.source)
        self.targets = [psycopg.connect(stage.url(twin)) for _ in range(CONNECTIONS)]
        for target in self.targets:
            target.execute("SET plan_cache_mode = force_custom_plan")  # as the application: see db/engine.py
            target.commit()

    def rate(self) -> float:
        rows = self.rows.new()
        count = len(rows[TABLES[0]]) // BATCH
        chunks = [
            [(table, b"".join(rows[table][i * BATCH : (i + 1) * BATCH])) for table in TABLES] for i in range(count)
        ]
        return count / _together([lambda lane=lane: self._copy(lane, chunks) for lane in range(CONNECTIONS)])

    def close(self) -> None:
        for connection in (self.source, *self.targets):
            connection.close()

    def _copy(self, lane: int, chunks: Sequence[Sequence[tuple[str, bytes]]]) -> None:
        target = self.targets[lane]
        for chunk in chunks[lane::CONNECTIONS]:
            with target.cursor() as cursor:
                for table, data in chunk:
                    with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))) as copy:
                        copy.write(data)
            target.commit()


@dataclass
class _Sent:
    """Statements of one transaction, or one without: text, parameters, and whether they are several sets of them."""

    in_transaction: bool
    statements: list[tuple[str, Any, bool]]


class _Player:
    """Sends the statements of calls that were carried out elsewhere; counts only the sending."""

    def __init__(self, stage: _Stage, calls: int) -> None:
        self.stage, self.calls, self.made = stage, calls, 0
        _, twin, traced = stage.databases
        self.db = Database(make_url(stage.shop.db.url).set(database=traced).render_as_string(), pool_size=1)
        self.visitor = Visitor(serve(_at(stage.shop, self.db), log_level="warning"))
        self.sent: list[_Sent] = []
        event.listen(self.db.engine, "begin", lambda _: self.sent.append(_Sent(True, [])))
        event.listen(self.db.engine, "connect", self._listen)
        self.targets = [psycopg.connect(stage.url(twin), autocommit=True) for _ in range(CONNECTIONS)]
        for target in self.targets:
            target.execute("SET ROLE sr_app")
            target.execute("SET plan_cache_mode = force_custom_plan")

    def rate(self) -> float:
        lanes = [self._trace(lane) for lane in range(CONNECTIONS)]
        self.made += self.calls
        took = _together([lambda lane=lane: self._play(lane, lanes[lane]) for lane in range(CONNECTIONS)])
        return CONNECTIONS * self.calls / took

    def close(self) -> None:
        self.db.dispose()
        for target in self.targets:
            target.close()

    def _trace(self, lane: int) -> list[_Sent]:
        """Carry out the next calls of a connection; return what they sent."""
        self.sent.clear()
        for number in range(self.made, self.made + self.calls):
            answer = self.visitor.post(
                "localhost/api/v1/balance/delta", json=_single_body(lane, number), headers={"X-Api-Key": self.stage.key}
            )
            if answer.status_code != 201:
                raise RuntimeError(answer.text)
        return list(self.sent)

    def _play(self, lane: int, sent: Sequence[_Sent]) -> None:
        target = self.targets[lane]
        with target.cursor() as cursor:
            for one in sent:
                with target.transaction() if one.in_transaction else nullcontext():
                    for text, parameters, many in one.statements:
                        if many:
                            cursor.executemany(text, parameters)
                        else:
                            cursor.execute(text, parameters)

    def _listen(self, connection: Any, _record: Any) -> None:
        """Have every statement that reaches this driver connection noted."""
        sent = self.sent

        def note(alone: bool, *statement: Any) -> None:
            if alone:
                sent.append(_Sent(False, []))
            sent[-1].statements.append(statement)

        class Noting(connection.cursor_factory):  # type: ignore[misc]
            def execute(self, text: str, parameters: Any = None, **options: Any) -> Any:
                note(self.connection.autocommit, text, parameters, False)
                return super().execute(text, parameters, **options)

            def executemany(self, text: str, sets: Any, **options: Any) -> None:
                note(self.connection.autocommit, text, sets, True)
                super().executemany(text, sets, **options)

        connection.cursor_factory = Noting


def _at(shop: Shop, db: Database) -> Shop:
    return Shop(db, shop.keys, shop.clock, shop.locks, shop.scope, shop.slug, shop.hosts, shop.test_scope)


def _together(work: Sequence[Callable[[], None]]) -> float:
    """Do all of ``work`` at the same time; return how long it took."""
    ready = threading.Barrier(len(work) + 1)

    def one(task: Callable[[], None]) -> None:
        ready.wait()
        task()

    with ThreadPoolExecutor(len(work)) as pool:
        running = [pool.submit(one, task) for task in work]
        ready.wait()
        start = time.perf_counter()
        for task in running:
            task.result()
        return time.perf_counter() - start
