"""A time-stamp authority for tests: ``openssl ts`` behind a small HTTP server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONFIG = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[signer]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = one
[one]
serial = serial
signer_cert = signer.pem
signer_key = signer.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.13762.3
digests = sha256
ess_cert_id_chain = no
"""


@dataclass
class Authority:
    """An authority with a root of its own. ``broken`` replaces every answer, as (status, headers, body)."""

    folder: Path
    url: str = ""
    queries: list[bytes] = field(default_factory=list)
    broken: tuple[int, dict[str, str], bytes] | None = None

    @property
    def roots(self) -> Path:
        """The PEM file with its root certificate."""
        return self.folder / "ca.pem"

    def answer(self, query: bytes) -> tuple[int, dict[str, str], bytes]:
        """Stamp a query."""
        self.queries.append(query)
        if self.broken is not None:
            return self.broken
        (self.folder / "query").write_bytes(query)
        self.openssl("ts", "-reply", "-config", "tsa.cnf", "-section", "one", "-queryfile", "query", "-out", "reply")
        return 200, {"Content-Type": "application/timestamp-reply"}, (self.folder / "reply").read_bytes()

    def openssl(self, *arguments: str) -> None:
        """Run openssl in the authority's folder."""
        subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=True)


def make_authority(folder: Path, name: str = "Test TSA") -> Authority:
    """Make keys and certificates of an authority in a new folder."""
    folder.mkdir(parents=True)
    authority = Authority(folder)
    (folder / "tsa.cnf").write_text(CONFIG)
    (folder / "serial").write_text("01\n")
    for key in ("ca.key", "signer.key"):
        authority.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    common = ("-config", "tsa.cnf", "-days", "3650", "-sha256")
    authority.openssl(
        "req",
        "-new",
        "-x509",
        *common,
        "-extensions",
        "ca",
        "-key",
        "ca.key",
        "-subj",
        "/CN=Test root",
        "-out",
        "ca.pem",
    )
    authority.openssl("req", "-new", "-config", "tsa.cnf", "-key", "signer.key", "-subj", f"/CN={name}", "-out", "csr")
    authority.openssl(
        *("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "2", "-days", "3650"),
        *("-extfile", "tsa.cnf", "-extensions", "signer", "-out", "signer.pem"),
    )
    return authority


@contextmanager
def answering(answer: Any) -> Iterator[str]:
    """Serve ``answer(body) -> (status, headers, body)`` for every POST; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, headers, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client may hang up at any time
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_authority(folder: Path, name: str = "Test TSA") -> Iterator[Authority]:
    """Make an authority and serve it."""
    authority = make_authority(folder, name)
    with answering(authority.answer) as url:
        authority.url = url
        yield authority
