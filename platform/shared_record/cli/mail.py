"""``shared-record mail``: whether mail arrives."""

from __future__ import annotations

from uuid import uuid4

import click

from shared_record.cli.context import emit, json_option, open_installation
from shared_record.delivery.mail import Letter, MailError, open_post, read_address
from shared_record.errors import ConfigurationError, UnavailableError


@click.group()
def mail() -> None:
    """The mails of this installation."""


@mail.command("test", epilog="Example:  shared-record mail test --to you@acme.example")
@click.option("--to", required=True, metavar="ADDRESS", help="Where to send it.")
@json_option
def test_command(to: str, as_json: bool) -> None:
    """Send one mail now, past the queue, and say what the mail server answered."""
    installation = open_installation()
    post = open_post(installation.settings)
    if post is None:
        raise ConfigurationError("no mail server is set. Set SHARED_RECORD_SMTP_URL and SHARED_RECORD_MAIL_FROM.")
    host = installation.settings.platform_hosts[0]
    letter = Letter(
        read_address(to), f"Mail of {host}", f"This is a test of the mail of {host}.\n\nCodes will arrive like this.\n"
    )
    try:
        post.send(letter, str(uuid4()), installation.clock.now())
    except MailError as error:
        raise UnavailableError(f"{error.message}.") from error
    emit({"to": letter.to, "handedOver": True}, as_json=as_json, text="The mail server took the mail.")
