"""What step-up methods may ask about who is listed: of the customer at hand, and of no other."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, bindparam, select
from sqlalchemy.exc import IntegrityError

from shared_record.access.entitlements import (
    DOMAIN,
    EMAIL,
    ONE,
    Owner,
    Rule,
    domain,
    email,
    open_rule,
    subject,
    unseal_owner,
)
from shared_record.access.sessions import Visit
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.schema import customer, pinned_address
from shared_record.errors import InvalidInputError, NotFoundError
from shared_record.keys import KeyRing
from shared_record.tenancy.customers import customer_key_place

_T: BindParameter[UUID] = bindparam("t")
_WHO: BindParameter[UUID] = bindparam("who")
_KEY = select(customer.c.sealed_key).where(customer.c.tenant_id == _T, customer.c.customer_id == _WHO)
_PINNED = select(pinned_address.c.subject).where(
    pinned_address.c.tenant_id == _T,
    pinned_address.c.customer_id == _WHO,
    pinned_address.c.address == bindparam("address"),
)


def listed(db: Database, keys: KeyRing, clock: Clock) -> Callable[[Visit], Listed]:
    """Return what makes, for one look at a link, the answers about its customer."""
    return lambda seen: Listed(db, keys, clock, seen)


class Listed:
    """The rules of one customer, as step-up methods may ask about them. Each question is a query of its own."""

    def __init__(self, db: Database, keys: KeyRing, clock: Clock, seen: Visit) -> None:
        self._db = db
        self._keys = keys
        self._clock = clock
        self._scope = seen.scope
        self._customer_id = seen.customer_id

    def email(self, text: str) -> str | None:
        """Return the listed address that equals ``text``, capitals aside; the work is the same if there is none."""
        rule = _or_none(email, text) or Rule(EMAIL, "")
        with self._db.read(self._scope) as connection:
            owner = self._owner(connection)
            row = self._find(connection, owner, rule)
        if row is None:
            self._keys.open(owner.sealed_key, tenant=self._scope.plane, place=customer_key_place(owner.customer_id))
            return None
        return open_rule(self._keys, self._scope, row).value

    def subject(self, issuer: str, name: str) -> bool:
        """Tell whether this person is listed."""
        rule = _or_none(subject, issuer, name)
        return rule is not None and self._is_listed(rule)

    def domain(self, text: str) -> bool:
        """Tell whether the addresses of this domain are listed."""
        rule = _or_none(domain, text)
        return rule is not None and self._is_listed(rule)

    def pin(self, issuer: str, name: str, address: str) -> bool:
        """Tie a listed address, or one of a listed domain, to the first person who shows it.

        ``False`` if it is not listed, or is tied to somebody else. Taking the rule away unties it.
        """
        of_person, of_address = _or_none(subject, issuer, name), _or_none(email, address)
        if of_person is None or of_address is None:
            return False
        of_domain = Rule(DOMAIN, of_address.value.rpartition("@")[2])
        try:
            with self._db.write(self._scope) as connection:
                return self._pin(connection, of_person, of_address, of_domain)
        except IntegrityError:  # somebody was faster, or the rule went away
            with self._db.write(self._scope) as connection:
                return self._pin(connection, of_person, of_address, of_domain)

    def _pin(self, connection: Connection, of_person: Rule, of_address: Rule, of_domain: Rule) -> bool:
        owner = self._owner(connection)
        row = self._find(connection, owner, of_address) or self._find(connection, owner, of_domain)
        if row is None:
            return False
        person, address = owner.digest(b"person\0" + of_person.normal), owner.digest(b"pin\0" + of_address.normal)
        found = connection.execute(_PINNED, self._of() | {"address": address}).scalar_one_or_none()
        if found is not None:
            return hmac.compare_digest(found, person)
        connection.execute(
            pinned_address.insert(),
            {
                "tenant_id": self._scope.plane,
                "customer_id": self._customer_id,
                "address": address,
                "subject": person,
                "entitlement_id": row.entitlement_id,
                "created_at": self._clock.now(),
            },
        )
        return True

    def _is_listed(self, rule: Rule) -> bool:
        with self._db.read(self._scope) as connection:
            return self._find(connection, self._owner(connection), rule) is not None

    def _find(self, connection: Connection, owner: Owner, rule: Rule) -> Any:
        return connection.execute(ONE, self._of() | {"rule": owner.digest(rule.normal)}).one_or_none()

    def _owner(self, connection: Connection) -> Owner:
        sealed = connection.execute(_KEY, self._of()).scalar_one_or_none()
        if sealed is None:
            raise NotFoundError("this customer is erased.")
        return unseal_owner(self._keys, self._scope, self._customer_id, sealed)

    def _of(self) -> dict[str, Any]:
        return {"t": self._scope.plane, "who": self._customer_id}


def _or_none(make: Callable[..., Rule], *texts: str) -> Rule | None:
    try:
        return make(*texts)
    except InvalidInputError:
        return None
