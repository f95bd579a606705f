"""Who may step up at a record: e-mail addresses, e-mail domains, and persons as an identity provider names them.

A rule belongs to one customer. It is found by an HMAC under that customer's own key and kept sealed. Taking one away
ends the customer's sessions, and every step-up under way, in the same transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BindParameter, Connection, Select, bindparam, select

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db.schema import customer, entitlement, host, pinned_address, tenant
from shared_record.db.scope import Scope
from shared_record.db.types import is_set
from shared_record.delivery.mail import Letter, compared, read_address, read_domain
from shared_record.delivery.mailer import queue
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError
from shared_record.keys import KeyRing
from shared_record.tenancy.customers import customer_key_place

MAX_RULES = 200
"""Rules of one customer."""
MAX_SUBJECT = 255
MAX_ISSUER = 500
NOTICE, NOTICE_FOR = "access", timedelta(days=1)

EMAIL, DOMAIN, SUBJECT = "email", "email_domain", "oidc_subject"

_T: BindParameter[UUID] = bindparam("t")
_C: BindParameter[UUID] = bindparam("config_id")
_WHO: BindParameter[UUID] = bindparam("who")
_FIND = select(customer.c.customer_id, customer.c.sealed_key).where(
    customer.c.tenant_id == _T,
    customer.c.external_id == bindparam("external_id"),
    customer.c.sealed_key.is_not(None),
)
_LOCK = _FIND.with_for_update()
_OF_CUSTOMER = (entitlement.c.tenant_id == _T) & (entitlement.c.customer_id == _WHO)
_ALL = select(entitlement).where(_OF_CUSTOMER).order_by(entitlement.c.kind, entitlement.c.created_at)
ONE = select(entitlement).where(_OF_CUSTOMER, entitlement.c.digest == bindparam("rule"))
_REMOVE = entitlement.delete().where(entitlement.c.tenant_id == _T, entitlement.c.entitlement_id == bindparam("id"))
_UNPIN = pinned_address.delete().where(
    pinned_address.c.tenant_id == _T, pinned_address.c.entitlement_id == bindparam("id")
)
_END_SESSIONS = (
    customer.update()
    .where(customer.c.tenant_id == _T, customer.c.customer_id == _WHO)
    .values(epoch=customer.c.epoch + 1)
)
_NAMES = (
    select(tenant.c.name, tenant.c.contact, host.c.host)
    .select_from(
        tenant.outerjoin(
            host, (host.c.tenant_id == tenant.c.tenant_id) & is_set(host.c.is_primary) & (host.c.role == "serving")
        )
    )
    .where(tenant.c.tenant_id == _C)
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it is stored. ``email`` and ``domain`` have ``issuer`` empty."""

    kind: str
    value: str
    issuer: str = ""

    @property
    def normal(self) -> bytes:
        """What decides whether two rules are the same."""
        value = compared(self.value) if self.kind == EMAIL else self.value
        return json.dumps([self.kind, self.issuer, value]).encode()


@dataclass(frozen=True, slots=True)
class Owner:
    """A customer whose rules are read or changed: its id, and its key as it is and as it is sealed."""

    customer_id: UUID
    key: bytes
    sealed_key: bytes

    def digest(self, what: bytes) -> bytes:
        """Return what is kept of ``what`` to find it again."""
        return hmac.digest(self.key, b"entitlement\0" + what, hashlib.sha256)


def email(text: str) -> Rule:
    """Return the rule that lists one e-mail address; ``InvalidInputError`` if it is none."""
    return Rule(EMAIL, read_address(text))


def domain(text: str) -> Rule:
    """Return the rule that lists every address of exactly this domain; ``InvalidInputError`` if it is none."""
    return Rule(DOMAIN, read_domain(text.removeprefix("@")))


def subject(issuer: str, name: str) -> Rule:
    """Return the rule that lists one person, by the identity provider's ``iss`` and ``sub`` (OpenID Connect)."""
    for what, text, most in (("issuer", issuer, MAX_ISSUER), ("subject", name, MAX_SUBJECT)):
        if not 0 < len(text) <= most or not text.isascii() or not text.isprintable():
            raise InvalidInputError(f"The {what} has 1 to {most} printable ASCII characters.")
    if not issuer.startswith(("https://", "http://")):
        raise InvalidInputError("The issuer is the identity provider's URL, as its tokens have it.")
    return Rule(SUBJECT, name, issuer)


# --- Changing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes rules, and whether addresses that are taken away are told by mail."""

    actor: str
    tell: bool


def list_rules(connection: Connection, keys: KeyRing, scope: Scope, external_id: str) -> list[Rule]:
    """Return a customer's rules; ``NotFoundError`` (``CUSTOMER_NOT_FOUND``)."""
    owner = _owner(connection, keys, scope, external_id, _FIND)
    return [open_rule(keys, scope, row) for row in connection.execute(_ALL, _of(scope, owner))]


def allow(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, rule: Rule, actor: str
) -> bool:
    """List one more; return whether it was not listed before. ``ConflictError`` where there are too many."""
    owner = _owner(connection, keys, scope, external_id)
    present = connection.execute(_ALL, _of(scope, owner)).all()
    if owner.digest(rule.normal) in {row.digest for row in present}:
        return False
    if len(present) >= MAX_RULES:
        raise ConflictError(f"A customer has at most {MAX_RULES} rules.", code="TOO_MANY_RULES")
    _add(connection, keys, clock, scope, owner, rule, actor)
    return True


def deny(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, external_id: str, rule: Rule, change: Change
) -> bool:
    """Take one away, end the customer's sessions, and tell a listed address; return whether it was listed."""
    owner = _owner(connection, keys, scope, external_id)
    row = connection.execute(ONE, _of(scope, owner) | {"rule": owner.digest(rule.normal)}).one_or_none()
    if row is None:
        return False
    _take_away(connection, keys, clock, scope, owner, [row], change)
    return True


def replace(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_id: str,
    rules: Iterable[Rule],
    change: Change,
) -> list[Rule]:
    """Make ``rules`` the customer's rules and return them; what is as asked is not touched."""
    owner = _owner(connection, keys, scope, external_id)
    wanted = {owner.digest(rule.normal): rule for rule in rules}
    if len(wanted) > MAX_RULES:
        raise InvalidInputError(f"A customer has at most {MAX_RULES} rules.")
    present = {row.digest: row for row in connection.execute(_ALL, _of(scope, owner))}
    gone = [row for digest, row in present.items() if digest not in wanted]
    if gone:
        _take_away(connection, keys, clock, scope, owner, gone, change)
    for digest, rule in wanted.items():
        if digest not in present:
            _add(connection, keys, clock, scope, owner, rule, change.actor)
    return list_rules(connection, keys, scope, external_id)


def _add(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, owner: Owner, rule: Rule, actor: str
) -> None:
    rule_id = uuid4()
    value = json.dumps([rule.issuer, rule.value]).encode()
    connection.execute(
        entitlement.insert(),
        {
            "tenant_id": scope.plane,
            "entitlement_id": rule_id,
            "customer_id": owner.customer_id,
            "kind": rule.kind,
            "digest": owner.digest(rule.normal),
            "sealed_value": keys.seal(value, tenant=scope.plane, place=_place(rule_id)),
            "created_at": clock.now(),
        },
    )
    detail = {"kind": rule.kind, "rule": str(rule_id)}
    audit.record(connection, scope, clock, "access.allowed", actor=actor, customer_id=owner.customer_id, detail=detail)


def _take_away(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, owner: Owner, rows: Iterable[Any], change: Change
) -> None:
    for row in rows:
        connection.execute(_UNPIN, {"t": scope.plane, "id": row.entitlement_id})
        connection.execute(_REMOVE, {"t": scope.plane, "id": row.entitlement_id})
        detail = {"kind": row.kind, "rule": str(row.entitlement_id)}
        audit.record(
            connection, scope, clock, "access.denied", actor=change.actor, customer_id=owner.customer_id, detail=detail
        )
        if change.tell and row.kind == EMAIL:
            letter = _notice(connection, scope, open_rule(keys, scope, row).value)
            queue(connection, keys, clock, scope, owner.customer_id, NOTICE, letter, valid_for=NOTICE_FOR)
    connection.execute(_END_SESSIONS, _of(scope, owner))


def _notice(connection: Connection, scope: Scope, to: str) -> Letter:
    names = connection.execute(_NAMES, {"config_id": scope.config}).one()
    where = f" at {names.host}" if names.host else ""
    body = (
        f"This address was taken off the list of those that can open a usage record of {names.name}{where}.\n\n"
        "No code is sent to it any more, and whoever had opened the record has to do so anew.\n\n"
        f"If you did not expect this, ask {names.name}{f': {names.contact}' if names.contact else ''}.\n"
    )
    return Letter(to, f"{names.name[:150]} usage record: this address was removed", body)


def _owner(
    connection: Connection, keys: KeyRing, scope: Scope, external_id: str, statement: Select[tuple[UUID, Any]] = _LOCK
) -> Owner:
    row = connection.execute(statement, {"t": scope.plane, "external_id": external_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no customer {external_id!r}.", code="CUSTOMER_NOT_FOUND")
    return unseal_owner(keys, scope, row.customer_id, row.sealed_key)


def unseal_owner(keys: KeyRing, scope: Scope, customer_id: UUID, sealed: bytes) -> Owner:
    """Return a customer with its key opened."""
    return Owner(customer_id, keys.open(sealed, tenant=scope.plane, place=customer_key_place(customer_id)), sealed)


def _of(scope: Scope, owner: Owner) -> dict[str, Any]:
    return {"t": scope.plane, "who": owner.customer_id}


def open_rule(keys: KeyRing, scope: Scope, row: Any) -> Rule:
    """Return the rule that a row of ``entitlement`` holds."""
    issuer, value = json.loads(keys.open(row.sealed_value, tenant=scope.plane, place=_place(row.entitlement_id)))
    return Rule(row.kind, value, issuer)


def _place(rule_id: UUID) -> str:
    return f"entitlement.sealed_value/{rule_id}"
