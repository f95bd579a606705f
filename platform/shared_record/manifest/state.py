"""What the database holds of a tenant, in the flat values of ``manifest.plan``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select

from shared_record.db.schema import host, tenant, tenant_manifest
from shared_record.db.scope import Scope
from shared_record.manifest.plan import HOSTS, METHODS, ORDER, PRIMARY
from shared_record.manifest.schema import SETTINGS
from shared_record.tenancy.methods import list_methods
from shared_record.tenancy.tenants import LISTS, read_tenant


@dataclass(frozen=True, slots=True)
class HostState:
    """A host that is not released."""

    host: str
    display: str
    role: str
    is_primary: bool


def list_hosts(connection: Connection, scope: Scope) -> tuple[HostState, ...]:
    """Return the tenant's hosts, the primary one first, without released ones."""
    columns = [host.c[name] for name in HostState.__dataclass_fields__]
    statement = select(*columns).where(host.c.tenant_id == scope.config, host.c.role != "released")
    rows = connection.execute(statement.order_by(host.c.is_primary.desc(), host.c.host))
    return tuple(HostState(*row) for row in rows)


def read_values(connection: Connection, scope: Scope) -> dict[str, Any]:
    """Return the tenant's settings, hosts and methods as flat JSON values; an absent tenant is ``NotFoundError``."""
    settings = asdict(read_tenant(connection, scope))
    settings["policy"] = settings["policy"].value
    settings |= {name: list(settings[name]) for name in LISTS}
    values = {key: settings[key] for key in SETTINGS}
    hosts, methods = list_hosts(connection, scope), list_methods(connection, scope)
    values |= {HOSTS + row.host: row.role for row in hosts}
    values.update((PRIMARY, row.host) for row in hosts if row.is_primary)
    values |= {METHODS + row.slug: row.settings for row in methods}
    return values | {ORDER: [row.slug for row in methods]}


def read_applied(connection: Connection, scope: Scope) -> dict[str, Any] | None:
    """Return the file's values as last applied, or ``None`` if no file was."""
    statement = select(tenant_manifest.c.applied).where(tenant_manifest.c.tenant_id == scope.config)
    applied: dict[str, Any] | None = connection.execute(statement).scalar_one_or_none()
    return applied


def lock_tenant(connection: Connection, scope: Scope) -> None:
    """Hold the tenant's row until the transaction ends, so that two runs follow each other."""
    connection.execute(select(tenant.c.epoch).where(tenant.c.tenant_id == scope.config).with_for_update())
