"""The resolver: equality only, one query for a miss, positive answers remembered until the generation moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, insert, update

from shared_record.db.engine import Database
from shared_record.db.schema.hosts import host as host_table
from shared_record.db.schema.tenancy import tenant
from shared_record.db.scope import Scope
from shared_record.errors import ConfigurationError, UnavailableError
from shared_record.hosts import resolver as module
from shared_record.hosts.resolver import HostMatch, Resolver, Role, Source, bump_generation

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Seconds:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self) -> float:
        return self.value


def add_tenant(db: Database, slug: str, twin_of: UUID | None = None) -> UUID:
    tenant_id = uuid4()
    row = {
        "tenant_id": tenant_id,
        "config_of": twin_of,
        "slug": slug,
        "public_id": f"ten_{slug}",
        "name": slug,
        "export_formats": [],
        "sealed_key": b"sealed",
        "created_at": NOW,
    }
    with db.write(Scope.of(tenant_id, twin_of)) as connection:
        connection.execute(insert(tenant), row)
    return tenant_id


def host_row(tenant_id: UUID, name: str, role: str, *, primary: bool = False) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "host": name,
        "display": name,
        "role": role,
        "is_primary": primary,
        "epoch": 3,
        "created_at": NOW,
    }


def add_hosts(db: Database, tenant_id: UUID, *rows: dict[str, object]) -> None:
    with db.write(Scope.of(tenant_id)) as connection:
        connection.execute(insert(host_table), list(rows))


def set_role(db: Database, tenant_id: UUID, name: str, role: str, *, bump: bool = True) -> None:
    with db.write(Scope.of(tenant_id)) as connection:
        connection.execute(
            update(host_table)
            .where(host_table.c.tenant_id == tenant_id, host_table.c.host == name)
            .values(role=role, epoch=host_table.c.epoch + 1)
        )
        if bump:
            bump_generation(connection)


@contextmanager
def counted(db: Database) -> Iterator[list[str]]:
    """Collect the queries that reach the driver, without those that open a transaction."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        if not statement.startswith(("BEGIN", "SELECT set_config")):
            seen.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    yield seen
    event.remove(db.engine, "before_cursor_execute", note)


@pytest.fixture
def acme(db: Database) -> UUID:
    tenant_id = add_tenant(db, "acme")
    add_hosts(
        db,
        tenant_id,
        host_row(tenant_id, "usage.acme.example", "serving", primary=True),
        host_row(tenant_id, "old.acme.example", "alias"),
        host_row(tenant_id, "lapsed.acme.example", "suspended"),
        host_row(tenant_id, "gone.acme.example", "released"),
    )
    return tenant_id


def test_each_role_is_found_with_what_belongs_to_it(db: Database, acme: UUID) -> None:
    twin = add_tenant(db, "acme~test", acme)
    found = Resolver(db, ["app.example"])
    primary = "usage.acme.example"
    assert found.resolve("app.example") == HostMatch("app.example", Role.PLATFORM, Source.SETTINGS)
    assert found.resolve(primary) == HostMatch(primary, Role.SERVING, Source.DATABASE, acme, twin, 3, primary)
    alias = HostMatch("old.acme.example", Role.ALIAS, Source.DATABASE, acme, twin, 3, primary)
    assert found.resolve("old.acme.example") == alias
    suspended = found.resolve("lapsed.acme.example")
    assert suspended is not None
    assert suspended.role is Role.SUSPENDED


def test_h01_there_is_no_default_tenant_and_no_suffix_match(db: Database, acme: UUID) -> None:
    resolver = Resolver(db, ["app.example"])
    for name in ("gone.acme.example", "acme.example", "x.usage.acme.example", "USAGE.acme.example", "usage%", ""):
        assert resolver.resolve(name) is None


def test_a_name_that_one_tenant_released_is_the_next_ones(db: Database, acme: UUID) -> None:
    other = add_tenant(db, "other")
    add_hosts(db, other, host_row(other, "gone.acme.example", "serving"))
    match = Resolver(db, []).resolve("gone.acme.example")
    assert match is not None
    assert match.config == other


def test_a_match_serves_its_own_tenants_planes_only(db: Database, acme: UUID) -> None:
    twin, stranger = uuid4(), uuid4()
    resolver = Resolver(db, ["app.example"])
    branded, platform = resolver.resolve("usage.acme.example"), resolver.resolve("app.example")
    assert branded is not None
    assert platform is not None
    assert branded.scope == Scope.of(acme)
    assert branded.serves(Scope.of(acme))
    assert branded.serves(Scope.of(twin, acme))
    assert not branded.serves(Scope.of(stranger))
    assert not branded.serves(Scope.of(acme, stranger))
    assert platform.serves(Scope.of(stranger))
    with pytest.raises(LookupError):
        _ = platform.scope


def test_d04_a_platform_host_needs_no_database_and_wins_over_a_claim(db: Database, acme: UUID) -> None:
    add_hosts(db, acme, host_row(acme, "app.example", "serving"))
    with counted(db) as queries:
        match = Resolver(db, ["App.Example"]).resolve("app.example")
    assert match is not None
    assert (match.role, match.generation, queries) == (Role.PLATFORM, 0, [])


@pytest.mark.parametrize("name", ["127.0.0.1", "app.example:8000", "app..example", ""])
def test_a_platform_host_that_is_no_host_name_is_the_operators_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match="PLATFORM_HOSTS"):
        Resolver(Database("sqlite://"), [name])


def test_a_miss_is_one_query_every_time_and_a_hit_is_none(db: Database, acme: UUID) -> None:
    resolver = Resolver(db, [], Seconds())
    resolver.resolve("warm.up")  # the first question also reads the generation
    for expected, name in [(1, "no.such"), (1, "no.such"), (1, "usage.acme.example"), (0, "usage.acme.example")]:
        with counted(db) as queries:
            match = resolver.resolve(name)
        assert len(queries) == expected, queries
    assert match is not None
    assert match.source is Source.CACHE


def test_a_host_claimed_a_moment_ago_is_found_at_once(db: Database, acme: UUID) -> None:
    resolver = Resolver(db, [], Seconds())
    assert resolver.resolve("new.acme.example") is None
    add_hosts(db, acme, host_row(acme, "new.acme.example", "serving"))
    assert resolver.resolve("new.acme.example") is not None


def test_a_change_is_seen_one_second_after_its_commit(db: Database, acme: UUID) -> None:
    clock = Seconds()
    resolver = Resolver(db, [], clock)
    name = "usage.acme.example"
    for role, expected in [("suspended", Role.SUSPENDED), ("serving", Role.SERVING), ("released", None)]:
        before = resolver.resolve(name)
        set_role(db, acme, name, role)
        clock.value += 0.999
        assert (lagging := resolver.resolve(name)) is not None
        assert before is not None
        assert lagging.role is before.role
        clock.value += 0.001
        match = resolver.resolve(name)
        assert (match and match.role) == expected


def test_a_second_without_a_change_keeps_the_cache_and_costs_one_query(db: Database, acme: UUID) -> None:
    clock = Seconds()
    resolver = Resolver(db, [], clock)
    resolver.resolve("usage.acme.example")
    with counted(db) as queries:
        for tenth in range(1, 31):
            clock.value = tenth / 10
            match = resolver.resolve("usage.acme.example")
            assert match is not None
            assert match.source is Source.CACHE
    assert len(queries) == 3


def test_forget_drops_one_answer(db: Database, acme: UUID) -> None:
    resolver = Resolver(db, [], Seconds())
    resolver.resolve("usage.acme.example")
    set_role(db, acme, "usage.acme.example", "suspended", bump=False)
    resolver.forget("usage.acme.example")
    resolver.forget("never.seen")
    match = resolver.resolve("usage.acme.example")
    assert match is not None
    assert (match.role, match.source, match.generation) == (Role.SUSPENDED, Source.DATABASE, 4)


def test_an_answer_read_before_the_cache_was_dropped_is_not_remembered(
    db: Database, acme: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Seconds()
    resolver = Resolver(db, [], clock)
    asked = module.lookup.find_host

    def overtaken(database: Database, name: str):
        row = asked(database, name)
        set_role(db, acme, name, "suspended")
        clock.value += 2
        resolver.resolve("another.request")  # sees the new generation while our row is on its way
        return row

    with monkeypatch.context() as patch:
        patch.setattr(
            module.lookup, "find_host", lambda d, n: overtaken(d, n) if n == "usage.acme.example" else asked(d, n)
        )
        resolver.resolve("usage.acme.example")
    match = resolver.resolve("usage.acme.example")
    assert match is not None
    assert match.role is Role.SUSPENDED


def test_the_cache_is_bounded_and_drops_the_oldest(db: Database, acme: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    resolver = Resolver(db, [], Seconds())
    names = ["usage.acme.example", "old.acme.example", "lapsed.acme.example"]
    for name in names:
        resolver.resolve(name)
    sources = [match.source for name in reversed(names) if (match := resolver.resolve(name))]
    assert sources == [Source.CACHE, Source.CACHE, Source.DATABASE]


def test_a_rolled_back_change_moves_nothing(db: Database, acme: UUID) -> None:
    clock = Seconds()
    resolver = Resolver(db, [], clock)
    resolver.resolve("usage.acme.example")
    with db.engine.connect() as connection:
        bump_generation(connection)
        connection.rollback()
    clock.value = 1
    match = resolver.resolve("usage.acme.example")
    assert match is not None
    assert match.source is Source.CACHE


def test_threads_agree(db: Database, acme: UUID) -> None:
    resolver = Resolver(db, [])
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(30):
                match = resolver.resolve("usage.acme.example")
                assert match is not None
                assert match.config == acme
                resolver.forget("usage.acme.example")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_database_that_cannot_be_asked_is_unavailable_and_asked_again(tmp_path) -> None:
    clock = Seconds()
    (tmp_path / "rubbish.sqlite3").write_bytes(b"this is not a database" * 100)
    for url in (f"sqlite:///{tmp_path}/no/such/folder.sqlite3", f"sqlite:///{tmp_path}/rubbish.sqlite3"):
        database = Database(url)
        resolver = Resolver(database, ["app.example"], clock)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                resolver.resolve("usage.acme.example")
        assert resolver.resolve("app.example") is not None
        database.dispose()


def test_a_failed_look_at_the_generation_does_not_buy_a_second_of_old_answers(
    db: Database, acme: UUID, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Seconds()
    resolver = Resolver(db, [], clock)
    resolver.resolve("usage.acme.example")
    clock.value = 1
    with monkeypatch.context() as patch:
        patch.setattr(resolver, "_db", Database(f"sqlite:///{tmp_path}/no/such/folder.sqlite3"))
        for _ in range(2):
            with pytest.raises(UnavailableError):
                resolver.resolve("usage.acme.example")
    assert resolver.resolve("usage.acme.example") is not None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_look_up_costs_the_same_among_100_000_hosts(db: Database) -> None:
    tenant_id = add_tenant(db, "many")
    for start in range(0, 100_000, 25_000):
        rows = [host_row(tenant_id, f"h{n}.many.example", "serving") for n in range(start, start + 25_000)]
        add_hosts(db, tenant_id, *rows)
    resolver = Resolver(db, [], Seconds())
    resolver.resolve("warm.up")
    for name in ("h0.many.example", "h99999.many.example", "h100000.many.example"):
        with counted(db) as queries:
            match = resolver.resolve(name)
        assert len(queries) == 1
        assert (match is not None) == (name != "h100000.many.example")
    with db.engine.connect() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + queries[0], ("h5.many.example",)).all()
    assert [row.detail.split(" (")[0] for row in plan[:2]] == [
        "SEARCH h USING INDEX uq_host_active",
        "SEARCH p USING INDEX uq_host_primary",
    ]
