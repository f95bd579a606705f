"""Column types that read and write the same values on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import DateTime, Numeric, String
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


@compiles(_canonical_text, "postgresql")
def _trim_scale(element: _canonical_text, compiler: Any, **kw: Any) -> str:
    return f"CAST(trim_scale({compiler.process(element.clauses, **kw)}) AS TEXT)"


@compiles(_canonical_text)
def _as_stored(element: _canonical_text, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


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
        """Select the column as canonical text: no trailing zeros, no exponent."""
        return _canonical_text(column)
