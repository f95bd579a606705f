"""A checkpoint over a million new leaves against hashing alone: in one record, in many, and on PostgreSQL."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psycopg
from measure import Limit, Result, alternate, best_of, processor_seconds, scaled, seconds
from stage import fill_customers, shop_on_postgresql, shop_on_sqlite, temporary_folder

from shared_record.ledger.checkpoints import make_checkpoint
from world import Shop

LEAVES = 1_000_000
ROUNDS = 3
NODE, HEAD, BLINDING, PADDING = 65, 276, 38, 34
"""Bytes that are hashed for an inner node, a customer's head with one open period, its blinding, an empty slot."""


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
        rounds = alternate(lambda: _publish(shop, seconds), lambda: seconds(lambda: _hash(records, each)), 1)
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
            return _publish(shop, processor_seconds)

        rounds = best_of(ours, lambda: processor_seconds(lambda: _hash(records, each)), ROUNDS)
    return Result(name, *rounds, Limit("≤", limit), "s", _note(records, each, "SQLite"))


def _publish(shop: Shop, taken: Callable[[Callable[[], object]], float]) -> float:
    lease = shop.lease()
    return taken(lambda: make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, lease))


class _Hashes(NamedTuple):
    """How many hashes the checkpoint makes, by what is hashed."""

    nodes: int
    heads: int
    paddings: int


def _hashes(records: int, each: int) -> _Hashes:
    """Return them: inner nodes of the records and of the slot tree, heads with their blinding, and empty slots."""
    slots = 1 << (records - 1).bit_length()
    return _Hashes(records * (each - 1) + slots - 1, records, slots - records)


def _hash(records: int, each: int) -> None:
    """Make those hashes, of inputs of their lengths."""
    sha256, count = hashlib.sha256, _hashes(records, each)
    node, head, blinding, padding = bytes(NODE), bytes(HEAD), bytes(BLINDING), bytes(PADDING)
    for _ in range(count.nodes):
        sha256(node).digest()
    for _ in range(count.heads):
        sha256(blinding).hexdigest()
        sha256(head).digest()
    for _ in range(count.paddings):
        sha256(padding).digest()


def _note(records: int, each: int, place: str) -> str:
    what, count = "1 record" if records == 1 else f"{records:,} records", _hashes(records, each)
    return (
        f"{records * each:,} leaves of {what} on {place}, integrated and published; the hashes that takes:"
        f" {count.nodes:,} nodes, {count.heads:,} heads with blinding, {count.paddings:,} empty slots"
    )
