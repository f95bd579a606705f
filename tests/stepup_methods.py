"""Step-up methods for tests: one that mails a code, one that sends the browser elsewhere, and hostile ones."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from shared_record.access.sessions import Visit
from shared_record.access.stepup import Mail, StepUp
from shared_record.access.throttle import Throttle
from shared_record.plugin import (
    Challenge,
    Choice,
    Field,
    Guessing,
    NotMine,
    Passed,
    Refused,
    StepUpContext,
    StepUpMethod,
    Verdict,
)
from shared_record.settings import Settings
from world import Shop

LISTED = "ann@customer.example"


class Unlimited(Throttle):
    """No soft limits: what is left are those in the database."""

    def hit(self, limits: Any, *key: str) -> None:
        return None

    def take(self, limits: Any, *key: str) -> None:
        return None

    def take_one_more(self, item: Any, group: str, member: str) -> None:
        return None


class Post:
    """Keeps the mail that the core queues, in place of a queue."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    def __call__(self, connection: Any, seen: Visit, slug: str, mail: Mail) -> None:
        self.mails.append(mail)


class MailedCode(StepUpMethod):
    """Two steps: an address, then the code that is mailed to it."""

    slug = "mailed_code"
    title = "Code by mail"
    factor = "MAILED_CODE"
    guessing = Guessing.ONE_TIME
    needs_mail = True
    evaluated: ClassVar[list[str]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def begin(self, ctx: StepUpContext) -> Challenge:
        return Challenge((Field("address", "Your address"),))

    def start(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Challenge | Refused:
        address = answer.get("address", "")
        if "@" not in address:
            return Refused("Enter an address.")
        code = f"{secrets.randbelow(10**8):08}"
        ctx.send_mail(address if address == LISTED else None, "Code", code)
        state = code if address == LISTED else "x" * 8
        return Challenge(
            (Field("code", "Code"),), text="If the address is listed, a code is on its way.", again="Send again",
            state=state.encode(), valid_for=timedelta(minutes=10),
        )  # fmt: skip

    def again(self, ctx: StepUpContext) -> None:
        ctx.send_mail(LISTED, "Code", ctx.state.decode())

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        with self.lock:
            self.evaluated.append(answer.get("code", ""))
        if answer.get("code", "").encode() == ctx.state:
            return Passed(LISTED)
        return Refused("That code is not right.")


class Elsewhere(StepUpMethod):
    """Sends the browser to another site, one of two."""

    slug = "elsewhere"
    title = "Sign in"
    guessing = Guessing.NONE
    passes: ClassVar[bool] = True

    def choices(self, ctx: StepUpContext) -> tuple[Choice, ...]:
        return (Choice("one", "Sign in with One"), Choice("two", "Sign in with Two"))

    def begin(self, ctx: StepUpContext) -> Challenge:
        return Challenge(button=f"Go to {ctx.choice}")

    def start(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Challenge | Refused:
        url = f"https://{ctx.choice}.example/authorize?state={ctx.ticket}&redirect_uri={ctx.callback_url}"
        return Challenge(redirect=url, state=b"verifier-" + ctx.choice.encode())

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        right = ctx.state == b"verifier-" + ctx.choice.encode() and answer.get("code") == "good"
        return Passed("ann") if right else NotMine()


def engine(shop: Shop, *methods: type[StepUpMethod], limits: Throttle | None = None, **options: Any) -> StepUp:
    """Return the step-up of a test tenant."""
    installed = {method.slug: method for method in methods}
    return StepUp(shop.db, shop.keys, shop.clock, limits or Throttle(), installed, Settings().url_for_host, **options)
