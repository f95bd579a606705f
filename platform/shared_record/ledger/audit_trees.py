"""The audit of one period tree: its deltas, its counters, its nodes, and what epochs say of it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from shared_record.clock import rfc3339
from shared_record.db.schema import (
    customer,
    day_counter,
    delta_detail,
    epoch_member,
    leaf,
    node,
    period_tree,
    statement,
)
from shared_record.ledger import merkle
from shared_record.ledger.amounts import Total
from shared_record.ledger.audit_reading import NEWEST, Reader, Tally, Wrong, missing_or
from shared_record.ledger.entry import METER, Entry, detail_hash, parse_entry
from shared_record.ledger.origin import number_of
from shared_record.tenancy.customers import reference_key

_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_NODE = select(node.c.hash).where(
    node.c.tenant_id == _T, node.c.tree_id == _TREE, node.c.level == bindparam("lvl"), node.c.idx == bindparam("i")
)
_COUNT_NODES = select(func.count()).select_from(node).where(node.c.tenant_id == _T, node.c.tree_id == _TREE)
_ONE_TREE = (
    select(period_tree, customer.c.sealed_key.is_(None).label("erased"))
    .select_from(
        period_tree.join(
            customer,
            (customer.c.tenant_id == period_tree.c.tenant_id) & (customer.c.customer_id == period_tree.c.customer_id),
        )
    )
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == _TREE)
)
_EARLIER = select(period_tree.c.size).where(
    period_tree.c.tenant_id == _T,
    period_tree.c.customer_id == bindparam("who"),
    period_tree.c.period < bindparam("period_name"),
)
_LEAVES = (
    select(
        leaf,
        delta_detail.c.reason,
        delta_detail.c.reference,
        delta_detail.c.metadata,
        delta_detail.c.salt,
    )
    .select_from(
        leaf.outerjoin(
            delta_detail,
            (delta_detail.c.tenant_id == leaf.c.tenant_id)
            & (delta_detail.c.tree_id == leaf.c.tree_id)
            & (delta_detail.c.seq == leaf.c.seq),
        )
    )
    .where(leaf.c.tenant_id == _T, leaf.c.tree_id == _TREE, leaf.c.seq > bindparam("after"))
    .order_by(leaf.c.seq)
    .limit(bindparam("most"))
)
_MEMBERS = (
    select(epoch_member)
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.tree_id == _TREE, epoch_member.c.epoch > bindparam("after"))
    .order_by(epoch_member.c.epoch)
    .limit(bindparam("most"))
)
_DAYS = select(day_counter.c.day, day_counter.c.size, day_counter.c.total).where(
    day_counter.c.tenant_id == _T, day_counter.c.tree_id == _TREE
)
_HAS_STATEMENT = select(statement.c.epoch).where(statement.c.tenant_id == _T, statement.c.tree_id == _TREE)


class TreeAudit:
    """One period tree: its deltas, its counters, its nodes, and what epochs say of it."""

    def __init__(self, run: Reader, connection: Connection, tree_id: str, secret: bytes, tally: Tally) -> None:
        self.run, self.connection, self.secret, self.tally = run, connection, secret, tally
        found = run.one_or_none(connection, _ONE_TREE, tree=tree_id)
        if found is None:
            raise Wrong(f"{tree_id}: it or its customer is missing")
        tree = self.tree = found
        self.published: int = run.scalar(connection, NEWEST) or 0
        self.frontier: list[bytes] = []
        self.nodes = 0
        self.days: dict[date, tuple[int, Total]] = {}
        self.members = run.pages(connection, _MEMBERS, "epoch", -1, f"epoch {{n}}, {tree.tree_id}", tree=tree.tree_id)
        self.member = next(self.members, None)
        self.covered: Row[Any] | None = None

    def check(self) -> None:
        """Compare everything; the first difference raises ``Wrong``."""
        tree, run = self.tree, self.run
        if not tree.size >= tree.vsize >= tree.psize:
            raise Wrong(f"{tree.tree_id}: size {tree.size}, hashed {tree.vsize}, published {tree.psize} contradict")
        earlier = self.connection.execute(
            _EARLIER, {"t": run.scope.plane, "who": tree.customer_id, "period_name": tree.period}
        ).scalars()
        if sum(earlier) != tree.base:
            raise Wrong(f"{tree.tree_id}: its base {tree.base} differs from what the periods before it hold")
        seq, total, rx, digest = 0, Total(), None, None
        for row in run.pages(self.connection, _LEAVES, "seq", 0, f"leaf {{n}} of {tree.tree_id}", tree=tree.tree_id):
            seq += 1
            self._check_leaf(row, seq, total, rx)
            rx, digest = row.rx, row.hash
            self._add(row, seq, total)
            self.tally.deltas += 1
        if seq != tree.size:
            raise Wrong(f"leaf {seq + 1} of {tree.tree_id}: missing; {tree.size} are counted")
        if (total.text, rx, digest) != (tree.total, tree.last_rx, tree.last_leaf):
            raise Wrong(f"{tree.tree_id}: its total, last time or last hash differs from leaf {seq}")
        self._check_tree()
        self._check_published()
        self._check_days()

    def _check_leaf(self, row: Row[Any], seq: int, total: Total, before: datetime | None) -> None:
        where = f"leaf {seq} of {self.tree.tree_id}"
        if row.seq != seq:
            raise Wrong(f"{where}: missing")
        if row.customer_id != self.tree.customer_id:
            raise Wrong(f"{where}: belongs to another customer")
        if total.add(row.qty) != row.total:
            raise Wrong(f"{where}: running total is {row.total}, expected {total.text}")
        if before is not None and row.rx < before:
            raise Wrong(f"{where}: recorded before the leaf in front of it")
        if row.entry is None:
            if not self.tree.erased:
                raise Wrong(f"{where}: its entry is gone, though its customer was not erased")
            return
        if merkle.leaf_hash(row.entry.encode()) != row.hash:
            raise Wrong(f"{where}: hash differs from its entry")
        try:
            entry = parse_entry(row.entry)
        except ValueError as error:
            raise Wrong(f"{where}: {error}") from error
        self._check_columns(row, entry, where)

    def _check_columns(self, row: Row[Any], entry: Entry, where: str) -> None:
        tree = self.tree
        stated = {
            "rec": tree.tree_id,
            "period": tree.period,
            "unit": tree.unit,
            "meter": METER,
            "seq": row.seq,
            "mseq": row.seq,
            "qty": row.qty,
            "total": row.total,
            "id": row.record_id,
            "rx": rfc3339(row.rx),
            "at": row.at,
            "adj": row.adjusts,
        }
        for name, value in stated.items():
            if getattr(entry, name) != value:
                raise Wrong(f"{where}: {name} differs from its entry")
        if row.salt is None:
            return  # its details were removed
        if detail_hash(row.salt, row.reason, row.reference, row.metadata) != entry.mh:
            raise Wrong(f"{where}: its details differ from their hash in the entry")
        key = None
        if row.reference is not None:
            key = reference_key(self.secret, tree.customer_id, row.reference)
        if row.reference_key != key:
            raise Wrong(f"{where}: the key of its reference differs")

    def _add(self, row: Row[Any], seq: int, total: Total) -> None:
        count, of_day = self.days.setdefault(row.rx.date(), (0, Total()))
        of_day.add(row.qty)
        self.days[row.rx.date()] = (count + 1, of_day)
        if seq > self.tree.vsize:
            return
        merkle.push(self.frontier, seq - 1, [row.hash], self._compare_node)
        while self.member is not None and self.member.size <= seq:
            self._check_member(self.member, seq, total)
            self.member = next(self.members, None)

    def _compare_node(self, level: int, index: int, digest: bytes) -> None:
        self.nodes += 1
        stored = self.run.scalar(self.connection, _NODE, tree=self.tree.tree_id, lvl=level, i=index)
        if stored != digest:
            problem = missing_or(stored, "differs from the leaves below it")
            raise Wrong(f"node {level}/{index} of {self.tree.tree_id}: {problem}")

    def _check_member(self, member: Row[Any], seq: int, total: Total) -> None:
        where = f"epoch {number_of(member.epoch)}, {self.tree.tree_id}"
        if member.size != seq or (self.covered is not None and self.covered.final):
            raise Wrong(f"{where}: its size goes back, or it goes on after it was closed")
        if member.root != merkle.frontier_root(self.frontier):
            raise Wrong(f"{where}: the root it states differs from the {seq} leaves")
        if member.total != total.text:
            raise Wrong(f"{where}: the total it states is {member.total}, expected {total.text}")
        if member.epoch < self.published:
            self.covered = member

    def _check_tree(self) -> None:
        tree = self.tree
        if b"".join(self.frontier) != tree.frontier:
            raise Wrong(f"{tree.tree_id}: its frontier differs from the {tree.vsize} leaves")
        if self.run.scalar(self.connection, _COUNT_NODES, tree=tree.tree_id) != self.nodes:
            raise Wrong(f"{tree.tree_id}: there are nodes of leaves that do not exist")
        if self.member is not None:
            raise Wrong(f"epoch {number_of(self.member.epoch)}, {tree.tree_id}: it states more leaves than were hashed")

    def _check_published(self) -> None:
        tree, newest = self.tree, self.covered
        expected: tuple[Any, ...] = (0, None, "0", None)
        if newest is not None:
            expected = (newest.size, newest.root, newest.total, newest.epoch)
        if (tree.psize, tree.proot, tree.ptotal, tree.pepoch) != expected:
            raise Wrong(f"{tree.tree_id}: its published size, root, total or epoch differs from its newest epoch")
        final = newest is not None and newest.final
        if tree.erased:
            return  # it stays as it stood, without its statement
        if tree.status not in (("closed",) if final else ("open", "closing")):
            raise Wrong(f"{tree.tree_id}: its status is {tree.status}, its newest epoch says otherwise")
        stated = self.run.scalar(self.connection, _HAS_STATEMENT, tree=tree.tree_id)
        if (stated is not None) != final:
            raise Wrong(f"{tree.tree_id}: {'closed without a statement' if final else 'a statement, but not closed'}")

    def _check_days(self) -> None:
        rows = self.connection.execute(_DAYS, {"t": self.run.scope.plane, "tree": self.tree.tree_id})
        counted = {row.day: (row.size, row.total) for row in rows}
        expected = {day: (count, total.text) for day, (count, total) in self.days.items()}
        for day in sorted(counted.keys() | expected.keys()):
            if counted.get(day) != expected.get(day):
                raise Wrong(f"{self.tree.tree_id}: the count or total of {day} differs from its leaves")
