"""Links and access codes: derived when they are shown, never stored. Every change ends the sessions that rest on it.

A change raises one epoch in its own transaction; a session carries the epochs under which it was issued, so the next
request with it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, bindparam, select

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db.schema import customer, host, link, tenant
from shared_record.db.scope import Scope
from shared_record.db.types import is_set
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError
from shared_record.keys import KeyRing, handle_digest
from shared_record.tenancy.policies import Policy

HANDLE = re.compile(r"[a-z0-9_-]{20,64}", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9]{6,12}", re.ASCII)
INHERIT = "INHERIT"
"""As a customer's policy: the tenant's."""

_T: BindParameter[UUID] = bindparam("t")
_ROW = (
    select(
        customer.c.customer_id,
        customer.c.external_id,
        customer.c.display_name,
        customer.c.home_host,
        customer.c.policy,
        customer.c.code_version,
        customer.c.code_kid,
        customer.c.former_code_kid,
        customer.c.former_code_until,
        link.c.version,
        link.c.kid,
        link.c.sealed_handle,
        link.c.issued_at,
        link.c.revoked_at,
    )
    .select_from(
        customer.outerjoin(
            link, (link.c.tenant_id == customer.c.tenant_id) & (link.c.customer_id == customer.c.customer_id)
        )
    )
    .where(customer.c.tenant_id == _T, customer.c.sealed_key.is_not(None))
)
_BY_EXTERNAL_ID = _ROW.where(customer.c.external_id == bindparam("external_id"))
_BY_ID = _ROW.where(customer.c.customer_id == bindparam("who"))
_ALL = _ROW.order_by(customer.c.slot)
_PRIMARY = select(host.c.host).where(host.c.tenant_id == _T, is_set(host.c.is_primary))
_SERVING = select(host.c.host).where(host.c.tenant_id == _T, host.c.host == bindparam("name"), host.c.role == "serving")
_OF_CUSTOMER = (customer.c.tenant_id == _T) & (customer.c.customer_id == bindparam("who"))
_OF_LINK = (link.c.tenant_id == _T) & (link.c.customer_id == bindparam("who"))


@dataclass(frozen=True, slots=True)
class Link:
    """A customer's link as its vendor prints it. ``handle`` is ``None`` while revoked; the code is shown apart."""

    customer_id: UUID
    external_id: str
    display_name: str | None
    handle: str | None
    host: str | None
    policy: str
    issued_at: datetime
    revoked_at: datetime | None

    @property
    def path(self) -> str | None:
        """The path of the link."""
        return f"/c/{self.handle}" if self.handle else None


def normalise_handle(raw: str) -> str | None:
    """Return a handle as it is looked up (lower case), or ``None`` for what can be none."""
    handle = raw.lower() if raw.isascii() else ""  # the Kelvin sign is a small k otherwise
    return handle if HANDLE.fullmatch(handle) else None


def normalise_code(raw: str) -> str:
    """Return an access code as it is compared: capitals, without spaces and dashes; empty for what can be none."""
    code = re.sub(r"[ \t-]", "", raw[:64])
    return code.upper() if _CODE.fullmatch(code) else ""


def show_link(connection: Connection, keys: KeyRing, scope: Scope, external_id: str) -> Link:
    """Return a customer's link, or raise ``NotFoundError`` (``CUSTOMER_NOT_FOUND``)."""
    return _link(keys, scope, _customer(connection, scope, external_id), _primary(connection, scope))


def find_link(connection: Connection, keys: KeyRing, scope: Scope, customer_id: UUID) -> Link | None:
    """Return the link of a customer by its internal id; ``None`` for one that was erased."""
    row = connection.execute(_BY_ID, {"t": scope.plane, "who": customer_id}).one_or_none()
    return _link(keys, scope, row, _primary(connection, scope)) if row else None


def list_links(connection: Connection, keys: KeyRing, scope: Scope) -> list[Link]:
    """Return the links of all customers, in the order in which they were made."""
    primary = _primary(connection, scope)
    return [_link(keys, scope, row, primary) for row in connection.execute(_ALL, {"t": scope.plane})]


def revoke_link(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, actor: str
) -> Link:
    """Turn a link off for good: it answers like one that never was, and its sessions end. Twice is an error."""
    row = _customer(connection, scope, external_id)
    if row.revoked_at is not None:
        raise ConflictError(f"the link of {external_id!r} is already revoked.", code="LINK_REVOKED")
    connection.execute(
        link.update().where(_OF_LINK).values(revoked_at=clock.now(), epoch=link.c.epoch + 1),
        {"t": scope.plane, "who": row.customer_id},
    )
    audit.record(connection, scope, clock, "link.revoked", actor=actor, customer_id=row.customer_id)
    return show_link(connection, keys, scope, external_id)


def issue_link(connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, actor: str) -> Link:
    """Give a customer whose link was revoked a new one; one that has a working link keeps it, which is an error."""
    if _customer(connection, scope, external_id).revoked_at is None:
        raise ConflictError(
            f"{external_id!r} has a link that works. Use `link show` to see it, `link reissue` to replace it.",
            code="LINK_EXISTS",
        )
    return reissue_link(connection, keys, clock, scope, external_id, actor)


def reissue_link(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, actor: str
) -> Link:
    """Replace a customer's link by a new one: the old one stops working and its sessions end."""
    row = _customer(connection, scope, external_id)
    version = row.version + 1
    connection.execute(
        link.update()
        .where(_OF_LINK)
        .values(
            version=version,
            kid=keys.active,
            digest=handle_digest(keys.handle(keys.active, scope.plane, row.customer_id, version)),
            epoch=link.c.epoch + 1,
            tries=0,
            issued_at=clock.now(),
            revoked_at=None,
            sealed_handle=None,
        ),
        {"t": scope.plane, "who": row.customer_id},
    )
    audit.record(connection, scope, clock, "link.reissued", actor=actor, customer_id=row.customer_id)
    return show_link(connection, keys, scope, external_id)


def reveal_code(connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, actor: str) -> str:
    """Return a customer's access code. Each reveal is audited."""
    row = _customer(connection, scope, external_id)
    audit.record(connection, scope, clock, "code.revealed", actor=actor, customer_id=row.customer_id)
    return keys.access_code(row.code_kid, scope.plane, row.customer_id, row.code_version)


def rotate_code(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_id: str,
    actor: str,
    *,
    overlap: timedelta = timedelta(0),
) -> str:
    """Replace a customer's access code and return the new one; all sessions end.

    During ``overlap`` the former code opens the record too, so that the last invoice still works.
    """
    row = _customer(connection, scope, external_id)
    version = row.code_version + 1
    connection.execute(
        customer.update()
        .where(_OF_CUSTOMER)
        .values(
            code_version=version,
            code_kid=keys.active,
            former_code_kid=row.code_kid,
            former_code_until=clock.now() + overlap if overlap else None,
            code_epoch=customer.c.code_epoch + 1,
        ),
        {"t": scope.plane, "who": row.customer_id},
    )
    connection.execute(link.update().where(_OF_LINK).values(tries=0), {"t": scope.plane, "who": row.customer_id})
    audit.record(
        connection,
        scope,
        clock,
        "code.rotated",
        actor=actor,
        customer_id=row.customer_id,
        detail={"version": version, "overlap_seconds": int(overlap.total_seconds())},
    )
    return keys.access_code(keys.active, scope.plane, row.customer_id, version)


def set_tenant_policy(connection: Connection, clock: Clock, scope: Scope, policy: Policy, actor: str) -> bool:
    """Set the tenant's policy; return whether it changed. A change ends every session of the tenant."""
    changed = connection.execute(
        tenant.update()
        .where(tenant.c.tenant_id == _T, tenant.c.policy != policy.value)
        .values(policy=policy.value, epoch=tenant.c.epoch + 1),
        {"t": scope.config},
    )
    if changed.rowcount:
        audit.record(connection, scope, clock, "policy.changed", actor=actor, detail={"policy": policy.value})
    return bool(changed.rowcount)


def set_customer_policy(
    connection: Connection, clock: Clock, scope: Scope, external_id: str, policy: str, actor: str
) -> bool:
    """Set a customer's own policy, or ``INHERIT`` the tenant's; return whether it changed. A change ends sessions."""
    if policy != INHERIT:
        policy = Policy(policy).value
    row = _customer(connection, scope, external_id)
    own = None if policy == INHERIT else policy
    if row.policy == own:
        return False
    connection.execute(
        customer.update().where(_OF_CUSTOMER).values(policy=own, epoch=customer.c.epoch + 1),
        {"t": scope.plane, "who": row.customer_id},
    )
    audit.record(
        connection, scope, clock, "policy.changed", actor=actor, customer_id=row.customer_id, detail={"policy": policy}
    )
    return True


def move_host(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, name: str, actor: str
) -> Link:
    """Make ``name``, a serving host of the tenant, the customer's home host.

    Sessions end, links opened on the tenant's other hosts redirect there, and access starts anew.
    """
    row = _customer(connection, scope, external_id)
    if connection.execute(_SERVING, {"t": scope.config, "name": name}).one_or_none() is None:
        raise InvalidInputError(f"{name} is not a serving host of this tenant.", code="UNKNOWN_HOST")
    before = row.home_host or _primary(connection, scope)
    if before != name:
        connection.execute(
            customer.update().where(_OF_CUSTOMER).values(home_host=name, epoch=customer.c.epoch + 1),
            {"t": scope.plane, "who": row.customer_id},
        )
        audit.record(
            connection,
            scope,
            clock,
            "customer.moved",
            actor=actor,
            customer_id=row.customer_id,
            detail={"from": before, "to": name},
        )
    return show_link(connection, keys, scope, external_id)


def handle_place(customer_id: UUID) -> str:
    """Return the place that a handle printed elsewhere is sealed for."""
    return f"link.sealed_handle/{customer_id}"


def codes_now_valid(
    keys: KeyRing,
    plane: UUID,
    customer_id: UUID,
    *,
    version: int,
    kid: str,
    former_kid: str | None,
    former_until: datetime | None,
    now: datetime,
) -> tuple[str, ...]:
    """Return the access codes that open the record now; the former one is computed in any case, for equal time."""
    code = keys.access_code(kid, plane, customer_id, version)
    former = keys.access_code(former_kid or kid, plane, customer_id, max(version - 1, 0))
    return (code, former) if former_until is not None and now < former_until else (code,)


def _customer(connection: Connection, scope: Scope, external_id: str) -> Row[*tuple[Any, ...]]:
    row = connection.execute(_BY_EXTERNAL_ID, {"t": scope.plane, "external_id": external_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no customer {external_id!r}.", code="CUSTOMER_NOT_FOUND")
    return row


def _primary(connection: Connection, scope: Scope) -> str | None:
    return connection.execute(_PRIMARY, {"t": scope.config}).scalar_one_or_none()


def _link(keys: KeyRing, scope: Scope, row: Row[*tuple[Any, ...]], primary: str | None) -> Link:
    return Link(
        row.customer_id,
        row.external_id,
        row.display_name,
        _handle(keys, scope, row) if row.revoked_at is None else None,
        row.home_host or primary,
        row.policy or INHERIT,
        row.issued_at,
        row.revoked_at,
    )


def _handle(keys: KeyRing, scope: Scope, row: Row[*tuple[Any, ...]]) -> str:
    if row.sealed_handle is None:
        return keys.handle(row.kid, scope.plane, row.customer_id, row.version)
    return keys.open(row.sealed_handle, tenant=scope.plane, place=handle_place(row.customer_id)).decode()
