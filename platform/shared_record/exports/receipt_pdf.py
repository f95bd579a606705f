"""A receipt as PDF: one page, with the same receipt as data attached as ``record.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from shared_record.exports.look import Look
from shared_record.exports.paper import fact, make_document, proof_words
from shared_record.exports.wording import breakable, legible
from shared_record.languages import gettext as _


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
    look: Look = field(default_factory=Look)


def write_receipt_pdf(paper: PaperReceipt, record: bytes) -> bytes:
    """Return the PDF of a receipt with ``record`` attached; ``UnavailableError`` where it cannot be made."""
    vendor, later = legible(paper.vendor), paper.later
    shown = {
        "title": f"{paper.heading} – {vendor}",
        "vendor": vendor,
        "footer": paper.heading,
        "heading": paper.heading,
        "label": paper.label,
        "total": paper.total and {"text": legible(paper.total[0]), "unit": breakable(legible(paper.total[1]))},
        "boundaries": paper.boundaries,
        "records": paper.records,
        "state": paper.state,
        "facts": [fact(name, text, code=code) for name, text, code in paper.facts],
        "later": later and {"text": _("A later receipt exists:"), "id": legible(later[0]), "url": later[1]},
        "check": proof_words(
            _(
                "The page of this receipt offers the proof file, and says whether a later receipt exists. This receipt"
                " as data is attached as record.json."
            )
        ),
        "attached": _("This receipt as data"),
    }
    return make_document("receipt", shown, record, look=paper.look, url=paper.url, issued=paper.issued)
