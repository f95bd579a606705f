"""Long results as plain tuples, in constant memory: by ``COPY … TO STDOUT`` on PostgreSQL, by its cursor on SQLite.

What is executed is a checked statement in the transaction it is given, so the tenant scope and row-level security hold
as for any other. SQL makes the texts, so that both engines give the same ones.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Integer, LargeBinary, Select, String
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from shared_record.db.engine import CACHE_KIB
from shared_record.db.plain import Row, fetch
from shared_record.db.scope import check_statement
from shared_record.db.types import Instant
from shared_record.plugin import FORMULA_STARTS

_STREAMING = (
    ("statement_timeout", "30s"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("max_parallel_workers_per_gather", "0"),
)
_CACHE_KIB = 2 * 1024


def stream(connection: Connection, query: Select[Any], parameters: Mapping[str, Any]) -> Generator[Row]:
    """Yield the rows of ``query``, each as a tuple. Its columns must be texts or whole numbers of eight bytes."""
    if connection.dialect.name != "postgresql":
        yield from fetch(connection, query, parameters)
        return
    check_statement(query, [parameters], connection.get_execution_options().get("sr_scope"), reviewed=False)
    sql, given = _compiled(connection, query, parameters)
    types = ["int8" if isinstance(column.type, Integer) else "text" for column in query.selected_columns]
    driver: Any = connection.connection.driver_connection
    try:
        # As binary, since long texts with line breaks need no escapes then.
        with driver.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT binary)", given) as copied:
            copied.set_types(types)
            yield from copied.rows()
    except psycopg.Error as error:  # what a statement that SQLAlchemy executes would raise
        raise DBAPIError.instance(None, None, error, psycopg.Error, dialect=connection.dialect) from error


@contextmanager
def streaming(connection: Connection) -> Iterator[None]:
    """Read page after page of a long result within this transaction: no statement may take more than 30 seconds.

    On PostgreSQL each page is read along the primary keys, whatever the planner thinks of it: for a range of them it
    is prone to read the whole table, once per page. SQLite keeps fewer pages in memory, since each is read once.
    """
    if connection.dialect.name == "postgresql":
        settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _STREAMING)
        connection.exec_driver_sql(f"SELECT {settings}")
        yield
        return
    connection.exec_driver_sql(f"PRAGMA cache_size=-{_CACHE_KIB}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_KIB}")


def _compiled(connection: Connection, query: Select[Any], parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the SQL with the driver's placeholders, and what stands in them: ``COPY`` takes no values of its own."""
    dialect = connection.dialect
    compiled: Any = query.compile(dialect=dialect)
    given = compiled.construct_params(dict(parameters))
    for name, bind in compiled.binds.items():
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            given[name] = process(given[name])
    return str(compiled), given


# --- Texts that SQL makes --------------------------------------------------------------------------------------------


class _instant_text(FunctionElement[str]):
    type = String()
    inherit_cache = True
    name = "instant_text"


class _hex_text(FunctionElement[str]):
    type = String()
    inherit_cache = True
    name = "hex_text"


def instant_text(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Select an ``Instant`` as ``2026-11-22T09:00:00.000Z``."""
    if not isinstance(column.type, Instant):
        raise TypeError(f"{column} is no instant")
    return _instant_text(column)


def hex_text(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Select bytes in hex, lower case; none stay none."""
    if not isinstance(column.type, LargeBinary):
        raise TypeError(f"{column} holds no bytes")
    return _hex_text(column)


def _inner(element: FunctionElement[str], compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(_instant_text, "postgresql")
def _instant_on_postgresql(element: _instant_text, compiler: Any, **kw: Any) -> str:
    return f"""to_char({_inner(element, compiler, **kw)} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


@compiles(_instant_text)
def _instant_on_sqlite(element: _instant_text, compiler: Any, **kw: Any) -> str:
    stored = _inner(element, compiler, **kw)
    return f"(substr({stored}, 1, 10) || 'T' || substr({stored}, 12, 12) || 'Z')"


@compiles(_hex_text, "postgresql")
def _hex_on_postgresql(element: _hex_text, compiler: Any, **kw: Any) -> str:
    return f"encode({_inner(element, compiler, **kw)}, 'hex')"


@compiles(_hex_text)
def _hex_on_sqlite(element: _hex_text, compiler: Any, **kw: Any) -> str:
    return f"nullif(lower(hex({_inner(element, compiler, **kw)})), '')"  # hex(NULL) is an empty text


# --- Lines of CSV that PostgreSQL writes -----------------------------------------------------------------------------

_GUARDED = ", ".join(str(ord(character)) for character in sorted(FORMULA_STARTS - {"\0"}))  # it has no texts with NUL


class _csv_cell(FunctionElement[str]):
    type = String()
    inherit_cache = True
    name = "csv_cell"


def csv_cell(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Select text as a cell of CSV, exactly as ``plugin.csv_text`` writes it; there is none for SQLite."""
    return _csv_cell(column)


@compiles(_csv_cell)
def _csv_cell_on_postgresql(element: _csv_cell, compiler: Any, **kw: Any) -> str:
    text = _inner(element, compiler, **kw)
    rest = f"""replace({text}, '"', '""') || '"'"""
    guarded, plain = f"""'"''' || {rest}""", f"""'"' || {rest}"""
    return f"CASE WHEN ascii({text}) IN ({_GUARDED}) THEN {guarded} WHEN {text} <> '' THEN {plain} ELSE '' END"
