"""Checkpoints: one epoch of a tenant's log, from the period trees to a signed note.

The numbered steps can be interrupted anywhere: before the body is stored nothing has happened, after it the same body
is finished by whoever comes next. Two bodies of one size cannot exist: the database and the lock store both refuse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Table, bindparam, select

from shared_record.clock import Clock, period_bounds, period_of, to_milliseconds
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.schema import (
    checkpoint,
    customer,
    epoch,
    epoch_member,
    leaf,
    log,
    log_node,
    period_tree,
    slot_tile,
    statement,
    tenant,
)
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.keys import KeyRing
from shared_record.ledger import logs, merkle
from shared_record.ledger.entry import (
    METER,
    Head,
    OpenPeriod,
    PreviousPeriod,
    epoch_text,
    head_fragment,
    head_text,
    padding_leaf,
    parse_head,
)
from shared_record.ledger.integrate import integrate
from shared_record.ledger.locks import LockStore
from shared_record.ledger.note import checkpoint_body, sign_note
from shared_record.ledger.receipts import issue_receipt
from shared_record.tenancy.tenants import tenant_key

HEARTBEAT = timedelta(days=1)
KEPT_SLOT_TREES = 3

_T: BindParameter[UUID] = bindparam("t")
_LOG = select(log).where(log.c.tenant_id == _T)
_UNPUBLISHED = (
    select(checkpoint)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state != "published")
    .order_by(checkpoint.c.size)
)
_BODY = select(checkpoint.c.body).where(checkpoint.c.tenant_id == _T, checkpoint.c.size == bindparam("size"))
_EPOCH = select(epoch.c.hash, epoch.c.ts).where(epoch.c.tenant_id == _T, epoch.c.n == bindparam("n"))
_CHANGED = (
    select(
        period_tree.c.tree_id,
        period_tree.c.customer_id,
        period_tree.c.period,
        period_tree.c.unit,
        period_tree.c.size,
        period_tree.c.vsize,
        period_tree.c.status,
        period_tree.c.frontier,
        leaf.c.total,
    )
    .select_from(
        period_tree.outerjoin(
            leaf,
            (leaf.c.tenant_id == period_tree.c.tenant_id)
            & (leaf.c.tree_id == period_tree.c.tree_id)
            & (leaf.c.seq == period_tree.c.vsize),
        )
    )
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.status != "erased",
        (period_tree.c.vsize > period_tree.c.psize) | (period_tree.c.status == "closing"),
    )
)
_OTHER_OPEN = select(period_tree).where(
    period_tree.c.tenant_id == _T,
    period_tree.c.customer_id.in_(bindparam("customers", expanding=True)),
    period_tree.c.status != "closed",
    period_tree.c.psize > 0,
)
_HEADS = select(customer.c.customer_id, customer.c.slot, customer.c.ref, customer.c.head, customer.c.next_head).where(
    customer.c.tenant_id == _T, customer.c.sealed_key.is_not(None)
)
_SLOTS = select(tenant.c.next_slot).where(tenant.c.tenant_id == _T)
_MEMBERS = (
    select(
        epoch_member.c.tree_id,
        epoch_member.c.size,
        epoch_member.c.root,
        epoch_member.c.total,
        epoch_member.c.final,
        period_tree.c.customer_id,
        period_tree.c.period,
        period_tree.c.unit,
    )
    .select_from(
        epoch_member.join(
            period_tree,
            (period_tree.c.tenant_id == epoch_member.c.tenant_id) & (period_tree.c.tree_id == epoch_member.c.tree_id),
        )
    )
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.epoch == bindparam("n"))
    .order_by(epoch_member.c.tree_id)  # the order in which intake locks their trees
)
_PUBLISH_TREE = (
    period_tree.update()
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree"))
    .values(
        psize=bindparam("member_size"),
        proot=bindparam("member_root"),
        ptotal=bindparam("member_total"),
        pepoch=bindparam("n"),
    )
)
_CLOSE_TREE = (
    period_tree.update()
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree"))
    .values(status="closed")
)
_SET_HEAD = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"), customer.c.sealed_key.is_not(None))
    .values(head=bindparam("fragment"))
)
_USE_NEXT_HEADS = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.next_head.is_not(None))
    .values(head=customer.c.next_head, next_head=None)
)
_SET_NEXT_HEAD = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
    .values(next_head=bindparam("fragment"))
)
_SET_STATE = (
    checkpoint.update()
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.size == bindparam("of_size"))
    .values(state=bindparam("new_state"), note=bindparam("new_note"))
)
_GROW_LOG = (
    log.update()
    .where(log.c.tenant_id == _T, log.c.size == bindparam("old_size"))
    .values(size=bindparam("new_size"), frontier=bindparam("new_frontier"))
)
_HALT = log.update().where(log.c.tenant_id == _T).values(halted=bindparam("reason"))
_DROP_OLD_TILES = slot_tile.delete().where(slot_tile.c.tenant_id == _T, slot_tile.c.epoch <= bindparam("last"))
_TILE = select(slot_tile.c.hashes).where(
    slot_tile.c.tenant_id == _T,
    slot_tile.c.epoch == bindparam("n"),
    slot_tile.c.level == bindparam("lvl"),
    slot_tile.c.idx == bindparam("i"),
)


_PAST_OPEN = (
    select(period_tree.c.tree_id)
    .where(period_tree.c.tenant_id == _T, period_tree.c.status == "open", period_tree.c.period < bindparam("current"))
    .limit(1)
)
_BEHIND = (
    select(period_tree.c.tree_id)
    .where(period_tree.c.tenant_id == _T, period_tree.c.status != "erased", period_tree.c.size > period_tree.c.vsize)
    .limit(1)
)


class LogHaltedError(UnavailableError):
    """The log may not be signed any further until an operator has looked: lock store and database disagree."""

    code = "LOG_HALTED"


@dataclass(frozen=True, slots=True)
class _Member:
    """What the epoch in hand says of one period tree."""

    tree_id: str
    customer_id: UUID
    period: str
    unit: str
    size: int
    root: bytes
    total: str
    final: bool


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a log needs now: ``close`` past periods, ``integrate`` new deltas, ``publish`` an epoch.

    ``overdue``: its job waits to be given a new date, whether or not there is work.
    """

    close: bool
    integrate: bool
    publish: bool
    overdue: bool

    @property
    def anything(self) -> bool:
        """Whether there is any work."""
        return self.close or self.integrate or self.publish


def agenda(db: Database, clock: Clock, scope: Scope, interval: timedelta) -> Agenda:
    """Look at what a log needs, writing nothing. A log that is halted gets no more epochs, everything else goes on.

    An epoch is due ``interval`` after the one before when there is something new, at once when one is half done, and
    once a day in any case.
    """
    of_tenant = {"t": scope.plane}
    now = clock.now()
    with db.read(scope) as connection:
        state = connection.execute(_LOG, of_tenant).one()
        newest = connection.execute(_EPOCH, of_tenant | {"n": state.size - 1}).one_or_none()
        close = connection.execute(_PAST_OPEN, of_tenant | {"current": period_of(now)}).first() is not None
        behind = connection.execute(_BEHIND, of_tenant).first() is not None
        pending = connection.execute(_UNPUBLISHED.limit(1), of_tenant).first() is not None
        overdue = leases.due_at(connection, scope, logs.SEQUENCER) <= now
        changed = behind or close or connection.execute(_CHANGED.limit(1), of_tenant).first() is not None
    rested = newest is None or now - newest.ts >= interval
    beat = newest is not None and now - newest.ts >= HEARTBEAT
    publish = state.halted is None and (pending or beat or (changed and rested))
    return Agenda(close, behind, publish, overdue)


def make_checkpoint(db: Database, keys: KeyRing, clock: Clock, locks: LockStore, lease: Lease) -> int:
    """Finish what is half done, integrate, then make and publish one epoch; return the log's new size.

    Raises ``LogHaltedError`` when the lock store holds a body that the database does not extend, and
    ``UnavailableError`` or ``OSError`` when the store cannot be reached: then nothing is signed and states stay as
    they are.
    """
    resume(db, keys, clock, locks, lease)
    integrate(db, lease)
    size = _prepare(db, keys, clock, lease)
    resume(db, keys, clock, locks, lease)
    return size


def resume(db: Database, keys: KeyRing, clock: Clock, locks: LockStore, lease: Lease) -> None:
    """Bring every checkpoint whose body is stored to its end, from that body; it is never made anew."""
    scope = lease.scope
    with db.read(scope) as connection:
        state = connection.execute(_LOG, {"t": scope.plane}).one()
        pending = connection.execute(_UNPUBLISHED, {"t": scope.plane}).all()
    if state.halted:
        raise LogHaltedError(state.halted)
    for row in pending:
        _lock(db, locks, lease, state.origin, row.size, row.body)
        _publish(db, keys, clock, lease, state.origin, row.size, row.body)


# --- Prepare: read, hash, store the body -----------------------------------------------------------------------------


def _prepare(db: Database, keys: KeyRing, clock: Clock, lease: Lease) -> int:
    scope = lease.scope
    with db.read(scope, snapshot=True) as connection:
        state = connection.execute(_LOG, {"t": scope.plane}).one()
        n = state.size
        before = connection.execute(_EPOCH, {"t": scope.plane, "n": n - 1}).one_or_none()
        members = _changed_members(connection, scope)
        fragments = _fragments(connection, scope, members)
        blind = tenant_key(connection, keys, scope)
        slots = connection.execute(_SLOTS, {"t": scope.plane}).scalar_one()
        heads = connection.execute(_HEADS, {"t": scope.plane}).all()
    width = 1 << max(slots - 1, 0).bit_length()
    leaves: list[bytes | None] = [None] * width
    for row in heads:
        if row.slot < width:
            fragment = fragments.get(row.customer_id) or row.next_head or row.head or EMPTY_FRAGMENT
            text = head_text(row.ref, n, fragment, blinding(blind, row.slot, n))
            leaves[row.slot] = merkle.leaf_hash(text.encode())
    hashes = [found or merkle.leaf_hash(padding_leaf()) for found in leaves]
    tiles, slot_root = _slot_tiles(hashes)
    now = to_milliseconds(clock.now())
    ts = max(now, before.ts) if before else now
    with db.write(scope) as connection:
        leases.check_fence(connection, lease)
        entry = epoch_text(
            epoch=n,
            prev=before.hash if before else b"",
            root=slot_root,
            slots=width,
            ts=ts,
            keys=logs.announce_keys(connection, scope, n + 1),
        )
        digest = merkle.leaf_hash(entry.encode())
        frontier = merkle.split_hashes(state.frontier)
        log_nodes: list[tuple[int, int, bytes]] = []
        merkle.push(frontier, n, [digest], lambda *found: log_nodes.append(found))
        body = checkpoint_body(state.origin, n + 1, merkle.frontier_root(frontier))
        grown = connection.execute(
            _GROW_LOG,
            {"t": scope.plane, "old_size": n, "new_size": n + 1, "new_frontier": b"".join(frontier)},
        )
        if grown.rowcount != 1:
            raise LogHaltedError("the log grew under this lease; two sequencers are at work.")
        of_tenant = {"tenant_id": scope.plane}
        connection.execute(
            epoch.insert(),
            of_tenant
            | {
                "n": n,
                "entry": entry,
                "hash": digest,
                "slot_root": slot_root,
                "slots": width,
                "ts": ts,
            },
        )
        _insert(
            connection,
            epoch_member,
            (
                of_tenant
                | {
                    "epoch": n,
                    "tree_id": member.tree_id,
                    "size": member.size,
                    "root": member.root,
                    "total": member.total,
                    "final": member.final,
                }
                for member in members
            ),
        )
        _insert(
            connection,
            slot_tile,
            (
                of_tenant | {"epoch": n, "level": level, "idx": index, "hashes": joined}
                for level, index, joined in tiles
            ),
        )
        _insert(
            connection,
            log_node,
            (of_tenant | {"level": level, "idx": index, "hash": found} for level, index, found in log_nodes),
        )
        connection.execute(
            checkpoint.insert(),
            of_tenant | {"size": n + 1, "body": body, "state": "prepared", "fence": lease.fence, "created_at": now},
        )
    size: int = n + 1
    return size


EMPTY_FRAGMENT = head_fragment((), None)


def blinding(tenant_secret: bytes, slot: int, n: int) -> str:
    """Return ``z`` of the head in ``slot`` at epoch ``n``: 128 bits in hex that hide whether it changed."""
    return hashlib.sha256(b"%b%d/%d" % (tenant_secret, slot, n)).hexdigest()[:32]


def _changed_members(connection: Connection, scope: Scope) -> list[_Member]:
    members = []
    for row in connection.execute(_CHANGED, {"t": scope.plane}):
        final = row.status == "closing" and row.size == row.vsize
        if row.status == "closing" and not final:
            continue  # deltas recorded just before closing are not integrated yet; the next epoch has them
        root = merkle.frontier_root(merkle.split_hashes(row.frontier))
        members.append(
            _Member(row.tree_id, row.customer_id, row.period, row.unit, row.vsize, root, row.total or "0", final)
        )
    return members


def _fragments(connection: Connection, scope: Scope, members: list[_Member]) -> dict[UUID, str]:
    """Return the new head fragment of each customer that a member belongs to."""
    by_customer: dict[UUID, dict[str, OpenPeriod]] = {}
    for member in members:
        by_customer.setdefault(member.customer_id, {})[member.tree_id] = _open_period(member)
    if not by_customer:
        return {}
    customers = sorted(by_customer)
    previous: dict[UUID, PreviousPeriod | None] = {}
    for start in range(0, len(customers), 500):
        some = customers[start : start + 500]
        for row in connection.execute(_OTHER_OPEN, {"t": scope.plane, "customers": some}):
            by_customer[row.customer_id].setdefault(
                row.tree_id,
                OpenPeriod(row.period, row.tree_id, row.proot, row.psize, ((METER, row.unit, row.psize, row.ptotal),)),
            )
        query = _HEADS.where(customer.c.customer_id.in_(some))
        for row in connection.execute(query, {"t": scope.plane}):
            before = row.next_head or row.head
            previous[row.customer_id] = _parse_fragment(row.ref, before).prev if before else None
    return {
        customer_id: head_fragment(sorted(rows.values(), key=lambda row: row.period), previous.get(customer_id))
        for customer_id, rows in by_customer.items()
    }


def _open_period(member: _Member) -> OpenPeriod:
    totals = ((METER, member.unit, member.size, member.total),)
    return OpenPeriod(member.period, member.tree_id, member.root, member.size, totals)


def _parse_fragment(ref: str, fragment: str) -> Head:
    return parse_head(head_text(ref, 0, fragment, "0" * 32))


def _slot_tiles(hashes: list[bytes]) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """Return the tiles (level, index, hashes) of a slot tree, and its root."""
    tiles = []
    level, row = 0, hashes
    while True:
        tiles += [(level, i // 256, b"".join(row[i : i + 256])) for i in range(0, len(row), 256)]
        if len(row) <= 256:
            return tiles, merkle.root(row)
        row = [merkle.root(row[i : i + 256]) for i in range(0, len(row), 256)]
        level += 8


# --- Lock, sign, publish ---------------------------------------------------------------------------------------------


def _lock(db: Database, locks: LockStore, lease: Lease, origin: str, size: int, body: str) -> None:
    scope = lease.scope
    with db.read(scope) as connection:
        old = connection.execute(_BODY, {"t": scope.plane, "size": size - 1}).scalar_one_or_none()
    stored = locks.swap(origin, old, body)
    if stored != body:
        newest = "no checkpoint" if stored is None else f"a checkpoint of size {stored.splitlines()[1]}"
        reason = (
            f"The lock store holds {newest} for {origin}, but the database is about to sign size {size} on top of"
            f" {'none' if old is None else f'size {size - 1}'}. The database may have been restored from an older"
            " backup. Nothing was signed. Restore the newer state, or start a new origin."
        )
        with db.write(scope) as connection:
            leases.check_fence(connection, lease)
            connection.execute(_HALT, {"t": scope.plane, "reason": reason})
        raise LogHaltedError(reason)


def _publish(db: Database, keys: KeyRing, clock: Clock, lease: Lease, origin: str, size: int, body: str) -> None:
    scope, n = lease.scope, size - 1
    of_tenant = {"t": scope.plane}
    with db.write(scope) as connection:
        leases.check_fence(connection, lease)
        signers = logs.signers(connection, keys, scope, size)
        notes = [sign_note(body, origin, signer) for signer in signers]
        note = notes[0] + "".join(other.removeprefix(body + "\n") for other in notes[1:])
        members = [
            _Member(row.tree_id, row.customer_id, row.period, row.unit, row.size, row.root, row.total, row.final)
            for row in connection.execute(_MEMBERS, of_tenant | {"n": n})
        ]
        fragments = _fragments(connection, scope, members)
        connection.execute(_USE_NEXT_HEADS, of_tenant)
        if members:
            connection.execute(
                _PUBLISH_TREE,
                [
                    of_tenant
                    | {
                        "tree": member.tree_id,
                        "member_size": member.size,
                        "member_root": member.root,
                        "member_total": member.total,
                        "n": n,
                    }
                    for member in members
                ],
            )
            connection.execute(
                _SET_HEAD, [of_tenant | {"who": who, "fragment": text} for who, text in fragments.items()]
            )
        _close_final(connection, keys, clock, scope, n, [member for member in members if member.final], fragments)
        connection.execute(_DROP_OLD_TILES, of_tenant | {"last": n - KEPT_SLOT_TREES})
        connection.execute(_SET_STATE, of_tenant | {"of_size": size, "new_state": "published", "new_note": note})


def _close_final(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    n: int,
    finals: list[_Member],
    fragments: dict[UUID, str],
) -> None:
    """Keep the statement of each period that this epoch closes, and chain the customer's next head to it."""
    if not finals:
        return
    blind = tenant_key(connection, keys, scope)
    width = connection.execute(
        select(epoch.c.slots).where(epoch.c.tenant_id == _T, epoch.c.n == bindparam("n")),
        {"t": scope.plane, "n": n},
    ).scalar_one()
    people = {
        row.customer_id: row
        for start in range(0, len(finals), 500)
        for row in connection.execute(
            _HEADS.where(customer.c.customer_id.in_([m.customer_id for m in finals[start : start + 500]])),
            {"t": scope.plane},
        )
    }
    read_tile = tile_reader(connection, scope, n)
    for member in sorted(finals, key=lambda member: member.period):
        person = people.get(member.customer_id)
        if person is None:
            continue  # erased since the epoch was made
        head = head_text(person.ref, n, fragments[member.customer_id], blinding(blind, person.slot, n))
        path = [merkle.range_root(start, end, read_tile) for start, end in merkle.inclusion_ranges(person.slot, width)]
        connection.execute(
            statement.insert(),
            {
                "tenant_id": scope.plane,
                "tree_id": member.tree_id,
                "epoch": n,
                "head": head,
                "slot": person.slot,
                "slots": width,
                "path": b"".join(path),
            },
        )
        connection.execute(_CLOSE_TREE, {"t": scope.plane, "tree": member.tree_id})
        issue_receipt(connection, clock, scope, member.customer_id, *period_bounds(member.period))
        parsed = parse_head(head)
        previous = PreviousPeriod(n, merkle.leaf_hash(head.encode()), member.period, member.root, member.size)
        still_open = [row for row in parsed.open if row.period > member.period]
        connection.execute(
            _SET_NEXT_HEAD,
            {
                "t": scope.plane,
                "who": member.customer_id,
                "fragment": head_fragment(still_open, previous),
            },
        )


def tile_reader(connection: Connection, scope: Scope, n: int) -> merkle.ReadHashes:
    """Return a reader over the kept slot tree of epoch ``n``."""

    def read(level: int, first: int, last: int) -> bytes:
        joined = b""
        for index in range(first // 256, (last - 1) // 256 + 1):
            found = connection.execute(_TILE, {"t": scope.plane, "n": n, "lvl": level, "i": index}).scalar_one()
            joined += found
        offset = (first - first // 256 * 256) * merkle.HASH_SIZE
        return joined[offset : offset + (last - first) * merkle.HASH_SIZE]

    return read


def _insert(connection: Connection, table: Table, rows: Iterable[dict[str, object]]) -> None:
    some = list(rows)
    if some:
        connection.execute(table.insert(), some)
