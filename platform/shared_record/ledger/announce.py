"""What the ledger tells webhooks: deltas and receipts that a checkpoint now covers.

Deltas are told as ranges, in the transaction that publishes; ``expand`` makes one event of each when it is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import orjson
from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.clock import Clock, rfc3339
from shared_record.db.schema import customer, delta_detail, epoch, epoch_member, leaf, period_tree, receipt
from shared_record.db.scope import Scope
from shared_record.delivery import events, outbox
from shared_record.delivery.events import CHECKPOINT_VERIFIED, RECEIPT_GENERATED, VerifiedDelta
from shared_record.ledger.entry import receipt_id

if TYPE_CHECKING:
    from shared_record.ledger.receipts import Receipt

_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_GROWN = (
    select(
        period_tree.c.tree_id, period_tree.c.customer_id, period_tree.c.psize, epoch_member.c.size.label("covered_size")
    )
    .select_from(
        epoch_member.join(
            period_tree,
            (period_tree.c.tenant_id == epoch_member.c.tenant_id) & (period_tree.c.tree_id == epoch_member.c.tree_id),
        )
    )
    .where(
        epoch_member.c.tenant_id == _T,
        epoch_member.c.epoch == bindparam("n"),
        epoch_member.c.size > period_tree.c.psize,
    )
)
_DELTAS = (
    select(leaf.c.seq, leaf.c.record_id, leaf.c.hash, leaf.c.qty, leaf.c.rx)
    .where(
        leaf.c.tenant_id == _T,
        leaf.c.tree_id == _TREE,
        leaf.c.seq >= bindparam("first"),
        leaf.c.seq <= bindparam("last"),
    )
    .order_by(leaf.c.seq)
)
_DETAILS = select(delta_detail.c.seq, delta_detail.c.reason, delta_detail.c.reference, delta_detail.c.metadata).where(
    delta_detail.c.tenant_id == _T,
    delta_detail.c.tree_id == _TREE,
    delta_detail.c.seq >= bindparam("first"),
    delta_detail.c.seq <= bindparam("last"),
)
_PERIOD = (
    select(period_tree.c.period, period_tree.c.base, customer.c.external_id)
    .select_from(
        period_tree.join(
            customer,
            (customer.c.tenant_id == period_tree.c.tenant_id) & (customer.c.customer_id == period_tree.c.customer_id),
        )
    )
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == _TREE, period_tree.c.status != "erased")
)
_COVERED_BY = (
    select(epoch.c.ts, epoch_member.c.size, epoch_member.c.total)
    .select_from(
        epoch_member.join(epoch, (epoch.c.tenant_id == epoch_member.c.tenant_id) & (epoch.c.n == epoch_member.c.epoch))
    )
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.tree_id == _TREE, epoch_member.c.size >= bindparam("last"))
    .order_by(epoch_member.c.epoch)
    .limit(1)
)
_NAME = select(customer.c.external_id).where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
_SPANS = select(receipt.c.spans).where(receipt.c.tenant_id == _T, receipt.c.receipt_id == bindparam("id"))
_COVERED = select(period_tree.c.psize).where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == _TREE)


def announce_deltas(connection: Connection, clock: Clock, scope: Scope, n: int) -> None:
    """Write ``delta.verified`` for what epoch ``n`` covers first: call it before the published sizes are set."""
    if not outbox.subscribed(connection, scope, events.DELTA_VERIFIED):
        return
    grown = connection.execute(_GROWN, {"t": scope.plane, "n": n})
    ranges = [outbox.DeltaRange(row.tree_id, row.customer_id, row.psize + 1, row.covered_size) for row in grown]
    outbox.emit_deltas(connection, clock, scope, ranges)


def announce_receipt(connection: Connection, clock: Clock, scope: Scope, found: Receipt, *, covered: bool) -> None:
    """Write ``checkpoint.verified`` and ``receipt.generated`` of a fresh receipt; held until it is ``covered``."""
    if not outbox.subscribed(connection, scope, CHECKPOINT_VERIFIED, RECEIPT_GENERATED):
        return
    name = connection.execute(_NAME, {"t": scope.plane, "who": found.customer_id}).scalar_one()
    root = receipt_id(found.proof_root)
    data = {
        "checkpointId": found.receipt_id,
        "receiptId": found.receipt_id,
        "customerId": name,
        "startDate": rfc3339(found.start),
        "endDate": rfc3339(found.end),
        "revision": found.revision,
        "proofRoot": root,
        "merkleRoot": root,
        "deltaCount": found.size,
        "deltasCount": found.size,
        **events.exact("netChange", found.net),
        **events.exact("startingBalance", found.opening),
        **events.exact("finalBalance", found.closing),
        "unit": found.unit,
        "issuedAt": rfc3339(found.issued_at),
    }
    if covered:
        data["verifiedAt"] = rfc3339(clock.now())
    for event in (CHECKPOINT_VERIFIED, RECEIPT_GENERATED):
        outbox.emit_many(connection, clock, scope, event, [(found.customer_id, data)], held=not covered)


def announce_covered(connection: Connection, clock: Clock, scope: Scope) -> None:
    """Let go the events of receipts that are covered by now: call it after the published sizes are set."""
    ready: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for held in outbox.held_events(connection, scope):
        data = orjson.loads(held.data)
        spans = connection.execute(_SPANS, {"t": scope.plane, "id": data["receiptId"]}).scalar_one()
        if all(span["to"] <= _covered(connection, scope, span["tree"], sizes) for span in spans):
            late = orjson.dumps({"verifiedAt": rfc3339(clock.now())}).decode()
            ready[held.event_id] = held.data[:-1] + "," + late[1:]
    outbox.release(connection, clock, scope, ready)


def _covered(connection: Connection, scope: Scope, tree_id: str, known: dict[str, int]) -> int:
    if tree_id not in known:
        known[tree_id] = connection.execute(_COVERED, {"t": scope.plane, "tree": tree_id}).scalar_one()
    return known[tree_id]


def expand(connection: Connection, scope: Scope, tree_id: str, first: int, last: int) -> dict[int, str]:
    """Return the data of ``delta.verified`` for deltas of one range, by position; none of a customer that was erased.

    Without their details, once those are erased.
    """
    of = {"t": scope.plane, "tree": tree_id}
    period = connection.execute(_PERIOD, of).one_or_none()
    if period is None:
        return {}
    by = connection.execute(_COVERED_BY, of | {"last": last}).one()
    within = of | {"first": first - 1, "last": last}
    rows = connection.execute(_DELTAS, within).all()
    details = {row.seq: row for row in connection.execute(_DETAILS, within)}
    found, before = {}, None
    for row in rows:
        if row.seq >= first:
            detail = details.get(row.seq)
            delta = VerifiedDelta(
                record_id=row.record_id,
                receipt_id=receipt_id(row.hash),
                previous_hash=before,
                customer_id=period.external_id,
                amount=row.qty,
                sequence=period.base + row.seq,
                recorded_at=row.rx,
                verified_at=by.ts,
                period=period.period,
                period_count=by.size,
                period_total=by.total,
                reason=detail.reason if detail else None,
                reference_id=detail.reference if detail else None,
                metadata=detail.metadata if detail else None,
            )
            found[row.seq] = events.delta_verified(delta)
        before = receipt_id(row.hash)
    return found
