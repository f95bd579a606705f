"""Who may step up: rules of one customer, found and compared in one form, and what taking one away ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from shared_record.access import entitlements, sessions
from shared_record.access.entitlements import Change, Rule
from shared_record.access.listed import Listed, listed
from shared_record.access.sessions import Here, Visit
from shared_record.db.schema import audit_event, customer, entitlement, mail, pinned_address
from shared_record.errors import InvalidInputError, NotFoundError
from shared_record.ledger.erasure import erase_customer
from web.api_client import ApiClient
from world import Shop

ISSUER = "https://id.northwind.example"
PATH = "/api/v1/customers/cust_a/access"


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    return shop


def allow(shop: Shop, rule: Rule, who: str = "cust_a") -> bool:
    with shop.db.write(shop.scope) as connection:
        return entitlements.allow(connection, shop.keys, shop.clock, shop.scope, who, rule, "test")


def deny(shop: Shop, rule: Rule, who: str = "cust_a", *, tell: bool = False) -> bool:
    with shop.db.write(shop.scope) as connection:
        change = Change("test", tell=tell)
        return entitlements.deny(connection, shop.keys, shop.clock, shop.scope, who, rule, change)


def rules(shop: Shop, who: str = "cust_a") -> list[Rule]:
    with shop.db.read(shop.scope) as connection:
        return entitlements.list_rules(connection, shop.keys, shop.scope, who)


def ask(shop: Shop, who: str = "cust_a") -> Listed:
    handle = shop.link(who).handle
    assert handle is not None
    seen = sessions.visit(shop.db, shop.clock, Here(shop.hosts[0], shop.scope.config, None), handle, {}, secure=False)
    assert isinstance(seen, Visit)
    return listed(shop.db, shop.keys, shop.clock)(seen)


def rows(shop: Shop, table: Any) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(table).where(table.c.tenant_id == shop.scope.plane)).all()


def epoch(shop: Shop, who: str = "cust_a") -> int:
    return next(row.epoch for row in rows(shop, customer) if row.external_id == who)


def test_a_rule_is_listed_once_and_sealed(shop: Shop) -> None:
    assert allow(shop, entitlements.email("Anna@Northwind.example"))
    assert not allow(shop, entitlements.email("anna@NORTHWIND.example"))
    assert rules(shop) == [Rule("email", "Anna@northwind.example")]
    assert b"northwind" not in repr(rows(shop, entitlement)).lower().encode()
    assert epoch(shop) == 0, "listing somebody more ends nothing"


def test_an_answer_is_about_one_customer_only(shop: Shop) -> None:
    for rule in (
        entitlements.email("anna@northwind.example"),
        entitlements.domain("@Northwind.example"),
        entitlements.subject(ISSUER, "42"),
    ):
        allow(shop, rule)
    mine, other = ask(shop), ask(shop, "cust_b")
    assert mine.email(" ANNA@northwind.EXAMPLE") == "anna@northwind.example"
    assert mine.domain("northwind.example")
    assert not mine.domain("mail.northwind.example")
    assert mine.subject(ISSUER, "42")
    for wrong in ((ISSUER, "4"), (ISSUER + "/", "42"), (ISSUER, "42\0"), ("", "42")):
        assert not mine.subject(*wrong)
    assert other.email("anna@northwind.example") is None
    assert not other.domain("northwind.example")
    assert not other.subject(ISSUER, "42")
    assert mine.email("bob@northwind.example") is None, "a domain lets nobody in by e-mail code"
    digests = {row.digest for row in rows(shop, entitlement)}
    allow(shop, entitlements.subject(ISSUER, "42"), "cust_b")
    assert len({row.digest for row in rows(shop, entitlement)}) == len(digests) + 1, "nor do the hashes tell"


def test_taking_a_rule_away_bumps_the_epoch_and_is_audited(shop: Shop) -> None:
    allow(shop, entitlements.email("anna@northwind.example"))
    assert not deny(shop, entitlements.email("bob@northwind.example"))
    assert epoch(shop) == 0
    assert deny(shop, entitlements.email("anna@northwind.example"), tell=True)
    assert (epoch(shop), epoch(shop, "cust_b"), rules(shop)) == (1, 0, [])
    trail = [(row.event, row.actor) for row in rows(shop, audit_event) if row.event.startswith("access.")]
    assert sorted(trail) == [("access.allowed", "test"), ("access.denied", "test")]
    assert "northwind" not in repr([row.detail for row in rows(shop, audit_event)])
    assert [row.purpose for row in rows(shop, mail)] == ["access"]


def test_i09_an_address_is_tied_to_the_first_subject_that_shows_it(shop: Shop) -> None:
    allow(shop, entitlements.domain("northwind.example"))
    mine = ask(shop)
    assert not mine.pin(ISSUER, "1", "eve@other.example")
    assert mine.pin(ISSUER, "1", "anna@northwind.example")
    assert mine.pin(ISSUER, "1", "Anna@northwind.example")
    assert not mine.pin(ISSUER, "2", "anna@northwind.example")
    assert not mine.pin("https://other.example", "1", "anna@northwind.example")
    assert mine.pin(ISSUER, "2", "bob@northwind.example")
    deny(shop, entitlements.domain("northwind.example"))
    assert not mine.pin(ISSUER, "1", "anna@northwind.example")
    assert rows(shop, pinned_address) == []
    allow(shop, entitlements.domain("northwind.example"))
    assert mine.pin(ISSUER, "2", "anna@northwind.example"), "taking the rule away unties"


def test_i09_of_two_that_show_an_address_at_once_one_gets_it(shop: Shop) -> None:
    allow(shop, entitlements.email("anna@northwind.example"))
    mine = ask(shop)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: mine.pin(ISSUER, str(n), "anna@northwind.example"), range(8)))
    assert won.count(True) == 1


@pytest.mark.parametrize(
    "issuer_and_subject",
    [("ftp://x.example", "1"), ("https://x.example\n", "1"), ("https://x.example", ""), ("https://x.example", "é")],
)
def test_subjects_are_checked(issuer_and_subject: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        entitlements.subject(*issuer_and_subject)


def test_erasing_a_customer_takes_rules_pins_and_mails(shop: Shop) -> None:
    allow(shop, entitlements.email("anna@northwind.example"))
    ask(shop).pin(ISSUER, "1", "anna@northwind.example")
    allow(shop, entitlements.email("bob@northwind.example"))
    deny(shop, entitlements.email("bob@northwind.example"), tell=True)
    with shop.db.write(shop.scope) as connection:
        erase_customer(connection, shop.clock, shop.scope, "cust_a", "test")
    assert [rows(shop, table) for table in (entitlement, pinned_address, mail)] == [[], [], []]
    with pytest.raises(NotFoundError):
        rules(shop)


# --- By API ----------------------------------------------------------------------------------------------------------


def client(shop: Shop) -> ApiClient:
    return ApiClient(shop, shop.api_key(scopes=["access:manage"]))


def test_the_list_is_read_and_replaced_by_api(shop: Shop) -> None:
    api = client(shop)
    empty = {"customerId": "cust_a", "emails": [], "emailDomains": [], "oidcSubjects": []}
    assert api.get(PATH) == empty
    wanted = {
        "emails": ["Anna@Northwind.example", "anna@northwind.example", "bob@northwind.example"],
        "emailDomains": ["northwind.example"],
        "oidcSubjects": [{"issuer": ISSUER, "subject": "42"}],
    }
    found = api.call("PUT", PATH, status=200, json=wanted)
    assert sorted(found["emails"]) == ["anna@northwind.example", "bob@northwind.example"]
    assert (found["emailDomains"], found["oidcSubjects"]) == (wanted["emailDomains"], wanted["oidcSubjects"])
    assert (api.get(PATH), epoch(shop)) == (found, 0)
    assert api.call("PUT", PATH, status=200, json=wanted) == found, "again changes nothing"
    fewer = api.call("PUT", PATH, status=200, json={"emails": ["bob@northwind.example"]})
    assert fewer == empty | {"emails": ["bob@northwind.example"]}
    assert epoch(shop) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"emails": ["x@y.example", "a@b.example\r\nBcc: c@d.example"]}, "/emails/1"),
        ({"emails": [], "emailDomains": ["no domain"]}, "/emailDomains/0"),
        ({"emails": [], "oidcSubjects": [{"issuer": "x", "subject": "1"}]}, "/oidcSubjects/0"),
        ({}, "/emails"),
        ({"emails": ["a@b.example"] * 201}, "/emails"),
    ],
)
def test_o07_mistakes_in_the_list_are_named_and_nothing_is_changed(
    shop: Shop, body: dict[str, Any], pointer: str
) -> None:
    error = client(shop).call("PUT", PATH, status=400, json=body)
    assert error["details"][0]["pointer"] == pointer
    assert rules(shop) == []


def test_the_list_needs_its_scope_and_a_customer_of_the_plane(shop: Shop) -> None:
    assert ApiClient(shop).get(PATH, status=403)["code"] == "FORBIDDEN_SCOPE"
    assert client(shop).get("/api/v1/customers/nobody/access", status=404)["code"] == "CUSTOMER_NOT_FOUND"
    test_plane = ApiClient(shop, shop.api_key(test=True, scopes=["access:manage"]))
    assert test_plane.get(PATH, status=404)["code"] == "CUSTOMER_NOT_FOUND"
