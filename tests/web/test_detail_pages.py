"""Record, period, timeline and receipts: who sees them, what they say, and where each of their figures leads."""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal
from html import unescape

import pytest

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.clock import period_bounds
from shared_record.ledger.entry import canonical_metadata
from shared_record.ledger.erasure import erase_details
from shared_record.ledger.intake import Accepted, Delta
from shared_record.ledger.receipts import issue_receipt
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from world import Shop

PAGES = ("/periods/2026-11", "/timeline", "/receipts", "/periods")


class Filled:
    """A shop with two months of one customer, corrections, a receipt and a later one; and the records' ids."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        with shop.db.write(shop.scope) as connection:
            update_tenant(connection, shop.scope, {"breakdowns": ["model"]})
        self.first = self.record("5", "first", model="large", note={"nested": [1, "x"]}, count=3)
        self.record("7.25", "second", model="=small")
        shop.clock.advance(days=2)
        self.wrong = self.record("100", "wrong", model="large")
        self.reversal = self.record("-100", "reversal", adjusts=self.wrong, model="large")
        self.issue()
        self.record("3", "after the receipt")
        self.issue()
        shop.checkpoint()
        shop.clock.advance(days=10)
        shop.close()
        shop.checkpoint()
        self.again = self.record("2", "second reversal", adjusts=self.reversal)
        shop.record("cust_b", "9")

    def record(self, amount: str, reason: str, adjusts: str | None = None, **metadata: object) -> str:
        text = canonical_metadata(metadata) if metadata else None
        delta = Delta("cust_a", amount, reason, f"ref-{reason}", text, adjusts_record=adjusts)
        (done,) = self.shop.record_many([delta])
        assert isinstance(done, Accepted)
        return done.record_id

    def issue(self) -> None:
        shop = self.shop
        with shop.db.write(shop.scope) as connection:
            who = links.show_link(connection, shop.keys, shop.scope, "cust_a").customer_id
            issue_receipt(connection, shop.clock, shop.scope, who, *period_bounds("2026-11"))


@pytest.fixture
def filled(shop: Shop) -> Filled:
    return Filled(shop)


@pytest.fixture
def reader(filled: Filled) -> tuple[Visitor, str]:
    """A browser in which the record is open, and the link."""
    visitor, url = Visitor(serve(filled.shop)), url_of(filled.shop, "cust_a")
    assert visitor.unlock(url, filled.shop.code("cust_a")).status_code == 303
    return visitor, url


def words(html: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", html).split()))


def data(visitor: Visitor, url: str) -> dict:
    answer = visitor.get(url)
    assert answer.status_code == 200, answer.text
    return answer.json["data"]


def table(visitor: Visitor, url: str) -> list[dict[str, str]]:
    answer = visitor.get(url)
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.get_data(as_text=True), newline="")))


def linked(html: str, text: str) -> str:
    """Return where the link with this text leads."""
    for href, inner in re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', html, re.DOTALL):
        if words(inner) == text:
            return unescape(href)
    raise AssertionError(f"no link {text!r} in {words(html)}")


@pytest.mark.parametrize("policy", Policy)
def test_each_page_opens_as_the_policy_says(filled: Filled, policy: Policy) -> None:
    shop = filled.shop
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, policy, "test")
    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    every = (*PAGES, f"/activity/{filled.first}")
    for path in every:
        page = visitor.get(url + path)
        assert page.status_code == (200 if policy is Policy.OPEN else 303)
        for suffix in ("json", "csv"):
            answer = visitor.get(f"{url}{path}.{suffix}")
            assert answer.status_code == (200 if policy is Policy.OPEN else 401)
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    for path in every:
        page = visitor.get(url + path)
        assert page.status_code == 200
        assert re.findall(r'\.(json|csv)>; rel="alternate"', ", ".join(page.headers.getlist("Link"))) == ["json", "csv"]
        for suffix in ("json", "csv"):
            assert visitor.get(f"{url}{path}.{suffix}").status_code == 200


def test_what_is_not_there_or_another_customers_is_not_found(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    other = data_of_other(filled)
    records = ("/activity/rec_0", f"/activity/{other}", "/activity/%00")
    for path in (*records, "/periods/2020-01", "/periods/x", "/periods/%00", "/periods/chk_0"):
        assert visitor.get(url + path).status_code == 404, path
        assert visitor.get(f"{url}{path}.json").status_code == 404, path
        assert visitor.get(f"{url}{path}.csv").status_code == 404, path


@pytest.mark.parametrize("path", ["/activity/rec_0", "/periods/2020-01", "/reconcile?period=2020-01"])
def test_what_is_not_there_leaves_the_way_to_the_other_pages(reader: tuple[Visitor, str], path: str) -> None:
    visitor, url = reader
    page = visitor.get(url + path)
    assert page.status_code == 404
    assert "There is no such" in page.text
    assert linked(page.text, "All periods").endswith("/periods")


def data_of_other(filled: Filled) -> str:
    (done,) = filled.shop.record("cust_b", "1")
    assert isinstance(done, Accepted)
    return done.record_id


def test_the_record_page_shows_every_field(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    rows = data(visitor, f"{url}/activity.json?period=2026-11")["records"]
    row = next(one for one in rows if one["recordId"] == filled.first)
    page = visitor.get(f"{url}/activity/{filled.first}")
    text = words(page.text)
    groups = re.sub("(.{4})", r"\1 ", row["receiptId"][2:]).strip()
    for part in ("5 API credits", "ref-first", "first", "verified", filled.first, groups, "1 of November 2026"):
        assert part in text, part
    for name, value in (("model", "large"), ("note", '{"nested":["1","x"]}'), ("count", "3")):
        assert f"{name} {value}" in text
    assert f'data-copy="{row["receiptId"][2:]}"' in page.text
    receipt = linked(page.text, "Receipt for this record")
    assert visitor.get(url.partition("/")[0] + receipt).status_code == 200

    found = data(visitor, f"{url}/activity/{filled.first}.json")
    assert {name: found[name] for name in row} == row
    assert found["metadata"] == {"model": "large", "note": {"nested": [1, "x"]}, "count": 3}
    assert found["verifiedAt"] is not None
    (line, _end) = table(visitor, f"{url}/activity/{filled.first}.csv")
    assert (line["record_id"], line["amount"]) == (filled.first, "5")

    shop = filled.shop
    with shop.db.write(shop.scope) as connection:
        erase_details(connection, shop.clock, shop.scope, filled.first, "test")
    text = words(visitor.get(f"{url}/activity/{filled.first}").text)
    assert "were removed" in text
    assert "ref-first" not in text


def test_activity_rows_lead_to_the_record_and_landing_rows_nowhere(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    page = visitor.get(f"{url}/activity?period=2026-11").text
    assert f'/activity/{filled.first}">' in page
    assert "/activity/rec_" not in visitor.get(url).text


def test_a_chain_of_corrections_is_shown_whole_from_each_of_its_records(
    filled: Filled, reader: tuple[Visitor, str]
) -> None:
    visitor, url = reader
    ids = [filled.wrong, filled.reversal, filled.again]
    for record in ids:
        found = data(visitor, f"{url}/activity/{record}.json")
        assert [one["recordId"] for one in found["chain"]] == ids
        assert [one["period"] for one in found["chain"]] == ["2026-11", "2026-11", "2026-12"]
        page = words(visitor.get(f"{url}/activity/{record}").text)
        assert "What corrects what" in page
        assert "Together 2" in page
    assert data(visitor, f"{url}/activity/{filled.reversal}.json")["correctedBy"] == [filled.again]
    page = visitor.get(f"{url}/activity/{filled.reversal}").text
    assert linked(page, filled.wrong).endswith(f"/activity/{filled.wrong}")
    alone = data(visitor, f"{url}/activity/{filled.first}.json")
    assert [one["recordId"] for one in alone["chain"]] == [filled.first]
    assert "What corrects what" not in visitor.get(f"{url}/activity/{filled.first}").text


def test_every_figure_of_a_period_leads_to_the_rows_it_is_made_of(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    page = visitor.get(f"{url}/periods/2026-11").text
    host = "http://" + url.partition("/")[0]
    found = data(visitor, f"{url}/periods/2026-11.json")
    assert (found["total"], found["records"]) == ("15.25", 5)

    def activity(text: str) -> tuple[str, int]:
        path, _, query = linked(page, text).partition("?")
        shown = data(visitor, f"{host}{path}.json?{query}")
        return shown["total"], shown["count"]

    assert activity("5 records") == ("15.25", 5)
    assert [one["day"] for one in found["days"]] == ["2026-11-22", "2026-11-24"]
    for one, text in zip(found["days"], ("22 Nov 2026", "24 Nov 2026"), strict=True):
        assert activity(text) == (one["total"], one["records"])
    (model,) = found["breakdowns"]
    for one in model["values"]:
        assert activity(one["value"]) == (one["total"], one["records"])
    parts = [*model["values"], model["other"], model["without"]]
    for sums in (parts, found["days"]):
        assert sum(Decimal(one["total"]) for one in sums) == Decimal("15.25")
        assert sum(one["records"] for one in sums) == 5
    assert linked(page, filled.again).endswith(filled.again)
    text = words(page)
    assert "Corrections recorded later" in text
    assert f"corrects {filled.reversal}" in text
    assert found["fingerprint"] in text
    assert re.sub("(.{4})", r"\1 ", found["proofRoot"][2:]).strip() in text
    assert found["receiptId"] in linked(page, "Receipt")
    assert linked(visitor.get(f"{url}/periods").text, "November 2026").endswith("/periods/2026-11")

    lines = table(visitor, f"{url}/periods/2026-11.csv")
    assert sum(Decimal(one["amount"]) for one in lines if one["kind"] == "day") == Decimal("15.25")
    assert sum(Decimal(one["amount"]) for one in lines if one["key"] == "model") == Decimal("15.25")


def test_x02_a_value_is_no_formula_in_a_table(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    lines = table(visitor, f"{url}/periods/2026-11.csv")
    assert [one["value"] for one in lines if one["kind"] == "value"] == ["'=small", "large"]


def test_days_lead_to_their_rows_in_other_zones_too(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    shop = filled.shop
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"zone": "Pacific/Kiritimati"})
    page = visitor.get(f"{url}/periods/2026-11").text
    path, _, query = linked(page, "24 Nov 2026").partition("?")
    shown = data(visitor, f"http://{url.partition('/')[0]}{path}.json?{query}")
    assert (shown["total"], shown["count"]) == ("3", 3)
    kept = visitor.get(f"http://{url.partition('/')[0]}{path}?{query}").text
    assert 'name="zone" value="UTC" checked' in kept


def test_the_chart_has_a_bar_for_each_day_and_no_style(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    page = visitor.get(f"{url}/periods/2026-11").text
    (chart,) = re.findall(r"<svg [^>]*preserveAspectRatio.*?</svg>", page, re.DOTALL)
    assert [words(text) for text in re.findall(r"<rect.*?</rect>", chart)] == ["22 Nov 2026: 12.25", "24 Nov 2026: 3"]
    assert re.search(r'<title id="chart-title">.*November 2026</title>\s*<desc id="chart-description">', chart)
    assert "style=" not in page


def test_a_breakdown_shows_the_largest_values_and_the_rest_together(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"breakdowns": ["m"], "policy": "OPEN"})
    shop.record_many([Delta("cust_a", str(n), "usage", metadata=f'{{"m":"v{n}"}}') for n in range(1, 21)])
    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    page = visitor.get(f"{url}/periods/2026-11").text
    assert "8 further values 8 36 November 2026 20 210" in words(page)
    whole = visitor.get("http://" + url.partition("/")[0] + linked(page, "Show all values")).text
    assert "further values" not in words(whole)
    assert linked(whole, "v1")


def test_the_timeline_tells_each_fact_once_page_by_page(
    filled: Filled, reader: tuple[Visitor, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, url = reader
    shop = filled.shop
    more = [Delta("cust_a", "1", "again", adjusts_record=filled.first) for _ in range(7)]
    shop.record_many(more)  # of one moment
    with shop.db.write(shop.scope) as connection:
        links.set_customer_policy(connection, shop.clock, shop.scope, "cust_a", "OPEN", "test")
        links.set_customer_policy(connection, shop.clock, shop.scope, "cust_a", "GATED", "test")
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    whole = data(visitor, f"{url}/timeline.json")["facts"]
    kinds = [fact["kind"] for fact in whole]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "access_policy_changed": 2,
        "correction_recorded": 9,
        "period_opened": 2,
        "period_closed": 1,
        "receipt_issued": 2,
    }
    assert [fact["at"] for fact in whole] == sorted((fact["at"] for fact in whole), reverse=True)
    monkeypatch.setattr("shared_record.web.record.timeline.PAGE", 3)
    seen, next_url, shown = [], f"{url}/timeline.json", 0
    while next_url:
        found = data(visitor, next_url)
        seen += found["facts"]
        older = found["links"].get("older")
        next_url = older and "http://" + url.partition("/")[0] + older
        shown += 1
    assert seen == whole
    assert shown == 6  # of 16 facts
    page = visitor.get(f"{url}/timeline").text
    assert page.count("<li><span") == 3
    older = visitor.get("http://" + url.partition("/")[0] + linked(page, "Older")).text
    assert linked(older, "Newest").endswith("/timeline")
    assert visitor.get(f"{url}/timeline?after=20261122T120000.000000~9~x").status_code == 200
    assert visitor.get(f"{url}/timeline?after=99999999T999999.000000~1~x").status_code == 200
    assert len(table(visitor, f"{url}/timeline.csv")) == 3


def test_timeline_sentences_lead_to_what_they_are_about(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    page = visitor.get(f"{url}/timeline").text
    for text, target in (
        ("December 2026 began with its first record.", "/periods/2026-12"),
        ("November 2026 closed with 5 records, 15.25 API credits.", "/periods/2026-11"),
        ("Correction recorded: -100 API credits.", f"/activity/{filled.reversal}"),
        ("Receipt issued for November 2026.", "/receipt/chk_"),
        ("Later receipt issued for November 2026.", "/receipt/chk_"),
    ):
        assert target in linked(page, text)


def test_the_receipts_say_where_a_later_one_exists(
    filled: Filled, reader: tuple[Visitor, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, url = reader
    found = data(visitor, f"{url}/receipts.json")["receipts"]
    assert [(one["revision"], one["laterExists"], one["total"]) for one in found] == [
        (2, False, "15.25"),
        (1, True, "12.25"),
    ]
    page = visitor.get(f"{url}/receipts").text
    assert page.count("A later receipt exists") == 1
    assert [one["later_exists"] for one in table(visitor, f"{url}/receipts.csv")] == ["false", "true"]
    monkeypatch.setattr("shared_record.web.record.receipt_list.PAGE", 1)
    first = data(visitor, f"{url}/receipts.json")
    second = data(visitor, "http://" + url.partition("/")[0] + first["links"]["older"])
    assert [*first["receipts"], *second["receipts"]] == found
    assert second["links"] == {}
    assert "Newest" in words(visitor.get(f"{url}/receipts?after={found[0]['receiptId']}").text)


def test_t08_what_a_vendor_sends_stays_text(shop: Shop) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x>{{ 7*7 }}"
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"breakdowns": ["<b>"], "policy": "OPEN", "unit": "<i>units"})
    text = canonical_metadata({"<b>": hostile, "<u>": [hostile]})
    (done,) = shop.record_many([Delta("cust_a", "1", hostile, hostile, text)])
    assert isinstance(done, Accepted)
    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    assert "&lt;script&gt;" in visitor.get(f"{url}/activity/{done.record_id}").text
    for path in (*PAGES, f"/activity/{done.record_id}", "/activity"):
        page = visitor.get(url + path).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert not re.search("<[biu]>", page)
        assert "49" not in words(page).split()
    path, _, query = linked(visitor.get(f"{url}/periods/2026-11").text, hostile).partition("?")
    assert data(visitor, f"{url.partition('/')[0]}{path}.json?{query}")["count"] == 1


def test_a_detail_is_asked_for_by_name_and_value(filled: Filled, reader: tuple[Visitor, str]) -> None:
    visitor, url = reader
    page = visitor.get(f"{url}/activity?period=2026-11&dimension=model:large")
    assert "3 records, net 5" in words(page.text)
    assert 'name="dimension" type="text" value="model:large"' in page.text
    for wrong in ("model", "model:", ":x", "model:%0a", "model:" + "x" * 129):
        answer = visitor.get(f"{url}/activity?period=2026-11&dimension={wrong}")
        assert answer.status_code == 400, wrong
        assert "name and a value" in answer.text
        assert visitor.get(f"{url}/activity.json?period=2026-11&dimension={wrong}").status_code == 400
