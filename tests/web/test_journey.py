"""The customer's journey: link, policy, step-up, inner pages, and every event that ends a session."""

from __future__ import annotations

from datetime import timedelta

import pytest

from client import Visitor, serve, url_of
from shared_record.access import links
from shared_record.tenancy.policies import Policy
from shared_record.tenancy.tenants import update_tenant
from world import Shop

INNER = ("/activity", "/periods", "/compare", "/export", "/export/file?format=json")


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    shop.record("cust_a", "5", "7.25", reason="unit test", reference_id=None)
    return Visitor(serve(shop))


def test_landing_shows_the_total_without_a_session(shop: Shop, visitor: Visitor) -> None:
    page = visitor.get(url_of(shop, "cust_a"))
    assert page.status_code == 200
    for text in ("Recorded this period", "12.25", "API credits", "2 records this cycle", "1 to 30 November 2026 (UTC)"):
        assert text in page.text
    assert "unit test" not in page.text
    assert "Set-Cookie" not in page.headers
    shop.checkpoint()
    assert "Verified through" in visitor.get(url_of(shop, "cust_a")).text


def test_landing_says_when_the_next_checkpoint_is_planned(shop: Shop, visitor: Visitor) -> None:
    url, planned = url_of(shop, "cust_a"), "included in the next one, planned for"
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"checkpoint_seconds": 86_400})
    assert "planned for" not in visitor.get(url).text
    shop.checkpoint()
    at = shop.clock.now()
    expected = f'{planned} <time datetime="{at + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}">'
    assert expected in " ".join(visitor.get(url).text.split())
    shop.clock.advance(hours=23)
    assert expected in " ".join(visitor.get(url).text.split())
    shop.clock.advance(minutes=59)
    assert "planned for" not in visitor.get(url).text


@pytest.mark.parametrize("path", INNER)
def test_inner_pages_lead_to_the_way_in_and_open_after_it(shop: Shop, visitor: Visitor, path: str) -> None:
    url = url_of(shop, "cust_a")
    refused = visitor.get(url + path)
    assert refused.status_code == 303
    assert "/unlock?next=" in refused.location
    opened = visitor.unlock(url, shop.code("cust_a").lower(), target=refused.location.partition("next=")[2])
    assert opened.status_code == 303
    assert opened.location.endswith(path)
    assert visitor.get(url + path).status_code == 200


def test_activity_twins_answer_401_in_json_without_a_session(shop: Shop, visitor: Visitor) -> None:
    for suffix in ("json", "csv"):
        answer = visitor.get(f"{url_of(shop, 'cust_a')}/activity.{suffix}")
        assert (answer.status_code, answer.json["error"]["code"]) == (401, "STEP_UP_REQUIRED")


def test_a_wrong_code_answers_403_and_sets_no_cookie(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.get(f"{url}/unlock")
    answer = visitor.unlock(url, "WRONG2")
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers
    assert "does not match this record" in answer.text
    assert visitor.get(url + "/activity").status_code == 303


def test_json_step_up_sets_exactly_one_cookie(shop: Shop, visitor: Visitor) -> None:
    link = shop.link("cust_a")
    api = f"{link.host}/api/v1/c/{link.handle}/access/verify"
    body = {"factor": "ACCESS_HINT", "value": shop.code("cust_a")}
    wrong = visitor.post(api, json=body | {"value": "AAAAAA"})
    assert (wrong.status_code, wrong.json["error"]["code"]) == (403, "ACCESS_CODE_INVALID")
    assert "Set-Cookie" not in wrong.headers
    right = visitor.post(api, json=body)
    assert right.status_code == 200
    (cookie,) = right.headers.getlist("Set-Cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert visitor.get(f"{link.host}{link.path}/activity.json").json["data"]["total"] == "12.25"


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_l10_m05_json_step_up_from_a_foreign_origin_is_refused(
    shop: Shop, visitor: Visitor, headers: dict[str, str]
) -> None:
    link = shop.link("cust_a")
    answer = visitor.post(
        f"{link.host}/api/v1/c/{link.handle}/access/verify",
        json={"factor": "ACCESS_HINT", "value": shop.code("cust_a")},
        headers=headers,
    )
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_m05_a_form_without_its_token_is_refused(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.get(f"{url}/unlock")
    data = {"method": "access_code", "field-code": shop.code("cust_a"), "csrf_token": "0" * 64}
    assert visitor.post(f"{url}/unlock", data=data).status_code == 403
    assert visitor.get(url + "/activity").status_code == 303


def _rotate(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")


def _revoke(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")


def _reissue(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        links.reissue_link(connection, shop.keys, shop.clock, shop.scope, "cust_a", "test")


def _policy(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        assert links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.GATED, "test")


def _own_policy(shop: Shop) -> None:
    with shop.db.write(shop.scope) as connection:
        assert links.set_customer_policy(connection, shop.clock, shop.scope, "cust_a", "GATED", "test")


def _idle(shop: Shop) -> None:
    shop.clock.advance(minutes=31)


EVENTS = {
    "code rotated": (_rotate, 303),
    "link revoked": (_revoke, 404),
    "link reissued": (_reissue, 404),
    "policy changed": (_policy, 303),
    "own policy changed": (_own_policy, 303),
    "idle": (_idle, 303),
}


@pytest.mark.parametrize("event", EVENTS)
def test_s05_each_event_ends_every_session_at_once(shop: Shop, visitor: Visitor, event: str) -> None:
    change, expected = EVENTS[event]
    url = url_of(shop, "cust_a")
    browsers = [Visitor(visitor.application) for _ in range(2)]
    for browser in browsers:
        assert browser.unlock(url, shop.code("cust_a")).status_code == 303
        assert browser.get(url + "/activity").status_code == 200
    change(shop)
    for browser in browsers:
        assert browser.get(url + "/activity").status_code == expected


def test_l03_s05_moving_host_redirects_ends_sessions_and_starts_anew(shop: Shop, visitor: Visitor) -> None:
    old, new = shop.hosts
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    with shop.db.write(shop.scope) as connection:
        links.move_host(connection, shop.keys, shop.clock, shop.scope, "cust_a", new, "test")
    moved = visitor.get(url + "/activity?period=2026-11")
    assert (moved.status_code, moved.headers["Cache-Control"]) == (302, "private, no-store")
    assert moved.location == f"http://{new}:8000{shop.link('cust_a').path}/activity"
    visitor.jars[new] = dict(visitor.jars[old])  # a cookie copied to the new host
    assert visitor.get(f"{new}{shop.link('cust_a').path}/activity").status_code == 303
    data = visitor.get(f"{old}{shop.link('cust_a').path}/activity.json")
    assert (data.status_code, data.json["error"]["code"]) == (409, "RECORD_MOVED")
    assert visitor.post(url + "/unlock", data={}).status_code == 303
    again = url_of(shop, "cust_a")
    assert again.startswith(new)
    assert visitor.unlock(again, shop.code("cust_a")).status_code == 303
    assert visitor.get(again + "/activity").status_code == 200


def test_the_platform_host_redirects_to_the_home_host(shop: Shop, visitor: Visitor) -> None:
    answer = visitor.get(url_of(shop, "cust_a", "localhost"))
    assert (answer.status_code, answer.location) == (302, f"http://{url_of(shop, 'cust_a').replace('/c/', ':8000/c/')}")


def test_overlap_keeps_the_former_code_for_new_sessions(shop: Shop, visitor: Visitor) -> None:
    former, url = shop.code("cust_a"), url_of(shop, "cust_a")
    with shop.db.write(shop.scope) as connection:
        fresh = links.rotate_code(
            connection, shop.keys, shop.clock, shop.scope, "cust_a", "test", overlap=timedelta(days=1)
        )
    assert fresh != former
    for code in (fresh, former):
        assert Visitor(visitor.application).unlock(url, code).status_code == 303
    shop.clock.advance(days=2)
    assert Visitor(visitor.application).unlock(url, former).status_code == 403


def test_l02_unknown_revoked_and_foreign_links_answer_with_the_same_bytes(
    shop: Shop, visitor: Visitor, tmp_path
) -> None:
    from world import open_shop

    other = open_shop(
        shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",), policy="OPEN"
    )
    other.record("cust_x", "1")
    shop.record("cust_b", "1")
    revoked, foreign = shop.link("cust_b").path, other.link("cust_x").path
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_b", "test")
    answers = [
        visitor.get(f"{shop.hosts[0]}{path}")
        for path in (revoked, foreign, "/c/" + "0" * 26, "/c/short", f"{foreign}/activity", "/nothing")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({(answer.data, tuple(sorted(answer.headers))) for answer in answers}) == 1
    assert visitor.get(f"{other.hosts[0]}{foreign}").status_code == 200


def test_console_and_vendor_api_do_not_exist_on_a_branded_host(shop: Shop, visitor: Visitor) -> None:
    key = shop.api_key()
    body = {"customerId": "cust_a", "delta": 1, "reason": "x"}
    path = "/api/v1/balance/delta"
    assert visitor.post(f"localhost{path}", json=body, headers={"X-Api-Key": key}).status_code == 201
    assert visitor.post(f"{shop.hosts[0]}{path}", json=body, headers={"X-Api-Key": key}).status_code == 404


def test_p01_gated_shows_nothing_and_open_shows_all(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    _policy(shop)
    gated = visitor.get(url)
    assert gated.status_code == 200
    assert "12.25" not in gated.text
    assert "This record opens with a code or sign-in." in gated.text
    assert visitor.get(url + ".json").status_code == 401
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.OPEN, "test")
    assert visitor.get(url + "/activity").status_code == 200
    assert "Anyone with this link can see the whole record." in visitor.get(url).text


def test_s10_a_doubled_cookie_is_no_cookie(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    jar = visitor.jars[shop.hosts[0]]
    (name,) = (name for name in jar if not name.startswith(("sr-pre", "sr-dv-")))
    doubled = {"Cookie": f"{name}=x; {name}={jar[name]}"}
    assert visitor.get(url + "/activity", headers=doubled).status_code == 303


def test_s04_a_session_opens_no_other_record(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_b", "1")
    visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    assert visitor.get(url_of(shop, "cust_b") + "/activity").status_code == 303


def test_s07_close_ends_the_session_on_the_server(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    kept = dict(visitor.jars[shop.hosts[0]])
    token = visitor.get(url).text.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert visitor.post(url + "/close", data={"csrf_token": token}).status_code == 303
    visitor.jars[shop.hosts[0]] = kept
    assert visitor.get(url + "/activity").status_code == 303


def test_m07_nobody_else_opens_or_closes_a_record_for_its_reader(shop: Shop, visitor: Visitor) -> None:
    """A token counts in the browser that got it, and no link closes anything."""
    url, other = url_of(shop, "cust_a"), Visitor(visitor.application)
    page = visitor.get(f"{url}/unlock").text
    assert "<bdi>Acme</bdi>" in page
    assert "Access code" in page
    foreign = token_in(other.get(f"{url}/unlock").text)
    data = {"method": "access_code", "field-code": shop.code("cust_a"), "csrf_token": foreign}
    assert visitor.post(f"{url}/unlock", data=data).status_code == 403
    assert visitor.get(url + "/activity").status_code == 303
    assert other.post(f"{url}/unlock", data=data).status_code == 303
    visitor.unlock(url, shop.code("cust_a"))
    foreign = token_in(other.get(url).text)
    for path in ("/close", "/sessions/end"):
        assert visitor.get(url + path).status_code == 405
        assert visitor.post(url + path, data={"csrf_token": foreign}).status_code == 403
        assert visitor.get(url + "/activity").status_code == 200


def token_in(page: str) -> str:
    return page.partition('name="csrf_token" value="')[2].partition('"')[0]


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/c/other", "/\\evil.example", "javascript:alert(1)", "\r\nX: y"],
)
def test_i10_next_never_leaves_the_record(shop: Shop, visitor: Visitor, target: str) -> None:
    url = url_of(shop, "cust_a")
    page = visitor.get(f"{url}/unlock", query_string={"next": target})
    assert f'name="next" value="{shop.link("cust_a").path}"' in page.text


def test_s12_a_session_stays_open_while_it_is_used(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    for _ in range(30):
        shop.clock.advance(minutes=20)
        page = visitor.get(url + "/activity")
        page.close()
    assert page.status_code == 200
    for _ in range(10):
        shop.clock.advance(minutes=20)
        page = visitor.get(url + "/activity")
        page.close()
    assert page.status_code == 303  # twelve hours are over, used or not


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 303),  # what Chromium sends under no-referrer
        ({"Origin": "null"}, 303),
        ({"Origin": "http://usage.acme.localhost:8000"}, 303),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://record.acme.localhost:8000", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_m05_m06_a_form_is_taken_from_its_own_origin_alone(
    shop: Shop, visitor: Visitor, headers: dict[str, str], status: int
) -> None:
    assert visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"), headers=headers).status_code == status
