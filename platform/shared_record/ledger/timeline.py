"""Dated facts of one record: what the ledger itself knows of when things happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Label, Row, Select, bindparam, or_, select

from shared_record.db.schema import epoch, epoch_member, leaf, period_tree, receipt
from shared_record.db.scope import Scope

Position = tuple[datetime, int, str]
"""Where a fact stands: when, which kind, and which of that kind. Newest first, then by kind, then by id downwards."""
OPENED, STATED, CORRECTED, RECEIPT, LINK = range(5)
"""Kinds in the order in which facts of one moment follow each other; those of the link are not the ledger's own."""

_T: BindParameter[UUID] = bindparam("t")
_OF_CUSTOMER = (period_tree.c.tenant_id == _T) & (period_tree.c.customer_id == bindparam("who"))
_OPENED = (
    select(leaf.c.rx.label("at"), period_tree.c.period.label("id"), period_tree.c.period)
    .select_from(
        period_tree.join(
            leaf, (leaf.c.tenant_id == period_tree.c.tenant_id) & (leaf.c.tree_id == period_tree.c.tree_id)
        )
    )
    .where(_OF_CUSTOMER, leaf.c.seq == 1)
)
_STATED = (
    select(
        epoch.c.ts.label("at"),
        period_tree.c.period.label("id"),
        period_tree.c.period,
        period_tree.c.unit,
        period_tree.c.psize,
        period_tree.c.ptotal,
        epoch_member.c.final,
    )
    .select_from(
        period_tree.join(
            epoch_member,
            (epoch_member.c.tenant_id == period_tree.c.tenant_id)
            & (epoch_member.c.tree_id == period_tree.c.tree_id)
            & (epoch_member.c.epoch == period_tree.c.pepoch),
        ).join(epoch, (epoch.c.tenant_id == epoch_member.c.tenant_id) & (epoch.c.n == epoch_member.c.epoch))
    )
    .where(_OF_CUSTOMER)
)
"""Of each period, the newest checkpoint that states it: there may be thousands before it, which say less."""
_CORRECTED = (
    select(
        leaf.c.rx.label("at"),
        leaf.c.record_id.label("id"),
        period_tree.c.period,
        period_tree.c.unit,
        leaf.c.adjusts,
        leaf.c.qty,
    )
    .select_from(
        leaf.join(
            period_tree, (period_tree.c.tenant_id == leaf.c.tenant_id) & (period_tree.c.tree_id == leaf.c.tree_id)
        )
    )
    .where(leaf.c.tenant_id == _T, leaf.c.customer_id == bindparam("who"), leaf.c.adjusts.is_not(None))
)
_RECEIPTS = select(
    receipt.c.issued_at.label("at"),
    receipt.c.receipt_id.label("id"),
    receipt.c.start,
    receipt.c.end,
    receipt.c.revision,
).where(receipt.c.tenant_id == _T, receipt.c.customer_id == bindparam("who"))
_SOURCES: tuple[tuple[int, Select[Any]], ...] = (
    (OPENED, _OPENED),
    (STATED, _STATED),
    (CORRECTED, _CORRECTED),
    (RECEIPT, _RECEIPTS),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened at ``position``. ``kind``: period_opened, checkpoint_published, period_closed,
    correction_recorded, receipt_issued; or one of the link's. ``detail`` names what it is about, as text."""

    position: Position
    kind: str
    period: str | None
    detail: dict[str, str]

    @property
    def at(self) -> datetime:
        """When it happened."""
        return self.position[0]


def read_facts(
    connection: Connection, scope: Scope, customer_id: UUID, *, most: int, after: Position | None = None
) -> list[Fact]:
    """Return at most ``most`` facts of one customer's record, newest first: from ``after`` on, or from the newest.

    ``connection`` should be a snapshot.
    """
    parameters: dict[str, Any] = {"t": scope.plane, "who": customer_id, "most": most}
    if after is not None:
        parameters |= {"then": after[0], "last": after[2]}
    found = []
    for kind, query in _SOURCES:
        rows = connection.execute(_older(query, kind, after), parameters)
        found.append([_fact(kind, row) for row in rows])
    return merge_facts(found)[:most]


def merge_facts(sources: Iterable[list[Fact]]) -> list[Fact]:
    """Return the facts of ``sources``, each newest first and of one kind or merged, as one list newest first."""
    return list(merge(*sources, key=lambda fact: (_END - fact.at, fact.position[1])))


_END = datetime.max.replace(tzinfo=UTC)


def _older(query: Select[Any], kind: int, after: Position | None) -> Select[Any]:
    at, name = query.selected_columns[0], query.selected_columns[1]
    at, name = (column.element if isinstance(column, Label) else column for column in (at, name))
    if after is not None:
        then: BindParameter[datetime] = bindparam("then", type_=at.type)
        last: BindParameter[str] = bindparam("last")
        if kind == after[1]:
            query = query.where(or_(at < then, (at == then) & (name < last)))
        else:
            query = query.where(at <= then if kind > after[1] else at < then)
    return query.order_by(at.desc(), name.desc()).limit(bindparam("most"))


def _fact(kind: int, row: Row[Any]) -> Fact:
    position = (row.at, kind, row.id)
    match kind:
        case 0:
            return Fact(position, "period_opened", row.period, {})
        case 1:
            name = "period_closed" if row.final else "checkpoint_published"
            detail = {"records": str(row.psize), "total": row.ptotal, "unit": row.unit}
            return Fact(position, name, row.period, detail)
        case 2:
            detail = {"recordId": row.id, "corrects": row.adjusts, "amount": row.qty, "unit": row.unit}
            return Fact(position, "correction_recorded", row.period, detail)
        case _:
            detail = {"receiptId": row.id, "start": row.start.isoformat(), "end": row.end.isoformat()}
            return Fact(position, "receipt_issued", None, detail | {"revision": str(row.revision)})
