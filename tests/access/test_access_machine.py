"""Access as a state machine: whatever the vendor changes, in any order, a session opens what it should and no more.

A small model predicts each answer. No byte of the inner tier without a valid session; nothing is accepted once a
change that ends it is committed; no more tries at a code are judged than the cap allows.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from shared_record_example_totp import code_at, seed_of
from sqlalchemy import select
from werkzeug.test import TestResponse

from access_model import CAP, MAX_LIVE, Grant, Model
from access_parts import Parts, installed
from client import Visitor
from mock_idp import SECRET
from shared_record.access import devices, entitlements, links, method_secrets
from shared_record.access.sessions import cookie_name
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import host, link
from shared_record.hosts.resolver import bump_generation
from shared_record.keys import KeyRing
from shared_record.tenancy.methods import put_methods
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from shared_record.web import csrf
from signing_in import callback_in
from world import open_shop

NAMES = ("cust_a", "cust_b")
UNKNOWN = "0" * 26
PLATFORM, FOREIGN = "localhost", "usage.foreign.localhost"
FACTORS = {"access_code": "ACCESS_HINT", "totp_device": "TOTP", "email_otp": "EMAIL_OTP"}
METHODS = (*FACTORS, "oidc")
SURFACES = {"landing": ".json", "detail": "/activity.json", "access log": "/access-log.json"}
SEEDS = (b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
SHORT, LONG = (1, 29, 31, 59, 60, 61, 90, 300, 599, 600), (1200, 1799, 1800, 14400, 43199, 43200, 180 * 86400)
TICKS = [timedelta(seconds=s) for s in (*SHORT, *SHORT, *LONG)]
OF_CUSTOMER, OF_TENANT = ("code", "link", "own_policy", "home", "list"), ("policy", "host", "tenant", "home")
OF_METHODS = ("methods", "settings", "secrets", "list")
SPAN = 150
"""Steps of one example, which has a tenant of its own."""
CHUNK = 5_000
WHO, WHICH = st.sampled_from(NAMES), st.integers(0, 2**16)
_number = itertools.count()


class Access(RuleBasedStateMachine):
    """One tenant with two hosts and two customers, beside another tenant; each example has tenants of its own."""

    db: Database
    keys: KeyRing
    folder: Path
    clock: SteppedClock
    start: datetime
    parts: Parts
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
        self.visitor = Visitor(self.parts.application)
        listed = {(who, kind) for who in NAMES for kind in ("email", "subject")}
        self.model = Model(hosts, PLATFORM, set(METHODS), listed)
        self.chosen: dict[str, dict[str, Any]] = {
            "access_code": {},
            "totp_device": {"digits": 6},
            "email_otp": {"subject": "code $code"},
            "oidc": {"connections": [self.parts.idp.connection()]},
        }
        self.links: dict[str, Any] = {}
        self.codes: dict[str, list[str]] = {}
        self.former: dict[str, datetime | None] = {}
        self.seeds = dict.fromkeys(NAMES, SEEDS[0])
        self.handles: list[tuple[str, str]] = []
        self.mailed: dict[str, str] = {}
        self.left: dict[str, str] = {}
        self.judged = Counter[str]()
        self.set_up()
        self.steps["examples"] += 1
        self.steps["steps"] -= 1

    def set_up(self) -> None:
        with self.db.write(self.shop.scope) as connection:
            tools = (connection, self.keys, self.clock, self.shop.scope)
            put_methods(connection, self.shop.scope, [*self.chosen.items()])
            method_secrets.set_tenant_secret(*tools, "oidc", "acme", SECRET.encode(), "test")
            for who in NAMES:
                for kind in ("email", "subject"):
                    entitlements.allow(*tools, who, self.rule_of(who, kind), "test")
                method_secrets.set_customer_secret(*tools, who, "totp_device", SEEDS[0], "test")
                found = links.show_link(connection, self.keys, self.shop.scope, who)
                self.take_handle(found, who)
                self.codes[who] = [links.reveal_code(*tools, who, "test")]
                mine = (link.c.tenant_id == self.shop.scope.plane) & (link.c.customer_id == found.customer_id)
                self.links[who] = connection.execute(select(link.c.link_id).where(mine)).scalar_one()

    def rule_of(self, who: str, kind: str) -> entitlements.Rule:
        if kind == "email":
            return entitlements.email(f"{who}@customer.example")
        return entitlements.subject(self.parts.idp.issuer, f"sub-{who}")

    def take_handle(self, found: links.Link, who: str) -> None:
        self.model.handle[who] = found.handle
        if found.handle:
            self.handles.append((who, found.handle))

    def handle(self, who: str) -> str:
        return self.model.handle[who] or UNKNOWN

    # --- Requests ----------------------------------------------------------------------------------------------------

    def send(self, method: str, at: str, path: str, cookies: Mapping[str, str], **options: Any) -> TestResponse:
        self.steps["requests"] += 1
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return self.visitor.request(method, f"{at}{path}", headers={"Cookie": header}, **options)

    def cookies(
        self, who: str, session: Grant | None, device: Grant | None = None, browser: str = ""
    ) -> dict[str, str]:
        held = {cookie_name(self.links[who], secure=False): session.secret} if session else {}
        trusted = {devices.cookie_name(self.links[who], secure=False): device.secret} if device else {}
        return held | trusted | ({"sr-pre": browser} if browser else {})

    def is_elsewhere(self, answer: TestResponse, at: str, handle: str, who: str, held: Grant | None = None) -> bool:
        """Tell whether the link is not open here at all, after holding the answer against that.

        If it is here, the session that the browser ``held`` was used.
        """
        if not self.model.is_known(at, handle, who):
            assert answer.status_code in (404, 421)
        elif self.model.place(who) not in (at, None):
            assert answer.status_code in (303, 409)
        else:
            if held is not None and self.model.opens(held, who, at, self.clock.now()):
                self.model.touch(held, self.clock.now())
            return False
        assert "canary" not in answer.text
        assert "sr-" not in str(answer.headers.getlist("Set-Cookie"))
        return True

    def look(self, who: str, handle: str, at: str, surface: str, grant: Grant | None) -> None:
        now = self.clock.now()
        answer = self.send("GET", at, f"/c/{handle}{SURFACES[surface]}", self.cookies(who, grant))
        is_open = self.model.opens(grant, who, at, now)
        if self.is_elsewhere(answer, at, handle, who, grant):
            return
        allowed = is_open or self.model.shows(who, surface)
        assert answer.status_code == (200 if allowed else 401), (surface, grant, answer.text)
        assert set(re.findall(r"canary-(\w+)", answer.text)) <= ({who} if allowed and surface == "detail" else set())
        if surface == "detail" and allowed and (now.year, now.month) == (self.start.year, self.start.month):
            assert f"canary-{who}" in answer.text
        if not allowed:
            assert not re.search(r"111\.5|222\.5", answer.text)
        self.steps["opened"] += is_open

    def look_at_newest(self) -> None:
        """Read with the newest session at once, where it was issued and where the link lives now.

        Nothing may lag behind the commit.
        """
        for who in NAMES:
            for grant in [one for one in self.model.sessions if one.stamp[0] == who][-1:]:
                for at in dict.fromkeys((grant.stamp[1], self.model.place(who) or PLATFORM)):
                    self.look(who, self.handle(who), at, "detail", grant)

    # --- Reading -----------------------------------------------------------------------------------------------------

    @rule(who=WHO, surface=st.sampled_from([*SURFACES]))
    def read_as_a_stranger(self, who: str, surface: str) -> None:
        self.look(who, self.handle(who), self.model.place(who) or PLATFORM, surface, None)

    @precondition(lambda self: self.model.sessions)
    @rule(which=st.integers(0, 3), surface=st.sampled_from([*SURFACES]))
    def read_as_the_customer(self, which: int, surface: str) -> None:
        grant = self.model.sessions[-1 - which % len(self.model.sessions)]
        who, at = grant.stamp[:2]
        self.look(who, self.handle(who), at, surface, grant)

    @precondition(lambda self: self.model.sessions)
    @rule(which=WHICH, old=WHICH, at=st.integers(0, 3), surface=st.sampled_from([*SURFACES]))
    def replay(self, which: int, old: int, at: int, surface: str) -> None:
        """Show any session ever issued, under any link there ever was, on any host, as that record's own."""
        who, handle = self.handles[-1 - old % len(self.handles)]
        self.look(who, handle, self.hosts[at], surface, self.model.sessions[-1 - which % len(self.model.sessions)])

    # --- Unlocking ---------------------------------------------------------------------------------------------------

    def newest(self, grants: list[Grant], who: str, which: int) -> Grant | None:
        """Return what a browser shows as this customer's; now and then it is another's, under this one's name."""
        mine = [one for one in grants[-6:] if one.stamp[0] == who or which % 5 == 1]
        return mine[which % len(mine)] if mine and which % 2 else None

    def enter(
        self, who: str, method: str, value: str, at: str, cookies: dict[str, str], *, form: bool, ticket: str = ""
    ) -> TestResponse:
        """Send one answer, as a program does, or as the page in a browser does."""
        more = {"challenge": ticket} if ticket else {}
        if not form:
            body = {"factor": FACTORS[method], "value": value} | more
            return self.send("POST", at, f"/api/v1/c/{self.handle(who)}/access/verify", cookies, json=body)
        cookies = {"sr-pre": "form" * 10} | cookies
        token = csrf.token(self.keys, cookies["sr-pre"], at, self.links[who])
        name = "field-code" if ticket or method != "email_otp" else "field-address"
        data = {"method": method, "csrf_token": token, name: value} | more
        return self.send("POST", at, f"/c/{self.handle(who)}/unlock", cookies, data=data)

    def settle(
        self,
        who: str,
        method: str,
        at: str,
        answer: TestResponse,
        *,
        right: bool,
        held: Grant | None,
        device: Grant | None,
    ) -> bool:
        """Hold one answer that the link's host got against the model, and note the session it made."""
        judged, now = len(self.parts.judged), self.clock.now()
        self.parts.judged.clear()
        trusted = device if self.model.trusts(device, who, at, now) else None
        expected = self.model.judges(who, method, trusted)
        assert judged == int(expected), answer.text
        name = trusted.secret if trusted else who
        self.judged[name] += judged if method in ("access_code", "totp_device") else 0
        assert self.judged[name] <= CAP
        set_here = dict(
            re.findall(r"^(sr-(?:dv-)?)[0-9a-f]{8}=([^;]+)", "\n".join(answer.headers.getlist("Set-Cookie")), re.M)
        )
        if not (expected and right):
            assert answer.status_code in (400, 403, 429, 503), answer.text
            assert not set_here
            return False
        assert answer.status_code in (200, 303), answer.text
        self.steps[f"unlocked by {method}"] += 1
        self.judged[who] = self.judged[name] = 0
        new = Grant(self.model.stamp(who, at, method), set_here["sr-"], now, now)
        self.model.issue(new, held, trusted)
        if answer.status_code == 303:
            assert ("sr-dv-" in set_here) == (trusted is None)
        if "sr-dv-" in set_here:
            self.steps["devices trusted"] += 1
            self.model.devices.append(Grant(new.stamp, set_here["sr-dv-"], now, now))
        self.steps["from a trusted device"] += trusted is not None
        return True

    def try_at_home(
        self, who: str, method: str, value: str, *, right: bool, which: int = 0, form: bool = False
    ) -> bool:
        self.clock.advance(seconds=1)
        at = self.model.place(who) or PLATFORM
        held, device = self.newest(self.model.sessions, who, which), self.newest(self.model.devices, who, which // 2)
        answer = self.enter(who, method, value, at, self.cookies(who, held, device), form=form)
        if self.is_elsewhere(answer, at, self.handle(who), who, held):
            return False
        return self.settle(who, method, at, answer, right=right, held=held, device=device)

    @rule(who=WHO, age=st.sampled_from([0, 0, 0, 1, 2]), which=WHICH, form=st.booleans())
    def enter_a_code(self, who: str, age: int, which: int, form: bool) -> None:
        self.clock.advance(seconds=1)
        code = self.codes[who][-1 - age] if age < len(self.codes[who]) else "WRONG2"
        until = self.former.get(who)
        in_time = until is not None and self.clock.now() + timedelta(seconds=1) < until
        right = age < len(self.codes[who]) and (age == 0 or (age == 1 and in_time))
        self.try_at_home(who, "access_code", code, right=right, which=which, form=form and right)

    @rule(who=WHO, times=st.integers(1, 3), method=st.sampled_from(["access_code", "totp_device"]), which=WHICH)
    def guess(self, who: str, times: int, method: str, which: int) -> None:
        for _ in range(times):
            self.try_at_home(who, method, "222222x" if method == "access_code" else "000", right=False, which=which)

    @rule(who=WHO, which=WHICH, waits=st.booleans(), form=st.booleans())
    def use_the_app(self, who: str, which: int, waits: bool, form: bool) -> None:
        self.clock.advance(seconds=90 if waits else 0)
        step = int((self.clock.now() + timedelta(seconds=1)).timestamp()) // 30
        seed = seed_of(self.seeds[who])
        assert seed is not None
        value = code_at(seed, step, self.chosen["totp_device"]["digits"])
        right = (who, step) not in self.model.spent
        if self.try_at_home(who, "totp_device", value, right=right, which=which, form=form and right):
            self.model.spent.add((who, step))

    @rule(who=WHO, many=st.integers(0, 5))
    def unlock_in_many_browsers(self, who: str, many: int) -> None:
        """Open one record in more browsers than it has sessions at a time: the oldest ends, and no other."""
        for _ in range(MAX_LIVE + 1 if many == 0 else 1):
            self.try_at_home(who, "access_code", self.codes[who][-1], right=True)
        mine = [one for one in self.model.sessions if one.stamp[0] == who]
        for grant in mine[-MAX_LIVE - 1 :][:2]:
            self.look(who, self.handle(who), grant.stamp[1], "detail", grant)

    # --- Unlocking in two steps --------------------------------------------------------------------------------------

    def asked(self, who: str, method: str, at: str, ticket: str, browser: str) -> None:
        now = self.clock.now()
        self.model.ask(Grant(self.model.stamp(who, at, method), ticket, now, now, browser))

    @rule(who=WHO, tab=st.integers(0, 2), at_once=st.booleans(), held=WHICH)
    def ask_for_a_mail(self, who: str, tab: int, at_once: bool, held: int) -> None:
        self.clock.advance(seconds=1)
        at, browser = self.model.place(who) or PLATFORM, f"browser-{tab:036}"
        self.parts.post.mails.clear()
        address = f"{who}@customer.example"
        answer = self.enter(who, "email_otp", address, at, self.cookies(who, None, None, browser), form=False)
        if self.is_elsewhere(answer, at, self.handle(who), who):
            return
        if "email_otp" not in self.model.methods:
            assert answer.status_code == 400
            return
        assert answer.status_code == 202, answer.text
        (mail,) = self.parts.post.mails
        assert (mail.to is not None) == ((who, "email") in self.model.listed)
        code = re.search(r"code: (\d{4} \d{4})", mail.body) if mail.to else None
        ticket = answer.json["data"]["challenge"]
        self.mailed[ticket] = code[1] if code else ""
        self.asked(who, "email_otp", at, ticket, browser)
        if at_once:
            self.answer_a_mail(0, 1, False, False, held, held % 4 == 3)

    @rule(who=WHO, tab=st.integers(0, 2), at_once=st.booleans(), held=WHICH)
    def go_to_sign_in(self, who: str, tab: int, at_once: bool, held: int) -> None:
        self.clock.advance(seconds=1)
        at, browser = self.model.place(who) or PLATFORM, f"browser-{tab:036}"
        cookies = self.cookies(who, None, None, browser)
        token = csrf.token(self.keys, browser, at, self.links[who])
        form = {"method": "oidc:acme", "csrf_token": token}
        answer = self.send("POST", at, f"/c/{self.handle(who)}/unlock", cookies, data=form)
        if self.is_elsewhere(answer, at, self.handle(who), who):
            return
        if "oidc" not in self.model.methods:
            assert answer.status_code in (400, 503)
            return
        found = re.search(r'<a href="([^"]+)" rel="noreferrer"', answer.text)
        assert found, answer.text
        address = unescape(found[1])
        ticket = re.search(r"[?&]state=([^&]+)", address)
        assert ticket
        self.left[ticket[1]] = address
        self.asked(who, "oidc", at, ticket[1], browser)
        if at_once:
            self.come_back(0, 1, who, False, False, held)

    def waiting(self, method: str, which: int) -> Grant | None:
        found = [one for one in self.model.challenges[-12:] if one.stamp[2] == method]
        return found[-1 - which % len(found)] if found else None

    @rule(
        which=st.integers(0, 3), away=WHICH, guess=st.booleans(), stolen=st.booleans(), held=WHICH, form=st.booleans()
    )
    def answer_a_mail(self, which: int, away: int, guess: bool, stolen: bool, held: int, form: bool) -> None:
        kept = self.waiting("email_otp", which)
        if kept is None:
            return
        self.clock.advance(seconds=1)
        who, code = kept.stamp[0], self.mailed[kept.secret]
        at = self.hosts[away % 3] if away % 7 == 0 else self.model.place(who) or PLATFORM
        guess, browser = guess and away % 2 == 0, "thief" * 9 if stolen and away % 3 == 0 else kept.browser
        mine, device = self.newest(self.model.sessions, who, held), self.newest(self.model.devices, who, held // 2)
        value, right = ("0000 000x", False) if guess else (code or "1234 5678", bool(code))
        cookies = self.cookies(who, mine, device, browser)
        answer = self.enter(who, "email_otp", value, at, cookies, form=form and right, ticket=kept.secret)
        if self.is_elsewhere(answer, at, self.handle(who), who, mine):
            return
        if not self.model.takes(kept, who, at, browser, self.clock.now()):
            assert answer.status_code in (400, 403, 503), answer.text
            assert self.parts.judged == []
            return
        kept.ended = self.settle(who, "email_otp", at, answer, right=right, held=mine, device=device)
        if kept.ended and held % 2:  # once more: it counts once
            self.answer_a_mail(which, 1, False, False, held, form)

    @rule(which=st.integers(0, 6), away=WHICH, person=WHO, guess=st.booleans(), stolen=st.booleans(), held=WHICH)
    def come_back(self, which: int, away: int, person: str, guess: bool, stolen: bool, held: int) -> None:
        """Come back from the provider: perhaps as somebody else, to another host, in another browser, or twice."""
        kept = self.waiting("oidc", which)
        if kept is None:
            return
        self.clock.advance(seconds=1)
        who, home = kept.stamp[:2]
        at = self.hosts[away % 4] if away % 7 == 0 else home
        browser = "thief" * 9 if stolen and away % 3 == 0 else kept.browser
        person = who if away % 5 else person
        guess = guess and away % 2 == 0
        self.parts.idp.subject = f"sub-{person}"
        query = self.parts.idp.sign_in(self.left[kept.secret], **({"code": "guessed"} if guess else {}))
        mine, device = self.newest(self.model.sessions, who, held), self.newest(self.model.devices, who, held // 2)
        path = "/" + callback_in(self.left[kept.secret]).partition("://")[2].partition("/")[2]
        answer = self.send("GET", at, path, self.cookies(who, mine, device, browser), query_string=query)
        is_here = at in self.model.serving | {PLATFORM} and self.model.active
        if not is_here or not self.model.takes(kept, who, at, browser, self.clock.now()):
            assert answer.status_code in (400, 404, 421), answer.text
            assert self.parts.judged == []
            assert not answer.headers.getlist("Set-Cookie")
            return
        right = not guess and person == who and (who, "subject") in self.model.listed
        kept.ended = self.settle(who, "oidc", at, answer, right=right, held=mine, device=device)
        if kept.ended and held % 2:
            self.come_back(which, 1, who, False, False, held)

    # --- Closing -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.sessions)
    @rule(which=st.integers(0, 3), everywhere=st.booleans())
    def log_out(self, which: int, everywhere: bool) -> None:
        grant = self.model.sessions[-1 - which % len(self.model.sessions)]
        who, at = grant.stamp[:2]
        handle = self.handle(who)
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

    def change(self, act: Any, *arguments: Any, keyed: bool = True, **named: Any) -> Any:
        with self.db.write(self.shop.scope) as connection:
            tools = (self.keys, self.clock) if keyed else (self.clock,)
            return act(connection, *tools, self.shop.scope, *arguments, "test", **named)

    @rule(what=st.sampled_from(OF_CUSTOMER), who=WHO, which=WHICH)
    def the_vendor_changes_a_customer(self, what: str, who: str, which: int) -> None:
        self.change_what(what, who, which)

    @rule(what=st.sampled_from(OF_TENANT), who=WHO, which=WHICH)
    def the_vendor_changes_the_tenant(self, what: str, who: str, which: int) -> None:
        self.change_what(what, who, which)

    @rule(what=st.sampled_from(OF_METHODS), who=WHO, which=WHICH)
    def the_vendor_changes_a_method(self, what: str, who: str, which: int) -> None:
        self.change_what(what, who, which)

    def change_what(self, what: str, who: str, which: int) -> None:
        if not self.model.active:
            what = "tenant"
        elif len(self.model.serving) < 2 and which % 3:
            what = "host"
        if which % 5 > 2:  # many changes find a session that is open
            self.try_at_home(who, "access_code", self.codes[who][-1], right=True, form=which % 2 == 1)
        self.steps[f"changes of {what}"] += 1
        change = getattr(self, f"change_{what}")
        change(who, which)
        self.look_at_newest()
        if what in ("tenant", "host") and which % 7 > 2:  # often put right again at once; what ended stays ended
            change(who, which)
            self.look_at_newest()
        if what in ("code", "link", "home") and which % 2:  # with the cookies of before: a device is trusted anew
            self.try_at_home(who, "access_code", self.codes[who][-1], right=True, which=3, form=True)

    def change_code(self, who: str, which: int) -> None:
        lasts = timedelta(minutes=(0, 20, 600)[which % 3])
        self.codes[who].append(self.change(links.rotate_code, who, overlap=lasts))
        self.former[who] = self.clock.now() + lasts if lasts else None
        self.model.epochs[f"code {who}"] += 1
        self.model.tries[who] = self.judged[who] = 0

    def change_link(self, who: str, which: int) -> None:
        if which % 3 or self.model.handle[who] is None:
            self.take_handle(self.change(links.reissue_link, who), who)
            self.model.tries[who] = self.judged[who] = 0
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
        with self.db.write(self.shop.scope) as connection:
            mine = (host.c.tenant_id == self.shop.scope.config) & (host.c.host == name)
            connection.execute(host.update().where(mine).values(role=role, epoch=host.c.epoch + 1))
            bump_generation(connection)
        self.model.serving ^= {name}
        self.model.epochs[f"host {name}"] += 1
        if role == "serving":
            # Within a second it would by itself; a suspension needs no second.
            self.parts.application._resolver.look_again()

    def change_tenant(self, who: str, which: int) -> None:
        self.model.active = not self.model.active
        with self.db.write(self.shop.scope) as connection:
            update_tenant(connection, self.shop.scope, {"state": "active" if self.model.active else "suspended"})
        self.model.epochs["tenant"] += 1

    def put_methods(self) -> None:
        with self.db.write(self.shop.scope) as connection:
            chosen = [(one, self.chosen[one]) for one in METHODS if one in self.model.methods]
            put_methods(connection, self.shop.scope, chosen)

    def change_methods(self, who: str, which: int) -> None:
        method = METHODS[which % 4]
        self.model.epochs[f"method {method}"] += int(method in self.model.methods)
        self.model.methods ^= {method}
        self.put_methods()

    def change_settings(self, who: str, which: int) -> None:
        method, is_even = METHODS[1 + which % 3], which % 2 == 0
        if method not in self.model.methods:
            return
        before = self.chosen[method]
        self.chosen[method] = {
            "totp_device": {"digits": 6 if is_even else 8},
            "email_otp": {"subject": "code $code" if is_even else "$code"},
            "oidc": {"connections": [self.parts.idp.connection(title="Acme ID" if is_even else "Acme")]},
        }[method]
        self.model.epochs[f"method {method}"] += int(before != self.chosen[method])
        self.put_methods()

    def change_secrets(self, who: str, which: int) -> None:
        if which % 2:
            self.change(method_secrets.set_tenant_secret, "oidc", "acme", SECRET.encode())
            self.model.epochs["method oidc"] += 1
            return
        self.seeds[who] = SEEDS[which // 2 % 2]
        self.change(method_secrets.set_customer_secret, who, "totp_device", self.seeds[who])
        self.model.epochs[f"customer {who}"] += 1

    def change_list(self, who: str, which: int) -> None:
        kind = ("email", "subject")[which % 2]
        with self.db.write(self.shop.scope) as connection:
            of = (connection, self.keys, self.clock, self.shop.scope, who, self.rule_of(who, kind))
            if (who, kind) in self.model.listed:
                entitlements.deny(*of, entitlements.Change("test", tell=False))
                self.model.epochs[f"customer {who}"] += 1
            else:
                entitlements.allow(*of, "test")
        self.model.listed ^= {(who, kind)}

    # --- Time, and what may vanish -----------------------------------------------------------------------------------

    @rule(by=st.sampled_from(TICKS))
    def tick(self, by: timedelta) -> None:
        self.clock.advance(seconds=by.total_seconds())

    @precondition(lambda self: self.model.sessions)
    @rule(which=st.integers(0, 3), long=st.integers(0, 5))
    def stay(self, which: int, long: int) -> None:
        """Use one session again and again, each time just before it would end: twelve hours end it nevertheless."""
        grant = self.model.sessions[-1 - which % len(self.model.sessions)]
        who, at = grant.stamp[:2]
        for _ in range(25 if long == 0 else 2):
            if self.model.opens(grant, who, at, self.clock.now()):
                self.clock.advance(minutes=29, seconds=59)
                self.look(who, self.handle(who), at, "detail", grant)

    @precondition(lambda self: self.parts.kept is not None)
    @rule(which=st.integers(0, 3))
    def lose_or_regain_valkey(self, which: int) -> None:
        """Kill the Valkey that counts the limits, or bring it back empty: no session rests on it."""
        assert self.parts.kept is not None
        if which == 0:
            self.parts.kept.switch()
            self.steps["Valkey lost"] += not self.parts.kept.is_there
        self.look_at_newest()

    @invariant()
    def count(self) -> None:
        self.steps["steps"] += 1


# --- Runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(
    request: pytest.FixtureRequest,
    db: Database,
    keys: KeyRing,
    clock: SteppedClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[type[Access]]:
    with installed(db, keys, clock, monkeypatch, with_valkey="valkey" in request.node.name) as parts:
        start = clock.now().replace(day=1)
        open_shop(db, keys, clock, tmp_path, slug="foreign", hosts=(FOREIGN,))
        own = {"db": db, "keys": keys, "folder": tmp_path, "clock": clock, "start": start, "parts": parts}
        yield type("BoundAccess", (Access,), own | {"steps": Counter()})


def run(machine: type[Access], steps: int) -> None:
    """Take at least so many steps, and say after each few thousand how many it were."""
    while (missing := steps - machine.steps["steps"]) > 0:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=-(-min(missing, CHUNK) // SPAN),
                stateful_step_count=SPAN,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
        print({name: machine.steps[name] for name in sorted(machine.steps)}, flush=True)
    assert machine.steps["opened"] > steps / 100


@pytest.mark.parametrize("part", range(6))
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_s02_s03_s04_s05_s12_it_is_as_the_model_predicts(machine: type[Access], part: int, soak: bool) -> None:
    run(machine, 3_000 * (50 if soak else 1))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_s02_s03_s04_s05_s12_it_is_as_the_model_predicts_while_valkey_goes_and_comes(
    machine: type[Access], soak: bool
) -> None:
    run(machine, 1_200 * (50 if soak else 1))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_s02_s03_s04_s05_s12_it_is_as_the_model_predicts_on_postgresql(machine: type[Access], soak: bool) -> None:
    run(machine, 1_000 * (50 if soak else 1))
