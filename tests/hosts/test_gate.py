"""The gate at WSGI level: constant refusals, dispatch by role, one hop of a trusted proxy and nothing more."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from shared_record.db.engine import Database
from shared_record.hosts.gate import CLIENT_KEY, HOST_KEY, Gate, client_address, host_match
from shared_record.hosts.resolver import HostMatch, Resolver, Role, Source
from shared_record.settings import Settings

ACME, OTHER = UUID(int=1), UUID(int=2)
PROXY, STRANGER = "10.0.0.5", "203.0.113.9"
SETTINGS = Settings(
    platform_hosts=("app.example",),
    public_scheme="https",
    trusted_proxies=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")),
)


def branded(name: str, role: Role = Role.SERVING, config: UUID = ACME, target: str | None = None) -> HostMatch:
    return HostMatch(name, role, Source.DATABASE, config, None, 1, target)


HOSTS = {
    match.host: match
    for match in (
        HostMatch("app.example", Role.PLATFORM, Source.SETTINGS),
        branded("usage.acme.example"),
        branded("xn--fa-hia.example"),
        branded("old.acme.example", Role.ALIAS, target="usage.acme.example"),
        branded("lapsed.acme.example", Role.SUSPENDED),
        branded("adrift.acme.example", Role.ALIAS),
        branded("stolen.acme.example", Role.ALIAS, target="usage.other.example"),
        branded("loop.acme.example", Role.ALIAS, target="loop.acme.example"),
        branded("dead.acme.example", Role.ALIAS, target="lapsed.acme.example"),
        branded("usage.other.example", config=OTHER),
    )
}
FIXED = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class Hosts(Resolver):
    """A resolver over a dictionary."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolve(self, host: str) -> HostMatch | None:
        self.asked.append(host)
        return HOSTS.get(host)


@dataclass
class Answer:
    """One answer, and what the application behind the gate saw, if it was called."""

    status: int
    headers: dict[str, str]
    body: bytes
    called: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, Any]:
        assert len(self.called) == 1
        return self.called[0][1]


def ask(
    host: str | None = "usage.acme.example",
    path: str = "/",
    *,
    method: str = "GET",
    peer: str = STRANGER,
    headers: Mapping[str, str] | None = None,
    settings: Settings = SETTINGS,
    resolver: Resolver | None = None,
    **environ: Any,
) -> Answer:
    """Send one request through a gate, checked by ``wsgiref.validate`` on the way out."""
    called: list[tuple[str, dict[str, Any]]] = []

    def application(name: str):
        def answer(environ, start_response):
            called.append((name, dict(environ)))
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else name.encode()]

        return answer

    built = EnvironBuilder("/", method=method).get_environ()
    for name in ("HTTP_HOST", "RAW_URI", "REQUEST_URI"):
        built.pop(name, None)
    built |= {"PATH_INFO": path, "REMOTE_ADDR": peer} | environ
    if host is not None:
        built["HTTP_HOST"] = host
    built |= {"HTTP_" + name.upper().replace("-", "_"): value for name, value in (headers or {}).items()}
    gate = Gate(resolver or Hosts(), settings, {role: application(role) for role in ("platform", "serving")})
    seen: list[Any] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        seen[:] = [int(status.split()[0]), dict(fields)]
        return lambda _: None

    checked = validator(gate) if host is not None and path.startswith("/") else gate
    chunks = checked(built, start_response)
    body = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    return Answer(seen[0], seen[1], body, called)


def assert_refused(answer: Answer, status: int, body: bytes, **more: str) -> None:
    assert answer.called == []
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers == FIXED | {"Content-Length": str(len(body))} | more


@pytest.mark.parametrize(
    ("host", "application", "canonical"),
    [
        ("app.example", "platform", "app.example"),
        ("usage.acme.example", "serving", "usage.acme.example"),
        ("USAGE.Acme.Example", "serving", "usage.acme.example"),
        ("usage.acme.example:443", "serving", "usage.acme.example"),
        ("usage.acme.example:8000", "serving", "usage.acme.example"),
        ("usage.acme.example:80", "serving", "usage.acme.example"),
        ("xn--fa-hia.example", "serving", "xn--fa-hia.example"),
    ],
)
def test_h05_h06_a_known_host_is_dispatched_by_role(host: str, application: str, canonical: str) -> None:
    answer = ask(host, "/c/x")
    assert (answer.status, answer.body) == (200, application.encode())
    assert [name for name, _ in answer.called] == [application]
    assert host_match(answer.environ) is HOSTS[canonical]
    assert answer.environ["HTTP_HOST"] == answer.environ["SERVER_NAME"] == canonical


def test_the_canonical_host_names_the_port_that_customers_see() -> None:
    plain = Settings(public_scheme="http", port=8000)
    answer = ask("usage.acme.example", settings=plain)
    assert answer.environ["HTTP_HOST"] == "usage.acme.example:8000"
    assert answer.environ["SERVER_NAME"] == "usage.acme.example"


@pytest.mark.parametrize(
    "host",
    [
        "unclaimed.example",
        "acme.example",
        "x.usage.acme.example",
        "lapsed.acme.example",
        "adrift.acme.example",
        "stolen.acme.example",
        "loop.acme.example",
        "dead.acme.example",
        "127.0.0.1",
        "0x7f000001",
        "[::1]",
        "[::1]:443",
        "usage.acme.example:8443",
    ],
)
@pytest.mark.parametrize("path", ["/", "/c/handle", "/favicon.ico", "/healthz"])
def test_h01_what_is_not_served_is_a_constant_421(host: str, path: str) -> None:
    assert_refused(ask(host, path), 421, b"Misdirected Request\n")


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "usage.acme.example.",
        "usage.acme.example,usage.acme.example",
        "usage.acme.example, evil.example",
        "usage.acme.example:abc",
        "usage.acme.example:99999",
        "usage.acme.example:",
        "user@usage.acme.example",
        "usage.acme.example/c/x",
        "usage_acme.example",
        "fa\xc3\x9f.example",
        "fa\xdf.example",
        "a." * 127 + "example",
        "<script>.example",
    ],
)
def test_h02_h03_h07_a_malformed_or_missing_host_is_a_constant_400(host: str | None) -> None:
    resolver = Hosts()
    assert_refused(ask(host, resolver=resolver), 400, b"Bad Request\n")
    assert resolver.asked == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://usage.acme.example/c/x", 200),
        ("HTTP://USAGE.acme.example:443/c/x", 200),
        ("http://usage.other.example/c/x", 400),
        ("https://evil.example", 400),
        ("http://user@usage.acme.example/", 400),
        ("http://usage.acme.example:1/", 400),
        ("http:///c/x", 400),
        ("http://127.0.0.1/", 400),
        ("//evil.example/c/x", 200),
        ("/c/x?next=http://evil.example/", 200),
    ],
)
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_h04_an_absolute_target_must_name_the_same_host(target: str, status: int, name: str) -> None:
    assert ask(path="/c/x", **{name: target}).status == status


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(("host", "status"), [("unclaimed.example", 421), ("a_b", 400)])
def test_a_refusal_is_the_same_for_every_method_and_head_has_no_body(method: str, host: str, status: int) -> None:
    answer, get = ask(host, method=method), ask(host)
    assert (answer.status, answer.headers) == (get.status, get.headers)
    assert answer.status == status
    assert answer.body == (b"" if method == "HEAD" else get.body)


FORWARDING = {
    "Forwarded": "host=usage.other.example;for=192.0.2.1;proto=https",
    "X-Forwarded": "for=192.0.2.1",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Host": "usage.other.example",
    "X-Forwarded-Server": "usage.other.example",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Scheme": "https",
    "X-Forwarded-Ssl": "on",
    "X-Host": "usage.other.example",
    "X-HTTP-Host-Override": "usage.other.example",
    "X-Original-Host": "usage.other.example",
    "X-Original-URL": "/console",
    "X-Original-URI": "/console",
    "X-Rewrite-URL": "/console",
    "X-Real-IP": "192.0.2.1",
    "X-Client-IP": "192.0.2.1",
    "Client-IP": "192.0.2.1",
    "True-Client-IP": "192.0.2.1",
    "CF-Connecting-IP": "192.0.2.1",
    "X-Scheme": "https",
    "X-Script-Name": "/evil",
}


@pytest.mark.parametrize("header", FORWARDING)
@pytest.mark.parametrize("peer", [STRANGER, PROXY])
def test_h09_no_forwarding_field_moves_the_tenant_or_reaches_an_application(header: str, peer: str) -> None:
    answer = ask(peer=peer, headers={header: FORWARDING[header]}, path="/c/x")
    assert host_match(answer.environ).config == ACME
    assert "HTTP_" + header.upper().replace("-", "_") not in answer.environ
    assert (answer.environ["PATH_INFO"], answer.environ["SCRIPT_NAME"]) == ("/c/x", "")
    believed = peer == PROXY
    assert client_address(answer.environ) == ("192.0.2.1" if believed and header == "X-Forwarded-For" else peer)
    scheme = "https" if believed and header == "X-Forwarded-Proto" else "http"
    assert answer.environ["wsgi.url_scheme"] == scheme


def test_h09_all_of_them_together_from_a_stranger_change_nothing() -> None:
    plain, dressed = ask(), ask(headers=FORWARDING)
    changed = {key for key in plain.environ if plain.environ[key] != dressed.environ.get(key)}
    assert changed <= {"wsgi.input", "wsgi.errors"}  # the validator's own wrappers
    assert dressed.environ.keys() == plain.environ.keys()


def test_ordinary_fields_pass() -> None:
    headers = {"Accept": "text/html", "X-Requested-With": "x", "Cookie": "a=b", "Authorization": "Bearer x"}
    environ = ask(headers=headers).environ
    assert {name: environ["HTTP_" + name.upper().replace("-", "_")] for name in headers} == headers


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        (STRANGER, "192.0.2.1", STRANGER),
        (PROXY, None, PROXY),
        (PROXY, "192.0.2.1", "192.0.2.1"),
        (PROXY, "198.51.100.66, 192.0.2.1", "192.0.2.1"),
        (PROXY, "198.51.100.66,10.9.9.9", "10.9.9.9"),
        (PROXY, "2001:DB8::0:1", "2001:db8::1"),
        (PROXY, "::ffff:192.0.2.1", "192.0.2.1"),
        (PROXY, "192.0.2.1, unknown", PROXY),
        (PROXY, "192.0.2.1,", PROXY),
        (PROXY, "192.0.2.1:5555", PROXY),
        (PROXY, "x\"'<>", PROXY),
        ("::ffff:10.0.0.5", "192.0.2.1", "192.0.2.1"),
        ("fd00::1", "192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "192.0.2.1", "fe80::1"),
        ("", "192.0.2.1", ""),
        ("unix:", "192.0.2.1", "unix:"),
    ],
)
def test_h10_the_client_is_the_hop_that_a_trusted_peer_added(peer: str, forwarded: str | None, client: str) -> None:
    environ = ask(peer=peer, headers={"X-Forwarded-For": forwarded} if forwarded else None).environ
    assert environ[CLIENT_KEY] == environ["REMOTE_ADDR"] == client


@pytest.mark.parametrize(
    ("told", "scheme"), [("https", "https"), ("HTTPS", "https"), ("http", "http"), ("javascript", "http"), ("", "http")]
)
def test_h10_the_scheme_is_http_or_https(told: str, scheme: str) -> None:
    environ = ask(peer=PROXY, headers={"X-Forwarded-Proto": told}).environ
    assert environ["wsgi.url_scheme"] == scheme


def test_h05_the_default_port_follows_the_scheme() -> None:
    plain = Settings(public_scheme="http", port=8000, trusted_proxies=SETTINGS.trusted_proxies)
    assert ask("usage.acme.example:443", settings=plain).status == 421
    told = ask("usage.acme.example:443", settings=plain, peer=PROXY, headers={"X-Forwarded-Proto": "https"})
    assert told.status == 200


@pytest.mark.parametrize(
    "path", ["/c/\0", "/c/%00\0", "/c/\xff", "/c/\xc3", "/\xed\xa0\x80", "*", "c/x", "/\u20ac", "@evil.example"]
)
@pytest.mark.parametrize("host", ["usage.acme.example", "old.acme.example", "unclaimed.example"])
def test_h13_an_unreadable_path_is_a_constant_404(path: str, host: str) -> None:
    assert_refused(ask(host, path), 404, b"Not Found\n")


@pytest.mark.parametrize("path", ["/c/..%2f", "//c//x", "/c/x;y", "/c/\xc3\xa9", "/../../etc/passwd", ""])
def test_h13_odd_but_readable_paths_reach_the_application_unchanged(path: str) -> None:
    assert ask(path=path, SCRIPT_NAME="" if path else "/x").environ["PATH_INFO"] == path


@pytest.mark.parametrize(
    ("path", "extra", "location"),
    [
        ("/c/abc", {}, "/c/abc"),
        ("/c/abc", {"QUERY_STRING": "a=1&b=%20%C3%A9"}, "/c/abc?a=1&b=%20%C3%A9"),
        ("/c/a b", {"RAW_URI": "/c/a%20b"}, "/c/a%20b"),
        ("/c/a/b", {"RAW_URI": "/c/a%2Fb?x=1", "QUERY_STRING": "x=1"}, "/c/a%2Fb?x=1"),
        ("/c/a/b", {"REQUEST_URI": "/c/a%2fb"}, "/c/a%2fb"),
        ("/c/abc", {"RAW_URI": "/elsewhere"}, "/c/abc"),
        ("/c/abc", {"RAW_URI": "/c/abc\r\nX: y"}, "/c/abc"),
        ("/c/abc", {"RAW_URI": "http://old.acme.example/c/abc"}, "/c/abc"),
        ("/\xc3\xa9", {}, "/%C3%A9"),
        ("/100%", {}, "/100%25"),
        ("/a?b#c", {}, "/a%3Fb%23c"),
        ("/a\r\nSet-Cookie: x=y", {}, "/a%0D%0ASet-Cookie:%20x=y"),
        ("/a", {"QUERY_STRING": "x\r\nSet-Cookie: y=z#f"}, "/a?x%0D%0ASet-Cookie:%20y=z%23f"),
        ("//evil.example/x", {}, "/evil.example/x"),
        ("///evil.example", {"RAW_URI": "///evil.example"}, "/evil.example"),
        ("/\\evil.example", {}, "/%5Cevil.example"),
        ("/@evil.example", {}, "/@evil.example"),
        ("", {"SCRIPT_NAME": "/x"}, "/x"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_alias_leads_to_the_same_path_on_the_primary_host(
    path: str, extra: dict[str, str], location: str, method: str
) -> None:
    answer = ask("old.acme.example", path, method=method, headers={"X-Forwarded-Host": "evil.example"}, **extra)
    body = b"" if method == "HEAD" else b"Found\n"
    assert (answer.status, answer.body, answer.called) == (302, body, [])
    assert answer.headers == FIXED | {
        "Content-Length": "6",
        "Location": "https://usage.acme.example" + location,
    }


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_no_path_or_query_leads_elsewhere_or_breaks_the_field(path: bytes, query: bytes) -> None:
    answer = ask("old.acme.example", "/" + path.decode("latin-1"), QUERY_STRING=query.decode("latin-1"))
    assert answer.status in (302, 404)
    if answer.status == 302:
        location = answer.headers["Location"]
        assert location.startswith("https://usage.acme.example/")
        assert location.isascii()
        assert location.isprintable()
        assert " " not in location


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_an_alias_takes_no_other_method(method: str) -> None:
    answer = ask("old.acme.example", "/c/x/unlock", method=method)
    assert_refused(answer, 405, b"Method Not Allowed\n", Allow="GET, HEAD")


def test_a_database_that_is_gone_is_a_constant_503_but_the_platform_host_stands(tmp_path, caplog) -> None:
    resolver = Resolver(Database(f"sqlite:///{tmp_path}/no/such/folder.sqlite3"), SETTINGS.platform_hosts)
    answer = ask(path="/c/secret-handle", resolver=resolver)
    assert_refused(answer, 503, b"Service Unavailable\n", **{"Retry-After": "5"})
    assert "host.unavailable" in caplog.text
    assert "secret-handle" not in caplog.text
    assert ask("app.example", resolver=resolver).status == 200


@pytest.mark.parametrize(
    ("host", "event"),
    [
        ("unclaimed.example", "host.unknown"),
        ("lapsed.acme.example", "host.unknown"),
        ("127.0.0.1", "host.unknown"),
        ("bad_host\r\nforged line", "host.malformed"),
        ("", "host.malformed"),
    ],
)
def test_h01_a_refusal_is_one_line_without_host_or_path(
    host: str, event: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "shared_record.hosts"):
        ask(host, "/c/secret-handle")
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(event + " host=")
    assert len(line.splitlines()) == 1
    assert "secret-handle" not in line
    assert not host or host not in line


def test_an_application_without_a_gate_is_told_so() -> None:
    for helper in (host_match, client_address):
        with pytest.raises(LookupError):
            helper({HOST_KEY: "usage.acme.example"})


def test_a_gate_needs_both_applications() -> None:
    with pytest.raises(KeyError):
        Gate(Hosts(), SETTINGS, {"platform": lambda environ, start_response: []})


def test_both_engines_answer_an_unclaimed_host_with_421(db: Database) -> None:
    assert_refused(ask("unclaimed.example", resolver=Resolver(db, ["app.example"])), 421, b"Misdirected Request\n")
