"""The lock stores: one promise, compare-and-swap, kept by a folder, a second PostgreSQL and a Redis of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from proofs_of import prove
from servers import free_port, valkey
from shared_record.errors import ConfigurationError, UnavailableError
from shared_record.ledger.locks import FileLockStore, LockStore, PostgreSQLLockStore, RedisLockStore, open_lock_store
from shared_record.settings import Settings
from world import Shop

KINDS = ("folder", "postgresql", "redis")
ORIGIN = "records.example/log/t_1"


@pytest.fixture(scope="module")
def durable_redis() -> Iterator[str]:
    with valkey("--appendonly", "yes", "--appendfsync", "always") as url:
        yield url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LockStore]:
    if request.param == "folder":
        yield FileLockStore(tmp_path / "locks")
    elif request.param == "redis":
        yield RedisLockStore(request.getfixturevalue("durable_redis") + f"?client_name={uuid.uuid4().hex}")
    else:
        server = request.getfixturevalue("postgresql_server")
        name = f"sr_locks_{uuid.uuid4().hex[:8]}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield PostgreSQLLockStore(server.rsplit("/", 1)[0] + "/" + name)
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def test_only_what_is_stored_can_be_swapped(store: LockStore) -> None:
    origin = f"{ORIGIN}-{uuid.uuid4().hex}"
    assert store.read(origin) is None
    assert store.swap(origin, "never stored", "a\n") is None
    assert store.swap(origin, None, "a\n1\n") == "a\n1\n"
    assert store.swap(origin, None, "b\n") == "a\n1\n"
    assert store.swap(origin, "b\n", "c\n") == "a\n1\n"
    assert store.swap(origin, "a\n1\n", "a\n2\n") == "a\n2\n"
    assert store.read(origin) == "a\n2\n"
    assert store.read(origin + "/2") is None


def test_of_many_that_swap_at_once_one_wins(store: LockStore) -> None:
    origin = f"{ORIGIN}-{uuid.uuid4().hex}"
    store.swap(origin, None, "start")
    bodies = [f"body {n}" for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: store.swap(origin, "start", body), bodies))
    assert len(set(answers)) == 1
    assert answers[0] == store.read(origin)
    assert sum(answer == body for answer, body in zip(answers, bodies, strict=True)) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_log_is_published_through_each_of_them(shop: Shop, store: LockStore) -> None:
    mine = replace(shop, locks=store)  # type: ignore[arg-type]
    mine.record("cust_a", "1", "2")
    assert [mine.checkpoint(), mine.checkpoint()] == [1, 2]
    prove(mine, "cust_a")


def test_a_store_that_cannot_be_reached_says_so() -> None:
    port = free_port()
    with pytest.raises(UnavailableError):
        PostgreSQLLockStore(f"postgresql://nobody@127.0.0.1:{port}/none").read(ORIGIN)
    with pytest.raises(UnavailableError):
        RedisLockStore(f"redis://127.0.0.1:{port}/0")


def test_a_redis_that_may_forget_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="appendfsync"):
        RedisLockStore(redis_url)


def test_the_store_is_chosen_by_the_settings(tmp_path: Path) -> None:
    assert isinstance(open_lock_store(Settings(data_dir=tmp_path)), FileLockStore)
    url = "postgresql://app@db/locks"
    assert isinstance(
        open_lock_store(Settings(lock_url=url, database_url="postgresql://app@db/records")), PostgreSQLLockStore
    )
    with pytest.raises(ConfigurationError, match="another database"):
        open_lock_store(Settings(lock_url=url, database_url=url))
    with pytest.raises(ConfigurationError, match="begins with"):
        open_lock_store(Settings(lock_url="mysql://x"))
