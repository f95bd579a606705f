"""``shared-record token``: personal access tokens, for calls that are a person's and not an integration's."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from shared_record.access import apikeys
from shared_record.access.apikeys import TOKEN
from shared_record.cli.apikey import end, id_of, making_options, read_expiry, show_list
from shared_record.cli.context import emit, json_option, note, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.tenancy.tenants import TEST_SUFFIX


@click.group()
def token() -> None:
    """Personal access tokens. Send one as `Authorization: Bearer srp_…` to /dashboard/."""


@token.command(
    epilog="""\b
Examples:
  shared-record token create --tenant acme --name kim
  shared-record token create --tenant acme --name kim --expires 90d --scope customer:write

\b
Scopes are those of `shared-record apikey create`; --scope may be repeated."""
)
@tenant_option
@click.option("--name", required=True, help="Whose token it is.")
@making_options("customer:read, customer:write")
def create(
    tenant: str,
    name: str,
    test: bool,
    scopes: tuple[str, ...],
    expires: datetime | timedelta | None,
    as_json: bool,
) -> None:
    """Make a token and print it. It cannot be shown again."""
    installation = open_installation()
    expires_at = read_expiry(installation, expires)
    scope = installation.tenant(tenant + TEST_SUFFIX if test else tenant).scope
    with installation.db.write(scope) as connection:
        made = apikeys.create_token(
            connection,
            installation.clock,
            scope,
            name=name,
            scopes=scopes or apikeys.TOKEN_SCOPES,
            actor=ACTOR,
            expires_at=expires_at,
        )
    if not as_json:
        note("Keep this token now: it is stored as a hash and cannot be shown again.")
    emit({"tenant": tenant, "name": name, "id": id_of(made), "token": made}, as_json=as_json, text=made)


@token.command("list", epilog="Example:  shared-record token list --tenant acme --json")
@tenant_option
@json_option
def list_(tenant: str, as_json: bool) -> None:
    """List the tokens of both planes, ended ones included: id, state, last use, name, scopes."""
    show_list(open_installation(), tenant, TOKEN, as_json=as_json)


@token.command(epilog="Example:  shared-record token revoke 0h2k4m6p8r0t2v4x --tenant acme")
@click.argument("id", metavar="ID")
@tenant_option
@json_option
def revoke(id: str, tenant: str, as_json: bool) -> None:
    """End the token ID: the next request with it is refused."""
    end(tenant, id, TOKEN, as_json=as_json)
