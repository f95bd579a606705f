"""A client of the API that holds every success against the shape that its operation declares."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any

from flask import Flask
from werkzeug.routing import Map
from werkzeug.test import TestResponse

from client import Visitor, serve
from shared_record.app import PLATFORM
from shared_record.web.api.operations import Operation, operations
from world import Shop

HOST = "localhost"


class ApiClient:
    """Calls of one API key on the platform host, through the whole application."""

    def __init__(self, shop: Shop, key: str | None = None, **settings: Any) -> None:
        self.shop = shop
        self.key = shop.api_key() if key is None else key
        self.application = serve(shop, **settings)
        self.visitor = Visitor(self.application)
        self.rules, self.declared = declarations()

    def get(self, path: str, *, status: int = 200, **query: Any) -> Any:
        """Return ``data`` of a GET, or the error object for a ``status`` from 400 on."""
        return self.call("GET", path, status=status, query_string=query)

    def post(self, path: str, body: Any, *, status: int = 201, **headers: str) -> Any:
        """Return ``data`` of a POST of JSON, or the error object."""
        return self.call("POST", path, status=status, json=body, headers=headers)

    def call(self, method: str, path: str, *, status: int, **options: Any) -> Any:
        """Send one request, hold its answer against its operation, and return ``data`` or ``error``."""
        headers = {"X-Api-Key": self.key} | options.pop("headers", {})
        response = self.visitor.request(method, f"{HOST}{path}", headers=headers, **options)
        assert response.status_code == status, response.text
        if status >= 400:
            return failure_of(response)
        return self.check_answer(method, path, response)

    def check_answer(self, method: str, path: str, response: TestResponse) -> Any:
        """Return ``data`` of a success, after holding it against the declared answer; amounts are ``Decimal``."""
        body = json.loads(response.data, parse_float=Decimal)
        assert body["success"] is True
        declared = self.operation(method, path)
        assert response.status_code == declared.status
        declared.answer.model_validate(body["data"])
        check_states(body["data"])
        return body["data"]

    def operation(self, method: str, path: str) -> Operation:
        """Return what is declared for a call."""
        rule, _ = self.rules.bind(HOST).match(path, method=method, return_rule=True)
        return self.declared[rule.rule, method]


@cache
def declarations() -> tuple[Map, dict[tuple[str, str], Operation]]:
    """Return the rules of the platform host, and the operations by (rule, method)."""
    app = Flask(__name__, static_folder=None)
    for blueprint in PLATFORM:
        app.register_blueprint(blueprint)
    return app.url_map, {place: found for place, (found, _) in operations(app).items()}


def failure_of(response: TestResponse) -> dict[str, Any]:
    """Return the error object of a failure in the API's envelope."""
    body = response.get_json()
    assert (body["success"], body["statusCode"]) == (False, response.status_code)
    error: dict[str, Any] = body["error"]
    assert error["code"]
    assert error["message"]
    return error


def check_states(value: Any) -> None:
    """Hold every member named ``status`` to the four states of a delta: clients replace any other by ``QUEUED``."""
    if isinstance(value, dict):
        assert value.get("status", "QUEUED") in ("QUEUED", "PROCESSING", "VERIFIED", "FAILED")
        for item in value.values():
            check_states(item)
    elif isinstance(value, list):
        for item in value:
            check_states(item)
