"""Dated facts of one record: what the ledger itself knows of when things happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.db.schema import epoch, epoch_member, leaf, period_tree, receipt
from shared_record.db.scope import Scope

MOST = 200
"""Facts of one kind: the newest."""

_T: BindParameter[UUID] = bindparam("t")
_OF_CUSTOMER = (period_tree.c.tenant_id == _T) & (period_tree.c.customer_id == bindparam("who"))
_OPENED = (
    select(period_tree.c.period, leaf.c.rx)
    .select_from(
        period_tree.join(
            leaf, (leaf.c.tenant_id == period_tree.c.tenant_id) & (leaf.c.tree_id == period_tree.c.tree_id)
        )
    )
    .where(_OF_CUSTOMER, leaf.c.seq == 1)
    .order_by(period_tree.c.period.desc())
    .limit(MOST)
)
_STATED = (
    select(period_tree.c.period, period_tree.c.psize, period_tree.c.ptotal, epoch_member.c.final, epoch.c.ts)
    .select_from(
        period_tree.join(
            epoch_member,
            (epoch_member.c.tenant_id == period_tree.c.tenant_id)
            & (epoch_member.c.tree_id == period_tree.c.tree_id)
            & (epoch_member.c.epoch == period_tree.c.pepoch),
        ).join(epoch, (epoch.c.tenant_id == epoch_member.c.tenant_id) & (epoch.c.n == epoch_member.c.epoch))
    )
    .where(_OF_CUSTOMER)
    .order_by(period_tree.c.period.desc())
    .limit(MOST)
)
"""Of each period, the newest checkpoint that states it: there may be thousands before it, which say less."""
_CORRECTED = (
    select(period_tree.c.period, leaf.c.rx, leaf.c.record_id, leaf.c.adjusts, leaf.c.qty)
    .select_from(
        leaf.join(
            period_tree, (period_tree.c.tenant_id == leaf.c.tenant_id) & (period_tree.c.tree_id == leaf.c.tree_id)
        )
    )
    .where(leaf.c.tenant_id == _T, leaf.c.customer_id == bindparam("who"), leaf.c.adjusts.is_not(None))
    .order_by(leaf.c.rx.desc())
    .limit(MOST)
)
_RECEIPTS = (
    select(receipt.c.receipt_id, receipt.c.start, receipt.c.end, receipt.c.revision, receipt.c.issued_at)
    .where(receipt.c.tenant_id == _T, receipt.c.customer_id == bindparam("who"))
    .order_by(receipt.c.issued_at.desc())
    .limit(MOST)
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened at ``at``. ``kind``: period_opened, checkpoint_published, period_closed,
    correction_recorded, receipt_issued. ``detail`` names what it is about, as text."""

    at: datetime
    kind: str
    period: str | None
    detail: dict[str, str]


def read_facts(connection: Connection, scope: Scope, customer_id: UUID) -> list[Fact]:
    """Return the facts of one customer's record, newest first; of each kind the newest ``MOST``."""
    return sorted(_facts(connection, scope, customer_id), key=lambda fact: fact.at, reverse=True)


def _facts(connection: Connection, scope: Scope, customer_id: UUID) -> Iterator[Fact]:
    who = {"t": scope.plane, "who": customer_id}
    row: Any
    for row in connection.execute(_OPENED, who):
        yield Fact(row.rx, "period_opened", row.period, {})
    for row in connection.execute(_STATED, who):
        kind = "period_closed" if row.final else "checkpoint_published"
        yield Fact(row.ts, kind, row.period, {"records": str(row.psize), "total": row.ptotal})
    for row in connection.execute(_CORRECTED, who):
        detail = {"recordId": row.record_id, "corrects": row.adjusts, "amount": row.qty}
        yield Fact(row.rx, "correction_recorded", row.period, detail)
    for row in connection.execute(_RECEIPTS, who):
        window = {"receiptId": row.receipt_id, "start": row.start.isoformat(), "end": row.end.isoformat()}
        yield Fact(row.issued_at, "receipt_issued", None, window | {"revision": str(row.revision)})
