"""A real ``shared-record serve`` as a child process, over a test tenant's database."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from demo_server import STOP_SECONDS, descendants, wait_for
from servers import free_port
from world import Shop


@contextlib.contextmanager
def serving(shop: Shop, folder: Path, **settings: object) -> Iterator[LiveServer]:
    """Serve ``shop`` from ``folder``, which gets the key ring; ``settings`` are names and values of ``Settings``."""
    if not (folder / "keys.json").exists():
        shop.keys.save(folder / "keys.json")
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
    chosen = {f"SHARED_RECORD_{name.upper()}": str(value) for name, value in settings.items()}
    server = LiveServer(folder, free_port())
    line = [sys.executable, "-m", "shared_record", "serve", "--port", str(server.port), "--data-dir", str(folder)]
    line += ["--database-url", shop.db.url]
    with server.log.open("wb") as log, subprocess.Popen(line, env=quiet | chosen, stdout=log, stderr=log) as process:
        server.pid = process.pid
        try:
            wait_for("an answer", lambda: process.poll() is not None or server.is_ready(), 60)
            assert process.poll() is None, server.log.read_text()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


class LiveServer:
    """One running server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log, self.port, self.pid = folder / "serve.log", port, 0

    @property
    def url(self) -> str:
        """Where the platform host answers."""
        return f"http://localhost:{self.port}"

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/api/v1/openapi.json", headers={"Host": f"localhost:{self.port}"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def is_complete(self) -> bool:
        """Tell whether every worker that was spawned has started to serve."""
        said = self.log.read_text()
        return said.count("] Started worker-") == said.count("] Spawning worker-")

    def workers(self) -> list[int]:
        """Return the ids of its worker processes."""
        return [pid for pid, _ in descendants(self.pid)]
