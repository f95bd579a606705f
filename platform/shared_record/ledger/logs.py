"""A tenant's log: its origin, fixed for ever when it is made, and its signing keys."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, bindparam, select

from shared_record.clock import Clock, period_bounds, period_of
from shared_record.db.leases import create_job
from shared_record.db.schema import log, signing_key
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger.note import VerifierKey

SEQUENCER = "sequencer"
"""The kind of lease under which a log grows."""

_INSERT_LOG = log.insert()
_INSERT_KEY = signing_key.insert()
_KEYS = select(signing_key).where(signing_key.c.tenant_id == bindparam("t")).order_by(signing_key.c.since_size)


def create_log(connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, origin: str) -> None:
    """Make the log of a data plane under ``origin`` (``<host>/log/<public id>``), with a new Ed25519 key."""
    private_key = Ed25519PrivateKey.generate()
    vkey = VerifierKey.of(origin, private_key)
    connection.execute(_INSERT_LOG, {"tenant_id": scope.plane, "origin": origin, "frontier": b""})
    key_id = vkey.id.hex()
    connection.execute(
        _INSERT_KEY,
        {
            "tenant_id": scope.plane,
            "key_id": key_id,
            "vkey": str(vkey),
            "sealed_seed": keys.seal(private_key.private_bytes_raw(), tenant=scope.plane, place=_place(key_id)),
            "since_size": 0,
        },
    )
    create_job(connection, scope, SEQUENCER, period_bounds(period_of(clock.now()))[1])


def read_vkeys(connection: Connection, scope: Scope) -> tuple[str, ...]:
    """Return the verifier keys of the log, oldest first."""
    return tuple(row.vkey for row in connection.execute(_KEYS, {"t": scope.plane}))


def signers(connection: Connection, keys: KeyRing, scope: Scope, size: int) -> list[Ed25519PrivateKey]:
    """Return the private keys that sign a checkpoint of ``size``."""
    return [
        Ed25519PrivateKey.from_private_bytes(keys.open(row.sealed_seed, tenant=scope.plane, place=_place(row.key_id)))
        for row in connection.execute(_KEYS, {"t": scope.plane})
        if row.since_size <= size and (row.until_size is None or size < row.until_size)
    ]


def _place(key_id: str) -> str:
    return f"signing_key.sealed_seed/{key_id}"
