"""The schema: migrations give exactly what the code says, on both engines; keys begin with the tenant."""

from __future__ import annotations

import pytest
from sqlalchemy import UniqueConstraint

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

    sample = {"p_digest": b"x" * 32, "p_now": datetime.now(UTC)}
    parameters = {key: sample.get(key, "x") for key in lookup.LOOKUPS[name][0]}
    assert lookup._ask(db, name, **parameters) == []
