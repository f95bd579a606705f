"""The ``tenant`` rows: one per data plane; settings are those of the live row."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, case, or_, select
from sqlalchemy.exc import IntegrityError

from shared_record.clock import Clock
from shared_record.db.prepared import fetch_all
from shared_record.db.schema import tenant
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError, NotFoundError
from shared_record.keys import KeyRing
from shared_record.tenancy.policies import Policy

TEST_SUFFIX = "~test"
SETTINGS = frozenset(
    {
        "name",
        "policy",
        "theme",
        "language",
        "zone",
        "unit",
        "contact",
        "hide_amounts",
        "checkpoint_seconds",
        "retention_days",
        "api_rate",
        "api_burst",
        "export_formats",
        "embed_origins",
        "breakdowns",
        "witnesses",
        "witness_quorum",
        "anchors",
        "anchor_seconds",
        "state",
    }
)
"""What ``update_tenant`` may change."""
LISTS = ("export_formats", "embed_origins", "breakdowns", "witnesses", "anchors")
_ENDS_SESSIONS = ("policy", "state")


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """The settings of a tenant, as its live row has them; both planes use them.

    ``embed_origins``: sites that may show a receipt in a frame, each as a browser writes its origin.
    ``breakdowns``: keys of metadata by which usage is broken down, in periods that begin from now on.
    ``witnesses``: ``{"url", "vkey"}``; ``anchors``: ``{"anchor", "settings"}``, ``anchor`` being the slug of a plugin's
    class. Only the live log is witnessed and anchored.
    """

    name: str
    policy: Policy
    theme: str
    language: str | None
    zone: str
    unit: str
    contact: str
    hide_amounts: bool
    checkpoint_seconds: int | None
    retention_days: int | None
    api_rate: int
    api_burst: int
    export_formats: tuple[str, ...]
    embed_origins: tuple[str, ...]
    breakdowns: tuple[str, ...]
    witnesses: tuple[dict[str, str], ...]
    witness_quorum: int
    anchors: tuple[dict[str, Any], ...]
    anchor_seconds: int
    state: str
    epoch: int
    public_id: str


def create_tenant(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    *,
    tenant_id: UUID,
    config_of: UUID | None,
    slug: str,
    name: str,
) -> Scope:
    """Insert one data plane with default settings and a tenant key of its own; return its scope.

    The connection must already be within that scope. ``config_of``: the live tenant, when this is its test plane; its
    slug is then ``<slug>~test``. A slug that exists raises ``ConflictError``.
    """
    row: dict[str, Any] = {
        "tenant_id": tenant_id,
        "config_of": config_of,
        "slug": slug if config_of is None else slug + TEST_SUFFIX,
        "public_id": f"t_{secrets.token_hex(8)}",
        "name": name,
        "export_formats": [],
        "sealed_key": keys.seal(secrets.token_bytes(32), tenant=tenant_id, place=_key_place(tenant_id)),
        "created_at": clock.now(),
    }
    try:
        connection.execute(tenant.insert(), row)
    except IntegrityError as error:
        raise ConflictError(f"there is already a tenant {row['slug']!r}.") from error
    return Scope.of(tenant_id, config_of)


def read_tenant(connection: Connection, scope: Scope) -> TenantSettings:
    """Return the settings of the scope's tenant, or raise ``NotFoundError``."""
    row = connection.execute(_READ, {"tenant": scope.config}).mappings().one_or_none()
    if row is None:
        raise NotFoundError("there is no such tenant.")
    values = dict(row)
    values["policy"] = Policy.stored(values["policy"])
    values |= {name: tuple(values[name]) for name in LISTS}
    return TenantSettings(**values)


def update_tenant(
    connection: Connection, scope: Scope, changes: Mapping[str, Any], *, primary_host_changed: bool = False
) -> None:
    """Change settings of the scope's tenant.

    When ``policy`` or ``state`` gets another value, or the primary host changed (its row belongs to ``hosts``), the
    same statement raises ``tenant.epoch``, which ends every session of the tenant. A name that is no setting is a
    ``ValueError``.
    """
    if unknown := changes.keys() - SETTINGS:
        raise ValueError(f"no tenant settings: {', '.join(sorted(unknown))}")
    values: dict[str, Any] = dict(changes)
    if "policy" in values:
        values["policy"] = Policy(values["policy"]).value
    values |= {name: list(values[name]) for name in LISTS if name in values}
    differs = [tenant.c[name] != values[name] for name in _ENDS_SESSIONS if name in values]
    if primary_host_changed:
        values["epoch"] = tenant.c.epoch + 1
    elif differs:
        values["epoch"] = tenant.c.epoch + case((or_(*differs), 1), else_=0)
    if values:
        connection.execute(tenant.update().where(tenant.c.tenant_id == scope.config).values(values))


def public_id(connection: Connection, scope: Scope) -> str:
    """Return the public id of the plane itself (of the test plane, where ``scope`` is one), or ``NotFoundError``."""
    return str(_of_plane(connection, scope).public_id)


def tenant_key(connection: Connection, keys: KeyRing, scope: Scope) -> bytes:
    """Return the plane's own 32-byte key, unsealed.

    No such tenant raises ``NotFoundError``; a key ring that cannot open it, ``UnavailableError``.
    """
    sealed = _of_plane(connection, scope).sealed_key
    return keys.open(sealed, tenant=scope.plane, place=_key_place(scope.plane))


def _of_plane(connection: Connection, scope: Scope) -> Any:
    rows = fetch_all(connection, _PLANE, {"tenant": scope.plane})
    if not rows:
        raise NotFoundError("there is no such tenant.")
    return rows[0]


def _key_place(tenant_id: UUID) -> str:
    return f"tenant.sealed_key/{tenant_id}"


_OF_TENANT = tenant.c.tenant_id == bindparam("tenant")
_READ = select(*(tenant.c[name] for name in TenantSettings.__dataclass_fields__)).where(_OF_TENANT)
_PLANE = select(tenant.c.public_id, tenant.c.sealed_key).where(_OF_TENANT)
