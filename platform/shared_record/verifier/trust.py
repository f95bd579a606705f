"""What all checks share: the three outcomes, the keys that count, and a run that never raises."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from shared_record.ledger import note

NOT_CHECKED = (
    "Not checked: prices, contract terms, how the vendor measured usage, and the vendor name, time zone and time of "
    "export that the file shows."
)

KeySource = tuple[str, Mapping[str, Sequence[str]]]
"""Where keys come from, for people (for example ``the policy file``), and what it knows: origin to vkeys."""

T = TypeVar("T")
Given = TypeVar("Given")


class Result(StrEnum):
    """What a check found."""

    MATCHES = "matches"
    DIFFERS = "does not match"
    UNKNOWN = "could not be checked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found: ``reason`` names the first difference, or why nothing could be said.

    The first ``rows`` rows were read and found good, and sum to ``total``; the checkpoint proves ``covered`` of them.
    ``vkeys`` are the keys that counted, from ``key_source``; ``key_from_file`` says that nobody but the file itself
    vouches for them. ``not_checked`` is what a match of this file does not say.
    """

    result: Result
    reason: str | None
    checked: tuple[str, ...]
    vendor: str
    origin: str
    customer_ref: str
    period: str
    unit: str
    total: str
    rows: int
    covered: int
    key_source: str | None
    key_from_file: bool
    vkeys: tuple[str, ...]
    fingerprints: tuple[str, ...]
    not_checked: tuple[str, ...] = (NOT_CHECKED,)

    @property
    def not_covered(self) -> int:
        """How many rows no checkpoint covers yet."""
        return self.rows - self.covered


class Difference(Exception):
    """The file contradicts itself, its proof, or a known key."""


class Unusable(Exception):
    """Nothing can be said of the file."""


@dataclass(slots=True)
class Run:
    """What one check has found so far."""

    sources: Sequence[KeySource]
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=lambda: [NOT_CHECKED])
    vendor: str = ""
    origin: str = ""
    customer_ref: str = ""
    period: str = ""
    unit: str = ""
    rows: int = 0
    total: str = "0"
    covered: int = 0
    key_source: str | None = None
    key_from_file: bool = False
    keys: list[note.VerifierKey] = field(default_factory=list)


def conclude(run: Run, check: Callable[[Run], None]) -> Outcome:
    """Carry out ``check`` and return its outcome."""
    result, reason = Result.MATCHES, None
    try:
        check(run)
    except Difference as difference:
        result, reason = Result.DIFFERS, str(difference)
    except Unusable as unusable:
        result, reason = Result.UNKNOWN, str(unusable)
    except OSError as error:
        result, reason = Result.UNKNOWN, f"the file cannot be read: {error.strerror or error}"
    return Outcome(
        result=result,
        reason=None if reason is None else printable(reason),
        checked=tuple(printable(line) for line in run.checked),
        vendor=printable(run.vendor),
        origin=printable(run.origin),
        customer_ref=printable(run.customer_ref),
        period=run.period,
        unit=printable(run.unit),
        total=run.total,
        rows=run.rows,
        covered=run.covered,
        key_source=run.key_source,
        key_from_file=run.key_from_file,
        vkeys=tuple(str(key) for key in run.keys),
        fingerprints=tuple(key.fingerprint for key in run.keys),
        not_checked=tuple(run.not_checked),
    )


def parsed(what: str, read: Callable[[Given], T], given: Given) -> T:
    """Return ``read(given)``; what it refuses makes the file unusable, since ``what`` is malformed."""
    try:
        return read(given)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Unusable(f"{what} is malformed: it is not JSON") from error
    except (ValueError, OverflowError) as error:
        raise Unusable(f"{what} is malformed: {error}") from error


def choose_keys(origin: str, vkeys: Sequence[str], run: Run) -> None:
    """Set the keys that count for the log ``origin``: of the first source that knows it, else the file's ``vkeys``."""
    own = [key for key in parsed("the list of keys", _keys, vkeys) if key.name == origin]
    for name, logs in run.sources:
        if known := logs.get(origin):
            run.key_source, run.keys = name, parsed(f"the key from {name}", _keys, known)
            if own and not {str(key) for key in own} & {str(key) for key in run.keys}:
                raise Difference(f"the file names another key for the log {origin} than {name}")
            return
    if not own:
        raise Unusable(f"no key of the log {origin} is known, and the file names none")
    run.key_source, run.key_from_file, run.keys = "this file", True, own


def open_checkpoint(text: str, run: Run) -> note.Checkpoint:
    """Return what ``text`` states if a key that counts signed it, and keep only the keys that did."""
    try:
        body = note.open_note(text, run.keys)
    except ValueError as error:
        raise Difference(f"the checkpoint is not signed by the key from {run.key_source}: {error}") from error
    # Only a key that signed is worth remembering: a file could list others beside it.
    run.keys = [key for key in run.keys if _signed(text, key)]
    return parsed("the checkpoint", note.parse_checkpoint, body)


def printable(text: str) -> str:
    """Return file content so that a terminal takes it as text: no control characters, no endless lines."""
    clipped = text if len(text) <= 300 else text[:299] + "…"
    return "".join(c if c.isprintable() else "?" for c in clipped)


def _signed(text: str, key: note.VerifierKey) -> bool:
    try:
        note.open_note(text, [key])
    except ValueError:
        return False
    return True


def _keys(vkeys: Sequence[str]) -> list[note.VerifierKey]:
    return [note.VerifierKey.parse(vkey) for vkey in vkeys]
