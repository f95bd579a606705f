"""The one way out to addresses that tenants name: nothing but public addresses is ever connected to.

A name is resolved once, every address of the answer is judged, and the connection goes to the very address that was
judged, with the name for Host and TLS. No redirect is followed and no proxy of the environment is used.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from shared_record.errors import Detail, InvalidInputError, SharedRecordError
from shared_record.settings import Network

DEADLINE_SECONDS = 10.0
"""For one request in all: resolving, connecting, TLS, sending, and the answer to its end."""
MAX_BODY = 8 * 1024
MAX_ANSWER = 64 * 1024
"""Bytes of an answer: of its body that are read, and with its headers that are accepted at all."""
MAX_URL = 2_000
PORTS = {443, 8443}

DENIED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        # Of IPv6 only 2000::/3 is global unicast: all else, with mapped, translated, local and multicast addresses.
        "::/3",
        "4000::/2",
        "8000::/1",
        # Within it: IETF protocols with Teredo, documentation, 6to4, direct delegation of AS112.
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
"""Addresses that are not of the public internet (IANA special-purpose registries, RFC 6890)."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<path>/[!-~]*|\?[!-~]*)?",
    re.ASCII,
)
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)", re.ASCII)

Resolve = Callable[[str, int], Iterable[str]]
"""Returns the addresses of a name, as text; raises ``OSError``."""

_log = logging.getLogger("shared_record.delivery")


class EgressError(SharedRecordError):
    """A request was not made, or its answer cannot be used; the message says why, in words for a delivery log."""

    code = "EGRESS_FAILED"


class EgressRefusedError(EgressError):
    """A request was not made because its target is not allowed."""

    code = "EGRESS_REFUSED"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was taken apart: exactly what is connected to and sent."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.secure else 80) else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, whether the connection can carry another request, and what was read of the body.

    ``is_whole`` is false where there was, or may be, more of it.
    """

    status: int
    reusable: bool
    body: bytes = field(default=b"", repr=False)
    is_whole: bool = False


def parse_target(url: str) -> Target:
    """Take ``url`` apart by one strict grammar, or raise ``InvalidInputError``.

    ASCII only; no user, fragment, backslash or space; a host is a name, a dotted quad or an IPv6 address in brackets.
    Numbers that some resolvers read as addresses (``127.1``, ``0x7f000001``) are refused.
    """
    match = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    if match is None or "#" in url or "\\" in url:
        raise _invalid("Write an absolute https URL, in ASCII, without user name or fragment.")
    host, secure = match["host"].lower(), match["scheme"] == "https"
    if host.startswith("[") or _NUMERIC.fullmatch(host):
        try:
            host = str(ipaddress.ip_address(host.strip("[]")))
        except ValueError as error:
            raise _invalid("This is not a host name or an address in its usual form.") from error
    elif len(host) > 253:
        raise _invalid("The host name is too long.")
    port = int(match["port"]) if match["port"] else (443 if secure else 80)
    if not 0 < port < 65_536:
        raise _invalid("The port must be from 1 to 65535.")
    path = match["path"] or "/"
    return Target(secure, host, port, path if path.startswith("/") else f"/{path}")


def system_resolver(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@cache
def _trusting_the_system() -> ssl.SSLContext:
    return ssl.create_default_context()


@dataclass(frozen=True)
class Egress:
    """Rules and means of going out.

    ``allow``: networks that may be reached although they are not public, with plain http and on any port, for
    development and for receivers in the operator's own network. ``tls`` and ``resolve`` are replaced by tests only.
    """

    allow: tuple[Network, ...] = ()
    resolve: Resolve = system_resolver
    tls: ssl.SSLContext = field(default_factory=_trusting_the_system)
    deadline: float = DEADLINE_SECONDS
    _resolvers: concurrent.futures.ThreadPoolExecutor = field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(32, "resolve"), repr=False
    )

    def check(self, url: str) -> Target:
        """Judge what can be judged of ``url`` without resolving it; raise ``InvalidInputError`` or return it parsed."""
        target = parse_target(url)
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            address = None
        if address is not None and not self._may_reach(address, target):
            raise _invalid("This address may not be reached from here: it is not public, or not over https.")
        if not self.allow and not target.secure:
            raise _invalid("Write an https URL.")
        if not self.allow and target.port not in PORTS:
            raise _invalid("The port must be 443 or 8443.")
        return target

    def addresses(self, target: Target, deadline: float) -> list[str]:
        """Resolve ``target`` once and return its addresses, all of which may be reached; else ``EgressError``."""
        try:
            future = self._resolvers.submit(self.resolve, target.host, target.port)
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in future.result(_left(deadline))]
        except (OSError, ValueError, UnicodeError, concurrent.futures.TimeoutError) as error:
            raise EgressError("the host name could not be resolved") from error
        if not found:
            raise EgressError("the host name has no address")
        if not all(self._may_reach(address, target) for address in found):
            _log.warning("egress.blocked")
            raise EgressRefusedError("the host name leads to an address that may not be reached")
        return [str(address) for address in found]

    def _may_reach(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, target: Target) -> bool:
        if any(address in network for network in self.allow):
            return True
        return target.secure and target.port in PORTS and not any(address in network for network in DENIED)


class Channel:
    """A connection to one of the judged addresses of a target; it is opened on first use and again when it was closed.

    Use it from one thread at a time, and close it.
    """

    def __init__(self, egress: Egress, target: Target, addresses: list[str]) -> None:
        self._egress, self._target, self._addresses = egress, target, addresses
        self._socket: socket.socket | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one POST and read its answer; ``EgressError`` when none came in time that can be read."""
        return self.send("POST", body, headers)

    def send(self, method: str, body: bytes, headers: Mapping[str, str], most: int = MAX_BODY) -> Answer:
        """Send one request and read up to ``most`` bytes of the answer's body; ``EgressError`` as for ``post``."""
        deadline = time.monotonic() + self._egress.deadline
        reused = self._socket is not None
        try:
            try:
                answer = self._exchange(method, body, headers, most, deadline)
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if not reused:
                    raise
                # The other side had closed it while it was idle.
                answer = self._exchange(method, body, headers, most, deadline)
        except TimeoutError as error:
            self.close()
            raise EgressError(f"no answer within {self._egress.deadline:g} seconds") from error
        except ssl.SSLError as error:
            self.close()
            raise EgressError(f"TLS failed: {error.reason or 'the certificate does not fit'}"[:200]) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise EgressError(f"the connection failed: {_reason(error)}") from error
        if not answer.reusable:
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def _exchange(self, method: str, body: bytes, headers: Mapping[str, str], most: int, deadline: float) -> Answer:
        if self._socket is None:
            self._socket = self._connect(deadline)
        lines = {"Accept": "*/*", **headers, "Content-Length": str(len(body))}
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head = f"{method} {self._target.path} HTTP/1.1\r\nHost: {self._target.authority}\r\n{fields}\r\n"
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(head.encode("ascii") + body)
        reading = _Reading(self._socket, deadline, most + MAX_ANSWER - MAX_BODY)
        answer = http.client.HTTPResponse(reading, method=method)  # type: ignore[arg-type]
        try:
            answer.begin()
            data = answer.read(most)
            reusable = answer.isclosed() and not answer.will_close
            return Answer(answer.status, reusable, data, is_whole=len(data) < most and not answer.length)
        finally:
            answer.close()

    def _connect(self, deadline: float) -> socket.socket:
        failed: OSError = ConnectionError("no address")
        for address in self._addresses:
            try:
                raw = socket.create_connection((address, self._target.port), timeout=_left(deadline))
            except OSError as error:
                failed = error
                continue
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._target.secure:
                return raw
            try:
                raw.settimeout(_left(deadline))
                return self._egress.tls.wrap_socket(raw, server_hostname=self._target.host)
            except BaseException:
                raw.close()
                raise
        raise failed


class _Reading(io.RawIOBase):
    """A socket as ``http.client`` reads it: every read keeps to the deadline, and there is an end to its bytes."""

    def __init__(self, connection: socket.socket, deadline: float, most: int) -> None:
        self._connection, self._deadline, self._left = connection, deadline, most

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise ValueError("the answer is too long")
        self._connection.settimeout(_left(self._deadline))
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__)[:150]
    return "the answer is not HTTP, or too long"


def _invalid(message: str) -> InvalidInputError:
    return InvalidInputError(message, details=(Detail("/url", "URL_NOT_ALLOWED", message),))
