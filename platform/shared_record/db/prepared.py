"""Statements that every call makes, compiled once instead of looked up and bound anew each time.

What reaches the driver is what SQLAlchemy makes of the same checked statement, and values are read and written by the
same column types; only its work for each execution is left out, which is more than the driver's own.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Insert, LargeBinary, Select, TextualSelect, Update
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from shared_record.db.scope import check_statement

Query = Select[Any] | TextualSelect
Convert = Callable[[Any], Any]


class _Binding(NamedTuple):
    """A placeholder: the parameter it stands for, which element of it where that is a list, and what converts it."""

    name: str
    parameter: str
    element: int | None
    convert: Convert | None


class _Compiled(NamedTuple):
    """``row`` makes the named tuple of a result, whose columns in ``results`` are converted.

    ``fixed`` are the values that stand in the statement itself, by placeholder; ``order`` is for drivers that take
    values by position.
    """

    sql: str
    bindings: tuple[_Binding, ...]
    fixed: Mapping[str, Any]
    order: tuple[str, ...]
    row: Callable[..., Any]
    results: tuple[tuple[int, Convert], ...]


def fetch_all(connection: Connection, query: Query, parameters: Mapping[str, Any]) -> list[Any]:
    """Return the rows of ``query`` as named tuples of its columns. A list is the value of an expanding parameter."""
    compiled, cursor = _run(connection, query, parameters)
    rows = cursor.fetchall()
    cursor.close()
    if compiled.results:
        rows = [_converted(row, compiled.results) for row in rows]
    return list(map(compiled.row, rows))


def execute_one(connection: Connection, statement: Insert | Update, parameters: Mapping[str, Any]) -> int:
    """Execute ``statement`` with one set of parameters; return how many rows it concerned."""
    _, cursor = _run(connection, statement, parameters)
    count: int = cursor.rowcount
    cursor.close()
    return count


def _run(connection: Connection, statement: Query | Insert | Update, parameters: Mapping[str, Any]) -> Any:
    options = connection.get_execution_options()
    # A question of db.lookup is plain SQL, reviewed there.
    reviewed = isinstance(statement, TextualSelect)
    check_statement(statement, [parameters], options.get("sr_scope"), reviewed=reviewed)
    names = tuple(parameters)
    sizes = tuple((name, len(value)) for name, value in parameters.items() if isinstance(value, list))
    dialect = connection.dialect
    compiled = _compile(statement, dialect, names, sizes)
    values = dict(compiled.fixed)
    for name, parameter, element, convert in compiled.bindings:
        value = parameters[parameter] if element is None else parameters[parameter][element]
        values[name] = value if convert is None else convert(value)
    given = tuple(values[name] for name in compiled.order) if dialect.positional else values
    return compiled, send(connection, compiled.sql, given)


def send(connection: Connection, sql: str, values: Any) -> Any:
    """Execute SQL with the driver's own parameters within the transaction; return the cursor, for the caller to close.

    Errors are those of SQLAlchemy, and its listeners hear of the statement as of any other. Nothing is checked: other
    modules call ``fetch_all`` and ``execute_one``.
    """
    cursor = connection.connection.cursor()
    for listener in connection.dispatch.before_cursor_execute:
        listener(connection, cursor, sql, values, None, False)
    try:
        cursor.execute(sql, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translated(connection, sql, values, error) from error
    return cursor


def _translated(connection: Connection, sql: str, values: Any, error: Any) -> BaseException:
    """Return SQLAlchemy's form of a driver's error; a connection that is gone goes back to no pool."""
    dialect = connection.dialect
    gone = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
    if gone:
        connection.invalidate(error)
    translated: BaseException = DBAPIError.instance(
        sql,
        values,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=gone,
        dialect=dialect,
    )
    return translated


@lru_cache(maxsize=512)
def _compile(
    statement: Query | Insert | Update, dialect: Dialect, names: tuple[str, ...], sizes: tuple[tuple[str, int], ...]
) -> _Compiled:
    """Compile for parameters of these names, of which those in ``sizes`` are lists of so many."""
    is_query = isinstance(statement, Select | TextualSelect)
    compiled: Any = statement.compile(dialect=dialect, column_keys=None if is_query else list(names))
    lists = {name: [None] * size for name, size in sizes}
    state = compiled.construct_expanded_state({name: lists.get(name) for name in names})
    sources = {
        single: (parameter, element)
        for parameter, singles in state.parameter_expansion.items()
        for element, single in enumerate(singles)
    }
    bindings, fixed = [], {}
    for name, value in state.parameters.items():
        parameter, element = sources.get(name, (name, None))
        convert = _writer(compiled.binds[parameter].type, dialect)
        if parameter in names:
            bindings.append(_Binding(name, parameter, element, convert))
        else:
            fixed[name] = value if convert is None else convert(value)
    columns = list(statement.selected_columns) if isinstance(statement, Select | TextualSelect) else []
    readers = [(place, _reader(column, dialect)) for place, column in enumerate(columns)]
    row = namedtuple("Row", [column.key for column in columns])  # type: ignore[misc]
    return _Compiled(
        state.statement,
        tuple(bindings),
        fixed,
        tuple(state.positiontup or ()),
        row._make,
        tuple((place, read) for place, read in readers if read),
    )


def _writer(of: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    if isinstance(of, LargeBinary):
        return None  # the driver takes bytes as they are; another object for each is not needed
    return of.dialect_impl(dialect).bind_processor(dialect)


def _reader(column: ColumnElement[Any], dialect: Dialect) -> Convert | None:
    # A type may select an expression instead of its column, which then has a type of its own.
    selected = column.type.column_expression(column)
    of = column.type if selected is None else selected.type
    return of.dialect_impl(dialect).result_processor(dialect, None)


def _converted(row: tuple[Any, ...], results: tuple[tuple[int, Convert], ...]) -> list[Any]:
    values = list(row)
    for place, convert in results:
        if values[place] is not None:
            values[place] = convert(values[place])
    return values
