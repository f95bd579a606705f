"""Large exports: asked for, built by the worker, kept for a day, and gone with the link they were asked through."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from shared_record_export_csv import Csv
from sqlalchemy import bindparam

from shared_record.access import links
from shared_record.db import leases
from shared_record.db.schema import export_job
from shared_record.errors import NotFoundError
from shared_record.exports import building, jobs
from shared_record.exports.building import Builder, folder_of
from shared_record.exports.jobs import FAILED, PREPARING, READY, BusyError, Export
from shared_record.exports.service import PLAIN, build_export
from shared_record.hooks.loader import load_plugins
from shared_record.ledger.erasure import erase_customer
from shared_record.plugin import ExportFormat, ExportOptions, ExportRow, ExportSummary
from shared_record.worker import Worker
from world import Shop

MONTH = "2026-11"


class Broken(Csv):
    """Writes half of a file and then fails."""

    slug = "broken"

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        out.write(b"half")
        raise ValueError("no more")


@pytest.fixture(autouse=True)
def _few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "AT_ONCE", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "exports"


@pytest.fixture
def builder(shop: Shop, folder: Path) -> Builder:
    formats: dict[str, type[ExportFormat]] = dict(load_plugins(strict=True).export_formats) | {"broken": Broken}
    return Builder(shop.db, shop.keys, shop.clock, formats, folder, lambda _scope, _who: PLAIN)


@pytest.fixture
def worker(shop: Shop, builder: Builder) -> Worker:
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, 10, exports=builder)


def ask(shop: Shop, customer: str = "cust_a", slug: str = "csv", month: str = MONTH, **more: Any) -> Export:
    who = shop.link(customer).customer_id
    return jobs.ask(shop.db, shop.clock, shop.scope, who, month, slug, "en", **more)


def test_x03_of_64_that_ask_at_once_one_file_is_made(shop: Shop, soak: bool) -> None:
    """Whoever asks for the same file gets it; whoever asks for another one of this record has to wait."""
    shop.record("cust_a", "1", "2", "3")
    with ThreadPoolExecutor(64) as pool:
        for _ in range(200 if soak else 20):
            barrier = threading.Barrier(64)

            def act(number: int, barrier: threading.Barrier = barrier) -> str:
                barrier.wait(60)
                try:
                    return ask(shop, slug=("csv", "json")[number % 2]).export_id
                except BusyError:
                    return "busy"

            told = list(pool.map(act, range(64)))
            assert len(set(told) - {"busy"}) == 1
            assert told.count("busy") == 32
            shop.clock.advance(days=2)


def now(shop: Shop, export: Export) -> Export | None:
    with shop.db.read(shop.scope) as connection:
        return jobs.find(connection, shop.clock, shop.scope, export.customer_id, export.export_id)


def state(shop: Shop, export: Export) -> str | None:
    found = now(shop, export)
    return found and found.state


def files(shop: Shop, folder: Path) -> list[Path]:
    mine = folder_of(folder, shop.scope)
    return sorted(mine.iterdir()) if mine.is_dir() else []


def test_a_file_is_built_whole_private_and_described(shop: Shop, worker: Worker, folder: Path) -> None:
    shop.record("cust_a", "5", "7.25", "1")
    asked = ask(shop)
    assert (asked.state, asked.rows, asked.file, asked.expires_at - asked.created_at) == (PREPARING, 3, None, jobs.KEPT)
    assert worker.export_once() == 1
    found = now(shop, asked)
    assert found is not None
    assert (found.state, found.written) == (READY, 3)
    [path] = files(shop, folder)
    data = path.read_bytes()
    assert path.name == found.file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (found.length, found.sha256) == (len(data), hashlib.sha256(data).digest())
    assert found.manifest is not None
    assert (found.manifest["rows"], found.manifest["total"]) == (3, "13.25")
    out, who = io.BytesIO(), shop.link("cust_a").customer_id
    built = build_export(shop.db, shop.keys, shop.clock, shop.scope, who, MONTH, Csv, out)
    assert (out.getvalue(), built.filename) == (data, found.filename)
    assert worker.export_once() == 0


def test_the_same_file_is_not_built_twice_unless_more_was_recorded(shop: Shop, worker: Worker, folder: Path) -> None:
    shop.record("cust_a", "5", "7.25", "1")
    first = ask(shop)
    assert ask(shop).export_id == first.export_id
    worker.export_once()
    assert ask(shop).export_id == first.export_id
    shop.record("cust_a", "1")
    second = ask(shop)
    assert (second.export_id != first.export_id, second.rows, state(shop, first)) == (True, 4, None)
    worker.export_once()
    assert [path.name for path in files(shop, folder)] == [getattr(now(shop, second), "file", "")]
    third = ask(shop, anew=True)
    assert third.export_id != second.export_id


def test_x03_g15_one_at_a_time_for_a_customer_and_four_for_a_tenant(shop: Shop, worker: Worker) -> None:
    for n in range(6):
        shop.record(f"cust_{n}", "1", "2", "3")
    ask(shop, "cust_0")
    with pytest.raises(BusyError) as own:
        ask(shop, "cust_0", "jsonl")
    for n in range(1, jobs.PER_TENANT):
        ask(shop, f"cust_{n}")
    with pytest.raises(BusyError) as all_:
        ask(shop, "cust_5")
    assert (own.value.code, own.value.of_tenant, all_.value.of_tenant) == ("EXPORT_BUSY", False, True)
    assert worker.export_once() == jobs.PER_TENANT
    assert ask(shop, "cust_5").state == PREPARING


def test_x03_requests_at_the_same_moment_do_not_pass_the_limit(shop: Shop) -> None:
    for n in range(8):
        shop.record(f"cust_{n}", "1", "2", "3")
    barrier = threading.Barrier(8)

    def race(n: int) -> bool:
        barrier.wait()
        try:
            ask(shop, f"cust_{n}")
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == jobs.PER_TENANT


def test_a_period_without_records_is_not_found(shop: Shop) -> None:
    shop.record("cust_a", "5")
    with pytest.raises(NotFoundError, match="nothing is recorded in 2026-10"):
        ask(shop, month="2026-10")


def test_a_format_that_fails_leaves_nothing_and_holds_up_nobody(shop: Shop, worker: Worker, folder: Path) -> None:
    shop.record("cust_a", "5", "7.25", "1")
    shop.record("cust_b", "5", "7.25", "1")
    bad, unknown, good = ask(shop, slug="broken"), ask(shop, "cust_b", "nosuch"), None
    assert worker.export_once() == 0
    assert (state(shop, bad), state(shop, unknown), files(shop, folder)) == (FAILED, FAILED, [])
    good = ask(shop)
    assert worker.export_once() == 1
    assert state(shop, good) == READY
    again = ask(shop, slug="broken")
    assert (again.state, again.export_id != bad.export_id) == (PREPARING, True)


def revoke(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")


def reissue(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        links.reissue_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")


def erase(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        erase_customer(connection, shop.clock, shop.scope, "cust_a", "test")


def wait(shop: Shop) -> None:
    shop.clock.advance(hours=24)


@pytest.mark.parametrize("change", [revoke, reissue, erase, wait])
def test_s13_a_file_goes_with_the_link_the_customer_and_the_day(
    shop: Shop, worker: Worker, folder: Path, change: Callable[[Shop], None]
) -> None:
    shop.record("cust_a", "5", "7.25", "1")
    shop.record("cust_b", "5", "7.25", "1")
    ready = ask(shop)
    worker.export_once()
    shop.clock.advance(minutes=1)
    other = ask(shop, "cust_b")
    worker.export_once()
    assert len(files(shop, folder)) == 2
    change(shop)
    assert state(shop, ready) is None  # at once
    shop.clock.advance(seconds=building.SWEEP.seconds)
    worker.export_once()
    left = [path.name for path in files(shop, folder)]
    assert left == ([] if change is wait else [getattr(now(shop, other), "file", "")])
    with shop.db.read(shop.scope) as connection:
        rows = [one.export_id for one in jobs.list_all(connection, shop.scope)]
        assert ready.export_id not in rows


def test_what_no_row_names_is_removed_and_other_planes_are_left_alone(shop: Shop, worker: Worker, folder: Path) -> None:
    shop.record("cust_a", "5", "7.25", "1")
    ask(shop)
    mine, theirs = (folder_of(folder, scope) for scope in (shop.scope, shop.test_scope))
    for place in (mine, theirs):
        place.mkdir(parents=True)
        (place / "exp_0.7.part").write_bytes(b"half")
        (place / "exp_0.7").write_bytes(b"whole, but nobody was told")
    worker.export_once()
    assert len(files(shop, folder)) == 1
    assert len(list(theirs.iterdir())) == 2


def test_a_late_worker_cannot_hand_in_its_file(shop: Shop, builder: Builder, worker: Worker, folder: Path) -> None:
    """It was slow, another one took over and was faster."""
    shop.record("cust_a", "5", "7.25", "1")
    asked = ask(shop)
    late = leases.acquire(shop.db, shop.clock, shop.scope, jobs.EXPORT, "late", building.LEASE)
    assert late is not None
    assert worker.export_once() == 0  # the lease is taken
    shop.clock.advance(seconds=building.LEASE.seconds)
    assert worker.export_once() == 1
    before = now(shop, asked)
    with pytest.raises(Exception, match="overtaken"):
        builder.serve(late, lambda: None)
    assert now(shop, asked) == before
    assert [path.name for path in files(shop, folder)] == [getattr(before, "file", "")]


def test_a_file_whose_building_kills_each_worker_is_given_up(shop: Shop, builder: Builder, worker: Worker) -> None:
    shop.record("cust_a", "5", "7.25", "1")
    asked = ask(shop)
    with shop.db.write(shop.scope) as connection:
        change = export_job.update().where(export_job.c.tenant_id == bindparam("t")).values(attempts=building.ATTEMPTS)
        connection.execute(change, {"t": shop.scope.plane})
    assert worker.export_once() == 0
    assert state(shop, asked) == FAILED


def test_signs_of_life_keep_the_lease_and_show_the_progress(
    shop: Shop, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "BEAT_SECONDS", 0)
    shop.record("cust_a", "5", "7.25", "1")
    asked, seen = ask(shop), []

    def give_way() -> None:
        seen.append(getattr(now(shop, asked), "written", None))
        shop.clock.advance(seconds=building.LEASE.seconds - 1)

    lease = leases.acquire(shop.db, shop.clock, shop.scope, jobs.EXPORT, "one", building.LEASE)
    assert lease is not None
    assert builder.serve(lease, give_way) == 1
    assert 3 in seen
    assert state(shop, asked) == READY


def test_a_worker_that_is_stopped_leaves_its_file_to_the_next(
    shop: Shop, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "BEAT_SECONDS", 0)
    shop.record("cust_a", "5", "7.25", "1")
    asked, stop = ask(shop), threading.Event()
    stop.set()
    assert worker.export_once(stop) == 0
    assert (state(shop, asked), files(shop, folder)) == (PREPARING, [])
    assert worker.export_once() == 1
    assert state(shop, asked) == READY
