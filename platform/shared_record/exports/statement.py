"""The statement of one period as PDF: its figures, what a checkpoint covers, and its records as a table."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared_record.exports import wording
from shared_record.exports.look import Look
from shared_record.exports.paper import fact, grouped_hash, make_document, proof_words
from shared_record.exports.wording import breakable, legible
from shared_record.languages import gettext as _
from shared_record.languages import mark, ngettext
from shared_record.ledger.fingerprint import fingerprint
from shared_record.plugin import ExportRow, RecordFacts, utc_text

FORMAT = "shared-record/statement@v1"
LONGEST_REASON, LONGEST_REFERENCE = 120, 60
"""Characters of a row's texts in the table; the attached data has them whole."""
MOST_TEXT = 180_000
"""Characters of a table, counted as ``_weight`` does: what the typesetter sets within its memory and time."""
_STATES = {"recording": mark("recording"), "recorded": mark("recorded"), "verified": mark("verified")}


@dataclass(frozen=True, slots=True)
class StatementFacts:
    """What one statement is about. ``url`` is where its QR code leads, never with an access code; empty: no QR code.

    ``through``: up to when everything is covered by checkpoints. ``csv``: name of the file that holds every row.
    """

    record: RecordFacts
    csv: str
    customer: str | None = None
    through: datetime | None = None
    test: bool = False
    url: str = ""
    look: Look = field(default_factory=Look)


def write_statement(facts: StatementFacts, rows: Sequence[ExportRow]) -> bytes:
    """Return the statement with ``rows``, the first ones of the period, in its table; fewer if their texts are long.

    The figures are those of the whole period. ``UnavailableError`` where the PDF cannot be made.
    """
    record, rows = facts.record, _that_fit(rows)
    vendor, heading = legible(record.vendor), _("Statement for %(month)s") % {"month": wording.month(record.start)}
    shown = {
        "title": f"{heading} – {vendor}",
        "vendor": vendor,
        "footer": f"{heading} – {vendor}",
        "heading": heading,
        "note": _("Test data") if facts.test else None,
        "label": _("Recorded in this period"),
        "total": {"text": wording.standing_alone(record.total), "unit": breakable(legible(record.unit))},
        "boundaries": f"{wording.boundaries(record.start, record.end)}.",
        "records": _records(record.size),
        "state": _coverage(facts),
        "facts": _facts(facts),
        "check": proof_words(
            _(
                "The page of this record offers the proof file. The figures and the records of this statement are"
                " attached as record.json."
            )
        ),
        "attached": _("This statement as data"),
        "rows": _rows(record, rows),
        "table": _table(facts, len(rows)),
    }
    data = json.dumps(statement_data(record, rows), ensure_ascii=False, separators=(",", ":")).encode()
    return make_document("statement", shown, data, look=facts.look, url=facts.url or None, issued=record.as_of)


def statement_data(record: RecordFacts, rows: Sequence[ExportRow]) -> dict[str, Any]:
    """Return a statement as data: what is attached to the PDF. Decimals are texts."""
    proof = record.proof
    return {
        "format": FORMAT,
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
        "root": base64.b64encode(proof.root).decode("ascii") if proof else None,
        "fingerprint": fingerprint(proof.root) if proof else None,
        "checkpoint": proof.checkpoint if proof else None,
        "rowsLeftOut": record.size - len(rows),
        "rows": [
            {
                "recordId": row.record_id,
                "sequenceInPeriod": row.seq,
                "recordedAt": row.recorded,
                "usedAt": row.used_at,
                "amount": row.amount,
                "runningTotal": row.running_total,
                "state": row.state,
                "referenceId": row.reference,
                "reason": row.reason,
                "adjusts": row.adjusts,
                "receiptId": row.receipt_id,
            }
            for row in rows
        ],
    }


def _that_fit(rows: Sequence[ExportRow]) -> Sequence[ExportRow]:
    room = MOST_TEXT
    for place, row in enumerate(rows):
        room -= _weight(row)
        if room < 0:
            return rows[:place]
    return rows


def _weight(row: ExportRow) -> int:
    """Return what a row costs: letters beyond those of Europe and the Near East are looked for in many fonts."""
    texts = (row.reason or "")[:LONGEST_REASON] + (row.reference or "")[:LONGEST_REFERENCE] + (row.adjusts or "")
    rare = sum(one > "\u07ff" for one in texts)
    return len(texts) + 7 * rare + len(row.amount) + len(row.running_total)


def _records(size: int) -> str:
    return ngettext("%(count)s record", "%(count)s records", size) % {"count": wording.count(size)}


def _coverage(facts: StatementFacts) -> str:
    record = facts.record
    if facts.through is None:
        return _("No checkpoint yet.")
    through = _("Verified through %(moment)s.") % {"moment": wording.moment(facts.through, record.zone)}
    if record.covered_size == record.size:
        return through
    covered = _("The checkpoint covers %(covered)s of %(all)s records, %(total)s %(unit)s.") % {
        "covered": wording.count(record.covered_size),
        "all": wording.count(record.size),
        "total": wording.standing_alone(record.covered_total),
        "unit": legible(record.unit),
    }
    return f"{through} {covered}"


def _facts(facts: StatementFacts) -> list[dict[str, object]]:
    record, proof = facts.record, facts.record.proof
    lines = [fact(_("Customer"), facts.customer)] if facts.customer else []
    lines += [
        fact(_("Customer reference"), record.customer_ref, code=True),
        fact(_("As of"), wording.moment(record.as_of, record.zone)),
    ]
    if proof:
        root = _("Proof root over %(records)s") % {"records": _records(proof.size)}
        log = f"{record.log_origin} {wording.count(proof.log_size)}"
        lines += [
            fact(_("Fingerprint"), fingerprint(proof.root), code=True),
            fact(root, grouped_hash(proof.root), code=True),
            fact(_("Log and its size"), log, code=True),
        ]
    return lines


def _rows(record: RecordFacts, rows: Sequence[ExportRow]) -> list[dict[str, str]]:
    fraction = wording.column_fraction(row.amount for row in rows)
    running = wording.column_fraction(row.running_total for row in rows)
    return [_row(record, row, fraction, running) for row in rows]


def _row(record: RecordFacts, row: ExportRow, fraction: int, running: int) -> dict[str, str]:
    amount, pad = wording.in_column(row.amount, fraction)
    total, total_pad = wording.in_column(row.running_total, running)
    return {
        "number": wording.count(row.seq),
        "at": wording.row_moment(row.recorded_at, record.zone),
        "reason": breakable(legible(row.reason or "", LONGEST_REASON)),
        "reference": breakable(legible(row.reference or "", LONGEST_REFERENCE)),
        "adjusts": _("Adjusts %(record)s") % {"record": legible(row.adjusts)} if row.adjusts else "",
        "state": _(_STATES.get(row.state, row.state)),
        "amount": amount,
        "pad": pad,
        "running": total,
        "running_pad": total_pad,
    }


def _table(facts: StatementFacts, listed: int) -> dict[str, object]:
    record = facts.record
    columns = (
        _("No."),
        _("Recorded (%(zone)s)") % {"zone": record.zone},
        _("Reason and reference"),
        _("State"),
        _("Amount"),
        _("Running total"),
    )
    left_out = record.size - listed
    end = _("All %(records)s are listed.") % {"records": _records(record.size)}
    if left_out:
        end = _(
            "The first %(listed)s of %(all)s records are listed; %(left)s are left out."
            " The file %(csv)s holds them all."
        ) % {
            "listed": wording.count(listed),
            "all": wording.count(record.size),
            "left": wording.count(left_out),
            "csv": facts.csv,
        }
    return {"heading": _("Records"), "columns": columns, "end": end}
