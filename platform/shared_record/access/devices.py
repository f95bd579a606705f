"""Trusted devices: a browser that passed once keeps limits of its own, so that an attack on the record cannot shut it
out. Being trusted opens nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.access.sessions import Visit
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import trusted_device
from shared_record.db.scope import Scope

LIFETIME = timedelta(days=180)
MAX_TRUSTED = 50
"""Trusted devices of one link; a further one takes the place of the oldest."""
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_T: BindParameter[Any] = bindparam("t")
_DEVICE = (trusted_device.c.tenant_id == _T) & (trusted_device.c.digest == bindparam("named"))
_FIND = select(trusted_device.c.digest).where(
    _DEVICE,
    trusted_device.c.customer_id == bindparam("who"),
    trusted_device.c.host == bindparam("here"),
    trusted_device.c.link_epoch == bindparam("printed"),
    trusted_device.c.code_epoch == bindparam("code"),
    trusted_device.c.expires_at > bindparam("now"),
)
_RESERVE = (
    trusted_device.update()
    .where(_DEVICE, trusted_device.c.tries < bindparam("most"))
    .values(tries=trusted_device.c.tries + 1)
    .returning(trusted_device.c.tries)
)
_GIVE_BACK = trusted_device.update().where(_DEVICE).values(tries=trusted_device.c.tries - 1)
_RESET = trusted_device.update().where(_DEVICE).values(tries=0)
_SWEEP = trusted_device.delete().where(
    trusted_device.c.tenant_id == _T,
    trusted_device.c.customer_id == bindparam("who"),
    (trusted_device.c.expires_at <= bindparam("now"))
    | (trusted_device.c.link_epoch != bindparam("printed"))
    | (trusted_device.c.code_epoch != bindparam("code")),
)

_SWEEP_ALL = trusted_device.delete().where(
    trusted_device.c.tenant_id == _T, trusted_device.c.expires_at <= bindparam("now")
)
_OF_CUSTOMER = (trusted_device.c.tenant_id == _T) & (trusted_device.c.customer_id == bindparam("who"))
_TOO_MANY = (
    select(trusted_device.c.digest)
    .where(_OF_CUSTOMER)
    .order_by(trusted_device.c.created_at.desc(), trusted_device.c.digest)
    .offset(MAX_TRUSTED - 1)
)
_FORGET = trusted_device.delete().where(_DEVICE)


@dataclass(frozen=True, slots=True)
class Device:
    """A trusted device, by the digest of its cookie."""

    digest: bytes


def cookie_name(link_id: UUID, *, secure: bool) -> str:
    """Return the name of the cookie by which a device of one link is known again."""
    return f"{'__Host-' if secure else ''}sr-dv-{link_id.hex[:8]}"


def find(connection: Connection, seen: Visit, cookie: str, now: datetime) -> Device | None:
    """Return the trusted device with this cookie; ``None`` on another host or record, or after a new code or link."""
    if not _VALUE.fullmatch(cookie):
        return None
    digest = connection.execute(_FIND, _bound(seen, now) | {"named": _digest(cookie)}).scalar_one_or_none()
    return None if digest is None else Device(digest)


def reserve(connection: Connection, seen: Visit, device: Device, most: int) -> int | None:
    """Count one answer of the device before it is judged; ``None`` when it has used up its ``most`` in a row."""
    parameters = {"t": seen.scope.plane, "named": device.digest, "most": most}
    return connection.execute(_RESERVE, parameters).scalar_one_or_none()


def give_back(connection: Connection, seen: Visit, device: Device) -> None:
    """Take back one answer that was counted but not judged."""
    connection.execute(_GIVE_BACK, {"t": seen.scope.plane, "named": device.digest})


def trust(connection: Connection, seen: Visit, held: Device | None, now: datetime) -> str | None:
    """Trust the browser that has just passed; return its new cookie, or ``None`` if it is trusted already."""
    if held is not None:
        connection.execute(_RESET, {"t": seen.scope.plane, "named": held.digest})
        return None
    connection.execute(_SWEEP, _bound(seen, now))
    of_customer = {"t": seen.scope.plane, "who": seen.customer_id}
    for digest in list(connection.execute(_TOO_MANY, of_customer).scalars()):
        connection.execute(_FORGET, {"t": seen.scope.plane, "named": digest})
    cookie = secrets.token_urlsafe(32)
    connection.execute(
        trusted_device.insert(),
        {
            "tenant_id": seen.scope.plane,
            "digest": _digest(cookie),
            "customer_id": seen.customer_id,
            "host": seen.host,
            "link_epoch": seen.row.link_epoch,
            "code_epoch": seen.row.code_epoch,
            "created_at": now,
            "expires_at": now + LIFETIME,
        },
    )
    return cookie


def sweep(db: Database, clock: Clock, scope: Scope) -> int:
    """Forget the devices of a plane whose time is over; return how many."""
    with db.write(scope) as connection:
        return connection.execute(_SWEEP_ALL, {"t": scope.plane, "now": clock.now()}).rowcount


def _bound(seen: Visit, now: datetime) -> dict[str, Any]:
    return {
        "t": seen.scope.plane,
        "who": seen.customer_id,
        "here": seen.host,
        "printed": seen.row.link_epoch,
        "code": seen.row.code_epoch,
        "now": now,
    }


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
