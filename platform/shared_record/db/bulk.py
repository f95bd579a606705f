"""Many rows in one statement, where the driver would send and PostgreSQL plan one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Insert, Table, Update
from sqlalchemy.engine import Dialect

from shared_record.db.prepared import execute_one
from shared_record.db.scope import check_statement


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert whole rows, each with its ``tenant_id`` and all with the same columns, in their order.

    On PostgreSQL they travel as one JSON text. ``TenantScopeError`` unless every row belongs to the active tenant: the
    statement itself could not be read by that check, its rows are.
    """
    if connection.dialect.name != "postgresql" or len(rows) == 1:
        execute_each(connection, _insert(table), rows)
        return
    check_statement(_insert(table), rows, connection.get_execution_options().get("sr_scope"), reviewed=False)
    text = orjson.dumps(rows, default=_bytea).decode()
    connection.exec_driver_sql(_statement(connection.dialect, table, tuple(rows[0])), (text,))


def execute_each(connection: Connection, statement: Insert | Update, sets: Sequence[Mapping[str, Any]]) -> None:
    """Execute ``statement`` with each of the parameter sets; one alone is spared what the driver does for several."""
    if len(sets) == 1:
        execute_one(connection, statement, sets[0])
    else:
        connection.execute(statement, list(sets))


@cache
def _insert(table: Table) -> Insert:
    """Return one and the same statement each time, so that it is read and compiled once."""
    return table.insert()


@cache
def _statement(dialect: Dialect, table: Table, names: tuple[str, ...]) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in names)
    typed = ", ".join(f"{quote(name)} {table.c[name].type.compile(dialect)}" for name in names)
    return (
        f"INSERT INTO {quote(table.name)} ({columns})"  # noqa: S608  names and types of the schema
        f" SELECT {columns} FROM json_to_recordset(%s::json) AS row ({typed})"
    )


def _bytea(value: object) -> str:
    """Write bytes as PostgreSQL reads them; orjson knows all else that columns hold."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    raise TypeError(type(value).__name__)
