from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.ledger import merkle
from shared_record.ledger.receipt import Included, Receipt, Window, build_receipt, earlier_root, parse_receipt

NODE = bytes(range(32))
DELTA = Receipt(
    entry=Included('{"a":"é"}', 3, 7, (NODE, NODE[::-1])),
    head=Included('{"b":"c"}', 2, 4, (NODE,)),
    epoch="{}",
    index=9,
    path=(NODE, NODE),
    checkpoint="log\n10\nroot\n\n— log sig\n",
)
WINDOW = replace(DELTA, window=Window(1, 4, NODE, "1", "-2.5", Included("{}", 0, 7, ())))
WHOLE = replace(DELTA, window=Window(0, 4, NODE, "0", "5", None), path=())


def with_extra(change: Any) -> str:
    lines = build_receipt(WINDOW).split("\n")
    extra = json.loads(base64.b64decode(lines[1][6:]))
    change(extra)
    text = json.dumps(extra, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    lines[1] = "extra " + base64.b64encode(text.encode()).decode()
    return "\n".join(lines)


def spelled(text: str) -> str:
    """The receipt with ``text`` as its extra JSON."""
    lines = build_receipt(DELTA).split("\n")
    lines[1] = "extra " + base64.b64encode(text.encode()).decode()
    return "\n".join(lines)


@pytest.mark.parametrize("receipt", [DELTA, WINDOW, WHOLE])
def test_what_is_built_is_read_back(receipt: Receipt) -> None:
    assert parse_receipt(build_receipt(receipt)) == receipt


def test_the_text_is_a_tlog_proof() -> None:
    node = base64.b64encode(NODE).decode()
    header, extra, index, *path = build_receipt(DELTA).partition("\n\n")[0].split("\n")
    assert (header, index, path) == ("c2sp.org/tlog-proof@v1", "index 9", [node, node])
    assert build_receipt(DELTA).partition("\n\n")[2] == DELTA.checkpoint
    assert json.loads(base64.b64decode(extra.removeprefix("extra "))) == {
        "entry": '{"a":"é"}',
        "epoch": "{}",
        "head": '{"b":"c"}',
        "rec": [3, 7, [node, base64.b64encode(NODE[::-1]).decode()]],
        "slot": [2, 4, [node]],
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.update(more=1),
        lambda x: x.pop("head"),
        lambda x: x.update(entry=1),
        lambda x: x.update(rec=[3, 7]),
        lambda x: x.update(rec=["3", 7, []]),
        lambda x: x.update(rec=[3, 7, "AA=="]),
        lambda x: x.update(rec=[3, 7, ["AA=="]]),
        lambda x: x.update(window={}),
        lambda x: x["window"].update(more=1),
        lambda x: x["window"].update(size=4),
        lambda x: x["window"].update({"from": 4, "size": 0}),
        lambda x: x["window"].update(before={"entry": "{}"}),
        lambda x: x["window"].update(opening=1),
        lambda x: x["window"].update(size=True),
    ],
)
def test_another_form_is_refused(change: Any) -> None:
    with pytest.raises(ValueError):
        parse_receipt(with_extra(change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v2\n",
        build_receipt(DELTA).replace("index 9", "index 09"),
        build_receipt(DELTA).replace("index 9", "index 9999999999999999"),
        build_receipt(DELTA).replace("extra ", "extra  "),
        build_receipt(DELTA).replace("\n", "\r\n"),
        build_receipt(DELTA).replace("\n\n", "\n", 1),
        spelled("rubbish"),
        spelled("[]"),
        spelled('{"entry": "{}"}'),
        spelled('{"entry":"\\ud800","epoch":"","head":"","rec":[0,1,[]],"slot":[0,1,[]]}'),
        spelled('{"entry":"","entry":"","epoch":"","head":"","rec":[0,1,[]],"slot":[0,1,[]]}'),
        spelled('{"entry":"","epoch":"","head":"","rec":[0.0,1,[]],"slot":[0,1,[]]}'),
        spelled("[" * 5000),
        "x" * 1_000_001,
    ],
)
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_receipt(text)


@given(st.text())
def test_random_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_receipt(text)
    with pytest.raises(ValueError):
        parse_receipt("c2sp.org/tlog-proof@v1\n" + text)


def test_the_audit_path_of_a_leaf_proves_the_tree_that_ended_with_it() -> None:
    texts = [str(n) for n in range(40)]
    leaves = [merkle.leaf_hash(text.encode()) for text in texts]
    for size in range(1, 40):
        for index in range(size):
            path = tuple(merkle.inclusion_path(leaves[:size], index))
            found = earlier_root(Included(texts[index], index, size, path))
            assert found == merkle.root(leaves[: index + 1])
