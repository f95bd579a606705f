"""What the parts of an audit share: reading page by page, and naming what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, select
from sqlalchemy.exc import OperationalError

from shared_record.db.schema import checkpoint
from shared_record.db.scope import Scope
from shared_record.ledger import merkle
from shared_record.ledger.origin import number_of

PAGE = 2_000

_T: BindParameter[UUID] = bindparam("t")
NEWEST = (
    select(checkpoint.c.size)
    .where(checkpoint.c.tenant_id == _T, checkpoint.c.state == "published")
    .order_by(checkpoint.c.size.desc())
    .limit(1)
)


@dataclass(slots=True)
class Tally:
    """What an audit has looked at so far: for progress and for its report."""

    epochs: int = 0
    checkpoints: int = 0
    customers: int = 0
    statements: int = 0
    trees: int = 0
    deltas: int = 0


class Wrong(Exception):
    """The first difference in a place."""


UNREADABLE = (ValueError, ArithmeticError, OperationalError)
"""What reading a damaged value raises: text that is not UTF-8, a date or number that is none."""


def reason_of(error: Exception) -> str:
    """Return why a value cannot be read; a database that fails in any other way is no finding and raises again."""
    if not isinstance(error, OperationalError):
        return str(error)
    if "decode to UTF-8" not in str(error.orig):
        raise error
    return "it is not UTF-8"


def missing_or(stored: bytes | None, problem: str) -> str:
    """Return what is wrong with a stored hash that is not as expected."""
    return "missing" if stored is None else problem


class Reader:
    """Reads the rows of one data plane. ``pause`` is called between pages, so that other work comes first."""

    def __init__(self, scope: Scope, pause: Callable[[], None] | None = None) -> None:
        self.scope, self._pause = scope, pause

    def one(self, connection: Connection, query: Select[Any], **parameters: Any) -> Row[Any]:
        """Return the only row."""
        return connection.execute(query, {"t": self.scope.plane} | parameters).one()

    def one_or_none(self, connection: Connection, query: Select[Any], **parameters: Any) -> Row[Any] | None:
        """Return the only row, or ``None``."""
        return connection.execute(query, {"t": self.scope.plane} | parameters).one_or_none()

    def scalar(self, connection: Connection, query: Select[Any], **parameters: Any) -> Any:
        """Return the first column of the only row, or ``None``."""
        return connection.execute(query, {"t": self.scope.plane} | parameters).scalar_one_or_none()

    def pages(
        self, connection: Connection, query: Select[Any], key: str, after: int, label: str, **parameters: Any
    ) -> Iterator[Row[Any]]:
        """Yield the rows of ``query`` in the order of ``key``, a page at a time; ``label`` says what each of them is.

        A page that cannot be read is read again row by row, so that the row can be named.
        """
        most = PAGE
        while True:
            try:
                page = connection.execute(
                    query, {"t": self.scope.plane, "after": after, "most": most} | parameters
                ).all()
            except UNREADABLE as error:
                reason = reason_of(error)
                if most == 1:
                    name = label.format(n=number_of(after + 1), size=number_of(after + 2))
                    raise Wrong(f"{name}: a stored value is not of its type ({reason})") from error
                most = 1
                continue
            if self._pause is not None:
                self._pause()
            yield from page
            if len(page) < most:
                return
            after = getattr(page[-1], key)


def stored_hashes(joined: bytes, where: str) -> list[bytes]:
    """Cut stored hashes apart; ``Wrong`` where a part is left over."""
    try:
        return merkle.split_hashes(joined)
    except ValueError as error:
        raise Wrong(f"{where}: {error}") from error
