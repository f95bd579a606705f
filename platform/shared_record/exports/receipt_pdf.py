"""A receipt as PDF: one page, with the same receipt as data attached as ``record.json``."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import segno

from shared_record.exports.typeset import typeset

_TEMPLATE = Path(__file__).with_name("receipt.typ")
_CHECK = (
    "The proof root is computed from every record of this receipt, and the checkpoints of the log are signed. Whoever "
    "checks the proof file sees, without trusting the vendor's server, that these records are in the log as they were "
    "when the checkpoint was signed: none added, changed or left out.",
    "A check does not prove that what was recorded is true, or that everything was recorded. The fingerprint helps "
    "against mixing up two documents; the proof is the proof file.",
    "The page of this receipt offers the proof file, and says whether a later receipt exists. This receipt as data is "
    "attached as record.json.",
)


@dataclass(frozen=True, slots=True)
class PaperReceipt:
    """What is printed, in words that are ready. ``total`` is ``None`` where the reader may not see amounts.

    ``facts``: name, value, and whether it is set as code. ``later``: id and address of the receipt that replaces this.
    """

    vendor: str
    heading: str
    label: str
    total: tuple[str, str] | None
    boundaries: str
    records: str
    state: str
    facts: tuple[tuple[str, str, bool], ...]
    url: str
    later: tuple[str, str] | None
    issued: datetime


def write_receipt_pdf(paper: PaperReceipt, record: bytes) -> bytes:
    """Return the PDF of a receipt with ``record`` attached; ``UnavailableError`` where it cannot be made."""
    shown = {
        "language": "en",
        "title": f"{paper.heading} – {paper.vendor}",
        "vendor": paper.vendor,
        "heading": paper.heading,
        "label": paper.label,
        "total": paper.total and {"text": paper.total[0], "unit": paper.total[1]},
        "boundaries": paper.boundaries,
        "records": paper.records,
        "state": paper.state,
        "facts": [{"name": name, "text": text, "code": code} for name, text, code in paper.facts],
        "later": paper.later and {"text": "A later receipt exists:", "id": paper.later[0], "url": paper.later[1]},
        "check": {"heading": "What a check proves", "text": _CHECK},
        "qr_text": "QR code with the address of the page of this receipt",
        "url": paper.url,
    }
    inputs = {"paper": json.dumps(shown), "qr": _qr(paper.url), "record": record.decode()}
    return typeset(_TEMPLATE.read_text(encoding="utf-8"), inputs, paper.issued)


def _qr(text: str) -> str:
    out = io.BytesIO()
    segno.make_qr(text, error="m").save(out, kind="svg", xmldecl=False, border=0)
    return out.getvalue().decode()
