"""Customers of a tenant: found by the vendor's id, made on first use together with their link."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, Connection, bindparam, select

from shared_record.clock import Clock, rfc3339
from shared_record.db.prepared import fetch_all
from shared_record.db.schema import customer, link, tenant
from shared_record.db.scope import Scope
from shared_record.delivery import outbox
from shared_record.delivery.events import CUSTOMER_CREATED
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError
from shared_record.keys import KeyRing, handle_digest
from shared_record.languages import LANGUAGES

_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_T: BindParameter[UUID] = bindparam("t")
_FIND = select(customer.c.external_id, customer.c.customer_id, customer.c.sealed_key, customer.c.unit).where(
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
    """A customer's internal id, sealed key (``None`` once erased), and unit where it is not the tenant's."""

    external_id: str
    customer_id: UUID
    sealed_key: bytes | None
    unit: str | None


def find_customers(connection: Connection, scope: Scope, external_ids: Iterable[str]) -> dict[str, CustomerKey]:
    """Return those of ``external_ids`` that exist, by external id."""
    rows = fetch_all(connection, _FIND, {"t": scope.plane, "external_ids": sorted(set(external_ids))})
    return {row.external_id: CustomerKey(*row) for row in rows}


def create_customers(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_ids: Iterable[str],
    *,
    display_name: str | None = None,
    unit: str | None = None,
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
                "unit": unit,
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
        found[external_id] = CustomerKey(external_id, customer_id, sealed, unit)
    connection.execute(_INSERT_CUSTOMER, customers)
    connection.execute(_INSERT_LINK, links)
    outbox.emit_many(connection, clock, scope, CUSTOMER_CREATED, [_created(row) for row in customers])
    return found


def _created(row: dict[str, Any]) -> tuple[UUID, dict[str, Any]]:
    """Return what ``customer.created`` tells of a fresh row."""
    named = {"customerId": row["external_id"], "displayName": row["display_name"]}
    return row["customer_id"], named | {"createdAt": rfc3339(row["created_at"])}


def create_customer(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_id: str,
    *,
    display_name: str | None = None,
    unit: str | None = None,
) -> CustomerKey:
    """Make one customer; ``ConflictError`` (``CUSTOMER_EXISTS``) if there is one with this id, however it came."""
    if not _EXTERNAL_ID.fullmatch(external_id):
        raise InvalidInputError("A customerId has 1 to 128 characters: letters, digits, and _ . : -")
    connection.execute(_TAKE_SLOTS, {"t": scope.plane, "count": 0})  # locks: nobody makes the same one meanwhile
    if find_customers(connection, scope, [external_id]):
        raise ConflictError(
            f"there is a customer {external_id!r} already: a customer is made by its first delta too."
            " Rename it instead, or choose another id.",
            code="CUSTOMER_EXISTS",
        )
    made = create_customers(
        connection, keys, clock, scope, [external_id], display_name=_label(display_name), unit=_label(unit, most=64)
    )
    return made[external_id]


def rename_customer(connection: Connection, scope: Scope, external_id: str, display_name: str) -> None:
    """Set what people call a customer; ``NotFoundError`` (``CUSTOMER_NOT_FOUND``)."""
    found = require_customer(connection, scope, external_id)
    connection.execute(
        customer.update()
        .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
        .values(display_name=bindparam("name")),
        {"t": scope.plane, "who": found.customer_id, "name": _label(display_name)},
    )


def set_language(connection: Connection, scope: Scope, external_id: str, language: str | None) -> None:
    """Set the language of a customer's pages, ``None`` for the tenant's; ``NotFoundError`` (``CUSTOMER_NOT_FOUND``)."""
    if language is not None and language not in LANGUAGES:
        raise InvalidInputError(f"Pages come in these languages: {', '.join(LANGUAGES)}.")
    found = require_customer(connection, scope, external_id)
    connection.execute(
        customer.update()
        .where(customer.c.tenant_id == _T, customer.c.customer_id == bindparam("who"))
        .values(language=bindparam("tag")),
        {"t": scope.plane, "who": found.customer_id, "tag": language},
    )


def _label(text: str | None, *, most: int = 200) -> str | None:
    if text is None:
        return None
    if not text.strip() or len(text) > most or not text.isprintable():
        raise InvalidInputError(f"A name has 1 to {most} printable characters.")
    return text.strip()


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
