"""Sixty-four at the same moment: as many answers are judged as the cap leaves, and what counts once has one winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest
from shared_record_example_totp import code_at, seed_of
from shared_record_oidc.provider import Cache
from sqlalchemy import select

from access_parts import KINDS, AtOnce, Boundless, counted, fetch_from
from mock_idp import SECRET, MockIdp
from shared_record.access import entitlements, links, method_secrets, sessions
from shared_record.access.attempts import HARD_CAP, Browser
from shared_record.access.listed import listed
from shared_record.access.sessions import Here, Visit, cookie_name
from shared_record.access.stepup import CHALLENGE_TRIES, Asked, Offer, Opened, StepUp
from shared_record.db.schema import link, session, trusted_device
from shared_record.tenancy.methods import put_methods
from stepup_methods import Post, engine
from world import Shop

MANY = 64
SEED = b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
BROWSER = Browser("192.0.2.1", binding="b" * 43)
T = TypeVar("T")


@dataclass
class Door:
    """One customer's record with every method, in which answers that a method judges are noted."""

    shop: Shop
    step_up: StepUp
    judged: list[str]
    post: Post
    idp: MockIdp
    pool: ThreadPoolExecutor
    rounds: int

    @property
    def seen(self) -> Visit:
        """A look at the link, as it is now."""
        here, handle = Here(self.shop.hosts[0], self.shop.scope.config, None), self.shop.link("cust_a").handle
        found = sessions.visit(self.shop.db, self.shop.clock, here, handle or "", {}, secure=False)
        assert isinstance(found, Visit)
        return found

    def offer(self, seen: Visit, slug: str) -> Offer:
        """What the customer may use."""
        return next(one for one in self.step_up.offers(seen)[0] if one.slug == slug)

    def start(self, slug: str, answer: dict[str, str]) -> tuple[Visit, Offer, Asked]:
        """Answer the first form of a method of two steps."""
        seen = self.seen
        offer = self.offer(seen, slug)
        asked = self.step_up.start(seen, offer, answer, BROWSER, handle="x" * 26, target="")
        assert isinstance(asked, Asked)
        return seen, offer, asked

    def burst(self, act: Callable[[int], T]) -> list[T]:
        """Do it many times at once; ``judged`` then has the answers of this burst."""
        self.judged.clear()
        barrier = Barrier(MANY)

        def run(number: int) -> T:
            barrier.wait(60)
            return act(number)

        return list(self.pool.map(run, range(MANY)))

    def set_tries(self, table: Any, tries: int) -> None:
        """Set how many wrong answers in a row there were."""
        with self.shop.db.write(self.shop.scope) as connection:
            connection.execute(table.update().where(table.c.tenant_id == self.shop.scope.plane).values(tries=tries))

    def tries(self, table: Any) -> int:
        """How many there were."""
        with self.shop.db.read(self.shop.scope) as connection:
            found = connection.execute(select(table.c.tries).where(table.c.tenant_id == self.shop.scope.plane))
            return int(found.scalar_one())

    def live(self) -> int:
        """How many sessions have not ended."""
        with self.shop.db.read(self.shop.scope) as connection:
            mine = (session.c.tenant_id == self.shop.scope.plane) & session.c.revoked_at.is_(None)
            return len(connection.execute(select(session.c.sid_hash).where(mine)).all())


@pytest.fixture
def door(shop: Shop, soak: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr("shared_record_oidc._cache", Cache())
    shop.record("cust_a", "1")
    idp, post, judged = MockIdp(shop.clock.now, name="https://id.acme.example"), Post(), list[str]()
    methods = {"access_code": {}, "email_otp": {}, "totp_device": {}, "oidc": {"connections": [idp.connection()]}}
    with shop.db.write(shop.scope) as connection:
        tools = (connection, shop.keys, shop.clock, shop.scope)
        put_methods(connection, shop.scope, [*methods.items()])
        method_secrets.set_tenant_secret(*tools, "oidc", "acme", SECRET.encode(), "test")
        method_secrets.set_customer_secret(*tools, "cust_a", "totp_device", SEED, "test")
        entitlements.allow(*tools, "cust_a", entitlements.email("ann@customer.example"), "test")
        entitlements.allow(*tools, "cust_a", entitlements.subject(idp.issuer, idp.subject), "test")
    step_up = engine(
        shop,
        *(counted(one, judged) for one in KINDS),
        limits=Boundless(),
        mail=post,
        entitlements=listed(shop.db, shop.keys, shop.clock),
        fetch=lambda _seen: fetch_from(idp),
        caller=AtOnce(),
    )
    with ThreadPoolExecutor(MANY) as pool:
        yield Door(shop, step_up, judged, post, idp, pool, 200 if soak else 20)


def test_a04_of_64_wrong_codes_as_many_are_judged_as_the_cap_leaves(door: Door) -> None:
    seen = door.seen
    offer = door.offer(seen, "access_code")
    for number in range(door.rounds):
        left = number % 9
        door.set_tries(link, HARD_CAP - left)

        def guess(who: int) -> object:
            return door.step_up.verify(seen, offer, {"code": "WRONG2"}, Browser(f"198.51.{who}.1"))

        codes = [getattr(one, "code", "OPENED") for one in door.burst(guess)]
        assert (codes.count("ACCESS_CODE_INVALID"), codes.count("STEP_UP_PAUSED")) == (left, MANY - left)
        assert len(door.judged) == left
        assert door.tries(link) == HARD_CAP


def test_a04_of_64_wrong_codes_from_a_trusted_device_as_many_as_its_own_cap_leaves(door: Door) -> None:
    seen = door.seen
    offer = door.offer(seen, "access_code")
    opened = door.step_up.verify(seen, offer, {"code": door.shop.code("cust_a")}, BROWSER)
    assert isinstance(opened, Opened)
    assert opened.device is not None
    trusted = Browser("192.0.2.1", device=opened.device)
    for number in range(door.rounds):
        left = number % 9
        door.set_tries(trusted_device, HARD_CAP - left)
        results = door.burst(lambda _: door.step_up.verify(seen, offer, {"code": "WRONG2"}, trusted))
        assert not any(isinstance(one, Opened) for one in results)
        assert len(door.judged) == left
        assert (door.tries(trusted_device), door.tries(link)) == (HARD_CAP, 0)


def test_o03_o04_of_64_answers_to_a_mailed_code_five_are_judged_and_one_opens(door: Door) -> None:
    for number in range(door.rounds):
        seen, offer, asked = door.start("email_otp", {"address": "ann@customer.example"})
        code = door.post.mails[-1].subject[-9:] if number % 2 else "0000 000x"
        before = door.live()

        def enter(_: int, seen: Visit = seen, offer: Offer = offer, asked: Asked = asked, code: str = code) -> object:
            return door.step_up.verify(seen, offer, {"code": code}, BROWSER, ticket=asked.ticket)

        results = door.burst(enter)
        assert [isinstance(one, Opened) for one in results].count(True) == number % 2
        assert len(door.judged) == CHALLENGE_TRIES or (number % 2 and 1 <= len(door.judged) < CHALLENGE_TRIES)
        assert door.live() == min(before + number % 2, sessions.MAX_LIVE)


def test_i01_of_64_returns_from_the_provider_one_is_judged_and_one_opens(door: Door) -> None:
    for number in range(door.rounds):
        seen, offer, asked = door.start("oidc", {})
        answer = door.idp.sign_in(asked.challenge.redirect)
        assert parse_qs(urlsplit(asked.challenge.redirect).query)["state"] == [asked.ticket]
        if number % 2:
            answer |= {"code": "guessed"}
        exchanged = door.idp.asked["/token"]

        def come_back(
            _: int, seen: Visit = seen, offer: Offer = offer, asked: Asked = asked, given: dict[str, str] = answer
        ) -> object:
            return door.step_up.verify(seen, offer, given, BROWSER, ticket=asked.ticket)

        results = door.burst(come_back)
        assert [isinstance(one, Opened) for one in results].count(True) == (0 if number % 2 else 1)
        assert (len(door.judged), door.idp.asked["/token"] - exchanged) == (1, 1)


def test_one_of_64_uses_of_the_same_code_from_an_app_opens(door: Door) -> None:
    seed = seed_of(SEED)
    assert seed is not None
    for _ in range(door.rounds):
        door.shop.clock.advance(seconds=90)
        door.set_tries(link, 0)
        seen = door.seen
        offer = door.offer(seen, "totp_device")
        code = code_at(seed, int(door.shop.clock.now().timestamp()) // 30)

        def enter(_: int, seen: Visit = seen, offer: Offer = offer, code: str = code) -> object:
            return door.step_up.verify(seen, offer, {"code": code}, BROWSER)

        assert [isinstance(one, Opened) for one in door.burst(enter)].count(True) == 1


def test_s15_of_64_that_unlock_one_record_at_once_ten_stay_open(door: Door) -> None:
    code = {"code": door.shop.code("cust_a")}
    for number in range(door.rounds):
        seen = door.seen
        offer = door.offer(seen, "access_code")

        def unlock(who: int, seen: Visit = seen, offer: Offer = offer) -> object:
            return door.step_up.verify(seen, offer, code, Browser(f"198.51.{who}.1"))

        results = door.burst(unlock)
        opened = [one.sid for one in results if isinstance(one, Opened)]
        assert len(opened) == MANY
        assert door.live() == sessions.MAX_LIVE
        if number == 0:
            assert sum(is_open(door, sid) for sid in opened) == sessions.MAX_LIVE
        door.shop.clock.advance(seconds=1)


def is_open(door: Door, sid: str) -> bool:
    here, handle = Here(door.shop.hosts[0], door.shop.scope.config, None), door.shop.link("cust_a").handle or ""
    cookies = {cookie_name(door.seen.row.link_id, secure=False): sid}
    found = sessions.visit(door.shop.db, door.shop.clock, here, handle, cookies, secure=False)
    return isinstance(found, Visit) and found.session is not None


def test_s06_of_64_that_unlock_while_the_code_is_rotated_none_stays_open(door: Door) -> None:
    """Whoever is judged by the old code has a session that ends with the rotation, or none."""
    for number in range(door.rounds):
        seen, code = door.seen, {"code": door.shop.code("cust_a")}
        offer = door.offer(seen, "access_code")

        def act(who: int, seen: Visit = seen, offer: Offer = offer, code: dict[str, str] = code) -> object:
            if who == 32:
                with door.shop.db.write(door.shop.scope) as connection:
                    tools = (connection, door.shop.keys, door.shop.clock, door.shop.scope)
                    return links.rotate_code(*tools, "cust_a", "test")
            return door.step_up.verify(seen, offer, code, Browser(f"198.51.{who}.1"))

        opened = [one.sid for one in door.burst(act) if isinstance(one, Opened)]
        assert not any(is_open(door, sid) for sid in opened[:: 1 if number < 3 else 8])
        door.shop.clock.advance(seconds=1)
