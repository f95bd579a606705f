"""Challenges: a step-up that waits for a second answer, bound to one browser, host and record, and to all epochs.

Whoever knows the ticket can answer it from that browser only, a few times, until it expires, once with success. The
database keeps SHA-256 of the ticket; what the method remembers is sealed for this one row.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select
from sqlalchemy.sql.elements import ColumnElement

from shared_record.access.sessions import Visit
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import challenge
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.keys import KeyRing
from shared_record.plugin import Challenge, Field

TABS = 5
"""Challenges of one method that sent one browser elsewhere, of one record, that live at a time."""

_T: BindParameter[Any] = bindparam("t")
_EPOCHS = ("tenant_epoch", "host_epoch", "link_epoch", "code_epoch", "customer_epoch", "method_epoch")


@dataclass(frozen=True, slots=True)
class Place:
    """What a challenge is bound to beside host, record and epochs: the method, the choice of it, and the browser."""

    method: str
    choice: str
    method_epoch: int
    binding: str = field(repr=False)

    @property
    def binding_hash(self) -> bytes:
        """What the database keeps of the browser's cookie."""
        return hashlib.sha256(self.binding.encode()).digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of a challenge: what was asked, the method's state, and where success leads."""

    asked: Challenge
    handle: str = field(repr=False)
    target: str = field(repr=False)
    expires_at: datetime


def digest_of(ticket: str) -> bytes:
    """Return what the database keeps of a ticket."""
    return hashlib.sha256(ticket.encode()).digest()


def keep(
    connection: Connection, keys: KeyRing, seen: Visit, place: Place, ticket: str, kept: Kept, now: datetime
) -> None:
    """Write a new challenge. The same browser's older one by this method ends, and expired ones are removed.

    Of those that sent the browser elsewhere the newest few stay: two tabs can each come back.
    """
    scope, digest = seen.scope, digest_of(ticket)
    parameters = {"t": scope.plane, "who": seen.customer_id, "now": now}
    connection.execute(_SWEEP, parameters)
    of_browser = parameters | {"slug": place.method, "browser": place.binding_hash}
    connection.execute(_KEEP_SOME if kept.asked.redirect else _REPLACE, of_browser)
    connection.execute(
        challenge.insert(),
        {
            "tenant_id": scope.plane,
            "digest": digest,
            "customer_id": seen.customer_id,
            "host": seen.host,
            "method": place.method,
            "choice": place.choice,
            "binding": place.binding_hash,
            **_epochs(seen, place),
            "sealed": keys.seal(_packed(kept), tenant=scope.plane, place=_place(digest)),
            "created_at": now,
            "expires_at": kept.expires_at,
        },
    )


def take_try(
    connection: Connection, keys: KeyRing, seen: Visit, place: Place, ticket: str, most: int, now: datetime
) -> Kept | None:
    """Use one try of a challenge and return what was kept; ``None`` if there is none such, or no try left.

    ``most`` 0 looks at it without using a try.
    """
    digest = digest_of(ticket)
    parameters = {
        "t": seen.scope.plane,
        "named": digest,
        "who": seen.customer_id,
        "here": seen.host,
        "slug": place.method,
        "option": place.choice,
        "browser": place.binding_hash,
        "now": now,
        **{f"e_{name}": value for name, value in _epochs(seen, place).items()},
    }
    statement = _TRY if most else _LOOK
    row = connection.execute(statement, parameters | ({"most": most} if most else {})).one_or_none()
    if row is None:
        return None
    try:
        sealed = keys.open(row.sealed, tenant=seen.scope.plane, place=_place(digest))
    except UnavailableError:
        return None  # sealed under a key that was retired since
    return _unpacked(sealed, row.expires_at)


def use_up(connection: Connection, seen: Visit, ticket: str) -> bool:
    """Remove a challenge that was answered; ``False`` if somebody else did already."""
    parameters = {"t": seen.scope.plane, "named": digest_of(ticket)}
    return connection.execute(_USE_UP, parameters).one_or_none() is not None


def sweep(db: Database, clock: Clock, scope: Scope) -> int:
    """Delete the challenges of a plane that have expired; return how many."""
    with db.write(scope) as connection:
        return connection.execute(_SWEEP_ALL, {"t": scope.plane, "now": clock.now()}).rowcount


def _epochs(seen: Visit, place: Place) -> dict[str, int]:
    row = seen.row
    current = (row.tenant_epoch, row.host_epoch or 0, row.link_epoch, row.code_epoch, row.customer_epoch)
    return dict(zip(_EPOCHS, (*current, place.method_epoch), strict=True))


def _place(digest: bytes) -> str:
    return f"challenge.sealed/{digest.hex()}"


def _packed(kept: Kept) -> bytes:
    asked = kept.asked
    document = {
        "fields": [asdict(one) for one in asked.fields],
        "button": asked.button,
        "text": asked.text,
        "again": asked.again,
        "state": base64.b64encode(asked.state).decode(),
        "handle": kept.handle,
        "target": kept.target,
    }
    return json.dumps(document).encode()


def _unpacked(sealed: bytes, expires_at: datetime) -> Kept:
    document = json.loads(sealed)
    asked = Challenge(
        fields=tuple(Field(**one) for one in document["fields"]),
        button=document["button"],
        text=document["text"],
        again=document["again"],
        state=base64.b64decode(document["state"]),
    )
    return Kept(asked, document["handle"], document["target"], expires_at)


def _is_current() -> ColumnElement[bool]:
    condition = (
        (challenge.c.tenant_id == _T)
        & (challenge.c.digest == bindparam("named"))
        & (challenge.c.customer_id == bindparam("who"))
        & (challenge.c.host == bindparam("here"))
        & (challenge.c.method == bindparam("slug"))
        & (challenge.c.choice == bindparam("option"))
        & (challenge.c.binding == bindparam("browser"))
        & (challenge.c.expires_at > bindparam("now"))
    )
    for name in _EPOCHS:
        condition &= challenge.c[name] == bindparam(f"e_{name}")
    return condition


_OF_CUSTOMER = (challenge.c.tenant_id == _T) & (challenge.c.customer_id == bindparam("who"))
_SWEEP = challenge.delete().where(_OF_CUSTOMER, challenge.c.expires_at <= bindparam("now"))
_SWEEP_ALL = challenge.delete().where(challenge.c.tenant_id == _T, challenge.c.expires_at <= bindparam("now"))
_OF_BROWSER = _OF_CUSTOMER & (challenge.c.method == bindparam("slug")) & (challenge.c.binding == bindparam("browser"))
_REPLACE = challenge.delete().where(_OF_BROWSER)
_OLDER = select(challenge.c.digest).where(_OF_BROWSER).order_by(challenge.c.created_at.desc(), challenge.c.digest)
_KEEP_SOME = challenge.delete().where(_OF_BROWSER, challenge.c.digest.in_(_OLDER.offset(TABS - 1).limit(100)))
_TRY = (
    challenge.update()
    .where(_is_current(), challenge.c.tries < bindparam("most"))
    .values(tries=challenge.c.tries + 1)
    .returning(challenge.c.sealed, challenge.c.expires_at)
)
_LOOK = challenge.select().where(_is_current())
_USE_UP = (
    challenge.delete()
    .where(challenge.c.tenant_id == _T, challenge.c.digest == bindparam("named"))
    .returning(challenge.c.digest)
)
