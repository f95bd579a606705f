"""Host names: what a request may say, and what a person may claim. Pure.

Requests are compared as lower-case ASCII and nothing else; Unicode is met at one place only, where a name is claimed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final, Literal

import idna

from shared_record.errors import InvalidInputError

HostErrorKind = Literal["malformed", "misdirected"]

MAX_NAME: Final = 253
"""RFC 1035 section 2.3.4: 255 octets on the wire are 253 characters of text."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_BRACKETED = re.compile(r"\[([0-9a-f:.]+)\](.*)")


class HostError(InvalidInputError):
    """A text that is no host of ours.

    ``kind`` is ``malformed`` (answered 400) or ``misdirected`` (well formed, but can never be ours; answered 421).
    ``reason`` is one of a few fixed phrases and never quotes the input, so it may be logged.
    """

    def __init__(self, reason: str, kind: HostErrorKind) -> None:
        super().__init__(f"not a usable host name: {reason}")
        self.reason = reason
        self.kind: HostErrorKind = kind


def normalise_host(raw: str | bytes, ports: Collection[int]) -> str:
    """Return the host name in ``raw``, the value of a ``Host`` field: lower-case, without the port.

    ``ports`` are the port numbers that may be named. Raises ``HostError``: ``malformed`` for what is not
    ``name [ ":" port ]`` with labels of letters, digits and hyphens (RFC 9110 section 7.2, RFC 1123 section 2.1),
    ``misdirected`` for an IP address in any spelling and for any other port. A trailing dot is an empty label.
    """
    name, port = _split(_ascii(raw).lower())
    is_address = name.startswith("[") or _check_labels(name)
    if is_address:
        raise HostError("an IP address", "misdirected")
    if port is not None and port not in ports:
        raise HostError("a port that is not served", "misdirected")
    return name


def claim_host(text: str) -> tuple[str, str]:
    """Return the A-label form and the display form of a host name that a person entered.

    IDNA 2008 (RFC 5891) after the UTS #46 mapping, non-transitional: ``Faß.example`` is ``xn--fa-hia.example``. Both
    forms claim the same name again. Raises ``HostError`` for what is invalid there or refused by ``normalise_host``; a
    port is refused too.
    """
    if len(text) > MAX_NAME:  # before idna sees it: its checks are slower than linear (CVE-2024-3651)
        raise HostError("longer than 253 characters", "malformed")
    try:
        name = idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
        normalise_host(name, ())
        display = idna.decode(name)
        again = idna.encode(display, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:  # idna.IDNAError is one
        raise HostError("not valid under IDNA 2008", "malformed") from error
    if again != name:
        raise HostError("not valid under IDNA 2008", "malformed")
    return name, display


def _ascii(raw: str | bytes) -> str:
    if not raw:
        raise HostError("missing", "malformed")
    if not raw.isascii():
        raise HostError("not ASCII", "malformed")
    return raw.decode("ascii") if isinstance(raw, bytes) else raw


def _split(text: str) -> tuple[str, int | None]:
    """Return the name (or ``[IPv6 address]``) and the port."""
    if text.startswith("["):
        match = _BRACKETED.fullmatch(text)
        if match is None or not _is_ipv6(match[1]):
            raise HostError("an unreadable IP literal", "malformed")
        name, port = "[" + match[1] + "]", match[2]
    else:
        name, colon, digits = text.partition(":")
        port = colon + digits
    if not port:
        return name, None
    if not port.startswith(":") or not _PORT.fullmatch(port, 1) or int(port[1:]) > 65535:
        raise HostError("an unreadable port", "malformed")
    return name, int(port[1:])


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _check_labels(name: str) -> bool:
    """Check every label of ``name``; tell whether it reads as an IPv4 address: ``127.1`` and ``0x7f000001`` do.

    The rule of the URL Standard (host parsing, "ends in a number"): no name that ends so is in the DNS.
    """
    if len(name) > MAX_NAME:
        raise HostError("longer than 253 characters", "malformed")
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise HostError("a label that is empty, too long or holds other than letters, digits and hyphens", "malformed")
    return bool(_NUMBER.fullmatch(labels[-1]))
