"""A tenant with webhooks, and the means to send them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from posting import Post
from receiver import Receiver, receiving
from shared_record.delivery.deliver import Deliverer
from shared_record.delivery.egress import Egress
from shared_record.ledger.announce import expand
from shared_record.worker import Worker
from world import Shop

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def egress() -> Egress:
    """Rules that let tests reach their own servers."""
    return Egress(LOOPBACK)


@pytest.fixture
def post(shop: Shop, egress: Egress) -> Iterator[Post]:
    worker = Worker(shop.db, shop.keys, shop.clock, shop.locks, 10)
    deliverer = Deliverer(shop.db, shop.keys, shop.clock, egress, expand, worker.note_disabled)
    yield Post(shop, egress, deliverer)
    deliverer.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server
