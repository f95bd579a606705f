"""The command ``shared-record``. Commands are imported when they are used, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from shared_record import __version__
from shared_record.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SharedRecordError,
    UnavailableError,
)

COMMANDS = {
    "access": ("access", "Who may step up, and what a method needs for it: allow, deny, list, secret."),
    "apikey": ("apikey", "API keys: create, list, rotate, revoke."),
    "audit": ("audit", "The audit trail: tail, export, verify."),
    "bundle": ("billing", "What an invoice says about a customer's period: totals, link, code, proof, QR."),
    "code": ("code", "Access codes: rotate, reveal, import."),
    "completion": ("completion", "Print the script that completes commands in bash, zsh or fish."),
    "customer": ("customer", "Customers: list, create, rename, language, move to another host, erase."),
    "demo": ("demo", "Set up and run a demo installation in one step."),
    "export": ("export", "Write one period of a customer to a file."),
    "key": ("key", "Root keys and signing keys: list, rotate, retire, backup."),
    "ledger": ("ledger", "The ledger: audit, status, resume, new-origin."),
    "link": ("link", "Customer links: show, issue, revoke, reissue, import."),
    "mail": ("mail", "Mail: test."),
    "migrate": ("run", "Create or upgrade the database and the key ring."),
    "policy": ("policy", "Access policies: explain, set."),
    "readiness": ("billing", "Who is ready to be invoiced for a period, and what blocks the rest."),
    "record": ("record", "Usage: import a CSV file, erase details of one record."),
    "serve": ("run", "Run the web server."),
    "tenants": ("tenants", "Tenants as code: check, apply, list."),
    "theme": ("theme", "Themes: new, check, preview, list."),
    "token": ("token", "Personal access tokens: create, list, revoke."),
    "verify": ("verify", "Check an exported file, offline."),
    "watch": ("watch", "Watch a log and say when it contradicts itself."),
    "webhook": ("webhook", "Webhooks: create, list, update, delete, rotate, test, deliveries, retry."),
    "worker": ("run", "Run the worker: integrate, checkpoint, close, deliver webhooks and mail."),
}
"""Command -> (module of this package, one line for ``--help``)."""

EXIT_CODES: tuple[tuple[type[SharedRecordError], int], ...] = (
    (AccessDeniedError, 6),
    (ConflictError, 7),
    (UnavailableError, 75),
    (InvalidInputError, 2),
    (NotFoundError, 1),
    (ConfigurationError, 1),
    (SharedRecordError, 1),
)


class _Commands(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"shared_record.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an expected failure becomes a sentence on stderr and an exit code of its own."""
        try:
            return super().invoke(ctx)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
            click.echo(f"Error: the database cannot be used: {reason}", err=True)
            click.echo("Is it running and migrated? `shared-record migrate` is safe to run at any time.", err=True)
            ctx.exit(75)
        except SharedRecordError as error:
            click.echo(f"Error: {error.message}", err=True)
            for detail in error.details:
                if detail.message != error.message:
                    click.echo(f"  {detail.pointer}: {detail.message}", err=True)
            ctx.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes: 0 done, 1 error, 2 wrong use or input, 3 not ready, 4 does not match, 5 could not check,
            6 not permitted, 7 conflict, 75 try later.
Settings come from the environment, SHARED_RECORD_*; `shared-record serve --help` names the usual ones.""",
)
@click.version_option(__version__, prog_name="shared-record")
def cli() -> None:
    """Shared Record: one persistent, branded link to each customer's usage record, checkable by anyone."""


def main() -> None:
    """Run the command line."""
    sys.exit(cli(prog_name="shared-record"))
