"""Sending an export: built whole first, then sent with its length and digest."""

from __future__ import annotations

import base64
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast
from uuid import UUID

from flask import Response
from sqlalchemy import Connection

from shared_record.access import audit, links
from shared_record.access.throttle import EXPORTS
from shared_record.db.scope import Scope
from shared_record.errors import LimitedError, NotFoundError
from shared_record.exports import jobs
from shared_record.exports.building import folder_of
from shared_record.exports.jobs import Export
from shared_record.exports.look import looks_of
from shared_record.exports.service import Furnishing, build_export
from shared_record.languages import spoken
from shared_record.plugin import ExportFormat
from shared_record.web.runtime import runtime

_log = logging.getLogger("shared_record.exports")

MEMORY = 4 << 20
"""Bytes of a file that are kept in memory; more goes to a temporary file."""


def require_format(slug: str, enabled: Iterable[str]) -> type[ExportFormat]:
    """Return the export format ``slug`` if it is installed and its tenant enabled it; else ``NotFoundError``."""
    kind = runtime().plugins.export_formats.get(slug)
    if kind is None or slug not in enabled:
        raise NotFoundError(f"there is no export format {slug!r} here.", code="FORMAT_NOT_FOUND")
    return kind


def send_export(scope: Scope, customer_id: UUID, period: str, kind: type[ExportFormat]) -> Response:
    """Return one period as a file. A download that was cut off cannot look complete: length and digest tell."""
    parts = runtime()
    spool = tempfile.SpooledTemporaryFile(max_size=MEMORY)  # noqa: SIM115  closed with the response
    try:
        furnishing = _furnish(scope, customer_id)
        built = build_export(parts.db, parts.keys, parts.clock, scope, customer_id, period, kind, spool, furnishing)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return _attachment(cast(IO[bytes], spool), kind, built.filename, built.length, built.sha256)


def prepare(scope: Scope, customer_id: UUID, period: str, kind: type[ExportFormat], actor: str) -> Export:
    """Have a large file prepared, or return the one that is; ``LimitedError`` where there are too many."""
    parts = runtime()
    if wait := parts.throttle.hit(EXPORTS, scope.plane.hex, customer_id.hex):
        raise LimitedError("Many files of this record were asked for. Try again later.", retry_after=wait.seconds)

    def note(connection: Connection) -> None:
        detail = {"period": period, "format": kind.slug}
        audit.record(
            connection, scope, parts.clock, "export.started", actor=actor, customer_id=customer_id, detail=detail
        )

    wanted = (parts.db, parts.clock, scope, customer_id, period, kind.slug, spoken())
    found = jobs.ask(*wanted, on_start=note)
    if found.state == jobs.READY and not is_there(scope, found):
        found = jobs.ask(*wanted, anew=True, on_start=note)
    return found


def is_there(scope: Scope, found: Export) -> bool:
    """Tell whether a prepared file lies, whole, where this server looks for it."""
    try:
        size = _path(scope, found).stat().st_size
    except OSError:
        size = -1
    if size != found.length:
        _log.error("export %s is not on this disk: web servers and workers must share one", found.export_id)
    return size == found.length


def send_prepared(scope: Scope, found: Export, kind: type[ExportFormat]) -> Response | None:
    """Return a prepared file, or ``None`` where it is not ready, or not on this disk."""
    if found.state != jobs.READY or found.length is None or not found.sha256 or not is_there(scope, found):
        return None
    try:
        source = _path(scope, found).open("rb")
    except OSError:
        return None
    return _attachment(source, kind, found.filename or "", found.length, found.sha256)


def _path(scope: Scope, found: Export) -> Path:
    return folder_of(runtime().settings.exports_path, scope) / (found.file or "")


def _attachment(source: IO[bytes], kind: type[ExportFormat], filename: str, length: int, sha256: bytes) -> Response:
    response = Response(iter(lambda: source.read(1 << 16), b""), content_type=kind.media_type)
    response.call_on_close(source.close)
    response.content_length = length
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(sha256).decode()}:"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _furnish(scope: Scope, customer_id: UUID) -> Furnishing:
    """Return what documents carry besides figures: the tenant's look, and the customer's link if it has one."""
    parts = runtime()
    with parts.db.read(scope) as connection:
        link = links.find_link(connection, parts.keys, scope, customer_id)
    url = ""
    if link is not None and link.path is not None:
        url = parts.settings.url_for_host(link.host or parts.settings.platform_hosts[0], link.path)
    return Furnishing(parts.plugins.export_formats, looks_of(parts.themes), url)
