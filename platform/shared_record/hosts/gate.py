"""The gate: WSGI middleware that settles whose host a request is for before any session, theme, plugin or hook runs.

It stands before Flask because Flask opens the session before ``before_request``. What it cannot place gets a constant
answer that reflects nothing of the request.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes

from shared_record.errors import UnavailableError
from shared_record.hosts.names import HostError, normalise_host
from shared_record.hosts.resolver import HostMatch, Resolver, Role
from shared_record.settings import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("shared_record.hosts")

HOST_KEY: Final = "shared_record.host"
CLIENT_KEY: Final = "shared_record.client"

_FORWARDING = re.compile(
    "HTTP_(?:(?:X_)?(?:FORWARDED|ORIGINAL|REAL|REWRITE)(?:_.*)?|CF_CONNECTING_IP.*|FRONT_END_HTTPS"
    "|(?:X_)?(?:CLUSTER_|FASTLY_|TRUE_)?CLIENT_IP|X_ORIGINATING_IP|X_REMOTE_(?:ADDR|IP)"
    "|X_(?:BACKEND_)?HOST|X_HTTP_HOST_OVERRIDE|X_SERVER_NAME|X_SCRIPT_NAME|X_PROTO|X_(?:URL_)?SCHEME)"
)
"""Fields by which proxies tell of the request they received. Nothing behind the gate may see one."""

_TARGETS = ("RAW_URI", "REQUEST_URI")
_ABSOLUTE_FORM = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)
_PATH_MARKS = "/:@!$&'()*+,;=~"
_ENCODED_PATH = re.compile(rf"/(?:[A-Za-z0-9._{re.escape(_PATH_MARKS)}-]|%[0-9A-Fa-f]{{2}})*")


def host_match(environ: Mapping[str, object]) -> HostMatch:
    """Return what the gate found for this request; ``LookupError`` when no gate stood before the application."""
    found = environ.get(HOST_KEY)
    if not isinstance(found, HostMatch):
        raise LookupError("the request did not come through the gate")
    return found


def client_address(environ: Mapping[str, object]) -> str:
    """Return the client's address as the gate settled it; ``LookupError`` when there was no gate."""
    found = environ.get(CLIENT_KEY)
    if not isinstance(found, str):
        raise LookupError("the request did not come through the gate")
    return found


class Gate:
    """WSGI middleware. ``applications`` holds one application for the role ``platform`` and one for ``serving``."""

    def __init__(self, resolver: Resolver, settings: Settings, applications: Mapping[str, WSGIApplication]) -> None:
        self._resolver = resolver
        self._settings = settings
        self._ports = frozenset({settings.port, settings.visible_port})
        self._applications = {role: applications[role] for role in (Role.PLATFORM, Role.SERVING)}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request: hand it to its application, or refuse it with constant bytes."""
        self._settle_peer(environ)
        return self._place(environ)(environ, start_response)

    def _settle_peer(self, environ: WSGIEnvironment) -> None:
        """Set the client's address and scheme, believing one hop of a trusted proxy, and drop forwarding fields."""
        client = environ.get("REMOTE_ADDR", "")
        peer = _address(client)
        if peer is not None:
            client = str(peer)
            if any(peer in network for network in self._settings.trusted_proxies):
                # The last element is the one that the trusted peer itself added; all before it are hearsay.
                told = _address(environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2])
                client = client if told is None else str(told)
                scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").strip().lower()
                if scheme in ("http", "https"):
                    environ["wsgi.url_scheme"] = scheme
        for name in [name for name in environ if _tells_of_forwarding(name)]:
            del environ[name]
        environ["REMOTE_ADDR"] = environ[CLIENT_KEY] = client

    def _place(self, environ: WSGIEnvironment) -> WSGIApplication:
        """Return the application that answers this request."""
        default_port = 443 if environ["wsgi.url_scheme"] == "https" else 80
        ports = self._ports | {default_port}
        try:
            host = normalise_host(environ.get("HTTP_HOST", ""), ports)
            _check_target(environ, host, ports)
        except HostError as error:
            return _deny(environ, BAD_REQUEST if error.kind == "malformed" else MISDIRECTED, error.reason)
        if not _has_readable_path(environ):
            return NOT_FOUND
        try:
            match = self._resolver.resolve(host)
            if match is None:
                return _deny(environ, MISDIRECTED, "unknown")
            if match.role is Role.SUSPENDED:
                return _deny(environ, MISDIRECTED, "suspended")
            if match.role is Role.ALIAS:
                return self._redirect(environ, match)
        except UnavailableError as error:
            cause = getattr(error.__cause__, "orig", None) or error.__cause__
            log.error("host.unavailable reason=%r", cause, extra={"event": "host.unavailable"})
            return UNAVAILABLE
        return self._admit(environ, match)

    def _admit(self, environ: WSGIEnvironment, match: HostMatch) -> WSGIApplication:
        environ[HOST_KEY] = match
        environ["HTTP_HOST"] = self._settings.url_for_host(match.host).partition("://")[2]
        environ["SERVER_NAME"] = match.host
        return self._applications[match.role]

    def _redirect(self, environ: WSGIEnvironment, match: HostMatch) -> WSGIApplication:
        """Return the way from an alias to the same path on its tenant's primary host, for safe methods only."""
        target = self._resolver.resolve(match.target) if match.target else None
        # A primary host may have been suspended, or released and claimed by another tenant: paths hold capabilities.
        if target is None or target.role is not Role.SERVING or target.config != match.config:
            return _deny(environ, MISDIRECTED, "an alias of no serving host")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return METHOD_NOT_ALLOWED
        location = self._settings.url_for_host(target.host, _encoded_path(environ) + _encoded_query(environ))
        return _constant("302 Found", ("Location", location))


def _constant(status: str, *headers: tuple[str, str]) -> WSGIApplication:
    """Return an application that gives one answer, whatever the request is."""
    body = (status.partition(" ")[2] + "\n").encode()
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *headers,
    ]

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(fields))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer


BAD_REQUEST = _constant("400 Bad Request")
NOT_FOUND = _constant("404 Not Found")
METHOD_NOT_ALLOWED = _constant("405 Method Not Allowed", ("Allow", "GET, HEAD"))
MISDIRECTED = _constant("421 Misdirected Request")
UNAVAILABLE = _constant("503 Service Unavailable", ("Retry-After", "5"))


def _deny(environ: WSGIEnvironment, answer: WSGIApplication, reason: str) -> WSGIApplication:
    """Log one line that holds nothing the client chose, and return ``answer``."""
    event = "host.malformed" if answer is BAD_REQUEST else "host.unknown"
    raw = environ.get("HTTP_HOST", "").encode("latin-1", "replace")
    log.info("%s host=%s reason=%s", event, hashlib.sha256(raw).hexdigest()[:12], reason, extra={"event": event})
    return answer


@lru_cache(1024)
def _tells_of_forwarding(name: str) -> bool:
    return _FORWARDING.fullmatch(name) is not None


@lru_cache(1024)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in ``text`` without its zone, an IPv4-mapped one as IPv4; ``None`` when there is none."""
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _check_target(environ: WSGIEnvironment, host: str, ports: frozenset[int]) -> None:
    """Refuse an absolute-form target that names another host than ``Host``.

    RFC 9112 section 3.2.2 lets the target win; refusing is safer than guessing. Servers that strip the authority
    leave nothing to check, and nothing else reads it.
    """
    for name in _TARGETS:
        absolute = _ABSOLUTE_FORM.match(environ.get(name, ""))
        if absolute is None:
            continue
        try:
            named = normalise_host(absolute[1], ports)
        except HostError:
            named = None
        if named != host:
            raise HostError("the request target names another host", "malformed")


def _has_readable_path(environ: WSGIEnvironment) -> bool:
    """Tell whether the path is absolute, UTF-8 (WSGI carries its bytes as Latin-1) and free of NUL."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    try:
        path.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return False
    return "\0" not in path and path[:1] in ("", "/")


def _encoded_path(environ: WSGIEnvironment) -> str:
    """Return the path as it came where the server kept it and it is clean; else the decoded path, encoded again."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    for name in _TARGETS:
        came = str(environ.get(name, "")).partition("?")[0]
        if _ENCODED_PATH.fullmatch(came) and unquote_to_bytes(came) == path:
            break
    else:
        came = quote(path, safe=_PATH_MARKS)
    return "/" + came.lstrip("/")


def _encoded_query(environ: WSGIEnvironment) -> str:
    query = environ.get("QUERY_STRING", "")
    return "?" + quote(query, safe=_PATH_MARKS + "?%", encoding="latin-1", errors="replace") if query else ""
