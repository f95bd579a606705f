"""``shared-record verify FILE``: check an exported record offline."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import click

from shared_record.cli.context import local_log_keys
from shared_record.errors import SharedRecordError
from shared_record.ledger.note import parse_policy
from shared_record.verifier.files import check_file
from shared_record.verifier.trust import NOT_CHECKED, KeySource, Outcome, Result

DIFFERS, UNKNOWN = 4, 5
_CODES = {Result.MATCHES: 0, Result.DIFFERS: DIFFERS, Result.UNKNOWN: UNKNOWN}
_QUORUM = "The policy asks for witness cosignatures (quorum {}); these are not checked."


@click.command(
    epilog="""\b
Examples:
  shared-record verify record-2026-11.json
  shared-record verify --policy acme.policy record-2026-11.json
  shared-record verify --json --require-covered record-2026-11.json

\b
Exit status: 0 it matches, 4 it does not match, 5 it could not be checked."""
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--policy", type=click.Path(path_type=Path), help="C2SP tlog-policy file whose log keys to trust.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
@click.option("--require-covered", is_flag=True, help="Exit 5 if a checkpoint does not cover every row yet.")
def verify(file: Path, policy: Path | None, as_json: bool, require_covered: bool) -> None:
    """Check a JSON export, a verification bundle (ZIP or unpacked) or a proof file (FILE; - for standard input).

    Every row is replayed, and the record is followed up to the log's signed checkpoint.

    The log's key comes from, in this order: --policy, the local data directory, the known-logs file
    (~/.config/shared-record/known-logs, filled on first use), the file itself. Nothing is sent anywhere.
    """
    notes: list[str] = []
    sources: list[KeySource] = []
    try:
        if policy is not None:
            logs, quorum = _read_policy(policy)
            sources.append(("the policy file", logs))
            if quorum is not None:
                notes.append(_QUORUM.format(quorum))
        sources.append(("the local data directory", local_log_keys()))
        known_logs = known_logs_path()
        if known_logs.exists():
            sources.append(("the known-logs file", _read_policy(known_logs)[0]))
    except (OSError, ValueError, SharedRecordError) as error:
        _finish(None, f"the keys cannot be read: {error}", notes, as_json, UNKNOWN)
    outcome = check_file(_source(file), sources)
    if outcome.result is Result.MATCHES and outcome.key_from_file:
        notes += [
            f"The key was taken from this file; compare {fingerprint} with the vendor's."
            for fingerprint in outcome.fingerprints
        ]
        notes.append(_remember(known_logs, outcome.vkeys))
    code, reason = _CODES[outcome.result], outcome.reason
    if outcome.result is Result.MATCHES and require_covered and outcome.not_covered:
        code, reason = UNKNOWN, f"{outcome.not_covered} rows are not yet covered by a checkpoint"
    _finish(outcome, reason, notes, as_json, code)


def known_logs_path() -> Path:
    """Return where log keys are remembered from first use."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification: a relative path is ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "shared-record" / "known-logs"


def _source(file: Path) -> BinaryIO | Path:
    return sys.stdin.buffer if str(file) == "-" else file


def _read_policy(path: Path) -> tuple[Mapping[str, Sequence[str]], str | None]:
    try:
        policy = parse_policy(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return policy.logs, policy.quorum


def _remember(path: Path, vkeys: Sequence[str]) -> str:
    """Write first-used keys to the known-logs file, and say so. A failure to write does not change the outcome."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        start = "" if path.exists() else "quorum none\n"
        with path.open("a", encoding="utf-8") as known_logs:
            known_logs.write(start + "".join(f"log {vkey}\n" for vkey in vkeys))
    except OSError as error:
        return f"It could not be written to {path}: {error.strerror}."
    return f"It is now in {path}, and later files of this log must be signed by it."


def _finish(outcome: Outcome | None, reason: str | None, notes: Sequence[str], as_json: bool, code: int) -> NoReturn:
    result = Result.UNKNOWN if code == UNKNOWN else Result.DIFFERS if code == DIFFERS else Result.MATCHES
    if as_json:
        click.echo(json.dumps(_machine_form(outcome, result, reason, notes), indent=2, ensure_ascii=False))
    else:
        for line in _lines(outcome, result, reason, notes):
            click.echo(line)
    raise SystemExit(code)


def _lines(outcome: Outcome | None, result: Result, reason: str | None, notes: Sequence[str]) -> list[str]:
    lines: list[str] = []
    if outcome is not None and outcome.origin:
        # Until every row was read there is no total to show, only where reading stopped.
        figures = f": {outcome.rows} rows, {outcome.total} {outcome.unit}" if outcome.checked else ""
        lines += [
            f"{outcome.vendor}, {outcome.period}{figures}",
            f"Customer {outcome.customer_ref} in the log {outcome.origin}",
            "",
        ]
    if outcome is not None:
        lines += [f"  {step}" for step in outcome.checked]
        if outcome.covered:
            lines.append(
                f"  Covered by the checkpoint: {outcome.covered} rows; not yet covered: {outcome.not_covered}."
            )
    if lines and lines[-1]:
        lines.append("")
    if result is Result.UNKNOWN:
        lines.append(f"Could not be checked (because {reason}).")
    elif result is Result.DIFFERS:
        lines.append(f"Does not match: {reason}.")
    else:
        lines.append("Matches.")
    return [*lines, *notes, *(outcome.not_checked if outcome else (NOT_CHECKED,))]


def _machine_form(
    outcome: Outcome | None, result: Result, reason: str | None, notes: Sequence[str]
) -> dict[str, object]:
    form: dict[str, object] = {
        "result": result.value,
        "reason": reason,
        "notes": list(notes),
        "notChecked": list(outcome.not_checked if outcome else (NOT_CHECKED,)),
    }
    if outcome is not None:
        form |= {
            "vendor": outcome.vendor,
            "logOrigin": outcome.origin,
            "customerRef": outcome.customer_ref,
            "period": outcome.period,
            "unit": outcome.unit,
            "total": outcome.total,
            "rows": outcome.rows,
            "covered": outcome.covered,
            "notCovered": outcome.not_covered,
            "checked": list(outcome.checked),
            "key": {
                "source": outcome.key_source,
                "fromFile": outcome.key_from_file,
                "vkeys": list(outcome.vkeys),
                "fingerprints": list(outcome.fingerprints),
            },
        }
    return form
