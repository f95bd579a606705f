"""The application as the access machine drives it: real, but for its soft limits, its mail queue and its network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from shared_record_access_code import AccessCode
from shared_record_email_otp import EmailCode
from shared_record_example_totp import TotpDevice
from shared_record_oidc import Oidc
from shared_record_oidc.provider import Cache
from sqlalchemy import event

from access_model import CAP
from client import PORT
from mock_idp import MockIdp
from servers import free_port, valkey
from shared_record.access import attempts, throttle
from shared_record.app import create_app
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.hooks.caller import Caller, PluginFaultError
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.keys import KeyRing
from shared_record.plugin import StepUpContext, StepUpMethod, Verdict
from shared_record.settings import Settings
from stepup_methods import Post, Unlimited

KINDS: tuple[type[StepUpMethod], ...] = (AccessCode, EmailCode, TotpDevice, Oidc)
T = TypeVar("T")


class Boundless(Unlimited):
    """No limits by network or tenant either: all examples come from one."""

    def is_above(self, item: Any, *key: str) -> bool:
        return False

    def count(self, item: Any, *key: str, by: int = 1) -> int:
        return 0


class AtOnce(Caller):
    """Calls methods without a thread each; deadlines have tests of their own."""

    def call(self, slug: str, owner: Any, deadline: float, call: Callable[[], T]) -> T:
        try:
            return call()
        except (TypeError, KeyError, ValueError) as error:
            raise PluginFaultError(slug) from error


class Kept:
    """A Valkey that can be killed, and comes back empty."""

    def __init__(self) -> None:
        self._port = free_port()
        self._stack = contextlib.ExitStack()
        self.url, self.is_there = self._stack.enter_context(valkey(port=self._port)), True

    def switch(self) -> None:
        """Kill it, or start it again."""
        self._stack.close()
        if not self.is_there:
            self._stack.enter_context(valkey(port=self._port))
        self.is_there = not self.is_there

    def close(self) -> None:
        """End it."""
        self._stack.close()


@dataclass
class Parts:
    """What a machine has at hand. ``judged`` names the method of each answer that a plugin was asked about."""

    application: Any
    post: Post
    idp: MockIdp
    judged: list[str]
    kept: Kept | None


@contextlib.contextmanager
def installed(
    db: Database, keys: KeyRing, clock: SteppedClock, patch: pytest.MonkeyPatch, *, with_valkey: bool
) -> Iterator[Parts]:
    """Put the application together; with a Valkey, its own limits count there, too wide to be reached."""
    if not db.is_postgresql:
        event.listen(db.engine, "connect", lambda one, _: one.execute("PRAGMA synchronous=OFF"))
    post, judged, kept = Post(), list[str](), Kept() if with_valkey else None
    idp = MockIdp(clock.now, name="https://id.acme.example")
    patch.setattr(attempts, "HARD_CAP", CAP)
    patch.setattr(logging.getLogger("shared_record"), "level", logging.CRITICAL)  # refusals are warnings
    patch.setattr("shared_record_oidc._cache", Cache())
    patch.setattr("shared_record.access.stepup.Caller", AtOnce)
    patch.setattr("shared_record.app.open_post", lambda settings: True)
    patch.setattr("shared_record.app.mail_sink", lambda keys, clock: post)
    patch.setattr("shared_record.app.Fetcher", lambda egress: fetch_from(idp))
    if kept is None:
        patch.setattr("shared_record.app.Throttle", Boundless)
    else:
        _widen(patch)
    real = load_plugins()
    plugins = Plugins({one.slug: counted(one, judged) for one in KINDS}, real.export_formats, real.theme_roots)
    settings = Settings(port=PORT, redis_url=kept.url if kept else "")
    application = create_app(settings, keys=keys, db=db, clock=clock, plugins=plugins)
    application._resolver._monotonic = lambda: 1e9  # what it remembers of hosts is always as good as new
    try:
        yield Parts(application, post, idp, judged, kept)
    finally:
        if kept is not None:
            kept.close()


def counted(kind: type[StepUpMethod], judged: list[str]) -> type[StepUpMethod]:
    """Return a method that notes each answer it judges."""

    class Counted(kind):  # type: ignore[misc, valid-type]
        def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
            judged.append(kind.slug)
            return super().verify(ctx, answer)  # type: ignore[no-any-return]

    return Counted


def fetch_from(idp: MockIdp) -> Callable[..., tuple[int, bytes]]:
    """Return what asks a provider without a network between."""

    def fetch(method: str, url: str, *, body: bytes = b"", headers: Mapping[str, str] = {}, **_: Any) -> Any:
        return idp.answer(urlsplit(url).path, headers.get("Authorization", ""), body)

    return fetch


def _widen(patch: pytest.MonkeyPatch) -> None:
    def wide(item: Any) -> Any:
        return type(item)(item.amount * 10**6, item.multiples, namespace=item.namespace)

    for name, value in list(vars(throttle).items()):
        if isinstance(value, throttle.RateLimitItem):
            patch.setattr(throttle, name, wide(value))
        elif isinstance(value, tuple) and all(isinstance(one, throttle.RateLimitItem) for one in value):
            patch.setattr(throttle, name, tuple(map(wide, value)))
    patch.setattr("shared_record.web.record.visits.HANDLE_MISSES", throttle.HANDLE_MISSES)
