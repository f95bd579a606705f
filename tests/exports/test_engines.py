"""The same ledger in SQLite and in PostgreSQL gives the same files: byte by byte where the format is text."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook
from sqlalchemy import create_engine, insert, select

from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.db.schema import metadata
from shared_record.db.scope import Scope
from shared_record.exports import rows
from shared_record.exports.service import Built, build_export
from shared_record.hooks.loader import load_plugins
from shared_record.ledger.erasure import erase_details
from shared_record.ledger.intake import Accepted, Delta
from world import Shop, open_shop

AS_TEXT = ("csv", "json", "jsonl", "focus", "bundle")
TEXTS = (
    "usage",
    "=1+1",
    'a "quoted", text',
    "back\\slash \\N \\. \\t",
    "tab\there",
    "line\r\nbreak",
    "ö 漢字 \U0001f600",
    "'",
    "%s %(t)s %%",
)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite only: the other engine gets a copy."""
    url = f"sqlite:///{tmp_path / 'one.sqlite3'}"
    migrate.upgrade(url)
    return url


@pytest.fixture
def copy_of(postgresql_server: str) -> Any:
    """A function that copies every row of a database to a new one in PostgreSQL."""
    made: list[Database] = []

    def copy(source: Database) -> Database:
        name = f"sr_{uuid.uuid4().hex[:12]}"
        admin = create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        url = f"{postgresql_server.rsplit('/', 1)[0]}/{name}"
        migrate.upgrade(url)
        owner, plain = create_engine(url), create_engine(source.url)
        with plain.connect() as old, owner.begin() as new:
            new.exec_driver_sql("SET session_replication_role = replica")
            for table in metadata.sorted_tables:
                found = [dict(row._mapping) for row in old.execute(select(table))]
                if found and table.name != "installation":
                    new.execute(insert(table), found)
        for engine in (owner, plain, admin):
            engine.dispose()
        made.append(Database(url))
        return made[-1]

    yield copy
    for database in made:
        database.dispose()


@pytest.fixture
def shop(db: Database, keys: Any, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Rows in all three states, more than a page of them, with texts and amounts that are easily spoilt."""
    monkeypatch.setattr(rows, "PAGE", 7)
    shop = open_shop(db, keys, clock, tmp_path)
    shop.record_many(
        [
            Delta("cust_a", f"{n}.5", text, reference_id=f"{text} {n}", metadata='{"a":"\\\\x","b":[1,null]}')
            for n, text in enumerate(TEXTS, start=1)
        ]
    )
    shop.clock.advance(seconds=1.234)
    shop.checkpoint()
    shop.record("cust_a", "0.000000000000000000000001", "-12345678901234567890", reason="late")
    [gone] = shop.record("cust_a", "7", reason="to be erased")
    assert isinstance(gone, Accepted)
    with db.write(shop.scope) as connection:
        erase_details(connection, clock, shop.scope, gone.record_id, "test")
    return shop


def build(shop: Shop, db: Database, scope: Scope, slug: str) -> tuple[Built, bytes]:
    out, kind = io.BytesIO(), load_plugins(strict=True).export_formats[slug]
    who = shop.link("cust_a").customer_id
    return build_export(db, shop.keys, shop.clock, scope, who, "2026-11", kind, out), out.getvalue()


def test_the_same_bytes_come_from_both_engines(shop: Shop, copy_of: Any) -> None:
    other = copy_of(shop.db)
    for slug in AS_TEXT:
        ours, theirs = (build(shop, db, shop.scope, slug) for db in (shop.db, other))
        assert ours[1] == theirs[1], slug
        assert ours[0].manifest == theirs[0].manifest
        assert ours[0].summary.rows == len(TEXTS) + 3
    ours, theirs = (build(shop, db, shop.scope, "parquet")[1] for db in (shop.db, other))
    assert pq.read_table(io.BytesIO(ours)).equals(pq.read_table(io.BytesIO(theirs)))
    books = [load_workbook(io.BytesIO(build(shop, db, shop.scope, "xlsx")[1])) for db in (shop.db, other)]
    cells = [[list(sheet.iter_rows(values_only=True)) for sheet in book] for book in books]
    assert cells[0] == cells[1]
