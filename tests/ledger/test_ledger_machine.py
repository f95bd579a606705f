"""The ledger as a state machine: whatever is recorded, published, closed or killed, in any order, I1 to I7 hold."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from proofs_of import prove
from shared_record.clock import SteppedClock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.schema import checkpoint, epoch, epoch_member, leaf, period_tree
from shared_record.errors import ConflictError
from shared_record.keys import KeyRing
from shared_record.ledger import checkpoints, logs, merkle
from shared_record.ledger.amounts import Total, canonical
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.note import VerifierKey, open_note, parse_checkpoint
from shared_record.ledger.periods import close_periods
from world import open_shop

NAMES = ("cust_a", "cust_b", "cust_c")
AMOUNTS = st.integers(-(10**6), 10**6).filter(bool).map(lambda n: canonical(Decimal(n).scaleb(-3)))
STEPS = ("integrate", "_prepare", "_lock", "_publish", "_close_final", "sign_note")
_number = itertools.count()


class Killed(BaseException):
    """What stands for the death of the process."""


class Ledger(RuleBasedStateMachine):
    """One tenant; the database outlives the examples, each of which has a tenant of its own."""

    db: Database
    keys: KeyRing
    clock_start: Any
    folder: Path

    @initialize()
    def begin(self) -> None:
        number = next(_number)
        self.shop = open_shop(
            self.db,
            self.keys,
            SteppedClock(self.clock_start),
            self.folder,
            slug=f"s{number}",
            hosts=(f"h{number}.example",),
        )
        self.sent: dict[str, list[str]] = {}
        self.references: dict[tuple[str, str], Accepted] = {}
        self.bodies: dict[int, str] = {}
        self.heads: dict[str, tuple[int, bytes | None]] = {}
        self.closed: dict[str, tuple[Any, ...]] = {}
        self.stale: leases.Lease | None = None

    # Rules

    @rule(deltas=st.lists(st.tuples(st.sampled_from(NAMES), AMOUNTS), min_size=1, max_size=9))
    def record(self, deltas: list[tuple[str, str]]) -> None:
        for (name, amount), result in zip(
            deltas, self.shop.record_many([Delta(name, amount, "u") for name, amount in deltas]), strict=True
        ):
            self.sent.setdefault(name, []).append(amount)
            assert isinstance(result, Accepted)
            assert result.sequence == len(self.sent[name])

    @rule(name=st.sampled_from(NAMES), count=st.integers(250, 520))
    def record_many(self, name: str, count: int) -> None:
        self.shop.record(name, *["1"] * count)
        self.sent.setdefault(name, []).extend(["1"] * count)

    @rule(name=st.sampled_from(NAMES), reference=st.sampled_from(["r1", "r2"]))
    def retry(self, name: str, reference: str) -> None:
        (result,) = self.shop.record(name, "2.5", reference_id=reference)
        assert isinstance(result, Accepted)
        before = self.references.setdefault((name, reference), result)
        assert result.replayed == (before is not result)
        assert (result.receipt_id, result.sequence) == (before.receipt_id, before.sequence)
        if not result.replayed:
            self.sent.setdefault(name, []).append("2.5")

    @rule()
    def integrate(self) -> None:
        checkpoints.integrate(self.shop.db, self.shop.lease())

    @rule()
    def publish(self) -> None:
        self.shop.checkpoint()

    @rule()
    def close(self) -> None:
        self.shop.close()

    @rule(name=st.sampled_from(NAMES), hours=st.integers(1, 24 * 40))
    def record_while_the_clock_is_behind(self, name: str, hours: int) -> None:
        now = self.shop.clock.now()
        self.shop.clock.advance(hours=-hours)
        self.record([(name, "1")])
        self.shop.clock.set(now)

    @rule(days=st.sampled_from([0, 1, 9, 31]), hours=st.integers(0, 5))
    def time_passes(self, days: int, hours: int) -> None:
        self.shop.clock.advance(days=days, hours=hours)

    @rule(step=st.sampled_from(STEPS), after=st.booleans())
    def die_at(self, step: str, after: bool) -> None:
        real = getattr(checkpoints, step)

        def killed(*args: Any, **kwargs: Any) -> None:
            if after:
                real(*args, **kwargs)
            raise Killed

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(checkpoints, step, killed)
            try:
                self.shop.checkpoint()
            except Killed:
                return
        assert step == "_close_final" or step == "sign_note", "every other step is always taken"

    @rule()
    def pause_a_sequencer(self) -> None:
        self.stale = self.shop.lease()

    @rule()
    def the_paused_sequencer_wakes(self) -> None:
        if self.stale is None:
            return
        shop, stale = self.shop, self.stale
        newest = shop.lease()
        assert newest.fence > stale.fence
        before = self.written()
        with pytest.raises(ConflictError, match="overtaken"):
            checkpoints.make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, stale)
        with pytest.raises(ConflictError, match="overtaken"):
            close_periods(shop.db, shop.clock, stale)
        assert self.written() == before
        assert leases.acquire(shop.db, shop.clock, shop.scope, logs.SEQUENCER, "x", timedelta(minutes=1)) is None

    # Invariants

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "shop"):
            return
        rows = self.written()
        self.sizes_and_totals(rows)
        self.one_body_per_size(rows)
        self.heads_only_grow(rows)

    def written(self) -> dict[str, list[Any]]:
        with self.shop.db.read(self.shop.scope, snapshot=True) as connection:
            return {
                table.name: connection.execute(
                    select(table).where(table.c.tenant_id == self.shop.scope.plane).order_by(*table.primary_key.columns)
                ).all()
                for table in (period_tree, leaf, checkpoint, epoch, epoch_member)
            }

    def sizes_and_totals(self, rows: dict[str, list[Any]]) -> None:
        """I1 and I5."""
        leaves: dict[str, list[Any]] = {}
        for row in rows["leaf"]:
            leaves.setdefault(row.tree_id, []).append(row)
        for tree in rows["period_tree"]:
            mine = leaves[tree.tree_id]
            assert [row.seq for row in mine] == list(range(1, tree.size + 1))
            assert tree.size >= tree.vsize >= tree.psize
            total = Total()
            for row in mine:
                assert total.add(row.qty) == row.total
                if row.seq == tree.psize:
                    assert tree.ptotal == row.total
            assert tree.total == total.text
            hashes = [row.hash for row in mine]
            if tree.vsize:
                assert merkle.frontier_root(merkle.split_hashes(tree.frontier)) == merkle.root(hashes[: tree.vsize])
            if tree.psize:
                assert tree.proot == merkle.root(hashes[: tree.psize])
        assert sum(tree.size for tree in rows["period_tree"]) == sum(map(len, self.sent.values()))

    def one_body_per_size(self, rows: dict[str, list[Any]]) -> None:
        """I2, I3 and I7."""
        found = rows["checkpoint"]
        assert [row.size for row in found] == list(range(1, len(rows["epoch"]) + 1))
        for row in found:
            assert self.bodies.setdefault(row.size, row.body) == row.body
            assert parse_checkpoint(row.body).root == merkle.root([one.hash for one in rows["epoch"][: row.size]])
        assert [row.state for row in found[:-1]] == ["published"] * len(found[:-1])
        stored = self.shop.locks.read(f"localhost/log/{self.shop.slug}")
        published = [row for row in found if row.state == "published"]
        if stored is not None:
            assert self.bodies[int(stored.splitlines()[1])] == stored
        if published:
            newest = published[-1]
            with self.shop.db.read(self.shop.scope) as connection:
                vkeys = [VerifierKey.parse(key) for key in logs.read_vkeys(connection, self.shop.scope)]
            assert open_note(newest.note, vkeys) == newest.body
            assert stored is not None
            assert int(stored.splitlines()[1]) >= newest.size

    def heads_only_grow(self, rows: dict[str, list[Any]]) -> None:
        """I4; a closed period never changes."""
        for tree in rows["period_tree"]:
            size, root = self.heads.get(tree.tree_id, (0, None))
            assert tree.psize >= size
            if tree.psize == size and root is not None:
                assert tree.proot == root
            self.heads[tree.tree_id] = (tree.psize, tree.proot)
            if tree.status == "closed":
                assert tree.size == tree.psize
                now = (tree.size, tree.total, tree.proot, tree.pepoch)
                assert self.closed.setdefault(tree.tree_id, now) == now

    def teardown(self) -> None:
        """Whatever happened: after one more checkpoint everything is covered, and every period proves itself."""
        if not self.sent:
            return
        self.shop.checkpoint()
        for name in self.sent:
            who = self.shop.link(name).customer_id
            for tree in self.written()["period_tree"]:
                if tree.customer_id == who:
                    assert prove(self.shop, name, tree.period).size == tree.size
        self.the_books_are_right()


@pytest.fixture
def machine(db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path) -> type[Ledger]:
    return type("BoundLedger", (Ledger,), {"db": db, "keys": keys, "clock_start": clock.now(), "folder": tmp_path})


def test_the_ledger_holds_whatever_happens(machine: type[Ledger], soak: bool) -> None:
    few = 8 if machine.db.is_postgresql else 12
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=few * (10 if soak else 1),
            stateful_step_count=30 if soak else 20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_steps_that_are_killed_exist() -> None:
    source = Path(checkpoints.__file__).read_text()
    assert all(re.search(rf"\b{step}\(", source) for step in STEPS)
