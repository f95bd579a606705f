"""Write ``cli.md``, ``settings.md``, ``calls.md`` and ``openapi.json`` of ``reference/`` from the code.

Run it after a change of a command, a setting or an API call: ``python docs/generate_reference.py``. A test compares
the files.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
from flask import Flask

from shared_record.app import PLATFORM
from shared_record.cli import cli
from shared_record.settings import PREFIX, SECRETS, Settings
from shared_record.web.api.openapi import describe

FOLDER = Path(__file__).parent / "reference"
GENERATED = "<!-- Written by docs/generate_reference.py; do not edit. -->"

FEW = 6
"""Values of a field that are all named in its row; where there are more, the page of the subject has them."""

EXIT_CODES = (
    ("0", "Done. For `verify`: the file matches."),
    ("1", "An error: no such tenant or customer, wrong settings or keys."),
    ("2", "Wrong use of the command, or an input that cannot be taken. Nothing more was written."),
    ("3", "`readiness --fail-on blockers`: some customer is not ready."),
    ("4", "`verify`: the file does not match; the first difference is named."),
    ("5", "`verify`: the file could not be checked; the reason is given."),
    ("6", "Not permitted."),
    ("7", "Conflict with what is already there, for example a host that belongs to another tenant."),
    ("75", "A part that is needed cannot be used now. Nothing was written; try later."),
)

SETTINGS = {
    "data_dir": ("Path", "Folder of the key ring, the SQLite database and, by default, the lock store."),
    "lock_dir": (
        "Path",
        "Folder of the lock store, best on another volume. Empty: `lock-store` in the data directory.",
    ),
    "lock_url": (
        "URL",
        "The lock store as a service instead: a second PostgreSQL, or a Redis or Valkey of its own.",
    ),
    "database_url": ("URL", "`postgresql://user@host/name`. Empty: SQLite in the data directory."),
    "owner_database_url": ("URL", "The login that `migrate` uses on PostgreSQL. Empty: `database_url`."),
    "redis_url": ("URL", "`redis://host:6379/0`, for limits shared by all web processes. Empty: each has its own."),
    "host": ("Address", "Address that `serve` listens on."),
    "port": ("Number", "Port that `serve` listens on."),
    "platform_hosts": ("List", "The operator's own host names, by commas. The first names new logs and the API."),
    "public_scheme": ("`http` or `https`", "What customers' browsers use. `https` turns on secure cookies and HSTS."),
    "public_port": ("Number", "Port in customers' links. 0: 443 under `https`, else `port`."),
    "trusted_proxies": ("List", "Networks, by commas, whose forwarding headers are believed for one hop."),
    "egress_allow": (
        "List",
        "Networks, by commas, that webhooks and sign-in may reach although they are not public, also by plain http.",
    ),
    "smtp_url": (
        "URL",
        "Mail server: `smtp://user@host:587` (STARTTLS), `smtps://…`, `console:`. Empty: SQLite prints, else none.",
    ),
    "smtp_password": ("Text", "The password for the mail server."),
    "mail_from": ("Text", "The sender of every mail, such as `Acme Records <records@acme.example>`."),
    "report_to": (
        "Text",
        "An e-mail or `https://` address where readers report a page that poses as somebody else's; in every footer.",
    ),
    "web_threads": ("Number", "Threads of each web process."),
    "web_processes": ("Number", "Web processes."),
    "checkpoint_seconds": ("Number", "Least time between two checkpoints of a log. A tenant file can set its own."),
    "log_level": ("Text", "`debug`, `info`, `warning` or `error`."),
}
"""Setting -> (kind, meaning)."""


def cli_reference() -> str:
    """Return the page of all commands."""
    lines = [
        "# Commands",
        "",
        GENERATED,
        "",
        "Every command takes `-h` and `--help`. Commands that act on an installation find it by",
        "`SHARED_RECORD_DATA_DIR` and `SHARED_RECORD_DATABASE_URL`; see [settings](settings.md).",
        "Results go to standard output, progress and errors to standard error. With `--json` the result is one JSON",
        "object.",
        "",
        "## Exit codes",
        "",
        *_table(("Code", "Meaning"), EXIT_CODES),
        "",
    ]
    for path, command in _commands(cli, ("shared-record",)):
        lines += _command(path, command)
    return "\n".join(lines).rstrip() + "\n"


def settings_reference() -> str:
    """Return the page of all settings."""
    lines = [
        "# Settings",
        "",
        GENERATED,
        "",
        "Settings are read from the environment when a process starts. A name beginning with `SHARED_RECORD_` that is",
        "not listed here is an error, and so is a value that cannot be read. Options of a command stand above the",
        "environment.",
        "",
    ]
    for field in fields(Settings):
        kind, meaning = SETTINGS[field.name]
        default = field.default if field.default is not MISSING else ""
        name = PREFIX + field.name.upper()
        lines += [f"## `{name}`", "", f"{kind}, default {_default(default)}.", meaning, ""]
        if field.name in SECRETS:
            lines[-1:] = [f"May be read from a file instead: set `{name}_FILE` to its path.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # just listed
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _command(path: tuple[str, ...], command: click.Command) -> list[str]:
    lines = [f"##{'#' * (len(path) > 2)} {' '.join(path[1:])}", ""]
    context = click.Context(command, info_name=" ".join(path))
    if not isinstance(command, click.Group):
        pieces = " ".join([*path, *command.collect_usage_pieces(context)])
        lines += ["```text", pieces, "```", ""]
    lines += [*_paragraphs(command.help or ""), ""]
    rows = [_option(option) for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if rows and not isinstance(command, click.Group):
        lines += [*_table(("Option", "Meaning", "Default"), rows), ""]
    if command.epilog:
        lines += ["```text", command.epilog.replace("\b\n", "").strip("\n"), "```", ""]
    return lines


def _paragraphs(text: str) -> list[str]:
    return re.sub(r"\S*<\w+>[^\s,.;]*(\.\w+)?", r"`\g<0>`", inspect.cleandoc(text).replace("\b\n", "")).split("\n")


def _option(option: click.Option) -> tuple[str, str, str]:
    names = " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names = f"{names} `{option.make_metavar(click.Context(click.Command('x')))}`"
    meaning, _, stated = (option.help or "").partition("  [default: ")
    default = stated.removesuffix("]")
    if option.required:
        default = "required"
    elif option.show_default and not option.is_flag:
        default = str(option.default)
    if option.multiple:
        meaning += " May be given more than once."
    return names.replace("|", "\\|"), meaning, default


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        value = ",".join(value)
    return "empty" if value in ("", None) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def openapi_reference() -> str:
    """Return the description of the API, as the platform host serves it."""
    return json.dumps(_api(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def calls_reference() -> str:
    """Return the page of all calls of the API."""
    api = _api()
    calls = [
        (call["tags"][0], path, method, call)
        for path, methods in api["paths"].items()
        for method, call in methods.items()
    ]
    lines = ["# API calls", "", GENERATED, "", "How to call them, and what they mean together: [API](api.md).", ""]
    for tag in sorted({call[0] for call in calls}):
        lines += [f"## {tag.capitalize()}", ""]
        for _, path, method, call in sorted((one for one in calls if one[0] == tag), key=lambda one: one[1:3]):
            lines += _call(api, path, method, call)
    return "\n".join(lines).rstrip() + "\n"


def _api() -> dict[str, Any]:
    app = Flask("shared_record.platform", static_folder=None)
    for blueprint in PLATFORM:
        app.register_blueprint(blueprint)
    return describe(app)


def _call(api: dict[str, Any], path: str, method: str, call: dict[str, Any]) -> list[str]:
    lines = [f"### {method.upper()} {path}", "", f"`{method.upper()} {path}`", "", *_prose(call["description"]), ""]
    if "x-scope" in call:
        lines += [f"Scope `{call['x-scope']}`.", ""]
    rows = [
        (f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", "")) for one in call["parameters"]
    ]
    if rows:
        lines += [*_table(("Parameter", "In", "Type", "Meaning"), rows), ""]
    if "requestBody" in call:
        content = call["requestBody"]["content"]["application/json"]
        lines += ["Body:", "", *_fields(api, content["schema"]), ""]
    status, answer = next((code, one) for code, one in call["responses"].items() if code < "300")
    media, content = next(iter(answer["content"].items()))
    schema = content.get("schema", {})
    schema = schema.get("properties", {}).get("data", schema)
    lines += [*_prose(f"{status}, `{media}`: {' '.join(answer['description'].split())}"), "", *_fields(api, schema), ""]
    if codes := call.get("x-error-codes"):
        lines += [*_prose(f"Errors of its own: {', '.join(f'`{code}`' for code in codes)}."), ""]
    return lines


def _fields(api: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found = api["components"]["schemas"].get(name, schema)
    rows = [
        (
            f"`{field}`" + ("" if field in found.get("required", ()) else " (optional)"),
            _type(one),
            one.get("description", ""),
        )
        for field, one in found.get("properties", {}).items()
    ]
    return _table(("Field", "Type", "Meaning"), rows) if rows else []


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if len(schema.get("enum", ())) > FEW:
        return "one of a list"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("format") or schema.get("type", "any"))


def _prose(text: str) -> list[str]:
    return [line for part in text.replace("``", "`").split("\n\n") for line in (*textwrap.wrap(part, 118), "")][:-1]


PAGES = {
    "cli.md": cli_reference,
    "settings.md": settings_reference,
    "calls.md": calls_reference,
    "openapi.json": openapi_reference,
}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
