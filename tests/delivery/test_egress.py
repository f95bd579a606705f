"""What may be reached, in every spelling; and that nothing else is connected to."""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from receiver import Receiver, receiving
from shared_record.delivery import egress as module
from shared_record.delivery.egress import Channel, Egress, EgressError, EgressRefusedError, parse_target
from shared_record.errors import InvalidInputError

NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1"),
    *("100.127.255.255", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1"),
    *("192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2001:10::1", "2001:20::1"),
    *("2002:7f00:1::", "2002:a00:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1"),
    *("ff02::1", "ff0e::1", "4000::1", "8000::1"),
]
PUBLIC = ["93.184.215.14", "1.1.1.1", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "2a00:1450::1"]
SPELLINGS = [
    *("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.0.0.01"),
    *("0", "00000000.0", "0x0", "1", "169.16689662", "2852039166", "0xa9fea9fe", "a9fea9fe.0x1", "127.0.0.1.0"),
    *("localhost:0", "[::1", "::1", "[::1%25lo]", "[fe80::1%eth0]", "[v1.x]", "①②⑦.0.0.1", "１２７.0.0.1"),
    *(
        "127。0。0。1",
        "lоcalhost",
        "user@127.0.0.1",
        "a:b@127.0.0.1",
        "127.0.0.1#@example.com",
        "example.com\\@127.0.0.1",
    ),
    *(
        "127.0.0.1 .example.com",
        "127.0.0.1\t",
        "\x00127.0.0.1",
        "exa\r\nmple.com",
        "%31%32%37.0.0.1",
        "127.0.0.1,example.com",
    ),
    *(
        "-a.example",
        "a..example",
        ".example",
        "",
        "example.com:",
        "example.com:99999",
        "example.com:-1",
        "example.com:44 3",
    ),
]


class Canary:
    """Remembers every connection that anything tried to make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached: list[str] = []
        original = socket.socket.connect

        def connect(this: socket.socket, address: object) -> None:
            if this.family in (socket.AF_INET, socket.AF_INET6):
                self.reached.append(address[0])  # type: ignore[index]
            original(this, address)  # type: ignore[arg-type]

        monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Canary:
    return Canary(monkeypatch)


def send(egress: Egress, url: str) -> int:
    """Send one POST as the worker does."""
    target = parse_target(url)
    channel = Channel(egress, target, egress.addresses(target, time.monotonic() + egress.deadline))
    try:
        return channel.post(b"{}", {"Content-Type": "application/json"}).status
    finally:
        channel.close()


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_w01_w03_no_address_that_is_not_public_may_be_reached(text: str, canary: Canary) -> None:
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(InvalidInputError):
        Egress().check(f"https://{host}/")
    rebound = Egress(resolve=lambda *_: [text])
    with pytest.raises(EgressRefusedError):
        send(rebound, "https://hooks.example/")
    with pytest.raises(EgressRefusedError):
        send(rebound, f"https://{host}/")
    assert canary.reached == []


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_not_refused(text: str) -> None:
    host = f"[{text}]" if ":" in text else text
    assert Egress().check(f"https://{host}:8443/").host == text
    found = Egress(resolve=lambda *_: [text])
    assert found.addresses(parse_target("https://hooks.example/"), time.monotonic() + 5) == [text]


@pytest.mark.parametrize("host", SPELLINGS)
def test_w03_odd_spellings_of_hosts_are_refused_before_anything_is_resolved(host: str, canary: Canary) -> None:
    def resolve(*_: object) -> list[str]:
        raise AssertionError("resolved")

    egress = Egress(resolve=resolve)
    for url in (f"https://{host}/hooks", f"https://{host}"):
        with pytest.raises(InvalidInputError) as refused:
            egress.check(url)
        assert refused.value.details[0].pointer == "/url"
    assert canary.reached == []


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.com/",
            "ftp://example.com/",
            "https:example.com",
            "//example.com/",
            "https:///x",
            "file:///etc",
        ),
        *(
            "HTTPS://example.com/x y",
            "https://example.com/\r\nX: 1",
            "https://example.com/#part",
            "gopher://example.com",
        ),
        *("https://example.com:22/", "https://example.com:80/", "https://example.com:6379/", "javascript:alert(1)"),
        "https://example.com/" + "a" * 2_000,
    ],
)
def test_w01_only_https_on_its_ports_is_accepted(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Egress().check(url)


def test_w02_300_answers_of_which_one_address_is_not_public_are_refused_whole(canary: Canary) -> None:
    refused = 0
    mixes = itertools.product(NOT_PUBLIC, PUBLIC, range(2))
    for bad, good, order in itertools.islice(mixes, 0, None, 2):
        answer = [bad, good] if order else [good, bad]
        with pytest.raises(EgressRefusedError):
            send(Egress(resolve=lambda *_, answer=answer: answer), "https://hooks.example/")
        refused += 1
    assert refused >= 300
    assert canary.reached == []


def test_w02_a_name_is_resolved_once_and_the_connection_goes_to_that_address(receiver: Receiver) -> None:
    """A resolver that answers with another address each time, as one with a TTL of nought does."""
    asked: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    egress = Egress((ipaddress.ip_network("127.0.0.0/8"),), resolve)
    target = parse_target(f"http://rebinding.example:{receiver.port}/hooks")
    channel = Channel(egress, target, egress.addresses(target, time.monotonic() + 5))
    for _ in range(3):
        assert channel.post(b"{}", {}).status == 200
        channel.close()  # each is a new connection
    assert asked == ["rebinding.example"]
    assert {one.headers["host"] for one in receiver.received} == {f"rebinding.example:{receiver.port}"}


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), TimeoutError(), UnicodeError("label")], ids=repr)
def test_w02_where_resolving_fails_nothing_is_sent(error: Exception, canary: Canary) -> None:
    def resolve(*_: object) -> list[str]:
        raise error

    with pytest.raises(EgressError):
        send(Egress(resolve=resolve), "https://hooks.example/")
    with pytest.raises(EgressError):
        send(Egress(resolve=lambda *_: []), "https://hooks.example/")
    assert canary.reached == []


def test_w02_a_resolver_that_does_not_answer_is_given_up() -> None:
    release = threading.Event()
    egress = Egress(resolve=lambda *_: [str(release.wait(20))], deadline=0.2)
    begun = time.monotonic()
    with pytest.raises(EgressError, match="could not be resolved"):
        send(egress, "https://hooks.example/")
    assert time.monotonic() - begun < 3
    release.set()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_w04_a_redirect_is_an_answer_and_is_not_followed(status: int, egress: Egress) -> None:
    def redirect(handler, _received) -> None:
        handler.send_response(status)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with receiving(redirect) as receiver:
        assert send(egress, receiver.url) == status
        assert [one.path for one in receiver.received] == ["/hooks"]


def test_w04_proxies_and_netrc_of_the_environment_are_not_used(
    receiver: Receiver, egress: Egress, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password secret\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert send(egress, receiver.url) == 200
        assert proxy.received == []
    assert "authorization" not in receiver.received[0].headers


def test_w04_an_answer_is_read_up_to_8_KiB_and_not_decoded(egress: Egress) -> None:
    def huge(handler, _received) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 40))
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        while True:
            handler.wfile.write(b"\x1f\x8b" * 4096)

    with receiving(huge) as receiver:
        begun = time.monotonic()
        assert send(egress, receiver.url) == 200
        assert time.monotonic() - begun < 5


def test_w04_endless_headers_are_refused(egress: Egress) -> None:
    def endless(handler, _received) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X-Pad: " + b"a" * 4000 + b"\r\n")

    with receiving(endless) as receiver, pytest.raises(EgressError, match="not HTTP, or too long"):
        send(egress, receiver.url)


@pytest.mark.parametrize(
    "drip", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"], ids=["none", "head", "body"]
)
def test_w04_an_answer_that_comes_byte_by_byte_does_not_last_longer_than_the_deadline(drip: bytes) -> None:
    done = threading.Event()

    def slow(handler, _received) -> None:
        handler.wfile.write(drip)
        handler.wfile.flush()
        while not done.wait(0.05):
            handler.wfile.write(b"x" if drip else b"")
            handler.wfile.flush()

    egress = Egress((ipaddress.ip_network("127.0.0.0/8"),), deadline=0.4)
    with receiving(slow) as receiver:
        begun = time.monotonic()
        with pytest.raises(EgressError, match="no answer within"):
            send(egress, receiver.url)
        assert 0.3 < time.monotonic() - begun < 3
        done.set()


def test_an_address_that_is_allowed_may_be_reached_by_plain_http_and_no_other_may(receiver: Receiver) -> None:
    egress = Egress((ipaddress.ip_network("127.0.0.0/8"),))
    assert egress.check(receiver.url).port == receiver.port
    assert send(egress, receiver.url) == 200
    with pytest.raises(InvalidInputError):
        egress.check("http://10.0.0.1/")
    public = Egress((ipaddress.ip_network("127.0.0.0/8"),), resolve=lambda *_: ["93.184.215.14"])
    with pytest.raises(EgressRefusedError):
        send(public, "http://hooks.example/")  # plain http only within the allowed networks


def test_a_connection_carries_several_requests_and_is_opened_again_when_it_was_closed(egress: Egress) -> None:
    def answer(handler, _received) -> None:
        handler.send_response(204)
        handler.end_headers()
        if len(receiver.received) == 3:
            handler.close_connection = True  # without a word, as servers end idle connections

    with receiving(answer) as receiver:
        target = parse_target(receiver.url)
        channel = Channel(egress, target, egress.addresses(target, time.monotonic() + 5))
        assert [channel.post(b"{}", {}).status for _ in range(5)] == [204] * 5
        channel.close()
        assert len(receiver.received) == 5
        assert receiver.connections == 2


# --- TLS -------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """Write a self-signed certificate for ``name`` with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, form, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(encoding))
    return path


def test_w01_tls_names_the_host_and_its_certificate_must_fit(tmp_path: Path) -> None:
    path = certificate(tmp_path, "hooks.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    named: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: named.append(name)  # type: ignore[assignment]
    trusting = ssl.create_default_context(cafile=path)
    loopback = (ipaddress.ip_network("127.0.0.0/8"),)
    with receiving(tls=server) as receiver:
        good = Egress(loopback, lambda *_: ["127.0.0.1"], trusting)
        assert send(good, f"https://hooks.example:{receiver.port}/") == 200
        assert named == ["hooks.example"]
        with pytest.raises(EgressError, match="TLS failed"):
            send(good, f"https://other.example:{receiver.port}/")
        with pytest.raises(EgressError, match="TLS failed"):
            send(Egress(loopback, lambda *_: ["127.0.0.1"]), f"https://hooks.example:{receiver.port}/")
        assert len(receiver.received) == 1


def test_w03_the_deny_table_leaves_of_ipv6_only_global_unicast() -> None:
    denied = [network for network in module.DENIED if network.version == 6]
    outside = [text for text in NOT_PUBLIC if ":" in text]
    assert all(any(ipaddress.ip_address(text) in network for network in denied) for text in outside)
