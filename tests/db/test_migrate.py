"""The schema: migrations give exactly what the code says, on both engines; keys begin with the tenant."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import UniqueConstraint, create_engine, make_url, text

from shared_record.db import lookup, migrate
from shared_record.db.engine import Database
from shared_record.db.schema import metadata


def test_migrated_database_does_not_differ_from_the_schema(database_url: str) -> None:
    assert migrate.drift(database_url) == []


def test_upgrade_is_idempotent(database_url: str) -> None:
    assert migrate.upgrade(database_url) == (migrate.head_revision(), migrate.head_revision())


@pytest.mark.parametrize("table", [t for t in metadata.sorted_tables if t.info["scope"] != "global"], ids=str)
def test_every_key_of_tenant_data_begins_with_the_tenant(table) -> None:
    keys = [table.primary_key.columns.keys()]
    keys += [c.columns.keys() for c in table.constraints if isinstance(c, UniqueConstraint)]
    keys += [i.columns.keys() for i in table.indexes if i.unique and not i.info.get("across_tenants")]
    keys += [f.column_keys for f in table.foreign_key_constraints if f.referred_table is not table]
    assert all(key[0] == "tenant_id" for key in keys), keys


@pytest.mark.parametrize("name", lookup.LOOKUPS)
def test_every_lookup_answers_on_both_engines(db: Database, name: str) -> None:
    from datetime import UTC, datetime

    sample = {"p_digest": b"x" * 32, "p_hash": b"x" * 32, "p_now": datetime.now(UTC)}
    parameters = {key: sample.get(key, "x") for key in lookup.LOOKUPS[name][0]}
    assert lookup._ask(db, name, **parameters) == []


def test_a_login_that_may_make_no_roles_migrates_with_roles_granted_to_it(postgresql_server: str) -> None:
    """The operator's guide: an administrator makes the roles once, the installation's login only uses them."""
    name = f"sr_plain_{uuid.uuid4().hex[:8]}"
    admin = create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for role in ("sr_owner", "sr_app"):
            connection.execute(
                text(f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
            )
        connection.execute(text(f"CREATE ROLE {name} LOGIN NOCREATEROLE NOSUPERUSER IN ROLE sr_owner, sr_app"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    base = make_url(postgresql_server).set(database=name)
    inside = create_engine(base, isolation_level="AUTOCOMMIT")
    with inside.connect() as connection:
        connection.execute(text("GRANT USAGE, CREATE ON SCHEMA public TO sr_owner"))
    inside.dispose()
    url = base.set(username=name).render_as_string(hide_password=False)
    assert migrate.upgrade(url) == (None, migrate.head_revision())
    db = Database(url)
    with db.read(None) as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar_one() == "sr_app"
    assert lookup.list_tenants(db) == []
    db.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text(f"DROP ROLE {name}"))
    admin.dispose()
