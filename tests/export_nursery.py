"""Run as a program: starts real workers that build exports, by forking itself, and lets each die at one instruction.

Reads a line per worker, ``KIND N MOMENT``: it works at that moment (ISO 8601) and kills itself with SIGKILL once it has
written N bytes (``bytes``), passed the N-th step of its database (``step``), or before or after the N-th change of a
name on the disk (``disk``). ``life 0`` works to the end. Prints the signal that ended it, or 0.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from shared_record.clock import SteppedClock
from shared_record.exports import building
from shared_record.exports.building import Builder
from shared_record.exports.service import PLAIN
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.worker import Worker
from stepped import SteppedDatabase, SteppedLocks, Steps


def main(url: str, folder: Path) -> None:
    """Follow the orders on standard input until it ends."""
    logging.disable()
    steps, formats = Steps(), load_plugins().export_formats
    db, locks = SteppedDatabase(url, steps), SteppedLocks(folder / "locks", steps)
    keys = KeyRing.load(folder / "keys.json")
    print("ready", flush=True)
    for line in sys.stdin:
        kind, number, moment = line.split()
        child = os.fork()
        if child == 0:
            try:
                set_end(kind, int(number), steps)
                clock = SteppedClock(datetime.fromisoformat(moment))
                builder = Builder(db, keys, clock, formats, folder / "exports", lambda _scope, _who: PLAIN)
                Worker(db, keys, clock, locks, 0, exports=builder).export_once()
                os._exit(0)
            finally:
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def set_end(kind: str, number: int, steps: Steps) -> None:
    """Have this process killed where the order says."""
    if kind == "step":
        steps.stop_at(number, lambda _place: die())
    elif kind == "bytes":
        count_bytes(number)
    elif kind == "disk":
        count_changes(number)


def count_bytes(limit: int) -> None:
    """Die within the write that passes ``limit``, after the part of it that still fits."""
    write, written = building._Watched.write, 0

    def counted(self: Any, data: bytes) -> int:
        nonlocal written
        if written + len(data) > limit:
            write(self, data[: limit - written])
            self._out.flush()
            die()
        written += len(data)
        return write(self, data)

    building._Watched.write = counted  # type: ignore[method-assign]


def count_changes(number: int) -> None:
    """Die before or after a file is made durable or renamed: each of these calls is two places."""
    passed = 0

    def wrapped(call: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            nonlocal passed
            for place in ("before", "after"):
                passed += 1
                if passed == number:
                    die()
                if place == "before":
                    result = call(*arguments)
            return result

        return counted

    os.fsync = wrapped(os.fsync)
    Path.replace = wrapped(Path.replace)  # type: ignore[method-assign]


def die() -> None:
    """End as if the power had gone."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
