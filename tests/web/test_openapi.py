"""The description of the API is made from the calls themselves: it is whole, valid, and its examples succeed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask

from shared_record.app import PLATFORM
from shared_record.web.api.openapi import describe
from shared_record.web.api.operations import operations


@pytest.fixture(scope="module")
def app() -> Flask:
    made = Flask(__name__, static_folder=None)
    for blueprint in PLATFORM:
        made.register_blueprint(blueprint)
    return made


def test_every_call_of_the_api_is_described(app: Flask) -> None:
    rules = {(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}}
    api = {one for one in rules if one[0].startswith(("/api/", "/dashboard/"))} - {("/api/v1/openapi.json", "GET")}
    assert api == set(operations(app))


def test_references_lead_somewhere_and_nothing_is_left_over(app: Flask) -> None:
    document = describe(app)
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    for part in text.split('"$ref": "')[1:]:
        target: Any = document
        for step in part.partition('"')[0].removeprefix("#/").split("/"):
            target = target[step]


def test_operation_ids_are_unique(app: Flask) -> None:
    ids = [one["operationId"] for path in describe(app)["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))


def test_every_body_has_an_example(app: Flask) -> None:
    missing = [rule for rule, (declared, _) in operations(app).items() if declared.body and not declared.examples]
    assert missing == []
