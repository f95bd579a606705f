"""``shared-record customer``: the customers of a tenant."""

from __future__ import annotations

import click

from shared_record.access import audit, links
from shared_record.cli.context import emit, is_terminal, json_option, note, open_installation, tenant_option
from shared_record.cli.link import ACTOR, as_data, as_text
from shared_record.errors import InvalidInputError
from shared_record.hosts.names import claim_host
from shared_record.languages import LANGUAGES
from shared_record.ledger.erasure import erase_customer
from shared_record.tenancy.customers import create_customer, rename_customer, set_language

OF_TENANT = "tenant"
"""In place of a language: the tenant's."""


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
    epilog="""\b
Examples:
  shared-record customer create cust_northwind --tenant acme
  shared-record customer create cust_eastwind --tenant acme --name "Eastwind Ltd" --unit calls
  shared-record customer create cust_nordwind --tenant acme --language de"""
)
@click.argument("customer_id", metavar="CUSTOMER")
@tenant_option
@click.option("--name", metavar="TEXT", help="What people call the customer.")
@click.option("--unit", metavar="TEXT", help="The unit of its deltas.  [default: the tenant's]")
@click.option("--language", type=click.Choice(tuple(LANGUAGES)), help="Of its pages.  [default: the tenant's]")
@json_option
def create(
    customer_id: str, tenant: str, name: str | None, unit: str | None, language: str | None, as_json: bool
) -> None:
    """Make CUSTOMER before its first delta, and print its link."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        made = create_customer(
            connection, installation.keys, installation.clock, scope, customer_id, display_name=name, unit=unit
        )
        audit.record(
            connection, scope, installation.clock, "customer.created", actor=ACTOR, customer_id=made.customer_id
        )
        if language is not None:
            set_language(connection, scope, customer_id, language)
        found = links.show_link(connection, installation.keys, scope, customer_id)
    emit(as_data(installation, found), as_json=as_json, text=as_text(installation, found))


@customer.command(epilog='Example:  shared-record customer rename cust_x "Northwind Ltd" --tenant acme')
@click.argument("customer_id", metavar="CUSTOMER")
@click.argument("name")
@tenant_option
@json_option
def rename(customer_id: str, name: str, tenant: str, as_json: bool) -> None:
    """Set what people call CUSTOMER. Its id stays."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        rename_customer(connection, scope, customer_id, name)
    emit({"customer_id": customer_id, "name": name}, as_json=as_json, text=f"{customer_id} is now called {name}.")


@customer.command(
    epilog="""\b
Examples:
  shared-record customer language cust_x de --tenant acme
  shared-record customer language cust_x tenant --tenant acme"""
)
@click.argument("customer_id", metavar="CUSTOMER")
@click.argument("language", type=click.Choice((*LANGUAGES, OF_TENANT)))
@tenant_option
@json_option
def language(customer_id: str, language: str, tenant: str, as_json: bool) -> None:
    """Set the LANGUAGE of CUSTOMER's pages, or go back to the tenant's. Its readers can still choose another one."""
    installation = open_installation()
    scope, chosen = installation.tenant(tenant).scope, None if language == OF_TENANT else language
    with installation.db.write(scope) as connection:
        set_language(connection, scope, customer_id, chosen)
    name = "the tenant's language" if chosen is None else LANGUAGES[chosen]
    emit(
        {"customer_id": customer_id, "language": chosen},
        as_json=as_json,
        text=f"The pages of {customer_id} are in {name}.",
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


@customer.command(epilog="Example:  shared-record customer erase cust_x --tenant acme")
@click.argument("customer_id", metavar="CUSTOMER")
@tenant_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def erase(customer_id: str, tenant: str, yes: bool, as_json: bool) -> None:
    """Erase CUSTOMER for good: link, sessions, names, key, and the content of every delta.

    Hashes, amounts, times and totals stay without a name, so that all other customers' proofs hold. Files that were
    downloaded before still verify. What is recorded under the same id later belongs to a new customer.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    if not yes:
        with installation.db.read(scope) as connection:
            links.show_link(
                connection, installation.keys, scope, customer_id
            )  # a wrong name is said before the question
        if not is_terminal():
            raise InvalidInputError("nothing was erased: add --yes where nobody can be asked.")
        note(
            f"This erases {customer_id} of {tenant}: the link stops working, sessions end, and the content of every"
            " delta is gone. Nothing brings it back but a backup of the database."
        )
        click.confirm("Erase?", abort=True, err=True)
    with installation.db.write(scope) as connection:
        done = erase_customer(connection, installation.clock, scope, customer_id, ACTOR)
    emit(
        {"tenant": tenant, "customer_id": customer_id, "erased_as": done.name, "deltas": done.deltas},
        as_json=as_json,
        text=f"{customer_id} is erased, with the content of {done.deltas:,} deltas. In its place: {done.name}.",
    )
