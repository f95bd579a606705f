"""The audit of a tenant's log: keys, epochs, log nodes, checkpoints and their signatures, for each origin it had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import BindParameter, Connection, Row, bindparam, func, or_, select

from shared_record.clock import rfc3339
from shared_record.db.schema import checkpoint, epoch, former_log, log, log_node, signing_key
from shared_record.errors import UnavailableError
from shared_record.keys import KeyRing
from shared_record.ledger import merkle
from shared_record.ledger.audit_reading import Reader, Tally, Wrong, missing_or
from shared_record.ledger.entry import parse_epoch
from shared_record.ledger.note import VerifierKey, checkpoint_body, open_note
from shared_record.ledger.origin import SPAN, number_of

_T: BindParameter[UUID] = bindparam("t")
_AFTER: BindParameter[int] = bindparam("after")
_START: BindParameter[int] = bindparam("start")
_LOG = select(log.c.origin, log.c.size, log.c.frontier).where(log.c.tenant_id == _T)
_FORMER = select(former_log).where(former_log.c.tenant_id == _T).order_by(former_log.c.start)
_KEYS = select(signing_key).where(signing_key.c.tenant_id == _T).order_by(signing_key.c.since_size)
_EPOCHS = (
    select(epoch)
    .where(epoch.c.tenant_id == _T, epoch.c.n > _AFTER, epoch.c.n < _START + SPAN)
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
    .where(epoch.c.tenant_id == _T, epoch.c.n > _AFTER, epoch.c.n < _START + SPAN)
    .order_by(epoch.c.n)
    .limit(bindparam("most"))
)
_COUNT_CHECKPOINTS = (
    select(func.count())
    .select_from(checkpoint)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.size > _START, checkpoint.c.size <= _START + SPAN)
)
_LOG_NODE = select(log_node.c.hash).where(
    log_node.c.tenant_id == _T, log_node.c.level == bindparam("lvl"), log_node.c.idx == bindparam("i")
)
_COUNT_LOG_NODES = (
    select(func.count())
    .select_from(log_node)
    .where(
        log_node.c.tenant_id == _T,
        or_(
            *(
                (log_node.c.level == level)
                & (log_node.c.idx >= bindparam(f"first_{level}"))
                & (log_node.c.idx < bindparam(f"last_{level}"))
                for level in merkle.STORED_LEVELS
            )
        ),
    )
)
_NEWEST = (
    select(checkpoint.c.size, checkpoint.c.body, checkpoint.c.note)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published")
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)


class OriginLog(NamedTuple):
    """The log under one origin: ``start`` is its first serial. ``current`` is the one that still grows."""

    origin: str
    start: int
    size: int
    frontier: bytes
    current: bool
    former: str | None
    """The last checkpoint of the origin before it, which its first epoch carries."""

    @property
    def prefix(self) -> str:
        """What a finding begins with: of a former origin, its name."""
        return "" if self.current else f"{self.origin}: "


def read_origins(reader: Reader, connection: Connection) -> list[OriginLog]:
    """Return all origins of a log, oldest first."""
    state = reader.one(connection, _LOG)
    origins: list[OriginLog] = []
    last: str | None = None
    for row in connection.execute(_FORMER, {"t": reader.scope.plane}):
        origins.append(OriginLog(row.origin, row.start, row.size, row.frontier, False, last))
        last = row.last
    start = state.size - number_of(state.size)
    return [*origins, OriginLog(state.origin, start, state.size, state.frontier, True, last)]


def check_keys(reader: Reader, connection: Connection, ring: KeyRing, origins: Iterable[OriginLog]) -> None:
    """Compare the halves of each signing key, and the origin it is of."""
    names = {one.origin for one in origins}
    rows = connection.execute(_KEYS, {"t": reader.scope.plane}).all()
    if not rows:
        raise Wrong("the log has no signing key")
    for row in rows:
        where = f"signing key {row.key_id}"
        vkey = _vkey(row.vkey, where)
        if vkey.name not in names or vkey.id.hex() != row.key_id:
            raise Wrong(f"{where}: its verifier key is of another log or has another id")
        try:
            seed = ring.open(row.sealed_seed, tenant=reader.scope.plane, place=f"signing_key.sealed_seed/{row.key_id}")
        except UnavailableError as error:
            raise Wrong(f"{where}: its private half cannot be opened ({error.message})") from error
        if VerifierKey.of(vkey.name, Ed25519PrivateKey.from_private_bytes(seed)) != vkey:
            raise Wrong(f"{where}: private and public half do not belong together")


def check_log(reader: Reader, connection: Connection, of: OriginLog, tally: Tally) -> None:
    """Work out the tree of an origin from its epochs."""
    frontier: list[bytes] = []
    nodes = 0

    def compare(level: int, index: int, digest: bytes) -> None:
        nonlocal nodes
        nodes += 1
        stored = reader.scalar(connection, _LOG_NODE, lvl=level, i=(of.start >> level) + index)
        if stored != digest:
            raise Wrong(f"log node {level}/{index}: {missing_or(stored, 'differs from the epochs below it')}")

    n, before, ts = of.start, b"", None
    for row in reader.pages(connection, _EPOCHS, "n", of.start - 1, "epoch {n}", start=of.start):
        _check_epoch(row, n, before, ts, of.former)
        merkle.push(frontier, number_of(n), [row.hash], compare)
        n, before, ts = n + 1, row.hash, row.ts
        tally.epochs += 1
    if n != of.size:
        raise Wrong(f"the log is {number_of(of.size)} epochs long, {number_of(n)} are stored")
    if b"".join(frontier) != of.frontier:
        raise Wrong("the log's frontier differs from its epochs")
    bounds = {f"first_{level}": of.start >> level for level in merkle.STORED_LEVELS}
    bounds |= {f"last_{level}": (of.start + SPAN) >> level for level in merkle.STORED_LEVELS}
    if reader.scalar(connection, _COUNT_LOG_NODES, **bounds) != nodes:
        raise Wrong("there are log nodes of epochs that do not exist")


def check_checkpoints(reader: Reader, connection: Connection, of: OriginLog, tally: Tally) -> None:
    """Compare each checkpoint with the epochs below it, and verify its signatures."""
    rows = connection.execute(_KEYS, {"t": reader.scope.plane}).all()
    keys = [(_vkey(row.vkey, f"signing key {row.key_id}"), row.since_size, row.until_size) for row in rows]
    states = ("prepared", "locked") if of.current else ("abandoned",)
    frontier: list[bytes] = []
    pending = 0
    size = of.start
    for row in reader.pages(connection, _CHECKPOINTS, "n", of.start - 1, "checkpoint {size}", start=of.start):
        merkle.push(frontier, number_of(size), [row.hash])
        size += 1
        where = f"checkpoint {number_of(size)}"
        if row.size is None:
            raise Wrong(f"{where}: missing")
        if row.body != checkpoint_body(of.origin, number_of(size), merkle.frontier_root(frontier)):
            raise Wrong(f"{where}: origin, size or root differ from the log")
        if row.state != "published":
            pending += 1
            if row.state not in states:
                raise Wrong(f"{where}: its state {row.state!r} is unknown")
            continue
        if pending:
            raise Wrong(f"{where}: published before the one below it")
        signers = [
            key
            for key, since, until in keys
            if key.name == of.origin and since <= size and (until is None or size < until)
        ]
        _check_note(row.note, row.body, signers, where)
        tally.checkpoints += 1
    stored = reader.scalar(connection, _COUNT_CHECKPOINTS, start=of.start)
    if stored != number_of(size):
        raise Wrong(f"there are {stored} checkpoints and {number_of(size)} epochs")


def find_contradiction(reader: Reader, connection: Connection) -> str | None:
    """Tell whether the epochs and the frontier that the next checkpoint would extend lead to the newest published one.

    ``None`` if they do, or nothing is published; else what does not fit, as a sentence.
    """
    newest = reader.one_or_none(connection, _NEWEST)
    of = read_origins(reader, connection)[-1]
    if newest is None or newest.size <= of.start:
        return None
    frontier: list[bytes] = []
    size = of.start
    root = b""
    for row in reader.pages(connection, _EPOCHS, "n", of.start - 1, "epoch {n}", start=of.start):
        merkle.push(frontier, number_of(size), [merkle.leaf_hash(row.entry.encode())])
        size += 1
        if size == newest.size:
            root = merkle.frontier_root(frontier)
    said = f"the newest published checkpoint, of size {number_of(newest.size)}"
    if not root or newest.body != checkpoint_body(of.origin, number_of(newest.size), root):
        return f"The epochs that are stored do not lead to {said}."
    if not (newest.note or "").startswith(newest.body):
        return f"What was signed is not what is stored of {said}."
    if size != of.size or b"".join(frontier) != of.frontier:
        return f"The frontier of the log does not extend {said}."
    return None


def _check_epoch(row: Row[Any], n: int, before: bytes, ts: datetime | None, former: str | None) -> None:
    number = number_of(n)
    where = f"epoch {number}"
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
    if (entry.epoch, entry.root, entry.slots, entry.ts) != (number, row.slot_root, row.slots, rfc3339(row.ts)):
        raise Wrong(f"{where}: number, slot root, slots or time differ from its entry")
    if ts is not None and row.ts < ts:
        raise Wrong(f"{where}: older than the one before it")
    if number == 0 and entry.former != former:
        raise Wrong(f"{where}: it carries another checkpoint of the former origin")


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


def _vkey(text: str, where: str) -> VerifierKey:
    try:
        return VerifierKey.parse(text)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from error
