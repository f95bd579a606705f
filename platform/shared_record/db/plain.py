"""Rows as plain tuples, for statements over so many of them that SQLAlchemy's work per row costs more than SQL's.

What is executed is the same checked statement; only results and parameters go past SQLAlchemy, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, cast

from sqlalchemy import Connection, LargeBinary, Select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.types import TypeEngine

from shared_record.db.scope import check_statement

Row = tuple[Any, ...]
TOGETHER = 1_000
"""Parameter sets made at once: few enough that the garbage collector does not come to look through them."""


def fetch(connection: Connection, query: Select[Any], parameters: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of ``query`` as the driver gives them; none is kept here.

    Select only what is the same from both drivers: text, integers, bytes and amounts; a truth value may be 0 or 1.
    """
    cursor = connection.execute(query, parameters).cursor
    if cursor is None:
        raise TypeError("the statement returns no rows")
    return iter(cast(Iterable[Row], cursor))


def execute_rows(
    connection: Connection,
    statement: Insert | Update,
    fixed: Mapping[str, Any],
    names: Sequence[str],
    rows: Sequence[Row],
) -> None:
    """Execute ``statement`` once for each of ``rows``, whose values are those of the parameters ``names``.

    ``fixed`` are the parameters that are the same for every row: the tenant is one of them and ``names`` cannot say
    another, so one check of the scope is good for all.
    """
    if not rows:
        return
    if not fixed.keys().isdisjoint(names):
        raise ValueError("a parameter is fixed or differs by row, not both")
    dialect = connection.dialect
    if not dialect.positional:
        connection.execute(statement, [{**fixed, **dict(zip(names, row, strict=True))} for row in rows])
        return
    one = {**fixed, **dict(zip(names, rows[0], strict=True))}
    check_statement(statement, [one], connection.get_execution_options().get("sr_scope"), reviewed=False)
    sql, order = _compiled(statement, dialect, tuple(one))
    for start in range(0, len(rows), TOGETHER):
        some = rows[start : start + TOGETHER]
        given = dict(zip(names, zip(*some, strict=True), strict=True))
        columns: list[Iterable[Any]] = []
        for name, process in order:
            if name in fixed:
                columns.append(repeat(process(fixed[name]) if process else fixed[name], len(some)))
            else:
                columns.append(map(process, given[name]) if process else given[name])
        connection.exec_driver_sql(sql, list(zip(*columns, strict=True)))


@lru_cache(maxsize=64)
def _compiled(
    statement: Insert | Update, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, list[tuple[str, Callable[[Any], Any] | None]]]:
    """Return the SQL and, in the order of its placeholders, each parameter with what makes the driver's value of it."""
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
    return str(compiled), [(name, _processor(compiled.binds[name].type, dialect)) for name in compiled.positiontup]


def _processor(of: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(of, LargeBinary):
        return None  # the driver takes bytes as they are; another object for each is not needed
    return of.dialect_impl(dialect).bind_processor(dialect)
