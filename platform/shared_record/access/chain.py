"""The chain of the audit trail: each row's hash covers its content, its position and the hash of the row before.

The worker seals rows some seconds after they were written, in the order of their time and id. So a row that was
changed, removed, moved or slipped in afterwards shows, unless everything behind it was made anew; and that shows to
whoever kept an earlier position with its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from shared_record.clock import rfc3339
from shared_record.db.engine import Database
from shared_record.db.schema import audit_event
from shared_record.db.scope import Scope

START = bytes(32)
"""What the first row is chained to."""
BATCH = 500
MOST_PROBLEMS = 20

_T: Any = bindparam("t")
_COLUMNS = (
    audit_event.c.position,
    audit_event.c.event_id,
    audit_event.c.at,
    audit_event.c.event,
    audit_event.c.actor,
    audit_event.c.customer_id,
    audit_event.c.detail,
    audit_event.c.hash,
)
_MINE = select(*_COLUMNS).where(audit_event.c.tenant_id == _T)
_UNSEALED = (
    _MINE.where(audit_event.c.position.is_(None)).order_by(audit_event.c.at, audit_event.c.event_id).limit(BATCH)
)
_HEAD = _MINE.where(audit_event.c.position.is_not(None)).order_by(audit_event.c.position.desc()).limit(1)
_SEALED = _MINE.where(audit_event.c.position > bindparam("after")).order_by(audit_event.c.position).limit(BATCH)
_NEWEST = _MINE.order_by(audit_event.c.at.desc(), audit_event.c.event_id.desc()).limit(bindparam("most"))
_WAITING = (
    select(func.count()).select_from(audit_event).where(audit_event.c.tenant_id == _T, audit_event.c.position.is_(None))
)
_SEAL = (
    audit_event.update()
    .where(audit_event.c.tenant_id == _T, audit_event.c.event_id == bindparam("id"), audit_event.c.position.is_(None))
    .values(position=bindparam("place"), hash=bindparam("link"))
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the trail as it is stored; ``position`` and ``hash`` are ``None`` until it is sealed."""

    position: int | None
    event_id: UUID
    at: datetime
    event: str
    actor: str
    customer_id: UUID | None
    detail: dict[str, Any]
    hash: bytes | None

    def content(self) -> dict[str, Any]:
        """Return what its hash covers apart from its place, as JSON values."""
        return {
            "id": str(self.event_id),
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "event": self.event,
            "actor": self.actor,
            "customer": str(self.customer_id) if self.customer_id else None,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """The newest sealed row: its position, counted from 1, and its hash. Position 0 is an empty chain."""

    position: int = 0
    hash: bytes = START

    def __str__(self) -> str:
        return f"{self.position}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read ``POSITION:HASH``; ``ValueError`` for anything else."""
        position, _, digest = text.partition(":")
        found = cls(int(position), bytes.fromhex(digest))
        if found.position < 0 or len(found.hash) != len(START):
            raise ValueError("expected POSITION:HASH")
        return found


@dataclass(slots=True)
class Verdict:
    """What checking a chain found: how far it holds, rows not sealed yet, and what is wrong."""

    head: Head = field(default_factory=Head)
    waiting: int = 0
    problems: list[str] = field(default_factory=list)


def link_hash(before: bytes, position: int, content: dict[str, Any]) -> bytes:
    """Return SHA-256 of the hash before, the position (8 bytes) and the content as JSON with sorted keys, no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(before + position.to_bytes(8) + text.encode("utf-8", "surrogatepass")).digest()


def seal(db: Database, scope: Scope) -> Head | None:
    """Chain the rows that have no place yet; return the new head, or ``None`` if there was nothing to do.

    Any number of processes may do so: a place is taken once, and who comes second begins again.
    """
    sealed = None
    while True:
        try:
            with db.write(scope) as connection:
                found = _seal_batch(connection, scope)
        except IntegrityError:
            return sealed  # another process is at it
        if found is None:
            return sealed
        sealed = found


def _seal_batch(connection: Connection, scope: Scope) -> Head | None:
    waiting = connection.execute(_UNSEALED.with_for_update(), {"t": scope.plane}).all()
    if not waiting:
        return None
    head, changes = read_head(connection, scope), []
    for row in map(_row, waiting):
        position = head.position + 1
        head = Head(position, link_hash(head.hash, position, row.content()))
        changes.append({"t": scope.plane, "id": row.event_id, "place": position, "link": head.hash})
    connection.execute(_SEAL, changes)
    return head


def read_head(connection: Connection, scope: Scope) -> Head:
    """Return the newest sealed row."""
    row = connection.execute(_HEAD, {"t": scope.plane}).one_or_none()
    return Head() if row is None else Head(row.position, row.hash)


def newest(connection: Connection, scope: Scope, most: int) -> list[Row]:
    """Return the newest rows, sealed or not, oldest of them first."""
    return [_row(row) for row in connection.execute(_NEWEST, {"t": scope.plane, "most": most})][::-1]


def sealed_rows(connection: Connection, scope: Scope) -> Iterator[Row]:
    """Yield every sealed row in its order, in pages: the trail may be long."""
    after = -1
    while found := connection.execute(_SEALED, {"t": scope.plane, "after": after}).all():
        yield from map(_row, found)
        after = found[-1].position


def verify(connection: Connection, scope: Scope, *, known: Head | None = None) -> Verdict:
    """Check the whole chain. ``known``: a head of earlier, which it must still contain."""
    verdict = check(sealed_rows(connection, scope), known=known)
    verdict.waiting = connection.execute(_WAITING, {"t": scope.plane}).scalar_one()
    return verdict


def check(rows: Iterable[Row], *, known: Head | None = None) -> Verdict:
    """Check rows in the order of their positions: nothing changed, missing, moved or slipped in."""
    verdict, at = Verdict(), Head()
    for row in rows:
        expected = at.position + 1
        if row.position != expected:
            verdict.problems.append(f"position {expected}: no row; the next one is at {row.position}")
        digest = link_hash(at.hash, row.position or 0, row.content())
        if row.hash != digest:
            verdict.problems.append(f"position {row.position}: it is not the row that was sealed here ({row.event})")
        # Later rows are judged by what is stored, so that one changed row is one problem and not all that follow.
        at = Head(row.position or 0, row.hash or START)
        if not verdict.problems:
            verdict.head = at
        if known is not None and at.position == known.position and at.hash != known.hash:
            verdict.problems.append(f"position {known.position}: its hash is not the one that was noted")
        if len(verdict.problems) >= MOST_PROBLEMS:
            break
    if known is not None and at.position < known.position and len(verdict.problems) < MOST_PROBLEMS:
        verdict.problems.append(f"the chain ends at position {at.position}; it once went to {known.position}")
    return verdict


def as_line(row: Row) -> str:
    """Return one sealed row as a line of JSON, from which anybody can compute the chain again."""
    place = {"position": row.position, "hash": row.hash.hex() if row.hash else None}
    return json.dumps(place | row.content(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def as_text(row: Row) -> str:
    """Return one row for people."""
    place = "-" if row.position is None else str(row.position)
    detail = " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(row.detail.items()))
    whose = f" customer={row.customer_id}" if row.customer_id else ""
    return f"{place:>8}  {rfc3339(row.at)}  {row.event}  by {row.actor}{whose}{' ' if detail else ''}{detail}"


def read_line(line: str) -> Row:
    """Read what ``as_line`` wrote; ``ValueError`` for anything else."""
    try:
        found = json.loads(line)
        return Row(
            int(found["position"]),
            UUID(found["id"]),
            datetime.fromisoformat(found["at"]),
            found["event"],
            found["actor"],
            UUID(found["customer"]) if found["customer"] else None,
            found["detail"],
            bytes.fromhex(found["hash"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("this is not a line of an exported audit trail") from error


def _row(row: Any) -> Row:
    return Row(row.position, row.event_id, row.at, row.event, row.actor, row.customer_id, row.detail, row.hash)
