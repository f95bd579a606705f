"""Which window of time a call is about: one rule for every call that takes one. Pure.

Exactly one of ``period``, ``timePreset=current_month``, ``startDate`` with ``endDate`` (with or without
``timePreset=custom``), and, where the call takes it, ``startingCheckpoint``; none means the current UTC month. Windows
are half-open. All that is wrong is told together with what is wrong in the rest of the call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from shared_record.clock import period_bounds, period_of, rfc3339
from shared_record.errors import Detail
from shared_record.web.api.shapes import Answer, Moment, mistake

MAX_SCOPE_MONTHS = 24
MAX_LAST_DAYS = 730
COMBINATION, TOO_WIDE = "INVALID_SCOPE_COMBINATION", "SCOPE_TOO_WIDE"
ERRORS = (COMBINATION, TOO_WIDE)
"""The codes that a call with a window may answer, beside ``VALIDATION_ERROR``."""

_CHECKPOINT_TYPES = {"proofRoot": "proofRoot", "itemsRoot": "proofRoot", "recordId": "recordId", "anchorId": "recordId"}
_ROOT = re.compile(r"(?:0x)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)
_RECORD = re.compile(r"[!-~]{1,64}", re.ASCII)
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """The window ``[start, end)``. ``period`` is set where it is one whole UTC month."""

    start: datetime
    end: datetime

    @property
    def period(self) -> str | None:
        """The month that this window is, if it is one."""
        label = period_of(self.start)
        return label if period_bounds(label) == (self.start, self.end) else None


@dataclass(frozen=True, slots=True)
class Since:
    """All after one delta: ``record_id`` names it, or else ``digest``, its leaf hash or the root of a checkpoint."""

    record_id: str | None = None
    digest: bytes | None = None


TimeScope = Interval | Since


def read_scope(
    given: Mapping[str, object], now: datetime, *, starting: bool = False
) -> tuple[TimeScope | None, list[Detail]]:
    """Return the window that the members of ``given`` state, or ``None`` and every mistake in them.

    A member that is null counts as absent; one that is no text is left to the reader of shapes. ``starting``: whether
    ``startingCheckpoint`` is taken.
    """
    names = ("period", "timePreset", "startDate", "endDate", *(("startingCheckpoint",) if starting else ()))
    present = {name: given[name] for name in names if given.get(name) is not None}
    details = _combination(present)
    kind = given.get("startingCheckpointType") if starting else None
    if kind is not None and "startingCheckpoint" not in present:
        details.append(Detail("/startingCheckpointType", COMBINATION, "Give startingCheckpoint with its type."))
    texts = {name: value for name, value in present.items() if isinstance(value, str)}
    read: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            read[name] = _READERS[name](text, now)
        except ValueError as error:
            details.append(Detail(f"/{name}", "VALIDATION_ERROR", str(error)))
    if isinstance(kind, str) and "startingCheckpoint" in read:
        details += _of_kind(kind, read["startingCheckpoint"])
    dates = [read[name] for name in ("startDate", "endDate") if name in read]
    if len(dates) == 2:
        details += _order(*dates)
    if details or len(read) < len(present):
        return None, details
    if "startingCheckpoint" in read:
        return read["startingCheckpoint"], []
    if dates:
        return Interval(*dates), []
    return Interval(*period_bounds(read.get("period", period_of(now)))), []


def _combination(present: Mapping[str, object]) -> list[Detail]:
    """Return what of the members given does not go together, each naming the one that is too much or missing."""
    dates = [name for name in ("startDate", "endDate") if name in present]
    details: list[Detail] = []

    def refuse(names: list[str], message: str) -> None:
        details.extend(Detail(f"/{name}", COMBINATION, message) for name in names)

    if "startingCheckpoint" in present:
        others = [name for name in present if name != "startingCheckpoint"]
        refuse(others, "startingCheckpoint stands alone: leave this out, or leave startingCheckpoint out.")
    elif "period" in present:
        others = [name for name in present if name != "period"]
        refuse(others, "period stands alone: leave this out, or leave period out.")
    elif present.get("timePreset") == "current_month":
        refuse(dates, "timePreset=current_month takes no dates: use timePreset=custom.")
    elif len(dates) == 1 or present.get("timePreset") == "custom":
        missing = [name for name in ("startDate", "endDate") if name not in present]
        refuse(missing, "Give startDate and endDate together.")
    return details


def _read_period(text: str, now: datetime) -> str:
    try:
        start, _ = period_bounds(text)
    except (ValueError, OverflowError):
        raise ValueError("A period is a month YYYY-MM.") from None
    if start > now:
        raise ValueError(f"This period has not begun; it is {period_of(now)} now (UTC).")
    return text


def _read_preset(text: str, _now: datetime) -> str:
    if text not in ("current_month", "custom"):
        raise ValueError("timePreset is current_month or custom.")
    return text


def read_moment(text: str, _now: datetime | None = None) -> datetime:
    """Read a date ``YYYY-MM-DD`` (its first instant, UTC) or an RFC 3339 time; ``ValueError`` else.

    A fraction of a millisecond is rounded up: recorded times have none, so the window takes in the same deltas.
    """
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError("Write a date YYYY-MM-DD, or an RFC 3339 time such as 2026-11-01T00:00:00Z.")
    day, clock, fraction, offset = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{(offset or 'Z').upper()}").astimezone(UTC)
        moment = whole + timedelta(milliseconds=-(-int((fraction or "0").ljust(9, "0")) // 1_000_000))
    except (ValueError, OverflowError):
        raise ValueError("There is no such day or time.") from None
    if not 1970 <= moment.year <= 9000:
        raise ValueError("Nothing is recorded in that year.")
    return moment


def _read_checkpoint(text: str, _now: datetime) -> Since:
    match = _ROOT.fullmatch(text)
    if match:
        return Since(digest=bytes.fromhex(match[1]))
    if not _RECORD.fullmatch(text):
        raise ValueError("A starting checkpoint is a proof root 0x… or a recordId.")
    return Since(record_id=text)


_READERS: dict[str, Callable[[str, datetime], Any]] = {
    "period": _read_period,
    "timePreset": _read_preset,
    "startDate": read_moment,
    "endDate": read_moment,
    "startingCheckpoint": _read_checkpoint,
}


def _of_kind(kind: str, found: Since) -> list[Detail]:
    known = _CHECKPOINT_TYPES.get(kind)
    if known is not None and (known == "proofRoot") != (found.digest is not None):
        return [Detail("/startingCheckpoint", "VALIDATION_ERROR", f"This is no {known}.")]
    return []


def _order(start: datetime, end: datetime) -> list[Detail]:
    if start >= end:
        return [Detail("/endDate", "VALIDATION_ERROR", "endDate is later than startDate: the end itself is left out.")]
    months = (end.year - start.year) * 12 + end.month - start.month
    within = (end.day, end.timetz()) <= (start.day, start.timetz())
    if months < MAX_SCOPE_MONTHS or (months == MAX_SCOPE_MONTHS and within):
        return []
    return [Detail("/endDate", TOO_WIDE, f"A window is at most {MAX_SCOPE_MONTHS} months wide.")]


# --- Fields of queries and bodies ------------------------------------------------------------------------------------

Period = Annotated[str, Field(description="A UTC month.", examples=["2026-11"], json_schema_extra={"format": "month"})]
Preset = Annotated[str, Field(json_schema_extra={"enum": ["current_month", "custom"]})]
Date = Annotated[str, Field(description="A date, or an RFC 3339 time.", examples=["2026-11-01"])]


class Scoped(BaseModel):
    """The fields of a window, to be mixed into a query or body; ``scope`` is the window that they state."""

    takes_start: ClassVar[bool] = False
    is_current_month: ClassVar[bool] = True
    """Whether nothing given means the current month; else it means no window: ``scope`` is ``None``."""

    model_config = {"alias_generator": to_camel}

    period: Period | None = None
    time_preset: Preset | None = None
    start_date: Date | None = None
    end_date: Date | None = None
    _scope: TimeScope | None = PrivateAttr(default=None)

    @property
    def scope(self) -> Any:
        """The window: ``Interval``, ``Since`` where the call takes a starting checkpoint, or ``None`` (see above)."""
        return self._scope

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: Callable[[Any], Self], info: ValidationInfo) -> Self:
        lines: list[InitErrorDetails] = []
        made: Self | None = None
        try:
            made = handler(data)
        except ValidationError as error:
            lines = [_again(one) for one in error.errors()]
        given = data if isinstance(data, Mapping) else {}
        scope, details = read_scope(given, (info.context or {})["now"], starting=cls.takes_start)
        if details:
            lines.append({"type": mistake(details[0].message, details), "loc": (), "input": data})
        if made is None or lines:
            raise ValidationError.from_exception_data(cls.__name__, lines)
        unscoped = not cls.is_current_month and not any((made.period, made.time_preset, made.start_date, made.end_date))
        made._scope = None if unscoped else scope
        return made


class Starting(Scoped):
    """The same, with ``startingCheckpoint`` as one more way: what comes after a delta or a checkpoint."""

    takes_start: ClassVar[bool] = True

    starting_checkpoint: Annotated[str | None, Field(description="A proof root or a recordId, itself left out.")] = None
    starting_checkpoint_type: Literal["proofRoot", "recordId", "itemsRoot", "anchorId"] | None = None


def _again(one: ErrorDetails) -> InitErrorDetails:
    kind: Any = one["type"]
    context = one.get("ctx", {})
    if kind == "mistake":
        kind = PydanticCustomError("mistake", "{message}", context)
    return {"type": kind, "loc": one["loc"], "input": one["input"], "ctx": context}


# --- Answers ---------------------------------------------------------------------------------------------------------


class ScopeAnswer(Answer):
    """The window, half-open. ``period`` where it is a whole UTC month; ``endDate`` is null if it goes on till now."""

    period: str | None
    start_date: Moment
    end_date: Moment | None


class AsOf(Answer):
    """The cut: the customer's deltas recorded and covered when this was read, and the newest checkpoint's size."""

    size: int
    psize: int
    checkpoint: int | None


class Pagination(Answer):
    """Which part of ``total`` rows this is."""

    limit: int
    offset: int
    total: int


def scope_data(found: Interval) -> dict[str, object]:
    """Return a window as an answer states it."""
    return {"period": found.period, "startDate": rfc3339(found.start), "endDate": rfc3339(found.end)}
