"""Applying tenant files: what is made, what changes, what stays, and that nothing is half done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from shared_record.clock import SteppedClock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema import audit_event, host, installation, log, tenant_manifest
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError
from shared_record.keys import KeyRing
from shared_record.manifest.apply import apply_tenants, plan_tenants
from shared_record.manifest.check import Checked, CheckedHost
from shared_record.manifest.plan import Kind, Plan
from shared_record.manifest.schema import DEFAULTS
from shared_record.manifest.state import list_hosts, read_values
from shared_record.settings import Settings
from shared_record.tenancy.methods import list_methods, put_methods
from shared_record.tenancy.tenants import create_tenant, public_id, read_tenant, tenant_key, update_tenant

SETTINGS = Settings(platform_hosts=("app.example.com", "localhost"))

Apply = Callable[..., list[Plan]]


def declare(slug: str, *hosts: str, methods: tuple[str, ...] = ("access_code",), **settings: object) -> Checked:
    """Return a checked file. A host is written ``name`` or ``name=role``; the first that serves is the primary."""
    pairs = [(name, role or "serving") for name, _, role in (text.partition("=") for text in hosts)]
    primary = next((name for name, role in pairs if role == "serving"), None)
    return Checked(
        slug,
        f"tenants/{slug}.toml",
        {"name": slug.title(), **settings},
        tuple(CheckedHost(name, name, role, name == primary, 1) for name, role in pairs),
        tuple((method, {}) for method in methods),
    )


@pytest.fixture
def apply(db: Database, keys: KeyRing, clock: SteppedClock) -> Apply:
    def run(*checked: Checked, force: bool = False) -> list[Plan]:
        planned = plan_tenants(db, checked, force)
        plans = apply_tenants(db, keys, clock, SETTINGS, checked, force)
        assert plans == planned
        return plans

    return run


def scope_of(db: Database, slug: str):
    row = lookup.find_tenant(db, slug)
    assert row is not None
    return row.scope


def read(db: Database, slug: str, ask):
    scope = scope_of(db, slug)
    with db.read(scope) as connection:
        return ask(connection, scope)


def host_rows(db: Database, slug: str) -> dict[str, tuple[str, bool, int]]:
    scope = scope_of(db, slug)
    with db.read(scope) as connection:
        rows = connection.execute(select(host).where(host.c.tenant_id == scope.config))
        return {row.host: (row.role, row.is_primary, row.epoch) for row in rows}


def generation(db: Database) -> int:
    with db.read(None) as connection:
        statement = select(installation.c.value).where(installation.c.name == "host_generation")
        return int(connection.execute(statement).scalar_one())


def audit_count(db: Database, slug: str) -> int:
    scope = scope_of(db, slug)
    with db.read(scope) as connection:
        statement = select(func.count()).select_from(audit_event).where(audit_event.c.tenant_id == scope.plane)
        return int(connection.execute(statement).scalar_one())


def kinds(plan: Plan) -> dict[str, Kind]:
    return {change.key: change.kind for change in plan.changes if change.kind is not Kind.UNCHANGED}


def test_a_new_tenant_has_two_planes_two_logs_hosts_methods_and_settings(
    db: Database, keys: KeyRing, apply: Apply
) -> None:
    before = generation(db)
    (plan,) = apply(
        declare(
            "acme",
            "usage.acme.example",
            "old.acme.example=alias",
            methods=("access_code", "sso"),
            policy="GATED",
            theme="nocturne",
            language="de",
            hide_amounts=True,
            export_formats=["csv", "json"],
            checkpoint_seconds=30,
        )
    )
    assert plan.is_new
    assert [row.slug for row in lookup.list_tenants(db)] == ["acme", "acme~test"]
    settings = read(db, "acme", read_tenant)
    assert (settings.name, settings.policy, settings.theme, settings.hide_amounts) == (
        "Acme",
        "GATED",
        "nocturne",
        True,
    )
    assert (settings.export_formats, settings.checkpoint_seconds) == (("csv", "json"), 30)
    assert settings.language == "de"
    assert read(db, "acme~test", read_tenant) == settings
    assert host_rows(db, "acme") == {
        "usage.acme.example": ("serving", True, 0),
        "old.acme.example": ("alias", False, 0),
    }
    assert [row.slug for row in read(db, "acme", list_methods)] == ["access_code", "sso"]
    for slug in ("acme", "acme~test"):
        scope = scope_of(db, slug)
        with db.read(scope) as connection:
            origin = connection.execute(select(log.c.origin).where(log.c.tenant_id == scope.plane)).scalar_one()
            assert origin == f"app.example.com/log/{public_id(connection, scope)}"
            assert len(tenant_key(connection, keys, scope)) == 32
    found = lookup.find_host(db, "old.acme.example")
    assert found is not None
    assert (found.target, found.twin) == ("usage.acme.example", scope_of(db, "acme~test").plane)
    assert generation(db) == before + 1
    assert audit_count(db, "acme") == 1


def test_a_second_run_writes_nothing(db: Database, clock: SteppedClock, apply: Apply) -> None:
    files = [declare("acme", "a.example"), declare("borealis", "b.example", policy="OPEN")]
    apply(*files)
    state = read(db, "acme", read_values), host_rows(db, "acme"), audit_count(db, "acme"), generation(db)
    clock.set(datetime(2027, 1, 1, tzinfo=UTC))
    for force in (False, True):
        assert all(plan.is_empty and not plan.drift for plan in apply(*files, force=force))
    assert (read(db, "acme", read_values), host_rows(db, "acme"), audit_count(db, "acme"), generation(db)) == state
    scope = scope_of(db, "acme")
    with db.read(scope) as connection:
        at = connection.execute(select(tenant_manifest.c.applied_at).where(tenant_manifest.c.tenant_id == scope.plane))
        assert at.scalar_one().year == 2026


def test_a_plan_alone_writes_nothing(db: Database) -> None:
    (plan,) = plan_tenants(db, [declare("acme", "a.example")])
    assert plan.is_new
    assert lookup.list_tenants(db) == []


def test_only_what_changed_in_the_file_changes(db: Database, apply: Apply) -> None:
    apply(declare("acme", theme="x", unit="kWh"))
    epoch = read(db, "acme", read_tenant).epoch
    scope = scope_of(db, "acme")
    with db.write(scope) as connection:
        update_tenant(connection, scope, {"theme": "y"})
    (plan,) = apply(declare("acme", theme="x", unit="MWh"))
    assert kinds(plan) == {"theme": Kind.DRIFT_KEPT, "unit": Kind.UPDATE}
    settings = read(db, "acme", read_tenant)
    assert (settings.theme, settings.unit, settings.epoch) == ("y", "MWh", epoch)
    (plan,) = apply(declare("acme", theme="x", unit="MWh"))
    assert plan.is_empty
    assert kinds(plan) == {"theme": Kind.DRIFT_KEPT}
    (plan,) = apply(declare("acme", theme="x", unit="MWh"), force=True)
    assert kinds(plan) == {"theme": Kind.DRIFT_OVERRIDDEN}
    assert read(db, "acme", read_tenant).theme == "x"
    assert audit_count(db, "acme") == 3


def test_another_policy_ends_sessions(db: Database, apply: Apply) -> None:
    apply(declare("acme", policy="OPEN"))
    epoch = read(db, "acme", read_tenant).epoch
    apply(declare("acme", policy="GATED"))
    assert read(db, "acme", read_tenant).epoch == epoch + 1


def test_hosts_come_go_change_role_and_come_back(db: Database, apply: Apply) -> None:
    apply(declare("acme", "a.example", "b.example"))
    epoch, before = read(db, "acme", read_tenant).epoch, generation(db)
    apply(declare("acme", "b.example", "c.example"))
    assert host_rows(db, "acme") == {
        "a.example": ("released", False, 1),
        "b.example": ("serving", True, 0),
        "c.example": ("serving", False, 0),
    }
    assert read(db, "acme", read_tenant).epoch == epoch + 1
    assert generation(db) == before + 1
    assert lookup.find_host(db, "a.example") is None
    apply(declare("acme", "b.example", "c.example=alias", "a.example"))
    assert host_rows(db, "acme") == {
        "a.example": ("serving", False, 2),
        "b.example": ("serving", True, 0),
        "c.example": ("alias", False, 1),
    }
    assert read(db, "acme", read_tenant).epoch == epoch + 1
    assert [row.host for row in read(db, "acme", list_hosts)] == ["b.example", "a.example", "c.example"]


def test_a_suspended_host_stays_suspended_unless_forced(db: Database, apply: Apply) -> None:
    file = declare("acme", "a.example")
    apply(file)
    scope = scope_of(db, "acme")
    with db.write(scope) as connection:
        connection.execute(host.update().where(host.c.tenant_id == scope.config).values(role="suspended"))
    (plan,) = apply(file)
    assert kinds(plan) == {"hosts.a.example": Kind.DRIFT_KEPT}
    apply(file, force=True)
    assert host_rows(db, "acme") == {"a.example": ("serving", True, 1)}


def test_methods_follow_the_file(db: Database, apply: Apply) -> None:
    apply(declare("acme", methods=("access_code", "sso")))
    apply(declare("acme", methods=("sso", "access_code")))
    assert [row.slug for row in read(db, "acme", list_methods)] == ["sso", "access_code"]
    apply(declare("acme", methods=("access_code",)))
    rows = read(db, "acme", lambda c, s: list_methods(c, s, enabled_only=False))
    assert {row.slug: (row.enabled, row.epoch) for row in rows} == {"access_code": (True, 0), "sso": (False, 1)}


def test_a_method_enabled_elsewhere_is_drift(db: Database, apply: Apply) -> None:
    file = declare("acme")
    apply(file)
    scope = scope_of(db, "acme")
    with db.write(scope) as connection:
        put_methods(connection, scope, [("access_code", {}), ("sso", {})])
    (plan,) = apply(file)
    assert kinds(plan) == {"methods.sso": Kind.DRIFT_KEPT}
    apply(file, force=True)
    assert [row.slug for row in read(db, "acme", list_methods)] == ["access_code"]


def test_d06_a_host_of_another_tenant_stops_everything_and_its_holder_is_not_named(db: Database, apply: Apply) -> None:
    apply(declare("zeta", "a.example"))
    with pytest.raises(ConflictError) as caught:
        apply(declare("acme", "new.example"), declare("borealis", "a.example"))
    assert caught.value.message == "tenants/borealis.toml: the host a.example is in use by another tenant."
    assert [row.slug for row in lookup.list_tenants(db)] == ["zeta", "zeta~test"]


def test_d06_a_claim_that_a_plan_could_not_foresee_stops_everything(
    db: Database, keys: KeyRing, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_tenants(db, keys, clock, SETTINGS, [declare("zeta", "a.example")])
    monkeypatch.setattr("shared_record.manifest.apply._check_claims", lambda *_: None)
    with pytest.raises(ConflictError, match=r"a\.example is in use"):
        apply_tenants(db, keys, clock, SETTINGS, [declare("acme"), declare("borealis", "a.example")])
    assert [row.slug for row in lookup.list_tenants(db)] == ["zeta", "zeta~test"]


def test_a_host_moves_from_one_file_to_another_in_one_run(db: Database, apply: Apply) -> None:
    apply(declare("acme", "a.example"), declare("zeta", "z.example", "moved.example"))
    apply(declare("acme", "a.example", "moved.example"), declare("zeta", "z.example"))
    assert host_rows(db, "acme")["moved.example"] == ("serving", False, 0)
    assert host_rows(db, "zeta")["moved.example"] == ("released", False, 1)
    apply(declare("acme", "a.example"), declare("zeta", "moved.example", "z.example"))
    assert host_rows(db, "zeta")["moved.example"] == ("serving", True, 2)


def test_a_tenant_made_elsewhere_is_adopted(db: Database, keys: KeyRing, clock: SteppedClock, apply: Apply) -> None:
    file = declare("acme", "a.example", theme="x")
    scope = Scope.of(uuid4())
    with db.write(scope) as connection:
        create_tenant(connection, keys, clock, tenant_id=scope.plane, config_of=None, slug="acme", name="Old")
    (plan,) = apply(file)
    assert not plan.is_new
    assert set(kinds(plan).values()) == {Kind.UPDATE}
    assert read(db, "acme", read_tenant).name == "Acme"
    assert apply(file)[0].is_empty


def test_the_audit_row_says_which_keys_changed(db: Database, apply: Apply) -> None:
    apply(declare("acme", theme="x"))
    apply(declare("acme", "a.example", theme="y"))
    scope = scope_of(db, "acme")
    with db.read(scope) as connection:
        rows = connection.execute(select(audit_event).where(audit_event.c.tenant_id == scope.plane)).all()
    assert {(row.event, row.actor) for row in rows} == {("tenant.applied", "cli")}
    assert {"keys": ["theme", "hosts.a.example", "primary_host"], "created": False} in [row.detail for row in rows]


def test_defaults_of_the_file_are_those_of_a_new_row(db: Database, apply: Apply) -> None:
    apply(declare("acme", methods=()))
    values = read(db, "acme", read_values)
    assert {key: values[key] for key in DEFAULTS} == DEFAULTS
