"""Intake in batches against ``COPY`` of the rows it wrote."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import psycopg
from measure import Limit, Result, alternate, scaled
from psycopg import sql
from sqlalchemy import make_url
from stage import durable_postgresql, temporary_folder

from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from shared_record.ledger.intake import Delta
from world import Shop, open_shop

BATCH = 100
CUSTOMERS = 10
BATCHES = 100
ROUNDS = 5
TABLES = ("leaf", "delta_detail")
TWIN = "twin"


def intake(scale: float) -> Result:
    """Record batches of 100 deltas; against them, copy the same rows in transactions of the same size.

    The copies go into a second database of the same schema on the same server, with all its indexes and foreign keys,
    as its superuser: ``COPY`` cannot pass row-level security. Intake has both tables' rows to make, three further
    tables to keep, and retries to recognise.
    """
    batches = scaled(BATCHES, scale)
    with durable_postgresql() as server, temporary_folder() as folder:
        db = Database(server)
        try:
            shop = open_shop(db, KeyRing.generate(), SteppedClock(datetime.now(UTC)), folder)
            shop.record_many([Delta(_customer(i), "1", "opening") for i in range(CUSTOMERS)])
            db.dispose()
            admin = make_url(server).set(drivername="postgresql")
            with psycopg.connect(admin.set(database="template1").render_as_string(), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        sql.Identifier(TWIN), sql.Identifier(admin.database or "")
                    )
                )
            with (
                psycopg.connect(admin.render_as_string(), autocommit=True) as source,
                psycopg.connect(admin.set(database=TWIN).render_as_string()) as target,
            ):
                target.execute("SET plan_cache_mode = force_custom_plan")  # as the application: see db/engine.py
                target.commit()
                recorder, copier = _Recorder(shop, batches), _Copier(source, target, batches)
                recorder.rate()  # warm caches, statements and plans
                copier.rate()
                source.execute("ANALYZE")  # as autovacuum does within a minute wherever deltas come in
                rounds = alternate(recorder.rate, copier.rate, ROUNDS)
        finally:
            db.dispose()
    return Result(
        "intake",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≥", 0.25),
        "deltas/s",
        f"{BATCH} deltas of {CUSTOMERS} customers per transaction, PostgreSQL with fsync; COPY of the same rows",
    )


class _Recorder:
    def __init__(self, shop: Shop, batches: int) -> None:
        self.shop, self.batches, self.count = shop, batches, 0

    def rate(self) -> float:
        work = [self._batch() for _ in range(self.batches)]
        start = time.perf_counter()
        for batch in work:
            self.shop.record_many(batch)
        return self.batches * BATCH / (time.perf_counter() - start)

    def _batch(self) -> list[Delta]:
        first = self.count
        self.count += BATCH
        return [
            Delta(
                _customer(i % CUSTOMERS),
                f"{i % 500 + 1}.25",
                "API requests",
                reference_id=f"request-{i:09d}",
                metadata='{"endpoint":"/v1/search","region":"eu-west"}',
            )
            for i in range(first, first + BATCH)
        ]


class _Copier:
    """Copies what was recorded since it last looked, and counts only the writing."""

    def __init__(self, source: psycopg.Connection, target: psycopg.Connection, batches: int) -> None:
        self.rows, self.target, self.batches = Rows(source), target, batches

    def rate(self) -> float:
        rows = self.rows.new()
        chunks = [
            [(table, b"".join(rows[table][i : i + BATCH])) for table in TABLES]
            for i in range(0, self.batches * BATCH, BATCH)
        ]
        start = time.perf_counter()
        for chunk in chunks:
            with self.target.cursor() as cursor:
                for table, data in chunk:
                    with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))) as copy:
                        copy.write(data)
            self.target.commit()
        return self.batches * BATCH / (time.perf_counter() - start)


class Rows:
    """Reads what was recorded, as lines of ``COPY``."""

    def __init__(self, source: psycopg.Connection) -> None:
        self.source = source
        self.done: dict[str, int] = self._sizes()

    def new(self) -> dict[str, list[bytes]]:
        """Return what came since the last call: the rows of each of ``TABLES`` in the order of their numbers."""
        after, upto = self.done, self._sizes()
        self.done = upto
        return {table: self._rows(table, after, upto) for table in TABLES}

    def _sizes(self) -> dict[str, int]:
        return dict(self.source.execute("SELECT tree_id, size FROM period_tree").fetchall())

    def _rows(self, table: str, after: dict[str, int], upto: dict[str, int]) -> list[bytes]:
        spans = sql.SQL(", ").join(
            sql.SQL("({}, {}, {})").format(sql.Literal(tree), sql.Literal(after[tree]), sql.Literal(size))
            for tree, size in upto.items()
        )
        query = sql.SQL(
            "COPY (SELECT r.* FROM {} r JOIN (VALUES {}) AS s (tree, after, upto)"
            " ON r.tree_id = s.tree AND r.seq > s.after AND r.seq <= s.upto ORDER BY r.seq, r.tree_id) TO STDOUT"
        ).format(sql.Identifier(table), spans)
        with self.source.cursor().copy(query) as copy:
            return b"".join(copy).splitlines(keepends=True)


def _customer(index: int) -> str:
    return f"cust-{index:04d}"
