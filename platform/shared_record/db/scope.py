"""The tenant scope: which rows a transaction may touch, checked before every statement.

PostgreSQL's row-level security is the second wall and SQLite has none, so this one stands on both: a statement that
names a tenant table without binding its ``tenant_id`` to the active scope never reaches the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import (
    CTE,
    Alias,
    Delete,
    Insert,
    Join,
    Lateral,
    Select,
    Subquery,
    Table,
    TextClause,
    Update,
)
from sqlalchemy.sql import ClauseElement, operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ColumnClause
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping


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
    demands = _demands.get(statement)
    if demands is None:
        # One table stands for all that demand the same of a parameter.
        found = {(one.bind.key, one.table_scope): one for one in _find_demands(statement, None)}
        demands = _demands[statement] = tuple(found.values())
    rows = list(rows) or [{}]
    for demand in demands:
        for row in rows:
            _check_value(demand.table, demand.table_scope, row.get(demand.bind.key, demand.bind.value), scope)
    if isinstance(statement, Insert):
        _check_insert(statement, rows, scope)
    elif isinstance(statement, Update) and any("tenant_id" in row for row in rows):
        raise TenantScopeError(f"{statement.table}: a row cannot be given to another tenant")


def _check_value(table: str, table_scope: str, value: Any, scope: Scope | None) -> None:
    if scope is None:
        raise TenantScopeError(f"{table}: no tenant scope is active")
    if not isinstance(value, UUID) or not scope.allows(table_scope, value):
        raise TenantScopeError(f"{table}: bound to tenant {value}, the active scope is {scope}")


def _check_insert(statement: Insert, rows: Iterable[Mapping[str, Any]], scope: Scope | None) -> None:
    table = statement.table
    if not isinstance(table, Table):
        raise TenantScopeError(f"cannot be read: {table}")
    table_scope = table.info.get("scope", "global")
    if table_scope == "global":
        return
    fixed = _of_tenant(statement._values or {})
    given = [] if fixed is None else [fixed.value if isinstance(fixed, BindParameter) else fixed]
    for row in rows:
        values = [*given, row["tenant_id"]] if "tenant_id" in row else given
        for value in values or [None]:
            _check_value(table.name, table_scope, value, scope)


# --- Reading a statement ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Frame:
    """The tables of one SELECT, UPDATE or DELETE, and the ``tenant_id = …`` terms that hold for each of its rows.

    ``outer`` is the statement that encloses it and whose rows it may speak of.
    """

    outer: _Frame | None
    sources: list[Any] = field(default_factory=list)
    tables: list[Table | Alias] = field(default_factory=list)
    links: list[tuple[ColumnClause[Any], Any]] = field(default_factory=list)

    def equals(self, column: Any) -> Iterator[Any]:
        """Yield what ``column`` is known to be equal to."""
        yield from (other for one, other in self.links if one is column)
        if self.outer is not None and not any(getattr(column, "table", None) is table for table in self.tables):
            yield from self.outer.equals(column)


def _find_demands(element: ClauseElement, outer: _Frame | None, *, top: bool = True) -> Iterator[_Demand]:
    """Yield what ``element`` and everything in it must show; raise for what cannot be read."""
    _refuse_unreadable(element, top=top)
    frame = outer
    if isinstance(element, Select):
        frame = _frame_of_select(element, outer)
    elif isinstance(element, (Update, Delete)):
        frame = _frame_of_change(element, outer)
    if frame is not None and frame is not outer:
        yield from _demands_of(frame, element)
    # What stands in FROM is made without regard to the rows around it.
    within = None if isinstance(element, AliasedReturnsRows) and not isinstance(element, Lateral) else frame
    for child in element.get_children():
        yield from _find_demands(child, within, top=False)


def _refuse_unreadable(element: Any, *, top: bool) -> None:
    if isinstance(element, TextClause) or (getattr(element, "is_literal", False) and element.name != "*"):
        raise TenantScopeError(f"plain SQL outside db.lookup: {element}")
    if getattr(element, "_params", None):
        raise TenantScopeError(f"parameters must be given when a statement is executed: {element}")
    if isinstance(element, Insert):
        unreadable = element.select is not None or element._multi_values or element._post_values_clause is not None
        if unreadable or not top:
            raise TenantScopeError(f"{element.table}: only whole rows are inserted, each with its tenant_id")
    if isinstance(element, Update) and _of_tenant(element._values or {}) is not None:
        raise TenantScopeError(f"{element.table}: a row cannot be given to another tenant: {element}")


def _of_tenant(values: Mapping[Any, Any]) -> Any:
    """Return what ``values`` of an INSERT or UPDATE say of ``tenant_id``, or ``None``."""
    return next((value for key, value in values.items() if getattr(key, "key", key) == "tenant_id"), None)


def _frame_of_select(statement: Select[Any], outer: _Frame | None) -> _Frame:
    frame = _Frame(outer)
    # Which tables stand in its own FROM, and which it shares with the statement around it, is what SQLAlchemy will do.
    state: Any = statement._compile_state_factory(statement, statement._default_compiler())
    near = outer.sources if outer is not None else []
    for source in state._get_display_froms(explicit_correlate_froms=_all_sources(outer), implicit_correlate_froms=near):
        _collect(source, frame)
    frame.links += _equalities(statement.whereclause)
    return frame


def _frame_of_change(statement: Update | Delete, outer: _Frame | None) -> _Frame:
    frame = _Frame(outer)
    _collect(statement.table, frame)
    expressions = [*statement._where_criteria, *(getattr(statement, "_values", None) or {}).values()]
    sources = [source for expression in expressions for source in getattr(expression, "_from_objects", ())]
    for source in [*sources, *getattr(statement, "_extra_froms", ())]:
        if not any(source is table for table in frame.tables):
            _collect(source, frame)
    frame.links += _equalities(statement.whereclause)
    return frame


def _all_sources(frame: _Frame | None) -> list[Any]:
    return [] if frame is None else [*frame.sources, *_all_sources(frame.outer)]


def _demands_of(frame: _Frame, statement: ClauseElement) -> Iterator[_Demand]:
    for table in frame.tables:
        base: Any = table
        while isinstance(base, Alias):
            base = base.element
        if base.info.get("scope", "global") == "global":
            continue
        bind = _bound(table.c.tenant_id, frame)
        if bind is None:
            raise TenantScopeError(f"{base.name}: the statement does not bind tenant_id: {statement}")
        yield _Demand(base.name, base.info["scope"], bind)


def _collect(source: Any, frame: _Frame) -> None:
    """Add a FROM source to ``frame``; what cannot be read is refused."""
    frame.sources.append(source)
    base = source
    while isinstance(base, (Alias, FromGrouping)):
        base = base.element
    if isinstance(source, FromGrouping):
        _collect(source.element, frame)
    elif isinstance(source, Join):
        _collect(source.left, frame)
        left = len(frame.tables)
        _collect(source.right, frame)
        found = _equalities(source.onclause)
        if source.isouter or source.full:
            # An outer join keeps the rows of its left side whatever its condition says; a full one those of both.
            right = [] if source.full else frame.tables[left:]
            found = [(one, other) for one, other in found if any(one.table is table for table in right)]
        frame.links += found
    elif isinstance(source, (Table, Alias)) and isinstance(base, Table):
        frame.tables.append(source)
    elif not isinstance(source, (Subquery, CTE, Lateral)):
        raise TenantScopeError(f"cannot be read: {source}")


def _equalities(clause: Any) -> list[tuple[ColumnClause[Any], Any]]:
    """Return the ``tenant_id = …`` terms of a condition that hold for every row: only those joined by AND."""
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        return [link for part in clause.clauses for link in _equalities(part)]
    if isinstance(clause, BinaryExpression) and clause.operator is operators.eq:
        sides = ((clause.left, clause.right), (clause.right, clause.left))
        return [(a, b) for a, b in sides if isinstance(a, ColumnClause) and a.name == "tenant_id"]
    return []


def _bound(column: Any, frame: _Frame) -> BindParameter[Any] | None:
    """Follow equalities from ``column`` to a bound value."""
    seen, todo = set(), [column]
    while todo:
        here = todo.pop()
        seen.add(here)
        for other in frame.equals(here):
            if isinstance(other, BindParameter):
                return other
            if other not in seen:
                todo.append(other)
    return None
