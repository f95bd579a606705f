"""Carry plans out: all files in one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from shared_record.access import audit
from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema import host, tenant_manifest
from shared_record.db.scope import Scope
from shared_record.db.types import is_set
from shared_record.errors import ConflictError
from shared_record.hosts.news import HostNews
from shared_record.hosts.resolver import bump_generation
from shared_record.keys import KeyRing
from shared_record.ledger.logs import create_log
from shared_record.manifest.check import Checked
from shared_record.manifest.plan import HOSTS, METHODS, ORDER, PRIMARY, Plan, compare, file_values
from shared_record.manifest.schema import SETTINGS
from shared_record.manifest.state import lock_tenant, read_applied, read_values
from shared_record.settings import Settings
from shared_record.tenancy import tenants
from shared_record.tenancy.methods import put_methods

ACTOR = "cli"


@dataclass(frozen=True, slots=True)
class _Task:
    checked: Checked
    plan: Plan
    scope: Scope


def plan_tenants(db: Database, checked: Sequence[Checked], force: bool = False) -> list[Plan]:
    """Return what ``apply_tenants`` would do, by slug, writing nothing.

    A host that another tenant holds, and does not release in the same run, raises ``ConflictError``.
    """
    with db.read(None) as connection:
        return [task.plan for task in _prepare(db, connection, checked, force=force, lock=False)]


def apply_tenants(
    db: Database, keys: KeyRing, clock: Clock, settings: Settings, checked: Sequence[Checked], force: bool = False
) -> list[Plan]:
    """Apply checked files in one transaction and return the plans carried out, by slug.

    A tenant that is new gets its live and its test plane, each with a log of its own. A plan that is empty writes
    nothing. Raises ``ConflictError`` as ``plan_tenants`` does, or when another run interferes; nothing is written then.
    """
    with db.write(None) as connection:
        tasks = _prepare(db, connection, checked, force=force, lock=True)
        for task in tasks:  # hosts are given up before any is claimed, so that one may move from file to file
            with db.rescope(connection, task.scope):
                if task.plan.is_new:
                    _create(db, connection, keys, clock, settings, task)
                _release_hosts(connection, task)
        for task in tasks:
            if not task.plan.is_empty:
                with db.rescope(connection, task.scope):
                    _write(connection, clock, task)
        if any(_touches_hosts(task.plan) for task in tasks):
            bump_generation(connection)
    if any(_touches_hosts(task.plan) for task in tasks):
        HostNews(settings.redis_url).announce()
    return [task.plan for task in tasks]


def _prepare(
    db: Database, connection: Connection, checked: Sequence[Checked], *, force: bool, lock: bool
) -> list[_Task]:
    tasks = []
    for file in sorted(checked, key=lambda one: one.slug):
        found = lookup.find_tenant(db, file.slug)
        if found is None:
            tasks.append(_Task(file, compare(file.slug, file_values(file), None, None), Scope.of(uuid4())))
            continue
        with db.rescope(connection, found.scope):
            if lock:
                lock_tenant(connection, found.scope)
            applied, values = read_applied(connection, found.scope), read_values(connection, found.scope)
        tasks.append(_Task(file, compare(file.slug, file_values(file), applied, values, force=force), found.scope))
    _check_claims(db, tasks)
    return tasks


def _check_claims(db: Database, tasks: Sequence[_Task]) -> None:
    released = {
        (task.scope.config, change.key.removeprefix(HOSTS))
        for task in tasks
        for change in task.plan.effective
        if change.key.startswith(HOSTS) and change.after is None
    }
    for task in tasks:
        for change in task.plan.effective:
            if not change.key.startswith(HOSTS) or change.before is not None:
                continue
            name = change.key.removeprefix(HOSTS)
            holder = lookup.find_host(db, name)
            if holder is not None and (holder.tenant_id, name) not in released | {(task.scope.config, name)}:
                raise _taken(task, name)


def _create(db: Database, connection: Connection, keys: KeyRing, clock: Clock, settings: Settings, task: _Task) -> None:
    slug, name, live = task.plan.slug, task.checked.settings["name"], task.scope.config
    planes: tuple[tuple[UUID, UUID | None], ...] = ((live, None), (uuid4(), live))
    for tenant_id, config_of in planes:
        with db.rescope(connection, Scope.of(tenant_id, config_of)):
            scope = tenants.create_tenant(
                connection, keys, clock, tenant_id=tenant_id, config_of=config_of, slug=slug, name=name
            )
            public_id = tenants.public_id(connection, scope)
            create_log(connection, keys, clock, scope, f"{settings.platform_hosts[0]}/log/{public_id}")


def _release_hosts(connection: Connection, task: _Task) -> None:
    effective = {change.key: change for change in task.plan.effective}
    mine = host.c.tenant_id == task.scope.config
    if PRIMARY in effective:
        connection.execute(host.update().where(mine, is_set(host.c.is_primary)).values(is_primary=False))
    for key, change in effective.items():
        if key.startswith(HOSTS) and change.after is None:
            connection.execute(
                host.update()
                .where(mine, host.c.host == key.removeprefix(HOSTS))
                .values(role="released", is_primary=False, epoch=host.c.epoch + 1)
            )


def _write(connection: Connection, clock: Clock, task: _Task) -> None:
    plan, scope = task.plan, task.scope
    effective = {change.key: change for change in plan.effective}
    changes = {key: effective[key].after for key in SETTINGS if key in effective}
    tenants.update_tenant(connection, scope, changes, primary_host_changed=PRIMARY in effective and not plan.is_new)
    for key, change in effective.items():
        if key.startswith(HOSTS) and change.after is not None:
            _claim_host(connection, clock, task, key.removeprefix(HOSTS), change.after)
    if PRIMARY in effective and (primary := effective[PRIMARY].after) is not None:
        mine = host.c.tenant_id == scope.config
        connection.execute(host.update().where(mine, host.c.host == primary).values(is_primary=True))
    if any(key == ORDER or key.startswith(METHODS) for key in effective):
        values = {change.key: change.result for change in plan.changes}
        put_methods(connection, scope, [(slug, values[METHODS + slug]) for slug in plan.method_order])
    if plan.remember:
        _remember(connection, clock, scope, plan)
    if effective:
        detail = {"keys": list(effective), "created": plan.is_new}
        audit.record(connection, scope, clock, "tenant.applied", actor=ACTOR, detail=detail)


def _claim_host(connection: Connection, clock: Clock, task: _Task, name: str, role: str) -> None:
    display = next((one.display for one in task.checked.hosts if one.host == name), name)
    mine = (host.c.tenant_id == task.scope.config, host.c.host == name)
    row = {"tenant_id": task.scope.config, "host": name, "display": display, "role": role, "is_primary": False}
    try:
        known = connection.execute(
            host.update().where(*mine).values(role=role, display=display, epoch=host.c.epoch + 1)
        ).rowcount
        if not known:
            connection.execute(host.insert(), row | {"created_at": clock.now()})
    except IntegrityError as error:
        raise _taken(task, name) from error


def _remember(connection: Connection, clock: Clock, scope: Scope, plan: Plan) -> None:
    values = {"applied": plan.applied, "applied_at": clock.now()}
    mine = tenant_manifest.c.tenant_id == scope.config
    if not connection.execute(tenant_manifest.update().where(mine).values(values)).rowcount:
        connection.execute(tenant_manifest.insert(), values | {"tenant_id": scope.config})


def _touches_hosts(plan: Plan) -> bool:
    return any(change.key == PRIMARY or change.key.startswith(HOSTS) for change in plan.effective)


def _taken(task: _Task, name: str) -> ConflictError:
    return ConflictError(f"{task.checked.file}: the host {name} is in use by another tenant.")
