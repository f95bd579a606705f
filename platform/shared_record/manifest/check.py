"""Check tenant files against the schema, the installed plugins and each other. Reads files, never the database."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from shared_record.errors import SharedRecordError
from shared_record.hosts.names import claim_host
from shared_record.ledger.note import WitnessKey
from shared_record.manifest import lines
from shared_record.manifest.problems import Problem, Report, quoted, suggest
from shared_record.manifest.schema import SETTINGS, Manifest

_SLUG = re.compile(r"[a-z][a-z0-9-]{1,57}")
_SECRET = re.compile(r"(.*_)?(password|passwd|passphrase|secret|token|api_?key|private_?key|access_?key|credential)s?")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$| \(at end of document\)$")


@dataclass(frozen=True, slots=True)
class Known:
    """What this installation has: themes, export formats, methods and anchors with their settings, its own hosts."""

    themes: Collection[str]
    methods: Mapping[str, type[BaseModel]]
    formats: Collection[str]
    platform_hosts: Collection[str] = ()
    anchors: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    broken_themes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Installed themes that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class CheckedHost:
    """A host of a file: ``host`` is the A-label form, ``display`` what people read."""

    host: str
    display: str
    role: str
    primary: bool
    line: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A file without problems. ``settings`` holds only the keys that the file mentions, as JSON values."""

    slug: str
    file: str
    settings: dict[str, Any]
    hosts: tuple[CheckedHost, ...] = ()
    methods: tuple[tuple[str, dict[str, Any]], ...] = field(default=())


def find_files(paths: Iterable[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the tenant files that ``paths`` name, each once, those of a folder sorted; and a problem per bad path."""
    files: dict[Path, None] = {}
    problems = []
    for path in paths:
        if path.is_dir():
            found = sorted(path.glob("*.toml"))
            files.update(dict.fromkeys(found))
            if not found:
                problems.append(Problem(str(path), 0, "", "holds no tenant file.", "Add <slug>.toml."))
        elif path.is_file():
            files[path] = None
        else:
            problems.append(
                Problem(str(path), 0, "", "there is no such file or folder.", "Name a folder, or a file <slug>.toml.")
            )
    return list(files), problems


def check_files(paths: Iterable[Path], known: Known) -> tuple[list[Checked], list[Problem]]:
    """Check tenant files, and that no tenant or host is declared twice; return the right ones, and all problems."""
    checked: list[Checked] = []
    problems: list[Problem] = []
    tenants: dict[str, str] = {}
    hosts: dict[str, tuple[str, int]] = {}
    for path in paths:
        result = check_file(path, known)
        if isinstance(result, list):
            problems += result
            continue
        checked.append(result)
        if (first := tenants.setdefault(result.slug, result.file)) != result.file:
            problems.append(
                Problem(result.file, 0, "", f"tenant {quoted(result.slug)} is also in {first}.", "Keep one file.")
            )
            continue
        for host in result.hosts:
            file, line = hosts.setdefault(host.host, (result.file, host.line))
            if file != result.file:
                message = f"{quoted(host.display)} is also a host of {file}:{line}."
                problems.append(Problem(result.file, host.line, "hosts", message, "A host belongs to one tenant."))
    return checked, problems


def check_file(path: Path, known: Known) -> Checked | list[Problem]:
    """Check one file ``<slug>.toml``: return its values, or every problem found, by line."""
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        return [Problem(file, 0, "", f"cannot be read: {error.strerror}.", "Check the path and its permissions.")]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return [Problem(file, line, "", "is not UTF-8.", "Save the file as UTF-8.")]
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [_syntax_problem(file, text, str(error))]
    return _check_data(path, data, Report(file, lines.key_lines(text)), known)


def _check_data(path: Path, data: dict[str, Any], report: Report, known: Known) -> Checked | list[Problem]:
    if not _SLUG.fullmatch(path.stem):
        report.problems.append(
            Problem(
                report.file,
                0,
                "",
                f"{quoted(path.stem)} cannot be a tenant's slug.",
                "Name the file in 2 to 58 lower-case letters, digits and dashes, beginning with a letter.",
            )
        )
    _refuse_secrets(data, (), report)
    data = _without_secrets(data)
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        report.add_errors(error.errors(include_url=False))
    _check_theme(data, report, known)
    _check_formats(data, report, known)
    methods = _check_methods(data, report, known)
    anchors = _check_anchors(data, report, known)
    _check_witnesses(manifest, report)
    hosts = _check_hosts(data, report, known)
    if manifest is None or report.problems:
        return sorted(report.problems, key=lambda problem: problem.line)
    values = manifest.model_dump(mode="json", include=manifest.model_fields_set & set(SETTINGS))
    if "anchors" in values:
        values["anchors"] = [{"anchor": slug, "settings": settings} for slug, settings in anchors]
    return Checked(path.stem, report.file, values, hosts, methods)


def _syntax_problem(file: str, text: str, message: str) -> Problem:
    found = _AT_LINE.search(message)
    at_end = found is None or found[1] is None
    line = text.rstrip("\n").count("\n") + 1 if at_end else int(found[1] if found else 1)
    message = _AT_LINE.sub("", message)
    suggestion = "Look for a quote or bracket that is not closed."
    if message.startswith("Invalid value"):
        suggestion = "Put texts in double quotes; write true or false and numbers without quotes."
    elif message.startswith(("Cannot overwrite", "Cannot declare")):
        suggestion = "Keep one of the two."
    elif message.startswith("Expected '='") or message.startswith("Invalid statement"):
        suggestion = 'A line reads: key = "value".'
    return Problem(file, line, "", f"is not TOML: {message[:1].lower()}{message[1:]}.", suggestion)


def _names_secret(key: str) -> bool:
    return _SECRET.fullmatch(_HUMP.sub("_", key).lower().replace("-", "_")) is not None


def _refuse_secrets(value: object, path: lines.Path, report: Report) -> None:
    match value:
        case dict():
            for key, inner in value.items():
                if _names_secret(key):
                    report.add(
                        (*path, key),
                        "there are no secrets in these files.",
                        "Remove the line; if this file was ever shared, replace the secret too.",
                    )
                else:
                    _refuse_secrets(inner, (*path, key), report)
        case list():
            for index, inner in enumerate(value):
                _refuse_secrets(inner, (*path, index), report)


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_secrets(inner) for key, inner in value.items() if not _names_secret(key)}
        case list():
            return [_without_secrets(inner) for inner in value]
        case _:
            return value


def _check_theme(data: Mapping[str, Any], report: Report, known: Known) -> None:
    theme = data.get("theme")
    if isinstance(theme, str) and (reasons := known.broken_themes.get(theme)):
        for reason in reasons:
            report.add(("theme",), f"the theme {quoted(theme)} cannot be used: {reason}.", "See `theme check`.")
    elif isinstance(theme, str) and theme not in known.themes:
        report.add(("theme",), f"there is no theme {quoted(theme)}.", suggest(theme, known.themes, noun="themes"))


def _check_formats(data: Mapping[str, Any], report: Report, known: Known) -> None:
    seen = set()
    for index, slug in _items(data, "export_formats"):
        if not isinstance(slug, str):
            continue
        path = ("export_formats", index)
        if slug not in known.formats:
            message = f"there is no export format {quoted(slug)}."
            report.add(path, message, suggest(slug, known.formats, noun="export formats"))
        elif slug in seen:
            report.add(path, f"{quoted(slug)} is named twice.", "Keep one of the two.")
        seen.add(slug)


def _check_methods(data: Mapping[str, Any], report: Report, known: Known) -> tuple[tuple[str, dict[str, Any]], ...]:
    return _check_plugins(data, ("methods", "method", "step-up method"), known.methods, report)


def _check_anchors(data: Mapping[str, Any], report: Report, known: Known) -> tuple[tuple[str, dict[str, Any]], ...]:
    return _check_plugins(data, ("anchors", "anchor", "checkpoint anchor"), known.anchors, report)


def _check_plugins(
    data: Mapping[str, Any], names: tuple[str, str, str], known: Mapping[str, type[BaseModel]], report: Report
) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the entries of one list as (slug, settings); ``names``: the list's key, an entry's key, and its noun."""
    listed, key, noun = names
    found: dict[str, dict[str, Any]] = {}
    for index, entry in _items(data, listed):
        slug = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(slug, str):
            continue
        path: lines.Path = (listed, index)
        if slug not in known:
            report.add((*path, key), f"there is no {noun} {quoted(slug)}.", suggest(slug, known, noun=f"{noun}s"))
            continue
        if slug in found:
            report.add((*path, key), f"{quoted(slug)} is named twice.", "Keep one of the two.")
        found[slug] = {}
        settings = entry.get("settings", {})
        if isinstance(settings, dict):
            found[slug] = _check_settings(known[slug], settings, (*path, "settings"), report)
    return tuple(found.items())


def _check_witnesses(manifest: Manifest | None, report: Report) -> None:
    if manifest is None:
        return
    seen: set[str] = set()
    for index, witness in enumerate(manifest.witnesses):
        key = WitnessKey.parse(witness.vkey)
        for same in (key.name, key.public_key.hex()):
            if same in seen:
                report.add(("witnesses", index, "vkey"), f"{quoted(key.name)} is named twice.", "Keep one of the two.")
                break
        seen |= {key.name, key.public_key.hex()}
    if manifest.witness_quorum > len(manifest.witnesses):
        message = f"asks for more witnesses than the {len(manifest.witnesses)} there are."
        report.add(("witness_quorum",), message, "Lower it, or add witnesses.")


def _check_settings(
    model: type[BaseModel], settings: dict[str, Any], path: lines.Path, report: Report
) -> dict[str, Any]:
    """Return the settings as the plugin's model reads them; what the file leaves out stays the plugin's default."""
    try:
        return model.model_validate(settings).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        report.add_errors(error.errors(include_url=False), below=path, known=model.model_fields.keys())
        return {}


def _check_hosts(data: Mapping[str, Any], report: Report, known: Known) -> tuple[CheckedHost, ...]:
    found: dict[str, CheckedHost] = {}
    for index, entry in _items(data, "hosts"):
        entry = {"host": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not isinstance(entry.get("host"), str):
            continue
        path: lines.Path = ("hosts", index)
        host = _check_host(entry, path, report, known)
        if host is None:
            continue
        if host.host in found:
            first = found[host.host].line
            report.add(path, f"{quoted(host.display)} is named twice, first in line {first}.", "Keep one of the two.")
        elif host.primary and any(other.primary for other in found.values()):
            report.add(path, "there is a second primary host.", "Set primary = true for one host only.")
        else:
            found[host.host] = host
    serving = [host for host in found.values() if host.role == "serving"]
    if serving and not any(host.primary for host in found.values()):
        first_serving = serving[0]
        found[first_serving.host] = CheckedHost(
            first_serving.host, first_serving.display, first_serving.role, True, first_serving.line
        )
    if found and not serving and not report.problems:
        report.add(("hosts",), "no host serves, so an alias leads nowhere.", 'Give one of them role = "serving".')
    return tuple(found.values())


def _check_host(entry: dict[str, Any], path: lines.Path, report: Report, known: Known) -> CheckedHost | None:
    text = entry["host"]
    role, primary = entry.get("role", "serving"), entry.get("primary", False)
    try:
        host, display = claim_host(text)
    except SharedRecordError as error:
        report.add((*path, "host"), f"{quoted(text)} is {error.message}.", _host_suggestion(text))
        return None
    if host in known.platform_hosts:
        report.add((*path, "host"), f"{quoted(display)} is a host of the platform.", "Name a host of the tenant's own.")
        return None
    if primary is True and role == "alias":
        report.add((*path, "primary"), "an alias cannot be the primary host.", 'Take out role, or write "serving".')
        return None
    return CheckedHost(host, display, str(role), primary is True, lines.line_of(report.lines, path))


def _host_suggestion(text: str) -> str:
    bare = text.strip().partition("://")[2] or text.strip()
    bare = re.split(r"[/?#:]", bare)[0].strip(".")
    try:
        claim_host(bare)
    except SharedRecordError:
        return 'Write a bare host name, e.g. "usage.acme.example".'
    return f"Did you mean {quoted(bare)}?"


def _items(data: Mapping[str, Any], key: str) -> Iterable[tuple[int, Any]]:
    value = data.get(key)
    return enumerate(value) if isinstance(value, list) else ()
