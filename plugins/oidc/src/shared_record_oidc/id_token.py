"""The ID token (OpenID Connect Core 1.0, section 3.1.3.7): nothing of it is believed before all of it is checked."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from shared_record_oidc.provider import Jwk

MAX_TOKEN = 16 * 1024
LEEWAY = 60
"""Seconds by which the provider's clock may differ from ours."""
MAX_AGE = 600
"""Seconds since a token was issued: it comes straight from the token endpoint."""
RSA_BITS = range(2048, 8193)

_ADDRESS = re.compile(r"""[^\s"<>()@,;:\\\[\]]+@[^\s"<>()@,;:\\\[\]]+""")

_MODELS = jws.JWSRegistry.algorithms
_KINDS = {
    "RS256": (RSAKey, {"kty": "RSA"}, ("n", "e")),
    "ES256": (ECKey, {"kty": "EC", "crv": "P-256"}, ("x", "y")),
    "EdDSA": (OKPKey, {"kty": "OKP", "crv": "Ed25519"}, ("x",)),
}


class _Registry(jws.JWSRegistry):
    """Knows our three algorithms and no other: neither ``none`` nor a symmetric one can be named by a token."""

    algorithms = {"RS256": _MODELS["RS256"], "ES256": _MODELS["ES256"], "EdDSA": _MODELS["Ed25519"]}  # noqa: RUF012
    max_header_length = max_payload_length = MAX_TOKEN


_REGISTRY = _Registry(algorithms=tuple(_KINDS), strict_check_header=False)


class TokenError(Exception):
    """The token proves nothing; the message is for the log."""


class UnknownKeyError(TokenError):
    """No known key fits the token."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say: who issued it for whom, in answer to which request, and what time it is."""

    issuer: str
    client_id: str
    nonce: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed in. ``email`` is empty unless the provider says that it verified the address.

    ``session`` is the provider's own, which a logout token may name; empty where it names none.
    """

    issuer: str
    subject: str
    email: str
    shown_email: str
    session: str = ""


def read(token: object, keys: Iterable[Jwk], expected: Expected) -> Identity:
    """Check the signature and every claim that matters; ``TokenError`` says what is wrong."""
    return _checked(signed_claims(token, keys)[1], expected)


def signed_claims(token: object, keys: Iterable[Jwk]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token that one of ``keys`` signed; nothing of the claims is checked yet."""
    if not isinstance(token, str) or not token.isascii():
        raise TokenError("there is no ID token")
    if len(token) > MAX_TOKEN:
        raise TokenError("the ID token is too long")
    header = _header(token)
    key = _key(keys, header["alg"], header.get("kid"))
    try:
        payload = jws.deserialize_compact(token.encode(), key, registry=_REGISTRY).payload
        claims = json.loads(payload or b"")
    except (JoseError, ValueError, RecursionError) as error:
        raise TokenError(f"the signature does not fit: {type(error).__name__}") from error
    if not isinstance(claims, dict):
        raise TokenError("the ID token holds no claims")
    return header, claims


def _header(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError("the ID token is not a signed token")
    try:
        header = json.loads(_decoded(parts[0]))
    except (ValueError, RecursionError) as error:
        raise TokenError("the ID token's header is not readable") from error
    if not isinstance(header, dict) or not isinstance(header.get("alg"), str) or header["alg"] not in _KINDS:
        raise TokenError("the ID token's algorithm is not allowed")
    if not isinstance(header.get("kid"), str | None):
        raise TokenError("the ID token's key id is not text")
    return header


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _key(keys: Iterable[Jwk], algorithm: str, kid: str | None) -> RSAKey | ECKey | OKPKey:
    """Return the one key that may have signed: of the right kind, for signatures, with the token's key id if any."""
    kind, fixed, public = _KINDS[algorithm]
    fitting = [
        key
        for key in keys
        if all(key.get(name) == value for name, value in fixed.items())
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) in (algorithm, fixed.get("crv"))
        and (kid is None or key.get("kid") == kid)
    ]
    if len(fitting) != 1:
        raise UnknownKeyError(f"{len(fitting)} keys of the provider fit the ID token")
    try:
        if kind is RSAKey and int.from_bytes(_decoded(fitting[0]["n"])).bit_length() not in RSA_BITS:
            raise TokenError("the provider's key is too short or too long")
        return kind.import_key({name: fitting[0][name] for name in (*fixed, *public)})
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise TokenError("the provider's key cannot be used") from error


def _checked(claims: dict[str, Any], expected: Expected) -> Identity:
    subject, nonce = claims.get("sub"), claims.get("nonce")
    audiences = check_parties(claims, expected)
    if claims.get("azp", expected.client_id) != expected.client_id or (len(audiences) > 1 and "azp" not in claims):
        raise TokenError("the ID token was asked for by another client")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise TokenError("the ID token does not belong to this sign-in")
    check_times(claims, expected.now.timestamp())
    if not is_name(subject):
        raise TokenError("the ID token names no subject")
    address = claims.get("email")
    shown = address if isinstance(address, str) and _is_address(address) else ""
    email = shown if claims.get("email_verified") is True else ""
    return Identity(expected.issuer, subject, email, shown, claims["sid"] if is_name(claims.get("sid")) else "")


def check_parties(claims: dict[str, Any], expected: Expected) -> list[Any]:
    """Check who issued a token for whom, and return its audiences."""
    if claims.get("iss") != expected.issuer:
        raise TokenError("the ID token is of another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if expected.client_id not in audiences:
        raise TokenError("the ID token is for another client")
    return audiences


def is_name(text: object) -> TypeGuard[str]:
    """Tell whether a claim can name a person, a session or a token."""
    return isinstance(text, str) and 0 < len(text) <= 255 and text.isprintable()


def check_times(claims: dict[str, Any], now: float) -> None:
    """Check that a token was issued just now and has not expired."""
    expires, issued, begins = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
    if not all(isinstance(at, int | float) and not isinstance(at, bool) for at in (expires, issued, begins)):
        raise TokenError("the ID token does not say when it is valid")
    if not (now < expires + LEEWAY and now - MAX_AGE - LEEWAY < issued <= now + LEEWAY and begins <= now + LEEWAY):
        raise TokenError("the ID token is not valid now")


def _is_address(text: str) -> bool:
    return len(text) <= 254 and text.isprintable() and bool(_ADDRESS.fullmatch(text))
