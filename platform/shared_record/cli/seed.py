"""Usage for the demo: two months for every demo customer, recorded by the same intake code as the API uses.

The amounts are made up from a fixed seed and every delta has a ``referenceId``, so a seeding that was interrupted is
run again from the start and adds only what is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from shared_record.access import entitlements
from shared_record.clock import SteppedClock, period_bounds, period_of, rfc3339
from shared_record.db.engine import Database
from shared_record.db.lookup import TenantRow
from shared_record.db.scope import Scope
from shared_record.errors import SharedRecordError
from shared_record.keys import KeyRing
from shared_record.ledger.amounts import canonical
from shared_record.ledger.entry import canonical_metadata
from shared_record.ledger.intake import Delta, Rejected, record_deltas
from shared_record.ledger.locks import LockStore
from shared_record.tenancy.customers import create_customers, find_customers
from shared_record.worker import Worker

BATCH = 25


@dataclass(frozen=True, slots=True)
class Profile:
    """One demo customer: how much is recorded in the month before and in this month so far, and what it looks like."""

    external_id: str
    display_name: str
    before: int
    current: int
    reasons: tuple[str, ...]
    scale: str


def _profile(external_id: str, name: str, before: int, current: int, reasons: str, scale: str) -> Profile:
    return Profile(external_id, name, before, current, tuple(reasons.split("|")), scale)


CALLS, POWER, MESSAGES = "chat completion|embedding|batch run", "night tariff|day tariff", "SMS|WhatsApp|voice minute"
PROFILES: dict[str, tuple[Profile, ...]] = {
    "acme": (
        _profile("cust_northwind", "Northwind Traders", 3200, 2400, CALLS, "0.25"),
        _profile("cust_fabrikam", "Fabrikam Labs", 420, 310, CALLS, "1"),
        _profile("cust_halden", "Halden & Sons", 60, 45, CALLS, "0.5"),
    ),
    "borealis": (
        _profile("cust_kallio", "Kallio Cold Storage", 620, 480, POWER, "0.001"),
        _profile("cust_saimaa", "Saimaa Sawmill", 300, 210, POWER, "0.001"),
        _profile("cust_tapiola", "Tapiola Offices", 90, 70, POWER, "0.01"),
    ),
    "copperline": (
        _profile("cust_petrel", "Petrel Airlines", 500, 390, MESSAGES, "1"),
        _profile("cust_lantern", "Lantern Clinics", 150, 120, MESSAGES, "1"),
        _profile("cust_osprey", "Osprey Couriers", 40, 25, MESSAGES, "1"),
    ),
}


MAILED = "borealis"
"""The tenant whose customers may choose a mailed code too."""


def email_of(slug: str, external_id: str) -> str | None:
    """Return the address that is listed for a demo customer, if there is one."""
    known = slug == MAILED and external_id in {profile.external_id for profile in PROFILES[slug]}
    return f"{external_id.removeprefix('cust_')}@customer.example" if known else None


def count_deltas(slugs: list[str]) -> int:
    """Return how many deltas seeding these tenants records."""
    return sum(profile.before + profile.current for slug in slugs for profile in PROFILES.get(slug, ()))


def seed_tenant(
    db: Database,
    keys: KeyRing,
    locks: LockStore,
    tenant: TenantRow,
    until: datetime,
    report: Callable[[int], None],
) -> None:
    """Record two months of usage up to ``until`` for the demo customers of one tenant, closing the first month.

    The clock is set to each moment of recording; checkpoints are made day by day. ``report`` hears how many deltas were
    recorded since it last did.
    """
    scope, profiles = tenant.scope, PROFILES.get(tenant.slug, ())
    clock = SteppedClock(until)
    worker = Worker(db, keys, clock, locks, checkpoint_seconds=0)
    start, _ = period_bounds(period_of(period_bounds(period_of(until))[0] - timedelta(days=1)))
    clock.set(start)
    _name_customers(db, keys, clock, scope, profiles)
    _list_addresses(db, keys, clock, tenant)
    day = start.date()
    for moment, delta_list in _timeline(profiles, start, until):
        if moment.date() != day:
            day = moment.date()
            clock.set(max(moment.replace(hour=0, minute=0, second=5, microsecond=0), clock.now()))
            worker.serve(tenant)
        clock.set(max(moment, clock.now()))
        for result in record_deltas(db, keys, clock, scope, delta_list):
            if isinstance(result, Rejected):
                raise SharedRecordError(f"the demo's usage was refused: {result.message}")
        report(len(delta_list))
    clock.set(until)
    worker.serve(tenant)


def _name_customers(
    db: Database, keys: KeyRing, clock: SteppedClock, scope: Scope, profiles: tuple[Profile, ...]
) -> None:
    with db.write(scope) as connection:
        known = find_customers(connection, scope, [profile.external_id for profile in profiles])
        for profile in profiles:
            if profile.external_id not in known:
                create_customers(
                    connection, keys, clock, scope, [profile.external_id], display_name=profile.display_name
                )


def _list_addresses(db: Database, keys: KeyRing, clock: SteppedClock, tenant: TenantRow) -> None:
    with db.write(tenant.scope) as connection:
        for profile in PROFILES.get(tenant.slug, ()):
            if address := email_of(tenant.slug, profile.external_id):
                rule = entitlements.email(address)
                entitlements.allow(connection, keys, clock, tenant.scope, profile.external_id, rule, "cli:demo")


def _timeline(
    profiles: tuple[Profile, ...], start: datetime, until: datetime
) -> Iterator[tuple[datetime, list[Delta]]]:
    """Yield batches of one customer's deltas in the order of the moments at which they are recorded."""
    turn, _ = period_bounds(period_of(until))
    batches: list[tuple[datetime, list[Delta]]] = []
    for profile in profiles:
        for begin, end, count in ((start, turn, profile.before), (turn, until, profile.current)):
            batches += _batches(profile, begin, end, count)
    yield from sorted(batches, key=lambda batch: batch[0])


def _batches(profile: Profile, begin: datetime, end: datetime, count: int) -> Iterator[tuple[datetime, list[Delta]]]:
    random_ = random.Random(f"{profile.external_id}/{period_of(begin)}")  # noqa: S311  a demo's figures
    size = min(BATCH, max(1, count // 30))
    span = (end - begin) / (count + 1)
    unit = Decimal(profile.scale)
    for first in range(0, count, size):
        deltas = []
        for number in range(first, min(first + size, count)):
            used = begin + span * (number + random_.random())
            amount = unit * random_.randint(1, 400)
            if random_.random() < 0.01:
                amount = -amount
            deltas.append(
                Delta(
                    profile.external_id,
                    canonical(amount),
                    random_.choice(profile.reasons) if amount > 0 else "credit after review",
                    reference_id=f"{period_of(begin)}-{number + 1:05d}",
                    metadata=canonical_metadata({"region": random_.choice(("eu", "us", "ap"))}),
                    occurred_at=rfc3339(min(used, end)),
                )
            )
        yield begin + span * (min(first + size, count)), deltas
