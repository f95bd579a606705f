"""An identity provider that lies as it is told: for what a real one would never answer."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

KINDS: dict[str, Callable[[str], Key]] = {
    "RS256": lambda kid: RSAKey.generate_key(2048, {"kid": kid}),
    "ES256": lambda kid: ECKey.generate_key("P-256", {"kid": kid}),
    "EdDSA": lambda kid: OKPKey.generate_key("Ed25519", {"kid": kid}),
}
SIGNING = {"EdDSA": "Ed25519"}
"""The name under which the library signs, where the header names the algorithm otherwise."""
SECRET = "s3cret-of-the-client"
CLIENT = "shared-record"


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(key: Key, algorithm: str, claims: Mapping[str, Any], **header: Any) -> str:
    """Return a signed token."""
    head = {name: value for name, value in {"alg": algorithm, "kid": key.kid, **header}.items() if value is not None}
    signing_input = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    model = jws.JWSRegistry.algorithms[SIGNING.get(algorithm, algorithm)]
    return f"{signing_input}.{b64(model.sign(signing_input.encode(), key))}"


Lie = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Gets the claims and the honest token answer; returns the answer to give."""


@dataclass
class MockIdp:
    """A provider on 127.0.0.1 with one client. Tests change what it says by changing its fields."""

    now: Callable[[], datetime]
    port: int = 0
    name: str = ""
    algorithm: str = "ES256"
    subject: str = "sub-1"
    sends_iss: bool = True
    claims: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    slow: str = ""
    hurry: threading.Event = field(default_factory=threading.Event)
    raw: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    lie: Lie | None = None
    asked: Counter[str] = field(default_factory=Counter)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key: Key = field(init=False)

    def __post_init__(self) -> None:
        self.key = KINDS[self.algorithm]("k1")

    @property
    def issuer(self) -> str:
        """Its ``name``, or where it listens."""
        return self.name or f"http://127.0.0.1:{self.port}"

    def use(self, algorithm: str, kid: str = "k1") -> None:
        """Sign with another key from now on; only that one is published."""
        self.algorithm, self.key = algorithm, KINDS[algorithm](kid)

    def connection(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a connection to this provider."""
        usual = {"id": "acme", "title": "Acme ID", "issuer": self.issuer, "client_id": CLIENT}
        return usual | {"client_secret": "acme"} | changes

    def sign_in(self, url: str, **changes: str | None) -> dict[str, str]:
        """Do what a person does at ``url``; return the query that the browser comes back with."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert url.startswith(f"{self.issuer}/authorize?")
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert asked["response_mode"] == "query"
        assert asked["client_id"] == CLIENT
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"]} | ({"iss": self.issuer} if self.sends_iss else {})
        return {name: value for name, value in (answer | changes).items() if value is not None}

    def discovery(self) -> dict[str, Any]:
        usual = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256", "EdDSA"],
            "authorization_response_iss_parameter_supported": self.sends_iss,
        }
        return usual | self.document

    def public_key(self) -> dict[str, Any]:
        return {**self.key.as_dict(private=False), "use": "sig"}

    def token(self, authorization: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        asked = self.codes.pop(form.get("code", ""), None)
        user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        if (unquote(user), unquote(password)) != (CLIENT, SECRET):
            return 401, {"error": "invalid_client", "error_description": "<b>who are you</b>"}
        challenge = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": "<script>alert(1)</script>"}
        at = int(self.now().timestamp())
        claims = {"iss": self.issuer, "sub": self.subject, "aud": CLIENT, "iat": at, "exp": at + 300}
        claims |= {"nonce": asked["nonce"]} | self.claims
        claims = {name: value for name, value in claims.items() if value is not ...}
        answer = {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300}
        honest = answer | {"id_token": sign(self.key, self.algorithm, claims)}
        return 200, self.lie(claims, honest) if self.lie else honest

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, bytes]:
        self.asked[path] += 1
        if path == self.slow:
            self.hurry.wait(30)
        if path in self.raw:
            return self.raw[path]
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        match path:
            case "/.well-known/openid-configuration":
                return 200, json.dumps(self.discovery()).encode()
            case "/jwks":
                return 200, json.dumps({"keys": [self.public_key()]}).encode()
            case "/token":
                status, document = self.token(authorization, form)
                return status, json.dumps(document).encode()
            case "/userinfo":
                return 200, json.dumps(
                    {"sub": "sub-listed", "email": "ann@acme.example", "email_verified": True}
                ).encode()
        return 404, b"{}"


@contextlib.contextmanager
def mock_idp(now: Callable[[], datetime], **fields: Any) -> Iterator[MockIdp]:
    """Run one."""
    idp = MockIdp(now, **fields)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = idp.answer(self.path.partition("?")[0], self.headers.get("Authorization", ""), body)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", answer.decode())
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(answer)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    idp.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield idp
    finally:
        idp.hurry.set()
        server.shutdown()
        server.server_close()
        thread.join()
