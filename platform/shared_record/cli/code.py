"""``shared-record code``: a customer's access code."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import click
from sqlalchemy import Connection

from shared_record.access import links, printed
from shared_record.cli.context import Installation, emit, json_option, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.cli.printed import import_file
from shared_record.db.scope import Scope

_LENGTH = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class Length(click.ParamType[timedelta]):
    """A length of time such as ``30d``, ``12h`` or ``90m``."""

    name = "length"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read one length."""
        if isinstance(value, timedelta):
            return value
        match = _LENGTH.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a length of time. Write for example 30d, 12h or 90m.", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.group()
def code() -> None:
    """The access code that is printed next to a customer's link: show it, replace it, take over other ones."""


@code.command(
    epilog="""\b
Examples:
  shared-record code rotate cust_northwind --tenant acme
  shared-record code rotate cust_northwind --tenant acme --overlap 30d"""
)
@click.argument("customer")
@tenant_option
@click.option("--overlap", type=Length(), default=timedelta(0), help="How long the former code opens the record too.")
@json_option
def rotate(customer: str, tenant: str, overlap: timedelta, as_json: bool) -> None:
    """Replace the access code of CUSTOMER and print the new one. All sessions of the link end at once."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        fresh = links.rotate_code(
            connection, installation.keys, installation.clock, scope, customer, ACTOR, overlap=overlap
        )
    emit({"customer_id": customer, "access_code": fresh}, as_json=as_json, text=fresh)


@code.command(epilog="Example:  shared-record code reveal cust_northwind --tenant acme")
@click.argument("customer")
@tenant_option
@json_option
def reveal(customer: str, tenant: str, as_json: bool) -> None:
    """Print the access code of CUSTOMER. Each reveal is written to the audit trail."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        found = links.reveal_code(connection, installation.keys, installation.clock, scope, customer, ACTOR)
    emit({"customer_id": customer, "access_code": found}, as_json=as_json, text=found)


@code.command("import", epilog="Example:  shared-record code import printed-codes.csv --tenant acme")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@tenant_option
@json_option
def import_(file: Path, tenant: str, as_json: bool) -> None:
    """Let codes that were printed elsewhere open records too. FILE is CSV with the columns customer and code.

    A code has 8 to 12 letters and digits and is kept as a hash. It counts until the customer's code is rotated. All
    sessions of a customer whose code is imported end.
    """
    import_file(file, "code", tenant, _take, as_json=as_json)


def _take(installation: Installation, scope: Scope, connection: Connection, customer: str, value: str) -> None:
    printed.import_code(connection, installation.keys, installation.clock, scope, customer, value, ACTOR)
