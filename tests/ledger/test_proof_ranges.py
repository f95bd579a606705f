"""Proven sums of parts of a period, and consistency with what was shown before, judged by code of its own."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymerkle
import pytest

from shared_record.ledger import merkle, proofs, ranges
from shared_record.ledger.amounts import Total
from shared_record.ledger.intake import Delta
from shared_record.ledger.logs import read_vkeys
from shared_record.ledger.note import VerifierKey, open_note, parse_checkpoint
from shared_record.ledger.proofs import ProvenSpan, prove_span
from shared_record.ledger.receipt import build_receipt, parse_receipt
from shared_record.ledger.receipts import Span
from shared_record.ledger.records import Period, find_period
from shared_record.verifier.receipts import ROOT_NOT_CHECKED, check_receipt
from shared_record.verifier.trust import Result
from verify_script import VERIFY
from world import Shop

ORIGIN = "localhost/log/acme"
AMOUNTS = [("-" if n % 7 == 3 else "") + f"{n % 97 + 1}.{n % 9 + 1}" for n in range(300)]


def fill(shop: Shop, amounts: Sequence[str], customer: str = "cust_a") -> None:
    for at in range(0, len(amounts), 500):
        shop.record_many([Delta(customer, amount, "usage") for amount in amounts[at : at + 500]])


def period_of(shop: Shop, customer: str = "cust_a") -> Period:
    with shop.db.read(shop.scope) as connection:
        found = find_period(connection, shop.scope, shop.link(customer).customer_id, "2026-11")
    assert found is not None
    return found


def prove(shop: Shop, first: int, last: int) -> ProvenSpan | None:
    period = period_of(shop)
    with shop.db.read(shop.scope, snapshot=True) as connection:
        return prove_span(connection, shop.keys, shop.scope, Span(period.tree_id, "2026-11", first, last))


def keys_of(shop: Shop) -> list[str]:
    with shop.db.read(shop.scope) as connection:
        return list(read_vkeys(connection, shop.scope))


def sum_of(amounts: Sequence[str]) -> str:
    total = Total()
    for amount in amounts:
        total.add(amount)
    return total.text


def judged(shop: Shop, text: str, folder: Path) -> list[tuple[str, int, str]]:
    """What both verifiers in Python say of a proof file."""
    vkeys = keys_of(shop)
    ours = check_receipt(text, [("the test", {ORIGIN: vkeys})])
    (folder / "given.tlog-proof").write_text(text)
    policy = "".join(f"log {vkey}\n" for vkey in vkeys)
    theirs: dict[str, Any] = VERIFY.check(folder / "given.tlog-proof", VERIFY.policy(policy))
    return [(ours.result.value, ours.rows, ours.total), (theirs["result"], theirs["rows"], theirs["total"])]


def test_every_part_of_a_period_is_proved_by_its_two_ends(shop: Shop, tmp_path: Path) -> None:
    fill(shop, AMOUNTS[:290])
    shop.record("cust_b", "5")
    shop.checkpoint()
    fill(shop, AMOUNTS[290:])
    parts = {(0, 290), (0, 1), (289, 290), (255, 256), (256, 257), (0, 256), (255, 290)}
    choice = random.Random(3)
    while len(parts) < 30:
        first, last = sorted(choice.sample(range(291), 2))
        parts.add((first, last))
    for first, last in sorted(parts):
        found = prove(shop, first, last)
        assert found is not None
        expected = (Result.MATCHES.value, last - first, sum_of(AMOUNTS[first:last]))
        assert judged(shop, found.text, tmp_path) == [expected] * 2
        assert found.total == expected[2]
        assert (found.window.root is None) == bool(first)
        assert parse_receipt(found.text) == replace(found.receipt, window=found.window)
        assert ROOT_NOT_CHECKED not in check_receipt(found.text, [("the test", {ORIGIN: keys_of(shop)})]).not_checked
    assert prove(shop, 3, 291) is None


def test_a_wrong_figure_does_not_match(shop: Shop, tmp_path: Path) -> None:
    fill(shop, AMOUNTS[:40])
    shop.checkpoint()
    found = prove(shop, 7, 30)
    assert found is not None
    assert found.window.before is not None
    wrong = [
        {"opening": "1"},
        {"closing": "999999"},
        {"start": 8},
        {"end": 31},
        {"before": None},
        {"before": replace(found.window.before, index=7)},
        {"before": replace(found.window.before, text=found.receipt.entry.text)},
    ]
    for changes in wrong:
        window = replace(found.window, **changes)
        verdicts = judged(shop, build_receipt(replace(found.receipt, window=window)), tmp_path)
        assert [verdict[0] for verdict in verdicts] == [Result.DIFFERS.value] * 2, changes
    text = build_receipt(replace(found.receipt, window=found.window))
    entry = json.loads(base64.b64decode(text.split("\n")[1][6:]))["entry"]
    forged = json.loads(entry) | {"total": "1000000"}
    window = replace(found.window, closing="1000000")
    last = replace(found.receipt.entry, text=json.dumps(forged, separators=(",", ":"), sort_keys=True))
    verdicts = judged(shop, build_receipt(replace(found.receipt, entry=last, window=window)), tmp_path)
    assert [verdict[0] for verdict in verdicts] == [Result.DIFFERS.value] * 2


def test_a_range_from_the_first_row_states_its_root(shop: Shop, tmp_path: Path) -> None:
    fill(shop, AMOUNTS[:9])
    shop.checkpoint()
    found = prove(shop, 0, 6)
    assert found is not None
    text = build_receipt(replace(found.receipt, window=replace(found.window, root=None)))
    assert [verdict[0] for verdict in judged(shop, text, tmp_path)] == [Result.UNKNOWN.value] * 2
    text = build_receipt(replace(found.receipt, window=replace(found.window, root=bytes(32))))
    assert [verdict[0] for verdict in judged(shop, text, tmp_path)] == [Result.DIFFERS.value] * 2


def test_the_record_extends_each_older_size_of_itself(shop: Shop) -> None:
    sizes = (1, 2, 3, 255, 256, 257, 299, 300)
    roots, done = {}, 0
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for size in sizes:
        fill(shop, AMOUNTS[done:size])
        done = size
    shop.checkpoint()
    period = period_of(shop)
    with shop.db.read(shop.scope, snapshot=True) as connection:
        for seq in range(1, 301):
            entry = connection.execute(proofs._ENTRY, {"t": shop.scope.plane, "tree": period.tree_id, "seq": seq})
            oracle.append_entry(entry.scalar_one().encode())
        for size in (*sizes, *random.Random(5).sample(range(1, 301), 20)):
            found = ranges.prove_record_consistency(connection, shop.keys, shop.scope, period, size)
            assert found is not None
            old, new = found.tree.old, found.tree.new
            assert (old.size, new.size) == (size, 300)
            roots[size] = old.root
            assert (old.root, new.root) == (oracle.get_root(size), oracle.get_root(300))
            assert merkle.verify_consistency(size, 300, old.root, new.root, found.tree.path)
            assert not size < 300 or not merkle.verify_consistency(size, 300, bytes(32), new.root, found.tree.path)
            assert found.proved.window.root == new.root == period.proot
        for size in (0, 301):
            with pytest.raises(ValueError, match="no consistency proof"):
                ranges.prove_record_consistency(connection, shop.keys, shop.scope, period, size)


def test_the_log_extends_each_older_size_of_itself(shop: Shop) -> None:
    shop.record("cust_a", "1")
    signed = {}
    for _ in range(12):
        shop.clock.advance(days=1)
        size = shop.checkpoint()
        with shop.db.read(shop.scope, snapshot=True) as connection:
            newest = proofs.newest_checkpoint(connection, shop.scope)
        assert newest is not None
        signed[size] = newest
    vkeys = [VerifierKey.parse(key) for key in keys_of(shop)]
    with shop.db.read(shop.scope, snapshot=True) as connection:
        for new in (*signed, None):
            for old in range(1, (new or 12) + 1):
                found = ranges.prove_log_consistency(connection, shop.scope, old, new)
                assert found is not None
                tree = found.tree
                assert (tree.old.root, tree.new.root) == (signed[old].root, signed[new or 12].root)
                assert merkle.verify_consistency(old, new or 12, tree.old.root, tree.new.root, tree.path)
                said = parse_checkpoint(open_note(found.note, vkeys))
                assert (said.origin, said.size, said.root) == (found.origin, new or 12, tree.new.root)
        assert ranges.prove_log_consistency(connection, shop.scope, 1, 13) is None


def test_a_proof_reads_few_hashes_however_large_the_record(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    if shop.db.is_postgresql:
        pytest.skip("the queries are the same on both engines")
    read_hashes: list[int] = []

    def counted(*arguments: Any) -> merkle.ReadHashes:
        read = tree_reader(*arguments)

        def count(level: int, first: int, last: int) -> bytes:
            data = read(level, first, last)
            read_hashes.append(len(data) // merkle.HASH_SIZE)
            return data

        return count

    tree_reader = proofs.tree_reader
    monkeypatch.setattr(proofs, "tree_reader", counted)
    monkeypatch.setattr(ranges, "tree_reader", counted)
    read: dict[int, int] = {}
    done = 0
    for size in (511, 5_000):
        fill(shop, ["1.5"] * (size - done))
        done = size
        shop.checkpoint()
        read_hashes.clear()
        assert prove(shop, size // 3, size - 3) is not None
        period = period_of(shop)
        with shop.db.read(shop.scope, snapshot=True) as connection:
            ranges.prove_record_consistency(connection, shop.keys, shop.scope, period, size // 2)
        read[size] = sum(read_hashes)
    assert read[5_000] < 5 * 512
    assert read[5_000] < 2 * read[511]
