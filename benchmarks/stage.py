"""What benchmarks are measured on: a migrated database, one tenant, and as many deltas as are asked for."""

from __future__ import annotations

import hashlib
import io
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, select

from servers import postgresql
from shared_record.clock import SteppedClock, rfc3339
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.db.schema import day_counter, delta_detail, host, leaf, period_tree
from shared_record.identifiers import new_identifier
from shared_record.keys import KeyRing
from shared_record.ledger.amounts import Total
from shared_record.ledger.entry import detail_hash, entry_salt, entry_text
from shared_record.ledger.intake import Delta
from shared_record.ledger.merkle import leaf_hash
from world import Shop, open_shop

CHUNK = 10_000
CUSTOMER = "cust-0001"
HOST = "usage.acme.localhost"
PORT = 8000

_TREE = select(period_tree).where(period_tree.c.tenant_id == bindparam("t"))
_GROW = (
    period_tree.update()
    .where(period_tree.c.tenant_id == bindparam("t"), period_tree.c.tree_id == bindparam("tree"))
    .values(size=bindparam("n"), total=bindparam("sum"), last_leaf=bindparam("digest"))
)
_SERIES = {
    "postgresql": "generate_series({}, {}) AS series (n)",
    "sqlite": "(WITH RECURSIVE up (n) AS (SELECT {} UNION ALL SELECT n + 1 FROM up WHERE n < {}) SELECT n FROM up)",
}
_MADE = {
    "postgresql": ("'rec_' || lpad(n::text, 26, '0')", "n", "sha256(n::text::bytea)"),
    "sqlite": ("printf('rec_%026d', n)", "CAST(n AS TEXT)", "randomblob(32)"),
}
"""What SQL makes of each number: a record id, a total and a hash."""
_COUNT = day_counter.update().where(day_counter.c.tenant_id == bindparam("t"))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sr-bench-") as name:
        yield Path(name)


@contextmanager
def shop_on_sqlite(folder: Path, **options: Any) -> Iterator[Shop]:
    """Open a tenant in a new SQLite database at ``folder``, laid out as a data directory with its key ring."""
    url = f"sqlite:///{folder / 'shared-record.sqlite3'}"
    migrate.upgrade(url)
    keys = KeyRing.generate()
    keys.save(folder / "keys.json")
    db = Database(url)
    try:
        yield open_shop(db, keys, SteppedClock(datetime.now(UTC)), folder, **options)
    finally:
        db.dispose()


@contextmanager
def durable_postgresql() -> Iterator[str]:
    """Run PostgreSQL from its wheel with ``fsync`` on; yield the superuser's URL of a migrated database."""
    with postgresql(durable=True) as server:
        migrate.upgrade(server)
        yield server


@contextmanager
def shop_on_postgresql(folder: Path) -> Iterator[Shop]:
    """Open a tenant in a new PostgreSQL with ``fsync`` on; its lock store lies at ``folder``."""
    with durable_postgresql() as url:
        db = Database(url)
        try:
            yield open_shop(db, KeyRing.generate(), SteppedClock(datetime.now(UTC)), folder)
        finally:
            db.dispose()


def add_hosts(shop: Shop, count: int) -> list[str]:
    """Give the tenant so many more serving hosts; return their names."""
    names = [f"usage-{i:06d}.example" for i in range(count)]
    fixed = {"tenant_id": shop.scope.config, "role": "serving", "is_primary": False, "created_at": shop.clock.now()}
    for start in range(0, count, CHUNK):
        rows = [fixed | {"host": name, "display": name} for name in names[start : start + CHUNK]]
        with shop.db.write(shop.scope) as connection:
            connection.execute(host.insert(), rows)
    return names


def fill(shop: Shop, count: int) -> str:
    """Bring one customer to ``count`` deltas; return its tree's id.

    The first delta goes through intake. The others are written in bulk, since a million would take intake minutes that
    are no part of what is measured: the same columns with the same kind of content, entries and leaf hashes that
    verify, and counters to match.
    """
    shop.record(CUSTOMER, "1.5")
    with shop.db.read(shop.scope) as connection:
        tree = connection.execute(_TREE, {"t": shop.scope.plane}).one()
    salt_key, day = secrets.token_bytes(32), shop.clock.now().date()
    total, digest = Total(tree.total), tree.last_leaf
    for start in range(2, count + 1, CHUNK):
        rows = [_rows(tree, seq, total, salt_key) for seq in range(start, min(start + CHUNK, count + 1))]
        digest = rows[-1][0]["hash"]
        with shop.db.write(shop.scope) as connection:
            connection.execute(leaf.insert(), [row for row, _ in rows])
            connection.execute(delta_detail.insert(), [detail for _, detail in rows])
    with shop.db.write(shop.scope) as connection:
        grown = {"t": shop.scope.plane, "tree": tree.tree_id, "n": count, "sum": total.text, "digest": digest}
        connection.execute(_GROW, grown)
        connection.execute(_COUNT.where(day_counter.c.day == day).values(size=count, total=total.text), grown)
    found: str = tree.tree_id
    return found


def multiply(shop: Shop, count: int) -> str:
    """Bring one customer to ``count`` deltas of 1, made by SQL out of its first; return its tree's id.

    Ten times as fast as ``fill``, for what reads rows and hashes none: entries and leaf hashes do not verify.
    """
    shop.record(CUSTOMER, "1", reason="usage", reference_id="ref-1")
    with shop.db.read(shop.scope) as connection:
        tree = connection.execute(_TREE, {"t": shop.scope.plane}).one()
    engine = shop.db.engine.dialect.name
    record_id, total, digest = _MADE[engine]
    for start in range(2, count + 1, 100 * CHUNK):
        numbers = _SERIES[engine].format(start, min(start + 100 * CHUNK - 1, count))
        with shop.db.write(shop.scope) as connection:
            connection.exec_driver_sql(
                "INSERT INTO leaf (tenant_id, tree_id, seq, record_id, customer_id, rx, qty, total, entry, hash,"
                f" payload_key) SELECT tenant_id, tree_id, n, {record_id}, customer_id, rx, qty, {total}, entry,"
                f" {digest}, payload_key FROM {numbers}, leaf WHERE tree_id = '{tree.tree_id}' AND seq = 1"
            )
            connection.exec_driver_sql(
                "INSERT INTO delta_detail (tenant_id, tree_id, seq, reason, reference, salt)"
                f" SELECT tenant_id, tree_id, n, reason, 'ref-' || n, salt FROM {numbers}, delta_detail"
                f" WHERE tree_id = '{tree.tree_id}' AND seq = 1"
            )
    with shop.db.write(shop.scope) as connection:
        grown = {"t": shop.scope.plane, "tree": tree.tree_id, "n": count, "sum": str(count), "digest": b"\0" * 32}
        connection.execute(_GROW, grown)
    found: str = tree.tree_id
    return found


def fill_customers(shop: Shop, customers: int, each: int) -> None:
    """Bring so many customers to ``each`` deltas, without details and day counters, which no checkpoint looks at."""
    for start in range(0, customers, CHUNK // 10):
        names = range(start, min(start + CHUNK // 10, customers))
        shop.record_many([Delta(f"cust-{name}", "1.5", "usage") for name in names])
    with shop.db.read(shop.scope) as connection:
        trees = connection.execute(_TREE, {"t": shop.scope.plane}).all()
    salt_key, together = secrets.token_bytes(32), max(1, CHUNK // each)
    for start in range(0, customers if each > 1 else 0, together):
        leaves, grown = [], []
        for tree in trees[start : start + together]:
            total = Total(tree.total)
            leaves += [_rows(tree, seq, total, salt_key)[0] for seq in range(2, each + 1)]
            mine = {"t": shop.scope.plane, "tree": tree.tree_id, "n": each}
            grown.append(mine | {"sum": total.text, "digest": leaves[-1]["hash"]})
        with shop.db.write(shop.scope) as connection:
            connection.execute(leaf.insert(), leaves)
            connection.execute(_GROW, grown)


def _rows(tree: Any, seq: int, total: Total, salt_key: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the next leaf of a period tree and its detail, as rows; ``total`` becomes the running one."""
    salt, record_id, amount = secrets.token_bytes(16), new_identifier("rec"), f"{seq % 97 + 1}.25"
    running = total.add(amount)
    text = entry_text(
        rec=tree.tree_id,
        period=tree.period,
        seq=seq,
        unit=tree.unit,
        qty=amount,
        total=running,
        record_id=record_id,
        rx=rfc3339(tree.last_rx),
        salt=entry_salt(salt_key, tree.tree_id, seq),
        mh=detail_hash(salt, "usage", f"ref-{seq}", None),
    )
    place = {"tenant_id": tree.tenant_id, "tree_id": tree.tree_id, "seq": seq}
    row = place | {
        "record_id": record_id,
        "customer_id": tree.customer_id,
        "rx": tree.last_rx,
        "qty": amount,
        "total": running,
        "entry": text,
        "hash": leaf_hash(text.encode()),
        "reference_key": hashlib.sha256(f"{tree.tree_id}/{seq}".encode()).digest(),
        "payload_key": hashlib.sha256(b"p%d" % seq).digest(),
    }
    return row, place | {"reason": "usage", "reference": f"ref-{seq}", "salt": salt}


def get(path: str) -> dict[str, Any]:
    """Return the WSGI environment of one GET at the branded host."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": HOST,
        "SERVER_PORT": str(PORT),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": f"{HOST}:{PORT}",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def answer(application: Any, environ: dict[str, Any]) -> bytes:
    """Send one request straight into the WSGI application; return the body of its 200."""
    status = []
    body = application(dict(environ), lambda line, _headers, _error=None: status.append(line))
    try:
        data = b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()
    if status != ["200 OK"]:
        raise RuntimeError(f"the benchmark's page answered {status}")
    return data
