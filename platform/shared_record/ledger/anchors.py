"""Anchors: what services outside this installation attest of published checkpoints, asked for after publication.

Nothing waits for an anchor. What one raises, or does not answer in time, is logged and tried again later, by itself.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import BindParameter, Connection, Row, bindparam, select

from shared_record.clock import Clock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease
from shared_record.db.schema import anchor, checkpoint, job
from shared_record.db.scope import Scope
from shared_record.ledger.note import VerifierKey, is_signed_by, parse_checkpoint
from shared_record.ledger.outbound import at_once, post
from shared_record.plugin import AnchorContext, Anchored, AnchorProof, CheckpointAnchor, Post, RecordProof

ANCHOR = "anchor"
"""The kind of lease under which a log's checkpoints are anchored."""
DEADLINE_SECONDS = 30
"""For all anchors of a tenant together."""
RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(hours=1)
MAX_PROOF = 1_000_000
RECENT = 32
"""Proofs among which the newest of a kind is looked for: an anchor that is not among them is no longer in use."""

_T: BindParameter[UUID] = bindparam("t")
_JOB = select(job.c.failures).where(job.c.tenant_id == _T, job.c.kind == bindparam("job_kind"))
_NEWEST_NOTE = (
    select(checkpoint.c.size, checkpoint.c.note)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published")
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)
_NOTES = select(checkpoint.c.note).where(
    checkpoint.c.tenant_id == _T, checkpoint.c.size == bindparam("of_size"), checkpoint.c.state == "published"
)
_RECENT = (
    select(anchor.c.kind, anchor.c.digest, anchor.c.stored_at)
    .where(anchor.c.tenant_id == _T)
    .order_by(anchor.c.stored_at.desc())
    .limit(RECENT)
)
_ONE = select(anchor).where(
    anchor.c.tenant_id == _T, anchor.c.kind == bindparam("of_kind"), anchor.c.digest == bindparam("of_digest")
)
_OF_NOTE = (
    select(anchor).where(anchor.c.tenant_id == _T, anchor.c.digest == bindparam("of_digest")).order_by(anchor.c.kind)
)

_log = logging.getLogger("shared_record.anchors")


@dataclass(frozen=True, slots=True)
class Enabled:
    """The anchors that a tenant has enabled, by slug with their settings, and the least time between two proofs."""

    classes: Mapping[str, type[CheckpointAnchor]]
    settings: Mapping[str, Mapping[str, Any]]
    interval: timedelta


def ensure_job(db: Database, clock: Clock, scope: Scope) -> None:
    """See to it that a log that is to be anchored has the row that its lease is taken on."""
    with db.read(scope) as connection:
        if _failures(connection, scope) is not None:
            return
    with db.write(scope) as connection:
        if _failures(connection, scope) is None:
            leases.create_job(connection, scope, ANCHOR, clock.now())


def is_due(db: Database, clock: Clock, scope: Scope) -> bool:
    """Tell whether it is time to ask this log's anchors."""
    with db.read(scope) as connection:
        found = _failures(connection, scope) is not None
        return found and leases.due_at(connection, scope, ANCHOR) <= clock.now()


def anchor_newest(db: Database, clock: Clock, lease: Lease, enabled: Enabled, send: Post = post) -> list[str]:
    """Have the newest published checkpoint anchored by all that are enabled and due; return the kinds stored.

    The lease is given back: due again after the interval, or, when any of them failed, after a time that doubles.
    """
    scope = lease.scope
    with db.read(scope) as connection:
        newest = connection.execute(_NEWEST_NOTE, {"t": scope.plane}).one_or_none()
        stored = {row.kind: row.stored_at for row in _newest(connection, scope)}
        present = {proof.kind for proof in anchors_of(connection, scope, newest.note)} if newest else set()
        failures = _failures(connection, scope) or 0
    now = clock.now()
    rested = {slug for slug in enabled.settings if slug not in stored or now - stored[slug] >= enabled.interval}
    due = sorted(rested - present)
    kinds: list[str] = []
    problems: list[str] = []
    if newest is not None and due:
        note = newest.note.encode()
        calls = [partial(_ask, enabled, slug, note, now, send) for slug in due]
        for slug, result in zip(due, at_once(calls, DEADLINE_SECONDS), strict=True):
            if isinstance(result, AnchorProof):
                _store(db, clock, lease, newest.size, note, result)
                kinds.append(slug)
            else:
                problems.append(f"{slug}: {type(result).__name__}: {result}")
                _log.warning("anchor %s of size %s failed: %s", slug, newest.size, result)
    if problems:
        wait = min(RETRY * 2 ** min(failures, 10), LONGEST_RETRY)
        leases.fail(db, lease, clock.now() + wait, "; ".join(problems))
    else:
        leases.release(db, lease, clock.now() + enabled.interval)
    return kinds


def newest_anchors(connection: Connection, scope: Scope) -> list[str]:
    """Return SHA-256 in hex of the newest proof of each kind: an epoch that lists them was made after them."""
    return [hashlib.sha256(row.proof).hexdigest() for row in _newest_rows(connection, scope)]


def list_anchored(connection: Connection, scope: Scope, proof: RecordProof) -> tuple[Anchored, ...]:
    """Return the newest proof of each kind with its note, where one key signed that note and the one in ``proof``."""
    keys = [VerifierKey.parse(vkey) for vkey in proof.vkeys]
    keys = [key for key in keys if is_signed_by(proof.checkpoint, key)]
    found = []
    for row in _newest_rows(connection, scope):
        notes = connection.execute(_NOTES, {"t": scope.plane, "of_size": row.size}).scalars()
        note = next((note for note in notes if hashlib.sha256(note.encode()).digest() == row.digest), None)
        if note is not None and any(is_signed_by(note, key) for key in keys):
            size = parse_checkpoint(note.rpartition("\n\n")[0] + "\n").size
            found.append(Anchored(size, note, row.kind, row.proof, row.at))
    return tuple(found)


def anchors_of(connection: Connection, scope: Scope, note: str) -> tuple[AnchorProof, ...]:
    """Return what is stored for one note, by kind."""
    digest = hashlib.sha256(note.encode()).digest()
    rows = connection.execute(_OF_NOTE, {"t": scope.plane, "of_digest": digest})
    return tuple(AnchorProof(row.kind, row.proof, row.at) for row in rows)


def _newest(connection: Connection, scope: Scope) -> list[Row[str, bytes, datetime]]:
    """Return kind, digest and time of the newest proof of each kind, by kind."""
    newest: dict[str, Row[str, bytes, datetime]] = {}
    for row in connection.execute(_RECENT, {"t": scope.plane}):
        newest.setdefault(row.kind, row)
    return [newest[kind] for kind in sorted(newest)]


def _newest_rows(connection: Connection, scope: Scope) -> list[Row[Any]]:
    return [
        connection.execute(_ONE, {"t": scope.plane, "of_kind": row.kind, "of_digest": row.digest}).one()
        for row in _newest(connection, scope)
    ]


def _ask(enabled: Enabled, slug: str, note: bytes, now: datetime, send: Post) -> AnchorProof:
    found = enabled.classes.get(slug)
    if found is None:
        raise LookupError("no installed plugin has this anchor")
    try:
        settings = found.settings_model.model_validate(enabled.settings[slug])
    except ValidationError as error:
        raise ValueError("its settings are refused by its plugin") from error
    proof = found().anchor(hashlib.sha256(note).digest(), note, AnchorContext(settings, now, send))
    if not isinstance(proof, AnchorProof) or proof.kind != slug or not 0 < len(proof.proof) <= MAX_PROOF:
        raise ValueError("it returned no proof of its kind")
    return proof


def _store(db: Database, clock: Clock, lease: Lease, size: int, note: bytes, proof: AnchorProof) -> None:
    scope = lease.scope
    with db.write(scope) as connection:
        leases.check_fence(connection, lease)
        connection.execute(
            anchor.insert(),
            {
                "tenant_id": scope.plane,
                "kind": proof.kind,
                "digest": hashlib.sha256(note).digest(),
                "size": size,
                "proof": proof.proof,
                "at": proof.at,
                "stored_at": clock.now(),
            },
        )


def _failures(connection: Connection, scope: Scope) -> int | None:
    found: int | None = connection.execute(_JOB, {"t": scope.plane, "job_kind": ANCHOR}).scalar_one_or_none()
    return found
