"""Statements and e-invoice packs over HTTP: who gets them, and that the link is in them and the code is not."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from pypdf import PdfReader

from client import Visitor, serve, url_of
from pdf_files import assert_passive, words
from shared_record.tenancy.tenants import update_tenant
from world import Shop

FILE = "{}/export/file?format={}&period=2026-11"


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"export_formats": ["csv", "pdf", "einvoice"], "theme": "broadsheet"})
    return Visitor(serve(shop))


def test_a_session_gets_the_statement_with_the_link_and_without_the_code(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "5", "7.25", reason="Chat completion")
    shop.checkpoint()
    url, code = url_of(shop, "cust_a"), shop.code("cust_a")
    visitor.unlock(url, code)
    answer = visitor.get(FILE.format(url, "pdf"))
    assert (answer.status_code, answer.content_type) == (200, "application/pdf")
    reader = PdfReader(io.BytesIO(answer.data))
    attached = reader.attachments["record.json"][0]
    assert (json.loads(attached)["total"], json.loads(attached)["size"]) == ("12.25", 2)
    text = words(answer.data)
    for wanted in (
        "12.25 API credits",
        "2 records",
        "Verified through",
        "Chat completion",
        "All 2 records are listed.",
    ):
        assert wanted in text
    assert_passive(reader, {f"http://{url.replace('/', ':8000/', 1)}"})
    assert b"Libertinus" in answer.data  # the serif of that theme
    for whole in (answer.data, attached, text.encode()):
        assert code.encode() not in whole
        assert f"{code[:3]}-{code[3:]}".encode() not in whole
    assert str(shop.link("cust_a").handle) not in str(reader.metadata)


def test_the_e_invoice_pack_holds_the_same_files(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_a", "5", "7.25")
    url, code = url_of(shop, "cust_a"), shop.code("cust_a")
    visitor.unlock(url, code)
    answer = visitor.get(FILE.format(url, "einvoice"))
    assert answer.status_code == 200
    archive = zipfile.ZipFile(io.BytesIO(answer.data))
    (name,) = [name for name in archive.namelist() if name.endswith(".csv")]
    assert archive.read(name) == visitor.get(FILE.format(url, "csv")).data
    assert "12.25 API credits" in words(archive.read(name.replace(".csv", ".pdf")))
    assert not any(code.encode() in archive.read(one) for one in archive.namelist())


@pytest.mark.parametrize("slug", ["pdf", "einvoice"])
def test_x01_without_a_session_there_is_no_statement(shop: Shop, visitor: Visitor, slug: str) -> None:
    shop.record("cust_a", "5")
    url = url_of(shop, "cust_a")
    denied = visitor.get(f"{shop.hosts[0]}/api/v1/c/{url.rpartition('/')[2]}/export?format={slug}&period=2026-11")
    assert (denied.status_code, denied.json["error"]["code"]) == (401, "STEP_UP_REQUIRED")
    assert visitor.get(FILE.format(url, slug)).status_code == 303
