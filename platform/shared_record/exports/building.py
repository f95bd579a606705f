"""Building the files that were asked for, and removing those that are over: what the worker does for ``exports.jobs``.

A file is built under a name that only this lease uses, made durable, renamed, and only then written into its row. So a
worker may be killed at any instruction: the row says ``preparing`` until another one has built a whole file, and what
lies about without a row that names it is removed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID

from sqlalchemy import Update, bindparam
from sqlalchemy.exc import SQLAlchemyError

from shared_record.clock import Clock
from shared_record.db import leases
from shared_record.db.engine import Database
from shared_record.db.leases import Lease, check_fence
from shared_record.db.schema import export_job
from shared_record.db.scope import Scope
from shared_record.errors import ConflictError
from shared_record.exports import jobs
from shared_record.exports.jobs import Export
from shared_record.exports.service import Built, Furnishing, build_export
from shared_record.keys import KeyRing
from shared_record.languages import speak
from shared_record.plugin import ExportFormat

LEASE = timedelta(minutes=2)
"""How long a worker that was killed keeps a plane's exports to itself. One that lives says so every few seconds."""
BEAT_SECONDS = 2.0
SWEEP = timedelta(minutes=5)
"""How often files are looked through for what is over, while there are any."""
IDLE = timedelta(days=1)
ATTEMPTS = 5
"""How often a file is begun. Only a worker that dies of it leaves it to be begun again."""

_MINE = (export_job.c.tenant_id == bindparam("t")) & (export_job.c.export_id == bindparam("of_export"))
_BEGIN = export_job.update().where(_MINE).values(attempts=export_job.c.attempts + 1, written=0)
_NOTE = export_job.update().where(_MINE).values(written=bindparam("so_far"))
_FAIL = export_job.update().where(_MINE).values(state=jobs.FAILED)
_FINISH = (
    export_job.update()
    .where(_MINE)
    .values(
        state=jobs.READY,
        written=bindparam("so_far"),
        file=bindparam("of_file"),
        filename=bindparam("of_filename"),
        length=bindparam("of_length"),
        sha256=bindparam("of_sha256"),
        manifest=bindparam("of_manifest"),
    )
)
_DELETE = export_job.delete().where(_MINE)

_log = logging.getLogger("shared_record.exports")


class Interrupted(BaseException):
    """The worker ends, past whatever a format catches; the file in hand is begun anew by another."""


def folder_of(folder: Path, scope: Scope) -> Path:
    """Return where the files of one plane lie."""
    return folder / scope.plane.hex


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds files into ``folder``. ``furnish`` returns what documents of a customer carry besides figures."""

    db: Database
    keys: KeyRing
    clock: Clock
    formats: Mapping[str, type[ExportFormat]]
    folder: Path
    furnish: Callable[[Scope, UUID], Furnishing]

    def serve(self, lease: Lease, give_way: Callable[[], None]) -> int:
        """Build what was asked for in a plane and remove what is over; return how many files were built.

        ``give_way`` is called every few seconds and may raise ``Interrupted``. The lease is given back.
        """
        scope, built = lease.scope, 0
        self.sweep(lease)
        while (job := self._next(scope)) is not None:
            built += self._build(lease, job, give_way)
        with self.db.write(scope) as connection:
            check_fence(connection, lease)  # whoever asks from here on waits, and calls again
            left = jobs.list_all(connection, scope)
            leases.give_back(connection, lease, self._due(left))
        return built

    def sweep(self, lease: Lease) -> int:
        """Remove exports that are past their time or whose link changed, and every file that no row names."""
        scope, now = lease.scope, self.clock.now()
        with self.db.write(scope) as connection:
            check_fence(connection, lease)
            every = jobs.list_all(connection, scope)
            over = [one for one in every if one.expires_at <= now or not one.is_good]
            for one in over:
                connection.execute(_DELETE, {"t": scope.plane, "of_export": one.export_id})
        kept = {one.file for one in every if one not in over}
        removed = 0
        folder = folder_of(self.folder, scope)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in kept:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _next(self, scope: Scope) -> Export | None:
        with self.db.read(scope) as connection:
            every = jobs.list_all(connection, scope)
        now = self.clock.now()
        wanted = (one for one in every if one.state == jobs.PREPARING and one.is_good and one.expires_at > now)
        return next(wanted, None)

    def _due(self, left: list[Export]) -> datetime:
        now = self.clock.now()
        if any(one.state == jobs.PREPARING for one in left):
            return now
        return now + (SWEEP if left else IDLE)

    def _build(self, lease: Lease, job: Export, give_way: Callable[[], None]) -> bool:
        """Build one file; return whether it is ready. A failure is final: the reader may ask again."""
        beat = _Beat(self.db, self.clock, lease, job.export_id, give_way)
        kind = self.formats.get(job.format)
        if kind is None or job.attempts >= ATTEMPTS:
            _log.error("export %s (%s) is given up after %d attempts", job.export_id, job.format, job.attempts)
            self._set(lease, job, _FAIL)
            return False
        self._set(lease, job, _BEGIN)
        speak(job.language)
        name = f"{job.export_id}.{lease.fence}"
        folder = folder_of(self.folder, lease.scope)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            built = self._write(lease.scope, job, kind, folder / name, beat)
        except (SQLAlchemyError, ConflictError):
            raise
        except Exception:  # a format is a plugin: whatever is wrong with it must not stop the others
            _log.exception("export %s (%s) failed", job.export_id, job.format)
            self._set(lease, job, _FAIL)
            return False
        return self._finish(lease, job, folder / name, built)

    def _write(self, scope: Scope, job: Export, kind: type[ExportFormat], path: Path, beat: _Beat) -> Built:
        part = path.with_name(f"{path.name}.part")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                furnishing = self.furnish(scope, job.customer_id)
                watched, who = cast(IO[bytes], _Watched(out, beat)), job.customer_id
                built = build_export(
                    self.db, self.keys, self.clock, scope, who, job.period, kind, watched, furnishing, beat.rows
                )
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
            _make_durable(path.parent)
        finally:
            part.unlink(missing_ok=True)
        return built

    def _finish(self, lease: Lease, job: Export, path: Path, built: Built) -> bool:
        found = {
            "of_file": path.name,
            "of_filename": built.filename,
            "of_length": built.length,
            "of_sha256": built.sha256,
            "of_manifest": built.manifest,
            "so_far": built.summary.rows,
        }
        if self._set(lease, job, _FINISH, **found):
            return True
        path.unlink(missing_ok=True)  # the customer was erased meanwhile, or asked for a newer one
        return False

    def _set(self, lease: Lease, job: Export, change: Update, **values: Any) -> bool:
        with self.db.write(lease.scope) as connection:
            leases.extend(connection, lease, self.clock.now() + LEASE)
            of_job = {"t": lease.scope.plane, "of_export": job.export_id}
            return connection.execute(change, of_job | values).rowcount > 0


class _Beat:
    """Says now and then that the worker lives and how far it is, and lets more urgent work go first."""

    def __init__(self, db: Database, clock: Clock, lease: Lease, export_id: str, give_way: Callable[[], None]) -> None:
        self._db, self._clock, self._lease = db, clock, lease
        self._of_job = {"t": lease.scope.plane, "of_export": export_id}
        self._give_way = give_way
        self._so_far = 0
        self._last = time.monotonic()

    def rows(self, so_far: int) -> None:
        """Note how many rows were read."""
        self._so_far = so_far
        self.beat()

    def beat(self) -> None:
        """Extend the lease if that is due; ``ConflictError`` once another worker has it."""
        if time.monotonic() - self._last < BEAT_SECONDS:
            return
        self._give_way()
        try:
            with self._db.write(self._lease.scope) as connection:
                leases.extend(connection, self._lease, self._clock.now() + LEASE)
                connection.execute(_NOTE, self._of_job | {"so_far": self._so_far})
        except SQLAlchemyError as error:  # the lease lasts a while; if it ends, the next write is refused
            _log.warning("export %s: no sign of life: %s", self._of_job["of_export"], type(error).__name__)
        self._last = time.monotonic()


class _Watched:
    """A stream whose every write is an occasion for a sign of life: some formats write long after the last row."""

    def __init__(self, out: IO[bytes], beat: _Beat) -> None:
        self._out, self._beat = out, beat

    def write(self, data: bytes) -> int:
        self._beat.beat()
        return self._out.write(data)


def _make_durable(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
