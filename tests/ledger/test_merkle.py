from __future__ import annotations

import json
import os
import random
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_record.ledger import merkle

LIMIT = 70
DATA = [b"leaf %d" % i for i in range(LIMIT)]
LEAVES = [merkle.leaf_hash(data) for data in DATA]
# The reference tree of RFC 6962 implementations (google/certificate-transparency): inputs, and the root at each size.
CT_INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def largest_power_below(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


@cache
def slow_root(start: int, end: int) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if start == end:
        return merkle.EMPTY_ROOT
    if end - start == 1:
        return LEAVES[start]
    k = largest_power_below(end - start)
    return merkle.node_hash(slow_root(start, start + k), slow_root(start + k, end))


def slow_path(m: int, start: int, end: int) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if end - start == 1:
        return []
    k = largest_power_below(end - start)
    if m < k:
        return [*slow_path(m, start, start + k), slow_root(start + k, end)]
    return [*slow_path(m - k, start + k, end), slow_root(start, start + k)]


def slow_proof(m: int, start: int, end: int, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if m == end - start:
        return [] if whole else [slow_root(start, end)]
    k = largest_power_below(end - start)
    if m <= k:
        return [*slow_proof(m, start, start + k, whole), slow_root(start + k, end)]
    return [*slow_proof(m - k, start + k, end, False), slow_root(start, start + k)]


def test_reference_tree() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(text)) for text in CT_INPUTS]
    assert [merkle.root(leaves[:n]).hex() for n in range(1, 9)] == CT_ROOTS
    assert merkle.root([]) == merkle.EMPTY_ROOT


@pytest.fixture(scope="module")
def oracle() -> Any:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for data in DATA:
        tree.append_entry(data)
    return tree


@pytest.mark.parametrize("size", range(LIMIT))
def test_root_of_every_size(size: int, oracle: Any) -> None:
    assert merkle.root(LEAVES[:size]) == slow_root(0, size)
    if size:
        assert merkle.root(LEAVES[:size]) == oracle.get_root(size)


@pytest.mark.parametrize("size", range(1, LIMIT))
def test_inclusion_of_every_leaf(size: int, oracle: Any) -> None:
    root = slow_root(0, size)
    for index in range(size):
        path = merkle.inclusion_path(LEAVES[:size], index)
        assert path == slow_path(index, 0, size)
        assert path == oracle.prove_inclusion(index + 1, size).path[1:]
        assert merkle.verify_inclusion(LEAVES[index], index, size, path, root)
        assert not merkle.verify_inclusion(LEAVES[index], index, size, [*path, root], root)
        assert not merkle.verify_inclusion(
            LEAVES[index], index, size, path, LEAVES[index - 1] if size > 1 else bytes(32)
        )
        if path:
            assert not merkle.verify_inclusion(LEAVES[index], index, size, path[1:], root)
            assert not merkle.verify_inclusion(LEAVES[index], index ^ 1, size, path, root)


@pytest.mark.parametrize("size", range(1, LIMIT))
def test_consistency_from_every_size(size: int, oracle: Any) -> None:
    root = slow_root(0, size)
    for old in range(1, size + 1):
        path = merkle.consistency_path(LEAVES[:size], old)
        assert path == slow_proof(old, 0, size, True)
        assert merkle.verify_consistency(old, size, slow_root(0, old), root, path)
        assert not merkle.verify_consistency(old, size, slow_root(0, old), root, [*path, root])
        assert not merkle.verify_consistency(old, size, bytes(32), root, path)
        assert not merkle.verify_consistency(old, size, slow_root(0, old), bytes(32), path)
        if path:
            assert not merkle.verify_consistency(old, size, slow_root(0, old), root, path[:-1])
    state = oracle.prove_consistency(max(1, size // 2), size)
    pymerkle.verify_consistency(slow_root(0, max(1, size // 2)), root, state)


def test_strict_rules() -> None:
    leaf, root = LEAVES[0], merkle.EMPTY_ROOT
    assert not merkle.verify_inclusion(leaf, 0, 0, [], root)
    assert not merkle.verify_inclusion(leaf, -1, 1, [], leaf)
    assert not merkle.verify_inclusion(leaf, 1, 1, [], leaf)
    assert not merkle.verify_inclusion(leaf[:31], 0, 1, [], leaf[:31])
    assert not merkle.verify_consistency(0, 0, root, root, [])
    assert not merkle.verify_consistency(0, 1, root, leaf, [])
    assert not merkle.verify_consistency(2, 1, leaf, leaf, [])
    assert not merkle.verify_consistency(1, 1, leaf[:12], leaf[:12], [])
    for index, size in ((0, 0), (1, 1), (-1, 3)):
        with pytest.raises(ValueError, match="no leaf"):
            merkle.inclusion_ranges(index, size)
    for old, new in ((0, 0), (0, 3), (4, 3)):
        with pytest.raises(ValueError, match="no consistency proof"):
            merkle.consistency_ranges(old, new)
    for start, end in ((1, 3), (2, 5), (0, 0), (-4, -2)):
        with pytest.raises(ValueError, match="not a subtree"):
            merkle.range_root(start, end, lambda *_: b"")
    with pytest.raises(ValueError, match="not all there"):
        merkle.range_root(0, 2, lambda *_: bytes(32))
    with pytest.raises(ValueError, match="whole number"):
        merkle.split_hashes(bytes(33))


@given(st.lists(st.integers(0, 20), max_size=5))
def test_pushing_in_parts_is_pushing_at_once(parts: list[int]) -> None:
    frontier: list[bytes] = []
    size = 0
    for part in parts:
        size = merkle.push(frontier, size, LEAVES[size : size + part]) if size + part <= LIMIT else size
        assert len(frontier) == size.bit_count()
        assert merkle.frontier_root(frontier) == slow_root(0, size)
    assert merkle.split_hashes(b"".join(frontier)) == frontier


MANY = [merkle.leaf_hash(b"%d" % i) for i in range(2 * merkle.TOGETHER + 2 * merkle.FEW)]


@given(st.lists(st.integers(0, merkle.TOGETHER + merkle.FEW), min_size=1, max_size=4))
@settings(max_examples=40)
def test_many_at_once_give_what_one_after_another_does(parts: list[int]) -> None:
    frontier: list[bytes] = []
    subtrees: set[tuple[int, int, bytes]] = set()
    singly: list[bytes] = []
    known: set[tuple[int, int, bytes]] = set()
    size = 0
    for part in parts:
        leaves = MANY[size : size + part]
        for place, leaf in enumerate(leaves, size):
            merkle.push(singly, place, [leaf], lambda *found: known.add(found))
        grown = merkle.push(frontier, size, iter(leaves), lambda *found: subtrees.add(found))
        assert grown == size + len(leaves)
        assert (frontier, subtrees) == (singly, known)
        size = grown


class Store:
    """What a database would hold of one tree: leaf hashes, and the subtrees that ``push`` told of."""

    def __init__(self, size: int) -> None:
        self.leaves = [merkle.leaf_hash(b"%d" % i) for i in range(size)]
        self.nodes: dict[int, dict[int, bytes]] = {8: {}, 16: {}, 24: {}}
        self.frontier: list[bytes] = []
        self.most_read = 0
        merkle.push(self.frontier, 0, self.leaves, self.keep)

    def keep(self, level: int, index: int, value: bytes) -> None:
        assert index not in self.nodes[level]
        self.nodes[level][index] = value

    def read(self, level: int, first: int, last: int) -> bytes:
        self.most_read = max(self.most_read, last - first)
        if level == 0:
            return b"".join(self.leaves[first:last])
        return b"".join(self.nodes[level][i] for i in range(first, last))


@cache
def large_store() -> Store:
    return Store(70_000)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_paths_from_stored_nodes(data: st.DataObject) -> None:
    store = large_store()
    size = data.draw(st.one_of(st.integers(1, 70_000), st.sampled_from([1, 255, 256, 257, 65_535, 65_536, 65_537])))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    store.most_read = 0

    def fetch(ranges: list[tuple[int, int]]) -> list[bytes]:
        return [merkle.range_root(start, end, store.read) for start, end in ranges]

    leaves = store.leaves[:size]
    root = merkle.root(leaves)
    assert merkle.range_root(0, size, store.read) == root
    path = fetch(merkle.inclusion_ranges(index, size))
    assert merkle.verify_inclusion(leaves[index], index, size, path, root)
    path = fetch(merkle.consistency_ranges(old, size))
    assert merkle.verify_consistency(old, size, merkle.root(leaves[:old]), root, path)
    assert store.most_read <= 256


def test_stored_subtrees_are_the_subtrees() -> None:
    store = large_store()
    assert merkle.frontier_root(store.frontier) == merkle.root(store.leaves)
    assert sorted(store.nodes[8]) == list(range(70_000 >> 8))
    assert sorted(store.nodes[16]) == [0]
    assert not store.nodes[24]
    for index in random.Random(6962).sample(range(70_000 >> 8), 20):
        assert store.nodes[8][index] == merkle.root(store.leaves[index << 8 : (index + 1) << 8])
    assert store.nodes[16][0] == merkle.root(store.leaves[:65_536])


def shared_vectors() -> list[dict[str, Any]]:
    folder = os.environ.get("SR_TEST_DATA")
    root = Path(__file__).resolve().parents[2]
    path = Path(folder) if folder else root.parent / "shared" / "data"
    try:
        lines = (path / "merkle-vectors.jsonl").read_text().splitlines()
    except FileNotFoundError:
        reason = f"no merkle-vectors.jsonl in {path}; set SR_TEST_DATA to its folder"
        if os.environ.get("SR_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return [json.loads(line) for line in lines]


def judge_inclusion(case: dict[str, Any], path: list[bytes]) -> bool:
    leaf, root = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
    return merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], path, root)


def judge_consistency(case: dict[str, Any], path: list[bytes]) -> bool:
    old, new = b64decode(case["root1"] or ""), b64decode(case["root2"] or "")
    return merkle.verify_consistency(case["size1"], case["size2"], old, new, path)


@pytest.mark.parametrize(("kind", "judge"), [("inclusion", judge_inclusion), ("consistency", judge_consistency)])
def test_shared_vectors(kind: str, judge: Callable[[dict[str, Any], list[bytes]], bool]) -> None:
    cases = [case for case in shared_vectors() if case["case"].startswith(f"{kind}/")]
    assert len(cases) == 98
    placeholder_roots = 0
    for case in cases:
        expected = not case["wantErr"]
        if expected and len(b64decode(case.get("root1") or "")) == 12:
            placeholder_roots += 1
            expected = False
        assert judge(case, [b64decode(node) for node in case["proof"] or []]) is expected, case["case"]
    assert placeholder_roots == (1 if kind == "consistency" else 0)
