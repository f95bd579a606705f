"""Sessions that rest on a sign-in at another site, and end when that site says that the person signed out there.

The database keeps digests under the plane's own key: a stolen one does not tell who has an account where.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam
from sqlalchemy.exc import IntegrityError

from shared_record.access import audit
from shared_record.access.sessions import Behind, reference_of
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import kept_answer, session
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.plugin import Ended, Passed
from shared_record.tenancy.tenants import tenant_key

_T: BindParameter[Any] = bindparam("t")
_END = {
    column.name: session.update()
    .where(
        session.c.tenant_id == _T,
        session.c.method == bindparam("slug"),
        column == bindparam("named"),
        session.c.created_at <= bindparam("until"),
        session.c.revoked_at.is_(None),
    )
    .values(revoked_at=bindparam("now"))
    .returning(session.c.sid_hash, session.c.customer_id)
    for column in (session.c.account, session.c.elsewhere)
}


def behind(connection: Connection, keys: KeyRing, scope: Scope, choice: str, verdict: Passed) -> Behind:
    """Return what a session keeps of the sign-in it rests on."""
    if not verdict.account and not verdict.elsewhere:
        return Behind(choice)
    secret = tenant_key(connection, keys, scope)
    return Behind(choice, _digest(secret, "account", verdict.account), _digest(secret, "elsewhere", verdict.elsewhere))


def end(db: Database, keys: KeyRing, clock: Clock, scopes: list[Scope], slug: str, ended: Ended) -> int | None:
    """End the sessions that ``ended`` names, in each of a tenant's planes; return how many that were.

    ``None`` where the message was taken before; it is noted with the last plane, so one that was cut short may be
    sent again.
    """
    done = 0
    for scope in scopes:
        with db.write(scope) as connection:
            if scope == scopes[-1] and not _is_first(connection, clock, scope, slug, ended.single_use):
                return None
            done += _end(connection, keys, clock, scope, slug, ended)
    return done


def _end(connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, slug: str, ended: Ended) -> int:
    column, text = ("elsewhere", ended.elsewhere) if ended.elsewhere else ("account", ended.account)
    named = _digest(tenant_key(connection, keys, scope), column, text)
    if named is None:
        return 0
    parameters = {"t": scope.plane, "slug": slug, "named": named, "until": ended.at, "now": clock.now()}
    rows = connection.execute(_END[column], parameters).all()
    for row in rows:
        detail = {"session": reference_of(row.sid_hash), "reason": "signed out elsewhere"}
        audit.record(
            connection, scope, clock, "session.revoked", actor="system", customer_id=row.customer_id, detail=detail
        )
    return len(rows)


def _is_first(connection: Connection, clock: Clock, scope: Scope, slug: str, message: str) -> bool:
    """Note a message by its name; ``False`` if that was done before."""
    digest = hashlib.sha256(message.encode())
    row = {
        "tenant_id": scope.plane,
        "owner": "system",
        "route": f"backchannel {slug}",
        "key": digest.hexdigest(),
        "digest": digest.digest(),
        "code": 200,
        "body": b"",
        "created_at": clock.now(),
    }
    try:
        with connection.begin_nested():
            connection.execute(kept_answer.insert(), row)
    except IntegrityError:
        return False
    return True


def _digest(secret: bytes, what: str, text: str) -> bytes | None:
    return hmac.digest(secret, f"{what}\0{text}".encode(), hashlib.sha256) if text else None
