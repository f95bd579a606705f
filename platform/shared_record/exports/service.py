"""Build an export from one snapshot of the ledger, and refuse a file whose figures differ from the ledger's own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO, BinaryIO, cast
from uuid import UUID

from sqlalchemy import Connection, bindparam, select

from shared_record.clock import Clock
from shared_record.db.copied import streaming
from shared_record.db.engine import Database
from shared_record.db.schema import customer, log
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.exports.look import Look
from shared_record.exports.rows import PeriodRows, row_of
from shared_record.exports.statement import StatementFacts, write_statement
from shared_record.keys import KeyRing
from shared_record.ledger.anchors import list_anchored
from shared_record.ledger.proofs import prove_record
from shared_record.ledger.records import Period, Record, coverage, find_period
from shared_record.plugin import ExportFormat, ExportOptions, ExportSummary, RecordFacts, utc_text
from shared_record.tenancy.tenants import read_tenant

_CUSTOMER = (
    select(customer.c.ref, customer.c.display_name, log.c.origin)
    .select_from(customer.join(log, log.c.tenant_id == customer.c.tenant_id))
    .where(customer.c.tenant_id == bindparam("t"), customer.c.customer_id == bindparam("who"))
)


@dataclass(frozen=True, slots=True)
class Furnishing:
    """What formats that make documents use besides the ledger. A format of plain data needs nothing of it.

    ``formats``: those installed, by slug, for a format that packs others. ``looks``: how documents look, by the slug
    of the tenant's theme. ``url``: the customer's link, for the QR code; empty: none. It is never one with a code.
    """

    formats: Mapping[str, type[ExportFormat]] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    url: str = ""


PLAIN = Furnishing()


@dataclass(frozen=True, slots=True)
class Built:
    """A complete file: its name, what is in it and of which record, and the SHA-256 of its bytes."""

    filename: str
    summary: ExportSummary
    record: RecordFacts
    sha256: bytes
    length: int

    @property
    def manifest(self) -> dict[str, object]:
        """What the file holds and at which cut, for those who get it without opening it."""
        root = self.record.proof.root if self.record.proof else None
        return {
            "rows": self.summary.rows,
            "total": self.summary.total,
            "firstId": self.summary.first_id,
            "lastId": self.summary.last_id,
            "root": base64.b64encode(root).decode("ascii") if root else None,
            "covered": {"size": self.record.covered_size, "total": self.record.covered_total},
            "asOf": utc_text(self.record.as_of),
            "bytes": self.length,
            "sha256": self.sha256.hex(),
        }


def build_export(
    db: Database,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    customer_id: UUID,
    period: str,
    kind: type[ExportFormat],
    out: IO[bytes],
    furnishing: Furnishing = PLAIN,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Write one period of a customer to ``out``; ``NotFoundError`` when nothing was recorded in it.

    Rows, totals and proof come from one snapshot, so they agree with each other whatever is recorded meanwhile.
    ``progress`` is told now and then how many rows were read; what it raises ends the export.
    """
    with db.read(scope, snapshot=True) as connection, streaming(connection):
        found = find_period(connection, scope, customer_id, period)
        if found is None:
            raise NotFoundError(f"nothing is recorded in {period}.", code="PERIOD_NOT_FOUND")
        facts = _facts(connection, keys, clock, scope, customer_id, found)
        options = _options(connection, scope, customer_id, found, facts, furnishing)
        counted = _Hashing(out)
        beside = partial(db.read_beside, connection, scope)
        with closing(PeriodRows(connection, scope, found, lean=kind.lean, beside=beside, progress=progress)) as rows:
            summary = kind().write(rows, cast(BinaryIO, counted), options)
    if (summary.rows, summary.total) != (found.size, found.total):
        raise RuntimeError(
            f"{kind.slug} wrote {summary.rows} rows and {summary.total}, the ledger has {found.size} and {found.total}"
        )
    return Built(f"{options.filename}.{kind.extension}", summary, facts, counted.digest(), counted.length)


def write_rows(
    connection: Connection,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    customer_id: UUID,
    period: Period,
    records: Iterable[Record],
    kind: type[ExportFormat],
    out: IO[bytes],
) -> None:
    """Write some of a period's deltas in a format: what one page shows. The facts are those of the whole period."""
    facts = _facts(connection, keys, clock, scope, customer_id, period)
    kind().write(map(row_of, records), cast(BinaryIO, out), ExportOptions(facts))


def _facts(
    connection: Connection, keys: KeyRing, clock: Clock, scope: Scope, customer_id: UUID, period: Period
) -> RecordFacts:
    tenant = read_tenant(connection, scope)
    person = connection.execute(_CUSTOMER, {"t": scope.plane, "who": customer_id}).one()
    start, end = period.bounds
    proof = prove_record(connection, keys, scope, period.tree_id)
    if proof is not None:
        proof = replace(proof, anchors=list_anchored(connection, scope, proof))
    return RecordFacts(
        vendor=tenant.name,
        # A period that was closed under a former origin is proved by that one.
        log_origin=proof.checkpoint.partition("\n")[0] if proof else person.origin,
        customer_ref=person.ref,
        tree_id=period.tree_id,
        period=period.period,
        start=start,
        end=end,
        zone=tenant.zone,
        unit=period.unit,
        as_of=clock.now(),
        size=period.size,
        total=period.total,
        covered_size=period.psize,
        covered_total=period.ptotal,
        proof=proof,
    )


def _options(
    connection: Connection, scope: Scope, customer_id: UUID, period: Period, facts: RecordFacts, furnishing: Furnishing
) -> ExportOptions:
    person = connection.execute(_CUSTOMER, {"t": scope.plane, "who": customer_id}).one()
    through = coverage(connection, scope, [period]).through
    filename = f"usage-{period.period}-{facts.customer_ref.partition('-')[2][:8]}"
    statement = StatementFacts(
        facts,
        csv=f"{filename}.csv",
        customer=person.display_name,
        through=min(through, facts.end) if through and facts.covered_size else None,
        test=scope.plane != scope.config,
        url=furnishing.url,
        look=furnishing.looks.get(read_tenant(connection, scope).theme, Look()),
    )
    return ExportOptions(facts, filename, furnishing.formats, partial(write_statement, statement))


class _Hashing:
    """A binary stream that counts and hashes what passes through."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._hash, self.length = out, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.length += len(data)
        return self._out.write(data)

    def digest(self) -> bytes:
        return self._hash.digest()
