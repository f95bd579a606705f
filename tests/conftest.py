"""Fixtures of the whole suite: one PostgreSQL and one Valkey per run, a fresh migrated database per test."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from xdist.scheduler import LoadScopeScheduling

from servers import postgresql, valkey
from shared_record.clock import SteppedClock
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from world import Shop, open_shop

ON_THE_DEMO = tuple(f"tests/system/{name}.py" for name in ("test_demo", "test_journey_live", "test_conv_trace"))
SERVER = pytest.StashKey[tuple[Any, str]]()
TOGETHER = ("tests/system/test_raw_sockets.py",)
"""Files whose tests share servers of their own."""
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
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None) or config.option.collectonly:
        return
    server = postgresql()
    config.stash[SERVER] = (server, server.__enter__())


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
        return "demo" if path in ON_THE_DEMO or path.startswith("tests/browser/") else nodeid


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
    with postgresql() as url:
        yield url


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
def _templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {}


@pytest.fixture(params=ENGINES)
def database_url(
    request: pytest.FixtureRequest, _templates: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a fresh, migrated database; the test runs once on each engine."""
    if request.param == "sqlite":
        if "sqlite" not in _templates:
            template = tmp_path_factory.mktemp("template") / "db.sqlite3"
            migrate.upgrade(f"sqlite:///{template}")
            _templates["sqlite"] = str(template)
        path = tmp_path_factory.mktemp("db") / "db.sqlite3"
        shutil.copy(_templates["sqlite"], path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgresql_server")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    if "postgresql" not in _templates:
        template = f"sr_template_{uuid.uuid4().hex[:12]}"
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {template}"))
        migrate.upgrade(server.rsplit("/", 1)[0] + "/" + template)
        _templates["postgresql"] = template
    name = f"sr_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {_templates['postgresql']}"))
    yield server.rsplit("/", 1)[0] + "/" + name
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A database of its own, migrated, as the application sees it (on PostgreSQL: as ``sr_app``)."""
    database = Database(database_url)
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
