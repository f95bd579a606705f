"""``shared-record audit``: who changed what, and whether the trail is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from shared_record.access import chain
from shared_record.access.chain import Head, Row, Verdict
from shared_record.cli.context import emit, json_option, open_installation, tenant_option
from shared_record.errors import InvalidInputError

DIFFERS = 4


@click.group()
def audit() -> None:
    """The audit trail of a tenant: who changed what, and whether the trail is whole.

    Each row is chained to the one before, some seconds after it was written. It holds no secret.
    """


@audit.command(
    epilog="""\b
Examples:
  shared-record audit tail --tenant acme
  shared-record audit tail --tenant acme --lines 500 --json"""
)
@tenant_option
@click.option("--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many rows.")
@json_option
def tail(tenant: str, lines: int, as_json: bool) -> None:
    """Print the newest rows, the newest last. `-` stands for the position of a row that is not sealed yet."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.read(scope) as connection:
        rows = chain.newest(connection, scope, lines)
    events = [{"position": row.position} | row.content() for row in rows]
    emit({"events": events}, as_json=as_json, text="\n".join(map(chain.as_text, rows)) or "Nothing yet.")


@audit.command(epilog="Example:  shared-record audit export --tenant acme --output acme-audit.jsonl")
@tenant_option
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.  [default: standard output]"
)
@json_option
def export(tenant: str, output: Path | None, as_json: bool) -> None:
    """Write every sealed row as one line of JSON, in the order of the chain.

    --json says with --output what was written; without it, it prints one object that holds all rows.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.read(scope, snapshot=True) as connection:
        lines = (chain.as_line(row) for row in chain.sealed_rows(connection, scope))
        if output is not None:
            count = _write(output, lines)
            emit({"file": str(output), "rows": count}, as_json=as_json, text=f"{output}: {count} rows.")
        elif as_json:
            emit({"events": [json.loads(line) for line in lines]}, as_json=True, text="")
        else:
            for line in lines:
                click.echo(line)


def _write(output: Path, lines: Iterable[str]) -> int:
    """Write the file complete or not at all; return how many lines it has."""
    draft = output.with_name(f"{output.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as out:
            count = sum(1 for line in lines if out.write(line + "\n"))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return count


@audit.command(
    epilog="""\b
Examples:
  shared-record audit verify --tenant acme
  shared-record audit verify --tenant acme --head 318:5f1e…     it must still hold what was noted
  shared-record audit verify --file acme-audit.jsonl

\b
Exit status: 0 the chain holds, 4 it does not."""
)
@click.option("--tenant", metavar="SLUG", help="The tenant, by its slug.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="An exported trail.")
@click.option("--head", metavar="POSITION:HASH", help="A head that was printed or logged before.")
@json_option
@click.pass_context
def verify(ctx: click.Context, tenant: str | None, file: Path | None, head: str | None, as_json: bool) -> None:
    """Compute the chain of a tenant or of an exported file anew: no sealed row was changed, removed or moved.

    It says up to which row the chain is sealed. Keep that head elsewhere: rows removed from the end show by it alone.
    The worker logs every head.
    """
    if (tenant is None) == (file is None):
        raise InvalidInputError("give either --tenant SLUG or --file FILE.")
    known = _head(head)
    if file is not None:
        verdict = chain.check(_read(file), known=known)
    else:
        installation = open_installation()
        scope = installation.tenant(tenant or "").scope
        with installation.db.read(scope, snapshot=True) as connection:
            verdict = chain.verify(connection, scope, known=known)
    data = {
        "holds": not verdict.problems,
        "position": verdict.head.position,
        "head": str(verdict.head),
        "unsealed": verdict.waiting,
        "problems": verdict.problems,
    }
    emit(data, as_json=as_json, text=_as_text(verdict))
    if verdict.problems:
        ctx.exit(DIFFERS)


def _head(text: str | None) -> Head | None:
    try:
        return None if text is None else Head.parse(text)
    except ValueError as error:
        raise InvalidInputError("--head is POSITION:HASH, as `audit verify` prints it.") from error


def _read(file: Path) -> Iterable[Row]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield chain.read_line(line)
            except ValueError as error:
                raise InvalidInputError(f"{file}, line {number}: {error}.") from error


def _as_text(verdict: Verdict) -> str:
    waiting = f" {verdict.waiting} newer rows are not sealed yet." if verdict.waiting else ""
    if not verdict.problems:
        return f"Sealed up to row {verdict.head.position}; the chain holds.{waiting}\nHead: {verdict.head}"
    lines = [f"The chain holds up to row {verdict.head.position} and not beyond.{waiting}"]
    return "\n".join([*lines, *(f"  {problem}" for problem in verdict.problems)])
