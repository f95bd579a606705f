"""Who may show a page in a frame: nobody, but the sites that a tenant named, and they a receipt alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from client import Visitor, serve, url_of
from shared_record.hosts.resolver import Role
from shared_record.ledger.receipts import list_receipts
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from web.test_headers import requests_of
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ORIGINS = ("https://portal.acme.example", "https://app.example:8443")
FRAMED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"}


@pytest.fixture
def receipt(shop: Shop) -> str:
    shop.record("cust_a", "12.25", "3")
    shop.clock.advance(days=40)
    shop.close()
    shop.checkpoint()
    change(shop, embed_origins=ORIGINS)
    with shop.db.read(shop.scope) as connection:
        (found,) = list_receipts(connection, shop.scope, shop.link("cust_a").customer_id)
    return f"{shop.hosts[0]}/receipt/{found.receipt_id}"


@pytest.fixture
def gate(shop: Shop) -> Any:
    return serve(shop)


def change(shop: Shop, **values: Any) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, values)


def ancestors(answer: Any) -> str:
    """Return who may frame an answer; the older header must not say otherwise."""
    (found,) = re.findall(r"frame-ancestors ([^;]*)", answer.headers["Content-Security-Policy"])
    assert (answer.headers.get("X-Frame-Options") == "DENY") == (found == "'none'")
    return str(found)


@pytest.mark.parametrize("handle", ["live", "unknown"])
def test_t05_nobody_frames_anything_but_a_receipt(shop: Shop, receipt: str, gate: Any, handle: str) -> None:
    real = shop.link("cust_a").handle if handle == "live" else "0" * 26
    stranger, opened, seen = Visitor(gate), Visitor(gate), 0
    opened.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    for host, role in ((shop.hosts[0], Role.SERVING), ("localhost", Role.PLATFORM)):
        for endpoint, method, path in requests_of(gate._applications[role], real or ""):
            for visitor in (stranger, opened):
                assert ancestors(visitor.request(method, f"{host}{path}")) == "'none'", f"{method} {host} {endpoint}"
                seen += 1
    assert seen > 100
    for path in ("", ".json", ".pdf", ".tlog-proof"):
        found = ancestors(Visitor(gate).get(f"{receipt}{path}"))
        assert found == ("'none'" if path else " ".join(ORIGINS))
    assert ancestors(Visitor(gate).get(receipt.replace("/receipt/", "/verify/"))) == "'none'"


def test_t04_t06_a_framed_receipt_is_what_its_id_alone_opens(shop: Shop, receipt: str, gate: Any) -> None:
    opened = Visitor(gate)
    opened.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    assert ".pdf" in opened.get(receipt).text  # only a session opens the paper
    framed, stranger = opened.get(receipt, headers=FRAMED), Visitor(gate).get(receipt, headers=FRAMED)
    nonces = [re.search(r'nonce="([^"]+)"', answer.text)[1] for answer in (framed, stranger)]  # type: ignore[index]
    assert framed.text.replace(nonces[0], "") == stranger.text.replace(nonces[1], "")
    assert ".pdf" not in framed.text
    assert '<base target="_blank">' in framed.text
    assert f"This page comes from <bdi>{shop.hosts[0]}</bdi>." in framed.text
    assert "Set-Cookie" not in framed.headers


def test_t06_what_a_session_opened_cannot_be_framed(shop: Shop, receipt: str, gate: Any) -> None:
    """Also in a browser that does not say whether it frames."""
    opened = Visitor(gate)
    opened.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    assert ancestors(opened.get(receipt)) == "'none'"
    change(shop, policy=Policy.GATED)
    assert ancestors(Visitor(gate).get(receipt, headers=FRAMED)) == "'none'"


def test_t06_nothing_else_is_made_for_a_frame(shop: Shop, receipt: str, gate: Any) -> None:
    visitor = Visitor(gate)
    assert visitor.get(receipt, headers=FRAMED).status_code == 200
    for url in (f"{receipt}.json", receipt.replace("/receipt/", "/verify/"), url_of(shop, "cust_a")):
        assert visitor.get(url, headers=FRAMED).status_code == 403
    for other in ({"Sec-Fetch-Dest": "object"}, {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"}):
        assert visitor.get(receipt, headers=FRAMED | other).status_code == 403
    assert visitor.post(receipt, headers=FRAMED).status_code in (403, 405)


def test_t05_without_named_sites_no_receipt_is_framed(shop: Shop, receipt: str, gate: Any) -> None:
    change(shop, embed_origins=())
    assert ancestors(Visitor(gate).get(receipt, headers=FRAMED)) == "'none'"
