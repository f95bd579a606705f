"""``shared-record apikey``: keys of the vendor API."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from shared_record.access import apikeys
from shared_record.access.apikeys import KEY, SCOPES, KeyInfo
from shared_record.cli.code import Length
from shared_record.cli.context import Installation, emit, json_option, note, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.clock import rfc3339
from shared_record.db import lookup
from shared_record.db.lookup import KeyRow
from shared_record.errors import NotFoundError
from shared_record.tenancy.tenants import TEST_SUFFIX

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Until(click.ParamType[datetime | timedelta]):
    """A day (``2027-01-31``, its beginning in UTC), or a length of time from now (``90d``)."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime | timedelta:
        """Read one point in time."""
        if isinstance(value, datetime | timedelta):
            return value
        if _DATE.fullmatch(str(value)):
            try:
                return datetime.strptime(str(value), "%Y-%m-%d").replace(tzinfo=UTC)
            except ValueError:
                self.fail(f"there is no day {value}.", param, ctx)
        return Length().convert(value, param, ctx)


def making_options(usual: str) -> Callable[[_Command], _Command]:
    """Add the options with which a key or token is made; ``usual`` says which scopes it has without ``--scope``."""

    def add(command: _Command) -> _Command:
        for option in (
            json_option,
            click.option("--expires", type=Until(), help="When it ends: a day (2027-01-31) or a length (90d)."),
            click.option(
                "--scope",
                "scopes",
                multiple=True,
                type=click.Choice(list(SCOPES)),
                metavar="SCOPE",
                help=f"What it may do.  [default: {usual}]",
            ),
            click.option("--test", is_flag=True, help="For the test plane, whose data never meets live data."),
        ):
            command = option(command)
        return command

    return add


def read_expiry(installation: Installation, expires: datetime | timedelta | None) -> datetime | None:
    """Return the moment that ``--expires`` names; one that has passed is wrong use."""
    if expires is None:
        return None
    now = installation.clock.now()
    moment = now + expires if isinstance(expires, timedelta) else expires
    if moment <= now:
        raise click.BadParameter(f"{rfc3339(moment)} has passed.", param_hint="--expires")
    return moment


def find_key(installation: Installation, tenant: str, public_id: str, kind: str) -> KeyRow:
    """Return a key or token of either plane of the tenant; ``NotFoundError`` if it has none of that id."""
    scope = installation.tenant(tenant).scope
    found = lookup.find_api_key(installation.db, public_id)
    if found is None or found.kind != kind or found.scope.config != scope.config:
        raise NotFoundError(f"{tenant} has no {kind} {public_id!r}. `shared-record apikey list` shows the ids.")
    return found


def show_list(installation: Installation, tenant: str, kind: str, *, as_json: bool) -> None:
    """Print the keys or tokens of both planes."""
    infos: list[KeyInfo] = []
    for slug in (tenant, tenant + TEST_SUFFIX):
        scope = installation.tenant(slug).scope
        with installation.db.read(scope) as connection:
            infos += apikeys.list_keys(connection, scope, kind)
    now = installation.clock.now()
    rows = [_as_dict(info, now) for info in infos]
    lines = [
        f"{row['id']}  {row['environment']}  {row['state']:<7}  last used {row['last_used_at'] or 'never':<24}"
        f"  {row['name']}  ({', '.join(row['scopes']) or 'no scopes'})"
        for row in rows
    ]
    emit({"tenant": tenant, f"{kind}s": rows}, as_json=as_json, text="\n".join(lines) or f"No {kind}s.")


def _as_dict(info: KeyInfo, now: datetime) -> dict[str, Any]:
    moments = {name: getattr(info, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "id": info.public_id,
        "name": info.name,
        "environment": info.environment,
        "state": info.condition(now),
        "scopes": list(info.scopes),
        **{name: rfc3339(moment) if moment else None for name, moment in moments.items()},
    }


def id_of(shown_once: str) -> str:
    """Return the public id in a whole key or token."""
    return shown_once.partition(".")[0].rpartition("_")[2]


@click.group()
def apikey() -> None:
    """Keys of the vendor API. The prefix of a key, pk_live_ or pk_test_, chooses the data plane."""


@apikey.command(
    epilog="""\b
Examples:
  shared-record apikey create --tenant acme --name billing
  shared-record apikey create --tenant acme --name trial --test --expires 30d
  shared-record apikey create --tenant acme --name meter --scope record:write

\b
Scopes: record:read, record:write, checkpoint:write, customer:read, customer:write, webhook:manage,
        code:reveal, access:manage. --scope may be repeated."""
)
@tenant_option
@click.option("--name", default="api", show_default=True, help="What the key is for.")
@making_options("all but code:reveal and access:manage")
def create(
    tenant: str,
    name: str,
    test: bool,
    scopes: tuple[str, ...],
    expires: datetime | timedelta | None,
    as_json: bool,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    installation = open_installation()
    expires_at = read_expiry(installation, expires)
    scope = installation.tenant(tenant + TEST_SUFFIX if test else tenant).scope
    with installation.db.write(scope) as connection:
        key = apikeys.create_key(
            connection,
            installation.clock,
            scope,
            name=name,
            scopes=scopes or apikeys.DEFAULT_SCOPES,
            actor=ACTOR,
            expires_at=expires_at,
        )
    _show_once(tenant, name, key, as_json=as_json)


@apikey.command("list", epilog="Example:  shared-record apikey list --tenant acme --json")
@tenant_option
@json_option
def list_(tenant: str, as_json: bool) -> None:
    """List the keys of both planes, ended ones included: id, state, last use, name, scopes."""
    show_list(open_installation(), tenant, KEY, as_json=as_json)


@apikey.command(
    epilog="""\b
Examples:
  shared-record apikey rotate 0h2k4m6p8r0t2v4x --tenant acme --overlap 24h
  shared-record apikey rotate 0h2k4m6p8r0t2v4x --tenant acme"""
)
@click.argument("id", metavar="ID")
@tenant_option
@click.option("--overlap", type=Length(), default=timedelta(0), help="How long the old key works too.")
@json_option
def rotate(id: str, tenant: str, overlap: timedelta, as_json: bool) -> None:
    """Replace the key ID by a successor with the same name and scopes, and print that.

    Both share one rate limit and their idempotency keys. Without --overlap the old key ends at once.
    """
    installation = open_installation()
    row = find_key(installation, tenant, id, KEY)
    with installation.db.write(row.scope) as connection:
        key = apikeys.rotate_key(connection, installation.clock, row.scope, id, overlap=overlap, actor=ACTOR)
        name = next(info.name for info in apikeys.list_keys(connection, row.scope) if info.public_id == id)
    _show_once(tenant, name, key, as_json=as_json)


@apikey.command(epilog="Example:  shared-record apikey revoke 0h2k4m6p8r0t2v4x --tenant acme")
@click.argument("id", metavar="ID")
@tenant_option
@json_option
def revoke(id: str, tenant: str, as_json: bool) -> None:
    """End the key ID: the next request with it is refused."""
    end(tenant, id, KEY, as_json=as_json)


def end(tenant: str, public_id: str, kind: str, *, as_json: bool) -> None:
    """Revoke a key or token and say so."""
    installation = open_installation()
    row = find_key(installation, tenant, public_id, kind)
    with installation.db.write(row.scope) as connection:
        apikeys.revoke_key(connection, installation.clock, row.scope, public_id, actor=ACTOR)
    emit({"tenant": tenant, "id": public_id, "state": "revoked"}, as_json=as_json, text=f"{public_id} is revoked.")


def _show_once(tenant: str, name: str, key: str, *, as_json: bool) -> None:
    if not as_json:
        note("Keep this key now: it is stored as a hash and cannot be shown again.")
    emit({"tenant": tenant, "name": name, "id": id_of(key), "api_key": key}, as_json=as_json, text=key)
