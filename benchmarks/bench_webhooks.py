"""Webhook deliveries against a bare HTTP client that posts the same bodies."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from measure import Limit, Result, alternate, scaled
from sqlalchemy import select
from stage import durable_postgresql, temporary_folder

from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import period_tree
from shared_record.delivery import events, log, webhooks
from shared_record.delivery.deliver import Deliverer
from shared_record.delivery.egress import Egress
from shared_record.keys import KeyRing
from shared_record.ledger.announce import expand
from shared_record.ledger.intake import Delta
from world import Shop, open_shop

DELTAS = 2_000
ROUNDS = 5
RECEIVER = """
import asyncio
class Receiver(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""
    def data_received(self, data):
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\\r\\n\\r\\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\\r\\n")[0])
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
async def main():
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def webhook_delivery(scale: float) -> Result:
    """Send ``delta.verified`` for every delta of a checkpoint; against it, post the same bodies one after another.

    Both over plain HTTP to a receiver in a process of its own that answers at once. Ours reads and expands the range,
    signs twice, and keeps the log; the bare client has its bodies ready and keeps one connection.
    """
    count = scaled(DELTAS, scale, 100)
    with durable_postgresql() as server, temporary_folder() as folder, _receiver() as port:
        db = Database(server)
        try:
            shop = open_shop(db, KeyRing.generate(), SteppedClock(datetime.now(UTC)), folder)
            sender = _Sender(shop, port, count)
            sender.rate()  # warm connections, statements and plans
            rounds = alternate(sender.rate, _Bare(shop, port).rate, ROUNDS)
            sender.deliverer.close()
        finally:
            db.dispose()
    return Result(
        "webhook-delivery",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≥", 0.2),
        "deliveries/s",
        "one endpoint, PostgreSQL with fsync; http.client on one connection with the same bodies",
    )


class _Sender:
    """Sends one whole range again and again: each delivery is an attempt with an entry in the log."""

    def __init__(self, shop: Shop, port: int, count: int) -> None:
        self.shop, self.count = shop, count
        egress = Egress((ipaddress.ip_network("127.0.0.0/8"),))
        url = f"http://127.0.0.1:{port}/hooks"
        with shop.db.write(shop.scope) as connection:
            webhooks.create_endpoint(
                connection, shop.keys, shop.clock, shop.scope, egress, url=url, wanted=[events.DELTA_VERIFIED]
            )
        self.deliverer = Deliverer(shop.db, shop.keys, shop.clock, egress, expand)

    def rate(self) -> float:
        self.shop.record_many([Delta("cust-0001", f"{i % 500 + 1}.25", "API requests") for i in range(self.count)])
        self.shop.checkpoint()
        start = time.perf_counter()
        sent = self.deliverer.run_once()
        rate = sent / (time.perf_counter() - start)
        if sent != self.count:
            raise RuntimeError(f"{sent} of {self.count} were sent")
        return rate


class _Bare:
    """Posts the bodies of what was sent last."""

    def __init__(self, shop: Shop, port: int) -> None:
        self.shop, self.port = shop, port

    def rate(self) -> float:
        bodies = self._bodies()
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.connect()
        start = time.perf_counter()
        for body in bodies:
            connection.request("POST", "/hooks", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
        rate = len(bodies) / (time.perf_counter() - start)
        connection.close()
        return rate

    def _bodies(self) -> list[bytes]:
        scope = self.shop.scope
        with self.shop.db.read(scope) as connection:
            found, _ = log.list_deliveries(connection, scope, limit=1)
            tree = connection.execute(
                select(period_tree.c.tree_id, period_tree.c.size).where(period_tree.c.tenant_id == scope.plane)
            ).one()
            data = expand(connection, scope, tree.tree_id, max(1, tree.size - DELTAS + 1), tree.size)
        at = found[0].created_at
        return [events.body(found[0].event_id, "delta.verified", "t_0", at, text) for text in data.values()]


@contextlib.contextmanager
def _receiver() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield int(child.stdout.readline())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
