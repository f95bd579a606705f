"""What all checks share: the three outcomes, the keys that count, and a run that never raises."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from shared_record.ledger import note
from shared_record.ledger.origin import is_later_origin

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


class AnchorFile(NamedTuple):
    """What an anchor of this ``kind`` attests of the note with SHA-256 ``digest``; only its plugin can judge that."""

    name: str
    kind: str
    size: int
    digest: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found: ``reason`` names the first difference, or why nothing could be said.

    The first ``rows`` rows were read and found good, and sum to ``total``; the checkpoint proves ``covered`` of them.
    ``vkeys`` are the keys that counted, from ``key_source``; ``key_from_file`` says that nobody but the file itself
    vouches for them. ``not_checked`` is what a match of this file does not say. ``evidence``, where something differs,
    is a file that proves it to others (``verifier.evidence``).
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
    anchors: tuple[AnchorFile, ...] = ()
    evidence: str | None = None

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
    policy: note.Policy | None = None
    anchors: list[AnchorFile] = field(default_factory=list)
    evidence: str | None = None


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
        anchors=tuple(run.anchors),
        evidence=run.evidence,
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
    former = [(name, known) for name, logs in run.sources for known in logs if is_later_origin(origin, known)]
    if not own:
        if former:
            raise Unusable(f"the log {former[0][1]} declared a new origin, {origin}, of which no key is known yet")
        raise Unusable(f"no key of the log {origin} is known, and the file names none")
    if former:
        name, known = former[0]
        run.checked.append(f"The log declared a new origin: it is {origin}; {name} knows the key of {known} only.")
    run.key_source, run.key_from_file, run.keys = "this file", True, own


def open_checkpoint(text: str, run: Run) -> note.Checkpoint:
    """Return what ``text`` states if a key that counts signed it, and keep only the keys that did."""
    try:
        body = note.open_note(text, run.keys)
    except ValueError as error:
        raise Difference(f"the checkpoint is not signed by the key from {run.key_source}: {error}") from error
    # Only a key that signed is worth remembering: a file could list others beside it.
    run.keys = [key for key in run.keys if note.is_signed_by(text, key)]
    return parsed("the checkpoint", note.parse_checkpoint, body)


def check_witnesses(text: str, run: Run) -> None:
    """Say how many of the witnesses that the reader's policy names have cosigned ``text``, and judge its quorum."""
    policy = run.policy
    if policy is None or not policy.witnesses:
        return
    keys = policy.witnesses.values()
    try:
        found = {one.key: one for one in note.find_cosignatures(text, keys)}
    except ValueError as error:
        raise Difference(f"the checkpoint is not as its witnesses have cosigned it: {error}") from error
    names = ", ".join(name for name, key in policy.witnesses.items() if key in found)
    count = f"witnessed {len(found)}/{len(keys)}"
    if not policy.is_met(found.keys()):
        raise Unusable(f"the checkpoint is {count}, and the policy asks for the quorum {policy.quorum}")
    run.checked.append(f"The checkpoint is {count}{f': {names}' if names else ''}.")


def printable(text: str) -> str:
    """Return file content so that a terminal takes it as text: no control characters, no endless lines."""
    clipped = text if len(text) <= 300 else text[:299] + "…"
    return "".join(c if c.isprintable() else "?" for c in clipped)


def _keys(vkeys: Sequence[str]) -> list[note.VerifierKey]:
    return [note.VerifierKey.parse(vkey) for vkey in vkeys]
