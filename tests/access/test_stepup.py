"""Step-up: limits that parallel guesses cannot beat, methods that misbehave, and secrets that appear nowhere."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier, Lock
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_record_access_code import AccessCode
from sqlalchemy import select

from client import Visitor, serve, url_of
from shared_record.access import links, method_secrets, sessions, stepup
from shared_record.access.sessions import Here, Visit
from shared_record.access.stepup import HARD_CAP, Browser, NotOpened, Opened, StepUp
from shared_record.access.throttle import Throttle
from shared_record.db.schema import audit_event, link, metadata, session
from shared_record.hooks.caller import Caller
from shared_record.plugin import Challenge, Field, NotMine, Passed, Refused, StepUpContext, StepUpMethod, Verdict
from shared_record.settings import Settings
from shared_record.tenancy.methods import put_methods
from stepup_methods import Unlimited
from world import Shop


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    return shop


def seen(shop: Shop, name: str = "cust_a") -> Visit:
    handle = shop.link(name).handle
    assert handle is not None
    here = Here(shop.hosts[0], shop.scope.config, None)
    found = sessions.visit(shop.db, shop.clock, here, handle, {}, secure=False)
    assert isinstance(found, Visit)
    return found


def engine(
    shop: Shop, *methods: type[StepUpMethod], throttle: Throttle | None = None, caller: Caller | None = None
) -> StepUp:
    installed = {
        (method.slug if "slug" in vars(method) else "access_code"): method for method in methods or (AccessCode,)
    }
    return StepUp(
        shop.db, shop.keys, shop.clock, throttle or Throttle(), installed, Settings().url_for_host, caller=caller
    )


def offer_of(shop: Shop, method: type[StepUpMethod] = AccessCode, visit: Visit | None = None) -> list[stepup.Offer]:
    return engine(shop, method).offers(visit or seen(shop))[0]


def attempt(
    shop: Shop,
    answer: Mapping[str, str],
    *,
    method: type[StepUpMethod] = AccessCode,
    client: str = "192.0.2.1",
    throttle: Throttle | None = None,
    customer: str = "cust_a",
    device: str = "",
) -> Opened | NotOpened:
    visit, step_up = seen(shop, customer), engine(shop, method, throttle=throttle)
    (offer,) = step_up.offers(visit)[0]
    return step_up.verify(visit, offer, answer, Browser(client, device=device))


def tries(shop: Shop) -> int:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(link.c.tries).where(link.c.tenant_id == shop.scope.plane)).scalar_one()


def rows(shop: Shop, table: Any) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(table).where(table.c.tenant_id == shop.scope.plane)).all()


def set_tries(shop: Shop, number: int) -> None:
    with shop.db.write(shop.scope) as connection:
        connection.execute(link.update().where(link.c.tenant_id == shop.scope.plane).values(tries=number))


class Probe(AccessCode):
    """The access code, counting what is evaluated."""

    evaluated: ClassVar[list[str]] = []
    lock: ClassVar[Lock] = Lock()

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        with self.lock:
            self.evaluated.append(answer["code"])
        return super().verify(ctx, answer)


def test_a_right_code_opens_and_gives_the_tries_back(shop: Shop) -> None:
    for _ in range(3):
        assert isinstance(attempt(shop, {"code": "WRONG2"}), NotOpened)
    assert tries(shop) == 3
    opened = attempt(shop, {"code": shop.code("cust_a").lower()})
    assert isinstance(opened, Opened)
    assert tries(shop) == 0
    events = [row.event for row in rows(shop, audit_event)]
    assert (events.count("stepup.failed"), events.count("session.issued")) == (3, 1)


def test_what_is_left_of_the_tries_is_told_to_the_one_who_has_them(shop: Shop) -> None:
    throttle = Throttle()
    left = [attempt(shop, {"code": "WRONG2"}, throttle=throttle) for _ in range(3)]
    assert [one.tries_left for one in left if isinstance(one, NotOpened)] == [4, 3, 2]
    elsewhere = attempt(shop, {"code": "WRONG2"}, throttle=throttle, client="198.51.100.1")
    assert isinstance(elsewhere, NotOpened)
    assert elsewhere.tries_left == 4
    opened = attempt(shop, {"code": shop.code("cust_a")}, throttle=throttle)
    assert isinstance(opened, Opened)
    trusted = attempt(shop, {"code": "WRONG2"}, throttle=throttle, device=opened.device or "")
    assert isinstance(trusted, NotOpened)
    assert trusted.tries_left == 4


def test_a04_sixty_four_guessers_evaluate_exactly_the_cap(shop: Shop) -> None:
    Probe.evaluated = []
    visit, step_up = seen(shop), engine(shop, Probe, throttle=Unlimited())
    (offer,) = step_up.offers(visit)[0]
    set_tries(shop, HARD_CAP - 20)
    barrier = Barrier(64)

    def guess(number: int) -> Opened | NotOpened:
        barrier.wait(20)
        return step_up.verify(visit, offer, {"code": f"BAD{number:03}"}, Browser(f"198.51.{number}.1"))

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(guess, range(64)))
    assert len(Probe.evaluated) == 20
    assert tries(shop) == HARD_CAP
    codes = [result.code for result in results if isinstance(result, NotOpened)]
    assert (codes.count("ACCESS_CODE_INVALID"), codes.count("STEP_UP_PAUSED")) == (20, 44)
    late = attempt(shop, {"code": shop.code("cust_a")}, method=Probe, client="203.0.113.9")
    assert isinstance(late, NotOpened)
    assert late.code == "STEP_UP_PAUSED"
    assert late.wait is not None
    assert len(Probe.evaluated) == 20
    with shop.db.write(shop.scope) as connection:
        fresh = links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    assert isinstance(attempt(shop, {"code": fresh}, client="203.0.113.9"), Opened)


def test_from_zero_to_the_cap_one_hundred_answers_count(shop: Shop) -> None:
    Probe.evaluated = []
    set_tries(shop, HARD_CAP - 1)
    assert isinstance(attempt(shop, {"code": "WRONG2"}, method=Probe, client="198.51.100.1"), NotOpened)
    assert isinstance(attempt(shop, {"code": "WRONG2"}, method=Probe, client="198.51.100.2"), NotOpened)
    assert len(Probe.evaluated) == 1
    assert HARD_CAP == 100


def test_a01_one_client_waits_after_five_and_its_guesses_are_not_evaluated(shop: Shop) -> None:
    Probe.evaluated = []
    throttle = Throttle()
    results = [attempt(shop, {"code": "WRONG2"}, method=Probe, throttle=throttle) for _ in range(8)]
    assert [getattr(result, "code", None) for result in results] == ["ACCESS_CODE_INVALID"] * 5 + [
        "STEP_UP_THROTTLED"
    ] * 3
    assert (len(Probe.evaluated), tries(shop)) == (5, 5)
    right = attempt(shop, {"code": shop.code("cust_a")}, method=Probe, throttle=throttle)
    assert isinstance(right, NotOpened)
    assert isinstance(attempt(shop, {"code": shop.code("cust_a")}, throttle=throttle, client="192.0.2.2"), Opened)


def test_a_success_gives_the_client_its_attempts_back(shop: Shop) -> None:
    throttle = Throttle()
    for _ in range(4):
        for _ in range(2):
            assert isinstance(attempt(shop, {"code": "WRONG2"}, throttle=throttle), NotOpened)
        assert isinstance(attempt(shop, {"code": shop.code("cust_a")}, throttle=throttle), Opened)


ODD = (
    "",
    " ",
    "WRONG2",
    "\0" * 6,
    "Ｋ" * 6,
    "\u212a" * 6,
    "A" * 10_000,
    "é" * 6,
    "\ud800" * 6,
    "' OR 1=1 --",
    "222222",
)


def test_a09_odd_input_is_a_counted_refusal(shop: Shop) -> None:
    for number, text in enumerate(ODD, start=1):
        assert isinstance(attempt(shop, {"code": text}), NotOpened)
        assert tries(shop) == number
    assert isinstance(attempt(shop, {}), NotOpened)


# --- N01, N02: methods that misbehave ---------------------------------------------------------------------------------


class Rubbish(AccessCode):
    """A method that answers with whatever the test says."""

    answer: ClassVar[Any] = None

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class Yes(Passed):
    """Made by a plugin."""


RUBBISH: tuple[Any, ...] = (
    None,
    True,
    1,
    "passed",
    {"passed": True},
    Passed,
    object(),
    ["passed"],
    NotMine(),
    RuntimeError("secret"),
    KeyError("x"),
    RecursionError(),
    Passed(subject_hint=5),  # type: ignore[arg-type]
    Passed(subject_hint=None),  # type: ignore[arg-type]
    Passed(subject_hint="a\0b"),
    Refused(public_reason=None),  # type: ignore[arg-type]
)


def test_n01_what_a_method_raises_or_makes_up_is_a_refusal(shop: Shop) -> None:
    for number, answer in enumerate(RUBBISH, start=1):
        Rubbish.answer = answer
        result = attempt(shop, {"code": "x"}, method=Rubbish)
        assert isinstance(result, NotOpened), answer
        assert result.reason == "This answer was not recognised.", answer
        assert (rows(shop, session), tries(shop)) == ([], number), answer


def test_n02_n03_a_method_grants_nothing_beyond_its_own_challenge(shop: Shop) -> None:
    shop.record("cust_b", "1")
    Rubbish.answer = Yes(subject_hint="cust_b " * 100)
    visit = seen(shop)
    result = attempt(shop, {}, method=Rubbish)
    assert isinstance(result, Opened)
    (row,) = rows(shop, session)
    assert (row.customer_id, row.host, row.method) == (visit.customer_id, shop.hosts[0], "access_code")
    assert len(row.subject) == 200


class Leaks(AccessCode):
    """A method that tries what it was given no way to do."""

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        tries = (
            lambda: ctx.send_mail("eve@elsewhere.example", "s", ctx.host),
            lambda: ctx.fetch("GET", "http://169.254.169.254/"),
        )
        for number, one in enumerate(tries):
            try:
                one()
            except (RuntimeError, OSError):
                continue
            return Passed(f"{number} was possible")
        return Passed(repr((ctx.customer_secret, ctx.tenant_secret("okta"), ctx.entitlements.email("a@b.example"))))


def test_n05_a_method_has_no_mail_no_network_and_no_secret_but_its_own(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        of = (connection, shop.keys, shop.clock, shop.scope)
        method_secrets.set_customer_secret(*of, "cust_a", "another_method", b"seed", "me")
        method_secrets.set_tenant_secret(*of, "another_method", "okta", b"secret", "me")
    assert isinstance(attempt(shop, {"code": "x"}, method=Leaks), Opened)
    assert [row.subject for row in rows(shop, session)] == ["(None, None, None)"]


class Mutates(AccessCode):
    """A method that returns another verdict each time it is looked at."""

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        class Shifty(Refused):
            looks = 0

            @property
            def __class__(self) -> type:  # type: ignore[override]
                Shifty.looks += 1
                return Passed if Shifty.looks > 1 else Refused

        return Shifty("no")


def test_n02_a_verdict_is_copied_once_and_not_looked_at_again(shop: Shop) -> None:
    assert isinstance(attempt(shop, {"code": "x"}, method=Mutates), NotOpened)
    assert rows(shop, session) == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=2000))
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a09_no_text_is_an_access_code_by_accident(shop: Shop, text: str) -> None:
    visit, step_up = seen(shop), engine(shop, throttle=Unlimited())
    code = shop.code("cust_a")
    assert step_up._matches(visit, text) == (links.normalise_code(text) == code)


class Raises(AccessCode):
    def begin(self, ctx: StepUpContext) -> Challenge:
        raise RuntimeError("broken")


class MakesUp(AccessCode):
    def begin(self, ctx: StepUpContext) -> Challenge:
        return "a form"  # type: ignore[return-value]


class Unavailable(AccessCode):
    def availability(self, ctx: StepUpContext) -> bool:
        raise RuntimeError("broken")


class NotNow(AccessCode):
    def availability(self, ctx: StepUpContext) -> bool:
        return False


class NeedsArguments(AccessCode):
    def __init__(self, what: str) -> None:
        self.what = what


class Good(AccessCode):
    slug = "good"

    def begin(self, ctx: StepUpContext) -> Challenge:
        return Challenge((Field("code", f"{ctx.tenant_name} at {ctx.host}"),))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broken", [Raises, MakesUp, Unavailable, NotNow, NeedsArguments])
def test_a_method_that_cannot_begin_is_not_offered_and_hinders_no_other(shop: Shop, broken: type[StepUpMethod]) -> None:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("access_code", {}), ("missing", {}), ("good", {})])
    found, out = engine(shop, broken, Good).offers(seen(shop))
    assert [offer.slug for offer in found] == ["good"]
    assert out == ({"missing"} if broken is NotNow else {"missing", "access_code"})
    assert found[0].challenge.fields[0].label == "Acme at usage.acme.localhost"


def test_settings_a_method_does_not_know_keep_it_from_being_offered(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("access_code", {"misspelt": 1})])
    assert offer_of(shop) == []


def test_an_offer_made_before_the_method_changed_opens_nothing(shop: Shop) -> None:
    visit, step_up = seen(shop), engine(shop)
    (offer,) = step_up.offers(visit)[0]
    for methods in ([], [("access_code", {})]):
        with shop.db.write(shop.scope) as connection:
            put_methods(connection, shop.scope, methods)
    answer = {"code": shop.code("cust_a")}
    result = step_up.verify(visit, offer, answer, Browser("192.0.2.1"))
    assert isinstance(result, NotOpened)
    assert rows(shop, session) == []


# --- A10, L06: canaries -----------------------------------------------------------------------------------------------


def everything_stored(shop: Shop) -> str:
    """Return every value of every column of the database, as text."""
    found: list[str] = []
    reviewed = {"sr_reviewed": True}
    for scope in (shop.scope, shop.test_scope):
        with shop.db.read(scope) as connection:
            for table in metadata.sorted_tables:
                for row in connection.execute(table.select(), execution_options=reviewed):
                    found += [_text(value) for value in row]
    return "\n".join(found)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1") + value.hex()
    return (
        json.dumps(value)
        if isinstance(value, (dict, list))
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
    )


def test_a10_l06_no_handle_code_or_session_id_is_logged_or_stored(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    visitor = Visitor(serve(shop))
    secrets: list[str] = []
    for change in (None, "rotate", "reissue", "revoke"):
        if change is not None:
            with shop.db.write(shop.scope) as connection:
                call = {"rotate": links.rotate_code, "reissue": links.reissue_link, "revoke": links.revoke_link}[change]
                call(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
        secrets.append(shop.code("cust_a"))
        handle = shop.link("cust_a").handle
        if handle is None:
            break
        secrets.append(handle)
        url = url_of(shop, "cust_a")
        visitor.unlock(url, "WRONG2")
        assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
        for path in (
            "",
            ".json",
            "/activity",
            "/activity.csv",
            "/export",
            "/export/file?format=json",
            "/activity?limit=%00",
        ):
            visitor.get(url + path)
        visitor.get(f"localhost/c/{handle}")
        visitor.get(f"{shop.hosts[1]}/c/{handle}/activity")
        secrets += visitor.jars[shop.hosts[0]].values()
    visitor.get(f"{shop.hosts[0]}/c/{secrets[1]}")  # revoked by now
    stored = everything_stored(shop)
    assert len(secrets) > 8
    assert "cust_a" in stored
    for secret in secrets:
        for text in {secret, secret.lower(), secret.upper()}:
            assert text not in stored
            assert not re.search(rf"(?<![0-9A-Za-z]){re.escape(text)}(?![0-9A-Za-z])", caplog.text), caplog.text
