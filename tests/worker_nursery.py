"""Run as a program: starts real worker processes at once, by forking itself when it is warm, and kills them.

Reads a line per worker, ``N SECONDS``: fork one, send it SIGKILL after that time, and print the signal that ended it.
With N > 0 it kills itself as soon as it has passed the N-th step of its database or lock store.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from shared_record import worker
from shared_record.clock import SystemClock
from shared_record.keys import KeyRing
from stepped import SteppedDatabase, SteppedLocks, Steps

worker.LEASE = timedelta(milliseconds=1)  # else each killed worker would hold the work up for a minute
worker.RETRY = timedelta(milliseconds=20)


def main(url: str, folder: Path) -> None:
    """Follow the orders on standard input until it ends."""
    logging.disable()
    steps = Steps()
    db, locks, keys = (
        SteppedDatabase(url, steps),
        SteppedLocks(folder / "locks", steps),
        KeyRing.load(folder / "keys.json"),
    )

    def work(stop_at: int) -> None:
        steps.stop_at(stop_at, lambda place: os.kill(os.getpid(), signal.SIGKILL))
        loop = worker.Worker(db, keys, SystemClock(), locks, 0)
        loop.run(threading.Event(), poll_seconds=0.003)

    worker.Worker(db, keys, SystemClock(), locks, 0).run_once()  # its statements are compiled from now on
    db.dispose()  # no connection is carried over into another process
    print("ready", flush=True)
    for line in sys.stdin:
        number, seconds = line.split()
        child = os.fork()
        if child == 0:
            try:
                work(int(number))
            finally:
                os._exit(1)
        print(end(child, float(seconds)), flush=True)


def end(child: int, seconds: float) -> int:
    """Kill a worker after so many seconds, unless it has killed itself; return the signal that ended it."""
    limit = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < limit:
        time.sleep(0.002)
    if found == (0, 0):
        os.kill(child, signal.SIGKILL)
        found = os.waitpid(child, 0)
    return os.WTERMSIG(found[1]) if os.WIFSIGNALED(found[1]) else -1


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
