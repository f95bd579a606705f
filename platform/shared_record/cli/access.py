"""``shared-record access``: who may step up, and what step-up methods know of customers and tenants."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import click

from shared_record.access import entitlements, method_secrets
from shared_record.access.entitlements import Change, Rule
from shared_record.cli.context import emit, json_option, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.delivery.mail import open_post
from shared_record.errors import InvalidInputError
from shared_record.hooks.loader import load_plugins

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def access() -> None:
    """Who may step up, and what the methods need to know for it."""


def rule_options(command: Command) -> Command:
    """Add the options that name one rule."""
    options = (
        click.option("--email", metavar="ADDRESS", help="One e-mail address."),
        click.option("--email-domain", metavar="DOMAIN", help="Every address of exactly this domain, by sign-in."),
        click.option("--oidc", nargs=2, metavar="ISSUER SUBJECT", help="One person at an identity provider."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@access.command(
    epilog="""\b
Examples:
  shared-record access allow cust_northwind --tenant acme --email anna@northwind.example
  shared-record access allow cust_northwind --tenant acme --email-domain northwind.example
  shared-record access allow cust_northwind --tenant acme --oidc https://id.northwind.example 248289761001"""
)
@click.argument("customer")
@tenant_option
@rule_options
@json_option
def allow(customer: str, tenant: str, as_json: bool, **given: Any) -> None:
    """List who may open CUSTOMER's record by e-mail code or sign-in."""
    rule = _rule(**given)
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        keys, clock = installation.keys, installation.clock
        is_new = entitlements.allow(connection, keys, clock, scope, customer, rule, ACTOR)
    data = {"tenant": tenant, "customer_id": customer, **_as_data(rule), "changed": is_new}
    emit(data, as_json=as_json, text=f"{_as_text(rule)} {'is now' if is_new else 'was already'} on the list.")


@access.command(
    epilog="""\b
Examples:
  shared-record access deny cust_northwind --tenant acme --email anna@northwind.example"""
)
@click.argument("customer")
@tenant_option
@rule_options
@json_option
def deny(customer: str, tenant: str, as_json: bool, **given: Any) -> None:
    """Take somebody off CUSTOMER's list. Everybody's sessions at this record end; an address is told by mail."""
    rule = _rule(**given)
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    change = Change(ACTOR, tell=open_post(installation.settings) is not None)
    with installation.db.write(scope) as connection:
        keys, clock = installation.keys, installation.clock
        was_there = entitlements.deny(connection, keys, clock, scope, customer, rule, change)
    data = {"tenant": tenant, "customer_id": customer, **_as_data(rule), "changed": was_there}
    emit(data, as_json=as_json, text=f"{_as_text(rule)} {'is no longer' if was_there else 'was not'} on the list.")


@access.command("list", epilog="Example:  shared-record access list cust_northwind --tenant acme")
@click.argument("customer")
@tenant_option
@json_option
def list_(customer: str, tenant: str, as_json: bool) -> None:
    """Show CUSTOMER's list."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.read(scope) as connection:
        found = entitlements.list_rules(connection, installation.keys, scope, customer)
    text = "\n".join(_as_text(rule) for rule in found) or f"Nobody is on the list of {customer}."
    data = {"tenant": tenant, "customer_id": customer, "access": [_as_data(rule) for rule in found]}
    emit(data, as_json=as_json, text=text)


def _rule(email: str | None, email_domain: str | None, oidc: tuple[str, str] | None) -> Rule:
    given = [
        *([entitlements.email(email)] if email is not None else []),
        *([entitlements.domain(email_domain)] if email_domain is not None else []),
        *([entitlements.subject(*oidc)] if oidc else []),
    ]
    if len(given) != 1:
        raise InvalidInputError("give one of --email ADDRESS, --email-domain DOMAIN and --oidc ISSUER SUBJECT.")
    return given[0]


def _as_data(rule: Rule) -> dict[str, Any]:
    return {"kind": rule.kind, **({"issuer": rule.issuer} if rule.issuer else {}), "value": rule.value}


def _as_text(rule: Rule) -> str:
    match rule.kind:
        case entitlements.DOMAIN:
            return f"*@{rule.value}"
        case entitlements.SUBJECT:
            return f"{rule.value} at {rule.issuer}"
        case _:
            return rule.value


@access.command(
    epilog="""\b
Examples:
  shared-record access secret cust_northwind --tenant acme --method totp_device --file seed
  shared-record access secret cust_northwind --tenant acme --method totp_device --remove
  shared-record access secret --tenant acme --method oidc --name okta --file client-secret"""
)
@click.argument("customer", required=False)
@tenant_option
@click.option("--method", required=True, metavar="SLUG", help="The step-up method that is given the secret.")
@click.option("--name", default="", help="Name of a secret of the tenant; without CUSTOMER.")
@click.option("--file", type=click.File("rb"), default="-", help="Read the secret from a file; `-` is stdin.")
@click.option("--remove", is_flag=True, help="Remove the secret.")
@json_option
def secret(
    customer: str | None, tenant: str, method: str, name: str, file: BinaryIO, remove: bool, as_json: bool
) -> None:
    """Set what a method knows of CUSTOMER, or of the tenant: a secret, read from stdin without its last line break.

    It is sealed, handed to that method alone, and never shown again. The sessions that rest on it end.
    """
    if bool(customer) == bool(name):
        raise InvalidInputError("give either CUSTOMER or --name NAME.")
    if method not in load_plugins().step_up_methods:
        raise InvalidInputError(f"no step-up method {method!r} is installed.")
    value = None if remove else _read(file)
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    parts = (installation.keys, installation.clock, scope)
    with installation.db.write(scope) as connection:
        if customer:
            method_secrets.set_customer_secret(connection, *parts, customer, method, value, ACTOR)
        else:
            method_secrets.set_tenant_secret(connection, *parts, method, name, value, ACTOR)
    done = "removed" if remove else "set"
    data = {"tenant": tenant, "customer_id": customer, "method": method, "name": name or None, "secret": done}
    emit(data, as_json=as_json, text=f"The secret of {customer or name} for {method} is {done}.")


def _read(file: BinaryIO) -> bytes:
    if file is sys.stdin.buffer and sys.stdin.isatty():
        raise InvalidInputError("the secret is read from stdin: add `< FILE`, or use --file FILE.")
    return file.read(method_secrets.LONGEST + 2).removesuffix(b"\n").removesuffix(b"\r")
