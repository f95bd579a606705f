"""The invoice bundle as files: one ZIP archive per customer and period, and one page to print."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Mapping
from typing import IO
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.scope import Scope
from shared_record.exports.service import build_export
from shared_record.invoicing.bundle import InvoiceBundle, as_data
from shared_record.invoicing.texts import grouped
from shared_record.keys import KeyRing
from shared_record.plugin import ExportFormat

ATTACHED = {"csv": "records.csv", "bundle": "verification.zip"}
"""Export format -> the name of its file in the archive."""
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows: equal bundles give equal archives

_pages = Environment(
    loader=PackageLoader("shared_record.invoicing", "templates"), autoescape=True, undefined=StrictUndefined
)


def write_archive(
    db: Database,
    keys: KeyRing,
    clock: Clock,
    scope: Scope,
    customer_id: UUID,
    bundle: InvoiceBundle,
    formats: Mapping[str, type[ExportFormat]],
    out: IO[bytes],
) -> None:
    """Write the archive of a bundle: its JSON, the text blocks, the QR code, the rows, the verification bundle.

    ``manifest.json``, the last member, names the SHA-256 of every other.
    """
    digests: dict[str, str] = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _texts(bundle).items():
            archive.writestr(zipfile.ZipInfo(name, _MOMENT), content, zipfile.ZIP_DEFLATED)
            digests[name] = hashlib.sha256(content).hexdigest()
        for slug, name in ATTACHED.items():
            if slug not in formats:
                continue
            with tempfile.SpooledTemporaryFile(max_size=8_000_000) as draft:
                built = build_export(db, keys, clock, scope, customer_id, bundle.period, formats[slug], draft)
                draft.seek(0)
                with archive.open(zipfile.ZipInfo(name, _MOMENT), "w", force_zip64=True) as member:
                    while chunk := draft.read(1 << 20):
                        member.write(chunk)
            digests[name] = built.sha256.hex()
        manifest = json.dumps({"files": digests}, indent=1, sort_keys=True) + "\n"
        archive.writestr(zipfile.ZipInfo("manifest.json", _MOMENT), manifest)


def render_page(bundle: InvoiceBundle, locale: str) -> str:
    """Return one HTML page to print or to copy from: the figures, the text block and the QR code. It loads nothing."""
    return _pages.get_template("invoice.html").render(
        bundle=bundle,
        locale=locale,
        direction="rtl" if locale == "ar" else "ltr",
        total=grouped(bundle.total, locale),
        lines=bundle.texts[locale].splitlines(),
        qr=Markup(bundle.qr_svg or ""),  # noqa: S704  made by segno
    )


def _texts(bundle: InvoiceBundle) -> dict[str, bytes]:
    found = {"bundle.json": (json.dumps(as_data(bundle), ensure_ascii=False, indent=1) + "\n").encode()}
    if bundle.qr_svg:
        found["qr.svg"] = bundle.qr_svg.encode()
    return found | {f"text/{locale}.txt": (text + "\n").encode() for locale, text in bundle.texts.items()}
