"""The invoice bundle: everything that one customer's invoice for one period says about the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import segno
from sqlalchemy import BindParameter, Connection, bindparam, func, select

from shared_record.access import links
from shared_record.access.links import Link
from shared_record.clock import Clock, rfc3339
from shared_record.db.engine import Database
from shared_record.db.schema import customer, leaf, period_tree
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.invoicing.readiness import Blocker, find_blockers
from shared_record.invoicing.texts import LOCALES, text_block
from shared_record.keys import KeyRing
from shared_record.ledger.entry import receipt_id
from shared_record.ledger.fingerprint import fingerprint
from shared_record.ledger.receipts import list_receipts
from shared_record.ledger.records import Coverage, Period, coverage, find_period, list_periods
from shared_record.tenancy.methods import list_methods
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import read_tenant

Url = Callable[[str | None, str], str]
"""Makes the absolute URL of a path on a host; ``None`` is the platform host."""

LATE_LOOK = 1_000
"""Corrections of a closed period are looked for among this many of the next period's first records: that is when
what was on its way at the close arrives."""

_T: BindParameter[UUID] = bindparam("t")
_CUSTOMERS = (
    select(customer.c.external_id)
    .select_from(
        period_tree.join(
            customer,
            (customer.c.tenant_id == period_tree.c.tenant_id) & (customer.c.customer_id == period_tree.c.customer_id),
        )
    )
    .where(
        period_tree.c.tenant_id == _T,
        period_tree.c.period == bindparam("which"),
        period_tree.c.size > 0,
        customer.c.sealed_key.is_not(None),
    )
    .order_by(customer.c.slot)
)
_LATE = (
    select(func.count())
    .select_from(leaf)
    .where(
        leaf.c.tenant_id == _T,
        leaf.c.tree_id == bindparam("tree"),
        leaf.c.seq <= LATE_LOOK,
        leaf.c.adjusts == bindparam("which"),
    )
)


@dataclass(frozen=True, slots=True)
class InvoiceBundle:
    """One customer and period. Decimals are canonical texts; ``verified_*`` is the part that a checkpoint covers.

    ``access_code`` is ``None`` unless it was asked for. ``verify_url`` is what to print: an opaque string.
    """

    customer_id: str
    display_name: str | None
    vendor: str
    period: str
    start: datetime
    end: datetime
    zone: str
    unit: str
    total: str
    records: int
    verified_total: str
    verified_records: int
    verified_through: datetime | None
    fingerprint: str | None
    proof_root: str | None
    receipt_id: str | None
    checkpoint_size: int | None
    policy: str
    link: str | None
    link_host: str | None
    access_code: str | None
    receipt_url: str | None
    verify_url: str | None
    verification_api_url: str | None
    qr_svg: str | None
    texts: Mapping[str, str]
    blockers: tuple[Blocker, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing blocks the invoice."""
        return not self.blockers


def customers_of(connection: Connection, scope: Scope, period: str) -> list[str]:
    """Return the ids of the customers with records in ``period``, in the order in which they were made."""
    return list(connection.execute(_CUSTOMERS, {"t": scope.plane, "which": period}).scalars())


def build_bundle(
    db: Database,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    external_id: str,
    period: str,
    url: Url,
    *,
    actor: str | None,
) -> InvoiceBundle:
    """Return the bundle of one customer and period.

    ``actor`` is who asks for the access code, and the reveal is audited; ``None``: without it. ``NotFoundError``
    (``CUSTOMER_NOT_FOUND``, ``PERIOD_NOT_FOUND``).
    """
    code = None
    if actor is not None:
        with db.write(scope) as connection:
            revealed = links.reveal_code(connection, keys, clock, scope, external_id, actor)
        code = f"{revealed[:3]}-{revealed[3:]}"  # as it is printed; dashes do not count when it is typed
    with db.read(scope, snapshot=True) as connection:
        return _read(connection, keys, scope, external_id, period, url, code)


def build_all(
    db: Database, keys: KeyRing, clock: Clock, scope: Scope, period: str, url: Url, *, actor: str | None
) -> Iterator[InvoiceBundle]:
    """Yield the bundle of every customer with records in ``period``, one at a time."""
    with db.read(scope) as connection:
        names = customers_of(connection, scope, period)
    for name in names:
        yield build_bundle(db, keys, clock, scope, name, period, url, actor=actor)


def qr_svg(text: str) -> str:
    """Return a QR code as SVG, of medium error correction (ISO/IEC 18004 level M) and with its quiet zone."""
    code = segno.make_qr(text, error="m")
    return str(code.svg_inline(scale=4, border=4))


def _read(
    connection: Connection, keys: KeyRing, scope: Scope, external_id: str, period: str, url: Url, code: str | None
) -> InvoiceBundle:
    link = links.show_link(connection, keys, scope, external_id)
    found = find_period(connection, scope, link.customer_id, period)
    if found is None or found.size == 0:
        raise NotFoundError(f"nothing is recorded for {external_id!r} in {period}.", code="PERIOD_NOT_FOUND")
    tenant = read_tenant(connection, scope)
    policy = tenant.policy if link.policy == links.INHERIT else Policy.stored(link.policy)
    reach = coverage(connection, scope, [found])
    start, end = found.bounds
    receipts = list_receipts(connection, scope, link.customer_id)
    receipt = next((one for one in receipts if (one.start, one.end) == (start, end)), None)
    root = receipt_id(found.proot) if found.proot and found.psize else None
    receipt_url = url(link.host, f"/receipt/{receipt.receipt_id}") if receipt else None
    link_url = url(link.host, link.path) if link.path else None
    short = fingerprint(found.proot) if found.proot and root else None
    blockers = find_blockers(
        found,
        link,
        policy,
        has_methods=bool(list_methods(connection, scope)),
        late_records=_late_records(connection, scope, link, found),
    )
    verify_url = link_url or receipt_url
    return InvoiceBundle(
        customer_id=external_id,
        display_name=link.display_name,
        vendor=tenant.name,
        period=period,
        start=start,
        end=end,
        zone="UTC",
        unit=found.unit,
        total=found.total,
        records=found.size,
        verified_total=found.ptotal,
        verified_records=found.psize,
        verified_through=_through(reach, found),
        fingerprint=short,
        proof_root=root,
        receipt_id=receipt.receipt_id if receipt else None,
        checkpoint_size=None if reach.newest_epoch is None else reach.newest_epoch + 1,
        policy=policy.value,
        link=link_url,
        link_host=link.host,
        access_code=code,
        receipt_url=receipt_url,
        verify_url=verify_url,
        verification_api_url=url(link.host, f"/api/v1/verify/{root}") if root else None,
        qr_svg=qr_svg(verify_url) if verify_url else None,
        texts=_texts(found, short, verify_url, code),
        blockers=blockers,
    )


def _through(reach: Coverage, period: Period) -> datetime | None:
    return min(reach.through, period.bounds[1]) if reach.through else None


def _late_records(connection: Connection, scope: Scope, link: Link, period: Period) -> int:
    later = [one for one in list_periods(connection, scope, link.customer_id) if one.period > period.period]
    if not later:
        return 0
    parameters: dict[str, Any] = {"t": scope.plane, "tree": later[-1].tree_id, "which": period.period}
    return int(connection.execute(_LATE, parameters).scalar_one())


def as_data(bundle: InvoiceBundle) -> dict[str, Any]:
    """Return a bundle as JSON data, in snake case; every amount is text."""
    return {
        "customer_id": bundle.customer_id,
        "display_name": bundle.display_name,
        "vendor": bundle.vendor,
        "period": bundle.period,
        "boundaries": {"start": rfc3339(bundle.start), "end": rfc3339(bundle.end), "zone": bundle.zone},
        "total": {"amount": bundle.total, "unit": bundle.unit},
        "records": bundle.records,
        "verified": {"amount": bundle.verified_total, "records": bundle.verified_records},
        "verified_through": rfc3339(bundle.verified_through) if bundle.verified_through else None,
        "fingerprint": bundle.fingerprint,
        "proof_root": bundle.proof_root,
        "receipt_id": bundle.receipt_id,
        "checkpoint_size": bundle.checkpoint_size,
        "policy": bundle.policy,
        "link": bundle.link,
        "link_host": bundle.link_host,
        "access_code": bundle.access_code,
        "receipt_url": bundle.receipt_url,
        "verify_url": bundle.verify_url,
        "verification_api_url": bundle.verification_api_url,
        "qr_svg": bundle.qr_svg,
        "text": dict(bundle.texts),
        "ready": bundle.ready,
        "blockers": [{"code": one.code, "message": one.message, "action": one.action} for one in bundle.blockers],
    }


def _texts(period: Period, short: str | None, verify_url: str | None, code: str | None) -> dict[str, str]:
    return {
        locale: text_block(
            locale,
            start=period.bounds[0],
            total=period.total,
            unit=period.unit,
            records=period.size,
            fingerprint=short or "",
            url=verify_url or "",
            code=code,
        )
        for locale in LOCALES
    }
