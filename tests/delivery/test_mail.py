"""Mail through a real mail server: TLS is demanded, headers cannot be broken, each mail is sent at least once."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from mail_server import MailServer, certificate, mail_server
from servers import free_port
from shared_record.db.schema import mail
from shared_record.delivery import mail as mails
from shared_record.delivery.mail import Letter, MailError, MailRefusedError, Post, open_post, read_address
from shared_record.delivery.mailer import LEASE, Mailer, queue
from shared_record.errors import ConfigurationError, InvalidInputError
from shared_record.keys import KeyRing
from shared_record.settings import Settings, load_settings
from shared_record.tenancy.customers import find_customers
from world import Shop

LETTER = Letter("anna@northwind.example", "Acme usage record: code 4829 1357", "Your code: 4829 1357\n")


def plain(server: MailServer) -> Post:
    found = open_post(Settings(smtp_url=f"smtp+plain://127.0.0.1:{server.port}", mail_from="Acme <r@acme.example>"))
    assert found is not None
    return found


def rows(shop: Shop) -> list[Any]:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(mail).where(mail.c.tenant_id == shop.scope.plane)).all()


def put(shop: Shop, letter: Letter = LETTER, **options: Any) -> None:
    options = {"valid_for": timedelta(minutes=10)} | options
    with shop.db.write(shop.scope) as connection:
        who = shop_customer(shop)
        queue(connection, shop.keys, shop.clock, shop.scope, who, "email_otp", letter, **options)


def shop_customer(shop: Shop) -> Any:
    with shop.db.read(shop.scope) as connection:
        return find_customers(connection, shop.scope, ["cust_a"])["cust_a"].customer_id


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "1")
    return shop


# --- Handing over ----------------------------------------------------------------------------------------------------


def test_a_letter_arrives_as_plain_text(shop: Shop) -> None:
    with mail_server() as server:
        plain(server).send(LETTER, "0001", shop.clock.now())
    ((sender, recipients, content),) = server.received
    (found,) = server.mails
    assert (sender, recipients) == ("r@acme.example", ["anna@northwind.example"])
    assert found["From"] == "Acme <r@acme.example>"
    assert found["Message-ID"] == "<0001@acme.example>"
    assert found["Date"] == "Sun, 22 Nov 2026 12:00:00 +0000"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found.get_content_type() == "text/plain"
    assert not found.is_multipart()
    assert found.get_content().replace("\r\n", "\n") == LETTER.body
    assert b"4829 1357" in content, "readable as it stands"


def test_other_scripts_arrive_in_ascii(shop: Shop) -> None:
    letter = Letter("anna@xn--fa-hia.example", "Übersicht: 4829 1357", "Grüße, 記録\n")
    with mail_server() as server:
        plain(server).send(letter, "1", shop.clock.now())
    assert server.received[0][2].isascii()
    assert (server.mails[0]["Subject"], server.mails[0].get_content().strip()) == (
        "Übersicht: 4829 1357",
        "Grüße, 記録",
    )


@pytest.mark.parametrize("implicit", [False, True])
def test_tls_is_verified_and_the_password_goes_through_it(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool
) -> None:
    context, trusted = certificate(tmp_path)
    # The test's server takes a login after STARTTLS only.
    login = None if implicit else ("records", "s3cret/@")
    with mail_server(tls=context, implicit=implicit, login=login) as server:
        url = f"smtps://127.0.0.1:{server.port}" if implicit else f"smtp://records@127.0.0.1:{server.port}"
        post = open_post(Settings(smtp_url=url, smtp_password=login[1] if login else "", mail_from="r@acme.example"))
        assert post is not None
        assert "s3cret" not in repr(post)
        with pytest.raises(MailError, match="SSLCertVerificationError"):
            post.send(LETTER, "1", shop.clock.now())
        assert (server.received, server.logins) == ([], 0)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        post.send(LETTER, "1", shop.clock.now())
        assert (len(server.received), server.logins) == (1, int(not implicit))


def test_a_certificate_of_another_name_is_refused(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = certificate(tmp_path, "mail.other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with mail_server(tls=context) as server:
        post = open_post(Settings(smtp_url=f"smtp://127.0.0.1:{server.port}", mail_from="r@acme.example"))
        assert post is not None
        with pytest.raises(MailError, match="SSLCertVerificationError"):
            post.send(LETTER, "1", shop.clock.now())
    assert server.received == []


def test_a_server_without_starttls_gets_nothing(shop: Shop) -> None:
    with mail_server() as server:
        post = open_post(Settings(smtp_url=f"smtp://127.0.0.1:{server.port}", mail_from="r@acme.example"))
        assert post is not None
        with pytest.raises(MailError, match="SMTPNotSupportedError"):
            post.send(LETTER, "1", shop.clock.now())
    assert server.received == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"smtp_url": "mail.example"}, "cannot be read"),
        ({"smtp_url": "http://mail.example"}, "cannot be read"),
        ({"smtp_url": "smtp://mail.example:x"}, "cannot be read"),
        ({"smtp_url": "smtp://mail.example/inbox"}, "cannot be read"),
        ({"smtp_url": "smtp://u@mail.example"}, "user and a password"),
        ({"smtp_url": "smtp+plain://u:p@mail.example"}, "encrypted"),
        ({"smtp_url": "smtp://mail.example", "mail_from": ""}, "MAIL_FROM is missing"),
        ({"smtp_url": "smtp://mail.example", "mail_from": "Acme"}, "MAIL_FROM cannot be read"),
        ({"smtp_url": "smtp://mail.example", "mail_from": "A\nBcc: x <r@acme.example>"}, "MAIL_FROM cannot be read"),
    ],
)
def test_bad_settings_are_said_and_show_no_password(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        open_post(Settings(**{"mail_from": "r@acme.example"} | settings))
    assert ":p@" not in str(caught.value)


def test_without_a_server_an_embedded_installation_prints_mails(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_post(Settings(database_url="postgresql://db/records")) is None
    post = open_post(Settings())
    assert post is not None
    post.send(LETTER, "1", shop.clock.now())
    assert "To: anna@northwind.example\nSubject: Acme usage record: code 4829 1357" in capsys.readouterr().out
    asked_for = open_post(Settings(database_url="postgresql://db/records", smtp_url="console:"))
    assert asked_for is not None


def test_the_password_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    found = load_settings(
        {
            "SHARED_RECORD_SMTP_URL": "smtp://u@mail.example",
            "SHARED_RECORD_SMTP_PASSWORD_FILE": str(tmp_path / "password"),
            "SHARED_RECORD_MAIL_FROM": "r@acme.example",
        }
    )
    assert found.smtp_password == "s3cret"
    assert "s3cret" not in repr(found)


# --- Addresses and headers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (" Anna@Northwind.Example ", "Anna@northwind.example"),
        ("a.b+c@faß.example", "a.b+c@xn--fa-hia.example"),
        ("o'neill@x-y.example", "o'neill@x-y.example"),
    ],
)
def test_addresses_are_stored_in_one_form(text: str, stored: str) -> None:
    assert read_address(text) == stored


O07 = [
    "a@b.example\r\nBcc: x@evil.example",
    "a@b.example\nx",
    "a\r\n@b.example",
    "a@b.exa\rmple",
    "a b@c.example",
    '"a b"@c.example',
    "<a@b.example>",
    "Anna <a@b.example>",
    "a@b.example,c@d.example",
    "ä@b.example",
    "a@b",
    "a@127.0.0.1",
    "a@[127.0.0.1]",
    "a@b.example.",
    "a..b@c.example",
    ".a@b.example",
    "@b.example",
    "a@",
    "",
    "a" * 65 + "@b.example",
    "a@" + "b" * 300 + ".example",
    "a\0@b.example",
]


@pytest.mark.parametrize("text", O07)
def test_o07_what_is_no_single_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_address(text)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_o07_no_text_adds_a_header_or_a_recipient(to: str, subject: str, body: str) -> None:
    for letter in ((f"a{to}@b.example", "S", "B"), ("a@b.example", subject, "B"), ("a@b.example", "S", body)):
        try:
            made = Letter(*letter)
        except InvalidInputError:
            continue
        kept = _Kept()
        Post(kept, mails._sender("r@acme.example")).send(made, "1", NOW)
        ((message, recipient),) = kept.sent
        head = message.partition(b"\r\n\r\n")[0]
        names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"]
        assert sorted(names) == sorted(HEADERS)
        assert recipient.isascii()
        assert recipient == made.to


NOW = datetime(2026, 11, 22, tzinfo=UTC)
HEADERS = [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"MIME-Version"]
HEADERS += [b"Content-Type", b"Content-Transfer-Encoding"]


class _Kept:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str]] = []

    def send(self, message: Any, sender: str, to: str) -> None:
        self.sent.append((message.as_bytes(), to))


def ours(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the product logged; the test's mail server logs too."""
    return "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("shared_record"))


# --- The queue -------------------------------------------------------------------------------------------------------


def mailer(shop: Shop, server: MailServer) -> Mailer:
    return Mailer(shop.db, shop.keys, shop.clock, plain(server))


def test_a_queued_mail_is_sealed_sent_and_forgotten(shop: Shop) -> None:
    put(shop)
    (row,) = rows(shop)
    assert (row.state, row.due_at, row.attempts) == ("waiting", shop.clock.now(), 0)
    assert b"anna" not in row.sealed_message
    assert b"4829" not in row.sealed_message
    with mail_server() as server:
        assert mailer(shop, server).run_once() == 1
        assert mailer(shop, server).run_once() == 0
        assert len(server.received) == 1
    (row,) = rows(shop)
    assert (row.state, row.due_at, row.sealed_message, row.sent_at) == ("sent", None, None, shop.clock.now())


def test_a_withheld_mail_is_never_sent(shop: Shop) -> None:
    put(shop, withheld=True)
    with mail_server() as server:
        assert mailer(shop, server).run_once() == 0
    assert server.received == []


def test_r8_mail_waits_for_a_server_that_is_down(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with mail_server() as server:
        sender = mailer(shop, server)
        server.stop()
        put(shop)
        assert sender.run_once() == 1
        (row,) = rows(shop)
        assert (row.state, row.attempts, row.due_at) == ("waiting", 1, shop.clock.now() + timedelta(seconds=5))
        assert sender.run_once() == 0
        server.start()
        shop.clock.advance(seconds=5)
        assert sender.run_once() == 1
        assert len(server.received) == 1
    assert "mail.failed" in ours(caplog)
    assert "anna" not in ours(caplog)
    assert "4829" not in ours(caplog)


def test_a_code_that_is_too_old_is_dropped(shop: Shop) -> None:
    with mail_server() as server:
        sender = mailer(shop, server)
        put(shop)
        server.stop()
        for _ in range(30):
            sender.run_once()
            shop.clock.advance(seconds=30)
        server.start()
        assert sender.run_once() == 0
        assert server.received == []
    (row,) = rows(shop)
    assert (row.state, row.sealed_message) == ("expired", None)
    assert 4 < row.attempts < 10


@pytest.mark.parametrize(
    ("command", "answer", "state"),
    [
        ("RCPT", "550 no such user", "refused"),
        ("DATA", "554 spam", "refused"),
        ("RCPT", "450 greylisted", "waiting"),
        ("DATA", "451 later", "waiting"),
    ],
)
def test_the_servers_answer_decides_whether_it_is_tried_again(
    shop: Shop, command: str, answer: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    put(shop)
    with mail_server(refusals={command: [answer]}) as server:
        sender = mailer(shop, server)
        sender.run_once()
        assert rows(shop)[0].state == state
        shop.clock.advance(seconds=5)
        sender.run_once()
        assert len(server.received) == (state == "waiting")
    assert "northwind" not in ours(caplog)


def test_a_worker_that_was_killed_leaves_the_mail_to_be_sent_again(shop: Shop) -> None:
    put(shop)

    class Killed(BaseException):
        pass

    class Dying:
        def send(self, message: Any, sender: str, to: str) -> None:
            raise Killed

    with mail_server() as server:
        dying = Mailer(shop.db, shop.keys, shop.clock, Post(Dying(), plain(server).sender))
        with pytest.raises(Killed):
            dying.run_once()
        assert mailer(shop, server).run_once() == 0, "it may still be on its way"
        shop.clock.advance(seconds=LEASE.total_seconds())
        assert mailer(shop, server).run_once() == 1
        assert len(server.received) == 1


def test_several_workers_send_each_mail_once(shop: Shop) -> None:
    for _ in range(12):
        put(shop)
    with mail_server() as server:
        threads = [threading.Thread(target=mailer(shop, server).run_once) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mailer(shop, server).run_once()
        assert len(server.received) == 12
        assert len({found["Message-ID"] for found in server.mails}) == 12


def test_a_mail_sealed_under_a_lost_key_is_given_up(shop: Shop) -> None:
    put(shop)
    with mail_server() as server:
        other = Mailer(shop.db, KeyRing("k9", {"k9": bytes(32)}), shop.clock, plain(server))
        other.run_once()
    assert rows(shop)[0].state == "refused"


def test_old_rows_go(shop: Shop) -> None:
    put(shop, withheld=True)
    shop.clock.advance(days=8)
    put(shop)
    assert [row.state for row in rows(shop)] == ["waiting"]


def test_the_port_that_nobody_listens_on_is_a_failure_that_may_pass(shop: Shop) -> None:
    post = open_post(Settings(smtp_url=f"smtp+plain://127.0.0.1:{free_port()}", mail_from="r@acme.example"))
    assert post is not None
    with pytest.raises(MailError) as caught:
        post.send(LETTER, "1", shop.clock.now())
    assert not isinstance(caught.value, MailRefusedError)
    assert json.dumps(str(caught.value)).isascii()
