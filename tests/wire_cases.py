"""Requests as bytes, and what each server must make of them: data for ``tests/system/test_raw_sockets.py``.

``%HOST%`` and ``%SECOND%`` are two hosts of one tenant with the port that customers see, ``%NAME%`` the first without
it, ``%OTHER%`` another tenant's, ``%PORT%`` that port, ``%LINK%`` the path of a customer's record on the first host.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

GRANIAN, GUNICORN, CADDY = "granian", "gunicorn", "caddy"
SERVERS = (GRANIAN, GUNICORN, CADDY)

REFUSED = frozenset({400})
ELSEWHERE = frozenset({421})
"""Well formed, and nobody's host. Caddy opens no connection for such a name; on one of another name it refuses."""
NOT_OURS = REFUSED | ELSEWHERE
OPENED = frozenset({200})
CLOSED = 0
"""No answer at all: the server closes."""


@dataclass(frozen=True)
class Case:
    """One message. ``app`` are the statuses that a server alone may answer with, ``edge`` those of Caddy with it."""

    name: str
    wire: bytes
    app: Collection[int]
    edge: Collection[int]


def get(name: str, lines: bytes, app: Collection[int], edge: Collection[int] | None = None, **more: bytes) -> Case:
    """Return a GET of the record with these header lines and nothing else that names a host."""
    target, version = more.get("target", b"%LINK%"), more.get("version", b"1.1")
    wire = b"GET %s HTTP/%s\r\n%sConnection: close\r\n\r\n" % (target, version, lines and lines + b"\r\n")
    return Case(name, wire, app, app if edge is None else edge)


H01 = (
    get("unclaimed", b"Host: evil.example", ELSEWHERE),
    get("unclaimed, with the port", b"Host: evil.example:%PORT%", ELSEWHERE),
    get("parent of a branded host", b"Host: acme.localhost:%PORT%", ELSEWHERE),
    get("below a branded host", b"Host: a.%HOST%", ELSEWHERE),
    get("ends in a branded host", b"Host: evil%HOST%", ELSEWHERE),
    get("begins with a branded host", b"Host: %NAME%.evil.example", ELSEWHERE),
    get("IPv4", b"Host: 127.0.0.1:%PORT%", ELSEWHERE),
    get("IPv4, short", b"Host: 127.1", ELSEWHERE),
    get("IPv4, hexadecimal", b"Host: 0x7f000001", ELSEWHERE),
    get("IPv4, decimal", b"Host: 2130706433", ELSEWHERE),
    get("IPv6", b"Host: [::1]:%PORT%", ELSEWHERE),
    get("link-local", b"Host: 169.254.169.254", ELSEWHERE),
)

H02 = (
    get("none", b"", REFUSED),
    get("none, HTTP/1.0", b"", REFUSED, NOT_OURS, version=b"1.0"),
    get("empty", b"Host:", REFUSED, NOT_OURS),
    get("blank", b"Host:   ", REFUSED, NOT_OURS),
    get("userinfo", b"Host: user@%HOST%", REFUSED, NOT_OURS),
    get("comma", b"Host: %HOST%,evil.example", REFUSED, NOT_OURS),
    get("slash", b"Host: %HOST%/c", REFUSED, NOT_OURS),
    get("query", b"Host: %HOST%?x", REFUSED, NOT_OURS),
    get("fragment", b"Host: %HOST%#x", REFUSED, NOT_OURS),
    get("backslash", b"Host: %NAME%\\evil", REFUSED, NOT_OURS),
    get("percent", b"Host: %25%NAME%", REFUSED, NOT_OURS),
    get("underscore", b"Host: _dmarc.%NAME%", REFUSED, NOT_OURS),
    get("quotes", b'Host: "%NAME%"', REFUSED, NOT_OURS),
    get("NUL", b"Host: %NAME%\0", REFUSED, NOT_OURS),
    get("tab inside", b"Host: usage\t.acme.localhost", REFUSED, NOT_OURS),
    get("DEL", b"Host: %NAME%\x7f", REFUSED, NOT_OURS),
    get("bracket left open", b"Host: [::1", REFUSED, NOT_OURS),
    get("empty label", b"Host: usage..acme.localhost", REFUSED, NOT_OURS),
    get("leading dot", b"Host: .%HOST%", REFUSED, NOT_OURS),
    get("leading hyphen", b"Host: -a.example", REFUSED, NOT_OURS),
    get("wildcard", b"Host: *.localhost", REFUSED, NOT_OURS),
    get("template", b"Host: {{7*7}}", REFUSED, NOT_OURS),
    get("long label", b"Host: " + b"a" * 64 + b".example", REFUSED, NOT_OURS),
    get("long name", b"Host: " + b"a." * 200 + b"localhost", REFUSED, NOT_OURS),
    get("very long name", b"Host: " + b"a" * 60_000, {400, 431}, {400, 421, 431}),
)

H03 = (
    get("twice, the same", b"Host: %HOST%\r\nHost: %HOST%", REFUSED),
    get("twice, unclaimed first", b"Host: evil.example\r\nHost: %HOST%", REFUSED),
    get("twice, unclaimed last", b"Host: %HOST%\r\nHost: evil.example", REFUSED),
    get("twice, another tenant last", b"Host: %HOST%\r\nhOST: %OTHER%", REFUSED),
    get("blank before the colon", b"Host : %HOST%", REFUSED),
    get("folded", b"Host:\r\n %HOST%", REFUSED, NOT_OURS | OPENED),  # Go unfolds it, and there is one host
    get("folded, another tenant first", b"Host: %OTHER%\r\n\t%HOST%", REFUSED, NOT_OURS),
    get("first line begins with a blank", b" Host: %HOST%", REFUSED),
)

# RFC 9112 section 3.2.2 lets the target win over Host. granian hands over no authority of the target, so there the
# tenant is the Host header's alone; gunicorn and Caddy show a difference, which is refused.
H04_SAME = (
    get("the same host", b"Host: %HOST%", OPENED, target=b"%SCHEME%://%HOST%%LINK%"),
    get("the same host, other case", b"Host: %HOST%", OPENED, target=b"%SCHEME%://USAGE.acme.localhost:%PORT%%LINK%"),
)
H04_OTHER = (
    get("another tenant", b"Host: %HOST%", {200, 400}, NOT_OURS, target=b"%SCHEME%://%OTHER%%LINK%"),
    get("second host", b"Host: %HOST%", {200, 400}, {302, 400, 421}, target=b"%SCHEME%://%SECOND%%LINK%"),
    get("unclaimed", b"Host: %HOST%", {200, 400}, NOT_OURS, target=b"%SCHEME%://evil.example%LINK%"),
    get("userinfo", b"Host: %HOST%", {200, 400}, {200, 400, 421}, target=b"%SCHEME%://user@%OTHER%%LINK%"),
    get("no scheme", b"Host: %HOST%", {200, 400, 404}, target=b"//%OTHER%%LINK%"),
    get("authority form", b"Host: %HOST%", {400, 404}, {400, 404, 421}, target=b"%OTHER%"),
)

H05 = (
    get("of the listener", b"Host: %HOST%", OPENED),
    get("none", b"Host: %NAME%", OPENED),
    get("another", b"Host: %NAME%:8443", ELSEWHERE),
    get("highest", b"Host: %NAME%:65535", ELSEWHERE),
    get("zero", b"Host: %NAME%:0", REFUSED, NOT_OURS),
    get("too high", b"Host: %NAME%:99999", REFUSED, NOT_OURS),
    get("no number", b"Host: %NAME%:abc", REFUSED, NOT_OURS),
    get("signed", b"Host: %NAME%:+80", REFUSED, NOT_OURS),
    get("leading zero", b"Host: %NAME%:0%PORT%", REFUSED, NOT_OURS),
    get("empty", b"Host: %NAME%:", REFUSED, NOT_OURS),
    get("twice", b"Host: %HOST%:%PORT%", REFUSED, NOT_OURS),
)

H06_SAME = (
    get("capitals", b"Host: USAGE.Acme.LocalHost:%PORT%", OPENED),
    get("name of the field", b"hOsT:%HOST%", OPENED),
    get("blanks around", b"HOST: \t%HOST%  ", OPENED),
)
H06_DOT = (
    get("trailing dot", b"Host: %NAME%.:%PORT%", REFUSED, NOT_OURS),
    get("trailing dot, no port", b"Host: %NAME%.", REFUSED, NOT_OURS),
    get("two dots", b"Host: %NAME%..", REFUSED, NOT_OURS),
)

H07 = (
    get("UTF-8", "Host: faß.example".encode(), REFUSED, NOT_OURS),
    get("Latin-1", "Host: faß.example".encode("latin-1"), REFUSED, NOT_OURS),
    get("no text", b"Host: \xff\xfe", REFUSED, NOT_OURS),
    get("full-width letters", "Host: ｕｓａｇｅ.acme.localhost".encode(), REFUSED, NOT_OURS),
    get("Kelvin sign", "Host: \u212aelvin.example".encode(), REFUSED, NOT_OURS),
    get("ideographic dot", "Host: usage\u3002acme.localhost".encode(), REFUSED, NOT_OURS),
    get("A-label of 2008", b"Host: xn--fa-hia.example", ELSEWHERE),
    get("what 2003 makes of it", b"Host: fass.example", ELSEWHERE),
)


def post(name: str, lines: bytes, body: bytes, app: Collection[int], edge: Collection[int] | None = None) -> Case:
    """Return a POST whose end is not clear: these header lines and this body, on a connection that is kept."""
    wire = b"POST %LINK%/unlock HTTP/1.1\r\nHost: %HOST%\r\n" + lines + b"\r\n\r\n" + body
    return Case(name, wire, app, app if edge is None else edge)


SMUGGLED = b"GET %LINK%/smuggled HTTP/1.1\r\nHost: %HOST%\r\n\r\n"
_LONG = b"%d" % (5 + len(SMUGGLED))
_UNSURE = frozenset({400, 501})
_CHUNKED = b"Transfer-Encoding: chunked"

# ``app`` is what gunicorn must answer: refused. What granian may answer is in the test: at most once, and nothing more
# of the same bytes.
H12 = (
    post("length and chunked", b"Content-Length: 4\r\n" + _CHUNKED, b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post("chunked and length", _CHUNKED + b"\r\nContent-Length: " + _LONG, b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post("xchunked", b"Transfer-Encoding: xchunked\r\nContent-Length: 5", b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post("chunked twice", _CHUNKED + b"\r\nTransfer-Encoding: identity", b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post("chunked, then identity", b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post(
        "blank before the colon", b"Transfer-Encoding : chunked\r\nContent-Length: 5", b"0\r\n\r\n" + SMUGGLED, _UNSURE
    ),
    post("folded coding", b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5", b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post("vertical tab", b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5", b"0\r\n\r\n" + SMUGGLED, _UNSURE),
    post("two lengths", b"Content-Length: 4\r\nContent-Length: 6", b"abcdef" + SMUGGLED, _UNSURE),
    post("two lengths in one", b"Content-Length: 4, 6", b"abcdef" + SMUGGLED, _UNSURE),
    post("signed length", b"Content-Length: +4", b"abcd" + SMUGGLED, _UNSURE),
    post("negative length", b"Content-Length: -1", SMUGGLED, _UNSURE),
    post("hexadecimal length", b"Content-Length: 0x4", b"abcd" + SMUGGLED, _UNSURE),
    post("huge length", b"Content-Length: 99999999999999999999", SMUGGLED, _UNSURE | {413}),
    post("broken chunk", _CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n" + SMUGGLED, _UNSURE | {403}),
    post("chunk of negative size", _CHUNKED, b"-1\r\nabc\r\n0\r\n\r\n" + SMUGGLED, _UNSURE | {403}),
    post("chunk without its end", _CHUNKED, b"3\r\nabcdef\r\n0\r\n\r\n" + SMUGGLED, _UNSURE | {403}),
)

BARE_LINE_FEEDS = b"GET %LINK%/smuggled HTTP/1.1\nHost: %HOST%\n\n"

PATHS = (
    *(b"/%00", b"/c/%00", b"%LINK%%00", b"/static/%00/x", b"/c/%ff%fe", b"/c/\xff\xfe", b"/c/%2f..%2f", b"/%C0%AE"),
    *(b"/c/%2e%2e/%2e%2e/etc/passwd", b"%LINK%/..", b"%LINK%/../../etc/passwd", b"%LINK%/%2e%2e%2fkeys.json"),
    *(b"/static/../keys.json", b"/static/%2e%2e/keys.json", b"/static//etc/passwd", b"//evil.example/x", b"/%5cevil"),
    *(b"/;x", b"%LINK%;x", b"%LINK%/;/activity", b"/a" * 4000, b"/%F0%9F%92%A9", b"no-slash", b"/%", b"/%zz"),
    *(b"%LINK%//activity", b"/..%2f..%2f..%2fetc%2fpasswd", b"/c/..;/x", b"/%0d%0aX-Evil:%20yes", b"/c/%E2%80%AE"),
)
