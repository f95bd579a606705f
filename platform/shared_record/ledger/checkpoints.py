"""Checkpoints: one epoch of a tenant's log, from the period trees to a signed note.

The numbered steps can be interrupted anywhere: before the body is stored nothing has happened, after it the same body
is finished by whoever comes next. Two bodies of one size cannot exist: the database and the lock store both refuse.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, select

from shared_record.clock import Clock, period_bounds, to_milliseconds
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.plain import execute_rows
from shared_record.db.schema import (
    checkpoint,
    customer,
    epoch,
    epoch_member,
    former_log,
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
from shared_record.ledger.anchors import newest_anchors
from shared_record.ledger.announce import announce_covered, announce_deltas
from shared_record.ledger.entry import PreviousPeriod, epoch_text, head_fragment, parse_head
from shared_record.ledger.heads import (
    Heads,
    Member,
    changed_members,
    everyone,
    fragments_of,
    hash_all,
    hash_changed,
    mark_erased,
    members_of,
    people,
)
from shared_record.ledger.integrate import integrate
from shared_record.ledger.locks import LockStore
from shared_record.ledger.note import checkpoint_body, sign_note
from shared_record.ledger.origin import number_of, start_of
from shared_record.ledger.receipts import issue_receipt
from shared_record.ledger.slots import (
    REBLIND_UP_TO,
    SlotTree,
    changed_tree,
    drop_old_tiles,
    read_tile,
    tile_reader,
    whole_tree,
    width_of,
)
from shared_record.tenancy.tenants import tenant_key

Cosign = Callable[[Database, Scope, str], Sequence[str]]
"""Asks the tenant's witnesses to cosign a signed note that is about to be published; see ``ledger.witnesses``."""

_T: BindParameter[UUID] = bindparam("t")
_LOG = select(log).where(log.c.tenant_id == _T)
_FORMER = select(former_log.c.last).where(former_log.c.tenant_id == _T).order_by(former_log.c.start.desc()).limit(1)
_UNPUBLISHED = (
    select(checkpoint)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state != "published", checkpoint.c.state != "abandoned")
    .order_by(checkpoint.c.size)
)
_BODY = select(checkpoint.c.body).where(checkpoint.c.tenant_id == _T, checkpoint.c.size == bindparam("size"))
_EPOCH = select(epoch.c.hash, epoch.c.ts, epoch.c.slots, epoch.c.customers, epoch.c.reblinded).where(
    epoch.c.tenant_id == _T, epoch.c.n == bindparam("n")
)
_SLOTS = select(tenant.c.next_slot).where(tenant.c.tenant_id == _T)
_LOCK_TREES = (
    select(period_tree.c.tree_id)
    .select_from(
        epoch_member.join(
            period_tree,
            (period_tree.c.tenant_id == epoch_member.c.tenant_id) & (period_tree.c.tree_id == epoch_member.c.tree_id),
        )
    )
    .where(epoch_member.c.tenant_id == _T, epoch_member.c.epoch == bindparam("n"))
    .order_by(period_tree.c.tree_id)  # the order in which intake locks them
    .with_for_update(key_share=True, of=period_tree)
)
_PUBLISH_TREES = (
    period_tree.update()
    .where(
        period_tree.c.tenant_id == _T,
        epoch_member.c.tenant_id == period_tree.c.tenant_id,
        epoch_member.c.epoch == bindparam("n"),
        epoch_member.c.tree_id == period_tree.c.tree_id,
    )
    .values(
        psize=epoch_member.c.size,
        proot=epoch_member.c.root,
        ptotal=epoch_member.c.total,
        pepoch=epoch_member.c.epoch,
    )
)
_CLOSE_TREE = (
    period_tree.update()
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id == bindparam("tree"))
    .values(status="closed")
)
_SET_HEAD = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.slot == bindparam("of_slot"), customer.c.sealed_key.is_not(None))
    .values(head=bindparam("fragment"), head_epoch=bindparam("n"))
)
_USE_NEXT_HEADS = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.next_head.is_not(None))
    .values(head=customer.c.next_head, next_head=None, head_epoch=bindparam("n"))
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
_ADD_MEMBER, _ADD_TILE, _ADD_NODE = epoch_member.insert(), slot_tile.insert(), log_node.insert()
_HALT = log.update().where(log.c.tenant_id == _T).values(halted=bindparam("reason"))


class LogHaltedError(UnavailableError):
    """The log may not be signed any further until an operator has looked: lock store and database disagree."""

    code = "LOG_HALTED"


def make_checkpoint(
    db: Database,
    keys: KeyRing,
    clock: Clock,
    locks: LockStore,
    lease: Lease,
    witnesses: Cosign | None = None,
    *,
    reblind_up_to: int = REBLIND_UP_TO,
) -> int:
    """Finish what is half done, integrate, then make and publish one epoch; return the log's new size.

    Above ``reblind_up_to`` slots only the heads that changed are hashed anew (``ledger.slots``).
    Raises ``LogHaltedError`` when the lock store or a witness holds a checkpoint that the database does not extend,
    and ``UnavailableError`` or ``OSError`` when the store cannot be reached, or too few witnesses: then nothing is
    published and states stay as they are.
    """
    resume(db, keys, clock, locks, lease, witnesses)
    with _uncollected():
        integrate(db, lease)
        made = _prepare(db, keys, clock, lease, reblind_up_to=reblind_up_to)
        resume(db, keys, clock, locks, lease, witnesses, made)
    return number_of(made.n) + 1


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let the garbage collector rest: millions of hashes and rows make no cycles, and it would walk them all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Stated(NamedTuple):
    """What epoch ``n`` says: of the period trees that changed, and the head fragments that follow, by slot."""

    n: int
    members: list[Member]
    fragments: dict[int, str]


def resume(
    db: Database,
    keys: KeyRing,
    clock: Clock,
    locks: LockStore,
    lease: Lease,
    witnesses: Cosign | None = None,
    made: Stated | None = None,
) -> None:
    """Bring every checkpoint whose body is stored to its end, from that body; it is never made anew.

    ``made`` is what the caller has just stored with the newest; what another says is read again.
    """
    scope = lease.scope
    with db.read(scope) as connection:
        state = connection.execute(_LOG, {"t": scope.plane}).one()
        pending = connection.execute(_UNPUBLISHED, {"t": scope.plane}).all()
    if state.halted:
        raise LogHaltedError(state.halted)
    for row in pending:
        _lock(db, locks, lease, state.origin, row.size, row.body)
        cosignatures = _cosigned(db, keys, lease, state.origin, row, witnesses) if witnesses else ()
        known = made if made and made.n == row.size - 1 else None
        _publish(db, keys, clock, lease, state.origin, row.size, row.body, cosignatures, known)


# --- Prepare: read, hash, store the body -----------------------------------------------------------------------------


class _Drawn(NamedTuple):
    """What one snapshot says of the next epoch: its slot tree, and what went into it."""

    stated: Stated
    slots: int
    width: int
    tree: SlotTree
    reblinded: int | None
    erased: tuple[int, ...]


def _prepare(db: Database, keys: KeyRing, clock: Clock, lease: Lease, *, reblind_up_to: int = REBLIND_UP_TO) -> Stated:
    """Store the body of the next checkpoint with all that it stands on; return what it says."""
    scope = lease.scope
    with db.read(scope, snapshot=True) as connection:
        state = connection.execute(_LOG, {"t": scope.plane}).one()
        n, number = state.size, number_of(state.size)
        before = connection.execute(_EPOCH, {"t": scope.plane, "n": n - 1}).one_or_none() if number else None
        former = None if number else connection.execute(_FORMER, {"t": scope.plane}).scalar_one_or_none()
        drawn = _draw(connection, keys, scope, n, before, reblind_up_to)
    now = to_milliseconds(clock.now())
    ts = max(now, before.ts) if before else now
    with db.write(scope) as connection:
        leases.check_fence(connection, lease)
        entry = epoch_text(
            epoch=number,
            prev=before.hash if before else b"",
            root=drawn.tree.root,
            slots=drawn.width,
            ts=ts,
            keys=logs.announce_keys(connection, scope, n + 1),
            anchors=newest_anchors(connection, scope),
            former=former,
        )
        digest = merkle.leaf_hash(entry.encode())
        frontier = merkle.split_hashes(state.frontier)
        log_nodes: list[tuple[int, int, bytes]] = []
        merkle.push(frontier, number, [digest], lambda *found: log_nodes.append(found))
        body = checkpoint_body(state.origin, number + 1, merkle.frontier_root(frontier))
        grown = connection.execute(
            _GROW_LOG,
            {"t": scope.plane, "old_size": n, "new_size": n + 1, "new_frontier": b"".join(frontier)},
        )
        if grown.rowcount != 1:
            raise LogHaltedError("the log grew under this lease; two sequencers are at work.")
        of_tenant = {"tenant_id": scope.plane}
        made = {"n": n, "entry": entry, "hash": digest, "slot_root": drawn.tree.root, "slots": drawn.width, "ts": ts}
        known = {"customers": drawn.slots, "reblinded": drawn.reblinded}
        connection.execute(epoch.insert(), of_tenant | made | known)
        _insert_drawn(connection, scope, n, drawn)
        start = start_of(n)
        nodes = [(level, (start >> level) + index, found) for level, index, found in log_nodes]
        execute_rows(connection, _ADD_NODE, of_tenant, ("level", "idx", "hash"), nodes)
        connection.execute(
            checkpoint.insert(),
            of_tenant | {"size": n + 1, "body": body, "state": "prepared", "fence": lease.fence, "created_at": now},
        )
        mark_erased(connection, scope, n, drawn.erased)
    return drawn.stated


def _draw(connection: Connection, keys: KeyRing, scope: Scope, n: int, before: Any, reblind_up_to: int) -> _Drawn:
    """Read what changed and hash it. The first epoch of an origin states everything that is not closed, anew."""
    anew = before is None
    slots: int = connection.execute(_SLOTS, {"t": scope.plane}).scalar_one()
    width = width_of(slots)
    known = everyone(connection, scope) if anew or slots <= reblind_up_to else None
    members = changed_members(connection, scope, known, anew=anew)
    stated = Stated(n, members, fragments_of(connection, scope, members, known, anew=anew))
    heads = Heads(tenant_key(connection, keys, scope), n, stated.fragments)
    if known is not None:
        hashed = hash_all(connection, scope, heads, known)
        tree = whole_tree(hashed.leaves, width)
        return _Drawn(stated, slots, width, tree, None, hashed.erased)
    hashed = hash_changed(connection, scope, heads, {member.slot for member in members}, before.customers)
    tree = changed_tree(
        hashed.leaves, before.slots, width, lambda level, index: read_tile(connection, scope, n - 1, level, index)
    )
    reblinded = n - 1 if before.reblinded is None else before.reblinded
    return _Drawn(stated, slots, width, tree, reblinded, hashed.erased)


def _insert_drawn(connection: Connection, scope: Scope, n: int, drawn: _Drawn) -> None:
    of_epoch = {"tenant_id": scope.plane, "epoch": n}
    execute_rows(
        connection,
        _ADD_MEMBER,
        of_epoch,
        ("tree_id", "size", "root", "total", "final"),
        [(row.tree_id, row.size, row.root, row.total, row.final) for row in drawn.stated.members],
    )
    execute_rows(connection, _ADD_TILE, of_epoch, ("level", "idx", "hashes"), drawn.tree.tiles)


# --- Lock, sign, publish ---------------------------------------------------------------------------------------------


def _lock(db: Database, locks: LockStore, lease: Lease, origin: str, size: int, body: str) -> None:
    scope = lease.scope
    with db.read(scope) as connection:
        before = {"t": scope.plane, "size": size - 1}
        old = connection.execute(_BODY, before).scalar_one_or_none() if number_of(size) > 1 else None
    stored = locks.swap(origin, old, body)
    if stored != body:
        newest = "no checkpoint" if stored is None else f"a checkpoint of size {stored.splitlines()[1]}"
        below = "none" if old is None else f"size {number_of(size) - 1}"
        reason = (
            f"The lock store holds {newest} for {origin}, but the database is about to sign size {number_of(size)} on"
            f" top of {below}. The database may have been restored from an older backup. Nothing was signed. Restore"
            " the newer state, or start a new origin."
        )
        _halt(db, lease, reason)
        raise LogHaltedError(reason)


def _halt(db: Database, lease: Lease, reason: str) -> None:
    with db.write(lease.scope) as connection:
        leases.check_fence(connection, lease)
        connection.execute(_HALT, {"t": lease.scope.plane, "reason": reason})


def _cosigned(
    db: Database, keys: KeyRing, lease: Lease, origin: str, row: Row[Any], witnesses: Cosign
) -> Sequence[str]:
    """Have a stored body cosigned; what a witness holds against it halts the log."""
    with db.read(lease.scope) as connection:
        note = _signed(connection, keys, lease.scope, origin, row.size, row.body)
    try:
        return witnesses(db, lease.scope, note)
    except LogHaltedError as alarm:
        _halt(db, lease, alarm.message)
        raise


def _signed(connection: Connection, keys: KeyRing, scope: Scope, origin: str, size: int, body: str) -> str:
    notes = [sign_note(body, origin, signer) for signer in logs.signers(connection, keys, scope, size)]
    return notes[0] + "".join(other.removeprefix(body + "\n") for other in notes[1:])


def _publish(
    db: Database,
    keys: KeyRing,
    clock: Clock,
    lease: Lease,
    origin: str,
    size: int,
    body: str,
    cosignatures: Sequence[str] = (),
    made: Stated | None = None,
) -> None:
    scope, n = lease.scope, size - 1
    of_tenant = {"t": scope.plane}
    with db.write(scope) as connection:
        leases.check_fence(connection, lease)
        note = _signed(connection, keys, scope, origin, size, body) + "".join(cosignatures)
        members, fragments = (made or _read_stated(connection, scope, n))[1:]
        connection.execute(_USE_NEXT_HEADS, of_tenant | {"n": n})
        if members:
            announce_deltas(connection, clock, scope, n)
            if connection.dialect.name == "postgresql":
                connection.execute(_LOCK_TREES, of_tenant | {"n": n})
            connection.execute(_PUBLISH_TREES, of_tenant | {"n": n})
            heads = list(fragments.items())
            execute_rows(connection, _SET_HEAD, of_tenant | {"n": n}, ("of_slot", "fragment"), heads)
        _close_final(connection, keys, clock, scope, n, [member for member in members if member.final], fragments)
        announce_covered(connection, clock, scope)
        drop_old_tiles(connection, scope, n)
        connection.execute(_SET_STATE, of_tenant | {"of_size": size, "new_state": "published", "new_note": note})


def _read_stated(connection: Connection, scope: Scope, n: int) -> Stated:
    """Read what an epoch says that is stored and not published."""
    members = members_of(connection, scope, n)
    return Stated(n, members, fragments_of(connection, scope, members, None, anew=False))


def _close_final(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    n: int,
    finals: list[Member],
    fragments: dict[int, str],
) -> None:
    """Keep the statement of each period that this epoch closes, and chain the customer's next head to it."""
    if not finals:
        return
    heads = Heads(tenant_key(connection, keys, scope), n, fragments)
    width = connection.execute(_EPOCH, {"t": scope.plane, "n": n}).one().slots
    living = {row.slot: row for row in people(connection, scope, {member.slot for member in finals})}
    read = tile_reader(connection, scope, n)
    for member in sorted(finals, key=lambda member: member.period):
        person = living.get(member.slot)
        if person is None:
            continue  # erased since the epoch was made
        head = heads.text(person.slot, person.ref, None)
        path = [merkle.range_root(*span, read) for span in merkle.inclusion_ranges(person.slot, width)]
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
        issue_receipt(connection, clock, scope, person.customer_id, *period_bounds(member.period))
        digest = merkle.leaf_hash(head.encode())
        previous = PreviousPeriod(number_of(n), digest, member.period, member.root, member.size)
        still_open = [row for row in parse_head(head).open if row.period > member.period]
        connection.execute(
            _SET_NEXT_HEAD,
            {
                "t": scope.plane,
                "who": person.customer_id,
                "fragment": head_fragment(still_open, previous),
            },
        )
