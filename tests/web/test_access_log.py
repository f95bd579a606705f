"""The access log of a link: what its reader sees of sessions, refusals, changes, downloads and views."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import func, select

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.access.policy import Surface, needs_session
from shared_record.db.schema import audit_event, metadata
from shared_record.hosts.resolver import Role
from shared_record.tenancy.policies import Policy
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.record("cust_a", "12.25")
    shop.record("cust_b", "1")
    return shop


@pytest.fixture
def gate(shop: Shop):
    return serve(shop)


@pytest.fixture
def visitor(gate) -> Visitor:
    return Visitor(gate)


def flush(gate) -> int:
    from shared_record.web.runtime import EXTENSION

    return gate._applications[Role.SERVING].extensions[EXTENSION].views.flush()


def data_of(visitor: Visitor, url: str):
    answer = visitor.get(f"{url}/access-log.json")
    assert answer.status_code == 200
    return answer.json["data"]


def sizes(shop: Shop) -> dict[str, int]:
    with shop.db.engine.connect().execution_options(sr_reviewed=True) as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }


def test_the_log_tells_what_happened_newest_first(shop: Shop, gate, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    assert visitor.unlock(url, "222222").status_code == 403
    shop.clock.advance(minutes=1)
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    shop.clock.advance(minutes=1)
    assert visitor.get(f"{url}/export/file?period=2026-11&format=csv").status_code == 200
    assert visitor.get(f"{url}/activity", headers=NAVIGATION).status_code == 200
    assert data_of(visitor, url)["views"] == []
    flush(gate)
    found = data_of(visitor, url)
    assert [one["kind"] for one in found["events"]] == ["export.delivered", "session.issued", "stepup.failed"]
    assert found["events"][0]["period"] == "2026-11"
    assert found["events"][0]["format"] == "csv"
    assert found["views"] == [{"hour": "2026-11-22T12:00:00.000Z", "tier": "inner", "views": 1}]
    page = visitor.get(f"{url}/access-log").text
    for sentence in ("File downloaded: November 2026, csv.", "Not opened: an answer was not accepted", "Opened in a "):
        assert sentence in page
    assert "Viewed once with step-up, 12:00 to 13:00 UTC." in page


def test_a13_a_first_opening_in_a_browser_is_told_to_vendor_and_reader(shop: Shop, gate, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    shop.clock.advance(minutes=1)
    visitor.unlock(url, shop.code("cust_a"))
    shop.clock.advance(minutes=1)
    thief = Visitor(gate)  # who has seen a photo of the invoice
    assert thief.unlock(url, shop.code("cust_a")).status_code == 303
    with shop.db.read(shop.scope) as connection:
        rows = connection.execute(
            select(audit_event.c.detail)
            .where(audit_event.c.tenant_id == shop.scope.plane, audit_event.c.event == "session.issued")
            .order_by(audit_event.c.at)
        ).scalars()
        assert [detail["new_device"] for detail in rows] == [True, False, True]
    told = [one["newDevice"] for one in data_of(visitor, url)["events"] if one["kind"] == "session.issued"]
    assert told == [True, False, True]
    assert visitor.get(f"{url}/access-log").text.count("Opened in a new browser: ") == 2


def test_changes_by_the_vendor_are_told_without_who_and_why(shop: Shop, visitor: Visitor) -> None:
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "key:canary-actor")
        links.set_customer_policy(connection, shop.clock, shop.scope, "cust_a", "GATED", "canary-actor")
        links.reissue_link(connection, shop.keys, shop.clock, shop.scope, "cust_b", "canary-actor")
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    page, found = visitor.get(f"{url}/access-log").text, data_of(visitor, url)
    kinds = [one["kind"] for one in found["events"]]
    assert {"code.rotated", "policy.changed", "session.issued"} == set(kinds)
    assert "Acme replaced the access code." in page
    assert "canary-actor" not in page + str(found)
    assert "code.revealed" not in str(found)


@pytest.mark.parametrize("policy", Policy)
def test_p01_the_access_log_is_of_the_inner_tier_under_every_policy(
    shop: Shop, visitor: Visitor, policy: Policy
) -> None:
    assert needs_session(policy, Surface.ACCESS_LOG)
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, policy, "me")
    url = url_of(shop, "cust_a")
    page = visitor.get(f"{url}/access-log")
    assert page.status_code == 303
    assert page.headers["Location"].endswith("/unlock?next=" + f"%2Fc%2F{url.rpartition('/')[2]}%2Faccess-log")
    assert visitor.get(f"{url}/access-log.json").status_code == 401
    opened = visitor.unlock(url, shop.code("cust_a"), f"/c/{url.rpartition('/')[2]}/access-log")
    assert opened.headers["Location"].endswith("/access-log")
    assert visitor.get(f"{url}/access-log").status_code == 200


def test_s15_a_reader_sees_their_devices_and_ends_them_all(shop: Shop, gate) -> None:
    url, code = url_of(shop, "cust_a"), shop.code("cust_a")
    here, phone = Visitor(gate), Visitor(gate)
    for one in (here, phone):
        assert one.unlock(url, code).status_code == 303
    found = data_of(here, url)["sessions"]
    assert [one["current"] for one in found].count(True) == 1
    assert len(found) == 2
    page = here.get(f"{url}/access-log").text
    jars = [value for one in (here, phone) for jar in one.jars.values() for value in jar.values()]
    assert not any(value in page or value in str(found) for value in jars)
    assert here.post(f"{url}/sessions/end").status_code == 403
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    ended = here.post(f"{url}/sessions/end", data={"csrf_token": token[1]})
    assert (ended.status_code, ended.headers["Clear-Site-Data"]) == (303, '"cache"')
    assert [one.get(f"{url}/activity").status_code for one in (here, phone)] == [303, 303]
    assert here.post(f"{url}/sessions/end").status_code == 303  # nothing left to end


def test_s15_ending_ones_sessions_leaves_those_of_other_records(shop: Shop, gate) -> None:
    one, other = Visitor(gate), Visitor(gate)
    one.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    other.unlock(url_of(shop, "cust_b"), shop.code("cust_b"))
    page = one.get(url_of(shop, "cust_a") + "/access-log").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    assert one.post(url_of(shop, "cust_a") + "/sessions/end", data={"csrf_token": token[1]}).status_code == 303
    assert other.get(url_of(shop, "cust_b") + "/activity").status_code == 200


# --- Views -----------------------------------------------------------------------------------------------------------

COUNTED = [{}, NAVIGATION, {"Accept": "text/html"}]
NOT_COUNTED = [
    {"Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Mode": "no-cors"},
    {**NAVIGATION, "Sec-Purpose": "prefetch;prerender"},
    {**NAVIGATION, "Purpose": "prefetch"},
    {"X-Moz": "prefetch"},
    {"Accept": "*/*"},
    {"Accept": "application/json"},
]


@pytest.mark.parametrize("headers", COUNTED)
def test_a_page_that_somebody_came_for_is_counted(shop: Shop, gate, visitor: Visitor, headers) -> None:
    url = url_of(shop, "cust_a")
    for _ in range(3):
        assert visitor.get(url, headers=headers).status_code == 200
    assert flush(gate) == 1
    visitor.unlock(url, shop.code("cust_a"))
    found = data_of(visitor, url)["views"]
    assert [(one["tier"], one["views"]) for one in found] == [("outer", 3)]


@pytest.mark.parametrize("headers", NOT_COUNTED)
def test_l05_what_is_fetched_ahead_or_by_a_program_is_not_counted(shop: Shop, gate, visitor, headers) -> None:
    assert visitor.get(url_of(shop, "cust_a"), headers=headers).status_code == 200
    assert flush(gate) == 0


def test_l05_head_errors_the_way_in_and_data_are_not_counted(shop: Shop, gate, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.request("HEAD", url, headers=NAVIGATION)
    for path in ("/unlock", "/activity", ".json", "/nothing"):
        visitor.get(f"{url}{path}", headers=NAVIGATION)
    with shop.db.write(shop.scope) as connection:
        links.set_customer_policy(connection, shop.clock, shop.scope, "cust_a", "GATED", "me")
    assert visitor.get(url, headers=NAVIGATION).status_code == 200  # whose record it is, and no more
    assert flush(gate) == 0


def test_l05_looking_and_downloading_write_nothing_in_the_request(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    before = sizes(shop)
    for path in ("", "/activity", "/access-log", "/export/file?period=2026-11&format=csv", "/compare", ".json"):
        assert visitor.get(f"{url}{path}", headers=NAVIGATION).status_code == 200
    shop.clock.advance(hours=13)
    for path in ("/activity", "/access-log"):  # denied
        assert visitor.get(f"{url}{path}", headers=NAVIGATION).status_code == 303
    assert sizes(shop) == before
