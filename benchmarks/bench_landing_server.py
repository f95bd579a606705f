"""The landing page through its server, against a bare Flask and Jinja page of the same size on the same server."""

from __future__ import annotations

import asyncio
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from measure import Limit, Result, alternate
from stage import CUSTOMER, HOST, shop_on_sqlite, temporary_folder

from servers import free_port

CONNECTIONS = 4
SECONDS = 2.0
ROUNDS = 7
AMOUNTS = ("12.5", "3", "0.25", "140", "7.75", "9.5")


def landing_server(scale: float) -> Result:
    """Load both pages over kept-open connections in turn; both servers are up all the time, one process each.

    What is between the two: the gate, the query that tells whether the remembered page still stands, counting the look,
    and the security headers. Once a minute the page is made anew.
    """
    length = max(0.1, SECONDS * scale)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        shop = stack.enter_context(shop_on_sqlite(folder))
        shop.record(CUSTOMER, *AMOUNTS)
        shop.checkpoint()
        path = shop.link(CUSTOMER).path
        record = stack.enter_context(_site("record", DATA=str(folder)))
        size = _size(record, HOST, path)  # the page names its own address, with the port
        bare = stack.enter_context(_site("bare", BYTES=str(size)))
        ours, reference = _load(record, HOST, path, size, length), _load(bare, "localhost", "/", size, length)
        ours(), reference()
        rounds = alternate(ours, reference, ROUNDS)
    return Result(
        "landing-server",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≥", 0.6),
        "requests/s",
        f"{size:,} bytes over {CONNECTIONS} connections, granian with one process, SQLite; bare Flask and Jinja page",
    )


@contextmanager
def _site(name: str, **environment: str) -> Iterator[int]:
    """Run one site in a process of its own; yield its port."""
    port = free_port()
    script = Path(__file__).with_name("serve_pages.py")
    process = subprocess.Popen([sys.executable, script, name], env={**os.environ, **environment, "PORT": str(port)})
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _size(port: int, host: str, path: str) -> int:
    asyncio.run(_until_ready(port, _request(port, host, path)))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    size = len(connection.getresponse().read())
    connection.close()
    return size


def _request(port: int, host: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/html\r\n\r\n".encode()


def _load(port: int, host: str, path: str, size: int, length: float) -> Callable[[], float]:
    request = _request(port, host, path)
    asyncio.run(_until_ready(port, request))

    def rate() -> float:
        return asyncio.run(_rate(port, request, size, length))

    return rate


async def _rate(port: int, request: bytes, size: int, length: float) -> float:
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(request, size), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    start = time.perf_counter()
    for client in clients:
        client.ask()
    await asyncio.sleep(length)
    took, done = time.perf_counter() - start, sum(client.done for client in clients)
    for client in clients:
        client.end()
    if failed := next((client.failure for client in clients if client.failure), None):
        raise RuntimeError(failed)
    return done / took


class _Client(asyncio.Protocol):
    """One kept-open connection: asks again as soon as an answer is complete. Cheap, to leave the cores to servers."""

    def __init__(self, request: bytes, size: int) -> None:
        self.request, self.size = request, size
        self.done, self.data, self.failure, self.ended = 0, b"", "", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self) -> None:
        self.data = b""
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def end(self) -> None:
        self.ended = True
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found or len(body) < self.size:
            return
        if not head.startswith(b"HTTP/1.1 200") or len(body) != self.size:
            self.failure = f"{head[:40]!r} with {len(body)} bytes instead of {self.size}"
            self.transport.close()
            return
        self.done += 1
        self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended and not self.failure:
            self.failure = f"the server closed the connection: {error}"


async def _until_ready(port: int, request: bytes) -> None:
    for _ in range(300):
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            line = await reader.readline()
            writer.close()
            if not line.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"port {port} answered {line!r}")
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port}")
