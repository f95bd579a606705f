"""The audit (invariant I8): everything the ledger stores is worked out anew from its entries and compared.

Deltas -> period trees -> what epochs say of them; heads -> slot tree -> epoch record -> tenant log -> checkpoints ->
signatures -> lock store. It writes nothing, takes no lock, and memory does not grow with the ledger. In each place
(a period tree, the log, the heads of one epoch, …) it names the first thing that is wrong, and goes on with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, func, select

from shared_record.clock import rfc3339
from shared_record.db.engine import Database
from shared_record.db.schema import (
    checkpoint,
    customer,
    epoch,
    log,
    log_node,
    period_tree,
    signing_key,
    slot_tile,
    statement,
)
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.keys import KeyRing
from shared_record.ledger import merkle
from shared_record.ledger.audit_reading import NEWEST, PAGE, UNREADABLE, Reader, Tally, Wrong, missing_or, reason_of
from shared_record.ledger.audit_trees import TreeAudit
from shared_record.ledger.checkpoints import KEPT_SLOT_TREES, blinding
from shared_record.ledger.entry import (
    METER,
    OpenPeriod,
    PreviousPeriod,
    head_fragment,
    head_text,
    parse_epoch,
    parse_head,
    slot_of,
)
from shared_record.ledger.locks import LockStore
from shared_record.ledger.note import VerifierKey, checkpoint_body, open_note
from shared_record.ledger.status import compare_with_store
from shared_record.tenancy.tenants import tenant_key

TILE = 256

_T: BindParameter[UUID] = bindparam("t")
_TREE: BindParameter[str] = bindparam("tree")
_LOG = select(log.c.origin, log.c.size, log.c.frontier).where(log.c.tenant_id == _T)
_KEYS = select(signing_key).where(signing_key.c.tenant_id == _T).order_by(signing_key.c.since_size)
_EPOCH = select(epoch).where(epoch.c.tenant_id == _T, epoch.c.n == bindparam("n"))
_EPOCHS = (
    select(epoch)
    .where(epoch.c.tenant_id == _T, epoch.c.n > bindparam("after"))
    .order_by(epoch.c.n)
    .limit(bindparam("most"))
)
_CHECKPOINTS = (
    select(epoch.c.n, epoch.c.hash, checkpoint.c.size, checkpoint.c.body, checkpoint.c.note, checkpoint.c.state)
    .select_from(
        epoch.outerjoin(
            checkpoint, (checkpoint.c.tenant_id == epoch.c.tenant_id) & (checkpoint.c.size == epoch.c.n + 1)
        )
    )
    .where(epoch.c.tenant_id == _T, epoch.c.n > bindparam("after"))
    .order_by(epoch.c.n)
    .limit(bindparam("most"))
)
_COUNT_CHECKPOINTS = select(func.count()).select_from(checkpoint).where(checkpoint.c.tenant_id == _T)
_LOG_NODE = select(log_node.c.hash).where(
    log_node.c.tenant_id == _T, log_node.c.level == bindparam("lvl"), log_node.c.idx == bindparam("i")
)
_COUNT_LOG_NODES = select(func.count()).select_from(log_node).where(log_node.c.tenant_id == _T)
_SLOT_EPOCHS = select(slot_tile.c.epoch).distinct().where(slot_tile.c.tenant_id == _T).order_by(slot_tile.c.epoch)
_SLOT_LEVELS = (
    select(slot_tile.c.level)
    .distinct()
    .where(slot_tile.c.tenant_id == _T, slot_tile.c.epoch == bindparam("n"))
    .order_by(slot_tile.c.level)
)
_SLOT_TILES = (
    select(slot_tile.c.idx, slot_tile.c.hashes)
    .where(
        slot_tile.c.tenant_id == _T,
        slot_tile.c.epoch == bindparam("n"),
        slot_tile.c.level == bindparam("lvl"),
        slot_tile.c.idx > bindparam("after"),
    )
    .order_by(slot_tile.c.idx)
    .limit(bindparam("most"))
)
_SLOT_TILE = select(slot_tile.c.hashes).where(
    slot_tile.c.tenant_id == _T,
    slot_tile.c.epoch == bindparam("n"),
    slot_tile.c.level == 0,
    slot_tile.c.idx == bindparam("i"),
)
_CUSTOMERS = (
    select(
        customer.c.customer_id,
        customer.c.slot,
        customer.c.ref,
        customer.c.head,
        customer.c.next_head,
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
_TREE_IDS = (
    select(period_tree.c.tree_id)
    .where(period_tree.c.tenant_id == _T, period_tree.c.tree_id > bindparam("after_tree"))
    .order_by(period_tree.c.tree_id)
    .limit(bindparam("most"))
)
_SAMPLE = (
    select(period_tree.c.tree_id).where(period_tree.c.tenant_id == _T).order_by(func.random()).limit(bindparam("most"))
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
_STATEMENT_IDS = (
    select(statement.c.tree_id)
    .where(statement.c.tenant_id == _T, statement.c.tree_id > bindparam("after_tree"))
    .order_by(statement.c.tree_id)
    .limit(bindparam("most"))
)


class Finding(NamedTuple):
    """The first thing that is wrong in one ``place``; ``problem`` is a sentence that names it."""

    place: str
    problem: str


def audit(
    db: Database,
    keys: KeyRing,
    locks: LockStore,
    scope: Scope,
    *,
    sample: int | None = None,
    tally: Tally | None = None,
) -> Iterator[Finding]:
    """Yield what is wrong in one ledger; nothing when all of it agrees.

    ``sample``: look into that many period trees only, picked at random; the log, heads and statements are always
    looked at in full. ``tally`` is kept up to date while this runs.
    """
    run = _Audit(db, keys, scope, tally or Tally())
    yield from run.place("keys", run.check_keys)
    yield from run.place("log", run.check_log)
    yield from run.place("checkpoints", run.check_checkpoints)
    yield from run.check_slot_trees()
    yield from run.place("heads", run.check_heads)
    yield from run.check_statements()
    for tree_id in run.tree_ids(sample):
        yield from run.place(tree_id, partial(run.check_tree, tree_id))
    store = compare_with_store(db, locks, scope)
    if store.problem is not None:
        yield Finding("lock store", store.problem)


class _Audit(Reader):
    """One run. Each check reads one snapshot of its own, so that none of them lasts as long as the whole."""

    def __init__(self, db: Database, keys: KeyRing, scope: Scope, tally: Tally) -> None:
        super().__init__(scope)
        self.db, self.keys, self.tally = db, keys, tally
        with db.read(scope) as connection:
            self.origin: str = connection.execute(_LOG, {"t": scope.plane}).one().origin
            self.secret = tenant_key(connection, keys, scope)

    def place(self, name: str, check: Callable[[], None]) -> Iterator[Finding]:
        """Yield what ``check`` finds first."""
        try:
            check()
        except Wrong as wrong:
            yield Finding(name, str(wrong))
        except UNREADABLE as error:
            yield Finding(name, f"{name}: a stored value is not of its type ({reason_of(error)})")

    # --- Keys, log, checkpoints ---------------------------------------------------------------------------------------

    def check_keys(self) -> None:
        with self.db.read(self.scope) as connection:
            rows = connection.execute(_KEYS, {"t": self.scope.plane}).all()
        if not rows:
            raise Wrong("the log has no signing key")
        for row in rows:
            where = f"signing key {row.key_id}"
            vkey = _vkey(row.vkey, where)
            if vkey.name != self.origin or vkey.id.hex() != row.key_id:
                raise Wrong(f"{where}: its verifier key is of another log or has another id")
            try:
                seed = self.keys.open(
                    row.sealed_seed, tenant=self.scope.plane, place=f"signing_key.sealed_seed/{row.key_id}"
                )
            except UnavailableError as error:
                raise Wrong(f"{where}: its private half cannot be opened ({error.message})") from error
            if VerifierKey.of(self.origin, Ed25519PrivateKey.from_private_bytes(seed)) != vkey:
                raise Wrong(f"{where}: private and public half do not belong together")

    def check_log(self) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            state = self.one(connection, _LOG)
            frontier: list[bytes] = []
            nodes = 0

            def compare(level: int, index: int, digest: bytes) -> None:
                nonlocal nodes
                nodes += 1
                stored = self.scalar(connection, _LOG_NODE, lvl=level, i=index)
                if stored != digest:
                    raise Wrong(f"log node {level}/{index}: {missing_or(stored, 'differs from the epochs below it')}")

            n, before, ts = 0, b"", None
            for row in self.pages(connection, _EPOCHS, "n", -1, "epoch {n}"):
                _check_epoch(row, n, before, ts)
                merkle.push(frontier, n, [row.hash], compare)
                n, before, ts = n + 1, row.hash, row.ts
                self.tally.epochs += 1
            if n != state.size:
                raise Wrong(f"the log is {state.size} epochs long, {n} are stored")
            if b"".join(frontier) != state.frontier:
                raise Wrong("the log's frontier differs from its epochs")
            if self.scalar(connection, _COUNT_LOG_NODES) != nodes:
                raise Wrong("there are log nodes of epochs that do not exist")

    def check_checkpoints(self) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            rows = connection.execute(_KEYS, {"t": self.scope.plane}).all()
            keys = [(_vkey(row.vkey, f"signing key {row.key_id}"), row.since_size, row.until_size) for row in rows]
            frontier: list[bytes] = []
            pending = 0
            size = 0
            for row in self.pages(connection, _CHECKPOINTS, "n", -1, "checkpoint {size}"):
                merkle.push(frontier, size, [row.hash])
                size += 1
                where = f"checkpoint {size}"
                if row.size is None:
                    raise Wrong(f"{where}: missing")
                if row.body != checkpoint_body(self.origin, size, merkle.frontier_root(frontier)):
                    raise Wrong(f"{where}: origin, size or root differ from the log")
                if row.state != "published":
                    pending += 1
                    if row.state not in ("prepared", "locked"):
                        raise Wrong(f"{where}: its state {row.state!r} is unknown")
                    continue
                if pending:
                    raise Wrong(f"{where}: published before the one below it")
                signers = [key for key, since, until in keys if since <= size and (until is None or size < until)]
                _check_note(row.note, row.body, signers, where)
                self.tally.checkpoints += 1
            stored = self.scalar(connection, _COUNT_CHECKPOINTS)
            if stored != size:
                raise Wrong(f"there are {stored} checkpoints and {size} epochs")

    # --- Slot trees, heads, statements -------------------------------------------------------------------------------

    def check_slot_trees(self) -> Iterator[Finding]:
        with self.db.read(self.scope, snapshot=True) as connection:
            published: int = self.scalar(connection, NEWEST) or 0
            size = self.one(connection, _LOG).size
            kept = set(connection.execute(_SLOT_EPOCHS, {"t": self.scope.plane}).scalars())
            for n in sorted(kept | set(range(max(0, published - KEPT_SLOT_TREES), size))):
                yield from self.place(f"slot tree of epoch {n}", partial(self._check_slot_tree, connection, n))

    def _check_slot_tree(self, connection: Connection, n: int) -> None:
        where = f"slot tree of epoch {n}"
        made = self.one_or_none(connection, _EPOCH, n=n)
        if made is None:
            raise Wrong(f"{where}: there is no such epoch")
        levels = connection.execute(_SLOT_LEVELS, {"t": self.scope.plane, "n": n}).scalars().all()
        below: list[bytes] | None = None
        level = 0
        while True:
            roots: list[bytes] = []
            width = 0
            for row in self.pages(connection, _SLOT_TILES, "idx", -1, f"{where}: tile {level}/{{n}}", n=n, lvl=level):
                tile = f"{where}: tile {level}/{row.idx}"
                if row.idx != len(roots):
                    raise Wrong(f"{where}: tile {level}/{len(roots)} is missing")
                hashes = _split(row.hashes, tile)
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
            raise Wrong(f"{where}: a tile differs from the root that epoch {n} states")

    def check_heads(self) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            published = self.scalar(connection, NEWEST)
            if published is None:
                return
            n = published - 1
            newest = self.one_or_none(connection, _EPOCH, n=n)
            if newest is None:
                raise Wrong(f"heads: there is no epoch {n}, which is published")
            tile: tuple[int, bytes] = (-1, b"")
            everybody = self.pages(connection, _CUSTOMERS, "slot", -1, "head in slot {n}")
            while people := list(islice(everybody, TILE)):
                trees: dict[UUID, list[Row[Any]]] = {}
                parameters = {"t": self.scope.plane, "n": n, "customers": [row.customer_id for row in people]}
                for tree in connection.execute(_PUBLISHED_TREES, parameters):
                    trees.setdefault(tree.customer_id, []).append(tree)
                for person in people:
                    self.tally.customers += 1
                    if person.erased:
                        continue
                    index, offset = divmod(person.slot, TILE)
                    if index != tile[0]:
                        tile = (index, self.scalar(connection, _SLOT_TILE, n=n, i=index) or b"")
                    stored = tile[1][offset * merkle.HASH_SIZE :][: merkle.HASH_SIZE]
                    self._check_head(person, trees.get(person.customer_id, []), n, stored)

    def _check_head(self, person: Row[Any], trees: Sequence[Row[Any]], n: int, stored: bytes) -> None:
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
        text = head_text(person.ref, n, person.head, blinding(self.secret, person.slot, n))
        digest = merkle.leaf_hash(text.encode())
        if digest != stored:
            raise Wrong(f"{where}: differs from slot {person.slot} of epoch {n}")
        try:
            rows = parse_head(text).open
        except ValueError as error:
            raise Wrong(f"{where}: {error}") from error
        expected = tuple(_open_period(tree) for tree in trees)
        if rows != expected:
            raise Wrong(f"{where}: its periods differ from those that epoch {n} covers")
        closed = [tree for tree in trees if tree.status == "closed"]
        following = None
        if closed:
            final = closed[-1]
            previous = PreviousPeriod(n, digest, final.period, final.proot, final.psize)
            following = head_fragment([row for row in rows if row.period > final.period], previous)
        if person.next_head != following:
            raise Wrong(f"{where}: its next head does not follow from it")

    def check_statements(self) -> Iterator[Finding]:
        for tree_id in self._ids(_STATEMENT_IDS):
            yield from self.place(f"statement of {tree_id}", partial(self._check_statement, tree_id))
            self.tally.statements += 1

    def _check_statement(self, tree_id: str) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            row = self.one_or_none(connection, _STATEMENT, tree=tree_id)
        where = f"statement of {tree_id}"
        if row is None:
            raise Wrong(f"{where}: its period, customer or epoch is missing")
        try:
            head = parse_head(row.head)
        except ValueError as error:
            raise Wrong(f"{where}: {error}") from error
        if (head.cust, head.slot, row.slot, head.epoch) != (row.ref, row.customer_slot, row.customer_slot, row.epoch):
            raise Wrong(f"{where}: customer, slot or epoch of its head are another's")
        path = _split(row.path, f"{where}: its path")
        digest = merkle.leaf_hash(row.head.encode())
        if row.slots != row.epoch_slots or not merkle.verify_inclusion(
            digest, row.slot, row.slots, path, row.slot_root
        ):
            raise Wrong(f"{where}: its head and path do not lead to the slot root of epoch {row.epoch}")
        if row.status != "closed" or row.pepoch != row.epoch or _open_period(row) not in head.open:
            raise Wrong(f"{where}: its size, root or total differ from the closed period")

    # --- Period trees ------------------------------------------------------------------------------------------------

    def tree_ids(self, sample: int | None) -> Iterator[str]:
        """Yield the trees to look into, page by page: one that is made meanwhile may or may not be among them."""
        if sample is not None:
            with self.db.read(self.scope) as connection:
                chosen = connection.execute(_SAMPLE, {"t": self.scope.plane, "most": sample}).scalars().all()
            yield from chosen
            return
        yield from self._ids(_TREE_IDS)

    def _ids(self, query: Select[Any]) -> Iterator[str]:
        """Yield tree ids in order, page by page, each page in a transaction of its own."""
        after = ""
        while True:
            with self.db.read(self.scope) as connection:
                parameters = {"t": self.scope.plane, "after_tree": after, "most": PAGE}
                page = connection.execute(query, parameters).scalars().all()
            if not page:
                return
            yield from page
            after = page[-1]

    def check_tree(self, tree_id: str) -> None:
        with self.db.read(self.scope, snapshot=True) as connection:
            TreeAudit(self, connection, tree_id, self.secret, self.tally).check()
        self.tally.trees += 1


def _check_epoch(row: Row[Any], n: int, before: bytes, ts: datetime | None) -> None:
    where = f"epoch {n}"
    if row.n != n:
        raise Wrong(f"{where}: missing")
    if merkle.leaf_hash(row.entry.encode()) != row.hash:
        raise Wrong(f"{where}: hash differs from its entry")
    try:
        entry = parse_epoch(row.entry)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from error
    if entry.prev != before:
        raise Wrong(f"{where}: it names another epoch before it")
    if (entry.epoch, entry.root, entry.slots, entry.ts) != (n, row.slot_root, row.slots, rfc3339(row.ts)):
        raise Wrong(f"{where}: number, slot root, slots or time differ from its entry")
    if ts is not None and row.ts < ts:
        raise Wrong(f"{where}: older than the one before it")


def _check_note(note: str | None, body: str, signers: Sequence[VerifierKey], where: str) -> None:
    if note is None:
        raise Wrong(f"{where}: published without a note")
    if not signers:
        raise Wrong(f"{where}: no key is valid for its size")
    for key in signers:
        try:
            signed = open_note(note, [key])
        except ValueError as error:
            raise Wrong(f"{where}: {error} (key {key.id.hex()})") from error
        if signed != body:
            raise Wrong(f"{where}: its note says something else than its body")


def _open_period(tree: Row[Any]) -> OpenPeriod:
    totals = ((METER, tree.unit, tree.psize, tree.ptotal),)
    return OpenPeriod(tree.period, tree.tree_id, tree.proot, tree.psize, totals)


def _vkey(text: str, where: str) -> VerifierKey:
    try:
        return VerifierKey.parse(text)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from error


def _split(joined: bytes, where: str) -> list[bytes]:
    try:
        return merkle.split_hashes(joined)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from error
