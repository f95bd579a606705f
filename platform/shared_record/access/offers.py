"""Which methods a customer may use now, and every call that is made to one.

A method gets a context that holds nothing of another customer, and an instance of its own for each call. What it
returns is copied into values of our own, so that an object of a plugin never gets further than this module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from shared_record.access import method_secrets
from shared_record.access.sessions import Visit
from shared_record.clock import Clock
from shared_record.db.engine import Database
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.hooks.caller import Caller, PluginFaultError
from shared_record.keys import KeyRing
from shared_record.languages import speak, spoken
from shared_record.plugin import (
    MAX_STATE,
    Challenge,
    Choice,
    Ended,
    Entitlements,
    Fetch,
    Field,
    NotMine,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
)
from shared_record.tenancy.methods import MethodRow, list_methods
from shared_record.tenancy.tenants import read_tenant

MatchesCode = Callable[[Visit, str], bool]
LONGEST_TEXT = 500
MOST = 20
"""Fields of one form, and choices of one method."""

_KEY = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,62})?", re.ASCII)
_EVENT = re.compile(r"[a-z_]{0,40}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_log = logging.getLogger("shared_record.stepup")


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail that a method handed over; without ``to`` it is a decoy."""

    to: str | None
    subject: str
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to step up that this customer may use now: a method, which choice of it, and what it asks first.

    ``epoch`` is that of the method's settings at this moment.
    """

    kind: type[StepUpMethod]
    choice: Choice
    context: StepUpContext
    challenge: Challenge
    epoch: int

    @property
    def slug(self) -> str:
        """The method's slug."""
        return self.kind.slug

    @property
    def key(self) -> str:
        """What a form or the chooser names this offer by: the slug, with the choice where there are several."""
        return f"{self.slug}:{self.choice.key}" if self.choice.key else self.slug

    @property
    def has_two_steps(self) -> bool:
        """Whether the answer to the first form leads to a challenge."""
        return self.kind.start is not StepUpMethod.start


@dataclass(frozen=True, slots=True)
class Services:
    """What the core does for methods, for one customer at a time. ``None``: this installation cannot."""

    entitlements: Callable[[Visit], Entitlements] | None = None
    fetch: Callable[[Visit | None], Fetch] | None = None
    can_mail: bool = False


class Methods:
    """The installed methods, and how they are called."""

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        clock: Clock,
        installed: Mapping[str, type[StepUpMethod]],
        url_for_host: Callable[[str, str], str],
        matches_code: MatchesCode,
        services: Services,
        caller: Caller,
    ) -> None:
        self._db = db
        self._keys = keys
        self._clock = clock
        self._installed = installed
        self._url_for_host = url_for_host
        self._matches_code = matches_code
        self._services = services
        self._caller = caller

    def offers(self, seen: Visit) -> tuple[list[Offer], frozenset[str]]:
        """Return what the customer may use now, in the tenant's order, and the slugs that should work but do not."""
        with self._db.read(seen.scope) as connection:
            rows = list_methods(connection, seen.scope)
            secrets = method_secrets.of_customer(connection, self._keys, seen.scope, seen.customer_id)
        found: list[Offer] = []
        out: set[str] = set()
        for row in rows:
            kind = self._installed.get(row.slug)
            if kind is None:
                _log.error("plugin.missing method=%s", row.slug)
                out.add(row.slug)
                continue
            if kind.needs_mail and not self._services.can_mail:
                _log.error("mail.missing method=%s", row.slug)
                out.add(row.slug)
                continue
            try:
                found += self._offers_of(seen, row, kind, secrets.get(row.slug))
            except ValidationError:
                _log.error("config.rejected method=%s", row.slug)
                out.add(row.slug)
            except (PluginFaultError, UnavailableError):
                out.add(row.slug)
        return found, frozenset(out)

    def start(self, seen: Visit, offer: Offer, ticket: str, answer: Mapping[str, str]) -> tuple[Any, list[Mail]]:
        """Return the ``Challenge`` or ``Refused`` that answers the first form, and the mail to send with it."""
        mailbox = _Mailbox()
        context = replace(offer.context, ticket=ticket, send_mail=mailbox.send)
        found = self._call(seen.scope, offer.kind, lambda method: method.start(context, answer), _asked_next)
        return found, mailbox.close()

    def again(self, seen: Visit, offer: Offer, ticket: str, state: bytes) -> list[Mail]:
        """Let the method do once more what ``start`` did, and return the mail to send."""
        mailbox = _Mailbox()
        context = replace(offer.context, ticket=ticket, state=state, send_mail=mailbox.send)
        self._call(seen.scope, offer.kind, lambda method: method.again(context), lambda _: True)
        return mailbox.close()

    def verify(self, seen: Visit, offer: Offer, ticket: str, state: bytes, answer: Mapping[str, str]) -> Verdict:
        """Return the method's verdict; ``NotMine`` for whatever it raises or makes up, and when it takes too long."""
        context = replace(offer.context, ticket=ticket, state=state)
        try:
            verdict: Verdict = self._call(
                seen.scope, offer.kind, lambda method: method.verify(context, answer), _verdict
            )
            return verdict
        except PluginFaultError:
            return NotMine()

    def sign_out_url(self, seen: Visit) -> str:
        """Return where the person of this visit's session can sign out elsewhere, as the method says; else nothing."""
        found = next((one for one in self.offers(seen)[0] if _made(one, seen)), None)
        if found is None or found.kind.sign_out_url is StepUpMethod.sign_out_url:
            return ""
        url: str = self._call(
            seen.scope, found.kind, lambda method: method.sign_out_url(found.context), lambda url: url
        )
        return url if _may_lead_to(url) else ""

    def ended_elsewhere(
        self, scope: Scope, host: str, slug: str, choice: str, answer: Mapping[str, str]
    ) -> Ended | None:
        """Return what a message of another site says, by the method's own judgement; ``None`` for no such method."""
        with self._db.read(scope) as connection:
            rows, vendor = list_methods(connection, scope), read_tenant(connection, scope).name
        row = next((one for one in rows if one.slug == slug), None)
        kind = self._installed.get(slug)
        if row is None or kind is None or kind.ended_elsewhere is StepUpMethod.ended_elsewhere:
            return None
        try:
            context = self._context(scope, row, kind, tenant_name=vendor, host=host)
        except ValidationError:
            return None
        chosen = replace(context, choice=choice, callback_url=self._url_for_host(host, f"/auth/{slug}/{choice}"))
        found = self._call(scope, kind, lambda method: method.ended_elsewhere(chosen, answer), _ended)
        return found if isinstance(found, Ended) else None

    def _context(
        self, scope: Scope, row: MethodRow, kind: type[StepUpMethod], *, tenant_name: str, host: str
    ) -> StepUpContext:
        """Return a context that is of no customer yet."""
        return StepUpContext(
            tenant_name=tenant_name,
            host=host,
            customer_label=None,
            now=self._clock.now(),
            settings=kind.settings_model.model_validate(row.settings),
            choice="",
            state=b"",
            ticket="",
            callback_url="",
            customer_secret=None,
            entitlements=_Nobody(),
            matches_access_code=lambda _text: False,
            tenant_secret=lambda name: self._tenant_secret(scope, row.slug, name),
            send_mail=_no_mail,
            fetch=self._services.fetch(None) if self._services.fetch else _no_way_out,
        )

    def _offers_of(self, seen: Visit, row: MethodRow, kind: type[StepUpMethod], secret: bytes | None) -> list[Offer]:
        services = self._services
        context = replace(
            self._context(seen.scope, row, kind, tenant_name=seen.row.vendor, host=seen.host),
            customer_label=seen.row.display_name,
            customer_secret=secret,
            entitlements=services.entitlements(seen) if services.entitlements else _Nobody(),
            matches_access_code=lambda text: self._matches_code(seen, text),
            fetch=services.fetch(seen) if services.fetch else _no_way_out,
        )

        def open_up(method: StepUpMethod) -> list[Offer] | None:
            if not method.availability(context):
                return []
            offers = []
            choices = tuple(method.choices(context))
            if not _are_choices(choices):
                return None
            for one in choices:
                chosen = replace(
                    context,
                    choice=one.key,
                    callback_url=self._url_for_host(seen.host, f"/auth/{row.slug}/{one.key}") if one.key else "",
                )
                asked = _first_challenge(method.begin(chosen))
                if asked is None:
                    return None
                offers.append(Offer(kind, Choice(one.key, one.title, one.hint), chosen, asked, row.epoch))
            return offers

        offers: list[Offer] = self._call(seen.scope, kind, open_up, lambda found: found)
        return offers

    def _call(
        self,
        scope: Scope,
        kind: type[StepUpMethod],
        call: Callable[[StepUpMethod], Any],
        copied: Callable[[Any], Any],
    ) -> Any:
        """Call a fresh instance; ``copied`` takes what may be used of the result, or returns ``None``.

        That is done within the deadline too: an object of a plugin may do anything when it is looked at.
        """

        language = spoken()

        def run() -> Any:
            speak(language)  # in the thread of the call, which starts with nothing of this one's context
            result = call(kind())
            copy = copied(result)
            if copy is None:
                raise TypeError(f"{kind.slug} returned {type(result).__name__}, or what cannot be used of it")
            return copy

        return self._caller.call(kind.slug, scope.config, kind.deadline, run)

    def _tenant_secret(self, scope: Scope, slug: str, name: str) -> bytes | None:
        with self._db.read(scope) as connection:
            return method_secrets.of_tenant(connection, self._keys, scope, slug, name)


# --- What a method may return: copied, never passed on ---------------------------------------------------------------


def _verdict(result: Any) -> Verdict | None:
    if isinstance(result, Passed):
        hint, used, account, other = result.subject_hint, result.single_use, result.account, result.elsewhere
        fits = _is_text(hint, 10_000) and _is_text(used, 200) and _is_text(account, 2000) and _is_text(other, 2000)
        return Passed(hint[:200], used, account, other) if fits else None
    return NotMine() if isinstance(result, NotMine) else _refused(result)


def _first_challenge(result: Any) -> Challenge | None:
    copy = _challenge(result)
    return None if copy is None or copy.redirect or copy.state or copy.again else copy


def _asked_next(result: Any) -> Challenge | Refused | None:
    return _refused(result) or _challenge(result)


def _ended(result: Any) -> Ended | Refused | None:
    if not isinstance(result, Ended):
        return _refused(result)
    at, used, account, other = result.at, result.single_use, result.account, result.elsewhere
    fits = _is_text(used, 1000) and _is_text(account, 2000) and _is_text(other, 2000)
    return Ended(at, used, account, other) if fits and used and type(at) is datetime and at.tzinfo else None


def _made(offer: Offer, seen: Visit) -> bool:
    """Tell whether the session of this visit was opened by this way."""
    return seen.session is not None and (offer.slug, offer.choice.key) == (seen.session.method, seen.session.choice)


def _refused(result: Any) -> Refused | None:
    if not isinstance(result, Refused):
        return None
    reason, event = result.public_reason, result.event
    return Refused(reason, event) if _is_text(reason) and type(event) is str and _EVENT.fullmatch(event) else None


def _challenge(result: Any) -> Challenge | None:
    if not isinstance(result, Challenge) or not all(map(_is_text, (result.button, result.text, result.again))):
        return None
    fields = tuple(result.fields)
    if len(fields) > MOST or not all(map(_is_field, fields)) or len({one.name for one in fields}) != len(fields):
        return None
    if type(result.state) is not bytes or len(result.state) > MAX_STATE or not _may_lead_to(result.redirect):
        return None
    if not timedelta(seconds=1) <= result.valid_for <= timedelta(hours=1):
        return None
    return Challenge(
        tuple(replace(one) for one in fields),
        result.button,
        result.text,
        result.again,
        result.redirect,
        result.state,
        result.valid_for,
    )


def _is_field(one: Any) -> bool:
    return (
        isinstance(one, Field)
        and type(one.name) is str
        and bool(_NAME.fullmatch(one.name))
        and all(map(_is_text, (one.label, one.hint, one.autocomplete, one.inputmode, one.autocapitalize)))
        and type(one.max_length) is int
        and 0 < one.max_length <= 1000
    )


def _are_choices(choices: tuple[Any, ...]) -> bool:
    return (
        len(choices) <= MOST
        and all(isinstance(one, Choice) and _is_text(one.title) and _is_text(one.hint) for one in choices)
        and all(type(one.key) is str and _KEY.fullmatch(one.key) for one in choices)
        and len({one.key for one in choices}) == len(choices)
    )


def _is_text(text: Any, most: int = LONGEST_TEXT) -> bool:
    return type(text) is str and len(text) <= most and "\0" not in text and _is_unicode(text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _may_lead_to(url: Any) -> bool:
    if type(url) is not str or len(url) > 8000 or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parsed = urlsplit(url)
    except ValueError:
        return False
    return url == "" or (parsed.scheme in ("https", "http") and bool(parsed.hostname))


# --- What a method may not do ----------------------------------------------------------------------------------------


class _Mailbox:
    """Takes the mail of one call, until that call is over."""

    def __init__(self) -> None:
        self._mails: list[Mail] = []
        self._closed = False

    def send(self, to: str | None, subject: str, body: str) -> None:
        """Take one mail."""
        if self._closed or self._mails:
            raise RuntimeError("one mail may be sent, while the call lasts")
        if not (to is None or isinstance(to, str)) or not isinstance(subject, str) or not isinstance(body, str):
            raise TypeError("a mail has an address or None, a subject and a body")
        self._mails.append(Mail(to, subject, body))

    def close(self) -> list[Mail]:
        """Take no more, and return what was taken."""
        self._closed = True
        return self._mails


def _no_mail(to: str | None, subject: str, body: str) -> None:  # noqa: ARG001  the shape of ``SendMail``
    raise RuntimeError("mail may be sent by start and again only")


def _no_way_out(method: str, url: str, **_options: Any) -> tuple[int, bytes]:
    raise OSError(f"{method} {urlsplit(url).hostname}: this installation has no way out")


class _Nobody:
    """A customer for whom nobody is listed."""

    def email(self, _text: str) -> str | None:
        return None

    def subject(self, _issuer: str, _subject: str) -> bool:
        return False

    def domain(self, _domain: str) -> bool:
        return False

    def pin(self, _issuer: str, _subject: str, _email: str) -> bool:
        return False
