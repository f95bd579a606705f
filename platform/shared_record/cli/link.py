"""``shared-record link``: a customer's persistent link."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection

from shared_record.access import links, printed
from shared_record.access.links import Link
from shared_record.cli.address import as_served
from shared_record.cli.context import Installation, emit, json_option, open_installation, tenant_option
from shared_record.cli.printed import import_file
from shared_record.db.scope import Scope

ACTOR = "cli"


@click.group()
def link() -> None:
    """A customer's persistent link: show it, turn it off, replace it, take over another one.

    CUSTOMER is the vendor's own id of the customer. A change ends all sessions of the link at once, while the server
    runs.
    """


@link.command(epilog="Example:  shared-record link show cust_northwind --tenant acme")
@click.argument("customer")
@tenant_option
@json_option
def show(customer: str, tenant: str, as_json: bool) -> None:
    """Print the link of CUSTOMER."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.read(scope) as connection:
        found = links.show_link(connection, installation.keys, scope, customer)
    emit(as_data(installation, found), as_json=as_json, text=as_text(installation, found))


@link.command(epilog="Example:  shared-record link issue cust_northwind --tenant acme")
@click.argument("customer")
@tenant_option
@json_option
def issue(customer: str, tenant: str, as_json: bool) -> None:
    """Give CUSTOMER, whose link was revoked, a new one."""
    _change(links.issue_link, customer, tenant, as_json=as_json)


@link.command(epilog="Example:  shared-record link revoke cust_northwind --tenant acme")
@click.argument("customer")
@tenant_option
@json_option
def revoke(customer: str, tenant: str, as_json: bool) -> None:
    """Turn the link of CUSTOMER off. Invoices already sent keep it; it then shows the not-in-use page."""
    _change(links.revoke_link, customer, tenant, as_json=as_json)


@link.command(epilog="Example:  shared-record link reissue cust_northwind --tenant acme")
@click.argument("customer")
@tenant_option
@json_option
def reissue(customer: str, tenant: str, as_json: bool) -> None:
    """Replace the link of CUSTOMER by a new one. The old one stops working at once."""
    _change(links.reissue_link, customer, tenant, as_json=as_json)


@link.command("import", epilog="Example:  shared-record link import printed-links.csv --tenant acme")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@tenant_option
@json_option
def import_(file: Path, tenant: str, as_json: bool) -> None:
    """Make links that were printed elsewhere the customers' links. FILE is CSV with the columns customer and handle.

    A handle is what stands behind /c/ in the link: 20 to 64 of a-z, 0-9, _ and -. The link that a customer had so far
    stops working at once. Reading a file again changes nothing more.
    """
    import_file(file, "handle", tenant, _take, as_json=as_json)


def as_data(installation: Installation, found: Link) -> dict[str, Any]:
    """Return a link for ``--json``."""
    return {
        "customer_id": found.external_id,
        "url": url_of(installation, found),
        "host": found.host,
        "policy": found.policy,
        "issued_at": found.issued_at.isoformat(),
        "revoked_at": found.revoked_at.isoformat() if found.revoked_at else None,
    }


def as_text(installation: Installation, found: Link) -> str:
    """Return a link for people."""
    if found.revoked_at is not None:
        return f"{found.external_id}: revoked on {found.revoked_at:%Y-%m-%d %H:%M} UTC. A new one: link issue"
    return f"{found.external_id}: {url_of(installation, found)}"


def url_of(installation: Installation, found: Link) -> str | None:
    """Return the absolute URL of a link on its home host, or ``None`` while it is revoked."""
    settings = as_served(installation.db, installation.settings)
    return settings.url_for_host(found.host or settings.platform_hosts[0], found.path) if found.path else None


def _change(action: Callable[..., Link], customer: str, tenant: str, *, as_json: bool) -> None:
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        found = action(connection, installation.keys, installation.clock, scope, customer, ACTOR)
    emit(as_data(installation, found), as_json=as_json, text=as_text(installation, found))


def _take(installation: Installation, scope: Scope, connection: Connection, customer: str, value: str) -> None:
    printed.import_link(
        installation.db, connection, installation.keys, installation.clock, scope, customer, value, ACTOR
    )
