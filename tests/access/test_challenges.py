"""Challenges: bound to browser, host, record, method and epochs; few tries; used up once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import select

from shared_record.access import links, sessions
from shared_record.access.sessions import Here, Visit
from shared_record.access.stepup import Asked, Browser, NotOpened, Offer, Opened, StepUp
from shared_record.db.schema import challenge, link, session
from shared_record.tenancy.methods import put_methods
from shared_record.tenancy.policies import Policy
from stepup_methods import LISTED, Elsewhere, MailedCode, Post, Unlimited, engine
from world import Shop

ANN = Browser("192.0.2.1", binding="ann's browser")
EVE = Browser("192.0.2.66", binding="eve's browser")


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("mailed_code", {}), ("elsewhere", {})])
    return shop


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def step_up(shop: Shop, post: Post) -> StepUp:
    return engine(shop, MailedCode, Elsewhere, limits=Unlimited(), mail=post)


def seen(shop: Shop, customer: str = "cust_a", host: str | None = None) -> Visit:
    handle = shop.link(customer).handle
    assert handle is not None
    here = Here(host or shop.hosts[0], shop.scope.config, None)
    found = sessions.visit(shop.db, shop.clock, here, handle, {}, secure=False)
    assert isinstance(found, Visit)
    return found


def offer_of(step_up: StepUp, visit: Visit, key: str = "mailed_code") -> Offer:
    return next(one for one in step_up.offers(visit)[0] if one.key == key)


def start(step_up: StepUp, visit: Visit, address: str = LISTED, who: Browser = ANN, key: str = "mailed_code") -> Asked:
    offer = offer_of(step_up, visit, key)
    asked = step_up.start(visit, offer, {"address": address}, who, handle="h", target="/c/h/activity")
    assert isinstance(asked, Asked)
    return asked


def finish(
    step_up: StepUp, visit: Visit, ticket: str, code: str, who: Browser = ANN, key: str = "mailed_code"
) -> Opened | NotOpened:
    return step_up.verify(visit, offer_of(step_up, visit, key), {"code": code}, who, ticket=ticket)


def count(shop: Shop, table) -> int:
    with shop.db.read(shop.scope) as connection:
        return len(connection.execute(select(table.c.tenant_id).where(table.c.tenant_id == shop.scope.plane)).all())


def test_the_mailed_code_opens_once(shop: Shop, step_up: StepUp, post: Post) -> None:
    visit = seen(shop)
    asked = start(step_up, visit)
    (mail,) = post.mails
    assert mail.to == LISTED
    assert isinstance(finish(step_up, visit, asked.ticket, "00000000x"), NotOpened)
    opened = finish(step_up, visit, asked.ticket, mail.body)
    assert isinstance(opened, Opened)
    assert (opened.handle, opened.target) == ("h", "/c/h/activity")
    again = finish(step_up, visit, asked.ticket, mail.body)
    assert isinstance(again, NotOpened)
    assert again.code == "CHALLENGE_OVER"
    assert (count(shop, session), count(shop, challenge)) == (1, 0)


def test_sending_again_keeps_code_and_expiry(shop: Shop, step_up: StepUp, post: Post) -> None:
    visit = seen(shop)
    asked = start(step_up, visit)
    shop.clock.advance(minutes=9)
    again = step_up.again(visit, offer_of(step_up, visit), asked.ticket, ANN)
    assert isinstance(again, Asked)
    assert (again.ticket, again.expires_at) == (asked.ticket, asked.expires_at)
    assert post.mails[0].body == post.mails[1].body
    shop.clock.advance(minutes=2)
    late = finish(step_up, visit, asked.ticket, post.mails[0].body)
    assert isinstance(late, NotOpened)
    assert late.code == "CHALLENGE_OVER"
    assert isinstance(step_up.again(visit, offer_of(step_up, visit), asked.ticket, ANN), NotOpened)


def test_o03_five_tries_end_a_challenge(shop: Shop, step_up: StepUp, post: Post) -> None:
    visit = seen(shop)
    asked = start(step_up, visit)
    MailedCode.evaluated = []
    for _ in range(5):
        assert isinstance(finish(step_up, visit, asked.ticket, "wrong"), NotOpened)
    assert isinstance(finish(step_up, visit, asked.ticket, post.mails[0].body), NotOpened)
    assert MailedCode.evaluated == ["wrong"] * 5
    with shop.db.read(shop.scope) as connection:
        tries = connection.execute(
            select(link.c.tries).where(link.c.tenant_id == shop.scope.plane, link.c.customer_id == visit.customer_id)
        ).scalar_one()
    assert tries == 5  # they count towards the hundred in a row of the record


def test_o06_i01_a_challenge_is_bound_to_browser_record_method_and_choice(
    shop: Shop, step_up: StepUp, post: Post
) -> None:
    visit = seen(shop)
    asked = start(step_up, visit)
    code = post.mails[0].body
    for who in (EVE, Browser("192.0.2.1"), Browser("192.0.2.1", binding="ann's browser ")):
        assert isinstance(finish(step_up, visit, asked.ticket, code, who), NotOpened)
    assert isinstance(finish(step_up, seen(shop, "cust_b"), asked.ticket, code), NotOpened)
    assert isinstance(finish(step_up, visit, asked.ticket[:-1], code), NotOpened)
    one = start(step_up, visit, key="elsewhere:one")
    assert isinstance(finish(step_up, visit, one.ticket, "good", key="elsewhere:two"), NotOpened)
    assert isinstance(finish(step_up, visit, asked.ticket, "good", key="elsewhere:one"), NotOpened)
    assert isinstance(finish(step_up, visit, asked.ticket, code), Opened)  # none of them used it up


CHANGES = {
    "code": lambda c, s: links.rotate_code(c, s.keys, s.clock, s.scope, "cust_a", "me"),
    "policy": lambda c, s: links.set_tenant_policy(c, s.clock, s.scope, Policy.GATED, "me"),
    "own policy": lambda c, s: links.set_customer_policy(c, s.clock, s.scope, "cust_a", "OPEN", "me"),
    "link": lambda c, s: links.reissue_link(c, s.keys, s.clock, s.scope, "cust_a", "me"),
    "method": lambda c, s: [put_methods(c, s.scope, m) for m in ([], [("mailed_code", {}), ("elsewhere", {})])],
}


@pytest.mark.parametrize("change", CHANGES)
def test_o10_s05_a_challenge_ends_with_every_epoch(shop: Shop, step_up: StepUp, post: Post, change: str) -> None:
    asked = start(step_up, seen(shop))
    with shop.db.write(shop.scope) as connection:
        CHANGES[change](connection, shop)
    late = finish(step_up, seen(shop), asked.ticket, post.mails[0].body)
    assert isinstance(late, NotOpened)
    assert late.code == "CHALLENGE_OVER"
    assert count(shop, session) == 0


def test_no_step_can_be_skipped(shop: Shop, step_up: StepUp) -> None:
    visit = seen(shop)
    assert isinstance(finish(step_up, visit, "", "anything"), NotOpened)
    assert isinstance(finish(step_up, visit, "x" * 43, "anything"), NotOpened)


def test_the_newest_challenge_of_a_browser_replaces_the_one_before(shop: Shop, step_up: StepUp, post: Post) -> None:
    visit = seen(shop)
    first, other = start(step_up, visit), start(step_up, visit, who=EVE)
    second = start(step_up, visit)
    assert isinstance(finish(step_up, visit, first.ticket, post.mails[0].body), NotOpened)
    assert isinstance(finish(step_up, visit, second.ticket, post.mails[2].body), Opened)
    assert isinstance(finish(step_up, visit, other.ticket, post.mails[1].body, EVE), Opened)


def test_i13_somebody_signed_in_elsewhere_has_one_try(shop: Shop, step_up: StepUp) -> None:
    visit = seen(shop)
    asked = start(step_up, visit, key="elsewhere:one")
    assert asked.challenge.redirect.startswith(f"https://one.example/authorize?state={asked.ticket}&redirect_uri=http")
    assert f"{shop.hosts[0]}:8000/auth/elsewhere/one" in asked.challenge.redirect
    assert isinstance(finish(step_up, visit, asked.ticket, "bad", key="elsewhere:one"), NotOpened)
    assert isinstance(finish(step_up, visit, asked.ticket, "good", key="elsewhere:one"), NotOpened)
    once_more = start(step_up, visit, key="elsewhere:one")
    assert isinstance(finish(step_up, visit, once_more.ticket, "good", key="elsewhere:one"), Opened)


def test_the_state_is_sealed(shop: Shop, step_up: StepUp, post: Post) -> None:
    asked = start(step_up, seen(shop))
    with shop.db.read(shop.scope) as connection:
        row = connection.execute(challenge.select().where(challenge.c.tenant_id == shop.scope.plane)).one()
    stored = b"".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    for secret in (post.mails[0].body, asked.ticket, "/c/h/activity", "ann's browser"):
        assert secret.encode() not in stored


def test_a_method_that_needs_mail_is_out_where_there_is_none(shop: Shop) -> None:
    offered, out = engine(shop, MailedCode, Elsewhere).offers(seen(shop))
    assert [one.key for one in offered] == ["elsewhere:one", "elsewhere:two"]
    assert out == {"mailed_code"}


def rounds(soak: bool) -> int:
    return 200 if soak else 20


def test_a04_o04_races_on_a_challenge_evaluate_the_cap_and_have_one_winner(
    shop: Shop, step_up: StepUp, post: Post, soak: bool
) -> None:
    visit = seen(shop)
    offer = offer_of(step_up, visit)
    with ThreadPoolExecutor(64) as pool:
        for number in range(rounds(soak)):
            asked = start(step_up, visit)
            code = post.mails[-1].body if number % 2 else "wrong"
            MailedCode.evaluated = []
            barrier = Barrier(64)

            def answer(_: int, asked: Asked = asked, code: str = code, barrier: Barrier = barrier) -> bool:
                barrier.wait(60)
                result = step_up.verify(visit, offer, {"code": code}, ANN, ticket=asked.ticket)
                return isinstance(result, Opened)

            results = list(pool.map(answer, range(64)))
            assert results.count(True) == number % 2
            assert len(MailedCode.evaluated) <= 5
            assert number % 2 or len(MailedCode.evaluated) == 5
