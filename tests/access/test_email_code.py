"""Step-up by a code in an e-mail, through the whole application and a real mail server."""

from __future__ import annotations

import json
import re
import secrets
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from html import unescape
from threading import Barrier
from typing import Any

import pytest
from pydantic import ValidationError
from shared_record_email_otp import VALID_FOR, EmailCode, EmailCodeSettings
from sqlalchemy import event, select
from werkzeug.test import TestResponse

from client import Visitor, serve, url_of
from mail_server import MailServer, mail_server
from shared_record.access import attempts, entitlements, stepup
from shared_record.access.entitlements import Change
from shared_record.access.mailing import PERSON
from shared_record.db.schema import audit_event, challenge, mail, session, tenant
from shared_record.delivery.mail import open_post
from shared_record.delivery.mailer import Mailer
from shared_record.settings import Settings
from shared_record.tenancy.methods import put_methods
from world import Shop

ANNA, STRANGER = "Anna.Larsen@northwind.example", "mallory@northwind.example"


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "7")
    shop.record("cust_b", "8")
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("email_otp", {})])
    allow(shop, ANNA)
    return shop


def allow(shop: Shop, address: str, customer: str = "cust_a") -> None:
    rule = entitlements.email(address)
    with shop.db.write(shop.scope) as connection:
        entitlements.allow(connection, shop.keys, shop.clock, shop.scope, customer, rule, "test")


def deny(shop: Shop, address: str) -> None:
    rule, change = entitlements.email(address), Change("test", tell=True)
    with shop.db.write(shop.scope) as connection:
        entitlements.deny(connection, shop.keys, shop.clock, shop.scope, "cust_a", rule, change)


def settings(server: MailServer) -> dict[str, str]:
    return {"smtp_url": f"smtp+plain://127.0.0.1:{server.port}", "mail_from": "Records <records@host.example>"}


def deliver(shop: Shop, server: MailServer) -> int:
    post = open_post(Settings(**settings(server)))
    assert post is not None
    return Mailer(shop.db, shop.keys, shop.clock, post).run_once()


def code_in(server: MailServer, which: int = -1) -> str:
    found = re.search(r"Your code: (\d{4} \d{4})", server.mails[which].get_content())
    assert found
    return found[1]


def hidden(page: TestResponse) -> dict[str, str]:
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    return {name: unescape(value) for name, value in fields}


class Person(Visitor):
    """A browser at one link."""

    def __init__(self, shop: Shop, application: Any, customer: str = "cust_a", host: str | None = None) -> None:
        super().__init__(application)
        self.url = url_of(shop, customer, host)

    def ask(self, address: str, **options: Any) -> TestResponse:
        """Type an address, as a person does."""
        form = hidden(self.get(f"{self.url}/unlock?next=/c/x/activity"))
        page = self.post(f"{self.url}/unlock", data=form | {"field-address": address}, **options)
        self.form = hidden(page)
        return page

    def enter(self, code: str) -> TestResponse:
        """Type the code into the form that came last."""
        return self.post(f"{self.url}/unlock", data=self.form | {"field-code": code})

    def again(self) -> TestResponse:
        """Press "Send again"."""
        return self.post(f"{self.url}/unlock", data=self.form | {"again": "1"})


@pytest.fixture
def application(shop: Shop, server: MailServer) -> Any:
    return serve(shop, **settings(server))


@pytest.fixture
def many_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the limit on forms away that lies above those of mail."""
    monkeypatch.setattr(attempts, "is_start_limited", lambda *_: None)


@pytest.fixture
def person(shop: Shop, application: Any) -> Person:
    return Person(shop, application)


def rows(shop: Shop, table: Any) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(table).where(table.c.tenant_id == shop.scope.plane)).all()


def events(shop: Shop) -> list[str]:
    return [row.event for row in sorted(rows(shop, audit_event), key=lambda row: row.at)]


def shape(page: TestResponse) -> tuple[Any, ...]:
    """Return what a stranger can compare of two answers: status, headers, length, and text without random parts."""
    text = re.sub(r'(value|nonce)="[A-Za-z0-9_.=-]{20,}"', "", page.text)
    headers = [(name, re.sub(r"nonce-[\w-]+", "", value)) for name, value in page.headers if name != "Set-Cookie"]
    return page.status_code, headers, len(page.data), text


# --- The way in ------------------------------------------------------------------------------------------------------


def test_a_listed_person_gets_in_by_the_mailed_code(shop: Shop, server: MailServer, person: Person) -> None:
    page = person.ask("  anna.larsen@NORTHWIND.example ")
    assert page.status_code == 200
    assert 'autocomplete="one-time-code"' in page.text
    assert 'inputmode="numeric"' in page.text
    assert deliver(shop, server) == 1
    ((_, recipients, _),) = server.received
    assert recipients == [ANNA], "to the stored address, as it is stored"
    opened = person.enter(code_in(server).replace(" ", "-"))
    assert opened.status_code == 303
    assert person.get(f"{person.url}/activity").status_code == 200
    assert "otp.sent" in events(shop)


def test_the_mail_is_plain_and_says_what_it_is_for(shop: Shop, server: MailServer, person: Person) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    (found,) = server.mails
    text = found.get_content()
    assert re.fullmatch(r"Acme usage record: code \d{4} \d{4}", found["Subject"])
    assert found["From"] == "Records <records@host.example>"
    for part in (shop.hosts[0], "until 12:10 UTC on 22 November 2026", "no action is needed"):
        assert part in text
    assert not re.search(r"https?:|www\.|<|/c/", text)
    handle = shop.link("cust_a").handle
    assert handle is not None
    assert handle not in server.received[0][2].decode(), "L06"


def test_no_address_and_no_code_is_stored_readable_or_logged(
    shop: Shop, server: MailServer, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "shared_record")
    person.ask(ANNA)
    stored = repr([rows(shop, table) for table in (challenge, mail, audit_event, entitlements.entitlement)])
    deliver(shop, server)
    code = code_in(server)
    person.enter("0000 0000")
    person.enter(code)
    stored += repr([rows(shop, table) for table in (mail, audit_event, session)])
    logged = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("shared_record"))
    for text in (stored, logged):
        assert "larsen" not in text.lower()
        assert code not in text
        assert code.replace(" ", "") not in text


def test_an_empty_address_is_asked_for_again(person: Person) -> None:
    page = person.ask("   ")
    assert page.status_code == 403
    assert "Enter your email address." in page.text


def test_it_is_not_offered_where_no_mail_can_be_sent(shop: Shop) -> None:
    application = serve(shop, database_url="postgresql://not-used/x")
    page = Visitor(application).get(f"{url_of(shop, 'cust_a')}/unlock")
    assert page.status_code == 503


def test_it_works_by_json(shop: Shop, server: MailServer, application: Any) -> None:
    visitor, handle = Visitor(application), shop.link("cust_a").handle
    url = f"{shop.hosts[0]}/api/v1/c/{handle}/access/verify"
    first = visitor.post(url, json={"factor": "EMAIL_OTP", "value": ANNA})
    assert first.status_code == 202
    deliver(shop, server)
    ticket = first.get_json()["data"]["challenge"]
    second = visitor.post(url, json={"factor": "EMAIL_OTP", "challenge": ticket, "value": code_in(server)})
    assert second.status_code == 200


# --- Abuse -----------------------------------------------------------------------------------------------------------


def test_o01_one_address_gets_one_mail_a_minute_and_five_an_hour(
    shop: Shop, server: MailServer, application: Any, many_starts: None
) -> None:
    pages = []
    for _ in range(8):
        person = Person(shop, application)
        pages.append(person.ask(ANNA))
        deliver(shop, server)
    assert len(server.received) == 1
    for _ in range(9):
        shop.clock.advance(minutes=4)
        pages.append(Person(shop, application).ask(ANNA))
        deliver(shop, server)
    assert len(server.received) == PERSON.hour == 5
    shapes = {(status, size) for status, _, size, _ in map(shape, pages) if status == 200}
    assert len(shapes) == 1, "over the limit nothing looks different"
    assert "otp.suppressed" in events(shop)


def test_o01_ten_a_day_and_per_address_over_all_records(
    shop: Shop, server: MailServer, application: Any, many_starts: None
) -> None:
    allow(shop, ANNA.upper(), "cust_b")
    for hour in range(15):
        for customer in ("cust_a", "cust_b"):
            Person(shop, application, customer).ask(ANNA)
        deliver(shop, server)
        shop.clock.advance(hours=hour % 2, minutes=2)
    assert len(server.received) == PERSON.day == 10
    shop.clock.advance(days=1)
    Person(shop, application).ask(ANNA)
    assert deliver(shop, server) == 1


def test_o01_decoys_use_up_nobodys_limit(shop: Shop, server: MailServer, application: Any) -> None:
    for _ in range(6):
        Person(shop, application).ask(STRANGER)
    Person(shop, application).ask(ANNA)
    assert deliver(shop, server) == 1


def test_o01_parallel_requests_send_one_mail(shop: Shop, server: MailServer, application: Any) -> None:
    people = [Person(shop, application) for _ in range(8)]
    for one in people:
        one.form = hidden(one.get(f"{one.url}/unlock"))
    gate = Barrier(len(people))

    def ask(one: Person) -> int:
        gate.wait()
        return one.post(f"{one.url}/unlock", data=one.form | {"field-address": ANNA}).status_code

    with ThreadPoolExecutor(len(people)) as pool:
        assert set(pool.map(ask, people)) == {200}
    deliver(shop, server)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "typed", [STRANGER, "no address", "anna.larsen@northwind.example.evil.example", "x" * 254, "ä@ö"]
)
def test_o02_the_page_is_the_same_whether_an_address_is_listed_or_not(
    shop: Shop, server: MailServer, application: Any, typed: str
) -> None:
    listed, other = Person(shop, application), Person(shop, application)
    known, unknown = listed.ask(ANNA), other.ask(typed)
    assert shape(known) == shape(unknown)
    assert ANNA.lower() not in known.text.lower()
    assert shape(listed.again()) == shape(other.again())
    assert shape(listed.enter("1234 5678")) == shape(other.enter("1234 5678"))
    assert deliver(shop, server) == 1


def test_o02_the_same_statements_are_run_whether_an_address_is_listed_or_not(shop: Shop, application: Any) -> None:
    found: dict[str, list[str]] = {}
    for typed in (ANNA, STRANGER):
        Person(shop, application).ask(typed)  # makes the counters
    shop.clock.advance(minutes=2)
    for typed in (ANNA, STRANGER):
        person, statements = Person(shop, application), found.setdefault(typed, [])
        form = hidden(person.get(f"{person.url}/unlock"))

        def note(_c: Any, _cursor: Any, statement: str, *_: Any, into: list[str] = statements) -> None:
            into.append(statement)

        event.listen(shop.db.engine, "before_cursor_execute", note)
        person.post(f"{person.url}/unlock", data=form | {"field-address": typed})
        event.remove(shop.db.engine, "before_cursor_execute", note)
    assert found[ANNA] == found[STRANGER]
    assert any("INSERT INTO mail" in one for one in found[ANNA])


def test_o02_the_time_does_not_tell_either(shop: Shop, application: Any, many_starts: None) -> None:
    """Interleaved, in changing order: the quicker quarter of both kinds differs by less than the noise of one."""
    times: dict[str, list[float]] = {ANNA: [], STRANGER: []}
    for turn in range(20):
        for typed, spent in sorted(times.items(), reverse=bool(turn % 2)):
            person = Person(shop, application)
            form = hidden(person.get(f"{person.url}/unlock"))
            started = time.perf_counter()
            assert person.post(f"{person.url}/unlock", data=form | {"field-address": typed}).status_code == 200
            spent.append(time.perf_counter() - started)
            shop.clock.advance(minutes=61)
    known, unknown = (statistics.quantiles(spent, n=4)[0] for spent in times.values())
    assert abs(known - unknown) < 0.35 * max(known, unknown)


def test_o02_a_bounce_changes_nothing(shop: Shop, server: MailServer, person: Person, application: Any) -> None:
    server.refusals["RCPT"] = ["550 no such user"]
    known = person.ask(ANNA)
    deliver(shop, server)
    assert server.received == []
    assert shape(person.again()) == shape(known)


def test_o03_five_tries_end_a_challenge(shop: Shop, server: MailServer, person: Person) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    right = code_in(server)
    wrong = f"{(int(right.replace(' ', '')) + 1) % 10**8:08d}"
    for _ in range(4):
        assert person.enter(wrong).status_code == 403
    page = person.enter(wrong)
    assert page.status_code in (403, 429)
    assert person.enter(right).status_code in (403, 429)
    assert rows(shop, session) == []


def test_o03_a_decoy_is_never_right(shop: Shop, server: MailServer, application: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda _: 12345678)
    person = Person(shop, application)
    person.ask(STRANGER)
    assert person.enter("12345678").status_code == 403


def test_o04_of_64_parallel_answers_one_opens(
    shop: Shop, server: MailServer, application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "is_limited", lambda *_: None)
    monkeypatch.setattr(stepup, "CHALLENGE_TRIES", 1000)
    person = Person(shop, application)
    person.ask(ANNA)
    deliver(shop, server)
    code, gate = code_in(server), Barrier(64)
    cookie = "; ".join(f"{name}={value}" for name, value in person.jars[shop.hosts[0]].items())

    def enter(_: int) -> int:
        gate.wait()
        visitor = Visitor(application)
        data = person.form | {"field-code": code}
        return visitor.post(f"{person.url}/unlock", data=data, headers={"Cookie": cookie}).status_code

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(enter, range(64)))
    assert answers.count(303) == 1
    assert len(rows(shop, session)) == 1


def test_o05_the_code_ends_with_its_time_and_sending_again_does_not_prolong_it(
    shop: Shop, server: MailServer, person: Person
) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    shop.clock.advance(minutes=9)
    person.again()
    deliver(shop, server)
    assert len(server.received) == 2
    assert code_in(server, 0) == code_in(server, 1), "the same code, so an older mail works too"
    assert "until 12:10 UTC" in server.mails[1].get_content()
    shop.clock.advance(minutes=1)
    assert person.enter(code_in(server)).status_code == 403
    assert rows(shop, session) == []


def test_o05_a_new_challenge_ends_the_former_one(shop: Shop, server: MailServer, person: Person) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    former = dict(person.form)
    shop.clock.advance(minutes=2)
    person.ask(ANNA)
    deliver(shop, server)
    new, person.form = person.form, former
    assert person.enter(code_in(server, 0)).status_code == 403
    person.form = new
    assert person.enter(code_in(server, 1)).status_code == 303


def test_o06_the_code_works_in_no_other_browser_record_or_host(
    shop: Shop, server: MailServer, person: Person, application: Any
) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    code = code_in(server)
    others = [
        Person(shop, application),
        Person(shop, application, "cust_b"),
        Person(shop, application, host=shop.hosts[1]),
    ]
    for other in others:
        own = hidden(other.get(f"{other.url}/unlock"))
        other.form = person.form | {"csrf_token": own.get("csrf_token", "")}
        assert other.enter(code).status_code in (303, 307, 308, 400, 403, 404, 421)
    assert rows(shop, session) == []
    assert person.enter(code).status_code == 303


def test_o07_a_vendor_name_cannot_break_the_subject(shop: Shop, server: MailServer, person: Person) -> None:
    with shop.db.write(shop.scope) as connection:
        name = 'Acme "x" <y@z.example>, ' + "long " * 30
        connection.execute(tenant.update().where(tenant.c.tenant_id == shop.scope.plane).values(name=name))
    assert person.ask(ANNA).status_code == 200
    deliver(shop, server)
    assert server.received[0][1] == [ANNA]
    assert len(server.mails[0]["Subject"]) < 200


@pytest.mark.parametrize(
    "subject",
    [
        "$vendor",
        "$code $vendor.__class__ $nope",
        "{code.__init__.__globals__}",
        "${code.real}",
        "$code\nBcc: x@evil.example",
        "$code $",
        "x" * 60 + "$code",
        "$code $vendor $host $host",
    ],
)
def test_o08_the_subject_has_no_placeholders_but_the_known(subject: str) -> None:
    with pytest.raises(ValidationError):
        EmailCodeSettings(subject=subject)


def test_o08_placeholders_are_put_in_once_and_never_evaluated(shop: Shop, server: MailServer, person: Person) -> None:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [("email_otp", {"subject": "$code: $vendor, ${host}, {x.__class__}"})])
        name = "$code {0.__init__}"
        connection.execute(tenant.update().where(tenant.c.tenant_id == shop.scope.plane).values(name=name))
    person.ask(ANNA)
    deliver(shop, server)
    expected = f"{code_in(server)}: $code {{0.__init__}}, {shop.hosts[0]}, {{x.__class__}}"
    assert server.mails[0]["Subject"] == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"X-Original-Host": "evil.example", "X-Host": "evil.example"},
        {"Referer": "http://evil.example/", "X-Forwarded-Server": "evil.example"},
    ],
)
def test_o09_a_forged_host_is_not_in_the_mail(
    shop: Shop, server: MailServer, person: Person, headers: dict[str, str]
) -> None:
    page = person.ask(ANNA, headers=headers)
    if page.status_code == 200:
        deliver(shop, server)
        assert b"evil" not in server.received[0][2]
        assert shop.hosts[0].encode() in server.received[0][2]
    assert b"evil" not in b"".join(content for _, _, content in server.received)


def test_o09_an_unknown_host_sends_nothing(shop: Shop, server: MailServer, person: Person) -> None:
    page = person.ask(ANNA, headers={"Host": "evil.example"})
    assert page.status_code == 421
    assert deliver(shop, server) == 0


def test_o10_taking_the_address_away_ends_the_challenge_and_tells_it(
    shop: Shop, server: MailServer, person: Person
) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    code = code_in(server)
    deny(shop, ANNA)
    assert deliver(shop, server) == 1
    assert person.enter(code).status_code == 403
    assert rows(shop, session) == []
    told = server.mails[-1]
    assert server.received[-1][1] == [ANNA]
    assert told["Subject"] == "Acme usage record: this address was removed"
    assert "billing@acme.example" in told.get_content()


def test_o10_a_session_ends_too(shop: Shop, server: MailServer, person: Person) -> None:
    person.ask(ANNA)
    deliver(shop, server)
    assert person.enter(code_in(server)).status_code == 303
    assert person.get(f"{person.url}/activity").status_code == 200
    deny(shop, ANNA)
    assert person.get(f"{person.url}/activity").status_code != 200


def test_r8_the_page_is_the_same_while_the_mail_server_is_down(shop: Shop, server: MailServer, person: Person) -> None:
    server.stop()
    assert person.ask(ANNA).status_code == 200
    assert deliver(shop, server) == 1
    server.start()
    shop.clock.advance(seconds=5)
    assert deliver(shop, server) == 1
    assert person.enter(code_in(server)).status_code == 303


def test_the_method_keeps_within_its_contract() -> None:
    assert (EmailCode.slug, EmailCode.needs_mail, EmailCode.factor) == ("email_otp", True, "EMAIL_OTP")
    assert json.dumps(EmailCodeSettings().model_dump())
    assert timedelta(minutes=10) == VALID_FOR
