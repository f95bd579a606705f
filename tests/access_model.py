"""What access should be, in fewer than sixty lines: counters that changes raise, copied into whatever is granted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

IDLE, ABSOLUTE, CHALLENGE = timedelta(minutes=30), timedelta(hours=12), timedelta(minutes=10)
TRUSTED, TOUCH = timedelta(days=180), timedelta(minutes=1)
CAP, TRIES, MAX_LIVE, TABS = 6, {"email_otp": 5, "oidc": 1}, 10, 5
OUTER = {"TWO_TIER": {"landing"}, "GATED": set[str](), "OPEN": {"landing", "detail"}}


@dataclass(eq=False)
class Grant:
    """A session, a challenge or a trusted device: the counters it rests on, and what the browser holds."""

    stamp: tuple[Any, ...]
    secret: str = field(repr=False)
    made: datetime
    last: datetime
    browser: str = ""
    tries: int = 0
    ended: bool = False


class Model:
    """``place`` is where a link lives; ``None``: all hosts are out, and the platform host will do."""

    def __init__(self, hosts: tuple[str, ...], platform: str, methods: set[str], listed: set[tuple[str, str]]) -> None:
        self.primary, self.serving, self.platform = hosts[0], set(hosts), platform
        self.methods, self.listed, self.policy, self.active = methods, listed, "TWO_TIER", True
        self.own: dict[str, str | None] = {}
        self.home: dict[str, str] = {}
        self.handle: dict[str, str | None] = {}
        self.epochs, self.tries, self.spent = Counter[str](), Counter[str](), set[tuple[str, int]]()
        self.sessions, self.challenges, self.devices = list[Grant](), list[Grant](), list[Grant]()

    def place(self, who: str) -> str | None:
        homes = (self.home.get(who), self.primary)
        return next((one for one in homes if one in self.serving), min(self.serving, default=None))

    def is_known(self, at: str, handle: str, who: str) -> bool:
        return at in self.serving | {self.platform} and self.active and self.handle[who] == handle

    def stamp(self, who: str, at: str, method: str) -> tuple[Any, ...]:
        parts = (f"link {who}", f"code {who}", "tenant", f"host {at}", f"customer {who}", f"method {method}")
        return who, at, method, *(self.epochs[one] for one in parts)

    def shows(self, who: str, surface: str) -> bool:
        return surface in OUTER[self.own.get(who) or self.policy]

    def opens(self, one: Grant | None, who: str, at: str, now: datetime) -> bool:
        rests = one is not None and not one.ended and one.stamp == self.stamp(who, at, one.stamp[2])
        return rests and now < one.made + ABSOLUTE and now < one.last + IDLE

    def touch(self, one: Grant, now: datetime) -> None:
        one.last = now if now >= one.last + TOUCH else one.last

    def trusts(self, one: Grant | None, who: str, at: str, now: datetime) -> bool:
        mine = self.stamp(who, at, "")
        rests = one is not None and (one.stamp[:2], one.stamp[3:5]) == (mine[:2], mine[3:5])
        return rests and now < one.made + TRUSTED

    def judges(self, who: str, method: str, device: Grant | None) -> bool:
        name, is_bounded = (device.secret, True) if device else (who, method != "email_otp")
        if method not in self.methods or (method != "oidc" and is_bounded and self.tries[name] >= CAP):
            return False
        self.tries[name] += method != "oidc"
        return True

    def ask(self, new: Grant) -> None:
        same = [one for one in self.challenges if not one.ended and new.made < one.made + CHALLENGE]
        same = [one for one in same if one.browser == new.browser and one.stamp[:3:2] == new.stamp[:3:2]]
        for one in same[: 1 - TABS] if new.stamp[2] == "oidc" else same:
            one.ended = True
        self.challenges.append(new)

    def takes(self, one: Grant, who: str, at: str, browser: str, now: datetime) -> bool:
        lives = not one.ended and one.tries < TRIES[one.stamp[2]] and now < one.made + CHALLENGE
        taken = lives and browser == one.browser and one.stamp == self.stamp(who, at, one.stamp[2])
        one.tries += taken
        return taken

    def issue(self, new: Grant, held: Grant | None, device: Grant | None) -> None:
        who, at = new.stamp[:2]
        if held is not None and self.opens(held, who, at, new.made):
            held.ended = True
        self.tries[who] = self.tries[device.secret if device else who] = 0
        self.sessions.append(new)
        of_link = [one for one in self.sessions if one.stamp[0] == who and not one.ended]
        for one in [one for one in of_link if new.made < one.made + ABSOLUTE][:-MAX_LIVE]:
            one.ended = True
