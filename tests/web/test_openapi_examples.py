"""Every example of a request body in the description of the API succeeds as it stands there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from shared_record.access.apikeys import SCOPES, create_token
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.keys import KeyRing
from web.api_client import HOST, ApiClient, declarations
from world import Shop, open_shop

OCTOBER = datetime(2026, 10, 20, 12, tzinfo=UTC)
CUSTOMER = "cust_northwind"
EXAMPLES = [
    pytest.param(method, rule, name, id=f"{method} {rule}: {name}")
    for (rule, method), declared in sorted(declarations()[1].items())
    for name in declared.examples
]


@pytest.fixture
def shop(db: Database, keys: KeyRing, tmp_path: Path) -> Shop:
    """A customer with two months of usage, all of it covered by a checkpoint."""
    clock = SteppedClock(OCTOBER)
    made = open_shop(db, keys, clock, tmp_path)
    made.record(CUSTOMER, "-5", "-2")
    clock.advance(days=33)
    made.record(CUSTOMER, "-1.5")
    made.checkpoint()
    return made


@pytest.mark.parametrize(("method", "rule", "name"), EXAMPLES)
def test_the_example_succeeds(shop: Shop, method: str, rule: str, name: str) -> None:
    client = ApiClient(shop, shop.api_key(scopes=list(SCOPES)))
    body = dict(declarations()[1][rule, method].examples[name])
    path = fill(client, rule)
    body |= real_names(client, rule)
    answer = send(client, method, path, body)
    assert answer.status_code == client.operation(method, path).status, answer.text
    client.check_answer(method, path, answer)


def fill(client: ApiClient, rule: str) -> str:
    """Return the path of ``rule`` with names of things that there are."""
    path = rule.replace("<customer_id>", CUSTOMER).replace("<handle>", client.shop.link(CUSTOMER).path[3:])
    if "<webhook_id>" in path or "<event_id>" in path:
        hook = client.post("/api/v1/webhooks", {"url": "https://billing.acme.example/hooks"})["id"]
        path = path.replace("<webhook_id>", hook)
        if "<event_id>" in path:
            path = path.replace("<event_id>", client.post(f"/api/v1/webhooks/{hook}/test", {})["eventId"])
    return path


def real_names(client: ApiClient, rule: str) -> dict[str, str]:
    """Return what an example can only stand in for: a code, and identifiers that are made when they are needed."""
    if rule.endswith("/access/verify"):
        return {"value": client.shop.code(CUSTOMER)}
    if rule.endswith("/checkpoints/compare"):
        first, second = (checkpoint(client, period) for period in ("2026-10", "2026-11"))
        return {"from": first["checkpointId"], "to": second["proofRoot"]}
    return {}


def checkpoint(client: ApiClient, period: str) -> Any:
    made = client.post("/api/v1/balance/checkpoint", {"customerId": CUSTOMER, "period": period})
    client.shop.checkpoint()
    return made


def send(client: ApiClient, method: str, path: str, body: Any) -> TestResponse:
    shop, headers = client.shop, {"X-Api-Key": client.key}
    if path.startswith("/dashboard/"):
        with shop.db.write(shop.scope) as connection:
            token = create_token(connection, shop.clock, shop.scope, name="test", actor="test")
        headers = {"Authorization": f"Bearer {token}"}
    if not path.startswith("/api/v1/c/"):
        return client.visitor.request(method, HOST + path, headers=headers, json=body)
    host = shop.link(CUSTOMER).host
    if not path.endswith("/verify"):
        client.visitor.unlock(host + shop.link(CUSTOMER).path, shop.code(CUSTOMER))
    data = json.dumps(body)
    return client.visitor.request(method, host + path, data=data, headers={"Content-Type": "application/json"})
