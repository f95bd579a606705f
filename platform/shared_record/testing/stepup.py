"""What holds for every step-up method."""

from __future__ import annotations

import inspect
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from shared_record.plugin import (
    LONGEST_DEADLINE,
    MAX_STATE,
    Challenge,
    Choice,
    Entitlements,
    Fetch,
    Guessing,
    MethodSettings,
    NotMine,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
)

ODD = (
    "",
    " ",
    "\0" * 8,
    "0" * 1000,
    "\N{FULLWIDTH DIGIT ONE}" * 6,
    "\N{KELVIN SIGN}" * 6,
    "\N{ARABIC-INDIC DIGIT ONE}" * 6,
    "\ud800" * 6,
    "é" * 6,
    "' OR 1=1 --",
    "a@b.example\r\nBcc: c@d.example",
    "-1",
    "1e5",
    "0x10",
)
"""What a browser, or somebody else, may send in a text field."""


class NoWayOut(OSError):
    """A method tried to reach a network that its kit does not give it."""


@dataclass(frozen=True, slots=True)
class SentMail:
    """One mail that a method handed over."""

    to: str | None
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class _Listed:
    emails: tuple[str, ...] = ()
    subjects: tuple[tuple[str, str], ...] = ()
    domains: tuple[str, ...] = ()
    pins: dict[str, tuple[str, str]] = field(default_factory=dict)

    def email(self, text: str) -> str | None:
        return next((one for one in self.emails if one.casefold() == text.strip().casefold()), None)

    def subject(self, issuer: str, subject: str) -> bool:
        return (issuer, subject) in self.subjects

    def domain(self, domain: str) -> bool:
        return domain.casefold() in self.domains

    def pin(self, issuer: str, subject: str, email: str) -> bool:
        allowed = self.email(email) is not None or self.domain(email.rpartition("@")[2])
        return allowed and self.pins.setdefault(email.casefold(), (issuer, subject)) == (issuer, subject)


def _no_way_out(method: str, url: str, **_options: Any) -> tuple[int, bytes]:
    raise NoWayOut(f"{method} {url}")


@dataclass
class StepUpKit:
    """One customer of one tenant, as a method sees it.

    ``access_code``, ``customer_secret``, ``tenant_secrets``, ``emails``, ``subjects`` and ``domains`` are what the
    vendor set up; ``mails`` collects what the method sends. ``fetch`` answers for the network.
    """

    settings: MethodSettings = field(default_factory=MethodSettings)
    now: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    access_code: str = "K7M4QX"
    customer_secret: bytes | None = None
    tenant_secrets: Mapping[str, bytes] = field(default_factory=dict)
    emails: tuple[str, ...] = ()
    subjects: tuple[tuple[str, str], ...] = ()
    domains: tuple[str, ...] = ()
    fetch: Fetch = _no_way_out
    choice: str = ""
    mails: list[SentMail] = field(default_factory=list)
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def context(self, **changes: Any) -> StepUpContext:
        """Return a context in which nothing may be sent, with ``changes`` to its fields."""
        context = StepUpContext(
            tenant_name="Acme",
            host="usage.acme.example",
            customer_label=None,
            now=self.now,
            settings=self.settings,
            choice=self.choice,
            state=b"",
            ticket="",
            callback_url="",
            customer_secret=self.customer_secret,
            entitlements=self._entitlements(),
            matches_access_code=self._matches,
            tenant_secret=self.tenant_secrets.get,
            send_mail=_refuse_mail,
            fetch=self.fetch,
        )
        return replace(context, **changes)

    def start(self, method: type[StepUpMethod], answer: Mapping[str, str]) -> Challenge | Refused:
        """Answer the first form, as a POST does."""
        return method().start(self._acting(method), answer)

    def again(self, method: type[StepUpMethod], asked: Challenge) -> None:
        """Press the second button of a challenge."""
        method().again(replace(self._acting(method), state=asked.state))

    def verify(self, method: type[StepUpMethod], answer: Mapping[str, str], asked: Challenge | None = None) -> Verdict:
        """Answer the last form."""
        if asked is None:
            return method().verify(self.context(), answer)
        return method().verify(replace(self._acting(method), state=asked.state, send_mail=_refuse_mail), answer)

    def later(self, **by: float) -> None:
        """Let time pass, e.g. ``later(seconds=30)``."""
        self.now += timedelta(**by)

    def _acting(self, method: type[StepUpMethod]) -> StepUpContext:
        url = f"https://usage.acme.example/auth/{method.slug}/{self.choice}" if self.choice else ""
        return self.context(ticket=self.ticket, callback_url=url, send_mail=self._send)

    def _matches(self, text: str) -> bool:
        return secrets.compare_digest(re.sub(r"[ \t-]", "", text).upper().encode("utf-8", "replace"), self._code())

    def _code(self) -> bytes:
        return self.access_code.encode()

    def _send(self, to: str | None, subject: str, body: str) -> None:
        self.mails.append(SentMail(to, subject, body))

    def _entitlements(self) -> Entitlements:
        return _Listed(self.emails, self.subjects, self.domains)


def _refuse_mail(to: str | None, subject: str, body: str) -> None:
    raise RuntimeError(f"mail may be sent by start and again only: {subject!r} to {to} ({len(body)} characters)")


class StepUpMethodContract:
    """Subclass it as ``class TestMine(StepUpMethodContract)`` and fill in ``method``, ``kit`` and ``right_answer``.

    For a method of two steps fill in ``first_answer`` too; for one that sends the browser elsewhere, ``right_answer``
    gives the query parameters with which it comes back.
    """

    method: ClassVar[type[StepUpMethod]]

    def kit(self) -> StepUpKit:
        """Return a customer who can use the method. Each call returns another one, with secrets of its own."""
        raise NotImplementedError

    def right_answer(self, kit: StepUpKit, asked: Challenge | None) -> Mapping[str, str]:
        """Return what passes; ``asked`` is what ``start`` returned, for a method of two steps."""
        raise NotImplementedError

    def first_answer(self, kit: StepUpKit) -> Mapping[str, str]:  # noqa: ARG002
        """Return what a person who is entitled enters in the first form of two."""
        return {}

    def unknown_first_answer(self, kit: StepUpKit) -> Mapping[str, str] | None:  # noqa: ARG002
        """Return what somebody who is not entitled enters in the first form; ``None`` where there is no such thing."""
        return None

    # --- What the tests share ---

    @property
    def has_two_steps(self) -> bool:
        """Whether the method defines ``start``."""
        return self.method.start is not StepUpMethod.start

    def asked(self, kit: StepUpKit) -> Challenge | None:
        """Return the challenge of the second step, or ``None`` for a method of one."""
        if not self.has_two_steps:
            return None
        found = kit.start(self.method, self.first_answer(kit))
        assert isinstance(found, Challenge), f"start refused the first answer: {found}"
        return found

    def timed(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns; it must be well within the deadline."""
        before = time.monotonic()
        result = call()
        assert time.monotonic() - before < self.method.deadline
        return result

    # --- The tests ---

    def test_it_is_complete_and_named(self) -> None:
        """It can be registered, chosen in a tenant file, and shown."""
        assert not inspect.isabstract(self.method)
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.method.slug)
        assert self.method.title.strip()
        assert issubclass(self.method.settings_model, MethodSettings)
        assert self.method.settings_model.model_config.get("extra") == "forbid", "unknown settings must be errors"
        assert isinstance(self.method.guessing, Guessing)
        assert 0 < self.method.deadline <= LONGEST_DEADLINE

    def test_choices_have_keys_and_titles(self) -> None:
        """The chooser can list every way to use it, once each."""
        kit = self.kit()
        choices = self.timed(lambda: self.method().choices(kit.context(choice="")))
        assert choices
        assert all(isinstance(one, Choice) and one.title.strip() for one in choices)
        keys = [one.key for one in choices]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch(r"(?:[a-z0-9][a-z0-9_-]{0,62})?", key) for key in keys)
        assert kit.choice in keys

    def test_the_first_form_is_data_and_has_no_effect(self) -> None:
        """A GET shows it: twice the same, sending nothing, keeping nothing, asking no network."""
        kit = self.kit()
        context = replace(kit.context(), fetch=_no_way_out)
        assert self.method().availability(context) is True
        first = self.timed(lambda: self.method().begin(context))
        assert isinstance(first, Challenge)
        assert first == self.method().begin(context)
        assert (first.redirect, first.state, first.again) == ("", b"", "")
        assert not kit.mails
        names = [one.name for one in first.fields]
        assert len(set(names)) == len(names)
        assert all(one.label.strip() for one in first.fields)

    def test_the_right_answer_passes(self) -> None:
        """And what it says of the person is short text without control characters."""
        kit = self.kit()
        asked = self.asked(kit)
        verdict = self.timed(lambda: kit.verify(self.method, self.right_answer(kit, asked), asked))
        assert isinstance(verdict, Passed), verdict
        assert len(verdict.subject_hint) <= 200
        assert verdict.subject_hint.isprintable()
        assert len(verdict.single_use) <= 200

    def test_it_keeps_nothing_between_calls(self) -> None:
        """Another customer's right answer does not pass, in whichever order they come."""
        one, other = self.kit(), self.kit()
        asked_one, asked_other = self.asked(one), self.asked(other)
        answer = self.right_answer(one, asked_one)
        assert isinstance(one.verify(self.method, answer, asked_one), Passed)
        assert not isinstance(other.verify(self.method, answer, asked_other), Passed)
        assert not vars(self.method()), "state belongs in Challenge.state, not on the instance"

    def test_wrong_and_odd_answers_are_refused(self) -> None:
        """Whatever is sent, it answers in time, with a reason that does not repeat it."""
        for answer in self.wrong_answers():
            kit = self.kit()
            asked = self.asked(kit)
            verdict = self.timed(lambda: kit.verify(self.method, answer, asked))  # noqa: B023  called at once
            assert isinstance(verdict, Refused | NotMine), answer
            if isinstance(verdict, Refused):
                assert verdict.public_reason.strip()
                assert len(verdict.public_reason) <= 500
                assert not any(len(text) > 3 and text in verdict.public_reason for text in answer.values())

    def test_odd_first_answers_are_borne(self) -> None:
        """The first form of two takes whatever is sent, and at most one mail results."""
        if not self.has_two_steps:
            return
        names = list(self.first_answer(self.kit())) or [
            one.name for one in self.method().begin(self.kit().context()).fields
        ]
        for text in ODD:
            kit = self.kit()
            found = self.timed(lambda: kit.start(self.method, dict.fromkeys(names, text)))  # noqa: B023
            assert isinstance(found, Challenge | Refused)
            assert len(kit.mails) <= 1

    def test_the_challenge_can_be_kept(self) -> None:
        """What is asked next fits the limits; its state is small, and no secret shows in the page."""
        kit = self.kit()
        asked = self.asked(kit)
        if asked is None:
            return
        assert len(asked.state) <= MAX_STATE
        assert timedelta(seconds=1) <= asked.valid_for <= timedelta(hours=1)
        assert bool(asked.redirect) != bool(asked.fields), "a challenge has fields, or leads elsewhere"
        if not asked.redirect:
            shown = f"{asked.text} {asked.button} {asked.again} {asked.fields}"
            answers = self.right_answer(kit, asked).values()
            assert not any(text in shown for text in answers)

    def test_nobody_learns_from_the_first_form_who_is_entitled(self) -> None:
        """Those who are not get the same next form and, if a mail is sent, a decoy in its place."""
        kit, other = self.kit(), self.kit()
        unknown = self.unknown_first_answer(other)
        if unknown is None:
            return
        asked, decoy = self.asked(kit), other.start(self.method, unknown)
        assert isinstance(decoy, Challenge)
        assert asked is not None
        assert replace(asked, state=b"") == replace(decoy, state=b"")
        assert len(asked.state) == len(decoy.state)
        assert [mail.to is None for mail in other.mails] == [True] * len(kit.mails)
        for answer in (self.right_answer(kit, asked), *self.wrong_answers()):
            assert not isinstance(other.verify(self.method, answer, decoy), Passed)

    def wrong_answers(self) -> Iterable[Mapping[str, str]]:
        """Yield answers that must not pass: none, odd ones, and the right one with something changed."""
        kit = self.kit()
        names = list(self.right_answer(kit, self.asked(kit)))
        yield {}
        for text in ODD:
            yield dict.fromkeys(names, text)
        yield {f"{name}x": text for name, text in self.right_answer(kit, self.asked(kit)).items()}
