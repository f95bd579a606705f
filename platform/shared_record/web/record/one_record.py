"""The page of one delta: every field, what covers it, and what corrects what."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from flask import Blueprint, Response

from shared_record.access.policy import Surface
from shared_record.access.sessions import Visit
from shared_record.clock import rfc3339
from shared_record.errors import NotFoundError
from shared_record.exports.service import write_rows
from shared_record.languages import gettext as _
from shared_record.ledger.amounts import Total
from shared_record.ledger.corrections import Correction, find_chain
from shared_record.ledger.records import Record, find_period, records_between
from shared_record.ledger.windows import covered_at, find_place
from shared_record.web.conditional import twin
from shared_record.web.record import data, pages
from shared_record.web.record import format as fmt
from shared_record.web.record.detail_pages import ChainRow, RecordPage
from shared_record.web.record.files import require_format
from shared_record.web.record.logs import log_url
from shared_record.web.record.twins import announce, twins_of
from shared_record.web.record.visits import enter, problem_here, shell, theme_slug
from shared_record.web.runtime import runtime
from shared_record.web.tiers import tier

one_record = Blueprint("one_record", __name__)

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Found:
    """One delta as of one snapshot; ``chain`` holds it too."""

    record: Record
    covered_at: datetime | None
    chain: list[Correction]
    log_url: str

    @property
    def corrected_by(self) -> list[Correction]:
        """What corrects it directly."""
        return [one for one in self.chain if one.corrects == self.record.record_id]


@one_record.get("/c/<handle>/activity/<record_id>")
@tier(Surface.DETAIL)
def show(handle: str, record_id: str) -> Response:
    """Show one delta with all of its fields."""
    seen = enter(handle, Surface.DETAIL)
    found = _find(seen, record_id)
    if found is None:
        return problem_here(seen, handle, _("There is no such record here"), _("It may belong to another link."))
    frame = shell(seen, handle)
    page = _page(frame, found, seen.row.zone)
    return announce(runtime().renderer.render(page, theme_slug(seen)), page.twins)


@one_record.get("/c/<handle>/activity/<record_id>.json")
@tier(Surface.DETAIL)
def show_json(handle: str, record_id: str) -> Response:
    """Return the same as data."""
    found = _require(enter(handle, Surface.DETAIL), record_id)
    metadata = found.record.metadata
    return twin(
        data.row(found.record)
        | {
            "period": found.record.period.period,
            "metadata": None if metadata is None else orjson.Fragment(metadata),
            "detailsRemoved": found.record.reason is None,
            "verifiedAt": rfc3339(found.covered_at) if found.covered_at else None,
            "correctedBy": [one.record_id for one in found.corrected_by],
            "chain": [data.correction(one) for one in found.chain],
        }
    )


@one_record.get("/c/<handle>/activity/<record_id>.csv")
@tier(Surface.DETAIL)
def show_csv(handle: str, record_id: str) -> Response:
    """Return the same as one line of the CSV export."""
    seen = enter(handle, Surface.DETAIL)
    record, out, parts = _require(seen, record_id).record, io.BytesIO(), runtime()
    kind = require_format("csv", seen.row.export_formats)
    who = seen.customer_id
    with parts.db.read(seen.scope, snapshot=True) as connection:
        write_rows(connection, parts.keys, parts.clock, seen.scope, who, record.period, (record,), kind, out)
    response = Response(out.getvalue(), content_type=kind.media_type)
    response.add_etag()
    return response


def _require(seen: Visit, record_id: str) -> _Found:
    found = _find(seen, record_id)
    if found is None:
        raise NotFoundError("there is no such record here.", code="RECORD_NOT_FOUND")
    return found


def _find(seen: Visit, record_id: str) -> _Found | None:
    """Return a delta of the visit's own customer; ``None`` for anybody else's."""
    if not _ID.fullmatch(record_id):
        return None
    scope, who = seen.scope, seen.customer_id
    with runtime().db.read(scope, snapshot=True) as connection:
        place = find_place(connection, scope, who, record_id=record_id)
        period = find_period(connection, scope, who, place.period) if place is not None else None
        if place is None or period is None:
            return None
        (record,) = records_between(connection, scope, period, place.seq - 1, place.seq, 1)
        return _Found(
            record,
            covered_at(connection, scope, [record]).get(record_id),
            find_chain(connection, scope, who, record),
            log_url(connection, scope),
        )


# --- What the page says ----------------------------------------------------------------------------------------------


def _page(frame: pages.Shell, found: _Found, zone: str) -> RecordPage:
    record, base = found.record, frame.base
    period = record.period.period
    digest = record.receipt_id.removeprefix("0x")
    corrects = record.adjusts or ""
    is_month = bool(corrects) and not corrects.startswith("rec_")
    chain = chain_rows(found.chain, base, zone, this=record.record_id) if len(found.chain) > 1 else ()
    return RecordPage(
        shell=frame,
        record_id=record.record_id,
        total=pages.Total(fmt.format_total(record.amount), record.period.unit),
        recorded=fmt.moment(record.recorded_at, zone),
        used=fmt.moment(data.moment_of(record.occurred_at), zone) if record.occurred_at else None,
        state=pages.state_word(record.state),
        number=_("%(number)s of %(period)s")
        % {"number": fmt.format_count(record.seq), "period": fmt.format_month(period)},
        period=fmt.format_month(period),
        period_url=f"{base}/periods/{period}",
        running_total=f"{fmt.format_total(record.running_total)} {record.period.unit}",
        digest=digest,
        fingerprint=in_groups(digest),
        receipt_url=f"/receipt/{record.receipt_id}",
        twins=twins_of(f"{base}/activity/{record.record_id}"),
        reference=record.reference_id,
        reason=record.reason,
        metadata=_members(record.metadata),
        details_removed=record.reason is None,
        checkpoint=fmt.moment(found.covered_at, zone) if found.covered_at else None,
        checkpoint_url=f"{found.log_url}/checkpoint" if found.covered_at else "",
        corrects=corrects if corrects and not is_month else "",
        corrects_url=f"{base}/activity/{corrects}" if corrects and not is_month else "",
        corrects_period=fmt.format_month(corrects) if is_month else "",
        corrected_by=chain_rows(found.corrected_by, base, zone),
        chain=chain,
        chain_net=fmt.amount_cell(_net(found.chain), _fraction(found.chain)) if chain else None,
    )


def chain_rows(found: Sequence[Correction], base: str, zone: str, *, this: str = "") -> tuple[ChainRow, ...]:
    """Return deltas that correct something, as rows; each says what it corrects. ``this`` is the page's own."""
    fraction = _fraction(found)
    return tuple(
        ChainRow(
            recorded=fmt.row_moment(one.recorded_at, zone),
            url=f"{base}/activity/{one.record_id}",
            record_id=one.record_id,
            note=_note(one),
            amount=fmt.amount_cell(one.amount, fraction),
            is_this=one.record_id == this,
        )
        for one in found
    )


def in_groups(digest: str) -> str:
    """Return hex in groups of four, to be read aloud and compared."""
    return " ".join(digest[i : i + 4] for i in range(0, len(digest), 4))


def _note(one: Correction) -> str:
    if one.corrects is None:
        return ""
    if one.corrects_record:
        return _("corrects %(record)s") % {"record": one.corrects}
    return _("recorded while %(period)s was closing") % {"period": fmt.format_month(one.corrects)}


def _fraction(found: Sequence[Correction]) -> int:
    return fmt.column_fraction([*(one.amount for one in found), _net(found)])


def _net(found: Sequence[Correction]) -> str:
    total = Total()
    for one in found:
        total.add(one.amount)
    return total.text


def _members(metadata: str | None) -> tuple[tuple[str, str], ...]:
    """Return names and values of metadata as text; what is nested stays JSON."""
    if metadata is None:
        return ()
    members: Any = json.loads(metadata, parse_int=str, parse_float=str)
    if not isinstance(members, dict):
        return (("", metadata),)
    return tuple(
        (name, value if isinstance(value, str) else orjson.dumps(value).decode()) for name, value in members.items()
    )
