"""What a step-up method needs to know, e.g. a device's seed or its secret at an identity provider: sealed by the core
and handed to that method alone, with each call.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db.schema import customer, customer_secret, method_secret, tenant_method
from shared_record.db.scope import Scope
from shared_record.errors import InvalidInputError
from shared_record.keys import KeyRing
from shared_record.tenancy.customers import require_customer

LONGEST = 4096
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_T: BindParameter[Any] = bindparam("t")
_OF_CUSTOMER = (customer_secret.c.tenant_id == _T) & (customer_secret.c.customer_id == bindparam("who"))
_ALL_OF_CUSTOMER = select(customer_secret.c.secret_id, customer_secret.c.method, customer_secret.c.sealed_secret).where(
    _OF_CUSTOMER
)
_NAMED = (
    (method_secret.c.tenant_id == _T)
    & (method_secret.c.method == bindparam("slug"))
    & (method_secret.c.name == bindparam("name"))
)
_OF_TENANT = select(method_secret.c.secret_id, method_secret.c.sealed_secret).where(_NAMED)


def of_customer(connection: Connection, keys: KeyRing, scope: Scope, customer_id: Any) -> dict[str, bytes]:
    """Return a customer's secrets by method."""
    rows = connection.execute(_ALL_OF_CUSTOMER, {"t": scope.plane, "who": customer_id})
    return {
        row.method: keys.open(row.sealed_secret, tenant=scope.plane, place=_place(customer_secret.name, row.secret_id))
        for row in rows
    }


def of_tenant(connection: Connection, keys: KeyRing, scope: Scope, method: str, name: str) -> bytes | None:
    """Return the tenant's secret of this name for a method, or ``None``."""
    row = connection.execute(_OF_TENANT, {"t": scope.config, "slug": method, "name": name}).one_or_none()
    if row is None:
        return None
    return keys.open(row.sealed_secret, tenant=scope.config, place=_place(method_secret.name, row.secret_id))


def set_customer_secret(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_id: str,
    method: str,
    value: bytes | None,
    actor: str,
) -> None:
    """Set (``None``: remove) what a method knows of one customer. The customer's sessions end."""
    _check(value)
    who = require_customer(connection, scope, external_id).customer_id
    of_one = {"t": scope.plane, "who": who}
    connection.execute(
        customer_secret.delete().where(_OF_CUSTOMER, customer_secret.c.method == bindparam("slug")),
        of_one | {"slug": method},
    )
    if value is not None:
        secret_id = uuid4()
        sealed = keys.seal(value, tenant=scope.plane, place=_place(customer_secret.name, secret_id))
        connection.execute(
            customer_secret.insert(),
            {
                "tenant_id": scope.plane,
                "secret_id": secret_id,
                "customer_id": who,
                "method": method,
                "sealed_secret": sealed,
                "created_at": clock.now(),
            },
        )
    connection.execute(
        customer.update()
        .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
        .values(epoch=customer.c.epoch + 1),
        of_one,
    )
    detail = {"method": method, "set": value is not None}
    audit.record(connection, scope, clock, "secret.changed", actor=actor, customer_id=who, detail=detail)


def set_tenant_secret(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    method: str,
    name: str,
    value: bytes | None,
    actor: str,
) -> None:
    """Set (``None``: remove) a secret of the tenant for a method. Sessions that this method opened end."""
    _check(value)
    if not _NAME.fullmatch(name):
        raise InvalidInputError("A secret's name has 1 to 63 of a-z, 0-9, _ and -, and starts with a letter or digit.")
    named = {"t": scope.config, "slug": method, "name": name}
    connection.execute(method_secret.delete().where(_NAMED), named)
    if value is not None:
        secret_id = uuid4()
        sealed = keys.seal(value, tenant=scope.config, place=_place(method_secret.name, secret_id))
        connection.execute(
            method_secret.insert(),
            {
                "tenant_id": scope.config,
                "secret_id": secret_id,
                "method": method,
                "name": name,
                "sealed_secret": sealed,
                "created_at": clock.now(),
            },
        )
    connection.execute(
        tenant_method.update()
        .where(tenant_method.c.tenant_id == _T, tenant_method.c.slug == bindparam("method_slug"))
        .values(epoch=tenant_method.c.epoch + 1),
        {"t": scope.config, "method_slug": method},
    )
    detail = {"method": method, "name": name, "set": value is not None}
    audit.record(connection, scope, clock, "secret.changed", actor=actor, detail=detail)


def _check(value: bytes | None) -> None:
    if value is not None and not 0 < len(value) <= LONGEST:
        raise InvalidInputError(f"A secret has 1 to {LONGEST:,} bytes.")


def _place(table: str, secret_id: Any) -> str:
    return f"{table}.sealed_secret/{secret_id}"
