"""Erasing: one delta's details, the details past a tenant's retention, or one customer.

Leaf hashes, amounts, times, totals and roots stay, so every proof of everybody else, and every one already handed out,
verifies as before. Of an erased customer nothing is left that says who it was, or opens what was hashed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import (
    audit_event,
    challenge,
    customer,
    customer_secret,
    delta_detail,
    entitlement,
    export_job,
    imported_code,
    leaf,
    link,
    mail,
    period_tree,
    pinned_address,
    session,
    spent_answer,
    statement,
    tenant,
    trusted_device,
    view_count,
)
from shared_record.db.scope import Scope
from shared_record.delivery import outbox
from shared_record.errors import NotFoundError
from shared_record.ledger.breakdowns import forget_delta, forget_tree
from shared_record.tenancy.customers import require_customer

CHUNK = 10_000
"""Details removed per transaction, so that retention never holds the database for long."""
RETENTION = "retention"
"""Who removed details, in the audit trail, when it was the tenant's setting."""

_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_WHO: BindParameter[UUID] = bindparam("who")
_BY_RECORD = select(leaf.c.tree_id, leaf.c.seq, leaf.c.customer_id).where(
    leaf.c.tenant_id == _T, leaf.c.record_id == bindparam("record")
)
_DELETE_DETAILS = delta_detail.delete().where(
    delta_detail.c.tenant_id == _T,
    delta_detail.c.tree_id == _TREE,
    delta_detail.c.seq >= bindparam("first"),
    delta_detail.c.seq <= bindparam("last"),
)
_NEXT_DETAIL = (
    select(delta_detail.c.tree_id, delta_detail.c.seq, period_tree.c.size)
    .select_from(
        delta_detail.join(
            period_tree,
            (period_tree.c.tenant_id == delta_detail.c.tenant_id) & (period_tree.c.tree_id == delta_detail.c.tree_id),
        )
    )
    .where(delta_detail.c.tenant_id == _T, delta_detail.c.tree_id > bindparam("after"))
    .order_by(delta_detail.c.tree_id, delta_detail.c.seq)
    .limit(1)
)
_RECORDED_AT = select(leaf.c.rx).where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.seq == bindparam("seq"))
_LOCK_TENANT = select(tenant.c.next_slot).where(tenant.c.tenant_id == _T).with_for_update(key_share=True)
_LOCK_TREES = (
    select(period_tree.c.tree_id, period_tree.c.size)
    .where(period_tree.c.tenant_id == _T, period_tree.c.customer_id == _WHO)
    .order_by(period_tree.c.tree_id)  # the order in which intake locks them; key_share: rows may be added below them
    .with_for_update(key_share=True)
)
_ERASE_TREE = (
    period_tree.update().where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == _TREE).values(status="erased")
)
_ERASE_ENTRIES = (
    leaf.update().where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.entry.is_not(None)).values(entry=None)
)
_ERASE_STATEMENT = statement.delete().where(statement.c.tenant_id == _T, statement.c.tree_id == _TREE)
_ERASE_STATEMENT_PG = select(func.sr_erase_statement(_TREE))
"""There the application may delete none: the function does, of an erased period of this plane only."""
_ERASE_CUSTOMER = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.customer_id == _WHO)
    .values(
        external_id=bindparam("new_name"),
        display_name=None,
        language=None,
        sealed_key=None,
        head=None,
        next_head=None,
        slot_epoch=None,
        former_code_until=None,
        epoch=customer.c.epoch + 1,
    )
)
_REVOKE_LINK = (
    link.update()
    .where(link.c.tenant_id == _T, link.c.customer_id == _WHO)
    .values(
        epoch=link.c.epoch + 1,
        sealed_handle=None,
        revoked_at=func.coalesce(link.c.revoked_at, bindparam("now", type_=link.c.revoked_at.type)),
    )
)
_FORGET_VIEWS = view_count.delete().where(view_count.c.tenant_id == _T, view_count.c.customer_id == _WHO)
_OF_STEP_UP = tuple(
    table.delete().where(table.c.tenant_id == _T, table.c.customer_id == _WHO)
    for table in (
        challenge,
        trusted_device,
        spent_answer,
        customer_secret,
        imported_code,
        pinned_address,
        entitlement,
        mail,
        export_job,
    )
)
_END_SESSIONS = session.delete().where(session.c.tenant_id == _T, session.c.customer_id == _WHO)


@dataclass(frozen=True, slots=True)
class Erased:
    """An erased customer: the name that stands in its place, and how much was recorded for it."""

    name: str
    deltas: int


def erase_details(connection: Connection, clock: Clock, scope: Scope, record_id: str, actor: str) -> bool:
    """Remove reason, reference, metadata and salt of one delta; return whether there were any left.

    Its amount, time and place in the record stay; it counts under no value of a breakdown any more. An unknown delta
    raises ``NotFoundError`` (``RECORD_NOT_FOUND``).
    """
    row = connection.execute(_BY_RECORD, {"t": scope.plane, "record": record_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no delta {record_id!r}.", code="RECORD_NOT_FOUND")
    place = {"t": scope.plane, "tree": row.tree_id, "first": row.seq, "last": row.seq}
    forget_delta(connection, scope, row.tree_id, row.seq)
    if not connection.execute(_DELETE_DETAILS, place).rowcount:
        return False
    _audit(connection, clock, scope, "record.erased", actor, row.customer_id, record_id=record_id)
    return True


def purge_details(db: Database, clock: Clock, scope: Scope, older_than: datetime) -> int:
    """Remove the details of every delta that was recorded before ``older_than``; return how many there were.

    It can be stopped anywhere and run again. A period whose details are gone already costs nothing.
    """
    removed, after = 0, ""
    while True:
        with db.read(scope) as connection:
            oldest = connection.execute(_NEXT_DETAIL, {"t": scope.plane, "after": after}).one_or_none()
            if oldest is None:
                break
            last = _last_before(connection, scope, oldest.tree_id, oldest.seq - 1, oldest.size, older_than)
        after = oldest.tree_id
        for first in range(oldest.seq, last + 1, CHUNK):
            place = {"t": scope.plane, "tree": after, "first": first, "last": min(first + CHUNK - 1, last)}
            with db.write(scope) as connection:
                count = connection.execute(_DELETE_DETAILS, place).rowcount
                if count:
                    before = older_than.isoformat()
                    _audit(
                        connection,
                        clock,
                        scope,
                        "details.purged",
                        RETENTION,
                        tree_id=after,
                        deltas=count,
                        before=before,
                    )
            removed += count
    return removed


def erase_customer(connection: Connection, clock: Clock, scope: Scope, external_id: str, actor: str) -> Erased:
    """Erase one customer for good; unknown or erased already raises ``NotFoundError`` (``CUSTOMER_NOT_FOUND``).

    Its link is revoked, its sessions end, its entries, details, heads, key and names are removed. Slot, leaf hashes,
    roots, sizes and totals stay, and from the next epoch on its slot holds random bytes. What is recorded under
    ``external_id`` afterwards makes a new customer.
    """
    of_tenant = {"t": scope.plane}
    connection.execute(_LOCK_TENANT, of_tenant).one()  # as intake does before it begins a tree
    found = require_customer(connection, scope, external_id)
    if found.sealed_key is None:
        raise NotFoundError(f"{external_id!r} is erased already.", code="CUSTOMER_NOT_FOUND")
    of_customer = of_tenant | {"who": found.customer_id}
    trees = connection.execute(_LOCK_TREES, of_customer).all()
    erase_statement = _ERASE_STATEMENT_PG if connection.dialect.name == "postgresql" else _ERASE_STATEMENT
    for row in trees:
        tree = of_tenant | {"tree": row.tree_id}
        connection.execute(_ERASE_TREE, tree)
        connection.execute(_DELETE_DETAILS, tree | {"first": 1, "last": row.size})
        forget_tree(connection, scope, row.tree_id)
        connection.execute(_ERASE_ENTRIES, tree)
        connection.execute(erase_statement, tree)
    erased = Erased(f"erased-{secrets.token_hex(8)}", sum(row.size for row in trees))
    connection.execute(_ERASE_CUSTOMER, of_customer | {"new_name": erased.name})
    connection.execute(_REVOKE_LINK, of_customer | {"now": clock.now()})
    connection.execute(_END_SESSIONS, of_customer)
    for forget in _OF_STEP_UP:
        connection.execute(forget, of_customer)
    connection.execute(_FORGET_VIEWS, of_customer)
    outbox.erase_customer(connection, scope, found.customer_id)
    _audit(connection, clock, scope, "customer.erased", actor, found.customer_id)
    return erased


def _audit(
    connection: Connection,
    clock: Clock,
    scope: Scope,
    event: str,
    actor: str,
    customer_id: UUID | None = None,
    **detail: Any,
) -> None:
    """Add one event to the audit trail, in the transaction of the change; ``access`` lies above this module."""
    row = {"tenant_id": scope.plane, "event_id": uuid4(), "at": clock.now(), "event": event, "actor": actor}
    connection.execute(audit_event.insert(), row | {"customer_id": customer_id, "detail": detail})


def _last_before(connection: Connection, scope: Scope, tree_id: str, low: int, high: int, moment: datetime) -> int:
    """Return the last ``seq`` from ``low`` up to ``high`` recorded before ``moment``; recorded time grows with it."""
    while low < high:
        middle = (low + high + 1) // 2
        rx = connection.execute(_RECORDED_AT, {"t": scope.plane, "tree": tree_id, "seq": middle}).scalar_one()
        if rx < moment:
            low = middle
        else:
            high = middle - 1
    return low
