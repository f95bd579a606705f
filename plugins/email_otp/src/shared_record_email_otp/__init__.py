"""Step-up by a code that is sent to an e-mail address which the vendor listed for the record.

It shows that the person reads that mailbox now, and nothing more.
"""

from __future__ import annotations

import hmac
import json
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from string import Template

from pydantic import field_validator

from shared_record.plugin import (
    Challenge,
    Field,
    Guessing,
    MethodSettings,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
    day_text,
    hookimpl,
    mark,
)
from shared_record.plugin import gettext as _

ADDRESS, CODE = "address", "code"
DIGITS = 8
LONGEST_ADDRESS = 254
VALID_FOR = timedelta(minutes=10)
PLACEHOLDERS = frozenset({"vendor", "host", "code"})
LONGEST_NAME = 60
"""Of a vendor or host in the subject; in full they are in the text."""
_SEPARATORS = dict.fromkeys(map(ord, " -\u00a0\u2009\u2010\u2011\u2013"))


class EmailCodeSettings(MethodSettings):
    """``subject`` of the mail. ``$vendor``, ``$host`` and ``$code`` are put in; ``$code`` must be among them."""

    subject: str = mark("$vendor usage record: code $code")

    @field_validator("subject")
    @classmethod
    def _is_known(cls, text: str) -> str:
        template = Template(text)
        if not template.is_valid() or not set(template.get_identifiers()) <= PLACEHOLDERS:
            raise ValueError("the subject has the placeholders $vendor, $host and $code, and no others")
        if "code" not in template.get_identifiers() or not text.isprintable() or len(text) > 60 or text.count("$") > 3:
            raise ValueError(
                "the subject is one line of up to 60 characters, with $code and at most three placeholders"
            )
        return text


class EmailCode(StepUpMethod):
    """A code by e-mail. Whether the address is listed shows nowhere: not on the page, in its time, or its status."""

    slug = "email_otp"
    title = mark("Code by email")
    hint = mark("A code is sent to your address, if the vendor listed it.")
    factor = "EMAIL_OTP"
    settings_model = EmailCodeSettings
    guessing = Guessing.ONE_TIME
    needs_mail = True

    def begin(self, ctx: StepUpContext) -> Challenge:  # noqa: ARG002  the same for every customer
        """Ask for the address."""
        return Challenge(
            (
                Field(
                    name=ADDRESS,
                    label=_("Your email address"),
                    hint=_("If this address is on the list for this record, a code is sent to it."),
                    autocomplete="email",
                    inputmode="email",
                    max_length=LONGEST_ADDRESS,
                ),
            ),
            button=_("Send code"),
        )

    def start(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Challenge | Refused:
        """Send a code to the listed address, or a decoy nowhere, and ask for the code."""
        typed = answer.get(ADDRESS, "").strip()
        if not typed:
            return Refused(_("Enter your email address."))
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
        to, until = ctx.entitlements.email(typed), ctx.now + VALID_FOR
        _send(ctx, to, code, until)
        return Challenge(
            (
                Field(
                    name=CODE,
                    label=_("Code from the email"),
                    hint=_("Eight digits. Blanks and dashes do not matter."),
                    autocomplete="one-time-code",
                    inputmode="numeric",
                    max_length=32,
                ),
            ),
            text=_(
                "If this address is on the list for this record, a code is on its way. Enter it here, in this browser,"
                " by %(time)s UTC: it works for 10 minutes. Nothing came? Look in the spam folder. The same code can"
                " be sent again after a minute."
            )
            % {"time": f"{until:%H:%M}"},
            again=_("Send again"),
            state=_State(to or "", code, until).packed(),
            valid_for=VALID_FOR,
        )

    def again(self, ctx: StepUpContext) -> None:
        """Send the same code once more; it does not work any longer for that."""
        state = _State.unpacked(ctx.state)
        _send(ctx, state.to or None, state.code, state.until)

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        """Pass the person who gives the code that was sent. One that was sent nowhere is never right."""
        state = _State.unpacked(ctx.state)
        typed = unicodedata.normalize("NFKC", answer.get(CODE, "")).translate(_SEPARATORS).strip()
        is_right = hmac.compare_digest(typed.encode(errors="replace"), state.code.encode())
        if is_right and state.to:
            return Passed()
        return Refused(_("That code does not match. Check the newest email.") if typed else _("Enter the code."))


@dataclass(frozen=True, slots=True)
class _State:
    """What is kept of a challenge; ``to`` is empty for a decoy. Every state has the same length."""

    to: str
    code: str
    until: datetime

    def packed(self) -> bytes:
        return json.dumps([self.code, int(self.until.timestamp()), self.to.ljust(LONGEST_ADDRESS)]).encode()

    @classmethod
    def unpacked(cls, state: bytes) -> _State:
        code, until, to = json.loads(state)
        return cls(to.rstrip(), code, datetime.fromtimestamp(until, UTC))


def _send(ctx: StepUpContext, to: str | None, code: str, until: datetime) -> None:
    """Hand over the mail. It has no link: a code cannot be followed, and nothing that fetches links can use it up."""
    assert isinstance(ctx.settings, EmailCodeSettings)
    vendor, grouped = ctx.tenant_name, f"{code[:4]} {code[4:]}"
    names = {"vendor": vendor[:LONGEST_NAME], "host": ctx.host[:LONGEST_NAME]}
    subject = Template(_(ctx.settings.subject)).substitute(names, code=grouped)
    facts = {"vendor": vendor, "code": grouped, "host": ctx.host}
    facts |= {"time": f"{until:%H:%M}", "day": day_text(until.date())}
    body = (
        _("%(vendor)s usage record") % facts
        + "\n\n"
        + _("Your code: %(code)s") % facts
        + "\n\n"
        + _("Enter it on %(host)s, in the browser in which you asked for it.") % facts
        + "\n"
        + _("It works once, until %(time)s UTC on %(day)s.") % facts
        + "\n\n"
        + _(
            "If you did not ask for this, no action is needed. Nobody can open the record without the code: give it to"
            " nobody."
        )
        + "\n"
    )
    ctx.send_mail(to, subject, body)


@hookimpl
def register_step_up_methods() -> list[type[StepUpMethod]]:
    """Register the code by e-mail."""
    return [EmailCode]
