"""The requests to a provider, made by Authlib: the authorization request and the exchange of the code."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client

from shared_record.plugin import Fetch
from shared_record_oidc.provider import Provider, ProviderError
from shared_record_oidc.settings import Connection

SECONDS = 4.5
"""For all requests of one call; the core waits five."""


class Rejected(Exception):
    """The provider did not exchange the code; ``error`` is its error code."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Requests:
    """Sends the requests of one call, all of them within ``SECONDS``."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._until = time.monotonic() + SECONDS

    def get(self, url: str) -> tuple[int, bytes]:
        """Send a GET for a JSON document."""
        return self._fetch("GET", url, headers={"Accept": "application/json"}, timeout=self._left())

    def post(
        self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: ClientAuth, **_options: Any
    ) -> _Answer:
        """Send a form, as Authlib asks its HTTP session to."""
        target, sent, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return _Answer(*self._fetch("POST", target, body=body.encode(), headers=sent, timeout=self._left()))

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise ProviderError("the provider takes too long")
        return left


class _Answer:
    """What Authlib reads of an HTTP answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status_code, self._body = status, body

    def json(self) -> Any:
        return json.loads(self._body)

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise ProviderError(f"the token endpoint answered {self.status_code}")


def authorization_url(
    connection: Connection, provider: Provider, callback: str, *, state: str, nonce: str, verifier: str
) -> str:
    """Return where to send the browser: code flow, PKCE S256, the answer in the query."""
    url, _ = _client(connection, "", callback, None).create_authorization_url(
        provider.authorization_endpoint, state=state, code_verifier=verifier, nonce=nonce, response_mode="query"
    )
    return str(url)


def redeem(
    connection: Connection,
    provider: Provider,
    secret: str,
    callback: str,
    requests: Requests,
    *,
    code: str,
    verifier: str,
) -> object:
    """Exchange ``code`` and return what is in the answer's ``id_token``, unchecked; all else of it is dropped.

    ``Rejected`` if the provider refuses the code or this client, ``OSError`` if no answer can be used.
    """
    client = _client(connection, secret, callback, requests)
    try:
        answer = client.fetch_token(
            provider.token_endpoint, grant_type="authorization_code", code=code, code_verifier=verifier
        )
    except OAuth2Error as error:
        raise Rejected(str(error.error)) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ProviderError("the token endpoint's answer cannot be used") from error
    return answer.get("id_token")


def _client(connection: Connection, secret: str, callback: str, requests: Requests | None) -> OAuth2Client:
    return OAuth2Client(
        requests,
        client_id=connection.client_id,
        client_secret=secret,
        token_endpoint_auth_method=connection.client_auth if connection.client_secret else "none",
        scope=" ".join(connection.scopes),
        redirect_uri=callback,
        code_challenge_method="S256",
    )
