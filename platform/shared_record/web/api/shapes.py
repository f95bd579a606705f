"""What bodies, queries and answers of the API are made of, and how a mistake in one is told.

Bodies and queries are read strictly: what is not declared is refused, and every mistake of a request is reported
together, each with its place (JSON pointer, RFC 6901; a query parameter is ``/name``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError
from werkzeug.datastructures import MultiDict

from shared_record.delivery.events import exact as exact
from shared_record.errors import Detail, InvalidInputError
from shared_record.ledger.amounts import canonical, parse_amount
from shared_record.web.api.json_body import Number, pointer

CUSTOMER_ID = r"^[A-Za-z0-9_.:-]{1,128}$"
PERIOD = r"^[0-9]{4}-(0[1-9]|1[0-2])$"


class Body(BaseModel):
    """Base of a request body: a JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Query(BaseModel):
    """Base of a query string: these parameters, each at most once, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Answer(BaseModel):
    """Base of the documentation of an answer's ``data``; tests check that real answers are of this shape."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


Shape = TypeVar("Shape", bound=BaseModel)


def read_document(model: type[Shape], document: object, now: datetime) -> tuple[Shape | None, list[Detail]]:
    """Return the body that ``document`` (parsed JSON, see ``json_body``) states, or ``None`` and all its mistakes.

    ``now`` is the clock's time, for fields that are judged by it.
    """
    try:
        return model.model_validate(document, context={"now": now}), []
    except ValidationError as error:
        return None, _all(error)


def read_query(model: type[Shape], arguments: MultiDict[str, str], now: datetime) -> tuple[Shape | None, list[Detail]]:
    """Return the query that ``arguments`` state, or ``None`` and all their mistakes; a repeated name is one."""
    details = [
        Detail(pointer([name]), "VALIDATION_ERROR", "This parameter is given more than once.")
        for name, values in arguments.lists()
        if len(values) > 1
    ]
    details += [
        Detail(pointer([name]), "VALIDATION_ERROR", "This parameter holds a character that text does not have.")
        for name, value in arguments.items()
        if "\0" in value or "\ufffd" in value
    ]
    try:
        found = model.model_validate(arguments.to_dict(), context={"now": now})
    except ValidationError as error:
        return None, details + _all(error)
    return (None, details) if details else (found, [])


# --- Fields ----------------------------------------------------------------------------------------------------------

CustomerId = Annotated[str, Field(pattern=CUSTOMER_ID, examples=["cust_northwind"])]
RecordId = Annotated[str, Field(min_length=1, max_length=64, examples=["rec_8s2v0c3k1m5p7q9t"])]
ReferenceId = Annotated[str, Field(min_length=1, max_length=255, examples=["job-9"])]
PeriodName = Annotated[str, Field(pattern=PERIOD, examples=["2026-11"])]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-22T09:00:00.000Z"])]
Hash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
ExactText = Annotated[str, Field(description="The exact decimal, as text.", examples=["-5"])]
JsonNumber = Annotated[Decimal, WithJsonSchema({"type": "number", "examples": [-5]})]


def read_balance(value: object) -> str:
    """Read a balance: a JSON number or decimal text, zero included; return its canonical text."""
    if not isinstance(value, Number | str):
        raise mistake("A balance is a number, or a decimal number in a string.")
    text = value.text if isinstance(value, Number) else value
    if _ZERO.fullmatch(text):
        return "0"
    try:
        return canonical(parse_amount(text, json_number=isinstance(value, Number)))
    except InvalidInputError as error:
        raise mistake(error.message, [Detail("", error.code, error.message)]) from None


_ZERO = re.compile(r"-?0(\.0{1,24})?", re.ASCII)

Balance = Annotated[
    str,
    PlainValidator(read_balance),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]{1,20}(\.[0-9]{1,24})?$"}]}),
]


def read_count(value: object) -> int:
    """Read a whole number of a query string: digits only, so that ``1_0``, ``+1`` and `` 1`` are mistakes."""
    if not (isinstance(value, str) and _DIGITS.fullmatch(value)):
        raise mistake("This is a whole number, in digits.")
    return int(value)


_DIGITS = re.compile(r"[0-9]{1,12}", re.ASCII)

Count = Annotated[int, BeforeValidator(read_count), Field(ge=0)]


# --- Mistakes --------------------------------------------------------------------------------------------------------


def mistake(message: str, details: Iterable[Detail] = ()) -> PydanticCustomError:
    """Return an error in our words, to raise in a validator; ``details`` have pointers relative to the field."""
    found = tuple(details) or (Detail("", "VALIDATION_ERROR", message),)
    return PydanticCustomError("mistake", "{message}", {"message": message, "details": found})


_OBJECT = "This is a JSON object."
_WORDS = {
    "missing": "This field is required.",
    "extra_forbidden": "There is no such field here.",
    "string_type": "This is a string.",
    "string_too_short": "This is not empty.",
    "string_too_long": "This has at most {max_length} characters.",
    "bool_type": "This is true or false.",
    "bool_parsing": "This is true or false.",
    "literal_error": "This is one of {expected}.",
    "greater_than_equal": "This is at least {ge}.",
    "less_than_equal": "This is at most {le}.",
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "list_type": "This is a JSON array.",
    "too_short": "This has at least {min_length} items.",
    "too_long": "This has at most {max_length} items.",
}
_PATTERNS = {
    CUSTOMER_ID: "A customerId has 1 to 128 characters: letters, digits, and _ . : -",
    PERIOD: "A period is a UTC month, YYYY-MM.",
}
_MIDDLEWARE_FIELD = "vendorAccountId belongs to middleware tenants; this tenant records for itself. Leave it out."


def _all(error: ValidationError) -> list[Detail]:
    mistakes = error.errors(include_url=False, include_input=False)
    return [detail for one in mistakes for detail in _details(one)]


def _details(one: ErrorDetails) -> Sequence[Detail]:
    place, context = pointer(one["loc"]), one.get("ctx", {})
    if one["type"] == "mistake":
        return [replace(detail, pointer=place + detail.pointer) for detail in context["details"]]
    if one["type"] == "extra_forbidden" and one["loc"][-1] == "vendorAccountId":
        return [Detail(place, "VALIDATION_ERROR", _MIDDLEWARE_FIELD)]
    return [Detail(place, "VALIDATION_ERROR", _words(one["type"], context))]


def _words(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"This has the form {context['pattern']}.")
    return _WORDS.get(kind, "This value cannot be accepted.").format_map(context)
