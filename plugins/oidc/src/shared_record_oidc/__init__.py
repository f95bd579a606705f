"""Step-up by signing in at an identity provider that the vendor names (OpenID Connect, code flow with PKCE)."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import ClassVar, TypeVar
from urllib.parse import urlencode, urlsplit

from shared_record.plugin import (
    Challenge,
    Choice,
    Ended,
    Guessing,
    NotMine,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
    hookimpl,
    mark,
)
from shared_record.plugin import gettext as _
from shared_record_oidc import id_token, logout_token, messages
from shared_record_oidc.exchange import Rejected, Requests, authorization_url, redeem
from shared_record_oidc.id_token import Expected, Identity, TokenError, UnknownKeyError
from shared_record_oidc.provider import Cache, Jwk, MovedError, Provider, ProviderError
from shared_record_oidc.settings import Connection, Settings, domain_of, is_local

VALID_FOR = timedelta(minutes=10)

Read = TypeVar("Read")

_CODE = re.compile(r"[\x20-\x7e]{1,4096}")
"""RFC 6749, appendix A.11."""

_log = logging.getLogger("shared_record.oidc")
_cache = Cache()


class Oidc(StepUpMethod):
    """Sign-in elsewhere. It passes a person whom the vendor listed for this record, and nobody else."""

    slug = "oidc"
    title = mark("Sign in")
    settings_model = Settings
    guessing = Guessing.NONE
    deadline: ClassVar[float] = 5.0

    def choices(self, ctx: StepUpContext) -> tuple[Choice, ...]:
        """Return one choice for each connection, in the tenant's order."""
        return tuple(
            Choice(
                one.id,
                _("Sign in with %(provider)s") % {"provider": one.title},
                _("You continue at %(host)s.") % {"host": urlsplit(one.issuer).hostname},
            )
            for one in _settings(ctx).connections
        )

    def begin(self, ctx: StepUpContext) -> Challenge:
        """Return a button; nobody is asked anything before it is used."""
        connection = _settings(ctx).find(ctx.choice)
        if connection is None:
            return Challenge()
        text = _("You continue at %(host)s and come back here.") % {"host": urlsplit(connection.issuer).hostname}
        return Challenge(text=text, button=_("Continue to %(provider)s") % {"provider": connection.title})

    def start(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Challenge | Refused:  # noqa: ARG002  no fields
        """Send the browser to the provider, with a nonce and a PKCE verifier made for this attempt."""
        connection = _settings(ctx).find(ctx.choice)
        if connection is None:
            return Refused(messages.not_finished())
        try:
            with _logged(connection):
                provider = _provider(ctx, connection, Requests(ctx.fetch))
        except MovedError:
            return Refused(messages.set_up_wrongly(ctx.tenant_name), event="endpoints_moved")
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        url = authorization_url(
            connection, provider, ctx.callback_url, state=ctx.ticket, nonce=nonce, verifier=verifier
        )
        kept = {"issuer": connection.issuer, "client": connection.client_id, "nonce": nonce, "verifier": verifier}
        return Challenge(redirect=url, state=json.dumps(kept).encode(), valid_for=VALID_FOR)

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        """Judge what the provider sent the browser back with, and what it says of the person when asked itself."""
        connection = _settings(ctx).find(ctx.choice)
        kept = _kept(ctx.state)
        if connection is None or (kept.get("issuer"), kept.get("client")) != (connection.issuer, connection.client_id):
            return NotMine()
        try:
            with _logged(connection):
                return self._judge_answer(ctx, connection, kept, answer)
        except MovedError:
            return Refused(messages.set_up_wrongly(ctx.tenant_name), event="endpoints_moved")

    def _judge_answer(
        self, ctx: StepUpContext, connection: Connection, kept: Mapping[str, str], answer: Mapping[str, str]
    ) -> Verdict:
        requests = Requests(ctx.fetch)
        provider = _provider(ctx, connection, requests)
        issuer = answer.get("iss")
        if issuer != connection.issuer and (issuer is not None or provider.sends_iss):  # RFC 9207, section 2.4
            _log.warning("oidc.mixup connection=%s", connection.id)
            return Refused(messages.not_finished(), event="mixup")
        if "error" in answer:
            return Refused(messages.of_error(answer["error"], connection.title, ctx.tenant_name))
        code = answer.get("code", "")
        if not _CODE.fullmatch(code):
            return Refused(messages.not_finished())
        try:
            token = redeem(
                connection,
                provider,
                _secret(ctx, connection),
                ctx.callback_url,
                requests,
                code=code,
                verifier=kept["verifier"],
            )
            identity = _identity(ctx, connection, provider, requests, token, kept["nonce"])
        except Rejected as error:
            _log.warning("oidc.rejected connection=%s error=%s", connection.id, messages.known(error.error))
            return Refused(messages.of_rejection(error.error, ctx.tenant_name))
        except TokenError as error:
            _log.warning("oidc.token connection=%s: %s", connection.id, error)
            return Refused(messages.not_usable(connection.title, ctx.tenant_name), event="token_refused")
        return _judge(ctx, connection, identity)

    def sign_out_url(self, ctx: StepUpContext) -> str:
        """Return the provider's page for signing out (OpenID Connect RP-Initiated Logout 1.0), if it has one.

        It is told the client and nothing else: the way back would be the link itself, and no ID token is kept.
        """
        connection = _settings(ctx).find(ctx.choice)
        if connection is None:
            return ""
        with _logged(connection):
            end = _provider(ctx, connection, Requests(ctx.fetch)).end_session_endpoint
        return f"{end}{'&' if '?' in end else '?'}{urlencode({'client_id': connection.client_id})}" if end else ""

    def ended_elsewhere(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Ended | Refused:
        """Judge a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6)."""
        connection = _settings(ctx).find(ctx.choice)
        token = answer.get("logout_token", "")
        if connection is None or not token:
            return Refused(messages.not_finished())
        expected = Expected(connection.issuer, connection.client_id, "", ctx.now)
        try:
            with _logged(connection):
                requests = Requests(ctx.fetch)
                provider = _provider(ctx, connection, requests)
                said = _with_keys(ctx, provider, requests, lambda keys: logout_token.read(token, keys, expected))
        except (TokenError, MovedError) as error:
            _log.warning("oidc.logout_token connection=%s: %s", connection.id, error)
            return Refused(messages.not_finished())
        account = _account(connection, said.subject) if said.subject else ""
        elsewhere = _elsewhere(connection, said.session) if said.session else ""
        return Ended(said.at, f"{connection.id} {said.token_id}", account, elsewhere)


@hookimpl
def register_step_up_methods() -> list[type[StepUpMethod]]:
    """Register sign-in elsewhere."""
    return [Oidc]


@contextmanager
def _logged(connection: Connection) -> Iterator[None]:
    """Log why a connection cannot be used now; the core makes it a 503."""
    try:
        yield
    except OSError as error:
        _log.warning("oidc.unavailable connection=%s: %s", connection.id, error)
        raise


def _judge(ctx: StepUpContext, connection: Connection, identity: Identity) -> Verdict:
    """Pass a listed subject, or a verified address that is listed and then tied to its subject."""
    listed, email = ctx.entitlements, identity.email
    hint = f"{email or identity.subject} ({connection.title})"[:200]
    account = _account(connection, identity.subject)
    elsewhere = _elsewhere(connection, identity.session) if identity.session else ""
    if listed.subject(identity.issuer, identity.subject):
        return Passed(hint, account=account, elsewhere=elsewhere)
    if email and _believes(connection, email) and listed.pin(identity.issuer, identity.subject, email):
        return Passed(hint, account=account, elsewhere=elsewhere)
    return Refused(messages.not_listed(identity.shown_email), event="not_entitled")


def _believes(connection: Connection, email: str) -> bool:
    try:
        return connection.believes(domain_of(email.rpartition("@")[2]))
    except ValueError:
        return False


def _provider(ctx: StepUpContext, connection: Connection, requests: Requests) -> Provider:
    return _cache.provider(
        ctx.host,
        connection.issuer,
        connection.allowed_origins,
        ctx.now,
        requests.get,
        development=_is_development(ctx.callback_url),
    )


def _identity(
    ctx: StepUpContext, connection: Connection, provider: Provider, requests: Requests, token: object, nonce: str
) -> Identity:
    expected = Expected(connection.issuer, connection.client_id, nonce, ctx.now)
    return _with_keys(ctx, provider, requests, lambda keys: id_token.read(token, keys, expected))


def _with_keys(
    ctx: StepUpContext, provider: Provider, requests: Requests, read: Callable[[tuple[Jwk, ...]], Read]
) -> Read:
    """Read a token; where no known key fits, once more with keys that were asked for again."""
    keys = _cache.keys(ctx.host, provider, ctx.now, requests.get, unknown=False)
    try:
        return read(keys)
    except UnknownKeyError:
        return read(_cache.keys(ctx.host, provider, ctx.now, requests.get, unknown=True))


def _account(connection: Connection, subject: str) -> str:
    return json.dumps([connection.id, connection.issuer, subject])


def _elsewhere(connection: Connection, session: str) -> str:
    return json.dumps([connection.id, connection.issuer, session])


def _secret(ctx: StepUpContext, connection: Connection) -> str:
    if connection.client_secret is None:
        return ""
    found = ctx.tenant_secret(connection.client_secret)
    try:
        text = (found or b"").decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise ProviderError("the client secret is not ASCII") from error
    if not text:
        raise ProviderError(f"no secret named {connection.client_secret} is set")
    return text


def _is_development(callback_url: str) -> bool:
    parts = urlsplit(callback_url)
    return parts.scheme == "http" and is_local(parts.hostname or "")


def _kept(state: bytes) -> dict[str, str]:
    """Return what ``start`` left; nothing where there is none."""
    if not state:
        return {}
    found: dict[str, str] = json.loads(state)
    return found


def _settings(ctx: StepUpContext) -> Settings:
    if not isinstance(ctx.settings, Settings):
        raise TypeError("the settings are of another method")
    return ctx.settings
