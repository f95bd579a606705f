"""Every call of pacspace-sdk 0.7.0, as a vendor's program makes it. Runs in a virtual environment of its own.

``python sdk_calls.py '{"base_url": …}'`` prints one JSON object: what each call returned, or how it failed.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

from pacspace_sdk import PacSpace, PacSpaceError

_resolve = socket.getaddrinfo


def resolve(host: Any, *rest: Any, **more: Any) -> Any:
    """Resolve names below ``localhost`` to this machine, as RFC 6761 says and browsers do; some systems do not."""
    return _resolve("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **more)


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Make every call in the order of an integration."""
    client = PacSpace(
        given["api_key"],
        base_url=given["base_url"],
        webhook_secret=given["webhook_secret"],
        submission={"profile": "sub_daily", "enterprise": True, "autoStart": False, "maxRequestsPerMinute": 6000},
    )
    balance, customer, found = client.balance, given["customer"], {}

    def call(name: str, make: Callable[[], Any]) -> Any:
        try:
            found[name] = make()
        except PacSpaceError as error:
            found[name] = {"refused": error.code, "status": getattr(error, "status_code", None), "message": str(error)}
        return found[name]

    emitted = call("emit", lambda: balance.emit(customer, -5, "api calls", {"referenceId": "job-1"}))
    call("emit_again", lambda: balance.emit(customer, -5, "api calls", {"referenceId": "job-1"}))
    call("emit_conflict", lambda: balance.emit(customer, -6, "api calls", {"referenceId": "job-1"}))
    call(
        "adjust",
        lambda: balance.emit(customer, 1.5, "correction", {"adjusts": {"recordId": emitted["recordId"]}}),
    )
    keyed = {"idempotencyKey": "sdk-key-1", "metadata": {"status": "draft", "n": 1}}
    first = call("emit_keyed", lambda: balance.emit(customer, -2, "keyed", keyed))
    call("emit_keyed_again", lambda: balance.emit(customer, -2, "keyed", keyed))
    call("emit_and_wait", lambda: balance.emit_and_wait(customer, -1, "waited", {"interval": 500, "timeout": 60_000}))
    call("delta_status", lambda: balance.delta_status(first["recordId"]))
    call("get_record_status", lambda: balance.get_record_status(first["recordId"]))
    call("wait_for_verified", lambda: balance.wait_for_verified(first["recordId"], {"interval": 500}))
    call("unknown_record", lambda: balance.delta_status("rec_nothing"))
    call("usage", balance.usage)
    call("gaps", lambda: balance.gaps(customer, {"fromSequence": 1, "toSequence": 3, "limit": 10}))
    call("derive", lambda: balance.derive(customer))
    call("derive_current_month", lambda: balance.derive_current_month(customer))
    call("derive_for_period", lambda: balance.derive_for_period(customer, given["period"]))
    call("derive_months_back", lambda: balance.derive_months_back(customer, 2))
    call(
        "derive_from_checkpoint",
        lambda: balance.derive(
            customer, {"startingCheckpoint": first["recordId"], "startingCheckpointType": "recordId"}
        ),
    )
    call("compare", lambda: balance.compare(customer, {"yours": -6.5, "theirs": 0}))
    made = call("checkpoint", lambda: balance.checkpoint(customer))
    call("checkpoint_all", balance.checkpoint)
    call("list_checkpoints", lambda: balance.list_checkpoints({"customerId": customer, "limit": 5}))
    call("receipt", lambda: balance.receipt(customer))
    call("receipt_scoped", lambda: balance.receipt(customer, {"period": given["period"]}))
    call("invoice_proof", lambda: balance.invoice_proof(customer, {"period": given["period"]}))
    call("customers", lambda: balance.customers({"limit": 5}))
    call("customer", lambda: balance.customer(customer, {"deltaLimit": 3}))
    call("customer_odd_id", lambda: balance.emit("a:b-c.d_e", 1, "odd id"))
    call("customer_odd_detail", lambda: balance.customer("a:b-c.d_e"))
    call("unknown_customer", lambda: balance.customer("nobody"))
    call("list_webhook_deliveries", lambda: balance.list_webhook_deliveries({"limit": 5}))
    call("retry_webhook", lambda: balance.retry_webhook(given["event_id"]))
    call("verify", lambda: client.verify(emitted["receiptId"]))
    call("verify_root", lambda: client.verify(made["proofRoot"], "both"))
    call("verify_chain", lambda: client.verify(made["proofRoot"], "chain"))
    call(
        "customers_create",
        lambda: client.customers.create(
            display_name="Northwind Ltd",
            customer_id="cust_made_by_sdk",
            sharing_state_hint="INHERIT",
            event_cadence="PER_EVENT",
            unit_label="calls",
            options={"dashboardToken": given["token"]},
        ),
    )
    summaries = [
        {
            "customerId": f"{customer}_{number}",
            "delta": number + 0.25,
            "windowStart": "2026-11-01T00:00:00Z",
            "windowEnd": "2026-11-02T00:00:00Z",
        }
        for number in range(3)
    ]
    call("queue_summaries", lambda: balance.queue_summaries(summaries))
    call("flush_summaries", balance.flush_summaries)
    call("queue_summaries_again", lambda: balance.queue_summaries(summaries))
    call("flush_summaries_again", balance.flush_summaries)
    call("queue_state", balance.get_summary_queue_state)
    webhook = given["webhook"]
    call("verify_webhook", lambda: client.webhooks.verify_from_headers(webhook["headers"], webhook["body"]))
    wrong = PacSpace("pk_live_wrong.key", base_url=given["base_url"], max_retries=0)
    call("wrong_key", wrong.balance.usage)
    at_home = PacSpace(given["api_key"], base_url=given["home_url"], max_retries=0)
    call("open", lambda: at_home.records.open(given["link"], given["code"]))
    call("open_wrong_code", lambda: at_home.records.open(given["link"], "AAAAAA"))
    elsewhere = PacSpace(given["api_key"], base_url=given["other_url"], max_retries=0)
    call("open_elsewhere", lambda: elsewhere.records.open(given["link"], given["code"]))
    client.shutdown()
    return found


if __name__ == "__main__":
    socket.getaddrinfo = resolve
    print(json.dumps(main(json.loads(sys.argv[1])), default=str))
