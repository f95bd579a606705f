"""The proof surface over HTTP: the live total, proven sums, consistency of record and log, and who may have them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.clock import period_bounds
from shared_record.db.schema import tenant
from shared_record.ledger import merkle
from shared_record.ledger.logs import read_vkeys
from shared_record.ledger.note import VerifierKey, b64decode, open_note, parse_checkpoint
from shared_record.ledger.receipts import Receipt, issue_receipt
from shared_record.tenancy.policies import Policy
from shared_record.verifier.receipts import check_receipt
from shared_record.verifier.trust import Result
from verify_script import VERIFY
from world import Shop, open_shop

ORIGIN = "localhost/log/acme"
INNER = ("proof", "proof?period=2026-11&from=1&to=2", "consistency?from=1", "consistency?period=2026-11&from=9")


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    return Visitor(serve(shop))


def api_of(shop: Shop, customer: str = "cust_a", host: str | None = None) -> str:
    link = shop.link(customer)
    return f"{host or link.host}/api/v1{link.path}"


def opened(shop: Shop, visitor: Visitor, customer: str = "cust_a") -> str:
    visitor.unlock(url_of(shop, customer), shop.code(customer))
    return api_of(shop, customer)


def set_policy(shop: Shop, policy: str) -> None:
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, Policy(policy), "test")


def vkeys_of(shop: Shop) -> list[str]:
    with shop.db.read(shop.scope) as connection:
        return list(read_vkeys(connection, shop.scope))


def log_of(shop: Shop) -> str:
    with shop.db.read(shop.scope) as connection:
        query = select(tenant.c.public_id).where(tenant.c.tenant_id == shop.scope.plane)
        return f"log/{connection.execute(query).scalar_one()}"


def issue(shop: Shop, customer: str = "cust_a") -> Receipt:
    with shop.db.write(shop.scope) as connection:
        who = shop.link(customer).customer_id
        found = issue_receipt(connection, shop.clock, shop.scope, who, *period_bounds("2026-11"))
    assert found is not None
    return found


def judged(shop: Shop, text: str, folder: Path) -> tuple[int, str]:
    """Have a proof file judged by both verifiers; return the count and total that both found."""
    vkeys = vkeys_of(shop)
    ours = check_receipt(text, [("the test", {ORIGIN: vkeys})])
    (folder / "given").write_text(text)
    theirs: dict[str, Any] = VERIFY.check(folder / "given", VERIFY.policy("".join(f"log {vkey}\n" for vkey in vkeys)))
    assert (ours.result, theirs["result"]) == (Result.MATCHES, "matches")
    assert (ours.rows, ours.total) == (theirs["rows"], theirs["total"])
    return ours.rows, ours.total


def consistent(answer: dict[str, Any]) -> bool:
    old, new = answer["from"], answer["to"]
    path = [b64decode(node) for node in answer["proof"]]
    return merkle.verify_consistency(old["size"], new["size"], b64decode(old["root"]), b64decode(new["root"]), path)


def error(answer: Any) -> tuple[int, str]:
    assert answer.json["success"] is False
    return answer.status_code, answer.json["error"]["code"]


# --- The live total ---------------------------------------------------------------------------------------------------


def test_the_live_total_is_proved_at_each_checkpoint(shop: Shop, visitor: Visitor, tmp_path: Path) -> None:
    shop.record("cust_a", "5", "-0.25", "1.5")
    shop.record("cust_b", "70031.0625")
    api = opened(shop, visitor)
    assert error(visitor.get(f"{api}/proof")) == (404, "PROOF_NOT_FOUND")
    for total, count in (("6.25", 3), ("8.25", 4)):
        shop.checkpoint()
        answer = visitor.get(f"{api}/proof")
        assert answer.headers["Cache-Control"] == "no-store"
        data = answer.json["data"]
        assert data["format"] == "shared-record/proof@v1"
        assert (data["window"]["count"], data["window"]["total"]) == (count, total)
        assert (data["asOf"]["size"], data["asOf"]["psize"], data["asOf"]["total"]) == (count, count, total)
        assert judged(shop, data["tlogProof"], tmp_path) == (count, total)
        chain = data["proof"]
        assert data["window"]["root"] == chain["record"]["root"]
        signed = parse_checkpoint(open_note(chain["checkpoint"], [VerifierKey.parse(key) for key in vkeys_of(shop)]))
        assert signed.size == data["asOf"]["checkpoint"] == chain["log"]["size"]
        for part, text, root in (
            ("log", chain["epoch"], signed.root),
            ("record", chain["entry"], b64decode(chain["record"]["root"])),
        ):
            leaf, place = merkle.leaf_hash(text.encode()), chain[part]
            path = [b64decode(node) for node in place["path"]]
            assert merkle.verify_inclusion(leaf, place["index"], place["size"], path, root)
        file = visitor.get(f"{url_of(shop, 'cust_a')}/proof.tlog-proof")
        assert file.text == data["tlogProof"]
        assert file.headers["Content-Disposition"] == 'attachment; filename="proof-2026-11.tlog-proof"'
        if count == 3:
            shop.record("cust_a", "2")
    assert "70031.0625" not in answer.text


def test_a_closed_period_is_proved_by_its_statement(shop: Shop, visitor: Visitor, tmp_path: Path) -> None:
    shop.record("cust_a", "5", "7")
    shop.clock.advance(days=20)
    shop.record("cust_a", "1")
    shop.close()
    for _ in range(3):
        shop.clock.advance(days=1)
        shop.checkpoint()
    api = opened(shop, visitor)
    data = visitor.get(f"{api}/proof?period=2026-11").json["data"]
    assert judged(shop, data["tlogProof"], tmp_path) == (2, "12")
    assert visitor.get(f"{api}/proof").json["data"]["period"] == "2026-12"


# --- Proven sums ------------------------------------------------------------------------------------------------------


def test_a_sum_is_proved_for_rows_and_for_moments(shop: Shop, visitor: Visitor, tmp_path: Path) -> None:
    for day, amount in enumerate(("1", "2", "4", "8", "16")):
        shop.record("cust_a", amount)
        if day < 4:
            shop.clock.advance(days=1)
    shop.checkpoint()
    api = opened(shop, visitor)
    cases = {
        "from=1&to=3": (1, 3, "6"),
        "from=4": (4, 5, "16"),
        "to=2": (0, 2, "3"),
        "from=2026-11-23T12:00:00Z&to=2026-11-25T12:00:00Z": (1, 3, "6"),
        "from=2026-11-23T14:00:00%2B02:00&to=2026-11-25T11:59:59.999Z": (1, 3, "6"),
        "from=2026-11-25T00:00:00Z": (3, 5, "24"),
        "to=2026-11-01T00:00:00Z": (0, 0, "0"),
        "from=2026-11-22T12:00:00.001Z&to=2026-11-23T12:00:00Z": (1, 1, "0"),
        "from=2&to=2": (2, 2, "0"),
    }
    for query, (first, last, total) in cases.items():
        data = visitor.get(f"{api}/proof?period=2026-11&{query}").json["data"]
        window = data["window"]
        assert (window["from"], window["to"], window["count"]) == (first, last, last - first), query
        assert window["total"] == total
        file = visitor.get(f"{url_of(shop, 'cust_a')}/proof.tlog-proof?period=2026-11&{query}")
        if first == last:
            assert data["proof"] is data["tlogProof"] is window["root"] is None
            assert error(file) == (404, "PROOF_NOT_FOUND")
        else:
            assert judged(shop, data["tlogProof"], tmp_path) == (last - first, total)
            assert file.text == data["tlogProof"]
            assert (window["root"] is None) == bool(first)


def test_rows_that_no_checkpoint_covers_are_not_proved(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    shop.record("cust_a", "4")
    api = opened(shop, visitor)
    data = visitor.get(f"{api}/proof").json["data"]
    assert (data["window"]["count"], data["window"]["total"]) == (2, "3")
    assert (data["asOf"]["size"], data["asOf"]["total"]) == (3, "7")
    for query in ("from=0&to=3", "from=2&to=3", "from=2026-11-22T00:00:00Z&to=2026-11-30T00:00:00Z"):
        answer = visitor.get(f"{api}/proof?period=2026-11&{query}")
        assert error(answer) == (404, "PROOF_NOT_FOUND"), query
        assert "covers 2 of 3 rows" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("period=2026-13", "/period"),
        ("period=11", "/period"),
        ("from=-1", "/from"),
        ("from=01", "/from"),
        ("from=1e3", "/from"),
        ("from=٣", "/from"),
        ("from=3&to=1", "/from"),
        ("to=4", "/to"),
        ("to=" + "9" * 400, "/to"),
        ("from=1&to=2026-11-23T00:00:00Z", "/to"),
        ("from=2026-11-23", "/from"),
        ("from=2026-11-23T00:00:00", "/from"),
        ("from=2026-11-31T00:00:00Z", "/from"),
        ("from=2026-11-23T00:00:00Z&to=2026-11-22T00:00:00Z", "/from"),
        ("from=%00", "/from"),
    ],
)
def test_what_cannot_be_read_is_named(shop: Shop, visitor: Visitor, query: str, pointer: str) -> None:
    shop.record("cust_a", "1", "2", "4")
    shop.checkpoint()
    answer = visitor.get(f"{opened(shop, visitor)}/proof?{query}")
    assert error(answer) == (400, "VALIDATION_ERROR")
    assert [detail["pointer"] for detail in answer.json["error"]["details"]] == [pointer]


# --- Consistency of a record ------------------------------------------------------------------------------------------


def test_a_record_extends_what_was_seen_of_it(shop: Shop, visitor: Visitor, tmp_path: Path) -> None:
    first, second = shop.record("cust_a", "1", "2")
    receipt = issue(shop)
    shop.checkpoint()
    api = opened(shop, visitor)
    old = visitor.get(f"{api}/proof").json["data"]["window"]["root"]
    shop.record("cust_a", *["1"] * 300)
    shop.checkpoint()
    root = "0x" + b64decode(old).hex()
    for query in (
        *(f"from=2&root={root}", f"from=2&root={quote(old)}", f"from=2&root={old}", f"from={receipt.receipt_id}"),
        *(f"from=0x{receipt.proof_root.hex()}", f"from={second.receipt_id}", "from=2", "from=302"),
        f"period=2026-11&from={receipt.receipt_id}&root={root}",
    ):
        data = visitor.get(f"{api}/consistency?{query}").json["data"]
        assert consistent(data), query
        assert data["from"]["size"] == (302 if query == "from=302" else 2)
        assert data["to"]["size"] == 302
        assert judged(shop, data["tlogProof"], tmp_path) == (302, "303")
        assert data["from"]["size"] != 2 or data["from"]["root"] == old
    assert visitor.get(f"{api}/consistency?from={first.receipt_id}").json["data"]["from"]["size"] == 1


def test_what_contradicts_the_past_is_a_conflict_with_a_plain_statement(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "1", "2", "3")
    shop.checkpoint()
    api = opened(shop, visitor)
    smaller = visitor.get(f"{api}/consistency?from=4")
    assert error(smaller) == (409, "RECORD_IS_SMALLER")
    assert smaller.json["error"]["message"] == "The newest checkpoint covers 3 rows of this record, fewer than 4."
    other = visitor.get(f"{api}/consistency?from=2&root={quote(base64.b64encode(bytes(32)).decode())}")
    assert error(other) == (409, "ROOT_DIFFERS")
    assert "another root" in other.json["error"]["message"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (400, "VALIDATION_ERROR")),
        ("from=0", (400, "VALIDATION_ERROR")),
        ("from=x", (400, "VALIDATION_ERROR")),
        ("from=" + "f" * 64, (400, "VALIDATION_ERROR")),
        ("from=1&root=AAAA", (400, "VALIDATION_ERROR")),
        ("from=1&root=%ff%00", (400, "VALIDATION_ERROR")),
        ("from=1&period=2026-1", (400, "VALIDATION_ERROR")),
        ("from=1&period=2025-01", (404, "PERIOD_NOT_FOUND")),
        ("from=0x" + "0" * 64, (404, "NOT_FOUND")),
        ("from=chk_" + "0" * 26, (404, "NOT_FOUND")),
    ],
)
def test_what_consistency_refuses(shop: Shop, visitor: Visitor, query: str, expected: tuple[int, str]) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    assert error(visitor.get(f"{opened(shop, visitor)}/consistency?{query}")) == expected


def test_another_customers_receipts_are_unknown_in_a_record(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "1")
    (foreign,) = shop.record("cust_b", "2")
    receipt = issue(shop, "cust_b")
    shop.checkpoint()
    api = opened(shop, visitor)
    unknown = visitor.get(f"{api}/consistency?from=0x{'0' * 64}")
    for text in (foreign.receipt_id, receipt.receipt_id, "0x" + receipt.proof_root.hex()):
        answer = visitor.get(f"{api}/consistency?from={text}")
        assert (answer.status_code, answer.data) == (unknown.status_code, unknown.data)


# --- Who may have them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["TWO_TIER", "GATED", "OPEN"])
def test_proofs_belong_to_the_tier_of_period_details(shop: Shop, visitor: Visitor, policy: str) -> None:
    shop.record("cust_a", "1", "2")
    shop.checkpoint()
    set_policy(shop, policy)
    api, page = api_of(shop), url_of(shop, "cust_a")
    addresses = [f"{api}/{path}" for path in INNER] + [f"{page}/proof.tlog-proof", f"{page}/proof.tlog-proof?to=1"]
    answers = [visitor.get(address) for address in addresses]
    if policy == "OPEN":
        assert [answer.status_code for answer in answers] == [200, 200, 200, 409, 200, 200]
        return
    assert {error(answer) for answer in answers} == {(401, "STEP_UP_REQUIRED")}
    assert len({answer.data for answer in answers}) == 1
    opened(shop, visitor)
    assert [visitor.get(address).status_code for address in addresses] == [200, 200, 200, 409, 200, 200]


def test_strangers_get_the_same_bytes_whatever_there_is(shop: Shop, visitor: Visitor, tmp_path: Path) -> None:
    other = open_shop(
        shop.db, shop.keys, shop.clock, tmp_path / "b", slug="borealis", hosts=("usage.borealis.localhost",)
    )
    for one in (shop, other):
        one.record("cust_a", "1")
        one.checkpoint()
    shop.record("cust_empty", "1")
    foreign, link = shop.link("cust_a").path, shop.link("cust_a")
    for path in (*INNER, "proof?period=nonsense", "consistency"):
        denied = {visitor.get(f"{api_of(shop, who)}/{path}").data for who in ("cust_a", "cust_empty")}
        assert len(denied) == 1
        unknown = [
            visitor.get(f"{shop.hosts[0]}/api/v1/c/{'0' * 26}/{path}"),
            visitor.get(f"{other.hosts[0]}/api/v1{foreign}/{path}"),
        ]
        assert {(answer.status_code, answer.data) for answer in unknown} == {(404, unknown[0].data)}
        assert error(visitor.get(f"{shop.hosts[1]}/api/v1{link.path}/{path}")) == (409, "RECORD_MOVED")


# --- Consistency of the log -------------------------------------------------------------------------------------------


def test_the_log_extends_each_checkpoint_that_was_seen(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "1")
    base = f"localhost/{log_of(shop)}"
    assert error(visitor.get(f"{base}/consistency?from=1")) == (404, "NOT_FOUND")
    keys, seen = [VerifierKey.parse(key) for key in vkeys_of(shop)], {}
    for _ in range(6):
        shop.clock.advance(days=1)
        shop.checkpoint()
        said = parse_checkpoint(open_note(visitor.get(f"{base}/checkpoint").text, keys))
        seen[said.size] = base64.b64encode(said.root).decode()
    for old in range(1, 7):
        for new in range(old, 7):
            answer = visitor.get(f"{base}/consistency?from={old}&to={new}")
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            data = answer.json
            assert consistent(data)
            assert (data["format"], data["origin"]) == ("shared-record/log-consistency@v1", ORIGIN)
            assert (data["from"]["root"], data["to"]["root"]) == (seen[old], seen[new])
            said = parse_checkpoint(open_note(data["checkpoint"], keys))
            assert (said.size, base64.b64encode(said.root).decode()) == (new, seen[new])
    newest = visitor.get(f"{base}/consistency?from=2")
    assert newest.json["to"]["size"] == 6
    tag = {"If-None-Match": newest.headers["ETag"]}
    assert visitor.get(f"{base}/consistency?from=2", headers=tag).status_code == 304


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from=3", (409, "LOG_IS_SMALLER")),
        ("from=3&to=9", (409, "LOG_IS_SMALLER")),
        ("from=1&to=3", (404, "NOT_FOUND")),
        ("", (400, "VALIDATION_ERROR")),
        ("from=0", (400, "VALIDATION_ERROR")),
        ("from=2&to=1", (400, "VALIDATION_ERROR")),
        ("from=1&to=", (400, "VALIDATION_ERROR")),
        ("from=1&to=x", (400, "VALIDATION_ERROR")),
        ("from=" + "9" * 100, (400, "VALIDATION_ERROR")),
    ],
)
def test_what_the_log_refuses(shop: Shop, visitor: Visitor, query: str, expected: tuple[int, str]) -> None:
    shop.record("cust_a", "1")
    shop.checkpoint()
    shop.clock.advance(days=1)
    shop.checkpoint()
    answer = visitor.get(f"{shop.hosts[0]}/{log_of(shop)}/consistency?{query}")
    assert error(answer) == expected
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    if expected[0] == 409:
        assert answer.json["error"]["message"] == "The newest checkpoint of this log has size 2, which is less than 3."


def test_a_log_is_unknown_on_another_tenants_host(shop: Shop, visitor: Visitor, tmp_path: Path) -> None:
    other = open_shop(
        shop.db, shop.keys, shop.clock, tmp_path / "b", slug="borealis", hosts=("usage.borealis.localhost",)
    )
    shop.record("cust_a", "1")
    shop.checkpoint()
    path = f"{log_of(shop)}/consistency?from=1"
    assert visitor.get(f"{shop.hosts[0]}/{path}").status_code == 200
    foreign = visitor.get(f"{other.hosts[0]}/{path}")
    missing = visitor.get(f"{other.hosts[0]}/log/t_0000000000000000/consistency?from=1")
    assert (foreign.status_code, foreign.data) == (404, missing.data)
