"""The job loop: its rounds, and what it does when something is wrong."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from shared_record import worker as worker_module
from shared_record.access import chain
from shared_record.db.engine import Database
from shared_record.db.lookup import list_due
from shared_record.db.schema import (
    audit_event,
    challenge,
    checkpoint,
    kept_answer,
    log,
    period_tree,
    session,
    statement,
    trusted_device,
    view_count,
)
from shared_record.ledger.agenda import HEARTBEAT
from shared_record.ledger.audit import audit
from shared_record.ledger.intake import Accepted
from shared_record.ledger.locks import FileLockStore
from shared_record.ledger.records import find_delta
from shared_record.tenancy.tenants import update_tenant
from shared_record.worker import RETRY, Worker
from world import Shop, open_shop

INTERVAL = 10


@pytest.fixture
def worker(shop: Shop) -> Worker:
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, INTERVAL)


def record(shop: Shop, amount: str = "1", customer: str = "cust_a") -> str:
    [accepted] = shop.record(customer, amount)
    assert isinstance(accepted, Accepted)
    return accepted.record_id


def state(shop: Shop, record_id: str) -> str:
    found = find_delta(shop.db, shop.scope, record_id)
    assert found is not None
    return found.state


def log_of(shop: Shop):
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(log).where(log.c.tenant_id == shop.scope.plane)).one()


# --- Rounds ----------------------------------------------------------------------------------------------------------


def test_a_round_integrates_at_once_and_publishes_at_the_interval(shop: Shop, worker: Worker) -> None:
    first = record(shop)
    assert state(shop, first) == "recording"
    assert worker.run_once() == 1
    assert state(shop, first) == "verified"  # the first epoch waits for nothing
    second = record(shop)
    shop.clock.advance(seconds=1)
    assert worker.run_once() == 1
    assert state(shop, second) == "recorded"
    shop.clock.advance(seconds=INTERVAL - 2)
    worker.run_once()
    assert (state(shop, second), log_of(shop).size) == ("recorded", 1)
    shop.clock.advance(seconds=1)
    assert worker.run_once() == 1
    assert (state(shop, second), log_of(shop).size) == ("verified", 2)


def test_a_tenants_own_interval_counts(shop: Shop, worker: Worker) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"checkpoint_seconds": 60})
    record(shop)
    worker.run_once()
    later = record(shop)
    shop.clock.advance(seconds=59)
    worker.run_once()
    assert state(shop, later) == "recorded"
    shop.clock.advance(seconds=1)
    worker.run_once()
    assert state(shop, later) == "verified"


def test_an_idle_log_is_left_alone_until_its_daily_heartbeat(shop: Shop, worker: Worker) -> None:
    record(shop)
    assert worker.run_once() == 1
    assert list_due(shop.db, shop.clock.now()) == []
    for _ in range(3):
        shop.clock.advance(hours=7)
        assert worker.run_once() == 0
    shop.clock.set(shop.clock.now() + HEARTBEAT - timedelta(hours=21))
    assert worker.run_once() == 1
    assert log_of(shop).size == 2
    assert worker.run_once() == 0


def test_a_month_is_closed_when_it_is_over(shop: Shop, worker: Worker) -> None:
    record(shop)
    worker.run_once()
    shop.clock.set(shop.clock.now().replace(month=12, day=1, hour=0, minute=0, second=0))
    late = record(shop, "2")
    assert worker.run_once() == 1
    with shop.db.read(shop.scope) as connection:
        query = select(period_tree.c.period, period_tree.c.status).where(period_tree.c.tenant_id == shop.scope.plane)
        assert sorted(connection.execute(query).all()) == [("2026-11", "closed"), ("2026-12", "open")]
        kept = select(statement.c.epoch).where(statement.c.tenant_id == shop.scope.plane)
        assert connection.execute(kept).scalars().all() == [1]
    assert state(shop, late) == "verified"


# --- When something is wrong -----------------------------------------------------------------------------------------


def test_a_halted_log_is_not_signed_while_integrating_goes_on(shop: Shop, worker: Worker) -> None:
    record(shop)
    worker.run_once()
    origin = log_of(shop).origin
    body = shop.locks.read(origin)
    assert body is not None
    assert shop.locks.swap(origin, body, body.replace("\n1\n", "\n7\n")) != body
    shop.clock.advance(seconds=INTERVAL)
    first = record(shop)
    assert worker.run_once() == 0
    assert "size 7" in log_of(shop).halted
    for _ in range(3):
        second = record(shop)
        shop.clock.advance(seconds=RETRY.total_seconds() + 1)
        worker.run_once()
        assert {state(shop, first), state(shop, second)} == {"recorded"}
    assert published(shop) == [1]


def test_without_the_lock_store_intake_goes_on_and_the_worker_tries_again(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    worker = Worker(shop.db, shop.keys, shop.clock, FileLockStore(folder), INTERVAL)
    record(shop)
    worker.run_once()
    shutil.move(folder, tmp_path / "away")
    folder.write_text("a file where the folder was")
    shop.clock.advance(seconds=INTERVAL)
    first = record(shop)
    assert worker.run_once() == 0
    second = record(shop)
    assert (state(shop, first), state(shop, second)) == ("recorded", "recording")
    folder.unlink()
    shutil.move(tmp_path / "away", folder)
    shop.clock.advance(seconds=RETRY.total_seconds() - 1)
    assert worker.run_once() == 1  # integrating goes on; publishing is not tried in every round
    assert (state(shop, first), state(shop, second)) == ("recorded", "recorded")
    shop.clock.advance(seconds=1)
    assert worker.run_once() == 1
    assert (state(shop, first), state(shop, second), log_of(shop).halted) == ("verified", "verified", None)


def test_g15_a_broken_tenant_does_not_hold_up_another(
    shop: Shop, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="zeta", hosts=("usage.zeta.localhost",))
    original = worker_module.make_checkpoint

    def broken(db, keys, clock, locks, lease, witnesses):
        if lease.scope == shop.scope:
            raise OSError("no such volume")
        return original(db, keys, clock, locks, lease, witnesses)

    monkeypatch.setattr(worker_module, "make_checkpoint", broken)
    mine, theirs = record(shop), record(other)
    assert worker.run_once() == 1
    assert (state(shop, mine), state(other, theirs)) == ("recorded", "verified")


# --- Several workers -------------------------------------------------------------------------------------------------


def test_two_workers_at_once_make_one_sequence_of_epochs(shop: Shop) -> None:
    stop, failures = threading.Event(), []

    def work() -> None:
        own = Database(shop.db.url)
        worker = Worker(own, shop.keys, shop.clock, shop.locks, 0)
        try:
            while not stop.is_set():
                worker.run_once()
        except Exception as error:
            failures.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(25):
            newest = record(shop, str(number + 1), f"cust_{number % 3}")
            shop.clock.advance(seconds=1)
            time.sleep(0.02)
        limit = time.monotonic() + 20
        while state(shop, newest) != "verified" and not failures and time.monotonic() < limit:
            # A worker that lost a race waits RETRY by this clock, which only the test moves.
            shop.clock.advance(seconds=RETRY.total_seconds())
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert state(shop, newest) == "verified"
    assert list(audit(shop.db, shop.keys, shop.locks, shop.scope)) == []
    assert len(published(shop)) > 2


# --- The nightly audit -----------------------------------------------------------------------------------------------


def alarms(shop: Shop) -> list[dict[str, object]]:
    with shop.db.read(shop.scope) as connection:
        query = select(audit_event.c.detail).where(
            audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == "integrity.alarm"
        )
        return list(connection.execute(query).scalars())


def change_log(shop: Shop, **values: object) -> None:
    with shop.db.write(shop.scope) as connection:
        connection.execute(log.update().where(log.c.tenant_id == shop.scope.plane).values(**values))


def test_each_log_is_audited_once_a_day_by_one_worker(shop: Shop, worker: Worker) -> None:
    record(shop)
    worker.run_once()
    assert worker.audit_once() == 0
    shop.clock.advance(days=1)
    other = Worker(shop.db, shop.keys, shop.clock, shop.locks, INTERVAL)
    assert worker.audit_once() == 2  # the live log and that of test data
    assert other.audit_once() == 0
    state_ = log_of(shop)
    assert (state_.audited_at, state_.audit_findings, state_.audit_problem) == (shop.clock.now(), 0, None)
    assert alarms(shop) == []
    shop.clock.advance(hours=23)
    assert worker.audit_once() == 0
    shop.clock.advance(hours=1)
    assert other.audit_once() == 2


def test_what_the_audit_finds_is_an_alarm_and_halts_nothing(
    shop: Shop, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    record(shop)
    worker.run_once()
    with shop.db.write(shop.scope) as connection:
        trees = period_tree.update().where(period_tree.c.tenant_id == shop.scope.plane)
        connection.execute(trees.values(base=7))
    shop.clock.advance(days=1)
    assert worker.audit_once() == 2
    state_ = log_of(shop)
    assert (state_.audit_findings, state_.halted) == (1, None)
    assert "its base 7 differs" in state_.audit_problem
    assert any("integrity.alarm" in line and "its base 7 differs" in line for line in caplog.messages)
    assert {one.levelname for one in caplog.records if "integrity.alarm" in one.getMessage()} == {"ERROR"}
    (event,) = alarms(shop)
    assert (event["findings"], event["halted"]) == (1, False)
    later = record(shop, "2", "cust_b")
    worker.run_once()
    assert state(shop, later) == "verified"


@pytest.mark.parametrize("what", ["frontier", "note", "epoch"])
def test_a_newest_checkpoint_that_is_contradicted_halts_the_log(shop: Shop, worker: Worker, what: str) -> None:
    record(shop)
    worker.run_once()
    if what == "frontier":
        change_log(shop, frontier=b"x" * 32)
    elif what == "note":
        with shop.db.write(shop.scope) as connection:
            notes = checkpoint.update().where(checkpoint.c.tenant_id == shop.scope.plane)
            connection.execute(notes.values(note="something else"))
    else:
        change_epoch_as_owner(shop)
    shop.clock.advance(days=1)
    worker.audit_once()
    assert "The audit found that the log must not be continued" in log_of(shop).halted
    assert alarms(shop)[0]["halted"] is True
    later = record(shop, "2")
    worker.run_once()
    assert state(shop, later) == "recorded"


def change_epoch_as_owner(shop: Shop) -> None:
    """Change what the application may not."""
    engine = create_engine(shop.db.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE epoch SET entry = entry || ' '"))
    engine.dispose()


def test_a_long_audit_does_not_hold_up_checkpoints_and_gives_way_to_them(
    shop: Shop, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(shop)
    worker.run_once()
    shop.clock.advance(days=1)
    began, go_on = threading.Event(), threading.Event()
    real = worker_module.nightly.audit

    def long(*args, **kwargs):
        began.set()
        assert go_on.wait(20)
        yield from real(*args, **kwargs)

    monkeypatch.setattr(worker_module.nightly, "audit", long)
    thread = threading.Thread(target=worker.audit_once)
    thread.start()
    try:
        assert began.wait(20)
        later = record(shop, "2")
        assert worker.run_once() >= 1
        assert state(shop, later) == "verified"
    finally:
        go_on.set()
        thread.join()
    assert log_of(shop).audit_findings == 0


def test_an_audit_that_is_stopped_is_begun_anew_by_the_next_worker(shop: Shop, worker: Worker) -> None:
    record(shop)
    worker.run_once()
    shop.clock.advance(days=1)
    stop = threading.Event()
    stop.set()
    assert worker.audit_once(stop) == 0
    assert log_of(shop).audited_at is None
    assert Worker(shop.db, shop.keys, shop.clock, shop.locks, INTERVAL).audit_once() == 2


def published(shop: Shop) -> list[int]:
    with shop.db.read(shop.scope) as connection:
        query = select(checkpoint.c.size, checkpoint.c.state).where(checkpoint.c.tenant_id == shop.scope.plane)
        return sorted(row.size for row in connection.execute(query) if row.state == "published")


def test_new_rows_of_the_audit_trail_are_chained_and_the_head_is_logged(
    shop: Shop, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    record(shop)
    shop.code("cust_a")
    caplog.set_level("INFO", "shared_record.worker")
    assert (worker.seal_once(), worker.seal_once()) == (1, 0)
    with shop.db.read(shop.scope) as connection:
        verdict = chain.verify(connection, shop.scope)
    assert (verdict.waiting, verdict.problems) == (0, [])
    assert [line for line in caplog.messages if "sealed" in line] == [f"tenant acme: audit.sealed {verdict.head}"]


def test_what_has_expired_is_removed_while_the_worker_runs_of_idle_tenants_too(shop: Shop, worker: Worker) -> None:
    record(shop)
    who, now, plane = shop.link("cust_a").customer_id, shop.clock.now(), shop.scope.plane
    columns = {f"{name}_epoch": 1 for name in ("tenant", "host", "link", "code", "customer", "method")}
    place = {"tenant_id": plane, "customer_id": who, "host": shop.hosts[0], "created_at": now}
    mine = place | columns | {"method": "x"}
    asked = {"digest": b"c" * 32, "choice": "", "binding": b"b" * 32, "sealed": b"s"}
    rows = {
        view_count: {"tenant_id": plane, "customer_id": who, "hour": now, "tier": "outer", "views": 1},
        challenge: mine | asked | {"expires_at": now + timedelta(minutes=10)},
        session: mine | {"sid_hash": b"s" * 32, "last_seen_at": now, "expires_at": now + timedelta(hours=12)},
        trusted_device: place
        | {"digest": b"d" * 32, "link_epoch": 1, "code_epoch": 1, "expires_at": now + timedelta(days=180)},
        kept_answer: {"tenant_id": plane, "owner": "o", "route": "r", "key": "k", "digest": b"k", "created_at": now},
    }
    with shop.db.write(shop.scope) as connection:
        for table, row in rows.items():
            connection.execute(table.insert(), row)

    def left() -> list[str]:
        with shop.db.read(shop.scope) as connection:
            counts = {
                table.name: len(connection.execute(select(table).where(table.c.tenant_id == plane)).all())
                for table in rows
            }
        return [name for name, count in counts.items() if count]

    assert worker.sweep_once() == 0
    shop.clock.advance(minutes=10)
    assert worker.sweep_once() == 1
    assert left() == ["view_count", "session", "trusted_device", "kept_answer"]
    shop.clock.advance(days=31)
    assert worker.sweep_once() == 2
    assert left() == ["view_count", "trusted_device"]
    shop.clock.advance(days=370)
    assert worker.sweep_once() == 2
    assert left() == []


def test_it_is_swept_again_and_again(shop: Shop, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "SWEEP_SECONDS", 0.01)
    stop, swept = threading.Event(), []

    def note() -> int:
        swept.append(1)
        if len(swept) == 3:
            stop.set()
        return 0

    monkeypatch.setattr(worker, "sweep_once", note)
    worker.run(stop, 0.01)
    assert len(swept) >= 3
