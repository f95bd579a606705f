"""Receipts and public verification by id: what each tier shows, where they are served, and what is never shown."""

from __future__ import annotations

from datetime import timedelta

import pytest

from client import Visitor, serve, url_of
from shared_record.ledger import merkle
from shared_record.ledger.logs import read_vkeys
from shared_record.ledger.note import VerifierKey, b64decode, open_note, parse_checkpoint
from shared_record.verifier.receipts import check_receipt
from shared_record.verifier.trust import Result
from world import Shop, open_shop


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    return Visitor(serve(shop))


def issue(shop: Shop, customer: str):
    from shared_record.clock import period_bounds
    from shared_record.ledger.receipts import issue_receipt

    with shop.db.write(shop.scope) as connection:
        who = shop.link(customer).customer_id
        return issue_receipt(connection, shop.clock, shop.scope, who, *period_bounds("2026-11"))


def set_policy(shop: Shop, policy: str) -> None:
    from shared_record.access import links
    from shared_record.tenancy.policies import Policy

    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, Policy(policy), "test")


def test_a_receipt_page_and_its_json_agree_with_the_ledger(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "5", "7.25", reason="secret reason")
    receipt = issue(shop, "cust_a")
    page = visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}")
    assert page.status_code == 200
    for text in ("Receipt for November 2026", "12.25", "2 records", "The next checkpoint covers it."):
        assert text in page.text
    shop.checkpoint()
    page = visitor.get(f"localhost/receipt/{receipt.receipt_id}")
    assert "Covered by the checkpoint of" in page.text
    data = visitor.get(f"{shop.hosts[1]}/receipt/{receipt.receipt_id}.json").json["data"]
    assert data == visitor.get(f"localhost/api/v1/receipt/{receipt.receipt_id}").json["data"]
    assert (data["state"], data["summary"]["recordCount"], data["summary"]["netChangeExact"]) == (
        "verified",
        2,
        "12.25",
    )
    assert data["verification"]["proofRoot"] == "0x" + receipt.proof_root.hex()
    handle = shop.link("cust_a").handle
    for text in (page.text, visitor.get(f"localhost/api/v1/receipt/{receipt.receipt_id}").text):
        assert handle not in text
        assert "secret reason" not in text


def test_an_amended_receipt_says_that_a_later_one_exists(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "5")
    first = issue(shop, "cust_a")
    shop.record("cust_a", "1")
    second = issue(shop, "cust_a")
    old = visitor.get(f"localhost/receipt/{first.receipt_id}")
    assert f'A later receipt exists: <a href="/receipt/{second.receipt_id}">' in old.text
    assert "A later receipt exists" not in visitor.get(f"localhost/receipt/{second.receipt_id}").text


@pytest.mark.parametrize("prefix", ["0x", "", "0X"])
def test_verify_takes_leaf_hashes_and_roots_and_gives_no_details_to_strangers(
    shop: Shop, visitor: Visitor, prefix: str
) -> None:
    first, _ = shop.record("cust_a", "5", "7.25", reason="secret reason")
    receipt = issue(shop, "cust_a")
    shop.checkpoint()
    for root, count in ((first.receipt_id[2:], 1), (receipt.proof_root.hex(), 2)):
        answer = visitor.get(f"localhost/api/v1/verify/{prefix}{root}")
        data = answer.json["data"]
        assert (data["verified"], data["summary"]["recordCount"], data["records"]) == (True, count, [])
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "proof" not in data
        assert "secret reason" not in answer.text


def test_verify_proves_every_level_to_a_visitor_who_may_see_details(shop: Shop, visitor: Visitor) -> None:
    _, second = shop.record("cust_a", "5", "7.25")
    shop.record("cust_b", "1")
    shop.checkpoint()
    visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    data = visitor.get(f"{shop.hosts[0]}/api/v1/verify/{second.receipt_id}").json["data"]
    (chain,) = data["proof"]
    leaf = merkle.leaf_hash(chain["entry"].encode())
    assert "0x" + leaf.hex() == second.receipt_id
    record = chain["record"]
    path = [b64decode(h) for h in record["path"]]
    assert merkle.verify_inclusion(leaf, record["index"], record["size"], path, b64decode(record["root"]))
    with shop.db.read(shop.scope) as connection:
        keys = [VerifierKey.parse(key) for key in read_vkeys(connection, shop.scope)]
    signed = parse_checkpoint(open_note(chain["checkpoint"], keys))
    log = chain["log"]
    epoch = merkle.leaf_hash(chain["epoch"].encode())
    assert merkle.verify_inclusion(epoch, log["index"], log["size"], [b64decode(h) for h in log["path"]], signed.root)
    # The same browser sees nothing more of another customer's record.
    other = shop.record("cust_b", "2")[0]
    shop.checkpoint()
    assert "proof" not in visitor.get(f"{shop.hosts[0]}/api/v1/verify/{other.receipt_id}").json["data"]


def test_before_the_first_checkpoint_nothing_is_verified(shop: Shop, visitor: Visitor) -> None:
    (first,) = shop.record("cust_a", "5")
    data = visitor.get(f"localhost/api/v1/verify/{first.receipt_id}").json["data"]
    assert (data["verified"], data["verification"]["checkpoint"]) == (False, None)


@pytest.mark.parametrize(("source", "verified"), [("db", True), ("both", True), ("chain", False)])
def test_sources_answer_as_the_contract_says(shop: Shop, visitor: Visitor, source: str, verified: bool) -> None:
    (first,) = shop.record("cust_a", "5")
    shop.checkpoint()
    data = visitor.get(f"localhost/api/v1/verify/{first.receipt_id}?source={source}").json["data"]
    assert (data["verified"], "public ledger" in data["message"]) == (verified, source != "db")
    assert visitor.get(f"localhost/api/v1/verify/{first.receipt_id}?source=moon").status_code == 400


@pytest.mark.parametrize("text", ["chk_" + "0" * 26, "0x" + "0" * 64, "nonsense", "0x12", "chk_" + "U" * 26])
def test_unknown_documents_are_404_everywhere(shop: Shop, visitor: Visitor, text: str) -> None:
    shop.record("cust_a", "1")
    assert visitor.get(f"localhost/api/v1/verify/{text}").status_code == 404
    assert visitor.get(f"localhost/api/v1/receipt/{text}").status_code == 404
    page = visitor.get(f"{shop.hosts[0]}/receipt/{text}")
    assert page.status_code == 404
    assert page.data == visitor.get(f"{shop.hosts[0]}/c/" + "0" * 26).data


def test_p05_another_tenants_host_does_not_know_the_document(shop: Shop, visitor: Visitor, tmp_path) -> None:
    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    (first,) = shop.record("cust_a", "1")
    assert visitor.get(f"{other.hosts[0]}/receipt/{first.receipt_id}").status_code == 404
    assert visitor.get(f"{other.hosts[0]}/api/v1/verify/{first.receipt_id}").status_code == 404


def test_p01_gated_documents_open_with_the_records_session_alone(shop: Shop, visitor: Visitor) -> None:
    (first,) = shop.record("cust_a", "5")
    receipt = issue(shop, "cust_a")
    set_policy(shop, "GATED")
    for document in (first.receipt_id, receipt.receipt_id):
        page = visitor.get(f"{shop.hosts[0]}/receipt/{document}")
        assert page.status_code == 200
        assert "This record opens with a code or sign-in." in page.text
        assert "API credits" not in page.text
        assert visitor.get(f"{shop.hosts[0]}/api/v1/verify/{first.receipt_id}").status_code == 401
    visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    assert "API credits" in visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}").text


def test_receipts_outlive_the_link(shop: Shop, visitor: Visitor) -> None:
    from shared_record.access import links

    shop.record("cust_a", "5")
    receipt = issue(shop, "cust_a")
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")
    assert visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}").status_code == 200


def test_proof_files_of_a_delta_and_of_a_receipt_match(shop: Shop, visitor: Visitor) -> None:
    _, second, _ = shop.record("cust_a", "5", "7.25", "1")
    receipt = issue(shop, "cust_a")
    shop.record("cust_a", "9")
    shop.checkpoint()
    urls = [f"{shop.hosts[0]}/receipt/{one}.tlog-proof" for one in (second.receipt_id, receipt.receipt_id)]
    assert [visitor.get(url).status_code for url in urls] == [401, 401]
    visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    with shop.db.read(shop.scope) as connection:
        trusted = [("the test", {"localhost/log/acme": read_vkeys(connection, shop.scope)})]
    for url in urls:
        proof = visitor.get(url)
        assert proof.status_code == 200
        outcome = check_receipt(proof.data, trusted)
        assert outcome.result is Result.MATCHES, outcome.reason
    assert "proof file" in visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}").text


def test_the_proof_file_of_a_window_over_two_periods_is_one(shop: Shop, visitor: Visitor) -> None:
    from shared_record.ledger.receipts import issue_receipt

    set_policy(shop, "OPEN")
    shop.record("cust_a", "5", "7.25")
    start = shop.clock.now()
    shop.clock.advance(hours=1)
    shop.record("cust_a", "1.5")
    shop.clock.advance(days=31)
    shop.record("cust_a", "4", "-2")
    shop.checkpoint()
    with shop.db.write(shop.scope) as connection:
        who = shop.link("cust_a").customer_id
        found = issue_receipt(connection, shop.clock, shop.scope, who, start + timedelta(minutes=1), shop.clock.now())
    assert len(found.spans) == 2
    answer = visitor.get(f"{shop.hosts[0]}/receipt/{found.receipt_id}.tlog-proof")
    with shop.db.read(shop.scope) as connection:
        trusted = [("the test", {"localhost/log/acme": read_vkeys(connection, shop.scope)})]
    outcome = check_receipt(answer.data, trusted)
    assert (outcome.reason, outcome.rows, outcome.total) == (None, found.size, found.net)
    assert "proof file" in visitor.get(f"{shop.hosts[0]}/receipt/{found.receipt_id}").text


def test_there_is_no_proof_file_before_the_checkpoint(shop: Shop, visitor: Visitor) -> None:
    (first,) = shop.record("cust_a", "5")
    set_policy(shop, "OPEN")
    answer = visitor.get(f"{shop.hosts[0]}/receipt/{first.receipt_id}.tlog-proof")
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "PROOF_NOT_FOUND")
