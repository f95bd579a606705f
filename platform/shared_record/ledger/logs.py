"""A tenant's log: its origin, fixed for ever when it is made, and its signing keys."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import BindParameter, Connection, bindparam, func, select

from shared_record.clock import Clock, period_bounds, period_of
from shared_record.db.leases import create_job
from shared_record.db.schema import checkpoint, log, signing_key
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError, NotFoundError
from shared_record.keys import KeyRing
from shared_record.ledger.note import VerifierKey
from shared_record.ledger.origin import number_of

SEQUENCER = "sequencer"
"""The kind of lease under which a log grows."""
AUDIT = "audit"
"""The kind of lease under which a log is audited, once a day."""
AUDIT_EVERY = timedelta(days=1)

_T: BindParameter[UUID] = bindparam("t")
_INSERT_LOG = log.insert()
_INSERT_KEY = signing_key.insert()
_KEYS = (
    select(signing_key).where(signing_key.c.tenant_id == _T).order_by(signing_key.c.since_size, signing_key.c.key_id)
)
_LOCK_LOG = select(log.c.origin, log.c.size).where(log.c.tenant_id == _T).with_for_update()
_PUBLISHED = select(func.max(checkpoint.c.size)).where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published")
_END_KEY = (
    signing_key.update()
    .where(signing_key.c.tenant_id == _T, signing_key.c.key_id == bindparam("id"))
    .values(until_size=bindparam("until"))
)


class KeyChange(NamedTuple):
    """A signing key that was added or retired, and the size of the checkpoint from which on that counts."""

    vkey: VerifierKey
    size: int


def create_log(connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, origin: str) -> None:
    """Make the log of a data plane under ``origin`` (``<host>/log/<public id>``), with a new Ed25519 key."""
    connection.execute(_INSERT_LOG, {"tenant_id": scope.plane, "origin": origin, "frontier": b""})
    _insert_key(connection, keys, scope, origin, since=0)
    create_job(connection, scope, SEQUENCER, period_bounds(period_of(clock.now()))[1])
    create_job(connection, scope, AUDIT, clock.now() + AUDIT_EVERY)


def add_signing_key(connection: Connection, keys: KeyRing, scope: Scope) -> KeyChange:
    """Give the log one more Ed25519 key: from the next checkpoint on it signs beside those there are.

    The epoch record under that checkpoint names it, so whoever trusts an older key learns of it under that key's
    signature. ``NotFoundError`` where there is no log.
    """
    state = _locked(connection, scope)
    vkey = _insert_key(connection, keys, scope, state.origin, since=state.size + 1)
    return KeyChange(vkey, number_of(state.size + 1))


def retire_signing_key(connection: Connection, scope: Scope, key_id: str) -> KeyChange:
    """Let a key sign no further checkpoint than those that are already made; what it signed stays valid.

    ``ConflictError`` unless another key goes on that has signed a published checkpoint beside it: otherwise those who
    trust only this key would never learn of the other.
    """
    state = _locked(connection, scope)
    rows = {row.key_id: row for row in connection.execute(_KEYS, {"t": scope.plane})}
    if key_id not in rows:
        raise NotFoundError(f"the log {state.origin} has no key {key_id!r}. Its keys: {', '.join(rows)}.")
    if rows[key_id].until_size is not None:
        raise ConflictError(
            f"the key {key_id} is retired: it signs only below size {number_of(rows[key_id].until_size)}."
        )
    others = [row for row in rows.values() if row.until_size is None and row.key_id != key_id]
    if not others:
        raise ConflictError(f"{key_id} is the only key that signs {state.origin}. Add one: shared-record key rotate")
    published = connection.execute(_PUBLISHED, {"t": scope.plane}).scalar_one() or 0
    if all(row.since_size > published for row in others):
        raise ConflictError(
            f"no checkpoint is published yet that is signed by {key_id} and by the key that follows it. Wait for it."
        )
    connection.execute(_END_KEY, {"t": scope.plane, "id": key_id, "until": state.size + 1})
    return KeyChange(VerifierKey.parse(rows[key_id].vkey), number_of(state.size + 1))


def begin_keys(
    connection: Connection, keys: KeyRing, scope: Scope, origin: str, start: int, *, ended: int, new_key: bool
) -> tuple[VerifierKey, ...]:
    """End all keys of the former origin above the size ``ended``, and give ``origin`` its own from serial ``start`` on.

    They are the same private keys under another name, so that whoever knows them recognises the log; with ``new_key``
    a fresh one. They sign from its first checkpoint on.
    """
    _locked(connection, scope)
    going_on = [row for row in connection.execute(_KEYS, {"t": scope.plane}) if row.until_size is None]
    for row in going_on:
        connection.execute(_END_KEY, {"t": scope.plane, "id": row.key_id, "until": ended + 1})
    if new_key:
        return (_insert_key(connection, keys, scope, origin, since=start),)
    seeds = [keys.open(row.sealed_seed, tenant=scope.plane, place=_place(row.key_id)) for row in going_on]
    return tuple(
        _insert_key(connection, keys, scope, origin, since=start, private=Ed25519PrivateKey.from_private_bytes(seed))
        for seed in seeds
    )


def announce_keys(connection: Connection, scope: Scope, size: int) -> list[str]:
    """Return the verifier keys that sign from checkpoint ``size`` on; until this transaction ends no key is added."""
    _locked(connection, scope)
    return [
        row.vkey
        for row in connection.execute(_KEYS, {"t": scope.plane})
        if row.since_size == size and (row.until_size is None or size < row.until_size)
    ]


def read_vkeys(connection: Connection, scope: Scope, origin: str | None = None) -> tuple[str, ...]:
    """Return the verifier keys of the log, oldest first; only those of one ``origin`` if it is given."""
    vkeys = [row.vkey for row in connection.execute(_KEYS, {"t": scope.plane})]
    return tuple(vkey for vkey in vkeys if origin is None or VerifierKey.parse(vkey).name == origin)


def signers(connection: Connection, keys: KeyRing, scope: Scope, size: int) -> list[Ed25519PrivateKey]:
    """Return the private keys that sign a checkpoint of ``size``."""
    return [
        Ed25519PrivateKey.from_private_bytes(keys.open(row.sealed_seed, tenant=scope.plane, place=_place(row.key_id)))
        for row in connection.execute(_KEYS, {"t": scope.plane})
        if row.since_size <= size and (row.until_size is None or size < row.until_size)
    ]


class _Locked(NamedTuple):
    origin: str
    size: int


def _locked(connection: Connection, scope: Scope) -> _Locked:
    """Read the log and keep it from growing, and from getting another key, until this transaction ends."""
    row = connection.execute(_LOCK_LOG, {"t": scope.plane}).one_or_none()
    if row is None:
        raise NotFoundError("this tenant has no log.")
    return _Locked(row.origin, row.size)


def _insert_key(
    connection: Connection,
    keys: KeyRing,
    scope: Scope,
    origin: str,
    *,
    since: int,
    private: Ed25519PrivateKey | None = None,
) -> VerifierKey:
    private_key = private or Ed25519PrivateKey.generate()
    vkey = VerifierKey.of(origin, private_key)
    key_id = vkey.id.hex()
    connection.execute(
        _INSERT_KEY,
        {
            "tenant_id": scope.plane,
            "key_id": key_id,
            "vkey": str(vkey),
            "sealed_seed": keys.seal(private_key.private_bytes_raw(), tenant=scope.plane, place=_place(key_id)),
            "since_size": since,
        },
    )
    return vkey


def _place(key_id: str) -> str:
    return f"signing_key.sealed_seed/{key_id}"
