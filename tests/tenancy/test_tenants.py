"""Tenants and their methods: what a change writes, and which changes end sessions."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import tenant
from shared_record.db.scope import Scope, TenantScopeError
from shared_record.errors import ConflictError, NotFoundError, UnavailableError
from shared_record.keys import KeyRing
from shared_record.tenancy import methods, tenants
from shared_record.tenancy.policies import Policy

LIVE, TEST = UUID(int=1), UUID(int=2)
LIVE_SCOPE, TEST_SCOPE = Scope.of(LIVE), Scope.of(TEST, LIVE)


@pytest.fixture
def acme(db: Database, keys: KeyRing, clock: SteppedClock) -> Database:
    """A database with the tenant ``acme`` and its test plane."""
    with db.write(LIVE_SCOPE) as c:
        assert (
            tenants.create_tenant(c, keys, clock, tenant_id=LIVE, config_of=None, slug="acme", name="Acme")
            == LIVE_SCOPE
        )
    with db.write(TEST_SCOPE) as c:
        assert (
            tenants.create_tenant(c, keys, clock, tenant_id=TEST, config_of=LIVE, slug="acme", name="Acme")
            == TEST_SCOPE
        )
    return db


def test_a_new_tenant_has_the_defaults_and_both_planes_share_them(acme: Database) -> None:
    with acme.read(LIVE_SCOPE) as c:
        live = tenants.read_tenant(c, LIVE_SCOPE)
        assert tenants.public_id(c, LIVE_SCOPE) == live.public_id
    with acme.read(TEST_SCOPE) as c:
        assert tenants.read_tenant(c, TEST_SCOPE) == live
        assert tenants.public_id(c, TEST_SCOPE) != live.public_id
        slug = c.execute(select(tenant.c.slug).where(tenant.c.tenant_id == TEST)).scalar_one()
    assert slug == "acme~test"
    assert (live.name, live.policy, live.theme, live.zone) == ("Acme", Policy.TWO_TIER, "default", "UTC")
    assert (live.unit, live.contact, live.hide_amounts, live.state) == ("units", "", False, "active")
    assert (live.checkpoint_seconds, live.export_formats, live.epoch) == (None, (), 0)
    prefix, _, digits = live.public_id.partition("_")
    assert prefix == "t"
    assert len(digits) == 16
    assert int(digits, 16) >= 0


def test_each_plane_has_a_key_of_its_own(acme: Database, keys: KeyRing) -> None:
    with acme.read(LIVE_SCOPE) as c:
        live = tenants.tenant_key(c, keys, LIVE_SCOPE)
        with pytest.raises(UnavailableError):
            tenants.tenant_key(c, KeyRing.generate(), LIVE_SCOPE)
    with acme.read(TEST_SCOPE) as c:
        test = tenants.tenant_key(c, keys, TEST_SCOPE)
    assert len(live) == len(test) == 32
    assert live != test


def test_a_slug_exists_once(acme: Database, keys: KeyRing, clock: SteppedClock) -> None:
    other = uuid4()
    with pytest.raises(ConflictError, match="'acme'"), acme.write(Scope.of(other)) as c:
        tenants.create_tenant(c, keys, clock, tenant_id=other, config_of=None, slug="acme", name="Other")


def test_an_absent_tenant_is_not_found(acme: Database, keys: KeyRing) -> None:
    nobody = Scope.of(uuid4())
    with acme.read(nobody) as c:
        for ask in (tenants.read_tenant, tenants.public_id, lambda c, s: tenants.tenant_key(c, keys, s)):
            with pytest.raises(NotFoundError):
                ask(c, nobody)


def test_another_tenant_cannot_be_read(acme: Database) -> None:
    with acme.read(Scope.of(uuid4())) as c, pytest.raises(TenantScopeError):
        tenants.read_tenant(c, LIVE_SCOPE)


@pytest.mark.parametrize(
    ("changes", "primary", "epoch"),
    [
        ({"theme": "nocturne", "hide_amounts": True, "export_formats": ["csv"], "checkpoint_seconds": 30}, False, 0),
        ({"policy": "TWO_TIER", "state": "active"}, False, 0),
        ({"policy": "OPEN"}, False, 1),
        ({"state": "suspended"}, False, 1),
        ({"policy": "GATED", "state": "suspended"}, True, 1),
        ({}, True, 1),
        ({}, False, 0),
    ],
)
def test_only_what_decides_access_raises_the_epoch(acme: Database, changes, primary, epoch) -> None:
    with acme.write(LIVE_SCOPE) as c:
        tenants.update_tenant(c, LIVE_SCOPE, changes, primary_host_changed=primary)
        found = tenants.read_tenant(c, LIVE_SCOPE)
    assert found.epoch == epoch
    for name, value in changes.items():
        assert getattr(found, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("changes", [{"epoch": 0}, {"slug": "other"}, {"policy": "SECRET"}])
def test_what_is_no_setting_cannot_be_changed(acme: Database, changes) -> None:
    with acme.write(LIVE_SCOPE) as c, pytest.raises(ValueError):
        tenants.update_tenant(c, LIVE_SCOPE, changes)


def test_a_policy_unknown_to_this_version_counts_as_gated(acme: Database) -> None:
    with acme.write(LIVE_SCOPE) as c:
        c.execute(tenant.update().where(tenant.c.tenant_id == LIVE).values(policy="THREE_TIER"))
        assert tenants.read_tenant(c, LIVE_SCOPE).policy is Policy.GATED


def _methods(db: Database, *wanted: tuple[str, dict[str, object]]) -> dict[str, tuple[int, bool, dict, int]]:
    with db.write(LIVE_SCOPE) as c:
        methods.put_methods(c, LIVE_SCOPE, wanted)
        rows = methods.list_methods(c, LIVE_SCOPE, enabled_only=False)
        enabled = methods.list_methods(c, LIVE_SCOPE)
    assert enabled == tuple(row for row in rows if row.enabled)
    assert [row.slug for row in enabled] == [slug for slug, _ in wanted]
    return {row.slug: (row.position, row.enabled, row.settings, row.epoch) for row in rows}


def test_methods_keep_their_epoch_when_they_go_and_come_back(acme: Database) -> None:
    code, sso = ("access_code", {}), ("sso", {"issuer": "https://id.example"})
    assert _methods(acme, code, sso)["sso"] == (1, True, {"issuer": "https://id.example"}, 0)
    assert _methods(acme, code, sso)["sso"][3] == 0
    moved = _methods(acme, sso, code)
    assert (moved["sso"][:2], moved["sso"][3], moved["access_code"][3]) == ((0, True), 0, 0)
    assert _methods(acme, code)["sso"][1:] == (False, {"issuer": "https://id.example"}, 1)
    assert _methods(acme, code)["sso"][3] == 1
    assert _methods(acme, code, sso)["sso"][1:] == (True, {"issuer": "https://id.example"}, 1)
    assert _methods(acme, code, ("sso", {"issuer": "https://other.example"}))["sso"][3] == 2


def test_a_method_is_named_once(acme: Database) -> None:
    with acme.write(LIVE_SCOPE) as c, pytest.raises(ValueError):
        methods.put_methods(c, LIVE_SCOPE, [("a", {}), ("a", {})])
