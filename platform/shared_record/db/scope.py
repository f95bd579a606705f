"""The tenant scope: which rows a transaction may touch, checked before every statement.

PostgreSQL's row-level security is the second wall and SQLite has none, so this one stands on both: a statement that
names a tenant table without binding its ``tenant_id`` to the active scope never reaches the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Alias, Delete, Insert, Join, Select, Table, TextClause, Update
from sqlalchemy.sql import ClauseElement, operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ColumnClause


@dataclass(frozen=True, slots=True)
class Scope:
    """One data plane of one tenant: ``plane`` owns the data rows, ``config`` (the live tenant) owns the settings."""

    plane: UUID
    config: UUID

    @classmethod
    def of(cls, tenant_id: UUID, config_of: UUID | None = None) -> Scope:
        """Return the scope of a ``tenant`` row: its own plane, and the live tenant's settings."""
        return cls(tenant_id, config_of or tenant_id)

    def allows(self, table_scope: str, tenant_id: UUID) -> bool:
        """Tell whether rows of ``tenant_id`` in a table of that scope belong here."""
        match table_scope:
            case "plane":
                return tenant_id == self.plane
            case "config":
                return tenant_id == self.config
            case _:
                return tenant_id in (self.plane, self.config)


class TenantScopeError(RuntimeError):
    """A statement would have left the active tenant. This is a defect in the program, never a user's mistake."""


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a statement must show: the value of ``bind`` is a tenant that ``table_scope`` allows."""

    table: str
    table_scope: str
    bind: BindParameter[Any]


_demands: WeakKeyDictionary[ClauseElement, tuple[_Demand, ...]] = WeakKeyDictionary()


def check_statement(
    statement: ClauseElement, rows: Iterable[Mapping[str, Any]], scope: Scope | None, *, reviewed: bool
) -> None:
    """Raise ``TenantScopeError`` unless ``statement`` stays within ``scope``.

    ``rows``: the parameter sets it is executed with. ``reviewed`` is set by ``db.lookup`` and by statements over global
    tables in plain SQL; it lets through what this check cannot read.
    """
    if reviewed:
        return
    if isinstance(statement, TextClause):
        raise TenantScopeError(f"plain SQL outside db.lookup: {statement}")
    demands = _demands.get(statement)
    if demands is None:
        demands = _demands[statement] = tuple(_find_demands(statement))
    if not demands and not isinstance(statement, Insert):
        return
    rows = list(rows) or [{}]
    for demand in demands:
        for row in rows:
            _check_value(demand.table, demand.table_scope, row.get(demand.bind.key, demand.bind.value), scope)
    if isinstance(statement, Insert):
        _check_insert(statement, rows, scope)


def _check_value(table: str, table_scope: str, value: Any, scope: Scope | None) -> None:
    if scope is None:
        raise TenantScopeError(f"{table}: no tenant scope is active")
    if not isinstance(value, UUID) or not scope.allows(table_scope, value):
        raise TenantScopeError(f"{table}: bound to tenant {value}, the active scope is {scope}")


def _check_insert(statement: Insert, rows: Iterable[Mapping[str, Any]], scope: Scope | None) -> None:
    table = statement.table
    if not isinstance(table, Table) or (table_scope := table.info.get("scope")) in (None, "global"):
        return
    fixed = (statement._values or {}).get(table.c.tenant_id)
    for row in rows:
        value = row.get("tenant_id", fixed.value if isinstance(fixed, BindParameter) else fixed)
        _check_value(table.name, table_scope, value, scope)


def _find_demands(statement: ClauseElement) -> Iterable[_Demand]:
    tables: list[Table | Alias] = []
    links: list[tuple[ColumnClause[Any], Any]] = []
    for element in visitors.iterate(statement):
        if isinstance(element, Select):
            for source in element.get_final_froms():
                _collect(source, tables, links)
            _equalities(element.whereclause, links)
        elif isinstance(element, (Update, Delete)):
            _collect(element.table, tables, links)
            _equalities(element.whereclause, links)
    for table in tables:
        base = table if isinstance(table, Table) else table.element
        if not isinstance(base, Table) or base.info.get("scope", "global") == "global":
            continue
        bind = _bound(table.c.tenant_id, links)
        if bind is None:
            raise TenantScopeError(f"{base.name}: the statement does not bind tenant_id: {statement}")
        yield _Demand(base.name, base.info["scope"], bind)


def _collect(source: Any, tables: list[Table | Alias], links: list[tuple[ColumnClause[Any], Any]]) -> None:
    if isinstance(source, Join):
        _collect(source.left, tables, links)
        _collect(source.right, tables, links)
        _equalities(source.onclause, links)
    elif isinstance(source, (Table, Alias)):
        tables.append(source)


def _equalities(clause: Any, links: list[tuple[ColumnClause[Any], Any]]) -> None:
    """Collect ``tenant_id = …`` terms that hold for every row: only those joined by AND."""
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            _equalities(part, links)
    elif isinstance(clause, BinaryExpression) and clause.operator is operators.eq:
        for one, other in ((clause.left, clause.right), (clause.right, clause.left)):
            if isinstance(one, ColumnClause) and one.name == "tenant_id":
                links.append((one, other))


def _bound(column: Any, links: list[tuple[ColumnClause[Any], Any]]) -> BindParameter[Any] | None:
    """Follow equalities from ``column`` to a bound value."""
    seen, todo = set(), [column]
    while todo:
        here = todo.pop()
        seen.add(here)
        for one, other in links:
            if one is here:
                if isinstance(other, BindParameter):
                    return other
                if other not in seen:
                    todo.append(other)
    return None
