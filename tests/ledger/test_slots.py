"""Slot trees: hashed anew as a whole, or only where something changed."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from proofs_of import prove
from shared_record.db.schema import epoch, slot_tile
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins
from shared_record.ledger import checkpoints, merkle, slots
from shared_record.ledger.audit import audit
from shared_record.ledger.checkpoints import make_checkpoint
from shared_record.ledger.entry import parse_epoch, parse_head
from shared_record.ledger.erasure import erase_customer
from shared_record.ledger.proofs import write_receipt
from shared_record.ledger.receipts import Span
from shared_record.ledger.records import list_periods
from shared_record.tenancy.customers import create_customers
from shared_record.verifier.checks import Result, check_export
from shared_record.verifier.receipts import check_receipt
from world import Shop


def checkpoint(shop: Shop, reblind_up_to: int = 0) -> int:
    return make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, shop.lease(), reblind_up_to=reblind_up_to)


def stored(shop: Shop, n: int) -> dict[tuple[int, int], bytes]:
    """The tiles that one epoch wrote."""
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(
            select(slot_tile).where(slot_tile.c.tenant_id == shop.scope.plane, slot_tile.c.epoch == n)
        ).all()
    return {(row.level, row.idx): row.hashes for row in rows}


def leaf_of(shop: Shop, n: int, slot: int) -> bytes:
    with shop.db.read(shop.scope) as connection:
        return slots.tile_reader(connection, shop.scope, n)(0, slot, slot + 1)


def findings(shop: Shop) -> list[str]:
    return [one.problem for one in audit(shop.db, shop.keys, shop.locks, shop.scope)]


def verify_all(shop: Shop, *names: str) -> None:
    """Exports and receipts of these customers match, as a verifier that knows no key beforehand sees them."""
    kind = load_plugins().export_formats["json"]
    for name in names:
        who = shop.link(name).customer_id
        with shop.db.read(shop.scope, snapshot=True) as connection:
            periods = list_periods(connection, shop.scope, who)
            receipts = [
                write_receipt(
                    connection,
                    shop.keys,
                    shop.scope,
                    [Span(one.tree_id, one.period, 0, one.psize)],
                    window=True,
                )
                for one in periods
                if one.psize
            ]
        known: dict[str, tuple[str, ...]] = {}
        for one in periods:
            file = io.BytesIO()
            build_export(shop.db, shop.keys, shop.clock, shop.scope, who, one.period, kind, file)
            file.seek(0)
            outcome = check_export(file)
            assert (outcome.result, outcome.reason) == (Result.MATCHES, None), name
            known[outcome.origin] = outcome.vkeys
        for text in receipts:
            assert text is not None
            assert check_receipt(text, [("known", known)]).result is Result.MATCHES


# --- Pure -------------------------------------------------------------------------------------------------------------


def grown(first: int, last: int, changes: Mapping[int, bytes]) -> tuple[dict[tuple[int, int], bytes], slots.SlotTree]:
    """A whole tree, and the one that changes in part from it; returns all tiles and the second tree."""
    tree = slots.whole_tree({n: merkle.leaf_hash(b"%d" % n) for n in range(first)}, first)
    tiles = {(level, index): joined for level, index, joined in tree.tiles}
    part = slots.changed_tree(changes, first, last, lambda level, index: tiles.get((level, index), b""))
    return tiles | {(level, index): joined for level, index, joined in part.tiles}, part


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 2, 128, 256, 512, 1024]),
    st.integers(0, 2),
    st.dictionaries(st.integers(0, 4095), st.binary(min_size=32, max_size=32), max_size=6),
)
def test_a_tree_changed_in_part_is_the_tree_over_its_leaves(first: int, doubled: int, changes) -> None:
    last = first << doubled
    changes = {slot % last: digest for slot, digest in changes.items()}
    tiles, part = grown(first, last, changes)
    leaves = [digest for index in range(-(-last // 256)) for digest in merkle.split_hashes(tiles[0, index])]
    assert len(leaves) == last
    assert all(leaves[slot] == digest for slot, digest in changes.items())
    untouched = set(range(first)) - changes.keys()
    assert all(leaves[slot] == merkle.leaf_hash(b"%d" % slot) for slot in untouched)
    assert part.root == merkle.root(leaves)
    whole = slots.whole_tree(dict(enumerate(leaves)), last)
    assert {(level, index): joined for level, index, joined in whole.tiles} == tiles


def test_a_change_touches_one_tile_of_each_level_and_no_more() -> None:
    for width in (256, 2**16, 2**18):
        _, part = grown(width, width, {width // 2: b"x" * 32})
        assert len(part.tiles) == (1 if width == 256 else 2 if width == 2**16 else 3)
        _, idle = grown(width, width, {})
        assert len(idle.tiles) <= 3


def test_a_tile_that_is_missing_is_no_tree() -> None:
    with pytest.raises(ValueError, match="tile 0/1"):
        slots.changed_tree({300: b"x" * 32}, 512, 512, lambda _level, _index: b"")


# --- In the ledger ----------------------------------------------------------------------------------------------------


def test_a_head_that_did_not_change_keeps_its_hash_and_still_proves_itself(shop: Shop) -> None:
    for name in ("cust_a", "cust_b", "cust_c"):
        shop.record(name, "1", "2")
    checkpoint(shop)
    before = [leaf_of(shop, 0, slot) for slot in range(4)]
    shop.record("cust_b", "3")
    assert checkpoint(shop) == 2
    after = [leaf_of(shop, 1, slot) for slot in range(4)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True]
    proof = prove(shop, "cust_a")
    assert (parse_head(proof.head).epoch, parse_epoch(proof.epoch).epoch) == (0, 1)
    assert parse_head(prove(shop, "cust_b").head).epoch == 1
    verify_all(shop, "cust_a", "cust_b", "cust_c")
    assert findings(shop) == []


def test_the_threshold_is_crossed_in_both_directions(shop: Shop) -> None:
    names = [f"cust_{n}" for n in range(5)]
    for n, name in enumerate(names):
        shop.record(name, "1")
        checkpoint(shop, reblind_up_to=3)  # from the fourth customer on only what changed
        assert findings(shop) == [], n
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(
            select(epoch.c.reblinded).where(epoch.c.tenant_id == shop.scope.plane).order_by(epoch.c.n)
        ).scalars()
        assert rows.all() == [None, None, None, 2, 2]
    verify_all(shop, *names)
    shop.record("cust_0", "1")
    before = leaf_of(shop, 4, 2)
    checkpoint(shop, reblind_up_to=100)
    assert leaf_of(shop, 5, 2) != before
    shop.record("cust_1", "1")
    checkpoint(shop)
    verify_all(shop, *names)
    assert findings(shop) == []


def test_periods_close_and_customers_are_erased_while_only_changes_are_hashed(shop: Shop) -> None:
    for name in ("cust_a", "cust_b", "cust_c"):
        shop.record(name, "1")
    checkpoint(shop)
    shop.clock.advance(days=10)
    shop.record("cust_a", "5")
    shop.close()
    checkpoint(shop)
    assert findings(shop) == []
    with shop.db.write(shop.scope) as connection:
        erase_customer(connection, shop.clock, shop.scope, "cust_c", "test")
    before = leaf_of(shop, 1, 2)
    checkpoint(shop)
    third = leaf_of(shop, 2, 2)
    checkpoint(shop)
    assert third != before
    assert leaf_of(shop, 3, 2) == third
    for _ in range(4):
        shop.record("cust_a", "1")
        checkpoint(shop)
    verify_all(shop, "cust_a", "cust_b")
    assert findings(shop) == []


def test_a_customer_erased_while_a_checkpoint_is_under_way_gets_its_random_leaf_in_the_next(shop: Shop) -> None:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    checkpoint(shop)
    shop.record("cust_a", "2")
    lease = shop.lease()
    checkpoints.integrate(shop.db, lease)
    checkpoints._prepare(shop.db, shop.keys, shop.clock, lease, reblind_up_to=0)
    with shop.db.write(shop.scope) as connection:
        erase_customer(connection, shop.clock, shop.scope, "cust_a", "test")
    named = leaf_of(shop, 1, 0)
    checkpoint(shop)
    assert leaf_of(shop, 2, 0) != named
    assert findings(shop) == []


def test_a_checkpoint_touches_few_rows_among_many_customers(shop: Shop) -> None:
    count = 600
    with shop.db.write(shop.scope) as connection:
        names = [f"cust_{n:03}" for n in range(count)]
        create_customers(connection, shop.keys, shop.clock, shop.scope, names)
    shop.record("cust_000", "1")
    checkpoint(shop)
    assert len(stored(shop, 0)) == 5  # 1024 slots: four tiles and one above
    for n in range(1, 6):
        shop.record("cust_300", "1")
        checkpoint(shop)
        assert stored(shop, n).keys() == {(0, 1), (8, 0)}
    with shop.db.read(shop.scope) as connection:
        of = slot_tile.c.tenant_id == shop.scope.plane
        assert connection.execute(select(func.count()).select_from(slot_tile).where(of)).scalar_one() == 3 + 2 * 3
    prove(shop, "cust_000")
    prove(shop, "cust_300")
    assert findings(shop) == []
