"""The queries, bodies and answers of checkpoints: receipt documents as the vendor asks for them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, RootModel, model_validator

from shared_record.clock import rfc3339
from shared_record.ledger.entry import receipt_id
from shared_record.ledger.receipts import Receipt
from shared_record.web.api.reading import DeltaRow, Limit, counted
from shared_record.web.api.shapes import (
    Answer,
    Body,
    Count,
    CustomerId,
    ExactText,
    Hash,
    JsonNumber,
    Moment,
    Query,
    exact,
    mistake,
)
from shared_record.web.api.windows import Interval, Pagination, ScopeAnswer, Scoped, scope_data

CheckpointName = Annotated[
    str,
    Field(
        pattern="^(chk_[0-9a-hjkmnp-tv-z]{26}|(0[xX])?[0-9a-fA-F]{64})$",
        description="A checkpointId, or a proof root with or without 0x.",
    ),
]


class CheckpointBody(Scoped, Body):
    """Which window, and whose: without ``customerId``, of all customers with deltas in it, some hundreds a call."""

    customer_id: CustomerId | None = None
    after_customer_id: CustomerId | None = None

    @model_validator(mode="after")
    def _one_or_all(self) -> CheckpointBody:
        if self.customer_id is not None and self.after_customer_id is not None:
            raise mistake("afterCustomerId goes on with all customers; leave one of the two out.")
        return self


class CheckpointsQuery(Scoped, Query):
    """Which checkpoints to list: of one customer, or with windows that lie in one window; all, if not said."""

    is_current_month: ClassVar[bool] = False

    customer_id: CustomerId | None = None
    limit: Limit = 100
    offset: Count = 0


class CheckpointsBody(Body):
    """Two checkpoints of one customer, the earlier one first."""

    customer_id: CustomerId
    from_: Annotated[CheckpointName, Field(alias="from")]
    to: CheckpointName


class Checkpoint(Answer):
    """One customer's window. Without a delta in it there is no document: ``checkpointId`` and roots are null."""

    checkpoint_id: str | None
    customer_id: CustomerId
    period: str | None
    scope: ScopeAnswer
    revision: int
    proof_root: Hash | None
    merkle_root: Hash | None
    delta_count: int
    deltas_count: int
    starting_balance: JsonNumber
    starting_balance_exact: ExactText
    final_balance: JsonNumber
    final_balance_exact: ExactText
    net_change: JsonNumber
    net_change_exact: ExactText
    unit: str | None
    status: Literal["QUEUED", "VERIFIED"]
    created_at: Moment | None


class CheckpointsMade(Answer):
    """The documents of all customers of a window: ``VERIFIED`` once each of them is.

    ``nextCustomerId`` is null at the end; else the next call goes on with it as ``afterCustomerId``.
    """

    status: Literal["QUEUED", "VERIFIED"]
    period: str | None
    scope: ScopeAnswer
    checkpoints: list[Checkpoint]
    next_customer_id: str | None


class CheckpointOrAll(RootModel[Checkpoint | CheckpointsMade]):
    """One customer's checkpoint, or those of all."""


class CheckpointList(Answer):
    """Checkpoints, newest first."""

    checkpoints: list[Checkpoint]
    pagination: Pagination


class CheckpointsCompared(Answer):
    """What was recorded after one checkpoint up to the end of another; ``added`` holds the first 100 of it."""

    customer_id: CustomerId
    from_: Annotated[Checkpoint, Field(alias="from")]
    to: Checkpoint
    net_change: JsonNumber
    net_change_exact: ExactText
    delta_count: int
    deltas_count: int
    added: list[DeltaRow]
    same_root: bool


def checkpoint_data(customer_id: str, found: Receipt, *, covered: bool) -> dict[str, Any]:
    """Return one receipt document as its vendor's checkpoint."""
    scope = Interval(found.start, found.end)
    root = receipt_id(found.proof_root)
    return {
        "checkpointId": found.receipt_id,
        "customerId": customer_id,
        "period": scope.period,
        "scope": scope_data(scope),
        "revision": found.revision,
        "proofRoot": root,
        "merkleRoot": root,
        **counted(found.size),
        **exact("startingBalance", found.opening),
        **exact("finalBalance", found.closing),
        **exact("netChange", found.net),
        "unit": found.unit,
        "status": _state(covered),
        "createdAt": rfc3339(found.issued_at),
    }


def empty_checkpoint(customer_id: str, scope: Interval, balance: str) -> dict[str, Any]:
    """Return the answer for a window without a delta: nothing to cover, so nothing is waited for."""
    return {
        "checkpointId": None,
        "customerId": customer_id,
        "period": scope.period,
        "scope": scope_data(scope),
        "revision": 0,
        "proofRoot": None,
        "merkleRoot": None,
        **counted(0),
        **exact("startingBalance", balance),
        **exact("finalBalance", balance),
        **exact("netChange", "0"),
        "unit": None,
        "status": _state(True),
        "createdAt": None,
    }


def checkpoints_data(scope: Interval, made: list[dict[str, Any]], following: str | None) -> dict[str, Any]:
    """Return the documents of several customers."""
    return {
        "status": _state(all(one["status"] == "VERIFIED" for one in made)),
        "period": scope.period,
        "scope": scope_data(scope),
        "checkpoints": made,
        "nextCustomerId": following,
    }


def _state(covered: bool) -> str:
    return "VERIFIED" if covered else "QUEUED"
