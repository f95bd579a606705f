"""``shared-record record import FILE``: record usage from a CSV file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import click

from shared_record.cli.context import Installation, emit, is_terminal, json_option, open_installation, tenant_option
from shared_record.cli.csv_mapping import Reader, Row, RowError, RowMapping, build_mapping
from shared_record.db.scope import Scope
from shared_record.errors import InvalidInputError
from shared_record.ledger.amounts import Total
from shared_record.ledger.erasure import erase_details
from shared_record.ledger.intake import Delta, Rejected, record_deltas
from shared_record.web.api.models import read_emit


@click.group()
def record() -> None:
    """Record usage."""


@record.command(
    "import",
    epilog="""\b
EXPR is one of
  Column              the cell of that column
  A+B                 columns, summed exactly
  'text'              a constant; {row} and {Column} in it are filled in
FIELD is delta, reason, referenceId, occurredAt, adjusts.recordId, adjusts.referenceId or metadata.NAME.
Keep the quotes of a constant from the shell:

\b
  shared-record record import usage.csv --tenant acme --customer c-17 \\
    --map delta=ContextTokens+GeneratedTokens --map "reason='inference'" \\
    --map occurredAt=TIMESTAMP --assume-utc""",
)
@click.argument("file", type=click.File("rb"))
@tenant_option
@click.option("--customer", required=True, metavar="ID", help="Whose usage this is: your id of the customer.")
@click.option("--map", "maps", required=True, multiple=True, metavar="FIELD=EXPR", help="Where a field comes from.")
@click.option("--assume-utc", is_flag=True, help="Times without a zone are in UTC.")
@click.option("--skip-zero", is_flag=True, help="Leave out rows that add up to zero, instead of stopping there.")
@click.option("--dry-run", is_flag=True, help="Check every row and record nothing.")
@click.option("--batch", default=100, show_default=True, type=click.IntRange(1, 1000), help="Rows per transaction.")
@json_option
def import_(
    file: BinaryIO,
    tenant: str,
    customer: str,
    maps: tuple[str, ...],
    assume_utc: bool,
    skip_zero: bool,
    dry_run: bool,
    batch: int,
    as_json: bool,
) -> None:
    """Record one delta per row of FILE (CSV with a header line, UTF-8; - for standard input).

    Running it again adds only what is not recorded yet: a row is known by its referenceId, or, where none is mapped,
    by its number and its cells. It stops at the first row that cannot be taken, and continues from there when it is
    run again. Map referenceId if two files may hold equal rows.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    name = getattr(file, "name", "-")
    done = Outcome()
    try:
        reader = Reader(file)
        mapping = build_mapping(maps, reader.columns, customer, assume_utc=assume_utc)
        rows = _read_rows(reader, mapping, installation, done, skip_zero=skip_zero)
        with _progress(file) as bar:
            # A batch is read whole before it is recorded: a row that cannot be taken leaves nothing of its batch.
            while block := list(islice(rows, batch)):
                if not dry_run:
                    _record(installation, scope, block, done)
                done.count(block)
                if bar is not None:
                    bar.update(block[-1][0].offset - bar.pos)
    except RowError as error:
        raise InvalidInputError(_failure_text(name, error, done, dry_run=dry_run)) from None
    emit(done.as_json(dry_run), as_json=as_json, text=done.as_text(dry_run))


@record.command(epilog="Example:  shared-record record erase rec_01JE5Q8Z7R4M2N6P8S0T1V3W5X --tenant acme")
@click.argument("record_id")
@tenant_option
@json_option
def erase(record_id: str, tenant: str, as_json: bool) -> None:
    """Erase reason, referenceId and metadata of one delta for good.

    Its amount, time and hash stay, so the record and every proof hold. Its referenceId is still known when it comes
    again. Nothing brings the text back but a backup of the database.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    with installation.db.write(scope) as connection:
        done = erase_details(connection, installation.clock, scope, record_id, "cli")
    emit(
        {"tenant": tenant, "record_id": record_id, "erased": done},
        as_json=as_json,
        text=f"The details of {record_id} are erased." if done else f"{record_id} has no details any more.",
    )


@dataclass
class Outcome:
    """What an import has done so far. ``total`` is that of newly recorded rows."""

    rows: int = 0
    recorded: int = 0
    known: int = 0
    skipped: int = 0
    total_in_file: Total = field(default_factory=Total)
    total: Total = field(default_factory=Total)

    def count(self, block: list[tuple[Row, Delta]]) -> None:
        """Count rows that were read and are in order."""
        self.rows += len(block)
        for _, delta in block:
            self.total_in_file.add(delta.amount)

    def as_json(self, dry_run: bool) -> dict[str, Any]:
        """Return the outcome under stable names; the total is an exact decimal text."""
        return {
            "dryRun": dry_run,
            "rows": self.rows + self.skipped,
            "recorded": self.recorded,
            "alreadyRecorded": self.known,
            "skippedZero": self.skipped,
            "totalAdded": self.total.text,
            "totalInFile": self.total_in_file.text,
        }

    def as_text(self, dry_run: bool) -> str:
        """Return the outcome in words."""
        lines = [("Rows read", f"{self.rows + self.skipped:,}")]
        if not dry_run:
            lines += [("Recorded", f"{self.recorded:,}"), ("Already recorded", f"{self.known:,}")]
        if self.skipped:
            lines.append(("Skipped (zero)", f"{self.skipped:,}"))
        if not dry_run:
            lines.append(("Total added", _grouped(self.total.text)))
            return _table(lines)
        lines.append(("Total in file", _grouped(self.total_in_file.text)))
        return f"{_table(lines)}\nEvery row can be recorded. This was a dry run: nothing was recorded."


def _read_rows(
    reader: Reader, mapping: RowMapping, installation: Installation, done: Outcome, *, skip_zero: bool
) -> Iterator[tuple[Row, Delta]]:
    for row in reader:
        document = mapping.document(row)
        if document["delta"] == "0" and skip_zero:
            done.skipped += 1
            continue
        try:
            yield row, read_emit(document, installation.clock.now())
        except InvalidInputError as error:
            first = error.details[0]
            message = first.message.rstrip(".")
            column = mapping.column_of(first.pointer)
            if document["delta"] == "0":
                message += " (--skip-zero leaves such rows out)"
            where = "" if column else f"{first.pointer.lstrip('/').replace('/', '.')}: "
            raise RowError(where + message, line=row.line, column=column) from None


def _record(installation: Installation, scope: Scope, block: list[tuple[Row, Delta]], done: Outcome) -> None:
    deltas = [delta for _, delta in block]
    outcomes = record_deltas(installation.db, installation.keys, installation.clock, scope, deltas)
    refused: RowError | None = None
    for (row, delta), outcome in zip(block, outcomes, strict=True):
        if isinstance(outcome, Rejected):
            hint = " (with other maps?)" if outcome.code == "REFERENCE_CONFLICT" else ""
            refused = refused or RowError(outcome.message.rstrip(".") + hint, line=row.line)
        elif outcome.replayed:
            done.known += 1
        else:
            done.recorded += 1
            done.total.add(delta.amount)
    if refused:
        raise refused


def _progress(file: BinaryIO) -> Any:
    """Return a context with a bar that counts bytes, or with ``None`` where nobody watches or the length is unknown."""
    try:
        length = os.fstat(file.fileno()).st_size
    except (OSError, ValueError):
        length = 0
    if not length or not is_terminal():
        return nullcontext()
    return click.progressbar(length=length, label="Recording", file=sys.stderr)


def _failure_text(name: str, error: RowError, done: Outcome, *, dry_run: bool) -> str:
    column = f", column {error.column}" if error.column else ""
    text = f"{name}, line {error.line}{column}: {error.message}."
    if dry_run:
        return f"{text} {done.rows:,} rows before it can be recorded; nothing was recorded."
    before = f"{done.recorded:,} rows were recorded now"
    if done.known:
        before += f", {done.known:,} were recorded already"
    return f"{text} {before}. Correct the row and run the same command again: it continues where it stopped."


def _table(lines: list[tuple[str, str]]) -> str:
    return "\n".join(f"{label:<18}{value}" for label, value in lines)


def _grouped(amount: str) -> str:
    integer, point, fraction = amount.partition(".")
    return f"{int(integer):,}{point}{fraction}" if integer not in ("-0",) else amount
