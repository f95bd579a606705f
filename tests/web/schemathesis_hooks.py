"""Loaded by schemathesis in its own process: each request comes from an address of its own, through a proxy.

Requests without a key are counted by client address, so one that sends hundreds of them would soon be told to wait,
and what is to be seen here is how each is refused.
"""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address
from typing import Any

from requests.adapters import HTTPAdapter

FIRST = int(IPv4Address("10.0.0.1"))

_clients = itertools.count(FIRST)
_send = HTTPAdapter.send


def send(self: HTTPAdapter, request: Any, *arguments: Any, **options: Any) -> Any:
    """Send a request with the header that a proxy adds."""
    request.headers["X-Forwarded-For"] = str(IPv4Address(next(_clients)))
    return _send(self, request, *arguments, **options)


HTTPAdapter.send = send  # type: ignore[method-assign]
