"""``shared-record apikey``: keys of the vendor API."""

from __future__ import annotations

import click

from shared_record.access import apikeys
from shared_record.cli.context import emit, json_option, note, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.tenancy.tenants import TEST_SUFFIX


@click.group()
def apikey() -> None:
    """Keys of the vendor API. The prefix of a key, pk_live_ or pk_test_, chooses the data plane."""


@apikey.command(
    epilog="""\b
Examples:
  shared-record apikey create --tenant acme --name billing
  shared-record apikey create --tenant acme --name trial --test"""
)
@tenant_option
@click.option("--name", default="api", show_default=True, help="What the key is for.")
@click.option("--test", is_flag=True, help="A key of the test plane, whose data never meets live data.")
@json_option
def create(tenant: str, name: str, test: bool, as_json: bool) -> None:
    """Make a key and print it. It cannot be shown again."""
    installation = open_installation()
    scope = installation.tenant(tenant + TEST_SUFFIX if test else tenant).scope
    with installation.db.write(scope) as connection:
        key = apikeys.create_key(connection, installation.clock, scope, name=name, actor=ACTOR)
    if not as_json:
        note("Keep this key now: it is stored as a hash and cannot be shown again.")
    emit({"tenant": tenant, "name": name, "api_key": key}, as_json=as_json, text=key)
