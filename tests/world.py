"""A small installation for tests: a tenant with hosts, customers and usage, made by the same code as the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from shared_record.access import apikeys, links
from shared_record.clock import SteppedClock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.schema import host
from shared_record.db.scope import Scope
from shared_record.keys import KeyRing
from shared_record.ledger import logs
from shared_record.ledger.checkpoints import make_checkpoint
from shared_record.ledger.intake import Accepted, Delta, Rejected, record_deltas
from shared_record.ledger.locks import FileLockStore
from shared_record.ledger.periods import close_periods
from shared_record.tenancy.methods import put_methods
from shared_record.tenancy.tenants import create_tenant, update_tenant


@dataclass
class Shop:
    """One tenant under test."""

    db: Database
    keys: KeyRing
    clock: SteppedClock
    locks: FileLockStore
    scope: Scope
    slug: str
    hosts: tuple[str, ...]
    test_scope: Scope
    counter: int = field(default=0)

    def record(self, customer: str, *amounts: str, **fields: str) -> list[Accepted | Rejected]:
        """Record deltas for one customer, in one transaction."""
        deltas = [Delta(customer, amount, fields.get("reason", "usage"), **_rest(fields)) for amount in amounts]
        return record_deltas(self.db, self.keys, self.clock, self.scope, deltas)

    def record_many(self, deltas: Sequence[Delta]) -> list[Accepted | Rejected]:
        """Record any deltas."""
        return record_deltas(self.db, self.keys, self.clock, self.scope, deltas)

    def lease(self) -> leases.Lease:
        """Take the sequencer's lease, waiting out any other."""
        self.clock.advance(minutes=10)
        lease = leases.acquire(self.db, self.clock, self.scope, logs.SEQUENCER, "test", timedelta(minutes=5))
        assert lease is not None
        return lease

    def checkpoint(self) -> int:
        """Integrate and publish one checkpoint; return the log's size."""
        return make_checkpoint(self.db, self.keys, self.clock, self.locks, self.lease())

    def close(self) -> int:
        """Mark past periods as closing."""
        return close_periods(self.db, self.clock, self.lease())

    def link(self, customer: str) -> links.Link:
        """Return a customer's link."""
        with self.db.read(self.scope) as connection:
            return links.show_link(connection, self.keys, self.scope, customer)

    def code(self, customer: str) -> str:
        """Return a customer's access code."""
        with self.db.write(self.scope) as connection:
            return links.reveal_code(connection, self.keys, self.clock, self.scope, customer, "test")

    def api_key(self, *, test: bool = False, scopes: Sequence[str] = apikeys.DEFAULT_SCOPES) -> str:
        """Make an API key."""
        scope = self.test_scope if test else self.scope
        with self.db.write(scope) as connection:
            return apikeys.create_key(connection, self.clock, scope, name="test", scopes=scopes, actor="test")


def _rest(fields: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name != "reason"}


def open_shop(
    db: Database,
    keys: KeyRing,
    clock: SteppedClock,
    folder: Path,
    *,
    slug: str = "acme",
    hosts: tuple[str, ...] = ("usage.acme.localhost", "record.acme.localhost"),
    policy: str = "TWO_TIER",
    theme: str = "default",
    unit: str = "API credits",
    zone: str = "UTC",
) -> Shop:
    """Make a tenant with its test twin, hosts, the access code, all formats, and two logs."""
    live, test = uuid4(), uuid4()
    scope, twin = Scope.of(live), Scope.of(test, live)
    with db.write(scope) as connection:
        create_tenant(connection, keys, clock, tenant_id=live, config_of=None, slug=slug, name=slug.title())
        update_tenant(
            connection,
            scope,
            {
                "policy": policy,
                "theme": theme,
                "unit": unit,
                "zone": zone,
                "contact": "billing@acme.example",
                "export_formats": ["csv", "json"],
            },
        )
        for position, name in enumerate(hosts):
            add_host(connection, clock, live, name, primary=position == 0)
        put_methods(connection, scope, [("access_code", {})])
        logs.create_log(connection, keys, clock, scope, f"localhost/log/{slug}")
        with db.rescope(connection, twin):
            create_tenant(connection, keys, clock, tenant_id=test, config_of=live, slug=slug, name=slug.title())
            logs.create_log(connection, keys, clock, twin, f"localhost/log/{slug}-test")
    return Shop(db, keys, clock, FileLockStore(folder / "locks"), scope, slug, hosts, twin)


def add_host(
    connection, clock: SteppedClock, tenant_id: UUID, name: str, *, primary: bool, role: str = "serving"
) -> None:
    """Insert a host row."""
    connection.execute(
        host.insert(),
        {
            "tenant_id": tenant_id,
            "host": name,
            "display": name,
            "role": role,
            "is_primary": primary,
            "created_at": clock.now(),
        },
    )
