"""What a tenant sets: its identity providers, one connection each."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import idna
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared_record.plugin import MethodSettings

ANY_DOMAIN = "*"
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def is_usable_url(url: str, *, development: bool) -> bool:
    """Tell whether ``url`` is absolute https, without user or fragment; http to this machine in development only."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or len(url) > 1000:
        return False
    if not parts.hostname or "@" in parts.netloc or "#" in url or port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and development and is_local(parts.hostname))


def is_local(host: str) -> bool:
    """Tell whether a host name means this machine."""
    return host in _LOCAL or host.endswith(".localhost")


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, as origins are compared."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def domain_of(text: str) -> str:
    """Return a domain in the one form in which domains are compared; ``ValueError`` if it is none."""
    try:
        return idna.encode(text.strip().rstrip("."), uts46=True).decode().lower()
    except idna.IDNAError as error:
        raise ValueError("write a domain, e.g. example.com") from error


def _issuer(text: str) -> str:
    if not is_usable_url(text, development=True) or "?" in text:
        raise ValueError("write the provider's issuer exactly as it names itself: an https URL without query")
    return text


def _origin(text: str) -> str:
    if not is_usable_url(text, development=True) or urlsplit(text)._replace(scheme="", netloc="").geturl() not in (
        "",
        "/",
    ):
        raise ValueError("write an origin: https:// and a host, without a path")
    return origin_of(text)


def _scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    if "openid" not in scopes or not all(map(_SCOPE.fullmatch, scopes)):
        raise ValueError("name the scopes to ask for, `openid` among them")
    return scopes


def _domain(text: str) -> str:
    return ANY_DOMAIN if text == ANY_DOMAIN else domain_of(text)


class Connection(BaseModel):
    """One identity provider.

    ``client_secret`` is the name of a secret set by ``shared-record access secret --method oidc``, never the secret.
    ``origins``: where the provider's endpoints may be besides the issuer's own origin; a discovery document that names
    one elsewhere is not followed. ``email_domains``: the domains of which this provider is believed what it says about
    addresses; with none, only listed subjects pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    title: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f<>]{1,60}$", strip_whitespace=True)]
    issuer: Annotated[str, AfterValidator(_issuer)]
    client_id: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
    client_secret: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] | None = None
    client_auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    scopes: Annotated[tuple[str, ...], Field(max_length=20), AfterValidator(_scopes)] = ("openid", "email")
    origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], Field(max_length=10)] = ()
    email_domains: Annotated[tuple[Annotated[str, AfterValidator(_domain)], ...], Field(max_length=200)] = ()

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins at which the provider's endpoints may be."""
        return frozenset({origin_of(self.issuer), *self.origins})

    def believes(self, domain: str) -> bool:
        """Tell whether the provider is believed what it says about addresses of ``domain``."""
        return ANY_DOMAIN in self.email_domains or domain in self.email_domains


class Settings(MethodSettings):
    """The connections of one tenant, in the order in which they are offered."""

    connections: Annotated[tuple[Connection, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _ids_differ(self) -> Settings:
        if len({one.id for one in self.connections}) != len(self.connections):
            raise ValueError("two connections have the same id")
        return self

    def find(self, connection_id: str) -> Connection | None:
        """Return the connection with this id."""
        return next((one for one in self.connections if one.id == connection_id), None)
