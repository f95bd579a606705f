"""What step-up methods may fetch: by the rules of egress, small, in time, and without help of the environment."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from receiver import Received, Receiver, receiving
from shared_record.delivery.egress import Egress
from shared_record.delivery.fetch import MAX_ANSWER, Fetcher, FetchError
from shared_record.plugin import ServiceDownError

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def answering(body: bytes, status: int = 200, **headers: str) -> Any:
    def answer(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_status_and_body_come_back_whole(receiver: Receiver) -> None:
    fetch = Fetcher(Egress(LOOPBACK))
    receiver.answer = answering(b"x" * MAX_ANSWER, 404)
    assert fetch("GET", receiver.url) == (404, b"x" * MAX_ANSWER)
    fetch("POST", receiver.url + "?a=b", body=b"a=1", headers={"Authorization": "Basic eA==", "Accept": "text/x"})
    sent = receiver.received[-1]
    assert (sent.body, sent.path, sent.headers["accept"]) == (b"a=1", "/hooks?a=b", "text/x")
    assert sent.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_i15_an_answer_that_is_too_long_or_cut_off_is_refused(receiver: Receiver) -> None:
    fetch = Fetcher(Egress(LOOPBACK))
    for answer in (answering(b"x" * (MAX_ANSWER + 1)), answering(b"x", **{"Content-Length": "2"})):
        receiver.answer = answer
        with pytest.raises(FetchError):
            fetch("GET", receiver.url)


def test_i15_a_redirect_is_an_answer_and_a_proxy_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    receiver.answer = answering(b"", 302, Location="http://127.0.0.1:9/")
    assert Fetcher(Egress(LOOPBACK))("GET", receiver.url) == (302, b"")


def test_i15_an_answer_that_drips_ends_at_the_deadline(receiver: Receiver) -> None:
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    receiver.answer = drip
    started = time.monotonic()
    with pytest.raises(FetchError, match="no answer within"):
        Fetcher(Egress(LOOPBACK))("GET", receiver.url, timeout=0.2)
    assert time.monotonic() - started < 2
    stop.set()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://0x7f000001/",
        "https://10.1.2.3/",
        "http://idp.example/",
        "https://idp.example:22/",
        "file:///etc/passwd",
        "https://user@idp.example/",
        "",
    ],
)
def test_i15_what_is_not_public_is_not_reached(url: str, caplog: pytest.LogCaptureFixture) -> None:
    fetch = Fetcher(Egress())
    with pytest.raises(FetchError) as refused:
        fetch("GET", url)
    assert isinstance(refused.value, OSError)
    assert isinstance(refused.value, ServiceDownError)
    assert "egress.blocked" in caplog.text


def test_i15_a_name_that_leads_inside_is_not_reached() -> None:
    asked: list[str] = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["93.184.215.14", "10.0.0.1"]

    with pytest.raises(FetchError):
        Fetcher(Egress(resolve=resolve))("GET", "https://idp.example/")
    assert asked == ["idp.example"]


@pytest.mark.parametrize("headers", [{"A": "b\r\nC: d"}, {"A\r\nB": "c"}, {"A": "é"}])
def test_headers_cannot_add_lines(receiver: Receiver, headers: dict[str, str]) -> None:
    with pytest.raises(FetchError):
        Fetcher(Egress(LOOPBACK))("GET", receiver.url, headers=headers)
    with pytest.raises(FetchError):
        Fetcher(Egress(LOOPBACK))("CONNECT", receiver.url)
    assert receiver.received == []
