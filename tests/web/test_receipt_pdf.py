"""Receipts as PDF over HTTP: who gets them, what they state, and the receipt's data in them."""

from __future__ import annotations

import io
import json

import pytest
from pypdf import PdfReader

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.clock import period_bounds
from shared_record.exports import typeset
from shared_record.ledger.fingerprint import fingerprint
from shared_record.ledger.receipts import Receipt, issue_receipt
from shared_record.tenancy.policies import Policy
from world import Shop

ROUTES = ("/receipt/{}.pdf", "/api/v1/receipt/{}.pdf")


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    return Visitor(serve(shop))


def issue(shop: Shop) -> Receipt:
    with shop.db.write(shop.scope) as connection:
        made = issue_receipt(
            connection, shop.clock, shop.scope, shop.link("cust_a").customer_id, *period_bounds("2026-11")
        )
    assert made is not None
    return made


def set_policy(shop: Shop, policy: Policy) -> None:
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, policy, "test")


def test_x05_a_session_gets_the_receipt_with_its_data(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "5", "7.25")
    receipt = issue(shop)
    shop.checkpoint()
    visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    data = visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}.json").json["data"]
    assert data["links"]["pdf"] == data["links"]["permalink"] + ".pdf"
    assert (
        f'href="/receipt/{receipt.receipt_id}.pdf"' in visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}").text
    )
    for route in ROUTES:
        answer = visitor.get(shop.hosts[0] + route.format(receipt.receipt_id))
        assert (answer.status_code, answer.content_type) == (200, "application/pdf")
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{receipt.receipt_id}.pdf"'
        assert answer.headers["Cache-Control"] == "private, no-store"
        reader = PdfReader(io.BytesIO(answer.data))
        assert json.loads(reader.attachments["record.json"][0]) == data
        text = " ".join(reader.pages[0].extract_text().split())
        for words in (
            "Receipt for November 2026",
            "12.25 API credits",
            "1 to 30 November 2026 (UTC)",
            "2 records",
            "Covered by the checkpoint of",
            fingerprint(receipt.proof_root),
            receipt.proof_root.hex()[:8],
            data["links"]["permalink"],
        ):
            assert words in text
        assert "A later receipt exists" not in text
        everything = answer.data + reader.attachments["record.json"][0] + text.encode()
        assert shop.code("cust_a").encode() not in everything
        assert str(shop.link("cust_a").handle).encode() not in everything


def test_an_amended_receipt_says_so_on_paper(shop: Shop, visitor: Visitor) -> None:
    set_policy(shop, Policy.OPEN)
    shop.record("cust_a", "5")
    first = issue(shop)
    shop.record("cust_a", "1")
    second = issue(shop)
    pdf = visitor.get(f"{shop.hosts[0]}/receipt/{first.receipt_id}.pdf")
    assert f"A later receipt exists: {second.receipt_id}" in PdfReader(io.BytesIO(pdf.data)).pages[0].extract_text()


def test_a_single_record_has_one_too(shop: Shop, visitor: Visitor) -> None:
    set_policy(shop, Policy.OPEN)
    (one,) = shop.record("cust_a", "5")
    pdf = visitor.get(f"localhost/api/v1/receipt/{one.receipt_id}.pdf")
    assert "Receipt for one record" in PdfReader(io.BytesIO(pdf.data)).pages[0].extract_text()


@pytest.mark.parametrize("policy", [Policy.TWO_TIER, Policy.GATED])
def test_x01_without_a_session_it_is_denied_like_everything_inner(shop: Shop, visitor: Visitor, policy: Policy) -> None:
    set_policy(shop, policy)
    shop.record("cust_a", "5")
    receipt = issue(shop)
    shop.checkpoint()
    inner = visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}.tlog-proof")
    for route in ROUTES:
        denied = visitor.get(shop.hosts[0] + route.format(receipt.receipt_id))
        assert (denied.status_code, denied.json["error"]["code"]) == (401, "STEP_UP_REQUIRED")
        assert denied.data == inner.data
        unknown = visitor.get(shop.hosts[0] + route.format("chk_" + "0" * 26))
        assert (unknown.status_code, unknown.json["error"]["code"]) == (404, "NOT_FOUND")
    assert ".pdf" not in visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}").text


def test_where_it_cannot_be_made_the_rest_stays(shop: Shop, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    set_policy(shop, Policy.OPEN)
    shop.record("cust_a", "5")
    receipt = issue(shop)
    monkeypatch.setattr(typeset, "_CHILD", typeset._CHILD.with_name("missing.py"))
    for route in ROUTES:
        answer = visitor.get(shop.hosts[0] + route.format(receipt.receipt_id))
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "PDF_UNAVAILABLE")
    assert visitor.get(f"{shop.hosts[0]}/receipt/{receipt.receipt_id}").status_code == 200
