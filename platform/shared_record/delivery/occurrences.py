"""What customers do with a record: noted in memory while a page is made, written for webhooks a little later.

A request that only reads writes nothing itself. What is noted in the last seconds before a process is killed is lost:
these events tell of reading, not of the record.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from shared_record.clock import Clock, rfc3339
from shared_record.db.engine import Database
from shared_record.db.scope import Scope
from shared_record.delivery import outbox
from shared_record.delivery.events import RECORD_VIEWED

FLUSH_SECONDS = 2.0
MOST = 10_000
"""Occurrences that are kept until they are written; beyond it the oldest are dropped."""

_log = logging.getLogger("shared_record.delivery")


@dataclass(frozen=True, slots=True)
class _Occurrence:
    scope: Scope
    event: str
    customer_id: UUID
    data: Mapping[str, Any]


class Occurrences:
    """A buffer of one process; thread-safe. Its thread begins with the first thing that is noted."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock
        self._waiting: deque[_Occurrence] = deque(maxlen=MOST)
        self._viewed: dict[UUID, str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, scope: Scope, event: str, customer_id: UUID, data: Mapping[str, Any]) -> None:
        """Note one occurrence; of viewing, the first per customer and day (UTC)."""
        now = self._clock.now()
        with self._lock:
            if event == RECORD_VIEWED:
                today = f"{now:%Y-%m-%d}"
                if self._viewed.get(customer_id) == today:
                    return
                if len(self._viewed) >= MOST:
                    self._viewed.clear()
                self._viewed[customer_id] = today
            self._waiting.append(_Occurrence(scope, event, customer_id, {**data, "at": rfc3339(now)}))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="occurrences", daemon=True)
                self._thread.start()

    def flush(self) -> int:
        """Write what was noted; return how many occurrences that were. What cannot be written is dropped."""
        count = 0
        while self._waiting:
            try:
                one = self._waiting.popleft()
            except IndexError:
                break
            count += 1
            write = outbox.emit_daily if one.event == RECORD_VIEWED else outbox.emit
            try:
                with self._db.read(one.scope) as connection:
                    wanted = outbox.subscribed(connection, one.scope, one.event)
                if wanted:
                    with self._db.write(one.scope) as connection:
                        write(connection, self._clock, one.scope, one.event, one.data, one.customer_id)
            except IntegrityError:
                continue  # another process told of the same day first
            except SQLAlchemyError as error:
                _log.warning("occurrence not written: %s", type(error).__name__)
        return count

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(FLUSH_SECONDS)
            self.flush()
