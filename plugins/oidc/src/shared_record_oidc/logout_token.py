"""The logout token (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from shared_record_oidc.id_token import (
    LEEWAY,
    Expected,
    TokenError,
    check_parties,
    check_times,
    is_name,
    signed_claims,
)
from shared_record_oidc.provider import Jwk

TYPE = "logout+jwt"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True)
class SignedOut:
    """Who signed out at the provider, or out of which of its sessions; one of the two may be empty.

    ``at`` is the latest moment at which a session can have begun that this is about.
    """

    subject: str
    session: str
    token_id: str
    at: datetime


def read(token: object, keys: Iterable[Jwk], expected: Expected) -> SignedOut:
    """Check the signature, the type and every claim; ``TokenError`` says what is wrong."""
    header, claims = signed_claims(token, keys)
    kind = str(header.get("typ", "")).lower().removeprefix("application/")
    if kind != TYPE:
        raise TokenError("this is no logout token: its type is another")
    check_parties(claims, expected)
    check_times(claims, expected.now.timestamp())
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict) or "nonce" in claims:
        raise TokenError("this is no logout token")
    subject, session, token_id = claims.get("sub", ""), claims.get("sid", ""), claims.get("jti")
    if not is_name(token_id) or not all(name == "" or is_name(name) for name in (subject, session)):
        raise TokenError("the logout token names nothing that can be read")
    if not subject and not session:
        raise TokenError("the logout token names neither person nor session")
    return SignedOut(subject, session, token_id, datetime.fromtimestamp(claims["iat"] + LEEWAY, UTC))
