"""What a provider publishes about itself: its endpoints (OpenID Connect Discovery 1.0) and its keys (RFC 7517)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared_record.plugin import ServiceDownError
from shared_record_oidc.settings import is_usable_url, origin_of

KEPT = timedelta(hours=24)
"""How long a document or a key set is used without being asked for again."""
KEYS_AGAIN = timedelta(seconds=60)
"""Least time between two requests for the same key set, whatever keys tokens name."""
FAILED = timedelta(seconds=5)
"""How long a provider that did not answer is left alone."""
MOST_KEPT = 1000
MOST_KEYS = 100

Load = Callable[[str], tuple[int, bytes]]
"""Sends a GET; raises ``OSError``."""
Jwk = dict[str, Any]


class ProviderError(ServiceDownError, OSError):
    """A provider cannot be used now: it does not answer, or answers what it may not."""


class MovedError(ProviderError):
    """The discovery document names an endpoint at an origin that the settings do not allow."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The endpoints of one issuer. ``sends_iss``: its answers carry ``iss`` (RFC 9207, section 3).

    ``end_session_endpoint`` is empty where it announces none (OpenID Connect RP-Initiated Logout 1.0, section 2.1).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    sends_iss: bool
    end_session_endpoint: str = ""


def parse_provider(data: bytes, issuer: str, allowed: frozenset[str], *, development: bool) -> Provider:
    """Read a discovery document; ``ProviderError`` if it is not about ``issuer``, byte for byte, or cannot be used.

    ``MovedError`` if an endpoint is at none of the ``allowed`` origins: codes and secrets are sent there.
    """
    document = _object(data)
    if document.get("issuer") != issuer:
        raise ProviderError("the discovery document names another issuer than the settings")
    urls = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(isinstance(url, str) and is_usable_url(url, development=development) for url in urls):
        raise ProviderError("the discovery document lacks an endpoint, or one of them is not an https URL")
    for name, url in zip(("authorization_endpoint", "token_endpoint", "jwks_uri"), urls, strict=True):
        if origin_of(str(url)) not in allowed:
            raise MovedError(f"{name} is at {origin_of(str(url))}, which the settings do not allow")
    sends_iss = document.get("authorization_response_iss_parameter_supported") is True
    end = document.get("end_session_endpoint")
    can_end = isinstance(end, str) and is_usable_url(end, development=development) and origin_of(end) in allowed
    return Provider(issuer, *(str(url) for url in urls), sends_iss, str(end) if can_end else "")


def parse_keys(data: bytes) -> tuple[Jwk, ...]:
    """Read a key set; entries that are no objects are left out. ``ProviderError`` if it is none."""
    keys = _object(data).get("keys")
    if not isinstance(keys, list):
        raise ProviderError("the key set holds no keys")
    return tuple(key for key in keys[:MOST_KEYS] if isinstance(key, dict))


@dataclass
class _Entry:
    """One thing that was asked for. ``lock`` is held while it is asked for again."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    at: datetime | None = None
    failed_at: datetime | None = None


class Cache:
    """Remembers documents and key sets, per tenant host: what one tenant does to its entries concerns no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def provider(
        self, host: str, issuer: str, allowed: frozenset[str], now: datetime, load: Load, *, development: bool
    ) -> Provider:
        """Return the provider of ``issuer``; ``OSError`` if it cannot be used now."""
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"

        def ask() -> Provider:
            return parse_provider(_loaded(load, url), issuer, allowed, development=development)

        found: Provider = self._get((host, "provider", issuer, allowed), now, ask, KEPT)
        return found

    def keys(self, host: str, provider: Provider, now: datetime, load: Load, *, unknown: bool) -> tuple[Jwk, ...]:
        """Return the provider's keys. ``unknown``: the known ones do not fit; ask again, if that is not too soon."""

        def ask() -> tuple[Jwk, ...]:
            return parse_keys(_loaded(load, provider.jwks_uri))

        found: tuple[Jwk, ...] = self._get(
            (host, "keys", provider.issuer, provider.jwks_uri), now, ask, KEYS_AGAIN if unknown else KEPT
        )
        return found

    def _get(self, key: Hashable, now: datetime, ask: Callable[[], Any], kept: timedelta) -> Any:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            while len(self._entries) > MOST_KEPT:
                self._entries.pop(next(iter(self._entries)))
        with entry.lock:
            if _is_within(entry.at, now, kept):
                return entry.value
            if _is_within(entry.failed_at, now, FAILED):
                raise ProviderError("the provider did not answer a moment ago")
            try:
                entry.value = ask()
            except OSError:
                entry.failed_at = now
                raise
            entry.at, entry.failed_at = now, None
            return entry.value


def _is_within(at: datetime | None, now: datetime, time: timedelta) -> bool:
    return at is not None and timedelta(0) <= now - at < time


def _loaded(load: Load, url: str) -> bytes:
    status, data = load(url)
    if status != 200:
        raise ProviderError(f"the provider answered {status}")
    return data


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProviderError("the provider's answer is not JSON") from error
    if not isinstance(document, dict):
        raise ProviderError("the provider's answer is not a JSON object")
    return document
