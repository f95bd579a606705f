"""Step-up: the core runs the tenant's method, limits it, and alone issues the session.

Order of one answer: soft limits -> hard reserve in the database -> the method's verdict -> one transaction that uses
the challenge up and issues the session. What a method raises counts as a refusal; a success gives the attempts back.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam
from sqlalchemy.exc import IntegrityError

from shared_record.access import attempts, challenges, devices, elsewhere, sessions
from shared_record.access.attempts import HARD_CAP, Attempt, Browser
from shared_record.access.challenges import Kept, Place
from shared_record.access.links import codes_now_valid, normalise_code
from shared_record.access.offers import Mail, Methods, Offer, Services
from shared_record.access.printed import PrintedCodes
from shared_record.access.sessions import Here, Visit
from shared_record.access.throttle import Throttle, Wait
from shared_record.clock import Clock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.schema import spent_answer
from shared_record.db.scope import Scope
from shared_record.errors import UnavailableError
from shared_record.hooks.caller import Caller, PluginFaultError
from shared_record.keys import KeyRing
from shared_record.languages import gettext as _
from shared_record.plugin import Challenge, Entitlements, Fetch, Guessing, Passed, Refused, StepUpMethod

__all__ = ["HARD_CAP", "UNAVAILABLE", "Asked", "Browser", "Mail", "NotOpened", "Offer", "Opened", "StepUp"]

CHALLENGE_TRIES = 5
SPENT_FOR = timedelta(days=30)
"""How long an answer that counts once is remembered."""

MailSink = Callable[[Connection, Visit, str, Mail], None]
"""Queues one mail of a method (slug) for a visit, in the transaction of its challenge."""

_T: BindParameter[Any] = bindparam("t")
_SPENT = (
    (spent_answer.c.tenant_id == _T)
    & (spent_answer.c.customer_id == bindparam("who"))
    & (spent_answer.c.method == bindparam("slug"))
)
_SWEEP_SPENT = spent_answer.delete().where(_SPENT, spent_answer.c.at < bindparam("before"))


@dataclass(frozen=True, slots=True)
class Asked:
    """The first form was answered; this comes next. ``ticket`` names the challenge in the next answer."""

    challenge: Challenge
    ticket: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Opened:
    """The person passed; ``sid`` goes into the session's cookie, ``device`` (if any) into the trusted device's.

    ``handle`` and ``target`` are those that a challenge kept: where it was begun, and where it leads.
    """

    sid: str = field(repr=False)
    open_until: datetime
    device: str | None = field(default=None, repr=False)
    handle: str = field(default="", repr=False)
    target: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NotOpened:
    """The person did not pass: a public reason, a code, and how long to wait where a limit is reached.

    ``asked`` is the form to show again, where it is not the method's first one. ``handle`` and ``target`` are those
    that a challenge kept. ``tries_left``: how many more answers are judged before one has to wait, where that is known.
    """

    reason: str
    code: str
    wait: Wait | None = None
    asked: Asked | None = None
    handle: str = field(default="", repr=False)
    target: str = field(default="", repr=False)
    tries_left: int | None = None


UNAVAILABLE = "STEP_UP_UNAVAILABLE"
"""The ``code`` where a method does not work at the moment, by no fault of the person."""


class StepUp:
    """The step-up of one installation."""

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        clock: Clock,
        limits: Throttle,
        installed: Mapping[str, type[StepUpMethod]],
        url_for_host: Callable[[str, str], str],
        *,
        mail: MailSink | None = None,
        entitlements: Callable[[Visit], Entitlements] | None = None,
        fetch: Callable[[Visit | None], Fetch] | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._db = db
        self._keys = keys
        self._clock = clock
        self._limits = limits
        self._mail = mail
        self._printed = PrintedCodes(db, keys)
        services = Services(entitlements, fetch, can_mail=mail is not None)
        self._methods = Methods(db, keys, clock, installed, url_for_host, self._matches, services, caller or Caller())

    def offers(self, seen: Visit) -> tuple[list[Offer], frozenset[str]]:
        """Return what the customer may use now, in the tenant's order, and the slugs that should work but do not."""
        return self._methods.offers(seen)

    def start(
        self, seen: Visit, offer: Offer, answer: Mapping[str, str], who: Browser, *, handle: str, target: str
    ) -> Asked | NotOpened:
        """Hand the answer to a method's first form to it, and keep the challenge that it makes of it."""
        wait = attempts.is_start_limited(self._limits, seen, who.client)
        if wait is not None:
            return _limited(wait)
        ticket = secrets.token_urlsafe(32)
        try:
            found, mails = self._methods.start(seen, offer, ticket, answer)
        except (PluginFaultError, UnavailableError):
            return _out()
        if isinstance(found, Refused):
            if found.event:
                with self._db.write(seen.scope) as connection:
                    attempts.note_event(connection, seen, self._clock, offer.slug, found.event)
            return NotOpened(found.public_reason, "STEP_UP_REFUSED")
        now = self._clock.now()
        asked = Asked(found, ticket, now + found.valid_for)
        place = Place(offer.slug, offer.choice.key, offer.epoch, who.binding)
        with self._db.write(seen.scope) as connection:
            kept = Kept(found, handle, target, asked.expires_at)
            challenges.keep(connection, self._keys, seen, place, ticket, kept, now)
            self._send(connection, seen, offer, mails)
        return asked

    def again(self, seen: Visit, offer: Offer, ticket: str, who: Browser) -> Asked | NotOpened:
        """Let a method do once more what it did to make a challenge, e.g. send the same code; the expiry stays."""
        kept = self._look(seen, offer, ticket, who, most=0)
        if kept is None:
            return _over()
        asked = Asked(kept.asked, ticket, kept.expires_at)
        wait = attempts.is_start_limited(self._limits, seen, who.client)
        if wait is not None:
            return _limited(wait, asked)
        if not kept.asked.again:
            return _over()
        try:
            mails = self._methods.again(seen, offer, ticket, kept.asked.state)
        except (PluginFaultError, UnavailableError):
            return _out()
        with self._db.write(seen.scope) as connection:
            self._send(connection, seen, offer, mails)
        return asked

    def verify(
        self, seen: Visit, offer: Offer, answer: Mapping[str, str], who: Browser, *, ticket: str = ""
    ) -> Opened | NotOpened:
        """Judge one answer and, if the person passed, issue a session bound to host, customer and current epochs.

        ``ticket`` names the challenge, for a method of two steps; there is no way around it.
        """
        if offer.has_two_steps != bool(ticket):
            return _over()
        with self._db.read(seen.scope) as connection:
            device = devices.find(connection, seen, who.device, self._clock.now())
        attempt = Attempt(seen, offer.slug, offer.kind.guessing, who, device)
        wait = attempts.is_limited(self._limits, attempt)
        if wait is not None:
            return _limited(wait)
        kept = None
        if ticket:
            kept = self._look(
                seen, offer, ticket, who, most=1 if attempt.guessing is Guessing.NONE else CHALLENGE_TRIES
            )
            if kept is None:
                attempts.give_back_soft(self._limits, attempt)
                return _over()
        with self._db.write(seen.scope) as connection:
            in_a_row = attempts.reserve(connection, attempt)
        if in_a_row is None:
            return NotOpened(
                _("This method is paused for this record. Contact the vendor."), "STEP_UP_PAUSED", Wait(3600)
            )
        try:
            verdict = self._methods.verify(seen, offer, ticket, kept.asked.state if kept else b"", answer)
        except UnavailableError:
            with self._db.write(seen.scope) as connection:
                attempts.give_back(connection, self._limits, attempt)
            return replace(_out(), handle=kept.handle, target=kept.target) if kept else _out()
        reason, event = _("This answer was not recognised."), ""
        if isinstance(verdict, Passed):
            opened = self._open(attempt, offer, verdict, ticket, kept)
            if opened is not None:
                attempts.passed(self._limits, attempt)
                return opened
            reason = _("This record changed while it was being opened, or the code was used before. Try again.")
        elif isinstance(verdict, Refused):
            reason, event = verdict.public_reason, verdict.event
        with self._db.write(seen.scope) as connection:
            attempts.failed(connection, self._clock, self._limits, attempt, in_a_row, event)
        code = "ACCESS_CODE_INVALID" if offer.kind.factor == "ACCESS_HINT" else "STEP_UP_REFUSED"
        if kept is None:
            return NotOpened(reason, code, tries_left=attempts.tries_left(self._limits, attempt))
        asked = Asked(kept.asked, ticket, kept.expires_at)
        return NotOpened(reason, code, asked=asked, handle=kept.handle, target=kept.target)

    def fields(self, seen: Visit, offer: Offer, ticket: str, who: Browser) -> tuple[str, ...]:
        """Return the names of the fields that are asked for: those of the challenge, or of the first form."""
        kept = self._look(seen, offer, ticket, who, most=0) if ticket else None
        return tuple(one.name for one in (kept.asked if kept else offer.challenge).fields)

    def find(self, here: Here, ticket: str, cookies: Mapping[str, str], *, secure: bool) -> Visit | None:
        """Return the visit to which the challenge with this ticket belongs; ``None`` for none, and on foreign hosts."""
        found = lookup.find_challenge(self._db, challenges.digest_of(ticket))
        if found is None:
            return None
        return sessions.look_at_customer(
            self._db, self._clock, here, found.scope, found.customer_id, cookies, secure=secure
        )

    def sign_out_url(self, seen: Visit) -> str:
        """Return where the person of this visit's session can sign out at another site too; empty for nowhere."""
        try:
            return self._methods.sign_out_url(seen) if seen.session is not None else ""
        except (PluginFaultError, UnavailableError):
            return ""

    def ended_elsewhere(self, here: Here, slug: str, choice: str, answer: Mapping[str, str]) -> bool:
        """End sessions because another site says so; tell whether its message was accepted, which it is once.

        ``UnavailableError`` where it cannot be judged now.
        """
        if here.config is None:
            return False
        scope = Scope.of(here.config)
        try:
            found = self._methods.ended_elsewhere(scope, here.host, slug, choice, answer)
        except PluginFaultError:
            return False
        if found is None:
            return False
        planes = [scope] if here.twin is None else [Scope.of(here.twin, here.config), scope]
        return elsewhere.end(self._db, self._keys, self._clock, planes, slug, found) is not None

    def _look(self, seen: Visit, offer: Offer, ticket: str, who: Browser, *, most: int) -> Kept | None:
        if not who.binding:
            return None
        place = Place(offer.slug, offer.choice.key, offer.epoch, who.binding)
        open_connection = self._db.write if most else self._db.read
        with open_connection(seen.scope) as connection:
            return challenges.take_try(connection, self._keys, seen, place, ticket, most, self._clock.now())

    def _open(self, attempt: Attempt, offer: Offer, verdict: Passed, ticket: str, kept: Kept | None) -> Opened | None:
        """Use up what may be used once and issue the session, all or nothing; ``None`` where something is gone."""
        seen, now = attempt.seen, self._clock.now()
        try:
            with self._db.write(seen.scope) as connection:
                if ticket and not challenges.use_up(connection, seen, ticket):
                    raise _GoneError
                if verdict.single_use:
                    self._spend(connection, seen, offer.slug, verdict.single_use, now)
                issued = sessions.issue(
                    connection,
                    self._clock,
                    seen,
                    offer.slug,
                    verdict.subject_hint,
                    method_epoch=offer.epoch,
                    replaces=seen.session.sid_hash if seen.session else None,
                    new_device=attempt.device is None,
                    behind=elsewhere.behind(connection, self._keys, seen.scope, offer.choice.key, verdict),
                )
                if issued is None:
                    raise _GoneError
                device = None
                if attempt.browser.may_be_trusted or attempt.device is not None:
                    device = devices.trust(connection, seen, attempt.device, now)
        except (_GoneError, IntegrityError):
            return None
        return Opened(*issued, device, kept.handle if kept else "", kept.target if kept else "")

    def _spend(self, connection: Connection, seen: Visit, slug: str, used: str, now: datetime) -> None:
        """Write down what counts once; ``IntegrityError`` if it was used before."""
        of_method = {"t": seen.scope.plane, "who": seen.customer_id, "slug": slug}
        connection.execute(_SWEEP_SPENT, of_method | {"before": now - SPENT_FOR})
        connection.execute(
            spent_answer.insert(),
            {
                "tenant_id": seen.scope.plane,
                "customer_id": seen.customer_id,
                "method": slug,
                "digest": hashlib.sha256(used.encode()).digest(),
                "at": now,
            },
        )

    def _send(self, connection: Connection, seen: Visit, offer: Offer, mails: list[Mail]) -> None:
        for mail in mails:
            if self._mail is None:
                raise UnavailableError("this installation cannot send mail.")
            self._mail(connection, seen, offer.slug, mail)

    def _matches(self, seen: Visit, text: str) -> bool:
        row, now = seen.row, self._clock.now()
        normal = normalise_code(text) if isinstance(text, str) else ""
        valid = codes_now_valid(
            self._keys,
            seen.scope.plane,
            seen.customer_id,
            version=row.code_version,
            kid=row.code_kid,
            former_kid=row.former_code_kid,
            former_until=row.former_code_until,
            now=now,
        )
        matches = [hmac.compare_digest(normal.encode(), code.encode()) for code in valid]  # each one, for equal time
        matches.append(self._printed.matches(seen, normal, now))
        return any(matches)


class _GoneError(Exception):
    """What the session would rest on is gone; nothing is written."""


def _over() -> NotOpened:
    return NotOpened(_("This form is out of date. Start again."), "CHALLENGE_OVER")


def _out() -> NotOpened:
    return NotOpened(_("This way to open the record does not work at the moment."), UNAVAILABLE, Wait(60))


def _limited(wait: Wait, asked: Asked | None = None) -> NotOpened:
    return NotOpened(_("Too many attempts were made."), "STEP_UP_THROTTLED", wait, asked)
