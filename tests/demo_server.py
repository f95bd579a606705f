"""A real ``shared-record demo`` as a child process, and the fixture ``demo``: one such server per run.

``tests/system`` and ``tests/browser`` register this module as a plugin in their ``conftest.py``, so both get the same
server. Tests that use it belong to one xdist group: ``pytestmark = pytest.mark.xdist_group("demo")``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import unescape
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner

from servers import free_port
from shared_record.cli import cli

READY_SECONDS = 120
STOP_SECONDS = 20


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The seeded demo on SQLite, running. Change only customers of your own (``Demo.new_customer``)."""
    server = Demo(tmp_path_factory.mktemp("demo"))
    with server.running():
        yield server


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Ask ``condition`` again and again until it returns something true; return that."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Person:
    """A customer with what is printed on the invoice."""

    customer_id: str
    url: str
    code: str


@dataclass
class Demo:
    """One demo installation in ``folder``; it can be started and ended several times, always on the same port."""

    folder: Path
    database_url: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    python: str = sys.executable
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def ready_file(self) -> Path:
        return self.folder / "ready.json"

    @property
    def ready(self) -> dict[str, Any]:
        """What the ready file says."""
        document: dict[str, Any] = json.loads(self.ready_file.read_text())
        return document

    @property
    def card(self) -> str:
        """What the newest start printed to stdout; the last line names the way to stop."""
        printed = self.folder / "stdout"
        wait_for("the card", lambda: "Ctrl-C" in printed.read_text())
        return printed.read_text()

    @property
    def errors(self) -> str:
        """What the newest start printed to stderr, and the log of its children."""
        log = self.data_dir / "demo.log"
        return (self.folder / "stderr").read_text() + (log.read_text() if log.exists() else "")

    @property
    def environ(self) -> dict[str, str]:
        """The environment of an operator's shell: none of this machine's settings, a home of its own."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("SHARED_RECORD_", "PYTHON"))}
        mine |= {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config")}
        return mine | self.variables

    # --- Starting and ending ------------------------------------------------------------------------------------------

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the demo and do not wait for it."""
        self.folder.mkdir(exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        line = [self.python, "-m", "shared_record", "demo", "--port", str(self.port)]
        line += ["--data-dir", str(self.data_dir), "--ready-file", str(self.ready_file), *options]
        if self.database_url:
            line += ["--database-url", self.database_url]
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                line, cwd=self.folder, env=self.environ, stdout=out, stderr=err, start_new_session=True
            )
        return self.process

    def start(self, *options: str) -> None:
        """Start the demo and wait until it has written the ready file."""
        process = self.launch(*options)
        limit = time.monotonic() + READY_SECONDS
        while not self.ready_file.exists():
            assert process.poll() is None, self.errors
            assert time.monotonic() < limit, self.errors
            time.sleep(0.05)

    def stop(self, how: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end, and see that no process of it is left; return the exit code."""
        assert self.process is not None
        family = descendants(self.process.pid)
        self.process.send_signal(how)
        code = self.process.wait(STOP_SECONDS)
        assert [one for one in family if is_alive(one)] == []
        return code

    @contextlib.contextmanager
    def running(self, *options: str, end: int = signal.SIGINT) -> Iterator[Demo]:
        """Run the demo for a block and end it by ``end``, which must be clean."""
        try:
            self.start(*options)
            yield self
            assert self.stop(end) == 0, self.errors
        finally:
            self.kill()

    def kill(self) -> None:
        """End everything at once, whatever state it is in."""
        if self.process is None:
            return
        for one in [*descendants(self.process.pid), (self.process.pid, "")]:
            with contextlib.suppress(ProcessLookupError):
                if one[1] == "" and self.process.poll() is not None:
                    continue
                os.kill(one[0], signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    # --- Using it -----------------------------------------------------------------------------------------------------

    def http(
        self,
        method: str,
        url: str,
        *,
        json_body: Any = None,
        form: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request to 127.0.0.1 with the Host header of ``url``; a bare path goes to the platform host."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Host": parts.netloc or f"localhost:{self.port}"} | (headers or {})
        body = None
        if json_body is not None:
            body, sent["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        elif form is not None:
            body, sent["Content-Type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; return everything that comes back until the server closes."""
        received = b""
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        # A server that refuses early may close while we still send or read.
        with wire, contextlib.suppress(ConnectionError):
            wire.sendall(data)
            while part := wire.recv(65536):
                received += part
        return received

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``shared-record`` against this installation, as an operator does while the server runs."""
        environ = self.environ | self._installation
        line = [self.python, "-m", "shared_record", *arguments]
        done = subprocess.run(line, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def _installation(self) -> dict[str, str]:
        """What tells a command which installation is meant."""
        named = {"SHARED_RECORD_DATA_DIR": str(self.data_dir), "SHARED_RECORD_PORT": str(self.port)}
        return named | ({"SHARED_RECORD_DATABASE_URL": self.database_url} if self.database_url else {})

    def cli_json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def _asked(self, *arguments: str) -> Any:
        """Return what ``cli_json`` does, without the second that a process of its own takes to start."""
        if self.python != sys.executable:
            return self.cli_json(*arguments)
        environ = dict.fromkeys(name for name in os.environ if name.startswith("SHARED_RECORD_"))
        result = CliRunner().invoke(cli, [*arguments, "--json"], env=environ | self.variables | self._installation)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the SQLite database, read-only."""
        path = self.data_dir / "shared-record.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query, parameters).fetchall()

    def tenant(self, slug: str) -> dict[str, Any]:
        """Return one tenant of the ready file."""
        found: dict[str, Any] = next(one for one in self.ready["tenants"] if one["slug"] == slug)
        return found

    def seeded(self, slug: str, position: int = 0) -> Person:
        """Return a customer with two months of usage. Other tests read it too: do not change it."""
        one = self.tenant(slug)["customers"][position]
        return Person(one["customer_id"], one["url"], one["access_code"])

    def emit(self, slug: str, customer_id: str, delta: str, **more: Any) -> dict[str, Any]:
        """Record one delta through the vendor API; return what it answered."""
        body = {"customerId": customer_id, "delta": delta, "reason": "system test"} | more
        headers = {"X-Api-Key": self.tenant(slug)["api_key"]}
        answer = self.http("POST", "/api/v1/balance/delta", json_body=body, headers=headers)
        assert answer.status == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def status(self, slug: str, record_id: str) -> str:
        """Return the state of a delta as the vendor API tells it."""
        headers = {"X-Api-Key": self.tenant(slug)["api_key"]}
        answer = self.http("GET", f"/api/v1/balance/delta/{record_id}", headers=headers)
        assert answer.status == 200, answer.text
        state: str = answer.json()["data"]["status"]
        return state

    def wait_verified(self, slug: str, record_id: str) -> list[str]:
        """Wait until a delta is VERIFIED; return the states that it was seen in, in order."""
        seen: list[str] = []

        def verified() -> bool:
            state = self.status(slug, record_id)
            if not seen or seen[-1] != state:
                seen.append(state)
            return state == "VERIFIED"

        wait_for(f"{record_id} verified", verified)
        return seen

    def new_customer(self, slug: str, customer_id: str, delta: str = "1") -> Person:
        """Record a first delta for a customer that the test may do anything with."""
        self.emit(slug, customer_id, delta)
        url = self._asked("link", "show", customer_id, "--tenant", slug)["url"]
        code = self._asked("code", "reveal", customer_id, "--tenant", slug)["access_code"]
        return Person(customer_id, url, code)


class Browser:
    """Keeps cookies per host and follows nothing."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.jars: dict[str, dict[str, str]] = {}

    def get(self, url: str, **options: Any) -> Answer:
        return self.send("GET", url, **options)

    def post(self, url: str, form: dict[str, str], **options: Any) -> Answer:
        return self.send("POST", url, form=form, **options)

    def send(self, method: str, url: str, **options: Any) -> Answer:
        jar = self.jars.setdefault(urlsplit(url).netloc, {})
        headers = options.pop("headers", {})
        if jar:
            headers = headers | {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
        answer = self.demo.http(method, url, headers=headers, **options)
        for line in answer.headers.get_all("Set-Cookie", []):
            name, _, rest = line.partition("=")
            jar[name] = rest.partition(";")[0]
            if "Max-Age=0" in line:
                del jar[name]
        return answer

    def unlock(self, url: str, code: str) -> Answer:
        """Fill in the access-code form as a person does."""
        form = self.get(f"{url}/unlock?method=access_code").text
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
        return self.post(f"{url}/unlock", {name: unescape(value) for name, value in hidden} | {"field-code": code})


# --- Processes -------------------------------------------------------------------------------------------------------


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return (pid, start time) of every process below ``pid``; the start time tells it from a later namesake."""
    below: list[tuple[int, str]] = []
    table = {found.pid: found for path in Path("/proc").glob("[0-9]*") if (found := _process(path)) is not None}
    wanted = {pid}
    while more := {one.pid for one in table.values() if one.parent in wanted} - wanted:
        below += [(one, table[one].started) for one in sorted(more)]
        wanted |= more
    return below


def is_alive(process: tuple[int, str]) -> bool:
    """Tell whether a process found by ``descendants`` still runs; one that only waits to be collected does not."""
    found = _process(Path(f"/proc/{process[0]}"))
    return found is not None and found.started == process[1] and found.state != "Z"


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    state: str
    started: str


def _process(folder: Path) -> _Process | None:
    try:
        text = (folder / "stat").read_text()
    except OSError:
        return None
    rest = text.rpartition(")")[2].split()
    return _Process(int(folder.name), int(rest[1]), rest[0], rest[19])
