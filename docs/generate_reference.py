"""Write ``reference/cli.md``, ``reference/settings.md`` and ``reference/openapi.json`` from the code.

Run it after a change of a command, a setting or an API call: ``python docs/generate_reference.py``. A test compares
the files.
"""

from __future__ import annotations

import inspect
import json
import re
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

EXIT_CODES = (
    ("0", "Done. For `verify`: the file matches."),
    ("1", "An error: no such tenant or customer, wrong settings or keys."),
    ("2", "Wrong use of the command, or an input that cannot be taken. Nothing more was written."),
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
    app = Flask("shared_record.platform", static_folder=None)
    for blueprint in PLATFORM:
        app.register_blueprint(blueprint)
    return json.dumps(describe(app), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


PAGES = {"cli.md": cli_reference, "settings.md": settings_reference, "openapi.json": openapi_reference}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
