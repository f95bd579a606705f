"""Fixtures of the whole suite: one PostgreSQL and one Valkey per run, a fresh migrated database per test."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from xdist.scheduler import LoadScopeScheduling

from compiled import remember_address_builders, share_statements
from servers import memory, postgresql, valkey
from shared_record.clock import SteppedClock
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from world import Shop, open_shop

ON_THE_DEMO = (
    *(f"tests/system/{name}.py" for name in ("test_demo", "test_journey_live", "test_conv_trace")),
    *(f"tests/browser/{name}.py" for name in ("test_accessibility", "test_live_check", "test_live_pages")),
    *(f"tests/browser/{name}.py" for name in ("test_page_script", "test_pages", "test_reconcile")),
)
SERVER = pytest.StashKey[tuple[Any, str]]()
TOGETHER = (
    *(f"tests/browser/{name}.py" for name in ("test_device_code", "test_email_code", "test_embedding", "test_styles")),
    "plugins/anchor_rfc3161/tests/test_anchor_rfc3161.py",
    "tests/cli/test_commands.py",
    "tests/exports/test_large.py",
    "tests/interop/test_pacspace_sdk.py",
    "tests/ledger/test_audit.py",
    "tests/packaging/test_wheels.py",
    "tests/system/test_raw_sockets.py",
    "tests/verifier/test_anchored_bundle.py",
)
"""Files whose tests share what takes long to make: a browser, servers, environments, a filled database."""
ENGINES = ("sqlite", "postgresql")
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run long proofs in full instead of a tenth")


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> bool:
    """Whether this run is to do the full counts."""
    return bool(pytestconfig.getoption("--soak"))


def pytest_configure(config: pytest.Config) -> None:
    """Start the one PostgreSQL of a parallel run, in the process that hands out the tests."""
    # The suite starts hundreds of Python processes: each would compile all modules where none may keep them.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    remember_address_builders()
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None) or config.option.collectonly:
        return
    server = postgresql(on_disk=config.getoption("--soak"))
    config.stash[SERVER] = (server, server.__enter__())


def pytest_xdist_auto_num_workers() -> int:
    """Return half as many processes again as there are cores: tests of servers and browsers wait much of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


def pytest_configure_node(node: Any) -> None:
    """Tell a test process where the PostgreSQL of this run is."""
    if SERVER in node.config.stash:
        node.workerinput["postgresql"] = node.config.stash[SERVER][1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Keep the tests that share the one live demo in one process, and hand out all others one by one."""
    return _Grouped(config, log)


class _Grouped(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in TOGETHER:
            return path
        return "demo" if path in ON_THE_DEMO else nodeid


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it again."""
    if SERVER in config.stash:
        config.stash[SERVER][0].__exit__(None, None, None)
        del config.stash[SERVER]


@pytest.fixture(scope="session")
def postgresql_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of a PostgreSQL superuser; one server per run."""
    shared = getattr(pytestconfig, "workerinput", {}).get("postgresql")
    if shared is not None:
        yield shared
        return
    with postgresql(on_disk=pytestconfig.getoption("--soak")) as url:
        yield url


@pytest.fixture(scope="session")
def _postgresql(postgresql_server: str) -> Iterator[tuple[Engine, str]]:
    """A superuser's way in, and the name of a migrated database to copy."""
    admin = create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    template = f"sr_template_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {template}"))
    migrate.upgrade(postgresql_server.rsplit("/", 1)[0] + "/" + template)
    yield admin, template
    admin.dispose()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a real Valkey."""
    with valkey() as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium, as Playwright drives it."""
    from chromium import launched  # most tests need no browser, and its driver is slow to import

    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def _sqlite(soak: bool) -> Iterator[Path]:
    """A folder with a migrated database to copy, ``template``; in memory, as a run makes thousands."""
    with tempfile.TemporaryDirectory(prefix="sr-sqlite-", dir=None if soak else memory()) as folder:
        migrate.upgrade(f"sqlite:///{folder}/template")
        yield Path(folder)


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, migrated database; the test runs once on each engine."""
    name = f"sr_{uuid.uuid4().hex[:12]}"
    if request.param == "sqlite":
        folder = request.getfixturevalue("_sqlite")
        (folder / name).mkdir()
        shutil.copy(folder / "template", folder / name / "db.sqlite3")
        yield f"sqlite:///{folder / name}/db.sqlite3"
        shutil.rmtree(folder / name, ignore_errors=True)
        return
    admin, template = request.getfixturevalue("_postgresql")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield request.getfixturevalue("postgresql_server").rsplit("/", 1)[0] + "/" + name
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A database of its own, migrated, as the application sees it (on PostgreSQL: as ``sr_app``)."""
    database = Database(database_url)
    share_statements(database.engine)
    yield database
    database.dispose()


@pytest.fixture
def clock() -> SteppedClock:
    """A clock that stands at noon on 22 November 2026 (UTC)."""
    return SteppedClock(NOON)


@pytest.fixture(scope="session")
def keys() -> KeyRing:
    """A fixed key ring."""
    return KeyRing("k1", {"k1": bytes(range(32))})


@pytest.fixture
def shop(db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path) -> Shop:
    """One tenant, ``acme``, with two branded hosts and nothing recorded."""
    return open_shop(db, keys, clock, tmp_path)
