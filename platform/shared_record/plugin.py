"""The one module that plugin code imports: markers, types and base classes.

A plugin is a distribution with an entry point in the group ``shared_record`` that names a module; its functions
marked with ``hookimpl`` are called as ``shared_record.hooks.specs`` says. What is not in this module is not promised.
"""

from __future__ import annotations

import abc
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, localcontext
from enum import StrEnum
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple, Protocol, cast

import pluggy
from pydantic import BaseModel, ConfigDict

from shared_record.errors import UnavailableError
from shared_record.languages import day_text, gettext, mark, ngettext, spoken

__all__ = [
    "API_VERSION",
    "AnchorContext",
    "AnchorProof",
    "AnchorSettings",
    "Anchored",
    "Challenge",
    "CheckpointAnchor",
    "Choice",
    "CsvBlock",
    "Ended",
    "Entitlements",
    "ExportFormat",
    "ExportOptions",
    "ExportRow",
    "ExportSummary",
    "Fetch",
    "Field",
    "Guessing",
    "MethodSettings",
    "NotMine",
    "Passed",
    "Post",
    "RecordFacts",
    "RecordProof",
    "Refused",
    "SendMail",
    "ServiceDownError",
    "StepUpContext",
    "StepUpMethod",
    "Tally",
    "ThemeRoot",
    "Verdict",
    "csv_blocks",
    "csv_text",
    "day_text",
    "forward_only",
    "gettext",
    "hookimpl",
    "in_batches",
    "mark",
    "ngettext",
    "spoken",
    "standalone_verifiers",
    "utc_text",
    "zip_member",
]

API_VERSION = 1

hookimpl = pluggy.HookimplMarker("shared_record")


# --- Step-up methods -------------------------------------------------------------------------------------------------

LONGEST_DEADLINE = 5.0
MAX_STATE = 4096


class Guessing(StrEnum):
    """What a wrong answer to a method can be. It decides which limits the core puts on ``verify``."""

    REUSED = "reused"
    """The secret stays the same, e.g. a printed code: limits per client, device and record, and 100 in a row."""
    ONE_TIME = "one-time"
    """The code lives in one challenge: 5 tries each, and 25 a day per record. Wrong ones add to the 100 in a row."""
    NONE = "none"
    """There is nothing to guess, as when somebody else signs the person in: a challenge has one try."""


class ServiceDownError(UnavailableError):
    """Raise it where something elsewhere that a method needs does not work.

    The method is then unavailable for this request (503), and that is no fault of the plugin.
    """


class MethodSettings(BaseModel):
    """Base of a method's settings: unknown keys are refused, so a misspelt setting is an error and not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Entitlements(Protocol):
    """Who may pass, as the vendor listed it for this one customer."""

    def email(self, text: str) -> str | None:
        """Return the listed address that equals ``text``, capitals aside, or ``None``."""

    def subject(self, issuer: str, subject: str) -> bool:
        """Tell whether this subject of this issuer is listed."""

    def domain(self, domain: str) -> bool:
        """Tell whether addresses of this domain are listed."""

    def pin(self, issuer: str, subject: str, email: str) -> bool:
        """Tie an address to the subject that showed it first; ``False`` if it is tied to another one."""


class Fetch(Protocol):
    """Sends one HTTP request for the tenant, by the rules of the installation: no redirects, no long answers.

    Whatever keeps an answer from coming in time is an ``OSError``; any answer is returned as status and body.
    """

    def __call__(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = ...,
        timeout: float = LONGEST_DEADLINE,
    ) -> tuple[int, bytes]:
        """Return status and body of the answer."""


class SendMail(Protocol):
    """Hands one mail to the core, which queues it together with the challenge. It never tells whether it is sent.

    ``to`` is an address, or ``None`` for a decoy: it costs the same and is never sent.
    """

    def __call__(self, to: str | None, subject: str, body: str) -> None:
        """Hand over the mail; ``RuntimeError`` outside of ``start`` and ``again``, and for a second one."""


@dataclass(frozen=True, slots=True)
class StepUpContext:
    """What the core tells a method about one attempt. It holds no key, no session and no other customer.

    ``matches_access_code(text)`` tells in constant time whether ``text`` is an access code now valid for this
    customer; any text may be given. ``state`` and ``ticket`` belong to a challenge that ``start`` made: the bytes it
    left, and a name for the challenge that nobody can guess. ``callback_url`` is where a browser sent elsewhere comes
    back to, with the ticket as its query parameter ``state``. ``customer_secret`` is what the operator set for this
    customer and method; ``tenant_secret(name)`` what was set for the tenant.
    """

    tenant_name: str
    host: str
    customer_label: str | None
    now: datetime
    settings: MethodSettings
    choice: str
    state: bytes = field(repr=False)
    ticket: str = field(repr=False)
    callback_url: str
    customer_secret: bytes | None = field(repr=False)
    entitlements: Entitlements = field(repr=False)
    matches_access_code: Callable[[str], bool] = field(repr=False)
    tenant_secret: Callable[[str], bytes | None] = field(repr=False)
    send_mail: SendMail = field(repr=False)
    fetch: Fetch = field(repr=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to use a method, as the chooser lists it. ``key`` is empty where there is only one."""

    key: str
    title: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One text field of a challenge form. ``name`` is what the answer is keyed by."""

    name: str
    label: str
    hint: str = ""
    autocomplete: str = ""
    inputmode: str = "text"
    autocapitalize: str = "none"
    max_length: int = 64


@dataclass(frozen=True, slots=True)
class Challenge:
    """What to show the person: a text, fields to fill in, or another site to go to. Data only; the core renders it.

    Only ``start`` may give the last four: ``again`` labels a second button, ``redirect`` is an absolute URL to send
    the browser to, ``state`` (4,096 bytes at most) is kept for ``verify``, and ``valid_for`` (a second to an hour) is
    how long an answer is taken.
    """

    fields: tuple[Field, ...] = ()
    button: str = mark("Continue")
    text: str = ""
    again: str = ""
    redirect: str = ""
    state: bytes = field(default=b"", repr=False)
    valid_for: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Passed:
    """The person passed. ``subject_hint`` is shown in the access log; it grants nothing and selects nobody.

    ``single_use`` (200 characters at most) names what the answer used up, if it may count once only: the core refuses
    what this customer has already passed with by this method. ``account`` and ``elsewhere`` (2,000 characters at most)
    name who signed in at another site and that site's own session, so that ``ended_elsewhere`` can name them again; the
    core keeps a keyed digest of each.
    """

    subject_hint: str = ""
    single_use: str = field(default="", repr=False)
    account: str = field(default="", repr=False)
    elsewhere: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The person did not pass. ``public_reason`` is shown to them and must hold no secret.

    ``event`` (a-z and _, 40 characters at most) adds ``<slug>.<event>`` to the vendor's audit log, where the vendor
    should learn of more than one wrong answer.
    """

    public_reason: str
    event: str = ""


@dataclass(frozen=True, slots=True)
class NotMine:
    """The answer does not belong to this method."""


Verdict = Passed | Refused | NotMine


@dataclass(frozen=True, slots=True)
class Ended:
    """Another site says that somebody signed out there.

    Sessions end that ``Passed`` named by ``elsewhere`` or, where that is empty, by ``account``, if they were opened no
    later than ``at``. ``single_use`` names the message, which counts once.
    """

    at: datetime
    single_use: str = field(repr=False)
    account: str = field(default="", repr=False)
    elsewhere: str = field(default="", repr=False)


class StepUpMethod(abc.ABC):
    """A way for a person to pass to the inner tier.

    A method decides only whether the person passed. The core owns attempt limits, timing, CSRF, challenges, audit, the
    session and what may then be seen; it calls the method that the tenant selected, by slug. An instance serves one
    request. An exception, or a call that takes longer than ``deadline``, counts as a refusal.
    """

    slug: ClassVar[str]
    title: ClassVar[str]
    hint: ClassVar[str] = ""
    factor: ClassVar[str | None] = None
    """The ``factor`` of the JSON call ``/api/v1/c/{handle}/access/verify`` that this method answers, if any."""
    settings_model: ClassVar[type[MethodSettings]] = MethodSettings
    guessing: ClassVar[Guessing] = Guessing.REUSED
    needs_mail: ClassVar[bool] = False
    """Whether it is of use only where the installation can send mail."""
    deadline: ClassVar[float] = 2.0
    """Seconds for one call; 5 at most."""

    def choices(self, ctx: StepUpContext) -> tuple[Choice, ...]:  # noqa: ARG002  part of the contract
        """Return the ways to use this method, for the chooser."""
        return (Choice("", gettext(self.title), gettext(self.hint) if self.hint else ""),)

    def availability(self, ctx: StepUpContext) -> bool:  # noqa: ARG002  part of the contract
        """Tell whether this method can be used by this customer now."""
        return True

    @abc.abstractmethod
    def begin(self, ctx: StepUpContext) -> Challenge:
        """Return what to show first. Called for GET too, so it must change nothing and send nothing."""

    def start(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Challenge | Refused:
        """Take the answer to ``begin`` and return what to ask next. A method that defines this has two steps."""
        raise NotImplementedError

    def again(self, ctx: StepUpContext) -> None:
        """Do once more what ``start`` did, e.g. send the same code again. Called where the challenge offers it."""
        raise NotImplementedError

    @abc.abstractmethod
    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        """Judge the ``answer`` (field name -> text as typed, untrusted) to the last challenge."""

    def sign_out_url(self, ctx: StepUpContext) -> str:  # noqa: ARG002  part of the contract
        """Return where a person whose session here is closed can sign out elsewhere too; empty for nowhere."""
        return ""

    def ended_elsewhere(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Ended | Refused:
        """Judge what another site posted to ``ctx.callback_url`` + ``/backchannel``. ``ctx`` is of no customer."""
        raise NotImplementedError


# --- Export formats --------------------------------------------------------------------------------------------------

_EXACT = Context(prec=60, traps=[Inexact])
FORMULA_STARTS = frozenset("=+-@|%\t\r\n\0＝＋－＠｜％")
"""What a spreadsheet may take for the start of a formula or a command, and the fullwidth forms of the same."""
FREE_TEXTS = frozenset({"unit", "reference", "reason", "metadata_json"})
"""The fields of ``ExportRow`` that hold what a vendor wrote: in CSV they are cells of ``csv_text``."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """What an anchor returned for one published checkpoint: ``note`` is its signed text, ``size`` that of the log."""

    size: int
    note: str
    kind: str
    proof: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class RecordProof:
    """What ties the first ``size`` rows of one period to a signed checkpoint.

    ``head``, ``epoch`` and ``checkpoint`` are the exact texts that were hashed and signed; paths are RFC 6962 audit
    paths, leaf to root. ``anchors``: the newest of each kind, of this checkpoint or of an earlier one.
    """

    size: int
    root: bytes
    head: str
    slot_index: int
    slot_count: int
    slot_path: tuple[bytes, ...]
    epoch: str
    log_index: int
    log_size: int
    log_path: tuple[bytes, ...]
    checkpoint: str
    vkeys: tuple[str, ...]
    anchors: tuple[Anchored, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """What one export is about: whose record, which period, and the cut at which it was taken.

    ``size`` rows are exported, ``total`` is their exact sum; the first ``proof.size`` of them are covered by the
    checkpoint in ``proof`` (``None`` before the first one). Decimals are canonical texts.
    """

    vendor: str
    log_origin: str
    customer_ref: str
    tree_id: str
    period: str
    start: datetime
    end: datetime
    zone: str
    unit: str
    as_of: datetime
    size: int
    total: str
    covered_size: int
    covered_total: str
    proof: RecordProof | None


class ExportRow(NamedTuple):
    """One delta. ``amount`` and ``running_total`` are canonical decimals; ``entry`` is the exact hashed text.

    ``recorded`` is the time of acceptance as every surface writes it, ``2026-11-22T09:00:00.000Z``. ``reference``,
    ``reason``, ``metadata_json`` and ``detail_salt`` are ``None`` where retention removed them. A plain tuple in this
    order, so that a format that writes millions of rows can take it apart at once.
    """

    seq: int
    record_id: str
    receipt_id: str
    recorded: str
    used_at: str | None
    amount: str
    running_total: str
    unit: str
    state: str
    adjusts: str | None
    reference: str | None
    reason: str | None
    metadata_json: str | None
    detail_salt: str | None
    entry: str

    @property
    def recorded_at(self) -> datetime:
        """``recorded`` as an aware moment."""
        return datetime.fromisoformat(self.recorded)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written: the core compares it with the ledger's own figures and refuses a file that differs."""

    rows: int
    total: str
    first_id: str | None
    last_id: str | None


class ExportFormat(abc.ABC):
    """A file format for the rows of one record."""

    slug: ClassVar[str]
    title: ClassVar[str]
    media_type: ClassVar[str]
    extension: ClassVar[str]
    lean: ClassVar[bool] = False
    """Whether this format does without the last three fields of ``ExportRow``. They are left empty then, which makes
    large files faster."""

    @abc.abstractmethod
    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write ``rows`` (in ``seq`` order, streamed, to be read once) to ``out`` in constant memory."""


def _no_statement(_rows: Sequence[ExportRow]) -> bytes:
    raise UnavailableError("No statement can be made here.", code="PDF_UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the core passes to a format beside the rows.

    ``filename`` names the file without its ending. ``formats``: the installed formats by slug, for one that packs
    others. ``statement(rows)`` returns the PDF statement of the record in the tenant's theme and the language in use:
    its figures are the record's, its table lists ``rows``, the first ones; it may raise ``UnavailableError``.
    """

    record: RecordFacts
    filename: str = "usage"
    formats: Mapping[str, type[ExportFormat]] = field(default_factory=dict, repr=False)
    statement: Callable[[Sequence[ExportRow]], bytes] = field(default=_no_statement, repr=False)


class Tally:
    """Counts the rows that a format writes and adds up their amounts exactly: give it each row, return its summary."""

    def __init__(self) -> None:
        self.rows = 0
        self._total = Decimal(0)
        self._first: str | None = None
        self._last: str | None = None

    def add(self, row: ExportRow) -> None:
        """Count one row."""
        self.rows += 1
        self._total = _EXACT.add(self._total, Decimal(row.amount))
        self._first, self._last = self._first or row.record_id, row.record_id

    def add_all(self, rows: Sequence[ExportRow]) -> None:
        """Count several rows, which costs less than one by one."""
        if rows:
            self._add([row.amount for row in rows], rows[0].record_id, rows[-1].record_id)

    def add_block(self, block: CsvBlock) -> None:
        """Count the rows whose lines are in ``block``."""
        self._add(block.amounts, block.first_id, block.last_id)

    def _add(self, amounts: Sequence[str], first_id: str, last_id: str) -> None:
        self.rows += len(amounts)
        with localcontext(_EXACT):
            self._total = sum(map(Decimal, amounts), self._total)
        self._first, self._last = self._first or first_id, last_id

    @property
    def summary(self) -> ExportSummary:
        """What was counted so far."""
        return ExportSummary(self.rows, f"{self._total.normalize(_EXACT):f}", self._first, self._last)


@dataclass(frozen=True, slots=True)
class CsvBlock:
    """Lines of CSV for one row or more, ready to be written, and what a ``Tally`` counts of those rows."""

    lines: bytes
    amounts: Sequence[str]
    first_id: str
    last_id: str


class CsvRows(abc.ABC):
    """Rows that also come as ready lines of CSV: the core's own, which PostgreSQL writes. Call ``csv_blocks`` alone."""

    @abc.abstractmethod
    def csv_blocks(self, fields: Sequence[str]) -> Iterator[CsvBlock]:
        """Yield all rows, to be read once, with the bytes that ``csv_blocks`` makes of them."""


def csv_blocks(rows: Iterable[ExportRow], fields: Sequence[str]) -> Iterator[CsvBlock]:
    """Yield ``rows`` as lines of CSV, many at a time: a cell for each of ``fields``, which are those of ``ExportRow``.

    Free text (unit, reference, reason, metadata) is a cell of ``csv_text``, everything else stands as it is, what is
    missing is empty, and each line ends with CRLF.
    """
    if isinstance(rows, CsvRows):
        return rows.csv_blocks(fields)
    return (_csv_block(batch, fields) for batch in in_batches(rows))


def _csv_block(rows: Sequence[ExportRow], fields: Sequence[str]) -> CsvBlock:
    columns = dict(zip(ExportRow._fields, zip(*rows, strict=True), strict=True))
    cells = [map(csv_text if name in FREE_TEXTS else _bare, columns[name]) for name in fields]
    lines = "".join([f"{','.join(line)}\r\n" for line in zip(*cells, strict=True)])
    return CsvBlock(lines.encode(), columns["amount"], rows[0].record_id, rows[-1].record_id)


def _bare(value: str | int | None) -> str:
    return "" if value is None else str(value)


class _ForwardOnly:
    """A stream as ``zipfile`` wants it: written straight on, never sought."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        self._out.write(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: the stream belongs to the caller."""


def forward_only(out: BinaryIO) -> BinaryIO:
    """Return ``out`` for ``zipfile`` and what writes with it: it only ever writes on, and never closes."""
    return cast(BinaryIO, _ForwardOnly(out))


def zip_member(name: str) -> zipfile.ZipInfo:
    """Return the entry of a file in a ZIP that is the same, byte for byte, whenever and wherever it is written."""
    info = zipfile.ZipInfo(name)  # its time is 1980-01-01
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info


def in_batches(rows: Iterable[ExportRow], size: int = 1_000) -> Iterator[list[ExportRow]]:
    """Yield ``rows`` as lists of at most ``size``: for formats that write many lines at once."""
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


def csv_text(value: str | None) -> str:
    """Return text as a CSV cell that no spreadsheet runs: quoted, with an apostrophe before what starts a formula."""
    if not value:
        return ""
    text = value.replace('"', '""')
    return f'"\'{text}"' if value[0] in FORMULA_STARTS else f'"{text}"'


def utc_text(value: datetime) -> str:
    """Return an aware moment as every surface writes it: UTC, milliseconds, ``Z``."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def standalone_verifiers() -> Mapping[str, bytes]:
    """Return the verifiers that a customer can run without us, file name to content: copy them verbatim."""
    folder = resources.files("shared_record").joinpath("verifier", "standalone")
    return {name: folder.joinpath(name).read_bytes() for name in ("verify.html", "verify.py")}


# --- Themes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThemeRoot:
    """A folder whose sub-folders are themes (``<slug>/theme.toml``, ``tokens.toml``, ``templates/``, ``static/``)."""

    path: Path


# --- Checkpoint anchors ----------------------------------------------------------------------------------------------


class Post(Protocol):
    """Sends one HTTP POST for the tenant, by the rules of the installation: no redirects, no proxies, bounded answers.

    Whatever keeps an answer from coming in time is an ``OSError``; any answer is returned as status and body.
    """

    def __call__(self, url: str, body: bytes, *, content_type: str, timeout: float) -> tuple[int, bytes]:
        """Return status and body of the answer."""


class AnchorSettings(BaseModel):
    """Base of an anchor's settings: unknown keys are refused. A secret is never one of them, only a file's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class AnchorContext:
    """What the core gives an anchor: the tenant's settings for it, the time, and a way to ask its service."""

    settings: AnchorSettings
    now: datetime
    post: Post = field(repr=False)


@dataclass(frozen=True, slots=True)
class AnchorProof:
    """The bytes with which an anchor can show later that a note existed ``at`` that time; at most 1,000,000."""

    kind: str
    proof: bytes
    at: datetime


class CheckpointAnchor(abc.ABC):
    """Something outside that attests when a published checkpoint existed, e.g. a time-stamp authority.

    The core asks after the checkpoint is published, so nothing waits for it; what raises or takes too long is logged
    and tried again later.
    """

    slug: ClassVar[str]
    """Name in tenant files, kind of its proofs, and ending of the files they are exported as."""
    title: ClassVar[str]
    settings_model: ClassVar[type[AnchorSettings]] = AnchorSettings

    @abc.abstractmethod
    def anchor(self, note_digest: bytes, note: bytes, ctx: AnchorContext) -> AnchorProof:
        """Return a proof for ``note``, a signed checkpoint, whose SHA-256 is ``note_digest``.

        Whatever is wrong with the answer must raise: a proof that was returned is kept for ever.
        """

    @abc.abstractmethod
    def verify(self, proof: bytes, note_digest: bytes, trusted: bytes) -> str:
        """Judge a stored proof offline and say in words what it shows, e.g. "time-stamped by X at T".

        ``trusted`` is what the reader trusts, as this kind of anchor understands it, and may be empty. A proof that
        contradicts the digest, or is false, is a ``ValueError``; one that cannot be judged, a ``LookupError``.
        """
