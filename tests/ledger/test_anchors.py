"""Anchors: asked after publication, each by itself, and listed by a later epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from client import Visitor, serve
from shared_record.clock import period_bounds
from shared_record.db.schema import epoch, job
from shared_record.ledger.anchors import ANCHOR, RETRY, anchors_of, list_anchored
from shared_record.ledger.entry import parse_epoch
from shared_record.ledger.proofs import newest_checkpoint, prove_record
from shared_record.ledger.receipts import issue_receipt
from shared_record.ledger.records import list_periods
from shared_record.plugin import AnchorContext, AnchorProof, AnchorSettings, CheckpointAnchor
from shared_record.tenancy.tenants import update_tenant
from shared_record.worker import Worker
from world import Shop

INTERVAL = timedelta(minutes=10)


class NotarySettings(AnchorSettings):
    mark: str


class Notary(CheckpointAnchor):
    """Writes down the digest."""

    slug = "notary"
    title = "Notary"
    settings_model = NotarySettings

    def anchor(self, note_digest: bytes, note: bytes, ctx: AnchorContext) -> AnchorProof:
        assert hashlib.sha256(note).digest() == note_digest
        return AnchorProof(self.slug, ctx.settings.mark.encode() + note_digest, ctx.now)

    def verify(self, proof: bytes, note_digest: bytes, trusted: bytes) -> str:
        if proof[-32:] != note_digest:
            raise ValueError("of another note")
        return "noted by the notary"


class Broken(Notary):
    slug = "broken"
    settings_model = AnchorSettings

    def anchor(self, note_digest: bytes, note: bytes, ctx: AnchorContext) -> AnchorProof:
        raise RuntimeError("out of ink")


class Liar(Notary):
    slug = "liar"
    settings_model = AnchorSettings

    def anchor(self, note_digest: bytes, note: bytes, ctx: AnchorContext) -> AnchorProof:
        return AnchorProof("notary", b"x", ctx.now)


@pytest.fixture
def worker(shop: Shop) -> Worker:
    enable(shop, {"anchor": "notary", "settings": {"mark": "a"}})
    classes = {one.slug: one for one in (Notary, Broken, Liar)}
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, 10, classes)


def enable(shop: Shop, *anchors: dict[str, object]) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"anchors": anchors})


def publish(shop: Shop, worker: Worker) -> str:
    shop.record("cust_a", "1")
    shop.clock.advance(seconds=11)
    worker.run_once()
    with shop.db.read(shop.scope) as connection:
        return newest_checkpoint(connection, shop.scope).note


def stored(shop: Shop, note: str) -> list[str]:
    with shop.db.read(shop.scope) as connection:
        return [one.kind for one in anchors_of(connection, shop.scope, note)]


def epochs(shop: Shop) -> list[tuple[str, ...]]:
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(select(epoch.c.entry).where(epoch.c.tenant_id == shop.scope.plane))
        return [parse_epoch(text).anchors for text in sorted(rows.scalars(), key=lambda text: parse_epoch(text).epoch)]


def state(shop: Shop):
    with shop.db.read(shop.scope) as connection:
        return connection.execute(
            select(job).where(job.c.tenant_id == shop.scope.plane, job.c.kind == ANCHOR)
        ).one_or_none()


def test_a_published_checkpoint_is_anchored_and_a_later_epoch_names_the_proof(shop: Shop, worker: Worker) -> None:
    first = publish(shop, worker)
    assert stored(shop, first) == []  # publication has not waited
    assert worker.anchor_once() == 1
    assert stored(shop, first) == ["notary"]
    publish(shop, worker)
    proof = b"a" + hashlib.sha256(first.encode()).digest()
    assert epochs(shop) == [(), (hashlib.sha256(proof).hexdigest(),)]


def test_no_more_often_than_the_interval_and_not_twice_for_one_checkpoint(shop: Shop, worker: Worker) -> None:
    publish(shop, worker)
    assert worker.anchor_once() == 1
    second = publish(shop, worker)
    assert worker.anchor_once() == 0
    shop.clock.advance(seconds=INTERVAL.total_seconds())
    assert worker.anchor_once() == 1
    assert stored(shop, second) == ["notary"]
    shop.clock.advance(seconds=INTERVAL.total_seconds())
    assert worker.anchor_once() == 0
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"anchor_seconds": 3600})
    publish(shop, worker)
    shop.clock.advance(seconds=INTERVAL.total_seconds())
    worker.anchor_once()
    third = publish(shop, worker)
    shop.clock.advance(minutes=30)
    assert worker.anchor_once() == 0
    assert stored(shop, third) == []


def test_one_that_fails_is_tried_again_by_itself_with_growing_pauses(shop: Shop, worker: Worker) -> None:
    enable(shop, {"anchor": "broken", "settings": {}}, {"anchor": "notary", "settings": {"mark": "a"}})
    note = publish(shop, worker)
    waits = []
    for _ in range(3):
        worker.anchor_once()
        row = state(shop)
        waits.append(row.due_at - shop.clock.now())
        shop.clock.advance(seconds=waits[-1].total_seconds())
    assert waits == [RETRY, RETRY * 2, RETRY * 4]
    assert row.last_error == "broken: RuntimeError: out of ink"
    assert stored(shop, note) == ["notary"]
    assert publish(shop, worker)
    enable(shop, {"anchor": "notary", "settings": {"mark": "a"}})
    shop.clock.advance(hours=1)
    worker.anchor_once()
    assert state(shop).failures == 0


@pytest.mark.parametrize(
    ("anchor", "settings", "error"),
    [
        ("liar", {}, "no proof of its kind"),
        ("missing", {}, "no installed plugin"),
        ("notary", {"mark": "a", "x": 1}, "refused by its plugin"),
    ],
)
def test_what_is_wrong_is_kept_for_the_operator(
    shop: Shop, worker: Worker, anchor: str, settings: dict[str, object], error: str
) -> None:
    enable(shop, {"anchor": anchor, "settings": settings})
    note = publish(shop, worker)
    assert worker.anchor_once() == 0
    assert error in state(shop).last_error
    assert stored(shop, note) == []
    assert publish(shop, worker)


def test_an_anchor_that_hangs_is_left_behind(shop: Shop, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Slow(Broken):
        def anchor(self, note_digest: bytes, note: bytes, ctx: AnchorContext) -> AnchorProof:
            release.wait(10)
            raise RuntimeError

    monkeypatch.setattr("shared_record.ledger.anchors.DEADLINE_SECONDS", 0.1)
    worker.checkpoint_anchors = {**worker.checkpoint_anchors, "broken": Slow}
    enable(shop, {"anchor": "broken", "settings": {}}, {"anchor": "notary", "settings": {"mark": "a"}})
    note = publish(shop, worker)
    assert worker.anchor_once() == 1
    assert stored(shop, note) == ["notary"]
    assert "no answer within" in state(shop).last_error
    release.set()


def test_a_tenant_without_anchors_and_the_test_plane_have_no_job(shop: Shop, worker: Worker) -> None:
    twin = dataclasses.replace(shop, scope=shop.test_scope)
    publish(twin, worker)
    assert state(twin) is None
    enable(shop)
    publish(shop, worker)
    assert state(shop) is None
    assert worker.anchor_once() == 0


def test_exports_carry_the_newest_of_each_kind_with_its_note(shop: Shop, worker: Worker) -> None:
    first = publish(shop, worker)
    worker.anchor_once()
    publish(shop, worker)
    with shop.db.read(shop.scope, snapshot=True) as connection:
        period = list_periods(connection, shop.scope, shop.link("cust_a").customer_id)[0]
        proof = prove_record(connection, shop.keys, shop.scope, period.tree_id)
        [anchored] = list_anchored(connection, shop.scope, proof)
    assert (anchored.size, anchored.note, anchored.kind) == (1, first, "notary")
    assert Notary().verify(anchored.proof, hashlib.sha256(anchored.note.encode()).digest(), b"")


def test_the_verification_of_a_receipt_names_them(shop: Shop, worker: Worker) -> None:
    note = publish(shop, worker)
    worker.anchor_once()
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"policy": "OPEN"})
        window = period_bounds("2026-11")
        receipt = issue_receipt(connection, shop.clock, shop.scope, shop.link("cust_a").customer_id, *window)
    answer = Visitor(serve(shop)).get(f"{shop.hosts[0]}/api/v1/verify/0x{receipt.proof_root.hex()}")
    assert answer.status_code == 200
    [found] = answer.json["data"]["proof"][0]["anchors"]
    assert (found["kind"], found["size"], found["note"]) == ("notary", 1, note)
