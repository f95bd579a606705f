"""Take over links and codes that were printed elsewhere, from a CSV file: ``link import`` and ``code import``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection

from shared_record.cli.context import Installation, emit, is_terminal, note, open_installation
from shared_record.db.scope import Scope
from shared_record.errors import Detail, InvalidInputError, SharedRecordError

AT_A_TIME = 50
"""Rows in one transaction: hashing a code takes some 20 ms."""
MOST_SHOWN = 20

Take = Callable[[Installation, Scope, Connection, str, str], None]
"""Takes over one value of one customer."""


def import_file(file: Path, column: str, tenant: str, take: Take, *, as_json: bool) -> None:
    """Read ``file`` (columns ``customer`` and ``column``) and take over each row; what is wrong is told by line.

    Rows that are right are taken over in any case, so a file can be corrected and read again.
    """
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    rows = list(_read(file, column))
    problems: list[Detail] = []
    done = 0
    for start in range(0, len(rows), AT_A_TIME):
        with installation.db.write(scope) as connection:
            for line, customer, value in rows[start : start + AT_A_TIME]:
                try:
                    with connection.begin_nested():
                        take(installation, scope, connection, customer, value)
                    done += 1
                except SharedRecordError as error:
                    problems.append(Detail(f"{file}:{line}", error.code, error.message))
        if is_terminal():
            note(f"{min(start + AT_A_TIME, len(rows)):,} of {len(rows):,}")
    emit({"tenant": tenant, "imported": done, "refused": len(problems)}, as_json=as_json, text=f"{done:,} imported.")
    if problems:
        raise InvalidInputError(f"{len(problems):,} rows were not taken over.", details=tuple(problems[:MOST_SHOWN]))


def _read(file: Path, column: str) -> Iterator[tuple[int, str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source, strict=True)
            if not reader.fieldnames or set(reader.fieldnames) != {"customer", column}:
                raise InvalidInputError(f"{file}: the first line must be: customer,{column}")
            for row in reader:
                if row["customer"] is None or row[column] is None or None in row:
                    raise InvalidInputError(f"{file}:{reader.line_num}: expected two values")
                yield reader.line_num, row["customer"].strip(), row[column].strip()
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{file} cannot be read: {reason}") from error
