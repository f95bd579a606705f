"""Which step-up methods a tenant offers, in which order, with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from shared_record.db.schema import tenant_method
from shared_record.db.scope import Scope


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method of a tenant. ``epoch`` rises when it is disabled or set otherwise; sessions it opened then end."""

    slug: str
    position: int
    enabled: bool
    settings: dict[str, Any]
    epoch: int


_ALL = (
    select(*(tenant_method.c[name] for name in MethodRow.__dataclass_fields__))
    .where(tenant_method.c.tenant_id == bindparam("t"))
    .order_by(tenant_method.c.position, tenant_method.c.slug)
)
_ENABLED = _ALL.where(tenant_method.c.enabled.is_(True))


def list_methods(connection: Connection, scope: Scope, *, enabled_only: bool = True) -> tuple[MethodRow, ...]:
    """Return the tenant's methods in the order in which they are offered."""
    rows = connection.execute(_ENABLED if enabled_only else _ALL, {"t": scope.config})
    return tuple(MethodRow(*row) for row in rows)


def put_methods(connection: Connection, scope: Scope, methods: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Make ``methods`` (slug and settings, in order) the tenant's methods; what is as asked is not written.

    A method that is left out is disabled, never deleted, so that its epoch cannot start again at a value that an old
    session still carries. A slug given twice is a ``ValueError``.
    """
    wanted = {
        slug: {"position": position, "enabled": True, "settings": dict(settings)}
        for position, (slug, settings) in enumerate(methods)
    }
    if len(wanted) != len(methods):
        raise ValueError("a method is named twice")
    present = {row.slug: row for row in list_methods(connection, scope, enabled_only=False)}
    for slug, values in wanted.items():
        if slug not in present:
            connection.execute(tenant_method.insert(), {"tenant_id": scope.config, "slug": slug, **values})
    for slug, row in present.items():
        before = {"position": row.position, "enabled": row.enabled, "settings": row.settings}
        after = wanted.get(slug, before | {"enabled": False})
        if after == before:
            continue
        ends_sessions = (row.enabled and not after["enabled"]) or after["settings"] != row.settings
        connection.execute(
            tenant_method.update()
            .where(tenant_method.c.tenant_id == scope.config, tenant_method.c.slug == slug)
            .values(**after, epoch=tenant_method.c.epoch + int(ends_sessions))
        )
