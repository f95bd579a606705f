"""Intake: deltas become leaves in one transaction. What it answers is durable, and the receipt id is final.

Order: lock the period trees involved -> recognise retries -> assign ``seq``, running total, salt and leaf hash ->
insert -> update counters -> commit. No tree work happens here; *integrate* does it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared_record.clock import Clock, period_bounds, period_of, rfc3339
from shared_record.db.bulk import execute_each, insert_rows
from shared_record.db.engine import Database
from shared_record.db.prepared import fetch_all
from shared_record.db.schema import day_counter, delta_detail, leaf, period_tree, tenant
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError
from shared_record.identifiers import new_identifier, ordered_hex
from shared_record.keys import KeyRing
from shared_record.ledger.amounts import Total
from shared_record.ledger.breakdowns import count_values
from shared_record.ledger.entry import detail_hash, entry_salt, entry_text, receipt_id
from shared_record.ledger.merkle import leaf_hash
from shared_record.tenancy.customers import (
    CustomerKey,
    create_customers,
    customer_key_place,
    find_customers,
    reference_key,
)
from shared_record.tenancy.tenants import tenant_key

ATTEMPTS = 5
_TRY_AGAIN = ("40001", "40P01")
"""What PostgreSQL says when it ended a transaction for the sake of another: serialization failure, deadlock."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One validated delta. ``amount`` is a canonical decimal, ``metadata`` canonical JSON, ``occurred_at`` UTC text."""

    customer_id: str
    amount: str
    reason: str
    reference_id: str | None = None
    metadata: str | None = None
    occurred_at: str | None = None
    adjusts_record: str | None = None
    adjusts_reference: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A recorded delta; ``replayed`` when an earlier request with the same ``reference_id`` had recorded it."""

    record_id: str
    receipt_id: str
    customer_id: str
    amount: str
    reference_id: str | None
    created_at: datetime
    sequence: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """A delta that was not recorded, and the field that is why."""

    code: str
    message: str
    field: str


class Once(Protocol):
    """What recognises a repeated request, and keeps the answer in the transaction of what it tells of.

    Each may raise: the transaction then ends without effect, and ``record_deltas`` raises the same.
    """

    def begin(self, connection: Connection) -> None:
        """Take the request, before anything is recorded."""

    def finish(self, connection: Connection, results: list[Accepted | Rejected]) -> None:
        """Keep the answer, after everything is recorded."""


_NOTHING_TO_ADJUST = Rejected("ADJUSTS_NOT_FOUND", "no delta of this customer matches `adjusts`.", "adjusts")

_T: BindParameter[UUID] = bindparam("t")
_COUNTING = select(tenant.c.unit, tenant.c.breakdowns).where(tenant.c.tenant_id == _T)
_TREES = (
    select(period_tree)
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.customer_id.in_(bindparam("customers", expanding=True)),
        period_tree.c.period >= bindparam("period"),
    )
    .order_by(period_tree.c.tree_id)
    .with_for_update()
)
_NEWEST_TREES = (
    select(
        period_tree.c.customer_id, period_tree.c.period, period_tree.c.status, period_tree.c.base, period_tree.c.size
    )
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.customer_id.in_(bindparam("customers", expanding=True)),
    )
    .order_by(period_tree.c.period)
)
_INSERT_TREE = period_tree.insert()
_UPDATE_TREE = (
    period_tree.update()
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree"))
    .values(
        size=bindparam("new_size"),
        total=bindparam("new_total"),
        last_rx=bindparam("rx"),
        last_leaf=bindparam("hash"),
    )
)
_BY_REFERENCE = select(
    leaf.c.reference_key,
    leaf.c.payload_key,
    leaf.c.record_id,
    leaf.c.hash,
    leaf.c.rx,
    leaf.c.seq,
    leaf.c.qty,
    period_tree.c.base,
).where(
    leaf.c.tenant_id == _T,
    leaf.c.reference_key.in_(bindparam("references", expanding=True)),
    period_tree.c.tenant_id == leaf.c.tenant_id,
    period_tree.c.tree_id == leaf.c.tree_id,
)
_BY_RECORD = select(leaf.c.record_id, leaf.c.customer_id).where(
    leaf.c.tenant_id == _T, leaf.c.record_id.in_(bindparam("records", expanding=True))
)
_DAYS = select(day_counter).where(
    day_counter.c.tenant_id == _T,
    day_counter.c.tree_id.in_(bindparam("trees", expanding=True)),
    day_counter.c.day.in_(bindparam("days", expanding=True)),
)
_INSERT_DAY = day_counter.insert()
_UPDATE_DAY = (
    day_counter.update()
    .where(
        day_counter.c.tenant_id == _T,
        day_counter.c.tree_id == bindparam("tree"),
        day_counter.c.day == bindparam("on_day"),
    )
    .values(size=bindparam("new_count"), total=bindparam("new_total"))
)


def record_deltas(
    db: Database, keys: KeyRing, clock: Clock, scope: Scope, deltas: Sequence[Delta], *, once: Once | None = None
) -> list[Accepted | Rejected]:
    """Record ``deltas`` in one transaction; return one result for each, in order.

    A delta whose ``reference_id`` is already recorded for its customer with the same payload answers as the first time;
    with another payload it is rejected (``REFERENCE_CONFLICT``), as is one that adjusts an unknown delta. ``once``
    belongs to the request as a whole.
    """
    begins = False
    for attempt in range(ATTEMPTS):
        try:
            with db.write(scope) as connection:
                if once is not None:
                    once.begin(connection)
                intake = _Intake(connection, keys, clock, scope, begins=begins)
                results = intake.record(deltas)
                if not intake.leaves:
                    connection.rollback()  # nothing was recorded, so no customer and no period begins either
                elif once is not None:
                    once.finish(connection, results)
            if once is not None and not intake.leaves:
                with db.write(scope) as connection:
                    once.begin(connection)
                    once.finish(connection, results)
            return results
        except _BeginsError:
            begins = True
        except DBAPIError as error:
            # The same reference came from another transaction at this moment, or two waited for each other.
            again = isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _TRY_AGAIN
            if not again or attempt == ATTEMPTS - 1:
                raise
    raise ConflictError("the same deltas are being recorded elsewhere.")


@dataclass(slots=True)
class _Tree:
    """A period tree under this transaction's lock, with what it will be updated to."""

    tree_id: str
    period: str
    unit: str
    base: int
    size: int
    total: Total
    last_rx: datetime | None
    last_leaf: bytes | None
    adjusts_period: str | None = None
    changed: bool = False
    new_for: UUID | None = None
    """The customer, when this transaction begins the tree: it is stored with its first delta."""
    breakdowns: list[str] | None = None
    days: dict[Any, list[str]] = field(default_factory=dict)


class _BeginsError(Exception):
    """A period tree has to be begun, for which the tenant's row must be locked before any tree."""


class _Intake:
    """One transaction's worth of intake. ``begins``: it may begin trees, and locks the tenant's row for it."""

    def __init__(self, connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, *, begins: bool) -> None:
        self.connection, self.keys, self.clock, self.scope, self.begins = connection, keys, clock, scope, begins
        self.tenant_key = tenant_key(connection, keys, scope)
        self.now = clock.now()
        self.leaves: list[dict[str, Any]] = []
        self.details: list[dict[str, Any]] = []
        self.by_reference: dict[bytes, tuple[bytes, Accepted]] = {}
        self.owners: dict[str, UUID] = {}

    def record(self, deltas: Sequence[Delta]) -> list[Accepted | Rejected]:
        names = {delta.customer_id for delta in deltas}
        customers = find_customers(self.connection, self.scope, names)
        # What adjusts another delta cannot be a customer's first one.
        first = {d.customer_id for d in deltas if d.adjusts_record is None and d.adjusts_reference is None}
        if self.begins or first - customers.keys():
            create_customers(self.connection, self.keys, self.clock, self.scope, first)
            customers = find_customers(self.connection, self.scope, names)  # again: one may just have been erased
            self.begins = True
        trees = self._lock_trees(customers)
        while period_of(now := self.clock.now()) > period_of(self.now):  # the month turned while this waited
            self.now = now
            trees = self._lock_trees(customers)
        self.now = now
        self._load_references(customers, deltas)
        customer_keys = {name: self._customer_key(row) for name, row in customers.items()}
        results: list[Accepted | Rejected] = []
        for delta in deltas:
            customer = customers.get(delta.customer_id)
            if customer is None:
                results.append(_NOTHING_TO_ADJUST)
                continue
            results.append(self._one(delta, customer, trees[customer.customer_id], customer_keys[delta.customer_id]))
        self._write(trees.values())
        return results

    def _one(self, delta: Delta, customer: CustomerKey, tree: _Tree, key: bytes) -> Accepted | Rejected:
        payload = self._payload_key(delta)
        reference = self._reference_key(customer, delta.reference_id)
        if reference is not None and (known := self.by_reference.get(reference)):
            if not hmac.compare_digest(known[0], payload):
                return Rejected(
                    "REFERENCE_CONFLICT",
                    f"referenceId {delta.reference_id!r} is already recorded for this customer with other content.",
                    "referenceId",
                )
            first = known[1]
            return Accepted(
                first.record_id,
                first.receipt_id,
                delta.customer_id,
                delta.amount,
                delta.reference_id,
                first.created_at,
                first.sequence,
                replayed=True,
            )
        adjusts = tree.adjusts_period
        if delta.adjusts_record is not None or delta.adjusts_reference is not None:
            adjusts = self._adjusted(delta, customer)
            if adjusts is None:
                return _NOTHING_TO_ADJUST
        accepted = self._append(delta, customer, tree, key, payload, reference, adjusts)
        if reference is not None:
            self.by_reference[reference] = (payload, accepted)
        self.owners[accepted.record_id] = customer.customer_id
        return accepted

    def _append(
        self,
        delta: Delta,
        customer: CustomerKey,
        tree: _Tree,
        key: bytes,
        payload: bytes,
        reference: bytes | None,
        adjusts: str | None,
    ) -> Accepted:
        rx = max(self.now, tree.last_rx) if tree.last_rx else self.now
        seq = tree.size + 1
        total = tree.total.add(delta.amount)
        salt = secrets.token_bytes(16)
        record_id = new_identifier("rec")
        text = entry_text(
            rec=tree.tree_id,
            period=tree.period,
            seq=seq,
            unit=tree.unit,
            qty=delta.amount,
            total=total,
            record_id=record_id,
            rx=rfc3339(rx),
            salt=entry_salt(key, tree.tree_id, seq),
            mh=detail_hash(salt, delta.reason, delta.reference_id, delta.metadata),
            at=delta.occurred_at,
            adj=adjusts,
        )
        digest = leaf_hash(text.encode())
        place = {"tenant_id": self.scope.plane, "tree_id": tree.tree_id, "seq": seq}
        self.leaves.append(
            place
            | {
                "record_id": record_id,
                "customer_id": customer.customer_id,
                "rx": rx,
                "at": delta.occurred_at,
                "qty": delta.amount,
                "total": total,
                "adjusts": adjusts,
                "entry": text,
                "hash": digest,
                "reference_key": reference,
                "payload_key": payload,
            }
        )
        self.details.append(
            place
            | {
                "reason": delta.reason,
                "reference": delta.reference_id,
                "metadata": delta.metadata,
                "salt": salt,
            }
        )
        tree.size, tree.last_rx, tree.last_leaf, tree.changed = seq, rx, digest, True
        tree.days.setdefault(rx.date(), []).append(delta.amount)
        return Accepted(
            record_id,
            receipt_id(digest),
            delta.customer_id,
            delta.amount,
            delta.reference_id,
            rx,
            tree.base + seq,
            replayed=False,
        )

    def _lock_trees(self, customers: dict[str, CustomerKey]) -> dict[UUID, _Tree]:
        """Return each customer's tree for a delta received now, locked; those that do not exist yet are begun."""
        wanted = [row.customer_id for row in customers.values()]
        found = self._locked(wanted)
        missing = [customer_id for customer_id in wanted if customer_id not in found]
        if missing and not self.begins:
            raise _BeginsError
        units = {row.customer_id: row.unit for row in customers.values()}
        return found | self._new_trees(missing, units)

    def _locked(self, wanted: list[UUID]) -> dict[UUID, _Tree]:
        rows = fetch_all(
            self.connection,
            _TREES,
            {"t": self.scope.plane, "customers": sorted(wanted), "period": period_of(self.now)},
        )
        found: dict[UUID, _Tree] = {}
        closing: dict[UUID, str] = {}
        for row in sorted(rows, key=lambda row: row.period):
            if row.status != "open":
                closing[row.customer_id] = row.period
                found.pop(row.customer_id, None)
                continue
            found[row.customer_id] = _Tree(
                row.tree_id,
                row.period,
                row.unit,
                row.base,
                row.size,
                Total(row.total),
                row.last_rx,
                row.last_leaf,
                adjusts_period=closing.get(row.customer_id),
                breakdowns=row.breakdowns,
            )
        return found

    def _new_trees(self, customers: list[UUID], units: dict[UUID, str | None]) -> dict[UUID, _Tree]:
        """Return the next tree of each customer: this month's, or the month after one that is closing already."""
        if not customers:
            return {}
        counting = self.connection.execute(_COUNTING, {"t": self.scope.config}).one()
        newest = {
            row.customer_id: row
            for row in self.connection.execute(_NEWEST_TREES, {"t": self.scope.plane, "customers": customers})
        }
        found = {}
        for customer_id in sorted(customers):
            before = newest.get(customer_id)
            period, late_for = period_of(self.now), None
            if before is not None and before.period >= period:
                period = period_of(period_bounds(before.period)[1])
                late_for = before.period
            found[customer_id] = _Tree(
                f"r_{ordered_hex(self.now)}",
                period,
                units[customer_id] or counting.unit,
                before.base + before.size if before is not None else 0,
                size=0,
                total=Total(),
                last_rx=None,
                last_leaf=None,
                adjusts_period=late_for,
                new_for=customer_id,
                breakdowns=counting.breakdowns or None,
            )
        return found

    def _load_references(self, customers: dict[str, CustomerKey], deltas: Sequence[Delta]) -> None:
        """Find what the references and ``adjusts`` of this request already stand for."""
        references = set()
        for delta in deltas:
            for text in (delta.reference_id, delta.adjusts_reference):
                customer = customers.get(delta.customer_id)
                if customer is not None and (reference := self._reference_key(customer, text)) is not None:
                    references.add(reference)
        if references:
            rows = fetch_all(self.connection, _BY_REFERENCE, {"t": self.scope.plane, "references": sorted(references)})
            for row in rows:
                first = Accepted(
                    row.record_id,
                    receipt_id(row.hash),
                    "",
                    row.qty,
                    None,
                    row.rx,
                    row.base + row.seq,
                    replayed=True,
                )
                self.by_reference[row.reference_key] = (row.payload_key, first)
        records = {delta.adjusts_record for delta in deltas if delta.adjusts_record is not None}
        if records:
            rows = fetch_all(self.connection, _BY_RECORD, {"t": self.scope.plane, "records": sorted(records)})
            self.owners = {row.record_id: row.customer_id for row in rows}

    def _adjusted(self, delta: Delta, customer: CustomerKey) -> str | None:
        """Return the record id that ``delta`` adjusts, or ``None`` when its customer has no such delta."""
        if delta.adjusts_record is not None:
            owned = self.owners.get(delta.adjusts_record) == customer.customer_id
            return delta.adjusts_record if owned else None
        reference = self._reference_key(customer, delta.adjusts_reference)
        known = self.by_reference.get(reference) if reference is not None else None
        return known[1].record_id if known else None

    def _write(self, trees: Iterable[_Tree]) -> None:
        if not self.leaves:
            return
        changed = [tree for tree in trees if tree.changed]
        self._begin_trees([tree for tree in changed if tree.new_for is not None])
        insert_rows(self.connection, leaf, self.leaves)
        insert_rows(self.connection, delta_detail, self.details)
        execute_each(
            self.connection,
            _UPDATE_TREE,
            [
                {
                    "t": self.scope.plane,
                    "tree": tree.tree_id,
                    "new_size": tree.size,
                    "new_total": tree.total.text,
                    "rx": tree.last_rx,
                    "hash": tree.last_leaf,
                }
                for tree in changed
            ],
        )
        self._count_days(changed)
        if keys := {tree.tree_id: tree.breakdowns for tree in changed if tree.breakdowns}:
            count_values(self.connection, self.scope, keys, self.leaves, self.details)

    def _begin_trees(self, trees: list[_Tree]) -> None:
        if trees:
            rows = [
                {
                    "tenant_id": self.scope.plane,
                    "tree_id": tree.tree_id,
                    "customer_id": tree.new_for,
                    "period": tree.period,
                    "unit": tree.unit,
                    "base": tree.base,
                    "frontier": b"",
                    "breakdowns": tree.breakdowns,
                    "created_at": self.now,
                }
                for tree in trees
            ]
            self.connection.execute(_INSERT_TREE, rows)

    def _count_days(self, trees: list[_Tree]) -> None:
        days = {day for tree in trees for day in tree.days}
        rows = fetch_all(
            self.connection,
            _DAYS,
            {"t": self.scope.plane, "trees": [tree.tree_id for tree in trees], "days": sorted(days)},
        )
        counted = {(row.tree_id, row.day): row for row in rows}
        inserts, updates = [], []
        for tree in trees:
            for day, amounts in tree.days.items():
                before = counted.get((tree.tree_id, day))
                total = Total(before.total if before else "0")
                for amount in amounts:
                    total.add(amount)
                count = (before.size if before else 0) + len(amounts)
                if before is None:
                    inserts.append(
                        {
                            "tenant_id": self.scope.plane,
                            "tree_id": tree.tree_id,
                            "day": day,
                            "size": count,
                            "total": total.text,
                        }
                    )
                else:
                    updates.append(
                        {
                            "t": self.scope.plane,
                            "tree": tree.tree_id,
                            "on_day": day,
                            "new_count": count,
                            "new_total": total.text,
                        }
                    )
        if inserts:
            execute_each(self.connection, _INSERT_DAY, inserts)
        if updates:
            execute_each(self.connection, _UPDATE_DAY, updates)

    def _customer_key(self, row: CustomerKey) -> bytes:
        if row.sealed_key is None:
            raise ConflictError(f"customer {row.external_id!r} was erased.", code="CUSTOMER_ERASED")
        return self.keys.open(row.sealed_key, tenant=self.scope.plane, place=customer_key_place(row.customer_id))

    def _reference_key(self, customer: CustomerKey, reference: str | None) -> bytes | None:
        if reference is None:
            return None
        return reference_key(self.tenant_key, customer.customer_id, reference)

    def _payload_key(self, delta: Delta) -> bytes:
        parts = (
            delta.amount,
            delta.reason,
            delta.metadata,
            delta.occurred_at,
            delta.adjusts_record,
            delta.adjusts_reference,
        )
        message = b"payload" + b"".join(b"\0-" if part is None else b"\0+" + part.encode() for part in parts)
        return hmac.digest(self.tenant_key, message, hashlib.sha256)
