"""The audit of what stands between the log and the period trees: slot trees, customers' heads, statements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from shared_record.db.schema import customer, epoch, period_tree, slot_tile, statement
from shared_record.ledger import merkle
from shared_record.ledger.audit_reading import NEWEST, Reader, Tally, Wrong, stored_hashes
from shared_record.ledger.entry import (
    METER,
    OpenPeriod,
    PreviousPeriod,
    head_fragment,
    head_text,
    parse_head,
    slot_of,
)
from shared_record.ledger.origin import number_of
from shared_record.ledger.slots import TILE, blinding, read_tile

_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_N: BindParameter[int] = bindparam("n")
_SINCE: BindParameter[int] = bindparam("since")
_LEVEL: BindParameter[int] = bindparam("lvl")
_EPOCH = select(epoch).where(epoch.c.tenant_id == _T, epoch.c.n == _N)
_SLOT_LEVELS = (
    select(slot_tile.c.level)
    .distinct()
    .where(slot_tile.c.tenant_id == _T, slot_tile.c.epoch >= _SINCE, slot_tile.c.epoch <= _N)
    .order_by(slot_tile.c.level)
)
_VERSION = (
    select(slot_tile.c.tenant_id, slot_tile.c.idx, func.max(slot_tile.c.epoch).label("epoch"))
    .where(
        slot_tile.c.tenant_id == _T,
        slot_tile.c.level == _LEVEL,
        slot_tile.c.idx > bindparam("after"),
        slot_tile.c.epoch >= _SINCE,
        slot_tile.c.epoch <= _N,
    )
    .group_by(slot_tile.c.tenant_id, slot_tile.c.idx)
    .order_by(slot_tile.c.idx)
    .limit(bindparam("most"))
    .subquery()
)
_SLOT_TILES = (
    select(slot_tile.c.idx, slot_tile.c.hashes)
    .select_from(
        slot_tile.join(
            _VERSION,
            (slot_tile.c.tenant_id == _VERSION.c.tenant_id)
            & (slot_tile.c.idx == _VERSION.c.idx)
            & (slot_tile.c.epoch == _VERSION.c.epoch),
        )
    )
    .where(slot_tile.c.tenant_id == _T, slot_tile.c.level == _LEVEL)
    .order_by(slot_tile.c.idx)
)
_CUSTOMERS = (
    select(
        customer.c.customer_id,
        customer.c.slot,
        customer.c.ref,
        customer.c.head,
        customer.c.next_head,
        customer.c.head_epoch,
        customer.c.sealed_key.is_(None).label("erased"),
    )
    .where(customer.c.tenant_id == _T, customer.c.slot > bindparam("after"))
    .order_by(customer.c.slot)
    .limit(bindparam("most"))
)
_PUBLISHED_TREES = (
    select(period_tree)
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.customer_id.in_(bindparam("customers", expanding=True)),
        period_tree.c.psize > 0,
        (period_tree.c.status != "closed") | (period_tree.c.pepoch == bindparam("n")),
    )
    .order_by(period_tree.c.period)
)
_STATEMENT = (
    select(
        statement,
        period_tree.c.period,
        period_tree.c.unit,
        period_tree.c.psize,
        period_tree.c.proot,
        period_tree.c.ptotal,
        period_tree.c.pepoch,
        period_tree.c.status,
        customer.c.ref,
        customer.c.slot.label("customer_slot"),
        epoch.c.slot_root,
        epoch.c.slots.label("epoch_slots"),
    )
    .select_from(
        statement.join(
            period_tree,
            (period_tree.c.tenant_id == statement.c.tenant_id) & (period_tree.c.tree_id == statement.c.tree_id),
        )
        .join(
            customer,
            (customer.c.tenant_id == period_tree.c.tenant_id) & (customer.c.customer_id == period_tree.c.customer_id),
        )
        .join(epoch, (epoch.c.tenant_id == statement.c.tenant_id) & (epoch.c.n == statement.c.epoch))
    )
    .where(statement.c.tenant_id == _T, statement.c.tree_id == _TREE)
)


def check_slot_tree(reader: Reader, connection: Connection, n: int) -> None:
    """Work out the slot tree of one epoch from its lowest tiles."""
    where = f"slot tree of epoch {number_of(n)}"
    made = reader.one_or_none(connection, _EPOCH, n=n)
    if made is None:
        raise Wrong(f"{where}: there is no such epoch")
    since = n if made.reblinded is None else 0  # an epoch that hashed everything anew stored everything
    levels = connection.execute(_SLOT_LEVELS, {"t": reader.scope.plane, "n": n, "since": since}).scalars().all()
    below: list[bytes] | None = None
    level = 0
    while True:
        roots: list[bytes] = []
        width = 0
        for row in reader.pages(
            connection, _SLOT_TILES, "idx", -1, f"{where}: tile {level}/{{n}}", n=n, lvl=level, since=since
        ):
            tile = f"{where}: tile {level}/{row.idx}"
            if row.idx != len(roots):
                raise Wrong(f"{where}: tile {level}/{len(roots)} is missing")
            hashes = stored_hashes(row.hashes, tile)
            expected = made.slots - width if below is None else len(below) - width
            if len(hashes) != min(TILE, expected):
                raise Wrong(f"{tile} holds {len(hashes)} hashes, expected {min(TILE, expected)}")
            if below is not None and hashes != below[width : width + len(hashes)]:
                raise Wrong(f"{tile} differs from the tiles below it")
            width += len(hashes)
            roots.append(merkle.root(hashes))
        if width != (made.slots if below is None else len(below)):
            raise Wrong(f"{where}: tile {level}/{len(roots)} is missing")
        below = roots
        level += 8
        if len(roots) == 1:
            break
    if list(levels) != list(range(0, level, 8)):
        raise Wrong(f"{where}: there are tiles above its root")
    if below != [made.slot_root]:
        raise Wrong(f"{where}: a tile differs from the root that epoch {number_of(n)} states")


def check_heads(reader: Reader, connection: Connection, secret: bytes, tally: Tally) -> None:
    """Work out every customer's head and compare it with its slot of the newest published epoch."""
    published = reader.scalar(connection, NEWEST)
    if published is None:
        return
    newest = reader.one_or_none(connection, _EPOCH, n=published - 1)
    if newest is None:
        raise Wrong(f"heads: there is no epoch {number_of(published - 1)}, which is published")
    check = _HeadCheck(newest, secret)
    tile: tuple[int, bytes] = (-1, b"")
    everybody = reader.pages(connection, _CUSTOMERS, "slot", -1, "head in slot {n}")
    while people := list(islice(everybody, TILE)):
        trees: dict[UUID, list[Row[Any]]] = {}
        parameters = {"t": reader.scope.plane, "n": newest.n, "customers": [row.customer_id for row in people]}
        for tree in connection.execute(_PUBLISHED_TREES, parameters):
            trees.setdefault(tree.customer_id, []).append(tree)
        for person in people:
            tally.customers += 1
            if person.erased:
                continue
            index, offset = divmod(person.slot, TILE)
            if index != tile[0]:
                tile = (index, read_tile(connection, reader.scope, newest.n, 0, index))
            stored = tile[1][offset * merkle.HASH_SIZE :][: merkle.HASH_SIZE]
            check.compare(person, trees.get(person.customer_id, []), stored)


class _HeadCheck:
    """Heads as one published epoch states them."""

    def __init__(self, made: Row[Any], secret: bytes) -> None:
        self._n, self._reblinded, self._secret = made.n, made.reblinded, secret

    def compare(self, person: Row[Any], trees: Sequence[Row[Any]], stored: bytes) -> None:
        """Raise ``Wrong`` unless the head of ``person`` follows from ``trees`` and ``stored`` is its hash."""
        n = self._n
        where = f"head of {person.ref}"
        try:
            slot = slot_of(person.ref)
        except ValueError as error:
            raise Wrong(f"{where}: {error}") from error
        if slot != person.slot:
            raise Wrong(f"{where}: its customer has slot {person.slot}")
        if person.head is None:
            if trees:
                raise Wrong(f"{where}: missing, though a checkpoint covers {trees[0].tree_id}")
            return  # made after the epoch, or nothing recorded yet
        hashed = n if self._reblinded is None else max(self._reblinded, person.head_epoch or 0)
        text = head_text(person.ref, number_of(hashed), person.head, blinding(self._secret, person.slot, hashed))
        digest = merkle.leaf_hash(text.encode())
        if digest != stored:
            raise Wrong(f"{where}: differs from slot {person.slot} of epoch {number_of(n)}")
        try:
            rows = parse_head(text).open
        except ValueError as error:
            raise Wrong(f"{where}: {error}") from error
        expected = tuple(_open_period(tree) for tree in trees)
        if rows != expected:
            raise Wrong(f"{where}: its periods differ from those that epoch {number_of(n)} covers")
        closed = [tree for tree in trees if tree.status == "closed"]
        following = None
        if closed:
            final = closed[-1]
            previous = PreviousPeriod(number_of(n), digest, final.period, final.proot, final.psize)
            following = head_fragment([row for row in rows if row.period > final.period], previous)
        if person.next_head != following:
            raise Wrong(f"{where}: its next head does not follow from it")


def check_statement(reader: Reader, connection: Connection, tree_id: str) -> None:
    """Compare the statement of a closed period with the period, and prove it in its epoch."""
    row = reader.one_or_none(connection, _STATEMENT, tree=tree_id)
    where = f"statement of {tree_id}"
    if row is None:
        raise Wrong(f"{where}: its period, customer or epoch is missing")
    number = number_of(row.epoch)
    try:
        head = parse_head(row.head)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from error
    if (head.cust, head.slot, row.slot, head.epoch) != (row.ref, row.customer_slot, row.customer_slot, number):
        raise Wrong(f"{where}: customer, slot or epoch of its head are another's")
    path = stored_hashes(row.path, f"{where}: its path")
    digest = merkle.leaf_hash(row.head.encode())
    if row.slots != row.epoch_slots or not merkle.verify_inclusion(digest, row.slot, row.slots, path, row.slot_root):
        raise Wrong(f"{where}: its head and path do not lead to the slot root of epoch {number}")
    if row.status != "closed" or row.pepoch != row.epoch or _open_period(row) not in head.open:
        raise Wrong(f"{where}: its size, root or total differ from the closed period")


def _open_period(tree: Row[Any]) -> OpenPeriod:
    totals = ((METER, tree.unit, tree.psize, tree.ptotal),)
    return OpenPeriod(tree.period, tree.tree_id, tree.proot, tree.psize, totals)
