"""Watching a log over a real HTTP server: in order, fork, rollback, bad signature, unreachable, rubbish."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from client import Visitor, serve
from shared_record.cli.watch import watch
from shared_record.db.schema import tenant
from shared_record.ledger import merkle
from shared_record.ledger.checkpoints import make_checkpoint
from shared_record.ledger.entry import epoch_text
from shared_record.ledger.note import VerifierKey, checkpoint_body, sign_note
from shared_record.ledger.tiles import TileName, parse_tile_name
from shared_record.verifier.checks import Result
from shared_record.verifier.watch import Seen, look, tile_path
from world import Shop

ORIGIN = "records.example/log/t_1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NEXT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
START = datetime(2026, 11, 22, 9, tzinfo=UTC)


@dataclass
class Log:
    """A log in memory that serves itself as tlog-tiles; ``mark`` makes its epochs unlike another's."""

    texts: list[str] = field(default_factory=list)
    keys: list[Ed25519PrivateKey] = field(default_factory=lambda: [KEY])
    origin: str = ORIGIN
    served: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def grow(self, count: int, mark: bytes = b"", **fields: Any) -> Log:
        for n in range(len(self.texts), len(self.texts) + count):
            before = merkle.leaf_hash(self.texts[-1].encode()) if self.texts else b""
            values = {"epoch": n, "prev": before, "root": merkle.leaf_hash(mark + b"%d" % n), "slots": 4}
            values |= {"ts": START + timedelta(minutes=n)} | fields
            self.texts.append(epoch_text(**values))
        return self

    def note(self, size: int | None = None) -> str:
        size = len(self.texts) if size is None else size
        root = merkle.root(merkle.leaf_hash(text.encode()) for text in self.texts[:size])
        body = checkpoint_body(self.origin, size, root)
        notes = [sign_note(body, self.origin, key) for key in self.keys]
        return notes[0] + "".join(other.removeprefix(body + "\n") for other in notes[1:])

    def fetch(self, path: str, most: int) -> bytes:
        self.asked.append(path)
        data = self.served.get(path)
        if data is None:
            data = self.made(path)
        assert len(data) <= most
        return data

    def made(self, path: str) -> bytes:
        if path == "successor":
            raise OSError("successor: there is none")
        if path == "checkpoint":
            return self.note().encode()
        if path == "policy":
            return "".join(f"log {VerifierKey.of(self.origin, key)}\n" for key in self.keys).encode() + b"quorum none\n"
        name = parse_tile_name(path.removeprefix("tile/"))
        assert name is not None, path
        first, last = name.index * 256, name.index * 256 + name.width
        assert last <= len(self.texts) >> 8 * (name.level or 0), path
        if name.level is None:
            data = [text.encode() for text in self.texts[first:last]]
            return b"".join(len(entry).to_bytes(2) + entry for entry in data)
        step = 256**name.level
        hashes = [merkle.leaf_hash(text.encode()) for text in self.texts[first * step : last * step]]
        return b"".join(merkle.root(hashes[at : at + step]) for at in range(0, len(hashes), step))


def seen(log: Log, size: int | None = None) -> Seen:
    return Seen(log.origin, tuple(str(VerifierKey.of(log.origin, key)) for key in log.keys), log.note(size))


# --- The core ---------------------------------------------------------------------------------------------------------


def test_first_use_pins_the_key_and_the_log_may_then_grow() -> None:
    log = Log().grow(3)
    first = look(log.fetch, None)
    assert (first.result, first.first_use, first.size, first.seen) == (Result.MATCHES, True, 3, seen(log))
    again = look(log.fetch, first.seen)
    assert (again.result, again.first_use, again.new_epochs, again.seen) == (Result.MATCHES, False, 0, first.seen)
    log.grow(4)
    grown = look(log.fetch, first.seen)
    assert (grown.result, grown.new_epochs, grown.size) == (Result.MATCHES, 4, 7)
    assert grown.newest_at == "2026-11-22T09:06:00.000Z"
    assert grown.seen == seen(log)


@pytest.mark.parametrize(
    ("old", "new"), [(1, 2), (3, 4), (255, 256), (256, 257), (200, 600), (255, 513), (512, 768), (1, 700)]
)
def test_consistency_over_tile_borders_reads_few_tiles(old: int, new: int) -> None:
    log = Log().grow(new)
    assert look(log.fetch, seen(log, old)).result is Result.MATCHES
    bundles = [path for path in log.asked if "entries" in path]
    assert len(bundles) == -(-new // 256) - old // 256
    assert len(log.asked) - len(bundles) <= 1 + 4


def test_a_fork_is_proved_by_the_tiles_that_lead_to_the_new_root() -> None:
    log = Log().grow(5)
    before = seen(log)
    forked = Log().grow(3).grow(2, b"other").grow(3)
    report = look(forked.fetch, before)
    assert (report.result, report.seen) == (Result.DIFFERS, before)
    assert report.reason == "fork: size 8 does not extend size 5 as it was signed before"
    assert report.note == forked.note()
    same_size = look(Log().grow(4).grow(1, b"other").fetch, before)
    assert (same_size.result, same_size.reason) == (
        Result.DIFFERS,
        "fork: two signed checkpoints of size 5 have different roots",
    )


def test_a_rollback_is_an_alarm() -> None:
    log = Log().grow(5)
    report = look(Log().grow(4).fetch, seen(log))
    assert (report.result, report.reason) == (Result.DIFFERS, "rollback: it shows size 4, and showed 5 before")


@pytest.mark.parametrize("keys", [[OTHER_KEY], [NEXT_KEY, OTHER_KEY]])
def test_a_checkpoint_by_other_keys_is_a_bad_signature(keys: list[Ed25519PrivateKey]) -> None:
    log = Log().grow(5)
    report = look(Log(keys=keys).grow(6).fetch, seen(log))
    assert (report.result, report.reason) == (Result.DIFFERS, "bad signature: no signature by a known key")


def test_a_changed_checkpoint_and_another_log_are_alarms() -> None:
    log = Log().grow(5)
    log.served["checkpoint"] = log.note().replace("\n5\n", "\n6\n").encode()
    report = look(log.fetch, seen(log))
    assert (report.result, report.reason) == (Result.DIFFERS, f"bad signature: the signature of {ORIGIN} is wrong")
    report = look(Log(origin="records.example/log/t_2").grow(6).fetch, seen(log))
    assert (report.result, report.reason) == (
        Result.DIFFERS,
        f"this is the log records.example/log/t_2, no longer {ORIGIN}",
    )


@pytest.mark.parametrize(
    "path", ["checkpoint", "tile/0/000.p/9", "tile/entries/000.p/9", "tile/0/000.p/9 short", "tile/entries/000.p/9 one"]
)
def test_rubbish_is_no_alarm_but_could_not_be_checked(path: str) -> None:
    log = Log().grow(9)
    path, _, how = path.partition(" ")
    good = log.made(path)
    spoiled = {"": b"<html>Sign in to the hotel's network</html>", "short": good[:-1], "one": good[:-1] + b"?"}[how]
    log.served[path] = spoiled
    report = look(log.fetch, seen(log, 5))
    assert (report.result, report.seen) == (Result.UNKNOWN, seen(log, 5))


def test_a_log_that_cannot_be_reached_could_not_be_checked() -> None:
    def fetch(path: str, most: int) -> bytes:
        raise OSError(f"{path}: nobody is there")

    report = look(fetch, None)
    assert (report.result, report.reason) == (Result.UNKNOWN, "the log cannot be read: checkpoint: nobody is there")


def test_a_policy_decides_whose_signature_counts() -> None:
    log = Log().grow(2)
    policy = f"log {VerifierKey.of(ORIGIN, KEY)}\nquorum none\n"
    assert look(log.fetch, None, policy).result is Result.MATCHES
    assert not look(log.fetch, None, policy).first_use
    other = f"log {VerifierKey.of(ORIGIN, OTHER_KEY)}\nquorum none\n"
    assert look(log.fetch, None, other).result is Result.DIFFERS
    assert look(log.fetch, seen(log), other).result is Result.DIFFERS
    assert look(log.fetch, None, "quorum none\n").reason == f"the policy names no key of {ORIGIN}"
    assert look(log.fetch, None, "nonsense").result is Result.UNKNOWN


def test_a_key_announced_in_the_log_is_pinned_and_outlives_the_old_one() -> None:
    log = Log().grow(3)
    before = seen(log)
    new = str(VerifierKey.of(ORIGIN, NEXT_KEY))
    foreign = str(VerifierKey.of("records.example/log/t_2", OTHER_KEY))
    log.grow(1, keys=[new, foreign, "rubbish"]).grow(1)
    log.keys = [KEY, NEXT_KEY]
    report = look(log.fetch, before)
    assert (report.result, report.new_keys) == (Result.MATCHES, (new,))
    log.grow(1)
    log.keys = [NEXT_KEY]
    assert look(log.fetch, report.seen).result is Result.MATCHES
    assert look(log.fetch, before).result is Result.DIFFERS


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"epoch": 77}, "epoch 5 says it is epoch 77"),
        ({"prev": bytes(32)}, "epoch 5 names another epoch before it"),
        ({"ts": START}, "epoch 6 is older than the one before it"),
    ],
)
def test_new_epochs_that_contradict_each_other_are_an_alarm(fields: dict[str, Any], problem: str) -> None:
    log = Log().grow(5)
    before = seen(log)
    if "ts" in fields:
        log.grow(1)
    log.grow(1, **fields)
    report = look(log.fetch, before)
    assert (report.result, report.reason) == (Result.DIFFERS, problem)


def test_an_endless_log_is_not_read() -> None:
    body = checkpoint_body(ORIGIN, 2**60, bytes(32))
    log = Log(served={"checkpoint": sign_note(body, ORIGIN, KEY).encode()})
    report = look(log.fetch, None)
    assert report.result is Result.UNKNOWN
    assert log.asked == ["checkpoint", "policy"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_nothing_raises_whatever_is_served(data: st.DataObject) -> None:
    log = Log().grow(6)
    paths = ["checkpoint", "policy", "tile/0/000.p/6", "tile/entries/000.p/6"]
    path = data.draw(st.sampled_from(paths))
    raw = bytearray(log.made(path))
    if data.draw(st.booleans()):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        raw = bytearray(data.draw(st.binary(max_size=300)))
    log.served[path] = bytes(raw)
    before = data.draw(st.sampled_from([None, seen(log, 3), seen(log, 6)]))
    report = look(log.fetch, before)
    if path == "tile/entries/000.p/6" and before == seen(log, 3):
        known = sum(2 + len(text.encode()) for text in log.texts[:3])  # entries seen before are not read again
        assert report.result is not Result.MATCHES or bytes(raw)[known:] == log.made(path)[known:]


@given(st.integers(0, 2**54), st.integers(1, 256), st.sampled_from([None, 0, 1, 63]))
def test_a_tile_path_is_read_back_as_it_was_written(index: int, width: int, level: int | None) -> None:
    path = tile_path("entries" if level is None else level, index, width)
    assert parse_tile_name(path.removeprefix("tile/")) == TileName(level, index, width)


def test_a_real_log_is_watched_through_the_application(shop: Shop) -> None:
    visitor = Visitor(serve(shop))
    with shop.db.read(shop.scope) as connection:
        query = select_public_id(shop)
        base = f"{shop.hosts[0]}/log/{connection.execute(query).scalar_one()}"

    def fetch(path: str, most: int) -> bytes:
        response = visitor.get(f"{base}/{path}")
        if response.status_code != 200:
            raise OSError(f"{path}: {response.status}")
        return response.data

    assert look(fetch, None).result is Result.UNKNOWN
    known = None
    for count in (1, 2, 255, 10) if not shop.db.is_postgresql else (1, 2):
        shop.record("cust_a", "1")
        lease = shop.lease()
        for _ in range(count):
            make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, lease)
        report = look(fetch, known)
        assert report.result is Result.MATCHES, report.reason
        known = report.seen
    assert known is not None


def select_public_id(shop: Shop) -> Any:
    from sqlalchemy import select

    return select(tenant.c.public_id).where(tenant.c.tenant_id == shop.scope.plane)


# --- The command ------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A log behind a real HTTP server, and what was POSTed to it."""

    url: str
    log: Log
    posted: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port; ``log`` may be changed at any time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                data, status = found.log.fetch(self.path.removeprefix("/log/t_1/"), 10**9), 200
            except (AssertionError, ValueError):
                data, status = b"no such thing", 404
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            found.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    base = f"http://127.0.0.1:{http.server_address[1]}"
    found = Server(f"{base}/log/t_1", Log().grow(5))
    yield found
    http.shutdown()
    thread.join()
    http.server_close()


def run(server: Server, tmp_path: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    arguments = [server.url, "--once", "--json", "--state", str(tmp_path / "state.json"), *options]
    result = CliRunner().invoke(watch, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}, result.stderr


def test_the_command_remembers_and_follows(server: Server, tmp_path: Path) -> None:
    code, form, stderr = run(server, tmp_path)
    assert (code, form["result"], form["size"], form["firstUse"]) == (0, "matches", 5, True)
    assert VerifierKey.of(ORIGIN, KEY).fingerprint in stderr
    state = (tmp_path / "state.json").read_text()
    assert json.loads(state)["checkpoint"] == server.log.note()
    server.log.grow(300)
    code, form, stderr = run(server, tmp_path)
    assert (code, form["newEpochs"], form["firstUse"], stderr) == (0, 300, False, "")
    assert list(tmp_path.iterdir()) == [tmp_path / "state.json"]


def test_a_fork_exits_4_keeps_the_state_and_tells_the_webhook_with_the_evidence(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    state = (tmp_path / "state.json").read_bytes()
    before, server.log = server.log, Log().grow(4).grow(4, b"other")
    code, form, _ = run(server, tmp_path, "--webhook", server.url)
    assert (code, form["result"]) == (4, "does not match")
    assert (form["checkpointBefore"], form["checkpoint"]) == (before.note(), server.log.note())
    assert server.posted == [form]
    assert (tmp_path / "state.json").read_bytes() == state
    server.log = Log().grow(3)
    assert run(server, tmp_path)[0] == 4
    server.log = Log(keys=[OTHER_KEY]).grow(9)
    code, form, _ = run(server, tmp_path)
    assert (code, form["reason"]) == (4, "bad signature: no signature by a known key")
    text = CliRunner().invoke(watch, [server.url, "--state", str(tmp_path / "state.json")])  # ends without --once
    assert text.exit_code == 4
    assert "ALARM: bad signature" in text.stdout
    assert before.note() in text.stdout


def test_what_cannot_be_checked_exits_5(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    server.log.served["checkpoint"] = b"\xff\xfe"
    code, form, _ = run(server, tmp_path, "--webhook", server.url)
    assert (code, form["result"], form["reason"]) == (5, "could not be checked", "the checkpoint is not text")
    assert len(server.posted) == 1
    server.log.served["checkpoint"] = b"x" * 200_000
    assert "longer than 100000 bytes" in run(server, tmp_path)[1]["reason"]
    del server.log.served["checkpoint"]
    server.log.grow(1)
    server.log.served["tile/entries/000.p/6"] = b""
    assert run(server, tmp_path)[0] == 5
    gone = Server("http://127.0.0.1:9/log/t_1", server.log)
    code, form, stderr = run(gone, tmp_path / "gone", "--webhook", gone.url)
    assert code == 5
    assert "refused" in form["reason"]
    assert "webhook could not be told" in stderr
    missing = Server(server.url.replace("t_1", "t_2"), server.log)
    assert "the server answers 404" in run(missing, tmp_path / "missing")[1]["reason"]


def test_a_state_file_of_another_log_or_of_no_log_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    for text in ("{}", "rubbish", json.dumps({"format": "x"}), "[]"):
        (tmp_path / "state.json").write_text(text)
        code, form, _ = run(server, tmp_path)
        assert (code, "is not a state file" in form["reason"]) == (5, True)
        assert (tmp_path / "state.json").read_text() == text
    (tmp_path / "state.json").unlink()
    run(server, tmp_path)
    code, form, _ = run(Server(server.url.replace("127.0.0.1", "localhost"), server.log), tmp_path)
    assert (code, "belongs to" in form["reason"]) == (5, True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "records.example/log/t_1", "ftp://records.example/"])
def test_only_http_is_fetched(url: str) -> None:
    assert CliRunner().invoke(watch, [url, "--once"]).exit_code == 2
