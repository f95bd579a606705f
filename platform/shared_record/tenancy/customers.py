"""Customers of a tenant: found by the vendor's id, made on first use together with their link."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.clock import Clock
from shared_record.db.schema import customer, link, tenant
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.keys import KeyRing, handle_digest

_T: BindParameter[UUID] = bindparam("t")
_FIND = select(customer.c.external_id, customer.c.customer_id, customer.c.sealed_key).where(
    customer.c.tenant_id == _T, customer.c.external_id.in_(bindparam("external_ids", expanding=True))
)
_TAKE_SLOTS = (
    tenant.update()
    .where(tenant.c.tenant_id == _T)
    .values(next_slot=tenant.c.next_slot + bindparam("count"))
    .returning(tenant.c.next_slot)
)
_INSERT_CUSTOMER = customer.insert()
_INSERT_LINK = link.insert()


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """A customer's internal id and sealed key (``None`` once erased)."""

    external_id: str
    customer_id: UUID
    sealed_key: bytes | None


def find_customers(connection: Connection, scope: Scope, external_ids: Iterable[str]) -> dict[str, CustomerKey]:
    """Return those of ``external_ids`` that exist, by external id."""
    rows = connection.execute(_FIND, {"t": scope.plane, "external_ids": sorted(set(external_ids))})
    return {row.external_id: CustomerKey(*row) for row in rows}


def create_customers(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_ids: Iterable[str],
    *,
    display_name: str | None = None,
) -> dict[str, CustomerKey]:
    """Return all of ``external_ids``, making those that do not exist yet, each with a slot and an issued link.

    Taking slots locks the tenant row, so two transactions cannot make the same customer.
    """
    wanted = sorted(set(external_ids))
    connection.execute(_TAKE_SLOTS, {"t": scope.plane, "count": 0})
    found = find_customers(connection, scope, wanted)
    missing = [external_id for external_id in wanted if external_id not in found]
    if not missing:
        return found
    end = connection.execute(_TAKE_SLOTS, {"t": scope.plane, "count": len(missing)}).scalar_one()
    now = clock.now()
    customers: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    for slot, external_id in enumerate(missing, start=end - len(missing)):
        customer_id = uuid4()
        sealed = keys.seal(secrets.token_bytes(32), tenant=scope.plane, place=customer_key_place(customer_id))
        customers.append(
            {
                "tenant_id": scope.plane,
                "customer_id": customer_id,
                "external_id": external_id,
                "display_name": display_name,
                "slot": slot,
                "ref": f"s{slot}-{secrets.token_hex(8)}",
                "sealed_key": sealed,
                "code_kid": keys.active,
                "created_at": now,
            }
        )
        links.append(
            {
                "tenant_id": scope.plane,
                "customer_id": customer_id,
                "link_id": uuid4(),
                "version": 1,
                "kid": keys.active,
                "digest": handle_digest(keys.handle(keys.active, scope.plane, customer_id, 1)),
                "issued_at": now,
            }
        )
        found[external_id] = CustomerKey(external_id, customer_id, sealed)
    connection.execute(_INSERT_CUSTOMER, customers)
    connection.execute(_INSERT_LINK, links)
    return found


def require_customer(connection: Connection, scope: Scope, external_id: str) -> CustomerKey:
    """Return the customer with this vendor's id, or raise ``NotFoundError`` (``CUSTOMER_NOT_FOUND``)."""
    found = find_customers(connection, scope, [external_id]).get(external_id)
    if found is None:
        raise NotFoundError(f"there is no customer {external_id!r}.", code="CUSTOMER_NOT_FOUND")
    return found


def customer_key_place(customer_id: UUID) -> str:
    """Return the place a customer's key is sealed for."""
    return f"customer.sealed_key/{customer_id}"


def reference_key(tenant_secret: bytes, customer_id: UUID, reference: str) -> bytes:
    """Return what uniqueness of a customer's ``referenceId`` rests on; it outlives the erasure of the text itself."""
    return hmac.digest(tenant_secret, b"ref\0" + customer_id.bytes + reference.encode(), hashlib.sha256)
