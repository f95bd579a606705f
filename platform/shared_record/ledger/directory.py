"""The customers of a tenant as their vendor lists them: who they are and what is recorded for them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, func, select

from shared_record.clock import Clock, period_of
from shared_record.db.schema import customer, leaf, period_tree, receipt
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.keys import KeyRing
from shared_record.ledger.amounts import Total
from shared_record.ledger.records import Period, list_periods
from shared_record.tenancy.tenants import tenant_key

_T: BindParameter[UUID] = bindparam("t")
_LIVE = (customer.c.tenant_id == _T) & customer.c.sealed_key.is_not(None)
_CUSTOMERS = (
    select(
        customer.c.customer_id, customer.c.external_id, customer.c.display_name, customer.c.slot, customer.c.created_at
    )
    .where(_LIVE)
    .order_by(customer.c.slot)
)
_COUNT = select(func.count()).select_from(customer).where(_LIVE)
_BY_ID = _CUSTOMERS.where(customer.c.external_id == bindparam("external_id"))
_TREES = select(period_tree.c.customer_id, period_tree.c.tree_id, period_tree.c.size, period_tree.c.last_rx).where(
    period_tree.c.tenant_id == _T, period_tree.c.customer_id.in_(bindparam("customers", expanding=True))
)
_FIRST = select(leaf.c.customer_id, leaf.c.rx).where(
    leaf.c.tenant_id == _T, leaf.c.tree_id.in_(bindparam("trees", expanding=True)), leaf.c.seq == 1
)
_SIZES = select(period_tree.c.period, period_tree.c.size, period_tree.c.psize).where(
    period_tree.c.tenant_id == _T, period_tree.c.status != "erased"
)
_NEWEST_RECEIPT = (
    select(receipt.c.receipt_id)
    .where(receipt.c.tenant_id == _T, receipt.c.customer_id == bindparam("who"))
    .order_by(receipt.c.issued_at.desc(), receipt.c.receipt_id.desc())
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One customer. ``reference`` is 0x and 40 hex digits, the same for ever; moments are of recorded deltas."""

    customer_id: UUID
    external_id: str
    display_name: str | None
    reference: str
    slot: int
    created_at: datetime
    deltas: int
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Profile:
    """One customer with its periods (newest first), its balances over all of them, and the newest receipt."""

    listed: Listed
    periods: tuple[Period, ...]
    verified_balance: str
    recorded_balance: str
    receipt_id: str | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all customers of a data plane. ``active``: with a delta in the current month."""

    customers: int
    active: int
    deltas: int
    verified: int


def list_customers(
    connection: Connection, keys: KeyRing, scope: Scope, *, page: int, limit: int, search: str = ""
) -> tuple[list[Listed], int]:
    """Return page ``page`` (from 1) of the customers, and how many there are; ``search`` is any part of the id."""
    query, count = _CUSTOMERS, _COUNT
    parameters: dict[str, Any] = {"t": scope.plane}
    if search:
        found = func.lower(customer.c.external_id).contains(bindparam("part"), autoescape=False, escape="\\")
        query, count = query.where(found), count.where(found)
        parameters["part"] = _escaped(search.lower())
    total = connection.execute(count, parameters).scalar_one()
    rows = connection.execute(query.limit(limit).offset((page - 1) * limit), parameters).all()
    return _listed(connection, keys, scope, rows), total


def find_profile(connection: Connection, keys: KeyRing, scope: Scope, external_id: str) -> Profile:
    """Return one customer by the vendor's id, or raise ``NotFoundError`` (``CUSTOMER_NOT_FOUND``)."""
    rows = connection.execute(_BY_ID, {"t": scope.plane, "external_id": external_id}).all()
    if not rows:
        raise NotFoundError(f"there is no customer {external_id!r}.", code="CUSTOMER_NOT_FOUND")
    (listed,) = _listed(connection, keys, scope, rows)
    periods = tuple(list_periods(connection, scope, listed.customer_id))
    verified, recorded = Total(), Total()
    for period in periods:
        verified.add(period.ptotal)
        recorded.add(period.total)
    newest = connection.execute(_NEWEST_RECEIPT, {"t": scope.plane, "who": listed.customer_id}).scalar_one_or_none()
    return Profile(listed, periods, verified.text, recorded.text, newest)


def count_all(connection: Connection, clock: Clock, scope: Scope) -> Totals:
    """Return the counts of a data plane."""
    of_tenant = {"t": scope.plane}
    now = period_of(clock.now())
    deltas = verified = active = 0
    for row in connection.execute(_SIZES, of_tenant):
        deltas += row.size
        verified += row.psize
        active += row.period == now and row.size > 0
    return Totals(connection.execute(_COUNT, of_tenant).scalar_one(), active, deltas, verified)


def customer_reference(tenant_secret: bytes, external_id: str) -> str:
    """Return ``0x`` and 40 hex digits that stand for a customer id: nobody else can compute or reverse it."""
    return "0x" + hmac.digest(tenant_secret, b"customer\0" + external_id.encode(), hashlib.sha256)[:20].hex()


def _listed(connection: Connection, keys: KeyRing, scope: Scope, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Listed]:
    secret = tenant_key(connection, keys, scope)
    people = [row.customer_id for row in rows]
    trees = connection.execute(_TREES, {"t": scope.plane, "customers": people}).all()
    firsts = _earliest(connection, _FIRST, {"t": scope.plane, "trees": [tree.tree_id for tree in trees]})
    found = []
    for row in rows:
        own = [tree for tree in trees if tree.customer_id == row.customer_id]
        found.append(
            Listed(
                row.customer_id,
                row.external_id,
                row.display_name,
                customer_reference(secret, row.external_id),
                row.slot,
                row.created_at,
                sum(tree.size for tree in own),
                firsts.get(row.customer_id),
                max((tree.last_rx for tree in own if tree.last_rx), default=None),
            )
        )
    return found


def _earliest(connection: Connection, query: Select[Any], parameters: dict[str, Any]) -> dict[UUID, datetime]:
    found: dict[UUID, datetime] = {}
    for row in connection.execute(query, parameters):
        found[row.customer_id] = min(row.rx, found.get(row.customer_id, row.rx))
    return found


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
