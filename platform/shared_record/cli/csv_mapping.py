"""CSV rows as deltas: what ``--map FIELD=EXPR`` means. Pure: bytes in, documents out, one row at a time.

A row becomes the same document as the body of an emit call, so both pass the same checks (``web.api.models``).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO

from shared_record.errors import InvalidInputError
from shared_record.ledger.amounts import CONTEXT, canonical, parse_amount

FIELDS = ("delta", "reason", "referenceId", "occurredAt", "adjusts.recordId", "adjusts.referenceId")
REQUIRED = ("delta", "reason")
MAX_LINE = 1024 * 1024


class RowError(Exception):
    """A row that cannot be taken; ``column`` is empty where it is not about one column."""

    def __init__(self, message: str, *, line: int, column: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its ``number`` from 1 (the header does not count), the ``line`` and byte ``offset`` where it ends."""

    number: int
    line: int
    offset: int
    values: tuple[str, ...]
    cells: Mapping[str, str]


# --- Reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """A CSV file (RFC 4180, UTF-8, byte-order mark allowed) read in constant memory; ``columns`` is its first line."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._line = self._offset = 0
        self._records = csv.reader(self._lines(), strict=True)
        first = self._next()
        if not first:
            raise RowError("expected a header line with the names of the columns; found nothing", line=1)
        self.columns: tuple[str, ...] = tuple(name.strip() for name in first)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in order; ``RowError`` at the first one that is not of the file's form."""
        number = 0
        while (record := self._next()) is not None:
            if not record:
                continue  # an empty line
            if len(record) != len(self.columns):
                raise RowError(f"expected {len(self.columns)} columns, found {len(record)}", line=self._line)
            number += 1
            cells = dict(zip(self.columns, record, strict=True))
            yield Row(number, self._line, self._offset, tuple(record), cells)

    def _next(self) -> list[str] | None:
        try:
            return next(self._records, None)
        except csv.Error as error:
            raise RowError(f"expected CSV; {error}", line=self._line) from None

    def _lines(self) -> Iterator[str]:
        # Lines are cut here and not by a text wrapper: it would read ahead, and a line may not be endless.
        while raw := self._source.readline(MAX_LINE + 1):
            self._line += 1
            self._offset += len(raw)
            if len(raw) > MAX_LINE:
                raise RowError(f"expected lines of at most {MAX_LINE} bytes", line=self._line)
            try:
                text = raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise RowError(f"expected UTF-8; byte {error.start + 1} of the line is not", line=self._line) from None
            if "\0" in text:
                raise RowError("expected text; found the character U+0000", line=self._line)
            yield text


# --- Mapping ---------------------------------------------------------------------------------------------------------

Expression = Callable[[Row], str]


@dataclass(frozen=True)
class RowMapping:
    """How a row becomes a document: one expression per field, and the columns each one reads."""

    customer_id: str
    expressions: Mapping[str, Expression]
    columns: Mapping[str, tuple[str, ...]]
    assume_utc: bool

    def document(self, row: Row) -> dict[str, Any]:
        """Return the row as the body of an emit call; an empty cell of an optional field counts as absent."""
        document: dict[str, Any] = {"customerId": self.customer_id}
        for field, expression in self.expressions.items():
            value = expression(row)
            if value == "" and field not in REQUIRED:
                continue
            if field == "occurredAt":
                value = self._moment(value, row)
            parent, _, name = field.partition(".")
            if name:
                document.setdefault(parent, {})[name] = value
            else:
                document[field] = value
        document.setdefault("referenceId", derived_reference(self.customer_id, row))
        return document

    def column_of(self, pointer: str) -> str:
        """Return the column(s) behind a JSON pointer into the document, as text; empty for a constant."""
        field = ".".join(pointer.split("/")[1:3])
        return "+".join(self.columns.get(field, ()))

    def _moment(self, value: str, row: Row) -> str:
        match = _MOMENT.fullmatch(value.strip())
        column = self.column_of("/occurredAt")
        if match is None:
            message = f"expected a time like 2026-11-22T09:00:00Z or 2026-11-22 09:00:00.1234567, found {value!r}"
            raise RowError(message, line=row.line, column=column)
        if not match[3] and not self.assume_utc:
            message = f"expected a time with a zone, found {value!r}. If these times are in UTC, say --assume-utc"
            raise RowError(message, line=row.line, column=column)
        return f"{match[1]}T{match[2]}{match[3] or 'Z'}"


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?) ?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def build_mapping(maps: Iterable[str], columns: Sequence[str], customer_id: str, *, assume_utc: bool) -> RowMapping:
    """Read ``FIELD=EXPR`` texts against the ``columns`` of a file.

    EXPR is a column, columns joined by ``+`` (summed exactly), or a text in quotes in which ``{row}`` and ``{Column}``
    are filled in and ``{{``, ``}}`` stand for braces. ``InvalidInputError`` says what is wrong with a map.
    """
    expressions: dict[str, Expression] = {}
    reads: dict[str, tuple[str, ...]] = {}
    for text in maps:
        field, sign, source = (part.strip() for part in text.partition("="))
        if not sign:
            raise InvalidInputError(f"--map {text}: expected FIELD=EXPR, for example delta=Tokens.")
        if field not in FIELDS and not re.fullmatch(r"metadata\.[^.]+", field):
            raise InvalidInputError(
                f"--map {text}: there is no field {field!r}. Fields: {', '.join(FIELDS)}, metadata.NAME."
            )
        if field in expressions:
            raise InvalidInputError(f"--map {text}: {field} is mapped twice.")
        expressions[field], reads[field] = _expression(text, field, source, columns)
    if missing := [field for field in REQUIRED if field not in expressions]:
        raise InvalidInputError(f"map {' and '.join(missing)} as well: each record needs {' and '.join(REQUIRED)}.")
    return RowMapping(customer_id, expressions, reads, assume_utc)


def derived_reference(customer_id: str, row: Row) -> str:
    """Return the ``referenceId`` of a row that has none: the same whenever this row of this file is read.

    It is made of the values and not of the bytes, so a file that an editor saved with other line ends or quotes is
    still the same file.
    """
    identity = json.dumps([customer_id, row.number, row.values], ensure_ascii=True, separators=(",", ":"))
    return "import-" + hashlib.sha256(identity.encode()).hexdigest()[:32]


def _expression(text: str, field: str, source: str, columns: Sequence[str]) -> tuple[Expression, tuple[str, ...]]:
    if len(source) >= 2 and source[0] == source[-1] and source[0] in "'\"":
        return _template(text, source[1:-1], columns)
    # A column whose own name has a plus is taken as it stands.
    names = (source,) if source in columns else tuple(name.strip() for name in source.split("+"))
    for name in names:
        _check_column(text, field, name, columns)
    if len(names) > 1 or field == "delta":
        return lambda row: _sum(row, names), names
    [name] = names
    return lambda row: row.cells[name], names


_TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def _template(text: str, template: str, columns: Sequence[str]) -> tuple[Expression, tuple[str, ...]]:
    parts: list[tuple[str, str]] = []  # (text before, column), where a column is a name, "{row}" or nothing
    names: list[str] = []
    end, literal = 0, ""
    for match in _TEMPLATE.finditer(template):
        literal += template[end : match.start()]
        end = match.end()
        if match[0] in ("{{", "}}"):
            literal += match[0][0]
            continue
        if match[1] is None:
            raise InvalidInputError(f"--map {text}: a single brace; write {match[0] * 2} for the character itself.")
        if match[1] != "row":
            _check_column(text, "", match[1], columns)
            names.append(match[1])
        parts.append((literal, "{row}" if match[1] == "row" else match[1]))
        literal = ""
    tail = literal + template[end:]

    def fill(row: Row) -> str:
        filled = (before + (str(row.number) if name == "{row}" else row.cells[name]) for before, name in parts)
        return "".join(filled) + tail

    return fill, tuple(names)


def _check_column(text: str, field: str, name: str, columns: Sequence[str]) -> None:
    found = list(columns).count(name)
    if found > 1:
        raise InvalidInputError(f"--map {text}: the file has {found} columns named {name!r}.")
    if found == 0:
        listed = ", ".join(columns)
        # The shell removes the quotes of --map reason='x'; this is the mistake that everybody makes once.
        hint = f" For a constant keep the quotes from the shell: --map \"{field}='{name}'\"." if field else ""
        raise InvalidInputError(f"--map {text}: the file has no column {name!r}. Columns: {listed}.{hint}")


def _sum(row: Row, names: Sequence[str]) -> str:
    total = Decimal(0)
    for name in names:
        cell = row.cells[name].strip()
        if _ZERO.fullmatch(cell):
            continue  # a part may be zero, only an amount may not
        try:
            total = CONTEXT.add(total, parse_amount(cell))
        except InvalidInputError:
            message = f"expected a decimal number like 12 or -0.5, found {row.cells[name]!r}"
            raise RowError(message, line=row.line, column=name) from None
    return canonical(total)


_ZERO = re.compile(r"-?0(\.0+)?", re.ASCII)
