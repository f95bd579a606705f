"""E-invoice attachments for Shared Record: a statement and its rows, ready for group BG-24 of EN 16931.

The format is ``shared-record/einvoice@v1``: a ZIP file with PDF, CSV, both as XML in the two syntaxes that the
standard binds (UBL 2.1, UN/CEFACT CII), and a manifest.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from importlib import resources
from typing import IO, BinaryIO, ClassVar, cast

from shared_record.plugin import (
    ExportFormat,
    ExportOptions,
    ExportRow,
    ExportSummary,
    RecordFacts,
    ServiceDownError,
    forward_only,
    gettext,
    hookimpl,
    mark,
    utc_text,
    zip_member,
)
from shared_record_export_einvoice.xml import SYNTAXES, Attachment, write_xml

FORMAT = "shared-record/einvoice@v1"
PARTS = {"pdf": (mark("Usage statement"), "application/pdf"), "csv": (mark("Usage records"), "text/csv")}
"""Format of a part -> what it is (BT-123), and its media type as invoices may carry it."""
_IN_MEMORY = 4 * 1024 * 1024
_KEPT_ROWS = 2_000
"""More than the statement lists; it reads no others."""


class EInvoice(ExportFormat):
    """The files of one period and the XML that puts them into an invoice."""

    slug: ClassVar[str] = "einvoice"
    title: ClassVar[str] = mark("E-invoice attachments (EN 16931, ZIP)")
    media_type: ClassVar[str] = "application/zip"
    extension: ClassVar[str] = "zip"
    lean: ClassVar[bool] = True

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write the ZIP file. ``ServiceDownError`` where one of its parts is not installed."""
        missing = PARTS.keys() - options.formats.keys()
        if missing:
            raise ServiceDownError(f"The export formats {', '.join(sorted(missing))} are not installed.")
        with ExitStack() as stack:
            files = {slug: stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY)) for slug in PARTS}
            first = _First(rows)
            summary = options.formats["csv"]().write(first, cast(BinaryIO, files["csv"]), options)
            options.formats["pdf"]().write(iter(first.kept), cast(BinaryIO, files["pdf"]), options)
            found = [
                Attachment(f"{options.filename}.{slug}", gettext(title), media_type, files[slug])
                for slug, (title, media_type) in PARTS.items()
            ]
            _pack(out, found, options.record)
        return summary


@hookimpl
def register_export_formats() -> list[type[ExportFormat]]:
    """Offer e-invoice attachments."""
    return [EInvoice]


class _First:
    """Passes rows on and keeps the first ones: they come once, and both parts need them."""

    def __init__(self, rows: Iterable[ExportRow]) -> None:
        self._rows = rows
        self.kept: list[ExportRow] = []

    def __iter__(self) -> Iterator[ExportRow]:
        for row in self._rows:
            if len(self.kept) < _KEPT_ROWS:
                self.kept.append(row)
            yield row


class _Hashing:
    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._hash = out, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._out.write(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _pack(out: BinaryIO, found: list[Attachment], record: RecordFacts) -> None:
    digests = {}
    with zipfile.ZipFile(forward_only(out), "w", zipfile.ZIP_DEFLATED) as archive:
        readme = resources.files(__name__).joinpath("README.txt").read_bytes()
        with archive.open(zip_member("README.txt"), "w") as member:
            member.write(readme)
        digests["README.txt"] = hashlib.sha256(readme).hexdigest()
        for syntax in SYNTAXES:
            with archive.open(zip_member(syntax.filename), "w", force_zip64=True) as member:
                hashing = _Hashing(member)
                write_xml(syntax, found, hashing.write)
            digests[syntax.filename] = hashing.digest
        for one in found:
            with archive.open(zip_member(one.filename), "w", force_zip64=True) as member:
                hashing = _Hashing(member)
                for block in one.blocks():
                    hashing.write(block)
            digests[one.filename] = hashing.digest
        with archive.open(zip_member("manifest.json"), "w") as member:
            member.write(_manifest(record, digests))


def _manifest(record: RecordFacts, digests: dict[str, str]) -> bytes:
    data = {
        "format": FORMAT,
        "record": {
            "vendor": record.vendor,
            "customerRef": record.customer_ref,
            "period": record.period,
            "start": utc_text(record.start),
            "end": utc_text(record.end),
            "unit": record.unit,
            "asOf": utc_text(record.as_of),
            "size": record.size,
            "total": record.total,
            "covered": {"size": record.covered_size, "total": record.covered_total},
        },
        "files": dict(sorted(digests.items())),
    }
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode()
