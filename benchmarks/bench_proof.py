"""Inclusion proofs over a long and a short record; appending and proving against pymerkle's tree in SQLite."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import Limit, Result, alternate, scaled, seconds
from pymerkle import SqliteTree
from sqlalchemy import bindparam, select
from stage import CUSTOMER, fill, shop_on_sqlite, temporary_folder

from shared_record.db.schema import leaf
from shared_record.ledger.intake import Delta
from shared_record.ledger.integrate import integrate
from shared_record.ledger.proofs import prove_delta
from world import Shop

SHORT, LONG, BESIDE_PYMERKLE = 1_000, 1_000_000, 100_000
PROOFS, APPENDED, BATCH = 200, 10_000, 100
ROUNDS = 7

_ENTRIES = select(leaf.c.entry).where(leaf.c.tenant_id == bindparam("t")).order_by(leaf.c.seq)


def inclusion_proof(scale: float) -> Result:
    """Prove random deltas of a record of a million leaves, up to the signed checkpoint; against a thousand leaves."""
    counts = (scaled(LONG, scale, least=2_000), scaled(SHORT, scale, least=200))
    proofs = scaled(PROOFS, scale, least=10)
    with ExitStack() as stack:
        long, short = (_prover(stack, count) for count in counts)
        rounds = alternate(lambda: long(proofs), lambda: short(proofs), ROUNDS)
    note = f"a delta proved up to the signed checkpoint on SQLite: of {counts[0]:,} leaves; of {counts[1]:,}"
    return Result(
        "inclusion-proof",
        rounds.measured * 1000,
        rounds.reference * 1000,
        rounds.ratio,
        Limit("≤", 4),
        "ms/proof",
        note,
    )


def pymerkle_prove(scale: float) -> Result:
    """Prove random deltas of one record; against inclusion proofs of the same entries by pymerkle."""
    count, proofs = scaled(BESIDE_PYMERKLE, scale, least=300), scaled(PROOFS, scale, least=10)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        shop = stack.enter_context(shop_on_sqlite(folder))
        ours = _prove_in(shop, count)
        tree = stack.enter_context(_pymerkle(folder / "pymerkle.sqlite3"))
        with shop.db.read(shop.scope) as connection:
            entries = connection.execute(_ENTRIES, {"t": shop.scope.plane}).scalars().all()
        tree.append_entries([entry.encode() for entry in entries])
        tree.prove_inclusion(1)  # the first one fills its cache
        chance = random.Random(2)

        def theirs() -> float:
            wanted = [chance.randint(1, count) for _ in range(proofs)]
            return seconds(lambda: [tree.prove_inclusion(seq) for seq in wanted]) / proofs

        rounds = alternate(lambda: ours(proofs), theirs, ROUNDS)
    note = f"a delta of {count:,} proved up to the signed checkpoint; the path in pymerkle's SqliteTree alone"
    return Result(
        "pymerkle-prove", rounds.measured * 1000, rounds.reference * 1000, rounds.ratio, None, "ms/proof", note
    )


def pymerkle_append(scale: float) -> Result:
    """Record deltas through intake and integrate them; against appending their entries to pymerkle's tree."""
    count = scaled(APPENDED, scale, least=BATCH)
    entries = [b"e%0350d" % n for n in range(count)]
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        shop = stack.enter_context(shop_on_sqlite(folder))
        tree = stack.enter_context(_pymerkle(folder / "pymerkle.sqlite3"))

        def ours() -> float:
            def append() -> None:
                for _ in range(0, count, BATCH):
                    shop.record_many([Delta(CUSTOMER, "1.25", "usage")] * BATCH)
                integrate(shop.db, lease)

            lease = shop.lease()
            return count / seconds(append)

        def theirs() -> float:
            return count / seconds(
                lambda: [tree.append_entries(entries[start : start + BATCH]) for start in range(0, count, BATCH)]
            )

        rounds = alternate(ours, theirs, 3)
    note = (
        f"{count:,} deltas recorded {BATCH} at a time on SQLite, then integrated;"
        " as many entries of 351 bytes appended likewise to pymerkle's SqliteTree, which keeps their hashes only"
    )
    return Result("pymerkle-append", *rounds, None, "leaves/s", note)


def _prover(stack: ExitStack, count: int) -> Callable[[int], float]:
    folder = stack.enter_context(temporary_folder())
    return _prove_in(stack.enter_context(shop_on_sqlite(folder)), count)


def _prove_in(shop: Shop, count: int) -> Callable[[int], float]:
    """Return what measures the mean time of a proof in a record of so many leaves, all of them published."""
    tree_id, chance = fill(shop, count), random.Random(1)
    shop.checkpoint()

    def prove(seq: int) -> None:
        with shop.db.read(shop.scope, snapshot=True) as connection:
            if prove_delta(connection, shop.keys, shop.scope, tree_id, seq) is None:
                raise RuntimeError("there is no proof")

    def mean(proofs: int) -> float:
        wanted = [chance.randint(1, count) for _ in range(proofs)]
        return seconds(lambda: [prove(seq) for seq in wanted]) / proofs

    mean(5)
    return mean


@contextmanager
def _pymerkle(file: Path) -> Iterator[SqliteTree]:
    with SqliteTree(str(file)) as tree:
        yield tree
