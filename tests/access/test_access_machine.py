"""Access as a state machine: whatever the vendor changes, in any order, a session opens what it should and no more.

A small model predicts each answer. No byte of the inner tier without a valid session; nothing is accepted once a
change that ends it is committed; no more tries at a code are judged than the cap allows.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from shared_record_access_code import AccessCode
from shared_record_email_otp import EmailCode
from shared_record_example_totp import TotpDevice, code_at, seed_of
from sqlalchemy import select
from werkzeug.test import TestResponse

from client import PORT, Visitor
from shared_record.access import attempts, entitlements, links, method_secrets
from shared_record.access.sessions import cookie_name
from shared_record.app import create_app
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import host, link
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.hosts.resolver import bump_generation
from shared_record.keys import KeyRing
from shared_record.plugin import StepUpContext, StepUpMethod, Verdict
from shared_record.settings import Settings
from shared_record.tenancy.methods import put_methods
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from shared_record.web import csrf
from stepup_methods import Post, Unlimited
from world import open_shop

CAP = 6
"""Stands for the 100 wrong answers in a row of a real installation."""
NAMES = ("cust_a", "cust_b")
UNKNOWN = "0" * 26
PLATFORM, FOREIGN = "localhost", "usage.foreign.localhost"
FACTORS = {"access_code": "ACCESS_HINT", "totp_device": "TOTP", "email_otp": "EMAIL_OTP"}
SURFACES = {"landing": ".json", "detail": "/activity.json", "access log": "/access-log.json"}
OUTER = {"TWO_TIER": {"landing"}, "GATED": set[str](), "OPEN": {"landing", "detail"}}
IDLE, ABSOLUTE, CODE_LIVES = timedelta(minutes=30), timedelta(hours=12), timedelta(minutes=10)
MAX_LIVE, CODE_TRIES = 10, 5
SEED = b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
TICKS = [timedelta(seconds=s) for s in (1, 29, 31, 59, 60, 61, 90, 300, 599, 600, 1200, 1799, 1800, 14400, 43200)]
CHANGES = ("code", "link", "policy", "own_policy", "home", "host", "tenant", "methods", "addresses")
WHO, WHICH = st.sampled_from(NAMES), st.integers(0, 2**16)
_number = itertools.count()


# --- The model -------------------------------------------------------------------------------------------------------


@dataclass
class Grant:
    """A session, or a code that was mailed: the counters it rests on, and its times."""

    stamp: tuple[Any, ...]
    secret: str
    made: datetime
    last: datetime
    ended: bool = False
    tries: int = 0
    browser: str = ""


class Model:
    """What the vendor chose, as counters that each change raises."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self.epochs, self.tries = Counter[str](), Counter[str]()
        self.serving, self.methods = set(hosts), set(FACTORS)
        self.primary, self.active, self.policy = hosts[0], True, "TWO_TIER"
        self.own, self.home, self.handle, self.former = {}, {}, {}, {}  # type: ignore[var-annotated]
        self.listed, self.spent = set(NAMES), set[tuple[str, int]]()
        self.sessions: list[Grant] = []

    def place(self, who: str) -> str | None:
        """Where a link lives; ``None``: the primary host is out, and any other of the tenant will do."""
        return next((one for one in (self.home.get(who), self.primary) if one in self.serving), None)

    def is_known(self, at: str, handle: str, who: str) -> bool:
        return at in self.serving | {PLATFORM} and self.active and self.handle[who] == handle

    def stamp(self, who: str, at: str, method: str) -> tuple[Any, ...]:
        parts = ("tenant", f"host {at}", f"link {who}", f"code {who}", f"customer {who}", f"method {method}")
        return who, at, method, *(self.epochs[one] for one in parts)

    def opens(self, grant: Grant | None, who: str, at: str, now: datetime) -> bool:
        if grant is None or grant.ended or grant.stamp != self.stamp(who, at, grant.stamp[2]):
            return False
        return now < grant.made + ABSOLUTE and now < grant.last + IDLE

    def shows(self, who: str, surface: str) -> bool:
        return surface in OUTER[self.own.get(who) or self.policy]

    def touch(self, grant: Grant, now: datetime) -> None:
        grant.last = now if now >= grant.last + timedelta(minutes=1) else grant.last

    def judges(self, who: str, method: str) -> bool:
        if method not in self.methods or (method != "email_otp" and self.tries[who] >= CAP):
            return False
        self.tries[who] += 1
        return True

    def issue(self, who: str, grant: Grant, replaced: Grant | None) -> None:
        if self.opens(replaced, *grant.stamp[:2], grant.made):
            replaced.ended = True  # type: ignore[union-attr]
        self.tries[who] = 0
        self.sessions.append(grant)
        of_link = [one for one in self.sessions if one.stamp[0] == who and not one.ended]
        for one in [one for one in of_link if grant.made < one.made + ABSOLUTE][:-MAX_LIVE]:
            one.ended = True


# --- The machine -----------------------------------------------------------------------------------------------------


class Boundless(Unlimited):
    """No limits by network or tenant either: all examples come from one."""

    def is_above(self, item: Any, *key: str) -> bool:
        return False

    def count(self, item: Any, *key: str, by: int = 1) -> int:
        return 0


def counted(kind: type[StepUpMethod], judged: list[str]) -> type[StepUpMethod]:
    """Return a method that notes each answer it judges."""

    class Counted(kind):  # type: ignore[misc, valid-type]
        def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
            judged.append(kind.slug)
            return super().verify(ctx, answer)  # type: ignore[no-any-return]

    return Counted


class Access(RuleBasedStateMachine):
    """One tenant with two hosts and two customers, beside another tenant; each example has tenants of its own."""

    db: Database
    keys: KeyRing
    folder: Path
    application: Any
    clock: SteppedClock
    start: datetime
    post: Post
    judged: list[str]
    steps: ClassVar[Counter[str]] = Counter()

    @initialize()
    def begin(self) -> None:
        number = next(_number)
        hosts = (f"a{number}.acme.localhost", f"b{number}.acme.localhost")
        self.clock.advance(seconds=(self.start - self.clock.now()).total_seconds())
        self.shop = open_shop(self.db, self.keys, self.clock, self.folder, slug=f"s{number}", hosts=hosts)
        self.shop.record("cust_a", "111.5", reason="canary-cust_a")
        self.shop.record("cust_b", "222.5", reason="canary-cust_b")
        self.hosts = (*hosts, PLATFORM, FOREIGN)
        self.visitor = Visitor(self.application)
        self.model = Model(hosts)
        self.links, self.codes = {}, {}  # type: ignore[var-annotated]
        self.handles: list[tuple[str, str]] = []
        self.mailed: list[tuple[Grant, str, str]] = []
        self.run = Counter[str]()
        with self.write() as connection:
            put_methods(connection, self.shop.scope, [(slug, {}) for slug in FACTORS])
            for who in NAMES:
                rule_ = entitlements.email(f"{who}@customer.example")
                entitlements.allow(connection, self.keys, self.clock, self.shop.scope, who, rule_, "test")
                method_secrets.set_customer_secret(
                    connection, self.keys, self.clock, self.shop.scope, who, "totp_device", SEED, "test"
                )
                self.take_handle(links.show_link(connection, self.keys, self.shop.scope, who), who)
                code = links.reveal_code(connection, self.keys, self.clock, self.shop.scope, who, "test")
                self.codes[who] = [code]
                of_customer = (
                    link.c.customer_id == links.show_link(connection, self.keys, self.shop.scope, who).customer_id
                )
                mine = select(link.c.link_id).where(link.c.tenant_id == self.shop.scope.plane, of_customer)
                self.links[who] = connection.execute(mine).scalar_one()

    def write(self) -> Any:
        return self.db.write(self.shop.scope)

    def take_handle(self, found: links.Link, who: str) -> None:
        self.model.handle[who] = found.handle
        if found.handle:
            self.handles.append((who, found.handle))

    def send(self, method: str, at: str, path: str, cookies: Mapping[str, str], **options: Any) -> TestResponse:
        self.steps["requests"] += 1
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return self.visitor.request(method, f"{at}{path}", headers={"Cookie": header}, **options)

    def cookies(self, who: str, grant: Grant | None) -> dict[str, str]:
        return {cookie_name(self.links[who], secure=False): grant.secret} if grant else {}

    def is_elsewhere(self, answer: TestResponse, at: str, handle: str, who: str) -> bool:
        """Tell whether the link is not open here at all, after holding the answer against that."""
        if not self.model.is_known(at, handle, who):
            assert answer.status_code in (404, 421)
        elif self.model.place(who) not in (at, None):
            assert answer.status_code in (303, 409)
        else:
            return False
        assert "canary" not in answer.text
        assert "sr-" not in str(answer.headers.getlist("Set-Cookie"))
        return True

    # --- Reading -----------------------------------------------------------------------------------------------------

    def look(self, who: str, handle: str, at: str, surface: str, grant: Grant | None) -> None:
        now = self.clock.now()
        answer = self.send("GET", at, f"/c/{handle}{SURFACES[surface]}", self.cookies(who, grant))
        if self.is_elsewhere(answer, at, handle, who):
            return
        is_open = self.model.opens(grant, who, at, now)
        allowed = is_open or self.model.shows(who, surface)
        assert answer.status_code == (200 if allowed else 401), (surface, grant, answer.text)
        assert set(re.findall(r"canary-(\w+)", answer.text)) <= ({who} if allowed and surface == "detail" else set())
        if surface == "detail" and allowed and now.month == self.start.month:
            assert f"canary-{who}" in answer.text
        if not allowed:
            assert not re.search(r"111\.5|222\.5", answer.text)
        if is_open and grant is not None:
            self.steps["opened"] += 1
            self.model.touch(grant, now)

    @rule(who=WHO, surface=st.sampled_from([*SURFACES]))
    def read_as_a_stranger(self, who: str, surface: str) -> None:
        self.look(who, self.model.handle[who] or UNKNOWN, self.model.place(who) or PLATFORM, surface, None)

    @precondition(lambda self: self.model.sessions)
    @rule(which=st.integers(0, 3), surface=st.sampled_from([*SURFACES]))
    def read_as_the_customer(self, which: int, surface: str) -> None:
        grant = self.model.sessions[-1 - which % len(self.model.sessions)]
        who, at = grant.stamp[:2]
        self.look(who, self.model.handle[who] or UNKNOWN, at, surface, grant)

    @precondition(lambda self: self.model.sessions)
    @rule(which=WHICH, old=WHICH, surface=st.sampled_from([*SURFACES]))
    def replay_on_every_host(self, which: int, old: int, surface: str) -> None:
        grant = self.model.sessions[which % len(self.model.sessions)]
        who, handle = self.handles[old % len(self.handles)]
        for at in self.hosts:
            self.look(who, handle, at, surface, grant)

    # --- Unlocking ---------------------------------------------------------------------------------------------------

    def verify(self, who: str, method: str, value: str, at: str, held: Grant | None, **more: str) -> TestResponse:
        handle = self.model.handle[who] or UNKNOWN
        ticket, browser = more.get("challenge", ""), more.get("browser", "")
        cookies = self.cookies(who, held) | ({"sr-pre": browser} if browser else {})
        body = {"factor": FACTORS[method], "value": value} | ({"challenge": ticket} if ticket else {})
        return self.send("POST", at, f"/api/v1/c/{handle}/access/verify", cookies, json=body)

    def settle(self, who: str, method: str, at: str, held: Grant | None, answer: TestResponse, right: bool) -> None:
        """Hold one judged or refused answer against the model, and note the session it made."""
        judged, now = len(self.judged), self.clock.now()
        self.judged.clear()
        expected = self.model.judges(who, method)
        assert judged == int(expected), answer.text
        self.run[who] += judged if method != "email_otp" else 0
        assert self.run[who] <= CAP
        made = [line for line in answer.headers.getlist("Set-Cookie") if re.match(r"sr-[0-9a-f]{8}=", line)]
        if not (expected and right):
            assert answer.status_code in (400, 403, 429), answer.text
            assert not made
            return
        assert answer.status_code == 200, answer.text
        self.steps[f"unlocked by {method}"] += 1
        self.run[who] = 0
        sid = made[0].partition("=")[2].partition(";")[0]
        self.model.issue(who, Grant(self.model.stamp(who, at, method), sid, now, now), held)

    def held(self, which: int, who: str) -> Grant | None:
        mine = [one for one in self.model.sessions[-4:] if one.stamp[0] == who]
        return mine[which % len(mine)] if mine and which % 2 else None

    def try_at_home(self, who: str, method: str, value: str, right: bool, which: int) -> None:
        self.clock.advance(seconds=1)
        at, held = self.model.place(who) or PLATFORM, self.held(which, who)
        answer = self.verify(who, method, value, at, held)
        if not self.is_elsewhere(answer, at, self.model.handle[who] or UNKNOWN, who):
            self.settle(who, method, at, held, answer, right)

    @rule(who=WHO, age=st.sampled_from([0, 0, 0, 1, 2]), which=WHICH)
    def enter_a_code(self, who: str, age: int, which: int) -> None:
        self.clock.advance(seconds=1)
        code = self.codes[who][-1 - age] if age < len(self.codes[who]) else "WRONG2"
        until = self.model.former.get(who)
        in_time = until is not None and self.clock.now() + timedelta(seconds=1) < until
        right = age < len(self.codes[who]) and (age == 0 or (age == 1 and in_time))
        self.try_at_home(who, "access_code", code, right, which)

    @rule(who=WHO, times=st.integers(1, 3), method=st.sampled_from(["access_code", "totp_device"]))
    def guess(self, who: str, times: int, method: str) -> None:
        for _ in range(times):
            self.try_at_home(who, method, "222222x" if method == "access_code" else "000", False, 0)

    @rule(who=WHO, which=WHICH, waits=st.booleans())
    def use_the_app(self, who: str, which: int, waits: bool) -> None:
        self.clock.advance(seconds=90 if waits else 0)
        step = int((self.clock.now() + timedelta(seconds=1)).timestamp()) // 30
        seed = seed_of(SEED)
        assert seed is not None
        value, sessions = code_at(seed, step), len(self.model.sessions)
        self.try_at_home(who, "totp_device", value, (who, step) not in self.model.spent, which)
        if len(self.model.sessions) > sessions:
            self.model.spent.add((who, step))

    @rule(who=WHO)
    def ask_for_a_mail(self, who: str) -> None:
        at, browser = self.model.place(who) or PLATFORM, f"browser-{len(self.mailed):036}"
        self.post.mails.clear()
        answer = self.verify(who, "email_otp", f"{who}@customer.example", at, None, browser=browser)
        if self.is_elsewhere(answer, at, self.model.handle[who] or UNKNOWN, who):
            return
        if "email_otp" not in self.model.methods:
            assert answer.status_code == 400
            return
        assert answer.status_code == 202, answer.text
        (mail,) = self.post.mails
        assert (mail.to is not None) == (who in self.model.listed)
        code = re.search(r"code: (\d{4} \d{4})", mail.body) if mail.to else None
        now = self.clock.now()
        ticket = answer.json["data"]["challenge"]
        kept = Grant(self.model.stamp(who, at, "email_otp"), ticket, now, now, browser=browser)
        self.mailed.append((kept, who, code[1] if code else ""))

    @precondition(lambda self: self.mailed)
    @rule(which=st.integers(0, 2), elsewhere=st.booleans(), guess=st.booleans(), stolen=st.booleans(), held=WHICH)
    def answer_a_mail(self, which: int, elsewhere: bool, guess: bool, stolen: bool, held: int) -> None:
        self.clock.advance(seconds=1)
        kept, who, code = self.mailed[-1 - which % len(self.mailed)]
        at = self.hosts[held % 3] if elsewhere and guess else self.model.place(who) or PLATFORM
        stolen, mine = stolen and guess and held % 3 == 0, self.held(held, who)
        guess = guess and held % 5 > 2
        value, browser = (code or "1234 5678") if not guess else "0000 000x", "thief" * 9 if stolen else kept.browser
        answer = self.verify(who, "email_otp", value, at, mine, challenge=kept.secret, browser=browser)
        if self.is_elsewhere(answer, at, self.model.handle[who] or UNKNOWN, who):
            return
        lives = self.clock.now() < kept.made + CODE_LIVES and kept.tries < CODE_TRIES and not kept.ended
        if stolen or not lives or kept.stamp != self.model.stamp(who, at, "email_otp"):
            assert answer.status_code in (400, 403), answer.text
            assert self.judged == []
            return
        kept.tries += 1
        right = bool(code) and not guess
        self.settle(who, "email_otp", at, mine, answer, right)
        kept.ended = right

    # --- Closing -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.sessions)
    @rule(which=st.integers(0, 3), everywhere=st.booleans())
    def log_out(self, which: int, everywhere: bool) -> None:
        grant = self.model.sessions[-1 - which % len(self.model.sessions)]
        who, at = grant.stamp[:2]
        handle = self.model.handle[who] or UNKNOWN
        form = {"csrf_token": csrf.token(self.keys, grant.secret, at, self.links[who])}
        path = f"/c/{handle}/{'sessions/end' if everywhere else 'close'}"
        answer = self.send("POST", at, path, self.cookies(who, grant), data=form)
        if not self.model.is_known(at, handle, who):
            assert answer.status_code in (404, 421)
            return
        assert answer.status_code == 303
        if self.model.place(who) in (at, None) and self.model.opens(grant, who, at, self.clock.now()):
            for one in self.model.sessions if everywhere else [grant]:
                one.ended = one.ended or one.stamp[0] == who
        self.look_at_newest()

    # --- What the vendor changes -------------------------------------------------------------------------------------

    def look_at_newest(self) -> None:
        """Read with the newest session at once: nothing may lag behind the commit."""
        for who in NAMES:
            mine = [one for one in self.model.sessions if one.stamp[0] == who][-1:]
            for grant in mine:
                self.look(who, self.model.handle[who] or UNKNOWN, grant.stamp[1], "detail", grant)

    def change(self, act: Any, *arguments: Any, keyed: bool = True, **named: Any) -> Any:
        with self.write() as connection:
            tools = (self.keys, self.clock) if keyed else (self.clock,)
            return act(connection, *tools, self.shop.scope, *arguments, "test", **named)

    @rule(what=st.sampled_from(CHANGES), who=WHO, which=WHICH)
    def the_vendor_changes(self, what: str, who: str, which: int) -> None:
        if not self.model.active:
            what = "tenant"
        elif len(self.model.serving) < 2 and which % 3:
            what = "host"
        if which % 5 > 1:  # most changes find a session that is open
            self.try_at_home(who, "access_code", self.codes[who][-1], True, 0)
        self.steps[f"changes of {what}"] += 1
        getattr(self, f"change_{what}")(who, which)
        self.look_at_newest()

    def change_code(self, who: str, which: int) -> None:
        lasts = timedelta(minutes=(0, 20, 600)[which % 3])
        self.codes[who].append(self.change(links.rotate_code, who, overlap=lasts))
        self.model.former[who] = self.clock.now() + lasts if lasts else None
        self.model.epochs[f"code {who}"] += 1
        self.model.tries[who] = self.run[who] = 0

    def change_link(self, who: str, which: int) -> None:
        if which % 3 or self.model.handle[who] is None:
            self.take_handle(self.change(links.reissue_link, who), who)
            self.model.tries[who] = self.run[who] = 0
        else:
            self.take_handle(self.change(links.revoke_link, who), who)
        self.model.epochs[f"link {who}"] += 1

    def change_policy(self, who: str, which: int) -> None:
        policy = [*Policy][which % 3]
        self.change(links.set_tenant_policy, policy, keyed=False)
        self.model.epochs["tenant"] += int(policy != self.model.policy)
        self.model.policy = policy.value

    def change_own_policy(self, who: str, which: int) -> None:
        own = (None, *(one.value for one in Policy))[which % 4]
        self.change(links.set_customer_policy, who, own or "INHERIT", keyed=False)
        self.model.epochs[f"customer {who}"] += int(own != self.model.own.get(who))
        self.model.own[who] = own

    def change_home(self, who: str, which: int) -> None:
        if not self.model.serving:
            return
        to = sorted(self.model.serving)[which % len(self.model.serving)]
        primary = self.model.primary if self.model.primary in self.model.serving else None
        self.change(links.move_host, who, to)
        if to != (self.model.home.get(who) or primary):
            self.model.epochs[f"customer {who}"] += 1
            self.model.home[who] = to

    def change_host(self, who: str, which: int) -> None:
        name = self.hosts[which % 2]
        role = "suspended" if name in self.model.serving else "serving"
        with self.write() as connection:
            mine = (host.c.tenant_id == self.shop.scope.config) & (host.c.host == name)
            connection.execute(host.update().where(mine).values(role=role, epoch=host.c.epoch + 1))
            bump_generation(connection)
        self.model.serving ^= {name}
        self.model.epochs[f"host {name}"] += 1
        if role == "serving":
            self.application._resolver.look_again()  # within a second it would by itself; a suspension needs no second

    def change_tenant(self, who: str, which: int) -> None:
        self.model.active = not self.model.active
        with self.write() as connection:
            update_tenant(connection, self.shop.scope, {"state": "active" if self.model.active else "suspended"})
        self.model.epochs["tenant"] += 1

    def change_methods(self, who: str, which: int) -> None:
        method = [*FACTORS][which % 3]
        self.model.epochs[f"method {method}"] += int(method in self.model.methods)
        self.model.methods ^= {method}
        with self.write() as connection:
            put_methods(connection, self.shop.scope, [(one, {}) for one in FACTORS if one in self.model.methods])

    def change_addresses(self, who: str, which: int) -> None:
        address = entitlements.email(f"{who}@customer.example")
        with self.write() as connection:
            of = (connection, self.keys, self.clock, self.shop.scope, who, address)
            if who in self.model.listed:
                entitlements.deny(*of, entitlements.Change("test", tell=False))
                self.model.epochs[f"customer {who}"] += 1
            else:
                entitlements.allow(*of, "test")
        self.model.listed ^= {who}

    @rule(by=st.sampled_from(TICKS))
    def tick(self, by: timedelta) -> None:
        self.clock.advance(seconds=by.total_seconds())

    @invariant()
    def count(self) -> None:
        self.steps["steps"] += 1


@pytest.fixture
def machine(
    db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> type[Access]:
    post, judged = Post(), list[str]()
    monkeypatch.setattr(attempts, "HARD_CAP", CAP)
    monkeypatch.setattr(logging.getLogger("shared_record"), "level", logging.ERROR)  # refusals are warnings
    monkeypatch.setattr("shared_record.app.Throttle", Boundless)
    monkeypatch.setattr("shared_record.app.open_post", lambda settings: True)
    monkeypatch.setattr("shared_record.app.mail_sink", lambda keys, clock: post)
    real, kinds = load_plugins(), (AccessCode, EmailCode, TotpDevice)
    plugins = Plugins({one.slug: counted(one, judged) for one in kinds}, real.export_formats, real.theme_roots)
    application = create_app(Settings(port=PORT), keys=keys, db=db, clock=clock, plugins=plugins)
    application._resolver._monotonic = lambda: 1e9  # what it remembers of hosts is always as good as new
    start = clock.now().replace(day=1)
    open_shop(db, keys, clock, tmp_path, slug="foreign", hosts=(FOREIGN,))
    parts = {"db": db, "keys": keys, "folder": tmp_path, "clock": clock, "start": start, "application": application}
    return type("BoundAccess", (Access,), parts | {"post": post, "judged": judged, "steps": Counter()})


def test_access_is_as_the_model_predicts_whatever_happens(machine: type[Access], soak: bool) -> None:
    few = 5 if machine.db.is_postgresql else 12
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=few * (500 if soak else 1),
            stateful_step_count=200,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print({name: machine.steps[name] for name in sorted(machine.steps)})
    if not machine.db.is_postgresql:
        assert machine.steps["opened"] > few
