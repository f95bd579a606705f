"""Who may open a customer's record by e-mail code or sign-in: ``/api/v1/customers/{customerId}/access``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from shared_record.access import entitlements
from shared_record.access.apikeys import ACCESS_MANAGE
from shared_record.access.entitlements import DOMAIN, EMAIL, MAX_RULES, Change, Rule
from shared_record.delivery.mail import MAX_ADDRESS, open_post
from shared_record.errors import Detail, InvalidInputError
from shared_record.web.api.json_body import invalid
from shared_record.web.api.operations import Call, Operation, blueprint, operation
from shared_record.web.api.shapes import Answer, Body, CustomerId

access_api = blueprint("access_api", "/api/v1/customers")

Address = Annotated[str, Field(min_length=3, max_length=MAX_ADDRESS, examples=["anna@northwind.example"])]
DomainName = Annotated[str, Field(min_length=1, max_length=253, examples=["northwind.example"])]
Issuer = Annotated[str, Field(min_length=1, max_length=entitlements.MAX_ISSUER)]
Subject = Annotated[str, Field(min_length=1, max_length=entitlements.MAX_SUBJECT)]


class SubjectBody(Body):
    """One person, by the ``iss`` and ``sub`` of an identity provider's tokens (OpenID Connect)."""

    issuer: Issuer
    subject: Subject


class AccessBody(Body):
    """The whole list: what is absent from it is taken away."""

    emails: Annotated[list[Address], Field(max_length=MAX_RULES)]
    email_domains: Annotated[list[DomainName], Field(default_factory=list, max_length=MAX_RULES)]
    oidc_subjects: Annotated[list[SubjectBody], Field(default_factory=list, max_length=MAX_RULES)]


class SubjectAnswer(Answer):
    """One person at an identity provider."""

    issuer: str
    subject: str


class AccessList(Answer):
    """Who may open the record. ``emailDomains`` let people in by sign-in only, never by e-mail code."""

    customer_id: CustomerId
    emails: list[str]
    email_domains: list[str]
    oidc_subjects: list[SubjectAnswer]


@operation(
    access_api,
    "GET",
    "/<customer_id>/access",
    Operation(
        "Who may open a customer's record", answer=AccessList, scope=ACCESS_MANAGE, errors=("CUSTOMER_NOT_FOUND",)
    ),
)
def show(call: Call, customer_id: str) -> dict[str, Any]:
    """Return the list of one customer."""
    with call.app.db.read(call.scope) as connection:
        return _document(customer_id, entitlements.list_rules(connection, call.app.keys, call.scope, customer_id))


@operation(
    access_api,
    "PUT",
    "/<customer_id>/access",
    Operation(
        "Say who may open a customer's record",
        answer=AccessList,
        scope=ACCESS_MANAGE,
        body=AccessBody,
        errors=("CUSTOMER_NOT_FOUND",),
        examples={
            "an address and a domain": {"emails": ["anna@northwind.example"], "emailDomains": ["northwind.example"]},
            "a person at an identity provider": {
                "emails": [],
                "oidcSubjects": [{"issuer": "https://id.northwind.example", "subject": "248289761001"}],
            },
        },
    ),
)
def put(call: Call, customer_id: str) -> dict[str, Any]:
    """Replace the list. Where something is taken away, all sessions at the record end, and an address is told by mail.

    Sending the same list again changes nothing.
    """
    rules = _rules(call.body)
    change = Change(f"key:{call.key.public_id}", tell=open_post(call.app.settings) is not None)
    with call.app.db.write(call.scope) as connection:
        found = entitlements.replace(connection, call.app.keys, call.app.clock, call.scope, customer_id, rules, change)
    return _document(customer_id, found)


def _rules(body: AccessBody) -> list[Rule]:
    """Return the rules of a body; ``InvalidInputError`` with all its mistakes."""
    given = [(f"/emails/{i}", entitlements.email, (text,)) for i, text in enumerate(body.emails)]
    given += [(f"/emailDomains/{i}", entitlements.domain, (text,)) for i, text in enumerate(body.email_domains)]
    rules, details = [], []
    for pointer, make, texts in given:
        try:
            rules.append(make(*texts))
        except InvalidInputError as error:
            details.append(Detail(pointer, "VALIDATION_ERROR", error.message))
    for i, one in enumerate(body.oidc_subjects):
        try:
            rules.append(entitlements.subject(one.issuer, one.subject))
        except InvalidInputError as error:
            details.append(Detail(f"/oidcSubjects/{i}", "VALIDATION_ERROR", error.message))
    if details:
        raise invalid(details)
    return rules


def _document(customer_id: str, rules: list[Rule]) -> dict[str, Any]:
    named = [rule for rule in rules if rule.issuer]
    return {
        "customerId": customer_id,
        "emails": [rule.value for rule in rules if rule.kind == EMAIL],
        "emailDomains": [rule.value for rule in rules if rule.kind == DOMAIN],
        "oidcSubjects": [{"issuer": rule.issuer, "subject": rule.value} for rule in named],
    }
