"""The one module that plugin code imports: markers, types and base classes.

A plugin is a distribution with an entry point in the group ``shared_record`` that names a module; its functions
marked with ``hookimpl`` are called as ``shared_record.hooks.specs`` says. What is not in this module is not promised.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import BinaryIO, ClassVar

import pluggy
from pydantic import BaseModel, ConfigDict

__all__ = [
    "API_VERSION",
    "Challenge",
    "ExportFormat",
    "ExportOptions",
    "ExportRow",
    "ExportSummary",
    "Field",
    "MethodSettings",
    "NotMine",
    "Passed",
    "RecordFacts",
    "RecordProof",
    "Refused",
    "StepUpContext",
    "StepUpMethod",
    "ThemeRoot",
    "Verdict",
    "hookimpl",
    "standalone_verifiers",
]

API_VERSION = 1

hookimpl = pluggy.HookimplMarker("shared_record")


# --- Step-up methods -------------------------------------------------------------------------------------------------


class MethodSettings(BaseModel):
    """Base of a method's settings: unknown keys are refused, so a misspelt setting is an error and not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class StepUpContext:
    """What the core tells a method about one attempt. It holds no key, no session and no other customer.

    ``matches_access_code(text)`` tells in constant time whether ``text`` is an access code now valid for this
    customer; any text may be given.
    """

    tenant_name: str
    host: str
    customer_label: str | None
    now: datetime
    settings: MethodSettings
    matches_access_code: Callable[[str], bool] = field(repr=False)


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
    """What to show the person: fields to fill in. Data only; the core renders it."""

    fields: tuple[Field, ...]
    button: str = "Continue"


@dataclass(frozen=True, slots=True)
class Passed:
    """The person passed. ``subject_hint`` is shown in the access log; it grants nothing and selects nobody."""

    subject_hint: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The person did not pass. ``public_reason`` is shown to them and must hold no secret."""

    public_reason: str


@dataclass(frozen=True, slots=True)
class NotMine:
    """The answer does not belong to this method."""


Verdict = Passed | Refused | NotMine


class StepUpMethod(abc.ABC):
    """A way for a person to pass to the inner tier.

    A method decides only whether the person passed. The core owns attempt limits, timing, CSRF, audit, the session and
    what may then be seen; it calls the method that the tenant selected, by slug. An exception counts as a refusal.
    """

    slug: ClassVar[str]
    title: ClassVar[str]
    hint: ClassVar[str] = ""
    factor: ClassVar[str | None] = None
    """The ``factor`` of the JSON call ``/api/v1/c/{handle}/access/verify`` that this method answers, if any."""
    settings_model: ClassVar[type[MethodSettings]] = MethodSettings

    def availability(self, ctx: StepUpContext) -> bool:  # noqa: ARG002  part of the contract
        """Tell whether this method can be used by this customer now."""
        return True

    @abc.abstractmethod
    def begin(self, ctx: StepUpContext) -> Challenge:
        """Return what to show. Called for GET too, so it must change nothing and send nothing."""

    @abc.abstractmethod
    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        """Judge the ``answer`` (field name -> text as typed, untrusted)."""


# --- Export formats --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordProof:
    """What ties the first ``size`` rows of one period to a signed checkpoint.

    ``head``, ``epoch`` and ``checkpoint`` are the exact texts that were hashed and signed; paths are RFC 6962 audit
    paths, leaf to root.
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


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One delta. ``amount`` and ``running_total`` are canonical decimals; ``entry`` is the exact hashed text.

    ``reference``, ``reason``, ``metadata_json`` and ``detail_salt`` are ``None`` where retention removed them.
    """

    seq: int
    record_id: str
    receipt_id: str
    recorded_at: datetime
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


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the core passes to a format beside the rows."""

    record: RecordFacts


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

    @abc.abstractmethod
    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        """Write ``rows`` (in ``seq`` order, streamed, to be read once) to ``out`` in constant memory."""


def standalone_verifiers() -> Mapping[str, bytes]:
    """Return the verifiers that a customer can run without us, file name to content: copy them verbatim."""
    folder = resources.files("shared_record").joinpath("verifier", "standalone")
    return {name: folder.joinpath(name).read_bytes() for name in ("verify.html", "verify.py")}


# --- Themes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThemeRoot:
    """A folder whose sub-folders are themes (``<slug>/theme.toml``, ``tokens.toml``, ``templates/``, ``static/``)."""

    path: Path
