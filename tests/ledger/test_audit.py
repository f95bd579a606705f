"""The audit finds and names whatever is changed behind the program's back; each kind of stored thing, in turn."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from shared_record.clock import SteppedClock
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.db.schema import customer, leaf
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger.audit import Finding, audit
from shared_record.ledger.audit_reading import Tally
from shared_record.ledger.checkpoints import make_checkpoint
from shared_record.ledger.locks import FileLockStore
from shared_record.ledger.status import StoreState, compare_with_store
from world import Shop, open_shop

EPOCHS = 258


class Ledger(NamedTuple):
    """A ledger in a SQLite file, and what is needed to audit it."""

    file: Path
    scope: Scope
    locks: Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, keys: KeyRing) -> Ledger:
    """Two customers with a closed and an open period each, one period of more than 256 deltas, more than 256 epochs."""
    folder = tmp_path_factory.mktemp("audit")
    file = folder / "db.sqlite3"
    migrate.upgrade(f"sqlite:///{file}")
    db = Database(f"sqlite:///{file}")
    shop = open_shop(db, keys, SteppedClock(datetime(2026, 11, 22, 12, tzinfo=UTC)), folder)
    fill(shop, EPOCHS)
    db.dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return Ledger(file, shop.scope, folder / "locks")


def fill(shop: Shop, epochs: int) -> None:
    for count in (1, 120, 180):
        shop.record("cust_a", *["1.5"] * count, reference_id=None)
        shop.record("cust_b", "2", "-0.25", occurred_at="2026-11-21T09:00:00Z")
        shop.checkpoint()
    shop.clock.advance(days=10)
    shop.record("cust_a", "7", "8", reference_id="inv-1") if epochs < 4 else shop.record("cust_a", "7", "8")
    shop.close()
    shop.record("cust_b", "4", metadata='{"n":1}', reference_id="ref-1")
    lease = shop.lease()
    for _ in range(epochs - 3):
        make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, lease)
    shop.record("cust_a", "1")
    shop.record("cust_c", "3")


@pytest.fixture
def ledger(template: Ledger, tmp_path: Path) -> Ledger:
    """A copy of the template to spoil."""
    shutil.copy(template.file, tmp_path / "db.sqlite3")
    shutil.copytree(template.locks, tmp_path / "locks")
    return Ledger(tmp_path / "db.sqlite3", template.scope, tmp_path / "locks")


def look(ledger: Ledger, keys: KeyRing, **options: object) -> list[Finding]:
    db = Database(f"sqlite:///{ledger.file}")
    try:
        return list(audit(db, keys, FileLockStore(ledger.locks), ledger.scope, **options))
    finally:
        db.dispose()


def spoil(ledger: Ledger, statement: str, **parameters: object) -> None:
    """Change the file as no grant of the program would allow."""
    connection = sqlite3.connect(ledger.file)
    with connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        parameters["t"] = ledger.scope.plane.hex
        assert connection.execute(statement, parameters).rowcount == 1
    connection.close()


def flip(ledger: Ledger, table: str, column: str, where: str, bit: int) -> None:
    """Flip one bit of one stored value."""
    connection = sqlite3.connect(ledger.file)
    keys = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0", (table,))]
    found = connection.execute(
        f"SELECT {column}, typeof({column}), {', '.join(keys)} FROM {table} WHERE tenant_id = ? AND {where} LIMIT 1",
        (ledger.scope.plane.hex,),
    ).fetchone()
    assert found is not None, where
    value, kind, *place = found
    if kind == "integer":
        changed: object = value ^ 1
    else:
        data = bytearray(value.encode() if kind == "text" else value)
        data[(bit // 8) % len(data)] ^= 1 << bit % 8
        changed = bytes(data)
    cast = "CAST(:new AS TEXT)" if kind == "text" else ":new"
    same = " AND ".join(f"{key} = :{key}" for key in keys)
    with connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute(
            f"UPDATE {table} SET {column} = {cast} WHERE {same}",
            {"new": changed} | dict(zip(keys, place, strict=True)),
        )
    connection.close()


NOVEMBER_A = "tree_id = (SELECT tree_id FROM period_tree WHERE period = '2026-11' ORDER BY size DESC LIMIT 1)"
DECEMBER_B = (
    "tree_id = (SELECT p.tree_id FROM period_tree p JOIN customer c USING (customer_id)"
    " WHERE p.period = '2026-12' AND external_id = 'cust_b')"
)
CUSTOMER_C = "(SELECT tree_id FROM period_tree JOIN customer USING (customer_id) WHERE external_id = 'cust_c')"


def cases() -> Iterator[tuple[str, str, str, str]]:
    """Yield (table, column, which row, what the first finding says)."""
    third = f"{NOVEMBER_A} AND seq = 204"
    yield "leaf", "entry", third, "leaf 204 of r_.*: hash differs from its entry"
    yield "leaf", "hash", third, "leaf 204 of r_.*: hash differs from its entry"
    yield "leaf", "qty", third, "leaf 204 of r_.*"
    yield "leaf", "total", third, "leaf 204 of r_.*"
    yield "leaf", "record_id", third, "leaf 204 of r_.*: id differs from its entry"
    yield "leaf", "customer_id", third, "leaf 204 of r_.*"
    yield "leaf", "rx", third, "leaf 204 of r_.*"
    yield "leaf", "at", f"{DECEMBER_B} IS NOT NULL AND at IS NOT NULL", "leaf . of r_.*: at differs from its entry"
    yield "leaf", "seq", f"tree_id IN {CUSTOMER_C}", "leaf 1 of r_.*: missing"
    yield "leaf", "reference_key", DECEMBER_B, "leaf 1 of r_.*: the key of its reference differs"
    for column in ("reason", "reference", "metadata", "salt"):
        yield "delta_detail", column, DECEMBER_B, "leaf 1 of r_.*: its details differ from their hash"
    yield "day_counter", "size", DECEMBER_B, "r_.*: the count or total of 2026-12-02 differs"
    yield "day_counter", "total", DECEMBER_B, "r_.*: the count or total of 2026-12-02 differs"
    yield "node", "hash", "level = 8", "node 8/0 of r_.*: differs from the leaves below it"
    for column in ("size", "vsize", "frontier", "total", "last_rx", "last_leaf", "base", "unit", "period"):
        yield "period_tree", column, NOVEMBER_A, "(leaf 1 of )?r_.*"
    for column in ("psize", "proot", "ptotal", "pepoch"):
        yield "period_tree", column, DECEMBER_B, "head of s1-.*: its periods differ|r_.*|slot"
    for column in ("size", "root", "total"):
        yield "epoch_member", column, f"{NOVEMBER_A} AND epoch = 1", "epoch 1, r_.*"
    yield "customer", "head", "external_id = 'cust_b'", "head of s1-.*: differs from slot 1 of epoch 257"
    yield "customer", "ref", "external_id = 'cust_b'", "head of .*"
    yield "slot_tile", "hashes", "epoch = 257", "slot tree of epoch 257: a tile differs from the root"
    yield "slot_tile", "hashes", "epoch = 255", "slot tree of epoch 255: a tile differs from the root"
    for column in ("head", "path", "epoch", "slot", "slots"):
        yield "statement", column, NOVEMBER_A, "statement of r_.*"
    yield "epoch", "entry", "n = 17", "epoch 17: hash differs from its entry"
    yield "epoch", "hash", "n = 17", "epoch 17: hash differs from its entry"
    for column in ("slot_root", "slots", "ts"):
        yield "epoch", column, "n = 17", "epoch 17: number, slot root, slots or time differ|epoch 17:.*"
    yield "log", "frontier", "1", "the log's frontier differs"
    yield "log", "size", "1", "the log is 259 epochs long, 258 are stored"
    yield "log_node", "hash", "level = 8", "log node 8/0: differs from the epochs below it"
    yield "checkpoint", "body", "size = 200", "checkpoint 200: origin, size or root differ from the log"
    yield "checkpoint", "note", "size = 200", "checkpoint 200: .*"
    yield "checkpoint", "state", "size = 200", "checkpoint 200: its state .* is unknown"
    yield "signing_key", "vkey", "1", "signing key .*"
    yield "signing_key", "sealed_seed", "1", "signing key .*: its private half cannot be opened"


def test_a_sound_ledger_has_no_findings(ledger: Ledger, keys: KeyRing) -> None:
    tally = Tally()
    assert look(ledger, keys, tally=tally) == []
    assert tally == Tally(epochs=258, checkpoints=258, customers=3, statements=2, trees=5, deltas=301 + 6 + 3 + 1 + 1)


def test_a_ledger_is_sound_at_every_step_on_both_engines(shop: Shop) -> None:
    def sound() -> None:
        assert list(audit(shop.db, shop.keys, shop.locks, shop.scope)) == []

    sound()
    fill(shop, 5)
    sound()
    shop.checkpoint()
    shop.clock.advance(days=31)
    shop.close()
    shop.record("cust_a", "1", reference_id="late-1")
    sound()
    shop.checkpoint()
    sound()
    shop.checkpoint()
    sound()
    with shop.db.write(shop.scope) as connection:  # one customer is erased
        who = shop.link("cust_b").customer_id
        of = {"t": shop.scope.plane, "who": who}
        connection.execute(
            leaf.update().where(leaf.c.tenant_id == of["t"], leaf.c.customer_id == who).values(entry=None)
        )
        connection.execute(
            customer.update()
            .where(customer.c.tenant_id == of["t"], customer.c.customer_id == who)
            .values(sealed_key=None, head=None, next_head=None)
        )
    shop.checkpoint()
    sound()


@pytest.mark.parametrize(("table", "column", "where", "expected"), list(cases()))
def test_a_flipped_bit_is_found_and_named(
    ledger: Ledger, keys: KeyRing, table: str, column: str, where: str, expected: str
) -> None:
    flip(ledger, table, column, where, bit=8 * 21)
    problems = [finding.problem for finding in look(ledger, keys)]
    assert any(re.match(expected, problem) for problem in problems), problems


@pytest.mark.parametrize("bit", [8 * 40 + 7, 8 * 60 + 3])
@pytest.mark.parametrize(
    ("table", "column", "where", "place"),
    [
        ("leaf", "entry", f"{NOVEMBER_A} AND seq = 204", "leaf 204 of r_"),
        ("leaf", "total", f"{NOVEMBER_A} AND seq = 204", "leaf 204 of r_"),
        ("epoch", "entry", "n = 17", "epoch 17: "),
        ("checkpoint", "note", "size = 200", "checkpoint 200: "),
        ("customer", "head", "external_id = 'cust_b'", "head "),
        ("statement", "head", NOVEMBER_A, "statement of r_"),
    ],
)
def test_what_is_no_longer_text_or_a_number_is_found_too(
    ledger: Ledger, keys: KeyRing, table: str, column: str, where: str, place: str, bit: int
) -> None:
    flip(ledger, table, column, where, bit)
    problems = [finding.problem for finding in look(ledger, keys)]
    assert any(problem.startswith(place) for problem in problems), problems


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f"DELETE FROM leaf WHERE tenant_id = :t AND {NOVEMBER_A} AND seq = 301", "leaf 301 of r_"),
        (f"DELETE FROM leaf WHERE tenant_id = :t AND {NOVEMBER_A} AND seq = 9", "leaf 9 of r_"),
        (f"UPDATE leaf SET entry = NULL WHERE tenant_id = :t AND {NOVEMBER_A} AND seq = 9", "leaf 9 of r_"),
        ("DELETE FROM node WHERE tenant_id = :t AND level = 8", "node 8/0 of r_"),
        ("DELETE FROM log_node WHERE tenant_id = :t AND level = 8", "log node 8/0: missing"),
        (f"DELETE FROM statement WHERE tenant_id = :t AND {NOVEMBER_A}", "r_"),
        ("DELETE FROM epoch WHERE tenant_id = :t AND n = 30", "epoch 30: missing"),
        ("DELETE FROM epoch WHERE tenant_id = :t AND n = 257", "the log is 258 epochs long, 257 are stored"),
        ("DELETE FROM checkpoint WHERE tenant_id = :t AND size = 30", "checkpoint 30: missing"),
        ("UPDATE checkpoint SET note = NULL WHERE tenant_id = :t AND size = 30", "checkpoint 30: published without"),
        ("DELETE FROM slot_tile WHERE tenant_id = :t AND epoch = 256", "slot tree of epoch 256: tile 0/0 is missing"),
        (f"DELETE FROM epoch_member WHERE tenant_id = :t AND {DECEMBER_B}", "r_"),
        ("UPDATE customer SET head = NULL WHERE tenant_id = :t AND external_id = 'cust_a'", "head of s0-"),
        ("DELETE FROM signing_key WHERE tenant_id = :t", "the log has no signing key"),
        (f"DELETE FROM day_counter WHERE tenant_id = :t AND {DECEMBER_B}", "r_"),
    ],
)
def test_what_is_missing_is_found_and_named(ledger: Ledger, keys: KeyRing, statement: str, expected: str) -> None:
    spoil(ledger, statement)
    problems = [finding.problem for finding in look(ledger, keys)]
    assert any(problem.startswith(expected) for problem in problems), problems


def test_a_leaf_of_a_sound_rest_is_named_exactly_and_alone(ledger: Ledger, keys: KeyRing) -> None:
    flip(ledger, "leaf", "entry", f"{NOVEMBER_A} AND seq = 204", 8 * 100)
    (finding,) = look(ledger, keys)
    assert finding.problem == f"leaf 204 of {finding.place}: hash differs from its entry"
    assert look(ledger, keys, sample=0) == []
    assert look(ledger, keys, sample=5) == [finding]


def test_several_places_are_named_each(ledger: Ledger, keys: KeyRing) -> None:
    flip(ledger, "leaf", "entry", DECEMBER_B, 8 * 30)
    flip(ledger, "checkpoint", "note", "size = 3", 8 * 120)
    flip(ledger, "slot_tile", "hashes", "epoch = 256", 1)
    places = [finding.place for finding in look(ledger, keys)]
    assert places[:2] == ["checkpoints", "slot tree of epoch 256"]
    assert len(places) == 3


def test_the_lock_store_is_compared(ledger: Ledger, keys: KeyRing) -> None:
    db = Database(f"sqlite:///{ledger.file}")
    locks = FileLockStore(ledger.locks)
    origin = "localhost/log/acme"
    newest = locks.read(origin)
    assert newest is not None
    (file,) = ledger.locks.glob("*.checkpoint")
    with sqlite3.connect(ledger.file) as connection:
        (older,) = connection.execute("SELECT body FROM checkpoint WHERE size = 257").fetchone()
    connection.close()
    ahead, other = newest.replace("\n258\n", "\n300\n"), newest[:-6] + "AAAA=\n"
    for text, state in (
        (newest, StoreState.AGREES),
        (ahead, StoreState.AHEAD),
        (older, StoreState.BEHIND),
        (other, StoreState.DIFFERS),
        ("rubbish", StoreState.DIFFERS),
    ):
        file.write_text(text)
        found = compare_with_store(db, locks, ledger.scope)
        assert (found.state, found.problem is None) == (state, state is StoreState.AGREES)
        places = [finding.place for finding in look(ledger, keys, sample=0)]
        assert places == ([] if state is StoreState.AGREES else ["lock store"])
    file.unlink()
    assert compare_with_store(db, locks, ledger.scope).state is StoreState.BEHIND
    file.mkdir()
    assert compare_with_store(db, locks, ledger.scope).state is StoreState.UNREACHABLE
    db.dispose()
