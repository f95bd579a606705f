"""The description of the API (OpenAPI 3.1), made from the declarations that the calls themselves run on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from inspect import cleandoc
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from shared_record.web.api.operations import Operation, operations
from shared_record.web.api.shapes import CUSTOMER_ID
from shared_record.web.tiers import Gatekeeper, tier

_PART = re.compile(r"<(?:[^:<>]*:)?([^<>]+)>")
_REFERENCE = "#/components/schemas/{model}"
_SCHEMA = {
    "customer_id": {"type": "string", "pattern": CUSTOMER_ID},
    "handle": {"type": "string", "pattern": "^[a-z0-9_-]{20,64}$"},
}
"""Parts of a path that have a form of their own."""
_ERROR = {
    "type": "object",
    "required": ["success", "statusCode", "error"],
    "properties": {
        "success": {"const": False},
        "statusCode": {"type": "integer"},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["pointer", "code", "message"],
                        "properties": {name: {"type": "string"} for name in ("pointer", "code", "message")},
                    },
                },
                "retryAfterSeconds": {"type": "integer"},
                "requestId": {"type": "string"},
            },
        },
    },
}
_FAILURES = {
    "400": "A field or parameter cannot be accepted; `details` names every one. Nothing was written.",
    "401": "The key is missing or not valid, or this part of the record opens with a further step.",
    "403": "The key lacks the scope, or this caller may not see this.",
    "404": "There is no such thing in this data plane.",
    "409": "The request contradicts what is recorded.",
    "413": "The body is larger than 1 MiB.",
    "415": "The body is not `application/json` in UTF-8.",
    "429": "Too many requests; wait `retryAfterSeconds`.",
    "503": "A part this needs cannot be used now; nothing was written. Try again.",
}
_PENDING = {
    "type": "object",
    "required": ["code", "message", "retryAfterSeconds"],
    "properties": {
        "code": {"const": "IDEMPOTENCY_PENDING"},
        "message": {"type": "string"},
        "retryAfterSeconds": {"type": "integer"},
    },
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body get the first answer again, for 30 days.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}


openapi = Blueprint("openapi", __name__, url_prefix="/api/v1")


@openapi.get("/openapi.json")
@tier(Gatekeeper.NOBODY)
def document() -> Response:
    """Answer with the description of this API."""
    response = jsonify(describe(current_app._get_current_object()))  # type: ignore[attr-defined]
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@cache
def describe(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every declared call of ``app``."""
    calls = sorted(operations(app).items())
    schemas = _schemas([declared for _, (declared, _) in calls])
    paths: dict[str, dict[str, Any]] = {}
    for (rule, method), (declared, view) in calls:
        path = _PART.sub(lambda part: "{" + to_camel(part[1]) + "}", rule)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, declared, view)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shared Record",
            "version": version("shared-record"),
            "description": "Record usage, ask what is recorded, and hand out proofs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas | {"Error": _ERROR, "Pending": _PENDING},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-sr-…"},
                "personal": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _schemas(declared: list[Operation]) -> dict[str, Any]:
    models: set[type[BaseModel]] = set()
    for one in declared:
        models |= ({one.answer} if _is_json(one) else set()) | ({one.body} if one.body else set())
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schema = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_REFERENCE, schema_generator=_Schema
    )
    found: dict[str, Any] = schema.get("$defs", {})
    used: set[str] = set()
    reached = {model.__name__ for model in ordered}
    while reached - used:  # what fields are read with is not part of what they hold
        used |= reached
        reached = {name for one in used for name in _REFERENCES.findall(repr(found[one]))}
    return {name: found[name] for name in sorted(used)}


_REFERENCES = re.compile(r"#/components/schemas/(\w+)")


class _Schema(GenerateJsonSchema):
    """Without titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  as inherited
        return False


def _operation(rule: str, declared: Operation, view: Callable[..., Any]) -> dict[str, Any]:
    tag = view.__module__.rpartition(".")[2]
    found: dict[str, Any] = {
        "operationId": to_camel(f"{tag}_{view.__name__}"),
        "tags": [tag],
        "summary": declared.summary,
        "description": cleandoc(view.__doc__ or ""),
        "security": _security(declared),
        "parameters": [*_path_parameters(rule), *_query_parameters(declared)],
        "responses": _responses(declared),
    }
    if declared.scope:
        found["x-scope"] = declared.scope
    if declared.errors:
        found["x-error-codes"] = sorted(declared.errors)
    if declared.idempotent:
        found["parameters"].append(_IDEMPOTENCY_KEY)
    if declared.body:
        examples = {name: {"value": value} for name, value in declared.examples.items()}
        content: dict[str, Any] = {"schema": _reference(declared.body.__name__)}
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": content | ({"examples": examples} if examples else {})},
        }
    return found


def _security(declared: Operation) -> list[dict[str, list[str]]]:
    if declared.tier is Gatekeeper.API_KEY:
        return [{"apiKey": []}]
    if declared.tier is Gatekeeper.BEARER:
        return [{"personal": []}]
    return [] if declared.tier is Gatekeeper.NOBODY else [{}, {"session": []}]


def _path_parameters(rule: str) -> Iterator[dict[str, Any]]:
    for part in _PART.findall(rule):
        schema = _SCHEMA.get(part, {"type": "string"})
        yield {"name": to_camel(part), "in": "path", "required": True, "schema": schema}


def _query_parameters(declared: Operation) -> Iterator[dict[str, Any]]:
    schema = declared.query.model_json_schema(ref_template=_REFERENCE, schema_generator=_Schema)
    for name, property_ in schema.get("properties", {}).items():
        found = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        description = property_.pop("description", None)
        yield found | ({"description": description} if description else {}) | {"schema": _without_null(property_)}


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that may be left out: a query string has no null."""
    kept: dict[str, Any] = {key: value for key, value in schema.items() if key != "default" or value is not None}
    choices: list[dict[str, Any]] = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1:
        kept.pop("anyOf")
        return kept | choices[0]
    return kept | ({"anyOf": choices} if choices else {})


def _responses(declared: Operation) -> dict[str, Any]:
    data = _reference(declared.answer.__name__)
    words = cleandoc(declared.answer.__doc__ or declared.summary)
    envelope = {
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"const": True}, "data": data},
    }
    found = {str(declared.status): _response(words, envelope)}
    if declared.media_type:
        schema = {"schema": data} if _is_json(declared) else {}
        found = {str(declared.status): {"description": words, "content": {declared.media_type: schema}}}
    if declared.idempotent:
        found["202"] = _response("An earlier request with this key is still running.", _reference("Pending"))
    for status in _failures(declared):
        found[status] = _response(_FAILURES[status], _reference("Error"))
    return found


def _is_json(declared: Operation) -> bool:
    return declared.media_type in (None, "application/json")


def _failures(declared: Operation) -> list[str]:
    moved = [] if declared.tier is Gatekeeper.API_KEY else ["409"]
    body = ["409", "413", "415"] if declared.body else []
    return sorted({"400", "401", "403", "404", "429", "503", *moved, *body})


def _response(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}
