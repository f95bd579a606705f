"""The application behind each server that it is run with: granian and gunicorn alone, and Caddy before granian."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo_server import STOP_SECONDS, wait_for
from servers import free_port
from wire_cases import CADDY, GRANIAN, GUNICORN
from world import Shop

CADDYFILE = Path(__file__).parents[1] / "deploy" / "Caddyfile"
SECONDS = 60
"""For anything to come; the machine may be busy."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")


@dataclass(frozen=True)
class Answer:
    """One answer of a connection."""

    status: int
    fields: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """Where a server listens, and how bytes reach it. ``plain_port`` is Caddy's for http."""

    server: str
    port: int
    link: str
    hosts: tuple[str, str, str]
    trust: ssl.SSLContext | None = None
    plain_port: int = 0

    def fill(self, wire: bytes) -> bytes:
        """Put this server's names into a case."""
        name, second, other = (one.encode() for one in self.hosts)
        port = b"%d" % self.port
        values = {
            b"%HOST%": name + b":" + port,
            b"%SECOND%": second + b":" + port,
            b"%OTHER%": other + b":" + port,
            b"%NAME%": name,
            b"%PORT%": port,
            b"%LINK%": self.link.encode(),
            b"%SCHEME%": b"https" if self.trust else b"http",
        }
        for mark, value in values.items():
            wire = wire.replace(mark, value)
        return wire

    @contextlib.contextmanager
    def connected(self, name: str = "", *, plain: bool = False, protocol: str = "http/1.1") -> Iterator[socket.socket]:
        """Open a connection; by TLS where the server has it, for ``name`` (default: the first host)."""
        port = self.plain_port if plain else self.port
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as wire:
            if self.trust is None or plain:
                yield wire
                return
            self.trust.set_alpn_protocols([protocol])
            with self.trust.wrap_socket(wire, server_hostname=name or self.hosts[0]) as secured:
                yield secured

    def send(self, data: bytes, *, name: str = "", plain: bool = False) -> bytes:
        """Send bytes on a connection of their own; return all that comes back until the server closes."""
        received = b""
        # A server that refuses early may close while we still send or read.
        with self.connected(name, plain=plain) as wire, contextlib.suppress(ConnectionError, ssl.SSLError):
            wire.sendall(data)
            while part := wire.recv(65536):
                received += part
        return received

    def ask(self, data: bytes, *, name: str = "", plain: bool = False) -> list[Answer]:
        """Send bytes; return the answers."""
        return answers(self.send(data, name=name, plain=plain))


def answers(received: bytes) -> list[Answer]:
    """Return the answers in what was received: each ends where its length says, else where the next one begins."""
    found = []
    while (start := _STATUS.match(received)) is not None:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = [line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:]]
        fields = {name.strip().lower(): value.strip() for name, _, value in lines}
        length = int(fields["content-length"]) if "content-length" in fields else len(rest)
        if fields.get("transfer-encoding") == "chunked":
            length = rest.find(b"0\r\n\r\n") + 5
        found.append(Answer(int(start[1]), fields, rest[:length]))
        received = rest[length:]
    assert not received, received[:200]
    return found


@contextlib.contextmanager
def behind(server: str, shop: Shop, other: str, folder: Path) -> Iterator[Wire]:
    """Serve ``shop`` (and the tenant of the host ``other``) by one of the servers, from ``folder``."""
    if not (folder / "keys.json").exists():
        shop.keys.save(folder / "keys.json")
    url = shop.link("cust_1")
    wire = Wire(server, free_port(), url.path, (*shop.hosts, other))
    with contextlib.ExitStack() as stack:
        if server == CADDY:
            application = free_port()
            wire.plain_port = free_port()
            settings = {"public_scheme": "https", "public_port": wire.port, "trusted_proxies": "127.0.0.1/32"}
            stack.enter_context(_application(GRANIAN, shop, folder, application, settings))
            wire.trust = stack.enter_context(_caddy(wire, folder, application))
        else:
            stack.enter_context(_application(server, shop, folder, wire.port, {}))
        yield wire


@contextlib.contextmanager
def _application(server: str, shop: Shop, folder: Path, port: int, settings: dict[str, object]) -> Iterator[None]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SHARED_RECORD_")}
    settings = {"data_dir": folder, "database_url": shop.db.url, "port": port} | settings
    environ |= {f"SHARED_RECORD_{name.upper()}": str(value) for name, value in settings.items()}
    line = [sys.executable, "-m", "shared_record", "serve"]
    if server == GUNICORN:
        line = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "4"]
        line += ["--no-control-socket", "shared_record.app:create_app()"]
    with _child(line, folder / f"{server}.log", environ, lambda: _listens(port)):
        yield


@contextlib.contextmanager
def _caddy(wire: Wire, folder: Path, application: int) -> Iterator[ssl.SSLContext]:
    """Run Caddy with the file of ``deploy/``; yield what trusts its certificates, which its own authority issues."""
    executable = shutil.which("caddy")
    if executable is None:
        reason = "NOT RUN: needs caddy (Debian: apt-get install caddy)"
        if os.environ.get("SR_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # The ports, and no authority of ours in this machine's store; all else is the file as it is delivered.
    ours = f"admin off\n\thttp_port {wire.plain_port}\n\thttps_port {wire.port}\n\tskip_install_trust"
    file = folder / "Caddyfile"
    file.write_text(CADDYFILE.read_text().replace("admin off", ours, 1))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environ |= {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "UPSTREAM": f"127.0.0.1:{application}"}
    environ |= {"SITES": ", ".join(("localhost", *wire.hosts)), "ACME_EMAIL": "operations@localhost"}
    root = folder / "caddy/pki/authorities/local/root.crt"
    line = [executable, "run", "--config", str(file), "--adapter", "caddyfile"]

    def is_ready() -> bool:
        return root.exists() and all(_has_certificate(folder, name) for name in wire.hosts) and _listens(wire.port)

    with _child(line, folder / "caddy.log", environ, is_ready):
        yield ssl.create_default_context(cafile=str(root))


def _has_certificate(folder: Path, name: str) -> bool:
    return any(folder.glob(f"caddy/certificates/*/{name}/{name}.json"))


@contextlib.contextmanager
def _child(line: list[str], log: Path, environ: dict[str, str], is_ready: Callable[[], bool]) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(line, cwd=log.parent, env=environ, stdout=out, stderr=out) as process:
        try:
            wait_for(f"{line[0]} to serve", lambda: process.poll() is not None or is_ready(), 60)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
