"""``shared-record watch URL``: a monitor of one log, for customers and auditors."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from shared_record import __version__
from shared_record.cli.context import note
from shared_record.clock import SystemClock, rfc3339
from shared_record.ledger.note import VerifierKey
from shared_record.verifier.checks import Result
from shared_record.verifier.watch import Fetch, Report, Seen, look

FORMAT = "shared-record/watch@v1"
TIMEOUT = 15
DIFFERS, UNKNOWN = 4, 5
_CODES = {Result.MATCHES: 0, Result.DIFFERS: DIFFERS, Result.UNKNOWN: UNKNOWN}
_HEADERS = {"User-Agent": f"shared-record/{__version__}", "Accept-Encoding": "identity"}


@click.command(
    epilog="""\b
Examples:
  shared-record watch https://records.example/log/t_0123456789abcdef
  shared-record watch --once --json --state acme.watch https://usage.acme.example/log/t_0123456789abcdef

\b
Exit status: 0 in order (or stopped), 4 a fork, a rollback or a bad signature, 5 could not be checked."""
)
@click.argument("url")
@click.option("--state", type=click.Path(path_type=Path), help="File that remembers keys and the newest checkpoint.")
@click.option("--policy", type=click.Path(path_type=Path), help="C2SP tlog-policy file whose log keys to trust.")
@click.option("--once", is_flag=True, help="Look once and exit.")
@click.option("--interval", type=click.FloatRange(min=1), default=60, show_default=True, help="Seconds between looks.")
@click.option("--webhook", metavar="URL", help="POST each alarm there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per look.")
def watch(
    url: str, state: Path | None, policy: Path | None, once: bool, interval: float, webhook: str | None, as_json: bool
) -> None:
    """Watch the log at URL (…/log/<id>): each checkpoint must be signed and must extend the one seen before.

    The log's keys come from --policy, else from the state file, else from the log itself: then compare the printed
    fingerprint with the vendor's. Only public data is fetched and nothing is sent but to --webhook. The watch ends at
    the first contradiction; both checkpoints are then in its output: together they are the evidence.
    """
    for given in filter(None, (url, webhook)):
        if urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).hostname:
            raise click.BadParameter(f"{given!r} is not an http(s) URL")
    url = url.rstrip("/")
    watcher = _Watcher(url, state or _default_state(url), policy, webhook, as_json)
    stop = threading.Event()
    if not once:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
    while True:
        code = watcher.look()
        if once or code == DIFFERS:
            raise SystemExit(code)
        if stop.wait(interval):
            return


class _Watcher:
    """One log under watch, with its state file."""

    def __init__(self, url: str, state: Path, policy: Path | None, webhook: str | None, as_json: bool) -> None:
        self.url, self.state, self.policy, self.webhook, self.as_json = url, state, policy, webhook, as_json
        self.told: str | None = None

    def look(self) -> int:
        """Look once, remember, report; return the exit status that says how it went."""
        seen: Seen | None = None
        try:
            seen = _load(self.state, self.url)
            policy = self.policy.read_text(encoding="utf-8") if self.policy is not None else None
            report = look(fetcher(self.url), seen, policy)
            if report.result is Result.MATCHES and report.seen is not None and report.seen != seen:
                _save(self.state, self.url, report.seen)
        except (OSError, ValueError) as error:
            report = Report(Result.UNKNOWN, str(error), seen, 0, "")
        self._tell(report, seen)
        return _CODES[report.result]

    def _tell(self, report: Report, before: Seen | None) -> None:
        form = self._machine_form(report, before)
        click.echo(json.dumps(form, ensure_ascii=False) if self.as_json else _line(form, report))
        if report.first_use and report.seen is not None:
            for vkey in report.seen.vkeys:
                fingerprint = VerifierKey.parse(vkey).fingerprint
                note(f"First use: the key was taken from the log itself; compare {fingerprint} with the vendor's.")
        problem = None if report.result is Result.MATCHES else report.reason
        if self.webhook is not None and problem != self.told:
            _post(self.webhook, form)
        self.told = problem

    def _machine_form(self, report: Report, before: Seen | None) -> dict[str, Any]:
        form: dict[str, Any] = {
            "at": rfc3339(SystemClock().now()),
            "url": self.url,
            "result": report.result.value,
            "reason": report.reason,
            "origin": report.seen.origin if report.seen else None,
            "size": report.size,
            "newEpochs": report.new_epochs,
            "newestAt": report.newest_at,
            "newKeys": list(report.new_keys),
            "firstUse": report.first_use,
        }
        if report.result is Result.DIFFERS:
            form |= {"checkpoint": report.note, "checkpointBefore": before.note if before else None}
        return form


def fetcher(url: str) -> Fetch:
    """Return a ``Fetch`` over HTTP below ``url``."""

    def fetch(path: str, most: int) -> bytes:
        request = urllib.request.Request(f"{url}/{path}", headers=_HEADERS)  # noqa: S310  http(s), as watch() checked
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                data: bytes = response.read(most + 1)
        except urllib.error.HTTPError as error:
            error.close()
            raise OSError(f"{path}: the server answers {error.code}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            raise OSError(f"{path}: {getattr(error, 'reason', None) or error or type(error).__name__}") from error
        if len(data) > most:
            raise OSError(f"{path}: longer than {most} bytes")
        return data

    return fetch


def _post(webhook: str, form: Mapping[str, Any]) -> None:
    """Tell the webhook. That it cannot be reached is said, and changes no outcome."""
    headers = _HEADERS | {"Content-Type": "application/json"}
    request = urllib.request.Request(webhook, json.dumps(form).encode(), headers)  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()  # noqa: S310
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        note(f"The webhook could not be told: {error}")


def _line(form: Mapping[str, Any], report: Report) -> str:
    where = _printable(form["origin"] or form["url"])
    if report.result is Result.MATCHES:
        news = f", {report.new_epochs} new" if report.new_epochs else ""
        keys = "".join(f", new key {_printable(key)}" for key in report.new_keys)
        return f"{form['at']} {where}: in order, size {report.size}{news}{keys}"
    if report.result is Result.UNKNOWN:
        return f"{form['at']} {where}: could not be checked: {_printable(report.reason or '')}"
    return (
        f"{form['at']} {where}: ALARM: {_printable(report.reason or '')}\n"
        f"--- seen before\n{_printable_lines(form['checkpointBefore'] or '')}"
        f"--- shown now\n{_printable_lines(report.note)}---"
    )


def _printable(text: str) -> str:
    """Return what a server sent so that a terminal takes it as text."""
    clipped = text if len(text) <= 500 else text[:499] + "…"
    return "".join(c if c.isprintable() else "?" for c in clipped)


def _printable_lines(text: str) -> str:
    return "".join(_printable(line) + "\n" for line in text[:10_000].splitlines())


# --- State -----------------------------------------------------------------------------------------------------------


def _default_state(url: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path is ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".local/state"
    return folder / "shared-record" / f"watch-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"


def _load(path: Path, url: str) -> Seen | None:
    """Return what was seen before; a file of another log, or one that cannot be read, is a ``ValueError``."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not a state file of this command") from error
    match document:
        case {"format": str(form), "url": str(of), "origin": str(origin), "vkeys": [*vkeys], "checkpoint": str(text)}:
            if form == FORMAT and all(isinstance(key, str) for key in vkeys):
                if of != url:
                    raise ValueError(f"{path} belongs to {of}; give each log a state file of its own")
                return Seen(origin, tuple(vkeys), text)
    raise ValueError(f"{path} is not a state file of this command")


def _save(path: Path, url: str, seen: Seen) -> None:
    """Replace the state file by a new one, so that a crash leaves either."""
    document = {
        "format": FORMAT,
        "url": url,
        "origin": seen.origin,
        "vkeys": list(seen.vkeys),
        "checkpoint": seen.note,
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
