"""The ledger as a state machine: whatever is recorded, published, erased, killed or restored, in any order, it holds.

Invariants I1 to I8; never two bodies of one size, never a gap; each receipt ever handed out verifies for ever.
"""

from __future__ import annotations

import copy
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from proofs_of import prove
from shared_record.clock import SteppedClock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.schema import checkpoint, epoch, epoch_member, leaf, period_tree
from shared_record.errors import ConflictError, NotFoundError
from shared_record.keys import KeyRing
from shared_record.ledger import checkpoints, logs, merkle
from shared_record.ledger.amounts import Total, canonical
from shared_record.ledger.audit import audit
from shared_record.ledger.checkpoints import LogHaltedError, make_checkpoint
from shared_record.ledger.erasure import erase_customer, erase_details, purge_details
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.note import VerifierKey, open_note, parse_checkpoint
from shared_record.ledger.periods import close_periods
from shared_record.ledger.proofs import write_receipt
from shared_record.ledger.receipts import Span
from stepped import INSIDE, SteppedDatabase, SteppedLocks, Steps
from verify_script import VERIFY, quick_ed25519
from world import open_shop

NAMES = ("cust_a", "cust_b", "cust_c")
A_NAME = st.sampled_from(NAMES)
AMOUNTS = st.integers(-(10**6), 10**6).filter(bool).map(lambda n: canonical(Decimal(n).scaleb(-3)))
CHECKPOINT_STEPS = 32
"""More steps than a checkpoint takes; ``test_every_step_of_a_checkpoint_is_within_reach`` sees to that."""
MOST_KEYS = 3
AUDIT_EVERY = 6
READ = {table: table.columns for table in (period_tree, checkpoint, epoch, epoch_member)} | {
    leaf: (leaf.c.tree_id, leaf.c.seq, leaf.c.qty, leaf.c.total, leaf.c.hash)
}
_number = itertools.count()


class Killed(BaseException):
    """What stands for the death of the process."""


def die(place: str) -> None:
    raise Killed(place)


@dataclass
class Books:
    """What was acknowledged, and so has to be in the database."""

    sent: dict[str, list[str]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    references: dict[tuple[str, str], Accepted] = field(default_factory=dict)
    of_erased: int = 0


class Kept(NamedTuple):
    """A receipt that was handed out, with the keys that the log had then."""

    text: str
    policy: str
    total: str


class Backup(NamedTuple):
    """A copy of the database, and what was in it."""

    file: Path
    books: Books


class Ledger(RuleBasedStateMachine):
    """One tenant. On SQLite each example begins with an empty database, on PostgreSQL they share one."""

    db: SteppedDatabase
    steps: Steps
    file: Path | None
    template: Path
    keys: KeyRing
    clock_start: Any
    folder: Path

    @initialize()
    def begin(self) -> None:
        number = next(_number)
        self.home = self.folder / str(number)
        self.home.mkdir()
        if self.file:
            self.put_back(self.template)
        clock = SteppedClock(self.clock_start)
        self.shop = open_shop(self.db, self.keys, clock, self.home, slug=f"s{number}", hosts=(f"h{number}.example",))
        self.shop.locks = SteppedLocks(self.home / "locks", self.steps)
        self.origin = f"localhost/log/{self.shop.slug}"
        self.books = Books()
        self.bodies: dict[int, str] = {}
        self.signed: dict[int, str] = {}
        self.heads: dict[str, tuple[int, bytes | None]] = {}
        self.closed: dict[str, tuple[Any, ...]] = {}
        self.receipts: list[Kept] = []
        self.backup: Backup | None = None
        self.stale: leases.Lease | None = None
        self.rounds = 0
        self.taken = (0, 0)

    # --- Recording ---------------------------------------------------------------------------------------------------

    @rule(deltas=st.lists(st.tuples(A_NAME, AMOUNTS), min_size=1, max_size=9))
    def record(self, deltas: list[tuple[str, str]]) -> None:
        self.append([Delta(name, amount, "u") for name, amount in deltas])

    @rule(name=A_NAME, count=st.integers(120, 140))
    def record_many(self, name: str, count: int) -> None:
        self.append([Delta(name, "1", "u")] * count)

    @rule(name=A_NAME, reference=st.sampled_from(["r1", "r2"]))
    def retry(self, name: str, reference: str) -> None:
        known = (name, reference) in self.books.references
        delta = Delta(name, "2.5", "u", reference)
        if not known:
            (self.books.references[name, reference],) = self.append([delta])
            return
        (again,) = self.shop.record_many([delta])
        first = self.books.references[name, reference]
        assert isinstance(again, Accepted)
        assert again.replayed
        assert (again.record_id, again.receipt_id, again.sequence) == (
            first.record_id,
            first.receipt_id,
            first.sequence,
        )

    @precondition(lambda self: any(self.books.ids.values()))
    @rule(data=st.data(), amount=AMOUNTS, late=st.booleans())
    def adjust(self, data: st.DataObject, amount: str, late: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.books.ids)))
        which = data.draw(st.sampled_from(self.books.ids[name]))
        at = "2026-10-05T08:00:00Z" if late else None
        self.append([Delta(name, amount, "u", occurred_at=at, adjusts_record=which)])

    @rule(name=A_NAME, hours=st.integers(1, 24 * 40))
    def record_while_the_clock_is_behind(self, name: str, hours: int) -> None:
        now = self.shop.clock.now()
        self.shop.clock.advance(hours=-hours)
        self.record([(name, "1")])
        self.shop.clock.set(now)

    @rule(name=A_NAME, number=st.integers(1, 3))
    def die_while_recording(self, name: str, number: int) -> None:
        delta = Delta(name, "3", "u")
        self.steps.stop_at(number, die)
        try:
            self.append([delta])
        except Killed as killed:
            if str(killed) == "after commit":  # recorded, and nobody was told
                self.books.sent.setdefault(name, []).append(delta.amount)
        finally:
            self.steps.stop_at(0, die)

    def append(self, deltas: list[Delta]) -> list[Accepted]:
        found = []
        for delta, result in zip(deltas, self.shop.record_many(deltas), strict=True):
            assert isinstance(result, Accepted)
            sent = self.books.sent.setdefault(delta.customer_id, [])
            sent.append(delta.amount)
            assert (result.sequence, result.replayed) == (len(sent), False)
            self.books.ids.setdefault(delta.customer_id, []).append(result.record_id)
            found.append(result)
        return found

    # --- Sequencing --------------------------------------------------------------------------------------------------

    @rule()
    def integrate(self) -> None:
        checkpoints.integrate(self.db, self.shop.lease())

    @rule()
    def publish(self) -> None:
        self.shop.checkpoint()

    @rule()
    def close(self) -> None:
        self.shop.close()

    @rule(checkpoints=st.integers(0, 2))
    def the_month_ends(self, checkpoints: int) -> None:
        self.shop.clock.advance(days=31)
        self.shop.close()
        for _ in range(checkpoints):
            self.shop.checkpoint()

    @rule(days=st.sampled_from([0, 1, 9, 31]), hours=st.integers(0, 5))
    def time_passes(self, days: int, hours: int) -> None:
        self.shop.clock.advance(days=days, hours=hours)

    @rule(number=st.integers(1, CHECKPOINT_STEPS), close=st.booleans(), name=A_NAME)
    def die_while_publishing(self, number: int, close: bool, name: str) -> None:
        self.steps.stop_at(number, die)
        try:
            if close:
                self.shop.clock.advance(days=31)
                self.shop.close()
            self.shop.checkpoint()
        except Killed:
            pass
        finally:
            self.steps.stop_at(0, die)
        self.record([(name, "4")])
        self.integrate()  # as the next worker does before it goes on with what is half done

    @rule(number=st.integers(1, CHECKPOINT_STEPS), name=A_NAME)
    def be_overtaken_while_publishing(self, number: int, name: str) -> None:
        overtaken = False

        def overtake(place: str) -> None:
            nonlocal overtaken
            if place == INSIDE:  # holding locks that the other would wait for
                self.steps.stop_at(1, overtake)
                return
            overtaken = True
            self.record([(name, "5")])
            self.shop.checkpoint()

        mine = self.shop.lease()
        self.steps.stop_at(number, overtake)
        try:
            make_checkpoint(self.db, self.keys, self.shop.clock, self.shop.locks, mine)
        except ConflictError:
            if not overtaken:
                raise
        finally:
            self.steps.stop_at(0, die)

    @rule()
    def pause_a_sequencer(self) -> None:
        self.stale = self.shop.lease()

    @precondition(lambda self: self.stale is not None)
    @rule()
    def the_paused_sequencer_wakes(self) -> None:
        shop, stale = self.shop, self.stale
        assert stale is not None
        newest = shop.lease()
        assert newest.fence > stale.fence
        before = self.written()
        with pytest.raises(ConflictError, match="overtaken"):
            make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, stale)
        with pytest.raises(ConflictError, match="overtaken"):
            close_periods(shop.db, shop.clock, stale)
        assert self.written() == before
        assert leases.acquire(shop.db, shop.clock, shop.scope, logs.SEQUENCER, "x", timedelta(minutes=1)) is None

    # --- Erasing and keys --------------------------------------------------------------------------------------------

    @precondition(lambda self: any(self.books.ids.values()))
    @rule(data=st.data())
    def erase_one(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.books.ids)))
        which = data.draw(st.sampled_from(self.books.ids[name]))
        self.write(lambda connection: erase_details(connection, self.shop.clock, self.shop.scope, which, "test"))

    @rule(days=st.sampled_from([0, 5, 40]))
    def purge(self, days: int) -> None:
        purge_details(self.db, self.shop.clock, self.shop.scope, self.shop.clock.now() - timedelta(days=days))

    @rule(name=A_NAME)
    def erase(self, name: str) -> None:
        def erase_it(connection: Any) -> int:
            return erase_customer(connection, self.shop.clock, self.shop.scope, name, "test").deltas

        if name not in self.books.sent:
            with pytest.raises(NotFoundError):
                self.write(erase_it)
            return
        count = self.write(erase_it)
        assert count == len(self.books.sent.pop(name))
        self.books.of_erased += count
        self.books.ids.pop(name, None)
        self.books.references = {k: v for k, v in self.books.references.items() if k[0] != name}

    @rule()
    def add_a_key(self) -> None:
        def active(connection: Any) -> int:
            return len(logs.signers(connection, self.keys, self.shop.scope, 10**9))

        if self.write(active) < MOST_KEYS:
            self.write(lambda connection: logs.add_signing_key(connection, self.keys, self.shop.scope))

    @rule(which=st.integers(0, MOST_KEYS - 1))
    def retire_a_key(self, which: int) -> None:
        with self.db.read(self.shop.scope) as connection:
            vkeys = logs.read_vkeys(connection, self.shop.scope)
        key_id = VerifierKey.parse(vkeys[which % len(vkeys)]).id.hex()
        try:
            self.write(lambda connection: logs.retire_signing_key(connection, self.shop.scope, key_id))
        except ConflictError as refused:
            if not re.search("is retired|is the only key|no checkpoint is published yet", refused.message):
                raise

    def write(self, change: Callable[[Any], Any]) -> Any:
        with self.db.write(self.shop.scope) as connection:
            return change(connection)

    # --- Restoring ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.file is not None)
    @rule()
    def back_up(self) -> None:
        self.backup = Backup(self.copied("backup"), copy.deepcopy(self.books))

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        """What was published since the backup makes the log refuse; what was only recorded is lost, without a trace."""
        assert self.backup is not None
        assert self.file is not None
        newest = self.copied("newest")
        self.put_back(self.backup.file)
        self.stale = None  # with the database, its processes start again
        found = self.written()["checkpoint"]
        extended = [None, *(row.body for row in found if row.state == "published")][-1]
        stored = self.shop.locks.read(self.origin)
        if stored == extended or (found and stored == found[-1].body):
            self.books = copy.deepcopy(self.backup.books)
            self.bodies = {row.size: row.body for row in found}
            return
        self.nothing_is_signed_any_more(found, stored)
        self.put_back(newest)

    def nothing_is_signed_any_more(self, before: list[Any], stored: str | None) -> None:
        books, heads = copy.deepcopy(self.books), dict(self.heads)
        assert self.backup is not None
        self.books = copy.deepcopy(self.backup.books)
        for _ in range(2):
            with pytest.raises(LogHaltedError):
                self.shop.checkpoint()
            self.append([Delta(NAMES[0], "1", "u")])
            self.integrate()
        assert self.shop.locks.read(self.origin) == stored
        now = self.written()["checkpoint"]
        signed = [[row.body for row in rows if row.note is not None] for rows in (before, now)]
        assert signed[0] == signed[1]
        assert [one.place for one in self.audit()] == ["lock store"]
        self.books, self.heads = books, heads

    def copied(self, name: str) -> Path:
        """Copy the database, all of it: with the last connection its log is written back."""
        assert self.file is not None
        self.db.dispose()
        assert not self.file.with_name(f"{self.file.name}-wal").exists()
        return shutil.copy(self.file, self.home / name)

    def put_back(self, source: Path) -> None:
        assert self.file is not None
        self.db.dispose()
        shutil.copy(source, self.file)

    # --- Invariants --------------------------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "shop"):
            return
        rows = self.written()
        self.sizes_and_totals(rows)
        self.one_body_per_size(rows)
        self.heads_only_grow(rows)
        self.rounds += 1
        if self.rounds % AUDIT_EVERY == 0:
            assert self.audit() == []
        self.take_receipts(rows)

    def audit(self) -> list[Any]:
        """I6 and I8, and all the others once more."""
        return list(audit(self.db, self.keys, self.shop.locks, self.shop.scope))

    def written(self) -> dict[str, list[Any]]:
        with self.db.read(self.shop.scope, snapshot=True) as connection:
            return {
                table.name: connection.execute(
                    select(*columns).where(table.c.tenant_id == self.shop.scope.plane).order_by(*table.primary_key)
                ).all()
                for table, columns in READ.items()
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
        recorded = sum(map(len, self.books.sent.values())) + self.books.of_erased
        assert sum(tree.size for tree in rows["period_tree"]) == recorded

    def one_body_per_size(self, rows: dict[str, list[Any]]) -> None:
        """I2, I3 and I7."""
        found = rows["checkpoint"]
        assert [row.size for row in found] == list(range(1, len(rows["epoch"]) + 1))
        for row in found:
            assert self.bodies.setdefault(row.size, row.body) == row.body
            assert parse_checkpoint(row.body).root == merkle.root([one.hash for one in rows["epoch"][: row.size]])
        assert [row.state for row in found[:-1]] == ["published"] * len(found[:-1])
        stored = self.shop.locks.read(self.origin)
        published = [row for row in found if row.state == "published"]
        for row in published:
            assert self.signed.setdefault(row.size, row.body) == row.body
        assert len(self.signed) == len(published)
        if stored is not None:
            assert self.bodies[int(stored.splitlines()[1])] == stored
        if published:
            newest = published[-1]
            with self.db.read(self.shop.scope) as connection:
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

    # --- Receipts ----------------------------------------------------------------------------------------------------

    def take_receipts(self, rows: dict[str, list[Any]]) -> None:
        """Keep receipts of a delta and of a whole window for each period that has a proof, once per checkpoint."""
        size = len(self.signed)
        if self.taken == (size, len(rows["period_tree"])):
            return
        self.taken = (size, len(rows["period_tree"]))
        policy = self.policy()
        for tree in rows["period_tree"]:
            if tree.psize == 0:
                continue
            seq = 1 + size * 31 % tree.psize
            mine = {row.seq: row for row in rows["leaf"] if row.tree_id == tree.tree_id}
            for first, last, window in ((seq - 1, seq, False), (0, tree.psize, True), (seq - 1, tree.psize, True)):
                with self.db.read(self.shop.scope, snapshot=True) as connection:
                    span = Span(tree.tree_id, tree.period, first, last)
                    text = write_receipt(connection, self.keys, self.shop.scope, [span], window=window)
                if tree.status == "erased":
                    assert text is None
                    continue
                assert text is not None
                total = Total()
                for n in range(first, last):
                    total.add(mine[n + 1].qty)
                self.receipts.append(Kept(text, policy, total.text))
                self.verify(self.receipts[-1], policy)

    def policy(self) -> str:
        with self.db.read(self.shop.scope) as connection:
            return "".join(f"log {vkey}\n" for vkey in logs.read_vkeys(connection, self.shop.scope))

    def verify(self, kept: Kept, policy: str) -> None:
        file = self.home / "one.tlog-proof"
        file.write_text(kept.text)
        found = VERIFY.check(file, VERIFY.policy(policy))
        assert (found["result"], found["reason"], found["total"]) == ("matches", "", kept.total)
        assert found["key"] == "the policy file"

    def teardown(self) -> None:
        """Whatever happened: after one more checkpoint all is covered, each period proves itself, receipts verify."""
        if not hasattr(self, "shop"):
            return
        self.shop.checkpoint()
        self.the_books_are_right()
        rows = self.written()["period_tree"]
        for name in self.books.sent:
            who = self.shop.link(name).customer_id
            for tree in rows:
                if tree.customer_id == who:
                    assert prove(self.shop, name, tree.period).size == tree.size
        policy = self.policy()
        for kept in self.receipts:
            self.verify(kept, kept.policy)
            self.verify(kept, policy)
        assert self.audit() == []
        shutil.rmtree(self.home)


@pytest.fixture
def machine(db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path) -> Iterator[type[Ledger]]:
    db.dispose()
    file = None if db.is_postgresql else Path(db.url.removeprefix("sqlite:///"))
    template = tmp_path / "template.sqlite3"
    if file:
        shutil.copy(file, template)
    steps = Steps()
    stepped = SteppedDatabase(db.url, steps)
    parts = {"db": stepped, "steps": steps, "file": file, "template": template, "folder": tmp_path}
    yield type("BoundLedger", (Ledger,), parts | {"keys": keys, "clock_start": clock.now()})
    stepped.dispose()


def test_the_ledger_holds_whatever_happens(machine: type[Ledger], soak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERIFY, "ed25519", quick_ed25519)
    few = 7 if machine.db.is_postgresql else 24
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=few * (10 if soak else 1),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_step_of_a_checkpoint_is_within_reach(machine: type[Ledger]) -> None:
    ledger = machine()
    ledger.begin()
    ledger.record([("cust_a", "1"), ("cust_b", "2")])
    ledger.publish()
    ledger.record([("cust_a", "1")])
    ledger.shop.clock.advance(days=31)
    passed: list[str] = []

    def look(place: str) -> None:
        passed.append(place)
        ledger.steps.stop_at(1, look)

    look("start")
    ledger.close()
    ledger.publish()
    assert len(passed) - 1 <= CHECKPOINT_STEPS
    assert {"before the lock store", "after the lock store", INSIDE, "after commit"} < set(passed)
    ledger.steps.stop_at(0, die)
    ledger.teardown()
