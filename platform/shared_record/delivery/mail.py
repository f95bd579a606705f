"""Mail: addresses, plain-text messages, and the ways to hand them over (RFC 5321, 5322).

Nothing here decides who gets a mail. Addresses and texts appear in no log.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Protocol
from urllib.parse import unquote, urlsplit

import idna

from shared_record.errors import ConfigurationError, InvalidInputError, SharedRecordError
from shared_record.settings import Settings

CONSOLE = "console:"
TIMEOUT_SECONDS = 8.0
"""For each answer of the mail server."""
MAX_ADDRESS = 254
MAX_SUBJECT = 200
PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
"""``smtp`` demands STARTTLS, ``smtps`` is TLS from the start, ``smtp+plain`` has none: for a relay on this machine."""

_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII | re.IGNORECASE)


class MailError(SharedRecordError):
    """A mail could not be handed over now. The message names no address."""

    code = "MAIL_FAILED"


class MailRefusedError(MailError):
    """The mail server refused this mail for good."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail before it is given a sender and a date. One that would break a header is an ``InvalidInputError``."""

    to: str = field(repr=False)
    subject: str = field(repr=False)
    body: str = field(repr=False)

    def __post_init__(self) -> None:
        if read_address(self.to) != self.to:
            raise InvalidInputError("This is no address as it is stored.")
        if not 0 < len(self.subject) <= MAX_SUBJECT or not self.subject.isprintable():
            raise InvalidInputError(f"A subject is one line of up to {MAX_SUBJECT} printable characters.")
        if not self.body or any(not (char.isprintable() or char == "\n") for char in self.body):
            raise InvalidInputError("The text of a mail has printable characters and line feeds.")


def read_address(text: str) -> str:
    """Return an e-mail address as it is stored: the domain in lower-case ASCII, the rest as written.

    One that cannot stand in an SMTP envelope as it is (RFC 5321 section 4.1.2, no quoted strings, ASCII only before
    the ``@``) is an ``InvalidInputError``.
    """
    local, at, domain = text.strip().rpartition("@")
    if not at or len(text) > MAX_ADDRESS or len(local) > 64 or not _LOCAL.fullmatch(local):
        raise InvalidInputError("Write an e-mail address such as anna@northwind.example.")
    found = f"{local}@{read_domain(domain)}"
    if len(found) > MAX_ADDRESS:
        raise InvalidInputError("This address is too long.")
    return found


def read_domain(text: str) -> str:
    """Return a domain of e-mail addresses in lower-case ASCII (IDNA 2008), or raise ``InvalidInputError``."""
    if len(text) > 253:  # before idna sees it: its checks are slower than linear
        raise InvalidInputError("This domain is too long.")
    try:
        name = idna.encode(text.strip(), uts46=True, std3_rules=True).decode("ascii").lower()
    except UnicodeError as error:
        raise InvalidInputError("Write a domain such as northwind.example.") from error
    if name.endswith(".") or "." not in name or name.rpartition(".")[2].isdecimal():
        raise InvalidInputError("Write a domain such as northwind.example.")
    return name


def compared(address: str) -> str:
    """Return what decides whether two stored addresses are the same: capitals do not count."""
    return address.casefold()


# --- Handing over ----------------------------------------------------------------------------------------------------


class Transport(Protocol):
    """A way to hand a message over."""

    def send(self, message: EmailMessage, sender: str, to: str) -> None:
        """Hand over; ``MailError`` where that failed and may succeed later, ``MailRefusedError`` where it cannot."""


@dataclass(frozen=True, slots=True)
class Post:
    """How this installation sends: the transport, and the sender of every mail."""

    transport: Transport
    sender: Address

    def send(self, letter: Letter, name: str, now: datetime) -> None:
        """Send one letter. ``name`` identifies it: sent twice, both have the same Message-ID."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self.sender
        message["To"] = Address(addr_spec=letter.to)
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(now)
        message["Message-ID"] = f"<{name}@{self.sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.body, cte="7bit" if letter.body.isascii() else "quoted-printable")
        self.transport.send(message, self.sender.addr_spec, letter.to)


def open_post(settings: Settings) -> Post | None:
    """Return how the installation sends mail, or ``None`` where it cannot; ``ConfigurationError`` for bad settings.

    Without a mail server, an installation with its database in one file writes mails to standard output.
    """
    url = settings.smtp_url or ("" if settings.database_url else CONSOLE)
    if not url:
        return None
    if url == CONSOLE:
        return Post(_Console(), _sender(settings.mail_from or "Shared Record <shared-record@localhost.invalid>"))
    if not settings.mail_from:
        raise ConfigurationError("SHARED_RECORD_MAIL_FROM is missing: who the mails are from.")
    return Post(_server(url, settings.smtp_password), _sender(settings.mail_from))


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server. Its certificate is verified by the trust store of the machine."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def send(self, message: EmailMessage, sender: str, to: str) -> None:
        """Hand one message over, on a connection of its own."""
        try:
            with self._connect() as server:
                server.sendmail(sender, [to], message.as_bytes())
        except smtplib.SMTPRecipientsRefused as error:
            raise _failure(next(iter(error.recipients.values()))[0], "the recipient") from None
        except smtplib.SMTPDataError as error:
            raise _failure(error.smtp_code, "the message") from None
        except smtplib.SMTPResponseException as error:
            raise MailError(f"the mail server answered {error.smtp_code} ({type(error).__name__})") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise MailError(f"the mail server could not be used: {type(error).__name__}") from None

    def _connect(self) -> smtplib.SMTP:
        if self.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_SECONDS, context=_trust())
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            if self.scheme == "smtp":
                server.starttls(context=_trust())
            if self.user:
                server.login(self.user, self.password)
        except BaseException:
            server.close()
            raise
        return server


class _Console:
    """Writes mails to standard output, for trying things out."""

    def send(self, message: EmailMessage, sender: str, to: str) -> None:
        lines = [f"From: {sender}", f"To: {to}", f"Subject: {message['Subject']}", "", message.get_content().rstrip()]
        print("\n".join(["", "--- Mail ---", *lines, "------------"]), flush=True)


def _failure(status: int, what: str) -> MailError:
    kind = MailRefusedError if 500 <= status < 600 else MailError
    return kind(f"the mail server answered {status} to {what}")


def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _server(url: str, password: str) -> SmtpServer:
    wrong = ConfigurationError(
        "SHARED_RECORD_SMTP_URL cannot be read. Write smtp://USER@HOST:587 (STARTTLS), smtps://USER@HOST:465,"
        " smtp+plain://HOST:25 for a relay on this machine, or console:"
    )
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise wrong from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise wrong
    user, secret = unquote(parts.username or ""), password or unquote(parts.password or "")
    if bool(user) != bool(secret):
        raise ConfigurationError("The mail server needs a user and a password, or neither of them.")
    if user and parts.scheme == "smtp+plain":
        raise ConfigurationError("A password is sent by smtp:// or smtps:// only, which are encrypted.")
    return SmtpServer(parts.scheme, parts.hostname, port, user, secret)


def _sender(text: str) -> Address:
    name, opened, rest = text.strip().rpartition("<")
    try:
        address = read_address(rest.rstrip().removesuffix(">") if opened else text)
        display = name.strip().strip('"')
        if not (display.isprintable() or not display):
            raise InvalidInputError("control characters")
        return Address(display, addr_spec=address)
    except InvalidInputError as error:
        raise ConfigurationError(
            "SHARED_RECORD_MAIL_FROM cannot be read. Write: Acme Records <records@acme.example>"
        ) from error
