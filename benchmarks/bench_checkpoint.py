"""A checkpoint over a million new leaves against hashing alone: in one record, in many, and on PostgreSQL."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import psycopg
from measure import Limit, Result, alternate, scaled, seconds
from stage import fill_customers, shop_on_postgresql, shop_on_sqlite, temporary_folder

from shared_record.ledger.checkpoints import make_checkpoint
from world import Shop

LEAVES = 1_000_000
ROUNDS = 3


def checkpoint(scale: float) -> Result:
    """Integrate and publish a million leaves of one record."""
    return _on_sqlite("checkpoint", 1, 6, scale)


def checkpoint_10k(scale: float) -> Result:
    """Integrate and publish a million leaves of 10,000 records."""
    return _on_sqlite("checkpoint-10k", 10_000, 6, scale)


def checkpoint_100k(scale: float) -> Result:
    """Integrate and publish a million leaves of 100,000 records."""
    return _on_sqlite("checkpoint-100k", 100_000, 12, scale)


def checkpoint_postgresql(scale: float) -> Result:
    """Integrate and publish a million leaves of 10,000 records on PostgreSQL, once."""
    records = scaled(10_000, scale)
    each = scaled(LEAVES, scale) // records
    with temporary_folder() as folder, shop_on_postgresql(folder) as shop:
        fill_customers(shop, records, each)
        with psycopg.connect(shop.db.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("ANALYZE")  # as autovacuum does where deltas come in
        rounds = alternate(lambda: _publish(shop), lambda: seconds(lambda: _hash(records, each)), 1)
    return Result("checkpoint-postgresql", *rounds, None, "s", _note(records, each, "PostgreSQL, once"))


def _on_sqlite(name: str, records: int, limit: float, scale: float) -> Result:
    """Measure on SQLite; each round begins with the same database, in which nothing is integrated yet."""
    records = scaled(records, scale)
    each = scaled(LEAVES, scale) // records
    with temporary_folder() as folder, shop_on_sqlite(folder) as shop:
        fill_customers(shop, records, each)
        start, file = folder / "start", Path(shop.db.url.removeprefix("sqlite:///"))
        shop.db.dispose()
        shutil.copy(file, start)

        def ours() -> float:
            shop.db.dispose()
            shutil.copy(start, file)
            shutil.rmtree(folder / "locks", ignore_errors=True)
            return _publish(shop)

        rounds = alternate(ours, lambda: seconds(lambda: _hash(records, each)), ROUNDS)
    return Result(name, *rounds, Limit("≤", limit), "s", _note(records, each, "SQLite"))


def _publish(shop: Shop) -> float:
    lease = shop.lease()
    return seconds(lambda: make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, lease))


def _hashes(records: int, each: int) -> int:
    """Return how many hashes the checkpoint makes: inner nodes, two per head, and the rest of the slot tree."""
    slots = 1 << (records - 1).bit_length()
    return records * (each - 1) + 2 * records + (slots - records) + (slots - 1)


def _hash(records: int, each: int) -> None:
    """Make as many hashes of 65 bytes, the length of an inner node's input."""
    sha256, data = hashlib.sha256, bytes(65)
    for _ in range(_hashes(records, each)):
        sha256(data).digest()


def _note(records: int, each: int, place: str) -> str:
    what = "1 record" if records == 1 else f"{records:,} records"
    return (
        f"{records * each:,} leaves of {what} on {place}, integrated and published;"
        f" the {_hashes(records, each):,} hashes that takes, as SHA-256 of 65 bytes"
    )
