"""Bytes on a socket that no ordinary client sends, at each server that the application is run with.

The requests are data (``tests/wire_cases.py``). One server of each kind for the whole file.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import string
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache, partial

import pytest

import wire_cases
from shared_record.clock import SteppedClock
from shared_record.db import migrate
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from wire_cases import CADDY, CLOSED, GRANIAN, GUNICORN, SERVERS, Case
from wire_servers import SECONDS, Answer, Wire, answers, behind
from world import Shop, open_shop

OTHER_HOST = "usage.other.localhost"
ACME, OTHER = "Acme", "Globex"
QUIET = 2.0
"""Seconds after which a connection that says nothing more is taken to be waiting for the next request."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Two tenants with two hosts and one, in one database; a customer with the same id at each."""
    folder = tmp_path_factory.mktemp("wire")
    url = f"sqlite:///{folder}/db.sqlite3"
    migrate.upgrade(url)
    db, keys, clock = Database(url), KeyRing("k1", {"k1": bytes(range(32))}), SteppedClock(datetime.now(UTC))
    acme = open_shop(db, keys, clock, folder)
    other = open_shop(db, keys, clock, folder, slug=OTHER.lower(), hosts=(OTHER_HOST,))
    acme.record("cust_1", "41.5")
    other.record("cust_1", "77.25")
    yield acme
    db.dispose()


@pytest.fixture(scope="module")
def started(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Wire]]:
    """Start each server when it is first asked for, and end them all."""
    with contextlib.ExitStack() as stack:

        @cache
        def start(server: str) -> Wire:
            return stack.enter_context(behind(server, shop, OTHER_HOST, tmp_path_factory.mktemp(server)))

        yield start


@pytest.fixture(params=SERVERS)
def wire(request: pytest.FixtureRequest, started: Callable[[str], Wire]) -> Wire:
    return started(request.param)


@pytest.fixture
def caddy(started: Callable[[str], Wire]) -> Wire:
    return started(CADDY)


def judged(wire: Wire, cases: tuple[Case, ...]) -> list[Answer]:
    """Send each case on a connection of its own; see that each is answered once, as this server must."""
    found = []
    for case in cases:
        allowed = case.edge if wire.server == CADDY else case.app
        got = wire.ask(wire.fill(case.wire))
        assert len(got) <= 1, (case.name, got)
        status = got[0].status if got else CLOSED
        assert status in allowed, (case.name, status)
        found += got
        if status not in (200, 302):
            assert_says_nothing(got)
    return found


def assert_says_nothing(got: list[Answer]) -> None:
    for answer in got:
        assert not {"set-cookie", "location"} & answer.fields.keys()
        assert ACME.encode() not in answer.body
        assert OTHER.encode() not in answer.body


def assert_of_acme_alone(wire: Wire, answer: Answer) -> None:
    """See that a page is of the first host's tenant, and that every link in it stays there."""
    text = answer.body.decode()
    assert ACME in text
    assert "41.5" in text
    assert OTHER not in text
    assert "77.25" not in text
    for absolute in re.findall(r'(?:href|src|action)="((?:https?:)?//[^"]+)"', text):
        assert absolute.partition("//")[2].startswith(wire.hosts[0]), absolute
    assert wire.hosts[2] not in text


# --- Whose request it is ----------------------------------------------------------------------------------------------


def test_h01_no_other_name_is_served(wire: Wire) -> None:
    bodies = {(answer.status, answer.body) for answer in judged(wire, wire_cases.H01)}
    assert bodies == {(421, b"" if wire.server == CADDY else b"Misdirected Request\n")}


def test_h01_a_thousand_names_at_random_are_nobodys(wire: Wire) -> None:
    letters, chosen = string.ascii_letters + string.digits + "-", random.Random(5)
    names = [
        ".".join("".join(chosen.choices(letters, k=chosen.randint(1, 12))) for _ in range(chosen.randint(1, 4)))
        for _ in range(1000)
    ]
    with wire.connected() as connection:
        for name in names:
            connection.sendall(b"HEAD %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (wire.link.encode(), name.encode()))
            received = b""
            while b"\r\n\r\n" not in received and (part := connection.recv(65536)):
                received += part
            assert received.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 ")), name


def test_h02_what_is_no_host_is_refused(wire: Wire) -> None:
    judged(wire, wire_cases.H02)


def test_h03_two_hosts_in_one_request_are_refused(wire: Wire) -> None:
    # Without "Connection: close": it is the server that must end it.
    messages = [wire.fill(case.wire.replace(b"Connection: close\r\n", b"")) for case in wire_cases.H03]
    for case, (got, ended) in zip(wire_cases.H03, talk_at_once(wire, messages), strict=True):
        allowed = case.edge if wire.server == CADDY else case.app
        assert [answer.status for answer in got][:1] <= sorted(allowed), (case.name, got)
        assert len(got) <= 1
        if got and got[0].status != 200:
            assert_says_nothing(got)
        # granian hands both lines on, joined by a comma: the gate refuses it, and may not end a connection (PEP 3333).
        assert ended or wire.server == GRANIAN or got[0].status != 400, case.name


def test_h04_the_tenant_of_an_absolute_target_is_the_host_fields_alone(wire: Wire) -> None:
    for answer in judged(wire, wire_cases.H04_SAME):
        assert_of_acme_alone(wire, answer)
    for answer in judged(wire, wire_cases.H04_OTHER):
        if answer.status == 200:  # granian keeps nothing of the target's authority
            assert wire.server != GUNICORN
            assert_of_acme_alone(wire, answer)
        elif answer.status == 302:  # Caddy makes it the Host of the request: the second host of the same tenant
            assert answer.fields["location"] == f"https://{wire.hosts[0]}:{wire.port}{wire.link}"


def test_h05_only_the_ports_that_are_served_may_be_named(wire: Wire) -> None:
    judged(wire, wire_cases.H05)


def test_h06_letter_case_is_nothing_and_a_trailing_dot_is_another_host(wire: Wire) -> None:
    for answer in judged(wire, wire_cases.H06_SAME):
        assert_of_acme_alone(wire, answer)
    judged(wire, wire_cases.H06_DOT)


def test_h07_hosts_are_ascii_and_compared_as_such(wire: Wire) -> None:
    judged(wire, wire_cases.H07)


# --- Where a request ends ---------------------------------------------------------------------------------------------


def test_h12_one_message_is_one_request_and_what_follows_is_clean(wire: Wire) -> None:
    messages = [wire.fill(case.wire) for case in wire_cases.H12]
    for case, (got, ended) in zip(wire_cases.H12, talk_at_once(wire, messages), strict=True):
        statuses = [answer.status for answer in got]
        assert got, case.name
        if wire.server == GUNICORN:
            assert statuses[-1] in case.app, (case.name, statuses)
        # 403: the form was read to where the server sees its end, and is refused for want of its token. 502: Caddy
        # could not read it to its end.
        assert statuses[0] in {400, 403, 413, 501, 502}, (case.name, statuses)
        # The bytes after it are at most rubbish to be refused; the request that is hidden in them has no answer.
        assert statuses[1:] in ([], [400]), (case.name, statuses)
        assert ended or statuses == [413], (case.name, statuses)
        assert_says_nothing([answer for answer in got if answer.status != 403])
    assert wire.ask(wire.fill(wire_cases.get("after", b"Host: %HOST%", ()).wire))[0].status == 200


def test_h12_a_line_may_end_in_a_bare_line_feed_and_is_one_request_then(wire: Wire) -> None:
    message = wire.fill(wire_cases.BARE_LINE_FEEDS)
    got, ended = talk(wire, message)
    if wire.server == GUNICORN:
        assert ([answer.status for answer in got], ended) == ([400], True)
        return
    # RFC 9112, section 2.2 lets a recipient take it for the end of a line.
    assert [answer.status for answer in got] == [404]
    clean = wire.fill(wire_cases.get("clean", b"Host: %HOST%", ()).wire)
    with wire.connected() as connection:
        connection.sendall(message)
        read_until_quiet(connection)
        connection.sendall(clean)
        [answer] = answers(read_until_quiet(connection)[0])
    assert_of_acme_alone(wire, answer)


def test_h12_two_whole_requests_are_two_answers(wire: Wire) -> None:
    one = wire.fill(b"GET %LINK% HTTP/1.1\r\nHost: %HOST%\r\n\r\n")
    got = wire.ask(one + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert [answer.status for answer in got] == [200, 200]


@pytest.mark.parametrize(
    "rubbish", [b"\x16\x03\x01\0\xa5\x01\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 99]
)
def test_h12_what_is_no_http_is_no_error_of_ours(wire: Wire, rubbish: bytes) -> None:
    status = [answer.status for answer in wire.ask(rubbish)] if b"HTTP" in rubbish else []
    assert all(one < 500 or one == 505 for one in status)
    assert wire.ask(wire.fill(wire_cases.get("after", b"Host: %HOST%", ()).wire))[0].status == 200


# --- Paths ------------------------------------------------------------------------------------------------------------


def test_h13_odd_paths_are_never_an_error_of_ours(wire: Wire) -> None:
    for path in wire_cases.PATHS:
        got = wire.ask(wire.fill(b"GET " + path + b" HTTP/1.1\r\nHost: %HOST%\r\nConnection: close\r\n\r\n"))
        assert [answer.status for answer in got] in ([400], [404], [414], [431]), path
        assert_says_nothing(got)
        assert b"root:" not in got[0].body
        assert "x-evil" not in got[0].fields


# --- Caddy alone ------------------------------------------------------------------------------------------------------


def test_h11_a_connection_for_one_site_gives_nothing_of_another(caddy: Wire) -> None:
    for name, host in ((caddy.hosts[0], "%OTHER%"), (caddy.hosts[2], "%HOST%"), (caddy.hosts[0], "evil.example")):
        [answer] = caddy.ask(caddy.fill(wire_cases.get("fronted", b"Host: " + host.encode(), ()).wire), name=name)
        assert answer.status == 421
        assert_says_nothing([answer])


@pytest.mark.parametrize("name", ["evil.example", "x.%HOST%", "%HOST%.evil.example", "localhost.evil.example"])
def test_d05_a_name_that_nobody_serves_gets_no_certificate_and_no_connection(caddy: Wire, name: str) -> None:
    with pytest.raises(ssl.SSLError):
        caddy.send(b"", name=name.replace("%HOST%", caddy.hosts[0]))


def test_h11_a_stream_of_http_2_that_names_another_host_is_refused_too(caddy: Wire) -> None:
    own, other = (f"{host}:{caddy.port}" for host in (caddy.hosts[0], caddy.hosts[2]))
    assert h2_status(caddy, own) == b"\x88"  # 200, entry 8 of the static table (RFC 7541, appendix A)
    assert h2_status(caddy, other) == b"\x82\x68\x41"  # the text `421` in Huffman code


def test_h15_plain_http_leads_to_the_same_page_by_tls_for_our_hosts_only(caddy: Wire) -> None:
    for name in caddy.hosts:
        request = b"GET /c/x?y=1 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % name.encode()
        [answer] = caddy.ask(request, plain=True)
        assert (answer.status, answer.fields["location"]) == (308, f"https://{name}/c/x?y=1")
        assert "set-cookie" not in answer.fields
    for name in (b"evil.example", b"127.0.0.1", b"usage.acme.localhost.evil.example"):
        [answer] = caddy.ask(b"GET /c/x HTTP/1.1\r\nHost: " + name + b"\r\nConnection: close\r\n\r\n", plain=True)
        assert answer.status == 421
        assert_says_nothing([answer])
    [page] = caddy.ask(caddy.fill(wire_cases.get("page", b"Host: %HOST%", ()).wire))
    assert page.fields["strict-transport-security"] == "max-age=31536000"


# --- Talking ----------------------------------------------------------------------------------------------------------


def talk(wire: Wire, message: bytes) -> tuple[list[Answer], bool]:
    """Send a message and keep the connection; return the answers, and whether the server ended it."""
    with wire.connected() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(message)
        received, ended = read_until_quiet(connection)
    return answers(received), ended


def talk_at_once(wire: Wire, messages: list[bytes]) -> list[tuple[list[Answer], bool]]:
    """Send each message on a connection of its own; a connection that is kept open takes its time to be told."""
    with ThreadPoolExecutor(len(messages)) as pool:
        return list(pool.map(partial(talk, wire), messages))


def read_until_quiet(connection: socket.socket) -> tuple[bytes, bool]:
    """Return what comes until the end, or until nothing more comes for a while, and whether it was the end."""
    received = b""
    connection.settimeout(SECONDS)
    try:
        while part := connection.recv(65536):
            received += part
            connection.settimeout(QUIET)
    except TimeoutError:
        assert received, "no answer"
        return received, False
    except (ConnectionError, ssl.SSLError):
        pass
    return received, True


def h2_status(wire: Wire, authority: str) -> bytes:
    """Ask for the record over HTTP/2 with this ``:authority``; return the answer's status, as it is coded."""
    fields = {":method": "GET", ":scheme": "https", ":path": wire.link, ":authority": authority}
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    with wire.connected(protocol="h2") as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, block))
        stream = connection.makefile("rb")
        while True:
            head = stream.read(9)
            payload = stream.read(int.from_bytes(head[:3]))
            if head[3] == 1:
                return payload[:1] if payload[0] & 0x80 else payload[1:4]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
