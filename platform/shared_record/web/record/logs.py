"""Where the log of a tenant is served."""

from __future__ import annotations

from sqlalchemy import Connection

from shared_record.db.scope import Scope
from shared_record.ledger.origin import ordinal_of
from shared_record.ledger.proofs import newest_checkpoint
from shared_record.tenancy.tenants import public_id


def log_url(connection: Connection, scope: Scope) -> str:
    """Return where the current origin of the log is served: a later one below its number."""
    newest = newest_checkpoint(connection, scope)
    ordinal = 1 if newest is None else ordinal_of(newest.start)
    return f"/log/{public_id(connection, scope)}" + ("" if ordinal == 1 else f"/{ordinal}")
