"""Column types that read and write the same values on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import DateTime, Integer, LargeBinary, Numeric, String
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant: ``timestamptz`` on PostgreSQL, sortable text on SQLite. Naive values are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return ``value`` in UTC; SQLite stores it without the zone that is always the same."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs a zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored instant, aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class _canonical_text(FunctionElement[str]):
    type = String()
    inherit_cache = True
    name = "canonical_text"


class _is_set(FunctionElement[int]):
    type = Integer()
    inherit_cache = True
    name = "is_set"


@compiles(_canonical_text, "postgresql")
def _trim_scale(element: _canonical_text, compiler: Any, **kw: Any) -> str:
    return f"CAST(trim_scale({compiler.process(element.clauses, **kw)}) AS TEXT)"


@compiles(_canonical_text)
@compiles(_is_set)
def _as_stored(element: FunctionElement[Any], compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


def amount_text(column: ColumnElement[Any]) -> ColumnElement[str]:
    """Select an ``Amount`` as its canonical text, no trailing zeros, no exponent, wherever it stands in a statement."""
    return _canonical_text(column)


class joined_bytes(FunctionElement[bytes]):
    """Bytes of all rows as one value, or null without rows: many times cheaper than a row for each.

    Select it from a subquery that sorts them: both engines feed an aggregate in that order.
    """

    type = LargeBinary()
    inherit_cache = True
    name = "joined_bytes"


@compiles(joined_bytes, "postgresql")
def _string_agg(element: joined_bytes, compiler: Any, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)}, ''::bytea)"


@compiles(joined_bytes)
def _group_concat(element: joined_bytes, compiler: Any, **kw: Any) -> str:
    return f"CAST(group_concat({compiler.process(element.clauses, **kw)}, '') AS BLOB)"


class Amount(TypeDecorator[str]):
    """An exact decimal as its canonical text, in and out.

    PostgreSQL keeps an unscaled ``NUMERIC``; SQLite keeps the text, which SQL must then never add, sort or compare
    (a test forbids it): totals come from counters.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return ``NUMERIC`` on PostgreSQL, text elsewhere."""
        return dialect.type_descriptor(Numeric(asdecimal=True) if dialect.name == "postgresql" else String())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Return the text as it is, or as ``Decimal`` for PostgreSQL."""
        if value is None:
            return None
        return Decimal(value) if dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the canonical text."""
        return None if value is None else str(value)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select the column as canonical text."""
        return amount_text(column)


def is_set(column: ColumnElement[bool]) -> ColumnElement[Any]:
    """Ask for a truth value in the spelling of partial indices. SQLAlchemy's own for SQLite, ``= 1``, finds none."""
    return _is_set(column)
