"""Sending an export: built whole first, then sent with its length and digest."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable
from uuid import UUID

from flask import Response

from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError, SharedRecordError
from shared_record.exports.service import build_export
from shared_record.plugin import ExportFormat
from shared_record.web.runtime import runtime

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
        built = build_export(parts.db, parts.keys, parts.clock, scope, customer_id, period, kind, spool)
    except SharedRecordError:
        spool.close()
        raise
    spool.seek(0)
    response = Response(iter(lambda: spool.read(1 << 16), b""), content_type=kind.media_type)
    response.call_on_close(spool.close)
    response.content_length = built.length
    response.headers["Content-Disposition"] = f'attachment; filename="{built.filename}"'
    response.headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(built.sha256).decode()}:"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
