"""What step-up costs: a session on a page, and a flood of wrong codes for those who only read."""

from __future__ import annotations

import asyncio
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from measure import Limit, Result, alternate, best_of, processor_seconds, scaled
from sqlalchemy import event
from stage import CUSTOMER, HOST, answer, get, shop_on_postgresql, shop_on_sqlite, temporary_folder

from client import Visitor, serve
from live_server import serving
from shared_record.access import links
from shared_record.tenancy.policies import Policy
from world import Shop

AMOUNTS = ("12.5", "3", "0.25", "140", "7.75", "9.5")
PAGES = 200
ROUNDS = 7

PROCESSES = 2
CONNECTIONS = 8
SECONDS = 6.0
READERS = 20.0
"""Landing pages that are asked for in a second, whatever else goes on."""
FLOODS = 3


# --- A session on a page ----------------------------------------------------------------------------------------------


def session_check(scale: float) -> Result:
    """Render one page of an open record with a session, and without one, which shows the same rows.

    Both run in this process and are timed in its processor time. A session that costs more than one query is an error.
    """
    count = scaled(PAGES, scale)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        shop = stack.enter_context(shop_on_sqlite(folder, policy="OPEN"))
        shop.record(CUSTOMER, *AMOUNTS)
        shop.checkpoint()
        application, path = serve(shop), f"{shop.link(CUSTOMER).path}/activity"
        plain = get(path)
        opened = plain | {"HTTP_COOKIE": _cookies(application, shop)}
        more = _statements(shop, application, opened) - _statements(shop, application, plain)
        if more > 1:
            raise RuntimeError(f"a session costs {more} queries")
        if b"/close" not in answer(application, opened) or b"/close" in answer(application, plain):
            raise RuntimeError("one of the pages is not what it should be")

        def spent(environ: dict[str, Any]) -> Callable[[], float]:
            def work() -> None:
                for _ in range(count):
                    answer(application, environ)

            return lambda: processor_seconds(work) / count * 1000

        rounds = best_of(spent(opened), spent(plain), ROUNDS)
    return Result(
        "session-check",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≤", 1.15),
        "ms/page",
        f"processor time of the activity page, SQLite, {more} more queries; the same page of an open record",
    )


def _cookies(application: Any, shop: Shop) -> str:
    visitor = Visitor(application)
    if visitor.unlock(f"{HOST}{shop.link(CUSTOMER).path}", shop.code(CUSTOMER)).status_code != 303:
        raise RuntimeError("the record could not be opened")
    return "; ".join(f"{name}={value}" for name, value in visitor.jars[HOST].items())


def _statements(shop: Shop, application: Any, environ: dict[str, Any]) -> int:
    answer(application, environ)  # caches
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and "FROM installation" not in statement:  # that one is due each second
            found.append(statement)

    event.listen(shop.db.engine, "before_cursor_execute", note)
    answer(application, environ)
    event.remove(shop.db.engine, "before_cursor_execute", note)
    return len(found)


# --- A flood of wrong codes -------------------------------------------------------------------------------------------


def wrong_codes(scale: float) -> Result:
    """Ask for landing pages at a steady rate, with wrong codes coming in beside them, and without.

    First the rate is measured at which the server refuses wrong codes (429) when nothing else goes on; the flood is a
    quarter of it. Requests are sent when they are due, whether or not earlier ones were answered, and the time counts
    from then. Readings alternate; each figure is a 95th percentile.
    """
    length = max(0.5, SECONDS * scale)
    with _served() as (port, path):
        attack, page = _wrong_code(port, path), _landing(port, path)
        asyncio.run(_paced(port, [(page, 10.0, 200)], max(0.5, length / 4)))
        most = asyncio.run(_most(port, attack, length))
        rate = most / 4

        def flooded() -> float:
            return _p95(asyncio.run(_paced(port, [(page, READERS, 200), (attack, rate, 429)], length))[0])

        def idle() -> float:
            return _p95(asyncio.run(_paced(port, [(page, READERS, 200)], length))[0])

        rounds = alternate(flooded, idle, FLOODS)
    return Result(
        "wrong-codes",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≤", 2),
        "ms (p95)",
        f"landing pages at {READERS:g}/s beside {rate:,.0f} wrong codes/s, a quarter of {most:,.0f}; granian with"
        f" {PROCESSES} processes, PostgreSQL; without the wrong codes",
    )


@contextmanager
def _served() -> Iterator[tuple[int, str]]:
    """Serve one tenant from PostgreSQL; yield the port and the path of a link."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        shop = stack.enter_context(shop_on_postgresql(folder))
        shop.record(CUSTOMER, *AMOUNTS)
        shop.checkpoint()
        with shop.db.write(shop.scope) as connection:
            links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.TWO_TIER, "benchmark")
        path = str(shop.link(CUSTOMER).path)
        live = stack.enter_context(serving(shop, folder, web_processes=PROCESSES, log_level="warning"))
        yield live.port, path


def _landing(port: int, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode()


def _wrong_code(port: int, path: str) -> bytes:
    body = json.dumps({"factor": "ACCESS_HINT", "value": "WRONG2"}).encode()
    head = f"POST /api/v1{path}/access/verify HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _most(port: int, request: bytes, length: float) -> float:
    """Return how many requests a second are answered over connections that ask again at once."""
    loop = asyncio.get_running_loop()
    until, done = loop.time() + length, 0

    async def ask_on() -> None:
        nonlocal done
        wire = await _Wire.open(port)
        while loop.time() < until:
            await wire.ask(request)
            done += 1
        wire.close()

    start = loop.time()
    await asyncio.gather(*(ask_on() for _ in range(CONNECTIONS)))
    return done / (loop.time() - start)


Stream = tuple[bytes, float, int]
"""A request, how often in a second, and the status that is expected."""


async def _paced(port: int, streams: list[Stream], length: float) -> list[list[float]]:
    """Send each stream's requests when they are due; return the milliseconds from then to the answer, by stream.

    Raises where more than one in a hundred answers of a stream is not the one that is expected.
    """
    pool: list[_Wire] = []
    loop = asyncio.get_running_loop()

    async def one(request: bytes, due: float, status: int, into: list[float], wrong: list[int]) -> None:
        wire = pool.pop() if pool else await _Wire.open(port)
        got = await wire.ask(request)
        into.append((loop.time() - due) * 1000)
        if got != status:
            wrong.append(got)
        pool.append(wire)

    async def stream(request: bytes, rate: float, status: int) -> list[float]:
        took: list[float] = []
        wrong: list[int] = []
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(max(2, round(rate * length))):
                due = start + number / rate
                await asyncio.sleep(max(0.0, due - loop.time()))
                group.create_task(one(request, due, status, took, wrong))
        if len(wrong) > max(10, len(took) / 100):  # the first codes of a flood are judged
            raise RuntimeError(f"{len(wrong)} of {len(took)} answers were not {status}, e.g. {wrong[0]}")
        return took

    found = await asyncio.gather(*(stream(*one_stream) for one_stream in streams))
    for wire in pool:
        wire.close()
    return found


class _Wire:
    """One connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> _Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> int:
        """Send a request; return the status once all of the answer is here."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length is None:
            raise RuntimeError(f"an answer without length: {head[:100]!r}")
        await self._reader.readexactly(int(length[1]))
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


def _p95(times: list[float]) -> float:
    ordered = sorted(times)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if len(ordered) < 20 else statistics.quantiles(ordered, n=20)[18]
