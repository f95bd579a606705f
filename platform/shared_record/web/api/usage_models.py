"""The queries, bodies and answers of usage, gaps, derive, limits and compare."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from shared_record.errors import InvalidInputError
from shared_record.ledger.amounts import add, subtract
from shared_record.ledger.windows import Bucket, Granularity, Window
from shared_record.web.api.json_body import Number
from shared_record.web.api.reading import DeltaRow, Limit, counted
from shared_record.web.api.shapes import (
    Answer,
    Balance,
    Body,
    Count,
    CustomerId,
    ExactText,
    Hash,
    JsonNumber,
    PeriodName,
    Query,
    exact,
    mistake,
    read_balance,
)
from shared_record.web.api.windows import AsOf, Pagination, ScopeAnswer, Starting

NO_LIMIT = 2**53 - 1
"""``remaining`` where nothing limits it: the largest whole number that every JSON reader has exactly."""


def read_query_balance(value: object) -> str:
    """Read a balance of a query string, where clients write a float as it prints: with an exponent, it may be."""
    if not isinstance(value, str):
        raise mistake("A balance is a number.")
    try:
        return read_balance(Number(value))
    except InvalidInputError as error:
        raise mistake(error.message) from None


QueryBalance = Annotated[
    str, PlainValidator(read_query_balance), WithJsonSchema({"type": "number", "examples": [100.5]})
]
Sequence = Annotated[Count, Field(ge=1)]


class GapsQuery(Query):
    """Which sequence numbers to look at; all that there are, if not said."""

    from_sequence: Sequence | None = None
    to_sequence: Sequence | None = None
    limit: Limit = 100


class DeriveQuery(Starting, Query):
    """Which window, on top of which balance, and which of its rows."""

    starting_balance: QueryBalance = "0"
    granularity: Granularity | None = None
    limit: Limit = 100
    offset: Count = 0


class CompareBody(Starting, Body):
    """Two balances to hold against the record of one window."""

    customer_id: CustomerId
    your_balance: Balance
    their_balance: Balance
    starting_balance: Balance = "0"
    granularity: Annotated[Granularity, Field(strict=False)] | None = None


class Usage(Answer):
    """What of an allowance is used. This server has none: ``remaining`` is the largest exact JSON integer."""

    allowed: bool
    remaining: int
    plan: str
    period: PeriodName
    included_deltas: int | None
    consumed_deltas: int
    overage_count: int


class Limits(Answer):
    """How wide a window may be, and for how many days details are kept (null: for good)."""

    max_scope_months: int
    max_last_n_days: int
    max_retention_days: int | None


class Gap(Answer):
    """Sequence numbers that no delta has, both ends included."""

    from_: Annotated[str, Field(alias="from")]
    to: str


class Gaps(Answer):
    """The sequence numbers missing between two. ``gapCount`` counts them all, also where ``limit`` cuts the list."""

    customer_id: CustomerId
    from_sequence: str
    to_sequence: str
    highest_sequence: str
    gaps: list[Gap]
    gap_count: int
    complete: bool


class BucketAnswer(Answer):
    """One day, week (named by its Monday) or month, in UTC; ``net`` and ``deltaCount`` are the verified figures."""

    bucket: str
    net: JsonNumber
    net_exact: ExactText
    delta_count: int
    deltas_count: int
    recorded_net: JsonNumber
    recorded_net_exact: ExactText
    recorded_delta_count: int


class Derived(Answer):
    """A balance from the record. ``computedBalance`` counts verified deltas, ``recordedBalance`` all accepted ones."""

    customer_id: CustomerId
    starting_balance: JsonNumber
    starting_balance_exact: ExactText
    computed_balance: JsonNumber
    computed_balance_exact: ExactText
    recorded_balance: JsonNumber
    recorded_balance_exact: ExactText
    delta_count: int
    deltas_count: int
    recorded_delta_count: int
    latest_receipt_id: Hash | None
    scope: ScopeAnswer
    as_of: AsOf
    deltas: list[DeltaRow]
    pagination: Pagination
    breakdown: list[BucketAnswer] | None = None


class Compared(Answer):
    """How two balances stand to what the record says; differences are the balance given minus the neutral one."""

    customer_id: CustomerId
    matches_yours: bool
    matches_theirs: bool
    neutral_balance: JsonNumber
    neutral_balance_exact: ExactText
    recorded_balance: JsonNumber
    recorded_balance_exact: ExactText
    your_balance: JsonNumber
    your_balance_exact: ExactText
    their_balance: JsonNumber
    their_balance_exact: ExactText
    your_difference: JsonNumber
    your_difference_exact: ExactText
    their_difference: JsonNumber
    their_difference_exact: ExactText
    starting_balance: JsonNumber
    starting_balance_exact: ExactText
    delta_count: int
    deltas_count: int
    recorded_delta_count: int
    scope: ScopeAnswer
    as_of: AsOf
    breakdown: list[BucketAnswer] | None = None


def balances(window: Window, starting: str) -> dict[str, Any]:
    """Return what a balance comes to over ``window``, from ``starting`` on."""
    return {
        **exact("startingBalance", starting),
        **exact("recordedBalance", add(starting, window.recorded.net)),
        **counted(window.verified.count),
        "recordedDeltaCount": window.recorded.count,
    }


def verified_balance(window: Window, starting: str) -> str:
    """Return ``starting`` plus the verified deltas of ``window``."""
    return add(starting, window.verified.net)


def compared(window: Window, body: CompareBody) -> dict[str, Any]:
    """Return how the two balances of ``body`` stand to the verified one."""
    neutral = verified_balance(window, body.starting_balance)
    yours, theirs = subtract(body.your_balance, neutral), subtract(body.their_balance, neutral)
    return {
        "customerId": body.customer_id,
        "matchesYours": yours == "0",
        "matchesTheirs": theirs == "0",
        **exact("neutralBalance", neutral),
        **exact("yourBalance", body.your_balance),
        **exact("theirBalance", body.their_balance),
        **exact("yourDifference", yours),
        **exact("theirDifference", theirs),
        **balances(window, body.starting_balance),
    }


def breakdown(buckets: list[Bucket] | None) -> dict[str, Any]:
    """Return the member ``breakdown``, if one was asked for."""
    if buckets is None:
        return {}
    return {
        "breakdown": [
            {
                "bucket": one.name,
                **exact("net", one.verified.net),
                **counted(one.verified.count),
                **exact("recordedNet", one.recorded.net),
                "recordedDeltaCount": one.recorded.count,
            }
            for one in buckets
        ]
    }
