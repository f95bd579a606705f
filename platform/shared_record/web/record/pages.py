"""What each customer page shows, ready to print: the templates decide order and markup, never wording of figures.

A page is rendered as ``environment.get_template(page.template).render(page=page, shell=page.shell)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from markupsafe import Markup

from shared_record.languages import gettext, mark
from shared_record.plugin import Field
from shared_record.web.record.format import AmountCell, Moment


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to ask. ``href`` is a link that the vendor gave, so only harmless schemes are taken."""

    text: str
    href: str

    def __post_init__(self) -> None:
        if not self.href.startswith(("mailto:", "https://", "tel:")):
            raise ValueError(f"a contact is reached by mailto:, https:// or tel:, not {self.href!r}")


@dataclass(frozen=True, slots=True)
class Assets:
    """URLs of the core's static files."""

    core_css: str
    favicon: str
    script: str = ""


@dataclass(frozen=True, slots=True)
class Logo:
    """The vendor's mark above a page. ``dark_url`` is that for dark ground and ``dark_media`` says when it is shown."""

    url: str
    width: int
    height: int
    dark_url: str = ""
    dark_media: str = ""


@dataclass(frozen=True, slots=True)
class Shell:
    """What every page of one record has. ``base`` is ``/c/<handle>``, ``path`` the way back to this very page.

    ``host`` is the stored name of the host that the page is sent from, in ASCII: the footer says it beside the vendor.
    ``open_until`` is set while a session is open ("17:40 UTC"), ``open_to_all`` under the policy OPEN. ``report`` is
    where the operator is told of a page that poses as somebody else's, or empty.
    """

    vendor: str
    host: str
    base: str
    assets: Assets
    theme_css: str
    logo: Logo | None = None
    contact: Contact | None = None
    open_until: Moment | None = None
    csrf_token: str = ""
    open_to_all: bool = False
    test_data: bool = False
    path: str = "/"
    report: str = ""

    @property
    def inner_opens(self) -> bool:
        """Whether the pages of the inner tier open without a further step."""
        return self.open_to_all or self.open_until is not None


@dataclass(frozen=True, slots=True)
class Total:
    """The one large figure and its unit."""

    text: str
    unit: str

    @property
    def size(self) -> str:
        """A class for the stylesheet: long figures are set smaller so that they stay on one line of a phone."""
        return "total-l" if len(self.text) <= 10 else "total-m" if len(self.text) <= 16 else "total-s"


_STATES = {"recording": mark("recording"), "recorded": mark("recorded"), "verified": mark("verified")}


@dataclass(frozen=True, slots=True)
class RowView:
    """One delta. What the reader may not see is ``None`` and leaves no trace."""

    record_id: str
    recorded: Moment
    state: str
    amount: AmountCell | None
    used: Moment | None = None
    reference: str | None = None
    reason: str | None = None
    url: str = ""

    @property
    def state_word(self) -> str:
        """The state in the language in use."""
        return state_word(self.state)


@dataclass(frozen=True, slots=True)
class Option:
    """One choice of a form."""

    value: str
    text: str
    selected: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class FormError:
    """Something to correct. ``field`` is the id of the input, empty where no single one is concerned."""

    text: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a page says of itself on paper. ``zone`` and its short name also serve the scripts that write moments."""

    made: Moment
    origin: str
    url: str
    qr: Markup
    zone: str
    zone_name: str


@dataclass(frozen=True, slots=True)
class Landing:
    """The page behind the printed link, where the outer tier shows figures.

    ``total`` is ``None`` while nothing is recorded in the period, then ``previous`` may say what the last one came to.
    """

    template: ClassVar[str] = "landing.html"

    shell: Shell
    total: Total | None
    boundaries: str
    as_of: Moment
    records: str
    verified_through: Moment | None
    next_checkpoint: Moment | None
    recent: tuple[RowView, ...] = ()
    previous: str = ""
    sheet: Sheet | None = None

    @property
    def wide(self) -> bool:
        """Whether the recent amounts are too long to stand beside the other columns on a phone."""
        return is_wide(row.amount for row in self.recent)


@dataclass(frozen=True, slots=True)
class Gated:
    """The page behind the printed link under the policy GATED: whose record it is, and the way in."""

    template: ClassVar[str] = "gated.html"

    shell: Shell


@dataclass(frozen=True, slots=True)
class FieldView:
    """A field of a step-up form, what was typed and what is wrong with it."""

    field: Field
    value: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        """The form's name for the field."""
        return f"field-{self.field.name}"


@dataclass(frozen=True, slots=True)
class MethodForm:
    """The chosen step-up method. ``challenge`` names the one under way; ``again`` labels the button that repeats it."""

    slug: str
    title: str
    fields: tuple[FieldView, ...]
    hint: str = ""
    button: str = "Continue"
    challenge: str = ""
    again: str = ""


@dataclass(frozen=True, slots=True)
class Unlock:
    """The step-up: a chooser while ``method`` is ``None``, else that method's form."""

    template: ClassVar[str] = "unlock.html"

    shell: Shell
    methods: tuple[Option, ...]
    method: MethodForm | None = None
    next: str = ""
    errors: tuple[FormError, ...] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    """The record is closed in this browser; the person may be signed in still where they came from."""

    template: ClassVar[str] = "closed.html"

    shell: Shell
    url: str

    @property
    def host(self) -> str:
        """The host of the other site."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class Leave:
    """The way to another site that signs the person in; the browser goes on by itself."""

    template: ClassVar[str] = "leave.html"

    shell: Shell
    title: str
    url: str

    @property
    def host(self) -> str:
        """The host of the other site."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """The filters as typed; dates are ``YYYY-MM-DD`` or empty, days in UTC where ``in_utc``, else in the record's zone.

    ``dimension`` is a name of metadata, a colon and a value.
    """

    start: str = ""
    end: str = ""
    reference: str = ""
    late: bool = False
    dimension: str = ""
    in_utc: bool = False

    @property
    def given(self) -> bool:
        """Whether any filter beside the period is set."""
        return bool(self.start or self.end or self.reference or self.late or self.dimension)


@dataclass(frozen=True, slots=True)
class Activity:
    """Rows with their sum. ``records`` and ``net`` are of everything the filter finds, not of this page alone."""

    template: ClassVar[str] = "activity.html"

    shell: Shell
    heading: str
    periods: tuple[Option, ...]
    filter: ActivityFilter
    rows: tuple[RowView, ...]
    records: str
    net: AmountCell
    unit: str
    zone: str
    as_of: Moment
    json_url: str
    csv_url: str
    newer_url: str = ""
    older_url: str = ""
    errors: tuple[FormError, ...] = ()
    dimensions: tuple[str, ...] = ()
    is_live: bool = False
    sheet: Sheet | None = None


@dataclass(frozen=True, slots=True)
class PeriodRow:
    """One period of the list."""

    name: str
    url: str
    activity_url: str
    total: AmountCell
    records: str
    noun: str
    verified_through: str
    receipt_url: str = ""
    in_progress: bool = False


@dataclass(frozen=True, slots=True)
class Periods:
    """All periods, the open one first."""

    template: ClassVar[str] = "periods.html"

    shell: Shell
    unit: str
    rows: tuple[PeriodRow, ...]
    json_url: str = ""
    csv_url: str = ""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One browser in which the record is open."""

    opened: Moment
    last_seen: Moment
    method: str
    hint: str = ""
    is_this: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened at the link, as a sentence."""

    at: Moment
    text: str


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Where the record is open, and what happened at its link, newest first."""

    template: ClassVar[str] = "access_log.html"

    shell: Shell
    devices: tuple[DeviceRow, ...]
    zone: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class CompareRow:
    """One line of the comparison."""

    label: str
    total: AmountCell
    records: str
    noun: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Compare:
    """Two periods and their difference, set like a subtraction: second, first, and what is left.

    ``lines`` and ``difference`` are empty before two periods are chosen.
    """

    template: ClassVar[str] = "compare.html"

    shell: Shell
    first: tuple[Option, ...]
    second: tuple[Option, ...]
    unit: str = ""
    lines: tuple[CompareRow, ...] = ()
    difference: CompareRow | None = None
    note: str = ""
    errors: tuple[FormError, ...] = ()
    sheet: Sheet | None = None

    @property
    def wide(self) -> bool:
        """Whether the amounts are too long to stand beside the other columns on a phone."""
        return is_wide(line.total for line in self.lines)


@dataclass(frozen=True, slots=True)
class Export:
    """Which period in which format."""

    template: ClassVar[str] = "export.html"

    shell: Shell
    periods: tuple[Option, ...]
    formats: tuple[Option, ...]
    as_of: Moment
    prepared: tuple[Option, ...] = ()
    errors: tuple[FormError, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that is prepared before it is sent. ``state``: ``missing``, ``preparing``, ``ready`` or ``failed``.

    ``written`` of ``of`` rows are read; what follows them is set once it is ready. ``later``: records since then.
    """

    template: ClassVar[str] = "export_prepared.html"

    shell: Shell
    state: str
    period: Option
    format: Option
    rows: str
    url: str
    again_url: str
    written: int = 0
    of: int = 1
    progress: str = ""
    records: str = ""
    size: str = ""
    total: Total | None = None
    digest: str = ""
    until: Moment | None = None
    later: str = ""


@dataclass(frozen=True, slots=True)
class ReceiptPage:
    """A receipt, or one delta by its receipt id. ``shell.base`` is empty: the page does not know the link.

    ``root`` is hex in groups of eight; ``total`` is ``None`` where the reader may not see amounts. ``framed``: shown
    within a page of another site, so its links open a tab of their own. ``verifier_url``: what checks the proof file.
    """

    template: ClassVar[str] = "receipt.html"

    shell: Shell
    id: str
    heading: str
    label: str
    total: Total | None
    boundaries: str
    records: str
    issued: Moment
    root: str
    json_url: str
    checkpoint: Moment | None = None
    log_origin: str = ""
    log_size: str = ""
    later_url: str = ""
    proof_url: str = ""
    verifier_url: str = ""
    pdf_url: str = ""
    framed: bool = False
    sheet: Sheet | None = None


@dataclass(frozen=True, slots=True)
class VerifierFiles:
    """URLs of the verifiers: their code as a script, what checks the live record, and both to take away."""

    verifier: str
    live: str
    script: str
    page: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Checks in the browser: of what the server shows now, and of a file. ``nonce`` lets its two scripts run.

    ``log_url`` is empty where not even the log may be named, ``api_url`` and ``proof_url`` where details may not be
    seen; ``unlock_url`` then is the way in. ``period`` is checked against what ``figures_url`` gives; ``month`` names
    it where that is not the current one. ``texts``: those of the scripts in the language of the page.
    """

    template: ClassVar[str] = "verify.html"

    shell: Shell
    files: VerifierFiles
    nonce: str
    period: str
    figures_url: str
    month: str = ""
    log_url: str = ""
    api_url: str = ""
    proof_url: str = ""
    proof_name: str = ""
    unlock_url: str = ""
    texts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotFound:
    """The one answer to every link that opens nothing: always the same bytes, nobody's theme."""

    template: ClassVar[str] = "not_found.html"

    assets: Assets
    shell: None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A page that cannot be shown now. ``shell`` is ``None`` where no record was reached."""

    template: ClassVar[str] = "problem.html"

    assets: Assets
    title: str
    message: str
    reference: str = ""
    shell: Shell | None = None


def state_word(state: str) -> str:
    """Return a delta's state in the language in use."""
    return gettext(_STATES.get(state, state))


def is_wide(amounts: Iterable[AmountCell | None]) -> bool:
    """Tell whether amounts are too long to stand beside other columns on a phone."""
    return any(amount is not None and len(amount.text + amount.pad) > 12 for amount in amounts)
