"""Webhooks from the change to the receiver: what is sent, to whom, how often, and what the log says."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from client import Visitor, serve, url_of
from posting import Post
from receiver import Receiver, receiving
from shared_record.access.stepup import HARD_CAP
from shared_record.db.schema import audit_event, link, webhook_delivery, webhook_endpoint, webhook_event, webhook_task
from shared_record.delivery import deliver, log, outbox, webhooks
from shared_record.delivery.deliver import RETRIES, next_attempt
from shared_record.delivery.events import EVENTS, delivery_id, split_id
from shared_record.errors import ConflictError, InvalidInputError, NotFoundError
from shared_record.ledger.erasure import erase_customer
from shared_record.ledger.receipts import issue_receipt
from shared_record.ledger.records import find_delta


def count(post: Post, table) -> int:
    with post.shop.db.read(post.shop.scope) as connection:
        query = select(func.count()).select_from(table).where(table.c.tenant_id == post.shop.scope.plane)
        return connection.execute(query).scalar_one()


def states(post: Post) -> list[tuple[str, int]]:
    found, _ = post.read(log.list_deliveries)
    return sorted((one.state, one.attempts) for one in found)


def later(post: Post, **delta: float) -> None:
    post.shop.clock.advance(**delta)


# --- Bodies ----------------------------------------------------------------------------------------------------------


def test_delta_verified_tells_of_each_delta_exactly_and_in_order(post: Post, receiver: Receiver) -> None:
    _, secret = post.endpoint(receiver.url, "delta.verified")
    amounts = ["-5", "0.1", "12345678901234567890.000000000000000000000001"]
    recorded = [post.shop.record("cust_a", one, reference_id=f"job-{n}")[0] for n, one in enumerate(amounts)]
    assert post.send() == 0  # nothing is verified yet
    post.shop.checkpoint()
    assert post.send() == 3
    for sent, expected, amount in zip(receiver.received, recorded, amounts, strict=True):
        body = sent.document
        assert list(body) == ["id", "event", "tenantId", "createdAt", "timestamp", "data"]
        assert body["id"] == sent.event_id == sent.headers["webhook-id"]
        assert body["event"] == sent.headers["x-webhook-event"] == "delta.verified"
        assert body["tenantId"].startswith("t_")
        assert body["createdAt"] == body["timestamp"]
        data = body["data"]
        assert data["recordId"] == expected.record_id
        assert data["receiptId"] == data["verificationReference"] == expected.receipt_id
        assert f'"delta":{amount},"deltaExact":"{amount}"' in sent.body.decode()  # the literal itself is exact
        assert data["sequenceNumber"] == str(expected.sequence)
        status = find_delta(post.shop.db, post.shop.scope, expected.record_id)
        assert data["proof"]["previousProofHash"] == status.previous_hash
        assert data["proof"]["itemHashes"] == [data["proof"]["proofHash"]] == [expected.receipt_id]
        assert data["deltaDetail"]["amountExact"] == amount
        assert data["deltaDetail"]["reason"] == "usage"
        assert data["period"] == {
            "id": "2026-11",
            "deltaCount": 3,
            "netDelta": pytest.approx(float(data["period"]["netDeltaExact"])),
            "netDeltaExact": "12345678901234567885.100000000000000000000001",
        }
        assert (data["verification"]["verified"], data["verification"]["discrepancies"]) == (True, [])
        stamp = sent.headers["x-pacspace-timestamp"]
        expected_signature = hmac.new(secret.encode(), f"{stamp}.".encode() + sent.body, hashlib.sha256).hexdigest()
        assert sent.headers["x-pacspace-signature"] == f"v1={expected_signature}"
    assert [one["data"]["sequenceNumber"] for one in receiver.events("delta.verified")] == ["1", "2", "3"]


def test_deltas_are_stored_as_one_range_per_record_and_epoch(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "delta.verified")
    for customer in ("cust_a", "cust_b"):
        post.shop.record(customer, *["1"] * 150)
    post.shop.checkpoint()
    assert count(post, webhook_event) == 2
    assert post.send() == 300
    assert len(set(receiver.ids)) == 300
    assert count(post, webhook_task) == 0
    post.shop.record("cust_a", "1")
    post.shop.checkpoint()
    assert count(post, webhook_event) == 3
    assert post.send() == 1
    assert receiver.received[-1].document["data"]["sequenceNumber"] == "151"


def test_nothing_is_written_where_nobody_subscribes(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "customer.export_downloaded")
    post.shop.record("cust_a", "1")
    post.shop.checkpoint()
    assert count(post, webhook_event) == 0
    assert post.send() == 0


def test_customer_created_goes_with_the_transaction_that_makes_the_customer(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "customer.created")
    post.shop.record("cust_a", "1")
    post.shop.record("cust_a", "1")
    assert post.send() == 1
    [body] = receiver.events("customer.created")
    assert body["data"]["customerId"] == "cust_a"
    text = receiver.received[0].body.decode()
    assert post.shop.link("cust_a").path.rsplit("/", 1)[1] not in text
    assert post.shop.code("cust_a") not in text


def test_a_receipts_events_wait_for_the_checkpoint_that_covers_it(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "checkpoint.verified", "receipt.generated")
    post.shop.record("cust_a", "1", "2")
    who, now = post.shop.link("cust_a").customer_id, post.shop.clock.now()
    made = post.timed(issue_receipt, who, now.replace(day=1, hour=0), now + timedelta(days=1))
    assert post.send() == 0
    post.shop.record("cust_b", "1")
    post.shop.checkpoint()
    assert post.send() == 2
    for name in ("checkpoint.verified", "receipt.generated"):
        [body] = receiver.events(name)
        assert body["data"]["checkpointId"] == body["data"]["receiptId"] == made.receipt_id
        assert body["data"]["proofRoot"] == "0x" + made.proof_root.hex()
        assert (body["data"]["deltaCount"], body["data"]["netChangeExact"]) == (2, "3")
        assert body["data"]["verifiedAt"] == body["createdAt"]
    again = post.timed(issue_receipt, who, now.replace(day=1, hour=0), now + timedelta(days=1))
    assert again == made
    assert post.send() == 0  # nothing new, nothing told
    post.timed(issue_receipt, who, now.replace(day=1, hour=0), now + timedelta(days=2))
    assert post.send() == 2  # covered already: told at once


@pytest.mark.parametrize(
    ("before", "told"), [(8, []), (9, [(10, False)]), (10, []), (HARD_CAP - 1, [(HARD_CAP, True)])]
)
def test_repeated_failures_of_step_up_are_told_at_ten_and_at_the_hard_stop(
    post: Post, receiver: Receiver, before: int, told: list[tuple[int, bool]]
) -> None:
    shop = post.shop
    post.endpoint(receiver.url, "customer.step_up_failed_repeatedly")
    shop.record("cust_a", "1")
    with shop.db.write(shop.scope) as connection:
        connection.execute(link.update().where(link.c.tenant_id == shop.scope.plane).values(tries=before))
    Visitor(serve(shop)).unlock(url_of(shop, "cust_a"), "WRONG2")
    assert post.send() == len(told)
    bodies = receiver.events("customer.step_up_failed_repeatedly")
    assert [(one["data"]["failuresInARow"], one["data"]["paused"]) for one in bodies] == told
    assert all((one["data"]["customerId"], one["data"]["method"]) == ("cust_a", "access_code") for one in bodies)
    assert not any(b"WRONG2" in one.body for one in receiver.received)


# --- To whom ---------------------------------------------------------------------------------------------------------


def test_each_endpoint_gets_what_it_subscribes_to_and_the_planes_never_meet(post: Post, receiver: Receiver) -> None:
    with receiving() as other:
        post.endpoint(receiver.url)
        post.endpoint(other.url, "delta.verified")
        post.shop.record("cust_a", "1")
        post.shop.checkpoint()
        assert post.send() == 3
        assert sorted(one.headers["x-webhook-event"] for one in receiver.received) == [
            "customer.created",
            "delta.verified",
        ]
        assert [one.headers["x-webhook-event"] for one in other.received] == ["delta.verified"]
        assert other.ids[0] in receiver.ids  # one event, one id, wherever it goes
    with post.shop.db.read(post.shop.test_scope) as connection:
        assert webhooks.list_endpoints(connection, post.shop.test_scope) == []


def test_an_endpoint_gets_nothing_from_before_it_was_made_or_while_it_is_disabled(
    post: Post, receiver: Receiver
) -> None:
    first, _ = post.endpoint(receiver.url, "customer.created")
    post.shop.record("cust_a", "1")
    later(post, seconds=1)
    with receiving() as other:
        post.endpoint(other.url, "customer.created")
        assert post.send() == 1
        assert other.received == []
        post.write(webhooks.update_endpoint, post.egress, first.endpoint_id, {"enabled": False})
        post.shop.record("cust_b", "1")
        assert post.send() == 1
        assert len(receiver.received) == 1
        assert len(other.received) == 1


def test_w05_a_secret_that_was_rotated_signs_too_for_24_hours(post: Post, receiver: Receiver) -> None:
    endpoint, old = post.endpoint(receiver.url, "customer.created")
    with post.shop.db.write(post.shop.scope) as connection:
        new = webhooks.rotate_secret(connection, post.shop.keys, post.shop.clock, post.shop.scope, endpoint.endpoint_id)
    assert new != old

    def signers() -> list[str]:
        post.shop.record(f"cust_{len(receiver.received)}", "1")
        post.send()
        sent = receiver.received[-1]
        message = f"{sent.headers['x-pacspace-timestamp']}.".encode() + sent.body
        by = {"v1=" + hmac.new(one.encode(), message, hashlib.sha256).hexdigest(): one for one in (old, new)}
        return [by[value] for value in sent.headers["x-pacspace-signature"].split(",")]

    assert signers() == [new, old]
    later(post, hours=23, minutes=59)
    assert signers() == [new, old]
    later(post, minutes=1)
    assert signers() == [new]


# --- Failures --------------------------------------------------------------------------------------------------------


def test_w06_a_failed_delivery_is_tried_again_for_75_hours_and_then_no_more(post: Post, receiver: Receiver) -> None:
    receiver.answer = 500
    post.endpoint(receiver.url, "customer.created")
    post.shop.record("cust_a", "1")
    begun = post.shop.clock.now()
    assert post.send() == 1
    for attempt, delay in enumerate(RETRIES, start=1):
        [one], total = post.read(log.list_deliveries)
        assert (one.state, one.attempts, one.last_code, total) == ("PENDING", attempt, 500, 1)
        assert delay * 0.9 <= one.next_attempt_at - one.last_attempt_at <= delay
        post.shop.clock.set(one.next_attempt_at - timedelta(seconds=1))
        assert post.send() == 0
        post.shop.clock.set(max(one.next_attempt_at, begun) + timedelta(minutes=5))  # past any pause, too
        assert post.send() == 1
    assert states(post) == [("FAILED", 8)]
    later(post, days=10)
    assert post.send() == 0
    assert len(receiver.received) == 8
    assert len({one.body for one in receiver.received}) == 1  # the same bytes each time
    assert len(set(receiver.ids)) == 1
    assert sum(RETRIES, timedelta()) == timedelta(hours=75)


def test_jitter_spreads_attempts_and_never_prolongs_the_wait(post: Post) -> None:
    now = post.shop.clock.now()
    waits = {next_attempt(3, now) - now for _ in range(50)}
    assert len(waits) > 40
    assert all(RETRIES[2] * 0.9 <= one <= RETRIES[2] for one in waits)


def test_w06_410_disables_the_endpoint_and_nothing_more_is_sent(post: Post, receiver: Receiver) -> None:
    receiver.answer = 410
    endpoint, _ = post.endpoint(receiver.url, "customer.created")
    for name in ("cust_a", "cust_b", "cust_c"):
        post.shop.record(name, "1")
    post.send()
    assert len(receiver.received) == 1
    found = post.read(webhooks.require_endpoint, endpoint.endpoint_id)
    assert (found.enabled, found.disabled_reason) == (False, "it answered 410 Gone")
    noted = select(audit_event.c.actor, audit_event.c.detail).where(
        audit_event.c.tenant_id == post.shop.scope.plane, audit_event.c.event == "webhook.disabled"
    )
    with post.shop.db.read(post.shop.scope) as connection:
        event = connection.execute(noted).one()
    assert (event.actor, event.detail["endpoint"]) == ("system", endpoint.endpoint_id)
    later(post, days=2)
    assert post.send() == 0
    assert states(post) == [("FAILED", 1)]
    receiver.answer = 200
    post.write(webhooks.update_endpoint, post.egress, endpoint.endpoint_id, {"enabled": True})
    assert post.send() == 2  # what was waiting is not lost


@pytest.mark.parametrize("status", [199, 301, 302, 308, 400, 404, 429, 500, 503])
def test_only_2xx_counts_as_delivered(post: Post, status: int) -> None:
    def answer(handler, _received) -> None:
        handler.wfile.write(b"HTTP/1.1 %d X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n" % max(status, 200))
        handler.close_connection = True

    with receiving(answer if status != 199 else 299) as receiver:
        post.endpoint(receiver.url, "customer.created")
        post.shop.record("cust_a", "1")
        post.send()
        assert states(post) == [("DELIVERED" if status == 199 else "PENDING", 1)]


def test_a_dead_endpoint_is_not_flooded_and_catches_up_in_order_when_it_is_back(post: Post, receiver: Receiver) -> None:
    receiver.answer = 503
    post.endpoint(receiver.url, "delta.verified")
    post.shop.record("cust_a", *["1"] * 500)
    post.shop.checkpoint()
    for _ in range(120):  # two minutes
        post.send()
        later(post, seconds=1)
    assert len(receiver.received) <= 20
    assert count(post, webhook_delivery) == len(set(receiver.ids))  # no row before the first attempt
    receiver.answer, receiver.received[:] = 200, []
    later(post, minutes=6)
    post.send()
    later(post, hours=1)
    post.send()
    assert {one["data"]["sequenceNumber"] for one in receiver.events("delta.verified")} == {
        str(n) for n in range(1, 501)
    }
    assert {state for state, _ in states(post)} == {"DELIVERED"}


def test_w06_an_endpoint_that_accepts_nothing_for_75_hours_is_disabled(post: Post, receiver: Receiver) -> None:
    receiver.answer = 500
    endpoint, _ = post.endpoint(receiver.url, "customer.created")
    post.shop.record("cust_a", "1")
    with post.shop.db.write(post.shop.scope) as connection:
        of = webhook_endpoint.c.tenant_id == post.shop.scope.plane
        connection.execute(webhook_endpoint.update().where(of).values(failing=deliver.GIVE_UP - 1))
    post.send()
    assert post.read(webhooks.require_endpoint, endpoint.endpoint_id).disabled_reason.startswith("it accepted nothing")
    assert timedelta(hours=75) == deliver.LONGEST_PAUSE * deliver.GIVE_UP


def test_g15_a_slow_endpoint_does_not_hold_up_the_others(post: Post, receiver: Receiver) -> None:
    release = threading.Event()

    def slow(handler, _received) -> None:
        release.wait(20)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with receiving(slow) as tarpit:
        post.endpoint(tarpit.url, "delta.verified")
        post.endpoint(receiver.url, "delta.verified")
        post.shop.record("cust_a", *["1"] * 250)
        post.shop.checkpoint()
        stop = threading.Event()
        worker = threading.Thread(target=post.deliverer.run, args=(stop, 0.05))
        worker.start()
        try:
            limit = time.monotonic() + 8
            while len(receiver.received) < 250 and time.monotonic() < limit:
                time.sleep(0.02)
            assert len(receiver.received) == 250
            assert 1 <= len(tarpit.received) <= deliver.CONNECTIONS
        finally:
            release.set()
            stop.set()
            worker.join()


def test_w06_no_delivery_holds_a_link_or_a_code(post: Post, receiver: Receiver) -> None:
    shop = post.shop
    post.endpoint(receiver.url, *EVENTS)
    shop.record("cust_a", "1")
    made, code = shop.link("cust_a"), shop.code("cust_a")
    with shop.db.write(shop.scope) as connection:
        connection.execute(link.update().where(link.c.tenant_id == shop.scope.plane).values(tries=9))
    visitor = Visitor(serve(shop))
    visitor.unlock(url_of(shop, "cust_a"), "AAAAAA")
    visitor.unlock(url_of(shop, "cust_a"), code)
    now = shop.clock.now()
    post.timed(issue_receipt, made.customer_id, now.replace(day=1, hour=0), now + timedelta(days=1))
    shop.checkpoint()
    post.send()
    assert len({one.document["event"] for one in receiver.received}) >= 4
    for sent in receiver.received:
        told = sent.body.decode() + repr(sent.headers)
        assert made.handle not in told.lower()
        assert code not in told


# --- Sending again by hand -------------------------------------------------------------------------------------------


def test_any_event_of_a_range_can_be_found_and_sent_again_by_its_id(post: Post, receiver: Receiver) -> None:
    endpoint, _ = post.endpoint(receiver.url, "delta.verified")
    post.shop.record("cust_a", "1", "2", "3")
    post.shop.checkpoint()
    post.send()
    second = receiver.received[1]
    [found] = post.read(log.find_event, second.event_id)
    assert (found.state, found.attempts, found.endpoint_id) == ("DELIVERED", 1, endpoint.endpoint_id)
    assert post.timed(log.retry_event, second.event_id) == 1
    assert post.send() == 1
    assert receiver.received[-1].body == second.body
    assert receiver.received[-1].event_id == second.event_id
    [found] = post.read(log.find_event, second.event_id)
    assert (found.state, found.attempts) == ("DELIVERED", 2)
    whole, seq = split_id(second.event_id)
    assert seq == 2
    assert delivery_id(whole, seq) == second.event_id
    post.timed(log.retry_event, whole)
    assert post.send() == 3
    for unknown in (delivery_id(whole, 4), delivery_id(whole, 0), "evt_" + "0" * 26, "evt_", "x", "evt_\0", ""):
        with pytest.raises(NotFoundError):
            post.timed(log.retry_event, unknown)
        with pytest.raises(NotFoundError):
            post.read(log.find_event, unknown)


def test_an_event_that_waits_for_its_first_attempt_can_be_found(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "delta.verified")
    post.shop.record("cust_a", "1", "2")
    post.shop.checkpoint()
    outbox.share_out(post.shop.db, post.shop.scope)
    with post.shop.db.read(post.shop.scope) as connection:
        of = webhook_event.c.tenant_id == post.shop.scope.plane
        whole = connection.execute(select(webhook_event.c.event_id).where(of)).scalar_one()
    [found] = post.read(log.find_event, delivery_id(whole, 2))
    assert (found.state, found.attempts, found.last_attempt_at) == ("PENDING", 0, None)
    assert post.read(log.list_deliveries) == ([], 0)


def test_a_range_of_time_is_sent_again_whole_or_only_what_failed(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url)
    since = post.shop.clock.now()
    post.shop.record("cust_a", "1", "2")
    post.shop.checkpoint()
    post.send()
    later(post, minutes=1)
    until = post.shop.clock.now()
    receiver.answer = 500
    post.shop.record("cust_b", "1")
    post.send()
    receiver.answer, receiver.received[:] = 200, []
    assert post.timed(log.retry_range, since, until) == 3
    later(post, seconds=10)
    assert post.send() == 3
    assert post.timed(log.retry_range, since, until, failed_only=True) == 0
    assert post.timed(log.retry_range, since, post.shop.clock.now(), failed_only=True) == 1
    assert post.send() == 1
    assert receiver.events("customer.created")[-1]["data"]["customerId"] == "cust_b"
    later(post, days=9)
    assert post.send() == 0  # what was sent by hand is not sent by schedule again
    with pytest.raises(InvalidInputError):
        post.timed(log.retry_range, until, since)


def test_a_test_send_reaches_one_endpoint_whatever_it_subscribes_to(post: Post, receiver: Receiver) -> None:
    endpoint, _ = post.endpoint(receiver.url, "customer.created")
    for name in EVENTS:
        post.timed(webhooks.send_test, endpoint.endpoint_id, name)
    assert post.send() == len(EVENTS)
    assert sorted(one.headers["x-webhook-event"] for one in receiver.received) == sorted(EVENTS)
    assert all(one.document["data"].get("test") for one in receiver.received)
    post.write(webhooks.update_endpoint, post.egress, endpoint.endpoint_id, {"enabled": False})
    with pytest.raises(ConflictError):
        post.timed(webhooks.send_test, endpoint.endpoint_id, "customer.created")


# --- Endpoints -------------------------------------------------------------------------------------------------------


def test_endpoints_are_made_changed_and_removed(post: Post, receiver: Receiver) -> None:
    made, secret = post.endpoint(receiver.url)
    assert made.events is None
    changed = post.write(
        webhooks.update_endpoint, post.egress, made.endpoint_id, {"events": ["customer.created"], "description": "x"}
    )
    assert (changed.events, changed.description, changed.url) == (("customer.created",), "x", receiver.url)
    with pytest.raises(InvalidInputError) as refused:
        post.write(
            webhooks.update_endpoint, post.egress, made.endpoint_id, {"events": ["delta.verified", "delta.lost"]}
        )
    assert [one.pointer for one in refused.value.details] == ["/events/1"]
    with pytest.raises(InvalidInputError):
        post.write(webhooks.update_endpoint, post.egress, made.endpoint_id, {"url": "http://10.0.0.1/"})
    post.shop.record("cust_a", "1")
    receiver.answer = 500
    post.send()
    post.write(webhooks.delete_endpoint, made.endpoint_id)
    assert post.read(webhooks.list_endpoints) == []
    assert states(post) == [("FAILED", 1)]  # the log outlives it
    for work in (webhooks.require_endpoint, webhooks.delete_endpoint):
        with pytest.raises(NotFoundError):
            post.write(work, made.endpoint_id)
    assert secret not in repr(made)


def test_secrets_are_sealed_at_rest(post: Post, receiver: Receiver) -> None:
    _, secret = post.endpoint(receiver.url)
    with post.shop.db.read(post.shop.scope) as connection:
        of = webhook_endpoint.c.tenant_id == post.shop.scope.plane
        row = connection.execute(select(webhook_endpoint).where(of)).one()
    assert secret.encode() not in row.sealed_secret
    assert secret not in repr(tuple(row))


def test_there_is_an_end_to_the_number_of_endpoints(post: Post, receiver: Receiver) -> None:
    for _ in range(webhooks.MAX_ENDPOINTS):
        post.endpoint(receiver.url)
    with pytest.raises(ConflictError):
        post.endpoint(receiver.url)


def test_erasing_a_customer_erases_its_events_and_their_log(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url)
    for name in ("cust_a", "cust_b"):
        post.shop.record(name, "1")
    post.shop.checkpoint()
    post.send()
    post.shop.record("cust_a", "2")
    post.shop.checkpoint()
    with post.shop.db.write(post.shop.scope) as connection:
        erase_customer(connection, post.shop.clock, post.shop.scope, "cust_a", "test")
    with post.shop.db.read(post.shop.scope) as connection:
        of = webhook_event.c.tenant_id == post.shop.scope.plane
        kept = connection.execute(select(webhook_event.c.data).where(of)).scalars().all()
    assert all("cust_a" not in (text or "") for text in kept)
    assert len(kept) == 2
    assert count(post, webhook_delivery) == 2
    receiver.received.clear()
    assert post.send() == 0


def test_an_event_is_told_once_per_customer_and_day(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "customer.shared_record_viewed")
    post.shop.record("cust_a", "1")
    who = post.shop.link("cust_a").customer_id
    data = {"customerId": "cust_a"}
    for _ in range(3):
        post.timed(outbox.emit_daily, "customer.shared_record_viewed", data, who)
    assert post.send() == 1
    later(post, days=1)
    post.timed(outbox.emit_daily, "customer.shared_record_viewed", data, who)
    assert post.send() == 1


def test_w06_a_worker_that_was_overtaken_writes_nothing(post: Post, receiver: Receiver) -> None:
    """Its lease ran out while it sent; whoever took over sends the same events again, under the same ids."""
    post.endpoint(receiver.url, "customer.created")
    post.shop.record("cust_a", "1")

    def overtaken(handler, _received) -> None:
        with post.shop.db.write(post.shop.scope) as connection:
            of = webhook_endpoint.c.tenant_id == post.shop.scope.plane
            connection.execute(webhook_endpoint.update().where(of).values(fence=webhook_endpoint.c.fence + 1))
        receiver.answer = 200
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.answer = overtaken
    assert post.send() == 1
    assert states(post) == []
    later(post, seconds=61)
    assert post.send() == 1
    assert states(post) == [("DELIVERED", 1)]
    assert len(set(receiver.ids)) == 1
    assert json.loads(receiver.received[0].body) == json.loads(receiver.received[1].body)


def test_what_is_done_is_kept_for_a_month(post: Post, receiver: Receiver) -> None:
    post.endpoint(receiver.url, "customer.created")
    post.shop.record("cust_a", "1")
    assert post.send() == 1
    later(post, days=29)
    post.shop.record("cust_b", "1")
    assert log.purge(post.shop.db, post.shop.scope, post.shop.clock.now()) == 0
    later(post, days=2)
    assert log.purge(post.shop.db, post.shop.scope, post.shop.clock.now()) == 1
    assert (count(post, webhook_event), count(post, webhook_delivery)) == (1, 0), "what is not sent yet stays"
    assert post.send() == 1
