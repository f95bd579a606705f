"""Witness cosignatures: asked before publication, kept only when valid, and an alarm where they contradict the log."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from shared_record.db.schema import log
from shared_record.ledger import note
from shared_record.ledger.intake import Accepted
from shared_record.ledger.logs import read_vkeys
from shared_record.ledger.proofs import newest_checkpoint, write_receipt
from shared_record.ledger.receipts import Span
from shared_record.ledger.records import find_delta, list_periods
from shared_record.ledger.tiles import policy_text, read_keys
from shared_record.tenancy.tenants import update_tenant
from shared_record.verifier.receipts import check_receipt
from shared_record.verifier.trust import Result
from shared_record.worker import RETRY, Worker
from witness import TIME, TestWitness, serve_witness
from world import Shop

Serve = Callable[[str], TestWitness]


@pytest.fixture
def worker(shop: Shop) -> Worker:
    return Worker(shop.db, shop.keys, shop.clock, shop.locks, 10)


@pytest.fixture
def serve(shop: Shop, tmp_path: Path) -> Iterator[Serve]:
    """Start a witness that knows the shop's log."""
    with shop.db.read(shop.scope) as connection:
        keys = [note.VerifierKey.parse(vkey) for vkey in read_vkeys(connection, shop.scope)]
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(serve_witness(TestWitness(tmp_path / f"{name[-1]}.json", name, keys)))


def ask(shop: Shop, *witnesses: TestWitness, quorum: int = 0) -> None:
    with shop.db.write(shop.scope) as connection:
        changes = {"witnesses": [one.setting for one in witnesses], "witness_quorum": quorum}
        update_tenant(connection, shop.scope, changes)


def publish(shop: Shop, worker: Worker) -> str:
    """Record a delta and let the worker make a checkpoint of it; return the delta's state."""
    [accepted] = shop.record("cust_a", "1")
    assert isinstance(accepted, Accepted)
    shop.clock.advance(minutes=1)
    worker.run_once()
    return find_delta(shop.db, shop.scope, accepted.record_id).state


def newest(shop: Shop) -> str:
    with shop.db.read(shop.scope) as connection:
        return newest_checkpoint(connection, shop.scope).note


def halted(shop: Shop) -> str | None:
    with shop.db.read(shop.scope) as connection:
        return connection.execute(select(log.c.halted).where(log.c.tenant_id == shop.scope.plane)).scalar_one()


def times(shop: Shop, *witnesses: TestWitness) -> list[int]:
    return [one.time for one in note.find_cosignatures(newest(shop), [w.vkey for w in witnesses])]


def test_the_published_note_carries_each_witness_and_each_is_sent_a_consistency_proof(
    shop: Shop, worker: Worker, serve: Serve
) -> None:
    first, late = serve("witness.example/1"), serve("witness.example/2")
    ask(shop, first)
    for _ in range(3):
        assert publish(shop, worker) == "verified"
    ask(shop, first, late)
    assert publish(shop, worker) == "verified"
    assert times(shop, first, late) == [TIME, TIME]
    assert first.asked == [0, 1, 2, 3]  # at rest a witness knows the size before
    assert late.asked == [3, 0]
    assert late.known(f"localhost/log/{shop.slug}")[0] == 4


def test_a_witness_that_fails_lowers_the_label_only(shop: Shop, worker: Worker, serve: Serve) -> None:
    good, gone = serve("witness.example/1"), serve("witness.example/2")
    for reply in [
        (500, {}, b""),
        (302, {"Location": good.url}, b""),
        (200, {}, b""),
        (200, {}, b"\xff"),
        (200, {}, b"x" * 2_000_000),
        (200, {}, "— witness.example/2 AAAA\n".encode()),
        (409, {}, b"many\n"),
    ]:
        gone.reply = reply
        ask(shop, good, gone)
        assert publish(shop, worker) == "verified", reply
        assert times(shop, good, gone) == [TIME]
    ask(shop, good, dataclasses.replace(gone, url="http://127.0.0.1:9"))
    assert publish(shop, worker) == "verified"


def test_a_cosignature_of_another_body_or_key_is_not_kept(shop: Shop, worker: Worker, serve: Serve) -> None:
    false = serve("witness.example/1")
    ask(shop, false)
    other = note.checkpoint_body(f"localhost/log/{shop.slug}", 1, bytes(32))
    false.reply = (200, {}, note.cosign(other, false.name, false.key, TIME).encode())
    assert publish(shop, worker) == "verified"
    assert false.name not in newest(shop)


def test_one_that_hangs_costs_no_more_than_the_budget(
    shop: Shop, worker: Worker, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_record.ledger.witnesses.BUDGET_SECONDS", 0.2)
    good, slow = serve("witness.example/1"), serve("witness.example/2")
    release = threading.Event()
    worker.post, direct = (
        lambda url, *rest, **more: _hang(release, url == slow_url, direct, url, *rest, **more),
        worker.post,
    )
    slow_url = slow.url + "add-checkpoint"
    ask(shop, good, slow)
    assert publish(shop, worker) == "verified"
    assert times(shop, good, slow) == [TIME]
    release.set()


def _hang(release, hangs, direct, *arguments, **named):
    if hangs:
        release.wait(10)
    return direct(*arguments, **named)


def test_with_a_quorum_publication_waits_and_goes_on_by_itself(shop: Shop, worker: Worker, serve: Serve) -> None:
    first, second = serve("witness.example/1"), serve("witness.example/2")
    ask(shop, first, second, quorum=2)
    second.reply = (503, {}, b"")
    assert publish(shop, worker) == "recorded"
    assert halted(shop) is None
    with shop.db.read(shop.scope) as connection:
        assert newest_checkpoint(connection, shop.scope) is None
    second.reply = None
    shop.clock.advance(seconds=RETRY.total_seconds() + 1)
    worker.run_once()
    assert publish(shop, worker) == "verified"
    assert times(shop, first, second) == [TIME, TIME]


def test_a_witness_that_has_seen_more_halts_the_log_until_an_operator_looks(
    shop: Shop, worker: Worker, serve: Serve
) -> None:
    witness = serve("witness.example/1")
    ask(shop, witness)
    publish(shop, worker)
    witness.remember(f"localhost/log/{shop.slug}", 7, bytes(32))
    assert publish(shop, worker) == "recorded"
    reason = halted(shop)
    assert reason is not None
    assert "witness.example/1 has cosigned size 7, but this log is about to publish size 2" in reason
    assert "older backup" in reason
    shop.clock.advance(seconds=RETRY.total_seconds() + 1)
    asked = len(witness.asked)
    worker.run_once()
    assert len(witness.asked) == asked


def test_a_witness_that_has_cosigned_another_root_of_this_size_halts_the_log(
    shop: Shop, worker: Worker, serve: Serve
) -> None:
    witness = serve("witness.example/1")
    ask(shop, witness)
    witness.remember(f"localhost/log/{shop.slug}", 1, bytes(32))
    assert publish(shop, worker) == "recorded"
    assert "another checkpoint of size 1" in (halted(shop) or "")


def test_cosigning_again_after_a_crash_gives_the_same_body(shop: Shop, worker: Worker, serve: Serve) -> None:
    """The witness has cosigned, the worker died before publishing: the same body is cosigned once more."""
    witness, late = serve("witness.example/1"), serve("witness.example/2")
    late.reply = (503, {}, b"")
    ask(shop, witness, late, quorum=2)
    publish(shop, worker)
    late.reply = None
    shop.clock.advance(seconds=RETRY.total_seconds() + 1)
    worker.run_once()
    assert halted(shop) is None
    assert witness.asked[:3] == [0, 0, 1]


def test_the_test_plane_is_not_witnessed(shop: Shop, worker: Worker, serve: Serve) -> None:
    witness = serve("witness.example/1")
    ask(shop, witness, quorum=1)
    twin = dataclasses.replace(shop, scope=shop.test_scope)
    assert publish(twin, worker) == "verified"
    assert all(old == 0 for old in witness.asked)
    assert witness.name not in newest(twin)


def test_receipts_are_judged_by_the_quorum_of_the_readers_policy(shop: Shop, worker: Worker, serve: Serve) -> None:
    first, second = serve("witness.example/1"), serve("witness.example/2")
    second.reply = (503, {}, b"")
    ask(shop, first, second)
    publish(shop, worker)
    with shop.db.read(shop.scope, snapshot=True) as connection:
        period = list_periods(connection, shop.scope, shop.link("cust_a").customer_id)[0]
        span = Span(period.tree_id, period.period, 0, 1)
        receipt = write_receipt(connection, shop.keys, shop.scope, [span], window=True)
        keys = read_keys(connection, shop.scope)
    witnesses = [first.setting, second.setting]

    def judge(quorum: int, text: str = receipt):
        policy = note.parse_policy(policy_text(keys, "https://records.example", witnesses, quorum))
        return check_receipt(text, [("the policy file", policy.logs)], policy)

    assert judge(0).result is Result.MATCHES
    assert "The checkpoint is witnessed 1/2: witness.example/1." in judge(1).checked
    short = judge(2)
    assert (short.result, short.reason) == (
        Result.UNKNOWN,
        "the checkpoint is witnessed 1/2, and the policy asks for the quorum witnesses",
    )
    line = note.find_cosignatures(receipt.partition("\n\n")[2], [first.vkey])[0].line
    false = note.cosign("x\n", first.name, first.key, TIME)
    assert judge(0, receipt.replace(line, false)).result is Result.DIFFERS
    assert judge(1, receipt.replace(line, "")).result is Result.UNKNOWN
