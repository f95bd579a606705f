"""``shared-record customer``: the customers of a tenant."""

from __future__ import annotations

import click

from shared_record.access import links
from shared_record.cli.context import emit, json_option, open_installation, tenant_option
from shared_record.cli.link import ACTOR, as_data, as_text
from shared_record.hosts.names import claim_host


@click.group()
def customer() -> None:
    """The customers of a tenant. A customer exists from its first delta on."""


@customer.command("list", epilog="Example:  shared-record customer list --tenant acme")
@tenant_option
@json_option
def list_(tenant: str, as_json: bool) -> None:
    """List the customers of a tenant with their links."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.read(scope) as connection:
        found = links.list_links(connection, installation.keys, scope)
    emit(
        {"tenant": tenant, "customers": [as_data(installation, one) for one in found]},
        as_json=as_json,
        text="\n".join(as_text(installation, one) for one in found) or f"{tenant} has no customers yet.",
    )


@customer.command(
    "move-host", epilog="Example:  shared-record customer move-host cust_x record.acme.example --tenant acme"
)
@click.argument("customer_id", metavar="CUSTOMER")
@click.argument("host")
@tenant_option
@json_option
def move_host(customer_id: str, host: str, tenant: str, as_json: bool) -> None:
    """Make HOST, another serving host of the tenant, the home of CUSTOMER's link.

    Sessions end, the link on the former host redirects, and access starts anew on HOST.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    name, _ = claim_host(host)
    with installation.db.write(scope) as connection:
        found = links.move_host(connection, installation.keys, installation.clock, scope, customer_id, name, ACTOR)
    emit(as_data(installation, found), as_json=as_json, text=as_text(installation, found))
