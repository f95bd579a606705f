"""What tests send webhooks with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared_record.delivery import webhooks
from shared_record.delivery.deliver import Deliverer
from shared_record.delivery.egress import Egress
from shared_record.delivery.webhooks import Endpoint
from world import Shop


@dataclass
class Post:
    """What tests send with."""

    shop: Shop
    egress: Egress
    deliverer: Deliverer

    def endpoint(self, url: str, *wanted: str) -> tuple[Endpoint, str]:
        """Make an endpoint."""
        with self.shop.db.write(self.shop.scope) as connection:
            return webhooks.create_endpoint(
                connection,
                self.shop.keys,
                self.shop.clock,
                self.shop.scope,
                self.egress,
                url=url,
                wanted=wanted or None,
            )

    def read(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function that reads."""
        with self.shop.db.read(self.shop.scope) as connection:
            return work(connection, self.shop.scope, *arguments, **named)

    def write(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function that writes and takes no clock."""
        with self.shop.db.write(self.shop.scope) as connection:
            return work(connection, self.shop.scope, *arguments, **named)

    def timed(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function that writes and takes a clock."""
        with self.shop.db.write(self.shop.scope) as connection:
            return work(connection, self.shop.clock, self.shop.scope, *arguments, **named)

    def send(self) -> int:
        """Send everything that is due."""
        return self.deliverer.run_once()
