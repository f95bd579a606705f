"""Every surface gives the same rows, the same count and the same sum at one cut: files read back, page and API."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterable
from decimal import Decimal
from urllib.parse import urlencode

import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook
from pypdf import PdfReader

from client import Visitor, serve, url_of
from shared_record.exports.service import Furnishing, build_export
from shared_record.hooks.loader import load_plugins
from shared_record.ledger.amounts import Total
from shared_record.ledger.entry import canonical_metadata
from shared_record.ledger.intake import Delta
from shared_record.ledger.records import find_period
from shared_record.tenancy.tenants import update_tenant
from shared_record.web.record.format import format_total
from world import Shop

Read = tuple[list[str], list[Decimal], str | None]
"""Ids, amounts, and the sum that the file itself states."""


def read_csv(data: bytes) -> Read:
    *rows, last = csv.DictReader(io.StringIO(data.decode(), newline=""))
    return [row["record_id"] for row in rows], [Decimal(row["amount"]) for row in rows], last["running_total"]


def read_focus(data: bytes) -> Read:
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    return [row["x_RecordId"] for row in rows], [Decimal(row["ConsumedQuantity"]) for row in rows], None


def read_json(data: bytes) -> Read:
    document = json.loads(data)
    entries = [row["entry"] for row in document["rows"]]
    return [one["id"] for one in entries], [Decimal(one["qty"]) for one in entries], document["record"]["total"]


def read_jsonl(data: bytes) -> Read:
    *rows, last = map(json.loads, data.decode().splitlines())
    return [row["recordId"] for row in rows], [Decimal(row["amount"]) for row in rows], last["manifest"]["total"]


def read_xlsx(data: bytes) -> Read:
    book = load_workbook(io.BytesIO(data))
    rows = list(book["Rows 1"].iter_rows(min_row=2, values_only=True))
    facts = dict(line[:2] for line in book["Summary"].iter_rows(values_only=True))
    return [str(row[0]) for row in rows], [Decimal(str(row[4])) for row in rows], facts["total"]


def read_parquet(data: bytes) -> Read:
    table = pq.read_table(io.BytesIO(data)).to_pydict()
    manifest = json.loads(pq.read_metadata(io.BytesIO(data)).metadata[b"shared_record.manifest"])
    for text, typed in zip(table["amount"], table["amount_decimal"], strict=True):
        assert typed is None or typed == Decimal(text)
    return table["record_id"], [Decimal(text) for text in table["amount"]], manifest["total"]


def read_bundle(data: bytes) -> Read:
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = [json.loads(line) for line in archive.read("entries.jsonl").splitlines()]
    manifest = json.loads(archive.read("manifest.json"))
    return [one["id"] for one in entries], [Decimal(one["qty"]) for one in entries], manifest["record"]["total"]


def read_pdf(data: bytes) -> Read:
    (attached,) = PdfReader(io.BytesIO(data)).attachments["record.json"]
    document = json.loads(attached)
    rows = document["rows"]
    return [row["recordId"] for row in rows], [Decimal(row["amount"]) for row in rows], document["total"]


def read_einvoice(data: bytes) -> Read:
    archive = zipfile.ZipFile(io.BytesIO(data))
    files = {name.rpartition(".")[2]: archive.read(name) for name in archive.namelist() if name.startswith("usage-")}
    assert read_pdf(files["pdf"]) == read_csv(files["csv"])
    return read_csv(files["csv"])


READERS: dict[str, Callable[[bytes], Read]] = {
    "bundle": read_bundle,
    "csv": read_csv,
    "einvoice": read_einvoice,
    "focus": read_focus,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "pdf": read_pdf,
    "xlsx": read_xlsx,
}


def some_amount(chance: random.Random) -> str:
    """Return any amount the ledger takes: at most 20 digits before the point and 24 after it, never zero."""
    whole, decimals = chance.choice([0, 3, 15, 20]), chance.choice([0, 1, 6, 18, 24])
    value = Decimal(chance.randrange(1, 10 ** max(1, whole + decimals))).scaleb(-decimals)
    return f"{chance.choice(['', '-'])}{value:f}"


@pytest.mark.parametrize("seed", range(3))
def test_every_surface_agrees_on_every_total_at_the_same_cut(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)
    amounts = [some_amount(chance) for _ in range(40)]
    shop.record("cust_a", *amounts[:25])
    shop.checkpoint()
    shop.record("cust_a", *amounts[25:], reason="=1+1")
    expected = Total()
    for amount in amounts:
        expected.add(Decimal(amount))

    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"export_formats": list(READERS)})
        period = find_period(connection, shop.scope, shop.link("cust_a").customer_id, "2026-11")
    assert period is not None
    assert (period.size, period.total) == (40, expected.text)

    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    page = visitor.get(f"{url}.json").get_json()["data"]
    assert (page["total"], page["asOf"]["size"]) == (expected.text, 40)

    formats = load_plugins(strict=True).export_formats
    ids, furnishing = None, Furnishing(formats)
    for slug, read in READERS.items():
        out = io.BytesIO()
        who = shop.link("cust_a").customer_id
        built = build_export(shop.db, shop.keys, shop.clock, shop.scope, who, "2026-11", formats[slug], out, furnishing)
        assert (built.summary.rows, built.summary.total) == (period.size, period.total), slug
        sent = visitor.get(f"{url}/export/file?format={slug}&period=2026-11")
        assert sent.status_code == 200, slug
        for data in (out.getvalue(), sent.data):
            found, quantities, stated = read(data)
            assert quantities == [Decimal(amount) for amount in amounts], slug
            assert stated in (expected.text, None), slug
            ids = ids or found
            assert found == ids, slug
            assert (built.summary.first_id, built.summary.last_id) == (ids[0], ids[-1])


def exact(amounts: Iterable[str]) -> str:
    total = Total()
    for amount in amounts:
        total.add(amount)
    return total.text


@pytest.mark.parametrize("seed", range(2))
def test_pages_data_and_interfaces_agree_with_each_other_and_in_all_their_parts(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"breakdowns": ["model", "region"]})
    amounts = []
    for day in range(4):
        deltas = []
        for _ in range(10):
            amounts.append(some_amount(chance))
            metadata = {name: chance.choice("abc") for name in ("model", "region") if chance.random() < 0.8}
            deltas.append(Delta("cust_a", amounts[-1], "usage", metadata=canonical_metadata(metadata)))
        shop.record_many(deltas)
        shop.clock.advance(days=1)
        if day == 1:
            shop.checkpoint()
    expected = exact(amounts)

    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    host = url.partition("/")[0]
    key = {"X-Api-Key": shop.api_key()}
    asked_by_key = visitor.get("localhost/api/v1/middleware/customers/cust_a/periods/2026-11", headers=key)
    by_key = asked_by_key.get_json()["data"]
    paths = (f"{url}/periods/2026-11.json", f"{host}/api/v1{url.removeprefix(host)}/periods/2026-11")
    for found in (*(visitor.get(path).get_json()["data"] for path in paths), by_key):
        assert (found["total"], found["records"], found["asOf"]["size"]) == (expected, 40, 40)
        assert exact(one["total"] for one in found["days"]) == expected
        for one in found["breakdowns"]:
            parts = [*one["values"], one["other"], one["without"]]
            assert exact(part["total"] for part in parts) == expected
            assert sum(part["records"] for part in parts) == 40
            for part in one["values"]:
                asked = urlencode({"period": "2026-11", "dimension": f"{one['key']}:{part['value']}"})
                rows = visitor.get(f"{url}/activity.json?limit=500&{asked}").get_json()["data"]
                assert (rows["total"], rows["count"]) == (part["total"], part["records"])
                assert exact(row["amount"] for row in rows["records"]) == part["total"]
    assert visitor.get(f"{url}/periods.json").get_json()["data"]["periods"][0]["total"] == expected
    assert visitor.get(f"{url}/activity.json").get_json()["data"]["total"] == expected
    lines = list(csv.DictReader(io.StringIO(visitor.get(f"{url}/periods/2026-11.csv").text, newline="")))
    for kind, key in (("day", ""), ("value", "model"), ("value", "region")):
        same = [one for one in lines if one["key"] == key and (key or one["kind"] == kind)]
        assert exact(one["amount"] for one in same) == expected
    shown = format_total(expected)
    for path in ("", "/periods/2026-11", "/periods", "/activity"):
        page = " ".join(re.sub(r"<[^>]+>", " ", visitor.get(url + path).text).split())
        assert shown in page, path
    last = visitor.get(f"{url}/activity.json?limit=1").get_json()["data"]["records"][0]["recordId"]
    assert shown in visitor.get(f"{url}/activity/{last}").text
