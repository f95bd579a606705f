"""Corrections: which deltas correct which, across periods. Nothing that was corrected ever disappears."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, or_, select

from shared_record.db.schema import leaf, period_tree
from shared_record.db.scope import Scope
from shared_record.ledger.records import Period, Record

MOST = 100
"""Deltas of one chain, and corrections of one period, that are given."""
LEVELS = 20
"""How many corrections of corrections are followed in each direction."""

_T: BindParameter[UUID] = bindparam("t")
_corrected = leaf.alias("corrected")
_COLUMNS = (leaf.c.record_id, leaf.c.adjusts, leaf.c.rx, leaf.c.qty, period_tree.c.period, period_tree.c.unit)
_WITH_PERIOD = leaf.join(
    period_tree, (period_tree.c.tenant_id == leaf.c.tenant_id) & (period_tree.c.tree_id == leaf.c.tree_id)
)
_OF_CUSTOMER = (leaf.c.tenant_id == _T) & (leaf.c.customer_id == bindparam("who"))
_BY_ID = select(*_COLUMNS).select_from(_WITH_PERIOD).where(_OF_CUSTOMER, leaf.c.record_id == bindparam("record"))
_CORRECTING = (
    select(*_COLUMNS)
    .select_from(_WITH_PERIOD)
    .where(_OF_CUSTOMER, leaf.c.adjusts.in_(bindparam("records", expanding=True)))
    .order_by(leaf.c.adjusts, leaf.c.record_id)  # as the index has them; by time, SQLite would read all corrections
    .limit(bindparam("most"))
)
_LATER = (
    select(*_COLUMNS)
    .select_from(
        _WITH_PERIOD.outerjoin(
            _corrected, (_corrected.c.tenant_id == leaf.c.tenant_id) & (_corrected.c.record_id == leaf.c.adjusts)
        )
    )
    .where(
        _OF_CUSTOMER,
        leaf.c.adjusts.is_not(None),
        leaf.c.rx >= bindparam("began"),
        leaf.c.tree_id != bindparam("tree"),
        or_(_corrected.c.tree_id == bindparam("tree"), leaf.c.adjusts == bindparam("which")),
    )
    .order_by(leaf.c.rx.desc(), leaf.c.record_id)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Correction:
    """One delta of a chain. ``corrects``: the delta it corrects; or a period, where that was closing; or nothing."""

    record_id: str
    period: str
    recorded_at: datetime
    amount: str
    unit: str
    corrects: str | None

    @property
    def corrects_record(self) -> bool:
        """Whether it corrects one delta, and not a whole period."""
        return self.corrects is not None and self.corrects.startswith("rec_")


def find_chain(connection: Connection, scope: Scope, customer_id: UUID, start: Record) -> list[Correction]:
    """Return what corrects what around ``start``: the first delta, what corrects it, what corrects that, by time.

    It holds ``start`` itself; alone, where nothing corrects it and it corrects no delta. ``connection`` should be a
    snapshot.
    """
    of_customer = {"t": scope.plane, "who": customer_id}
    first = Correction(
        start.record_id, start.period.period, start.recorded_at, start.amount, start.period.unit, start.adjusts
    )
    for _level in range(LEVELS):
        if not first.corrects_record:
            break
        row = connection.execute(_BY_ID, of_customer | {"record": first.corrects}).one_or_none()
        if row is None:
            break
        first = _correction(row)
    found = {first.record_id: first}
    newest = [first.record_id]
    for _level in range(2 * LEVELS):
        asked = of_customer | {"records": newest, "most": MOST - len(found)}
        rows = [_correction(row) for row in connection.execute(_CORRECTING, asked)] if newest else []
        newest = [row.record_id for row in rows if row.record_id not in found]
        found |= {row.record_id: row for row in rows}
        if not newest or len(found) >= MOST:
            break
    return sorted(found.values(), key=lambda one: one.recorded_at)


def later_corrections(connection: Connection, scope: Scope, customer_id: UUID, period: Period) -> list[Correction]:
    """Return what was recorded in other periods to correct deltas of this one, or came while it was closing.

    Newest first, the newest ``MOST``.
    """
    asked = {"tree": period.tree_id, "which": period.period, "began": period.bounds[0], "most": MOST}
    rows = connection.execute(_LATER, {"t": scope.plane, "who": customer_id} | asked)
    return [_correction(row) for row in rows]


def _correction(row: Row[*tuple[Any, ...]]) -> Correction:
    return Correction(row.record_id, row.period, row.rx, row.qty, row.unit, row.adjusts)
