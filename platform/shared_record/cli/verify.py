"""``shared-record verify FILE``: check an exported record offline."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import click

from shared_record.cli.context import local_log_keys
from shared_record.cli.watch import fetcher
from shared_record.errors import SharedRecordError
from shared_record.hooks.loader import load_plugins
from shared_record.ledger.note import Policy, parse_policy
from shared_record.verifier.continuity import check_since
from shared_record.verifier.files import check_file
from shared_record.verifier.material import read_material
from shared_record.verifier.totals import find_wrong_total
from shared_record.verifier.trust import NOT_CHECKED, KeySource, Outcome, Result, Unusable, printable
from shared_record.verifier.watch import Fetch

DIFFERS, UNKNOWN = 4, 5
_IN_MEMORY = 1024 * 1024
_CODES = {Result.MATCHES: 0, Result.DIFFERS: DIFFERS, Result.UNKNOWN: UNKNOWN}


@click.command(
    epilog="""\b
Examples:
  shared-record verify record-2026-11.json
  shared-record verify --policy acme.policy record-2026-11.json
  shared-record verify --json --require-covered record-2026-11.json
  shared-record verify --from october.zip --evidence fork.json november.zip
  shared-record verify fork.json

\b
Exit status: 0 it matches (evidence: it proves what it says), 4 it does not match, 5 it could not be checked."""
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--policy", type=click.Path(path_type=Path), help="C2SP tlog-policy file whose log keys to trust.")
@click.option("--trust", type=click.Path(path_type=Path), help="Root certificates (PEM) of time-stamp authorities.")
@click.option(
    "--from",
    "older",
    type=click.Path(path_type=Path),
    metavar="OLDER",
    help="A file kept before, which FILE must continue.",
)
@click.option("--offline", is_flag=True, help="With --from: use the two files only, and ask the log for nothing.")
@click.option(
    "--log", "log_url", metavar="URL", help="With --from: where the log is served. Default: https://<origin>."
)
@click.option(
    "--evidence",
    "evidence_file",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Where to write what proves a contradiction to others, if there is one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
@click.option("--require-covered", is_flag=True, help="Exit 5 if a checkpoint does not cover every row yet.")
def verify(
    file: Path,
    policy: Path | None,
    trust: Path | None,
    older: Path | None,
    offline: bool,
    log_url: str | None,
    evidence_file: Path | None,
    as_json: bool,
    require_covered: bool,
) -> None:
    """Check a bundle (ZIP or unpacked), a JSON export, a proof file or evidence (FILE; - for standard input).

    Every row is replayed, and the record is followed up to the log's signed checkpoint.

    The log's key comes from, in this order: --policy, the local data directory, the known-logs file
    (~/.config/shared-record/known-logs, filled on first use), the file itself. Where --policy names witnesses, its
    quorum must have cosigned. Proofs of anchors in a bundle are judged by the plugins that are installed, against what
    --trust names.

    With --from, FILE must also continue OLDER: a bundle, export, proof file or signed checkpoint of the same log. What
    neither file holds of the way from one checkpoint to the other is asked of the log; else nothing is sent anywhere.
    """
    if older is None and (offline or log_url):
        raise click.UsageError("--offline and --log go with --from: without it nothing is asked of anybody.")
    if log_url is not None and not log_url.startswith(("https://", "http://")):
        raise click.BadParameter(f"{log_url!r} is not an http(s) URL", param_hint="--log")
    notes: list[str] = []
    sources: list[KeySource] = []
    asked: Policy | None = None
    try:
        trusted = trust.read_bytes() if trust is not None else b""
        if policy is not None:
            asked = _read_policy(policy)
            sources.append(("the policy file", asked.logs))
        sources.append(("the local data directory", local_log_keys()))
        known_logs = known_logs_path()
        if known_logs.exists():
            sources.append(("the known-logs file", _read_policy(known_logs).logs))
    except (OSError, ValueError, SharedRecordError) as error:
        _finish(None, f"the keys cannot be read: {error}", notes, as_json, UNKNOWN)
    source = _source(file)
    if older is None:
        outcome = check_file(source, sources, asked)
    else:
        outcome = check_since(source, older, sources, asked, None if offline else _log_of(source, log_url))
    outcome = judge_anchors(outcome, trusted)
    if evidence_file is not None:
        notes.append(_write_evidence(evidence_file, outcome, source, sources))
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


def judge_anchors(outcome: Outcome, trusted: bytes) -> Outcome:
    """Have the anchors' proofs of a file that matches judged by the plugins of their kinds; a false one differs."""
    if outcome.result is not Result.MATCHES or not outcome.anchors:
        return outcome
    known = load_plugins().checkpoint_anchors
    checked, not_checked = list(outcome.checked), list(outcome.not_checked)
    for one in outcome.anchors:
        anchor = known.get(one.kind)
        if anchor is None:
            not_checked.append(
                f"Not checked: {one.name}, as no plugin for anchors of the kind {one.kind} is installed."
            )
            continue
        try:
            words = anchor().verify(one.proof, one.digest, trusted)
        except LookupError as error:
            not_checked.append(f"Not checked: {one.name}: {printable(str(error))}.")
        except Exception as error:
            reason = f"{one.name} does not hold: {printable(str(error))}"
            return replace(outcome, result=Result.DIFFERS, reason=reason, checked=tuple(checked))
        else:
            checked.append(f"The checkpoint of size {one.size} was {printable(words)}.")
    return replace(outcome, checked=tuple(checked), not_checked=tuple(not_checked))


def known_logs_path() -> Path:
    """Return where log keys are remembered from first use."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification: a relative path is ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "shared-record" / "known-logs"


def _source(file: Path) -> BinaryIO | Path:
    if str(file) != "-":
        return file
    # Kept until the command ends: a file may be read more than once.
    copy = click.get_current_context().with_resource(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
    shutil.copyfileobj(sys.stdin.buffer, copy)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _log_of(source: BinaryIO | Path, url: str | None) -> Fetch | None:
    """Return how to ask the log that the file is of; ``None`` if that cannot be read."""
    try:
        return fetcher((url or f"https://{read_material(source).checkpoint.origin}").rstrip("/"))
    except (Unusable, OSError):
        return None
    finally:
        if not isinstance(source, Path):
            source.seek(0)


def _write_evidence(path: Path, outcome: Outcome, source: BinaryIO | Path, sources: Sequence[KeySource]) -> str:
    """Write evidence of what differs, and say so. A failure to write does not change the outcome."""
    if outcome.result is not Result.DIFFERS:
        return "No evidence was written: nothing contradicts what was signed."
    text = outcome.evidence or find_wrong_total(source, sources)
    if text is None:
        return "No evidence was written: the difference may be of this file alone, and proves nothing about its signer."
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        return f"The evidence could not be written to {path}: {error.strerror}."
    return f"The evidence is in {path}; anybody can judge it with: shared-record verify {path}"


def _read_policy(path: Path) -> Policy:
    try:
        return parse_policy(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


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
        figures = f": {outcome.rows} rows, {outcome.total} {outcome.unit}" if outcome.checked and outcome.rows else ""
        whose = f"Customer {outcome.customer_ref} in the" if outcome.customer_ref else "The"
        subject = ", ".join(filter(None, (outcome.vendor, outcome.period)))
        lines += [*filter(None, [f"{subject}{figures}"]), f"{whose} log {outcome.origin}", ""]
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
