"""How the demo starts again, ends, and fails. Each test runs demos of its own, so any test process may take it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from demo_server import Browser, Demo, descendants, is_alive, wait_for
from shared_record.cli.seed import PROFILES


def test_seeding_that_was_killed_is_completed_and_a_later_start_prints_the_same_card(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    try:
        demo.launch()
        database = demo.data_dir / "shared-record.sqlite3"
        wait_for("the database", lambda: database.exists() and _has_tables(demo))
        wait_for("some usage", lambda: demo.rows("SELECT count(*) FROM leaf")[0][0] > 400)
    finally:
        demo.kill()
    assert not demo.ready_file.exists()
    with demo.running():
        first, printed = demo.ready, demo.card
        expected = {(one.external_id, one.before + one.current) for some in PROFILES.values() for one in some}
        query = (
            "SELECT c.external_id, count(*), count(DISTINCT d.reference), count(DISTINCT l.record_id) FROM leaf l"
            " JOIN customer c ON c.tenant_id = l.tenant_id AND c.customer_id = l.customer_id"
            " JOIN delta_detail d ON d.tenant_id = l.tenant_id AND d.tree_id = l.tree_id AND d.seq = l.seq"
            " GROUP BY c.external_id"
        )
        assert {(name, *counts) for name, *counts in demo.rows(query)} == {(name, n, n, n) for name, n in expected}
        assert demo.rows("SELECT count(*) FROM period_tree WHERE psize < size") == [(0,)]
    with demo.running(end=signal.SIGTERM):
        assert demo.ready == first
        assert demo.card == printed
        assert demo.rows("SELECT count(*) FROM leaf") == [(sum(count for _, count in expected),)]


def _has_tables(demo: Demo) -> bool:
    return demo.rows("SELECT count(*) FROM sqlite_master WHERE name = 'leaf'") == [(1,)]


def test_sigint_and_sigterm_end_it_within_seconds_and_fresh_starts_anew(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    keys = set()
    for how in (signal.SIGINT, signal.SIGTERM):
        with demo.running("--no-seed", "--fresh", end=how):
            assert [tenant["customers"] for tenant in demo.ready["tenants"]] == [[], [], []]
            keys.add(demo.tenant("acme")["api_key"])
            started = time.monotonic()
        assert time.monotonic() - started < 8
    assert len(keys) == 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_no_part_survives_the_others(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    try:
        for part in ("serve", "worker"):
            demo.start("--no-seed")
            family = descendants(demo.process.pid)
            [child] = [one for one in family if _command(one[0], demo.process.pid) == part]
            os.kill(child[0], signal.SIGKILL)
            assert demo.process.wait(20) == 75
            assert "a part of the demo ended by itself" in demo.errors
            _none_left(family)
        demo.start("--no-seed")  # the port is free again
        family = descendants(demo.process.pid)
        assert len(family) >= 2
        demo.process.kill()
        demo.process.wait(10)
        _none_left(family)
    finally:
        demo.kill()


def _command(pid: int, parent: int) -> str:
    """Return which of its commands a direct child of the demo runs."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    above = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return next((word for word in words if word in ("serve", "worker")), "") if int(above) == parent else ""


def _none_left(family: list[tuple[int, str]]) -> None:
    wait_for("every process has ended", lambda: not any(is_alive(one) for one in family), 15)


def test_a_port_in_use_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", demo.port))
        taken.listen()
        assert demo.launch("--no-seed").wait(30) == 75
    assert f"port {demo.port} on 127.0.0.1 cannot be used" in demo.errors
    assert "--port" in demo.errors
    assert "Traceback" not in demo.errors
    assert not demo.data_dir.exists()


def test_fresh_throws_nothing_away_that_is_not_a_data_directory(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo")
    demo.data_dir.mkdir(parents=True)
    precious = demo.data_dir / "thesis.txt"
    precious.write_text("ten years of work")
    assert demo.launch("--fresh", "--no-seed").wait(30) == 2
    assert "not a data directory" in demo.errors
    assert [*demo.data_dir.iterdir()] == [precious]
    assert precious.read_text() == "ten years of work"


def test_on_postgresql_usage_is_recorded_and_verified(tmp_path: Path, postgresql_server: str) -> None:
    admin = create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE sr_demo"))
        demo = Demo(tmp_path / "demo", database_url=postgresql_server.rsplit("/", 1)[0] + "/sr_demo")
        with demo.running("--no-seed"):
            _records_and_verifies(demo)
    finally:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS sr_demo WITH (FORCE)"))
        admin.dispose()


def _records_and_verifies(demo: Demo) -> None:
    deltas: list[dict[str, Any]] = [
        {"customerId": "cust_pg", "delta": str(n) + ".5", "reason": "system test"} for n in range(1, 6)
    ]
    headers = {"X-Api-Key": demo.tenant("acme")["api_key"]}
    answer = demo.http("POST", "/api/v1/balance/delta/batch", json_body={"deltas": deltas}, headers=headers)
    assert answer.status == 201, answer.text
    record_id = demo.emit("acme", "cust_pg", "0.25")["recordId"]
    assert demo.wait_verified("acme", record_id)[-1] == "VERIFIED"
    url = demo.cli_json("link", "show", "cust_pg", "--tenant", "acme")["url"]
    assert "17.75" in Browser(demo).get(url).text
