"""What all PDF documents share: the tenant's look, the QR code, what a check proves, the attached data."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import segno

from shared_record.exports.look import Look
from shared_record.exports.typeset import typeset
from shared_record.exports.wording import breakable, legible
from shared_record.languages import direction, spoken
from shared_record.languages import gettext as _

_FOLDER = Path(__file__).parent


def make_document(
    name: str, paper: Mapping[str, Any], record: bytes, *, look: Look, url: str | None, issued: datetime
) -> bytes:
    """Return a PDF of the template ``name``, with ``record`` attached as ``record.json``, its only attachment.

    ``paper``: what the template shows, texts only. ``url``: what the QR code leads to. ``UnavailableError`` where the
    PDF cannot be made.
    """
    shown = {
        **paper,
        "language": spoken(),
        "direction": direction(),
        "url": url,
        "qr_text": _("QR code with the address below"),
    }
    inputs = {
        "paper.typ": _source("paper"),
        "paper.json": json.dumps(shown).encode(),
        "look.json": json.dumps(look.as_data()).encode(),
        "record.json": record,
        **look.files(),
    }
    if url:
        inputs["qr.svg"] = _qr(url)
    return typeset(_source(name).decode(), inputs, issued)


def proof_words(more: str) -> dict[str, object]:
    """Return what every document says about checks; ``more`` is its last paragraph."""
    return {
        "heading": _("What a check proves"),
        "text": (
            _(
                "The proof root is computed from every record that is covered, and the checkpoints of the log are"
                " signed. Whoever checks the proof file sees, without trusting the vendor's server, that these"
                " records are in the log as they were when the checkpoint was signed: none added, changed or left"
                " out."
            ),
            _(
                "A check does not prove that what was recorded is true, or that everything was recorded. The"
                " fingerprint helps against mixing up two documents; the proof is the proof file."
            ),
            more,
        ),
    }


def fact(name: str, text: str, *, code: bool = False) -> dict[str, object]:
    """Return one line of the block of facts; ``code`` is set in a typewriter face."""
    return {"name": name, "text": breakable(legible(text)), "code": code}


def grouped_hash(digest: bytes) -> str:
    """Return a 32-byte hash in hexadecimal, in groups of eight."""
    text = digest.hex()
    return " ".join(text[i : i + 8] for i in range(0, 64, 8))


def _source(name: str) -> bytes:
    return (_FOLDER / f"{name}.typ").read_bytes()


def _qr(text: str) -> bytes:
    out = io.BytesIO()
    segno.make_qr(text, error="m").save(out, kind="svg", xmldecl=False, border=0)
    return out.getvalue()
