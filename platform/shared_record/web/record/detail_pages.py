"""What the pages of one record, one period, the timeline and the receipts show, ready to print (see ``pages``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shared_record.web.record.chart import Chart
from shared_record.web.record.format import AmountCell, Moment
from shared_record.web.record.pages import Sheet, Shell, Total, is_wide


@dataclass(frozen=True, slots=True)
class Twins:
    """The same page as data."""

    json_url: str
    csv_url: str


@dataclass(frozen=True, slots=True)
class ChainRow:
    """One delta among those that correct each other. ``note`` says what it corrects, ``url`` leads to its own page."""

    recorded: Moment
    url: str
    record_id: str
    note: str
    amount: AmountCell
    is_this: bool = False


@dataclass(frozen=True, slots=True)
class RecordPage:
    """One delta with all of its fields.

    ``digest`` is its leaf hash in hex, ``fingerprint`` the same in groups of four. ``chain`` is empty where nothing
    corrects it and it corrects nothing; ``chain_net`` is what all of it comes to.
    """

    template: ClassVar[str] = "record.html"

    shell: Shell
    record_id: str
    total: Total
    recorded: Moment
    state: str
    number: str
    period: str
    period_url: str
    running_total: str
    digest: str
    fingerprint: str
    receipt_url: str
    twins: Twins
    used: Moment | None = None
    reference: str | None = None
    reason: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    details_removed: bool = False
    checkpoint: Moment | None = None
    checkpoint_url: str = ""
    corrects_url: str = ""
    corrects: str = ""
    corrects_period: str = ""
    corrected_by: tuple[ChainRow, ...] = ()
    chain: tuple[ChainRow, ...] = ()
    chain_net: AmountCell | None = None


@dataclass(frozen=True, slots=True)
class FigureRow:
    """A name with what it comes to. ``url`` leads to the rows that it is made of, where they can be told apart."""

    name: str
    records: str
    total: AmountCell
    url: str = ""
    noun: str = ""


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Rows of figures that come to the whole period. ``more_url``: the same with every row."""

    key: str
    rows: tuple[FigureRow, ...]
    whole: FigureRow
    more: str = ""
    more_url: str = ""

    @property
    def wide(self) -> bool:
        """Whether the amounts are too long to stand beside the other columns on a phone."""
        return is_wide(row.total for row in self.rows)


@dataclass(frozen=True, slots=True)
class PeriodPage:
    """One period. ``fingerprint`` and ``root`` are empty until a checkpoint covers any of it."""

    template: ClassVar[str] = "period.html"

    shell: Shell
    heading: str
    in_progress: bool
    total: Total
    boundaries: str
    as_of: Moment
    records: str
    activity_url: str
    export_url: str
    verify_url: str
    compare_url: str
    twins: Twins
    days: FigureTable
    verified_through: Moment | None = None
    covered: str = ""
    fingerprint: str = ""
    root: str = ""
    root_groups: str = ""
    proof_url: str = ""
    receipt_url: str = ""
    chart: Chart | None = None
    breakdowns: tuple[FigureTable, ...] = ()
    corrections: tuple[ChainRow, ...] = ()
    sheet: Sheet | None = None


@dataclass(frozen=True, slots=True)
class FactRow:
    """One dated fact, as a sentence; ``url`` leads to what it is about."""

    at: Moment
    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class TimelinePage:
    """Dated facts, newest first."""

    template: ClassVar[str] = "timeline.html"

    shell: Shell
    facts: tuple[FactRow, ...]
    zone: str
    twins: Twins
    newest_url: str = ""
    older_url: str = ""


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """One receipt. ``superseded``: a later one exists for the same days."""

    name: str
    url: str
    issued: Moment
    records: str
    noun: str
    total: AmountCell
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class ReceiptsPage:
    """Receipts, newest first."""

    template: ClassVar[str] = "receipts.html"

    shell: Shell
    unit: str
    rows: tuple[ReceiptRow, ...]
    zone: str
    twins: Twins
    newest_url: str = ""
    older_url: str = ""
