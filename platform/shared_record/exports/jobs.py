"""Exports that are too large for a request: asked for here, built by the worker (``exports.building``), kept for a day.

An id opens nothing: each look-up names the customer, and counts only while the customer's link is the one it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, select
from sqlalchemy.exc import IntegrityError

from shared_record.clock import Clock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.schema import export_job, link
from shared_record.db.scope import Scope
from shared_record.errors import LimitedError, NotFoundError
from shared_record.identifiers import new_identifier
from shared_record.ledger.records import Period, find_period

AT_ONCE = 50_000
"""Rows up to which a file is built while its reader waits."""
KEPT = timedelta(hours=24)
PER_TENANT = 4
"""Files that are prepared at a time for one tenant; for one customer it is one."""
AGAIN = 60
"""Seconds after which it is worth asking again."""
EXPORT = "export"
"""Kind of the lease under which files of a plane are built and removed."""
PREPARING, READY, FAILED = "preparing", "ready", "failed"

_T: BindParameter[UUID] = bindparam("t")
_WHO: BindParameter[UUID] = bindparam("who")
_LINK_EPOCH = select(link.c.epoch).where(link.c.tenant_id == _T, link.c.customer_id == _WHO)
_JOBS: Select[Any] = (
    select(export_job, link.c.epoch.label("epoch_now"))
    .select_from(
        export_job.outerjoin(
            link, (link.c.tenant_id == export_job.c.tenant_id) & (link.c.customer_id == export_job.c.customer_id)
        )
    )
    .where(export_job.c.tenant_id == _T)
    .order_by(export_job.c.created_at, export_job.c.export_id)
)
_OF_CUSTOMER = _JOBS.where(export_job.c.customer_id == _WHO)
_INSERT = export_job.insert()
_REPLACE = export_job.delete().where(
    export_job.c.tenant_id == _T,
    export_job.c.customer_id == _WHO,
    export_job.c.period == bindparam("month"),
    export_job.c.format == bindparam("slug"),
)


@dataclass(frozen=True, slots=True)
class Export:
    """One file that was asked for. What is known of the file itself is set once ``state`` is ``ready``.

    ``rows``: in the period when it was asked for; ``written``: those read so far.
    """

    export_id: str
    customer_id: UUID
    period: str
    format: str
    language: str
    state: str
    rows: int
    written: int
    attempts: int
    created_at: datetime
    expires_at: datetime
    file: str | None
    filename: str | None
    length: int | None
    sha256: bytes | None
    manifest: dict[str, Any] | None
    is_good: bool


class BusyError(LimitedError):
    """As many files are being prepared as there may be: for this customer (``of_tenant`` false), or for its vendor."""

    code = "EXPORT_BUSY"

    def __init__(self, message: str, *, of_tenant: bool) -> None:
        super().__init__(message, retry_after=AGAIN)
        self.of_tenant = of_tenant


def is_large(period: Period) -> bool:
    """Tell whether a file of this period takes longer than a reader should wait."""
    return period.size > AT_ONCE


def ask(
    db: Database,
    clock: Clock,
    scope: Scope,
    customer_id: UUID,
    period: str,
    slug: str,
    language: str,
    *,
    anew: bool = False,
    on_start: Callable[[Connection], None] | None = None,
) -> Export:
    """Have one period prepared as a file, or return the one that is, where nothing was recorded since.

    ``anew``: the file that is ready is lost. ``on_start`` hears of a new file in the transaction that asks for it.
    Raises ``NotFoundError`` (``PERIOD_NOT_FOUND``) or ``BusyError``. An older file of the same kind is given up.
    """
    now = clock.now()
    with db.write(scope) as connection:
        _queue(connection, scope, now)  # from here on, one request of a plane at a time
        found = find_period(connection, scope, customer_id, period)
        if found is None:
            raise NotFoundError(f"nothing is recorded in {period}.", code="PERIOD_NOT_FOUND")
        known = [one for one in list_all(connection, scope) if one.is_good and one.expires_at > now]
        for one in known:
            is_same = (one.customer_id, one.period, one.format) == (customer_id, period, slug)
            is_newest = one.state == READY and one.manifest is not None and one.manifest["rows"] == found.size
            if is_same and (one.state == PREPARING or (is_newest and not anew)):
                return one
        _refuse_more([one for one in known if one.state == PREPARING], customer_id)
        of_customer = {"t": scope.plane, "who": customer_id}
        connection.execute(_REPLACE, of_customer | {"month": period, "slug": slug})
        export_id = new_identifier("exp")
        row = {
            "tenant_id": scope.plane,
            "export_id": export_id,
            "customer_id": customer_id,
            "period": period,
            "format": slug,
            "language": language,
            "link_epoch": connection.execute(_LINK_EPOCH, of_customer).scalar_one_or_none(),
            "state": PREPARING,
            "rows": found.size,
            "created_at": now,
            "expires_at": now + KEPT,
        }
        connection.execute(_INSERT, row)
        if on_start is not None:
            on_start(connection)
        made = find(connection, clock, scope, customer_id, export_id)
    if made is None:
        raise RuntimeError("an export that was just asked for is not there")
    return made


def find(connection: Connection, clock: Clock, scope: Scope, customer_id: UUID, export_id: str) -> Export | None:
    """Return one of a customer's exports; ``None`` once it is past its time or its link was revoked or reissued."""
    found = (one for one in of_customer(connection, clock, scope, customer_id) if one.export_id == export_id)
    return next(found, None)


def find_file(
    connection: Connection, clock: Clock, scope: Scope, customer_id: UUID, period: str, slug: str
) -> Export | None:
    """Return the export of a period in a format, if the customer has one."""
    found = of_customer(connection, clock, scope, customer_id)
    return next((one for one in found if (one.period, one.format) == (period, slug)), None)


def of_customer(connection: Connection, clock: Clock, scope: Scope, customer_id: UUID) -> list[Export]:
    """Return a customer's exports, oldest first."""
    rows = connection.execute(_OF_CUSTOMER, {"t": scope.plane, "who": customer_id})
    return [one for one in map(_export, rows) if one.is_good and one.expires_at > clock.now()]


def list_all(connection: Connection, scope: Scope) -> list[Export]:
    """Return every export of a plane, oldest first, also those that are over."""
    return [_export(row) for row in connection.execute(_JOBS, {"t": scope.plane})]


def is_due(db: Database, clock: Clock, scope: Scope) -> bool:
    """Tell whether files of this plane are to be built, or looked through for what is over."""
    with db.read(scope) as connection:
        due = leases.find_due(connection, scope, EXPORT)
    return due is not None and due <= clock.now()


def _queue(connection: Connection, scope: Scope, now: datetime) -> None:
    """Call the worker to this plane, and hold up every other request until this one is through."""
    if leases.call(connection, scope, EXPORT, now):
        return
    try:
        with connection.begin_nested():
            leases.create_job(connection, scope, EXPORT, now)
    except IntegrityError:  # another request was first
        leases.call(connection, scope, EXPORT, now)


def _refuse_more(preparing: list[Export], customer_id: UUID) -> None:
    if any(one.customer_id == customer_id for one in preparing):
        raise BusyError("Another file of this record is being prepared.", of_tenant=False)
    if len(preparing) >= PER_TENANT:
        raise BusyError("Several large files are being prepared already. Ask again in a few minutes.", of_tenant=True)


def _export(row: Row[*tuple[Any, ...]]) -> Export:
    return Export(
        export_id=row.export_id,
        customer_id=row.customer_id,
        period=row.period,
        format=row.format,
        language=row.language,
        state=row.state,
        rows=row.rows,
        written=row.written,
        attempts=row.attempts,
        created_at=row.created_at,
        expires_at=row.expires_at,
        file=row.file,
        filename=row.filename,
        length=row.length,
        sha256=row.sha256,
        manifest=row.manifest,
        is_good=row.link_epoch == row.epoch_now,
    )
