"""``shared-record completion``: commands and options, completed by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "shared-record"


@click.command(
    epilog="""\b
Examples:
  eval "$(shared-record completion bash)"
  shared-record completion fish > ~/.config/fish/completions/shared-record.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes this program's commands in SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, PROGRAM, "_SHARED_RECORD_COMPLETE").source())
