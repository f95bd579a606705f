"""Pages of other sites: they may lead to a record, and neither embed, fetch, frame nor post to it."""

from __future__ import annotations

import pytest

from client import Visitor, serve, url_of
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
PATHS = ("", ".json", "/activity", "/activity.csv", "/unlock", "/verify", "/access-log", "/export/file")


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    shop.record("cust_a", "1")
    return Visitor(serve(shop))


HOW = (
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object"},
    {},
)


def test_l10_what_another_sites_page_asks_for_is_refused_alike_open_or_not(shop: Shop, visitor: Visitor) -> None:
    link, opened = url_of(shop, "cust_a"), Visitor(visitor.application)
    opened.unlock(link, shop.code("cust_a"))
    asked = [{"Sec-Fetch-Site": site, **how} for site in ("cross-site", "same-site") for how in HOW]
    for path in PATHS:
        assert opened.get(f"{link}{path}").status_code in (200, 404)
        for headers in asked:
            unknown = f"{shop.hosts[0]}/c/{'0' * 26}{path}"
            ways = ((visitor, f"{link}{path}"), (opened, f"{link}{path}"), (visitor, unknown))
            answers = [who.get(url, headers=headers) for who, url in ways]
            assert [one.status_code for one in answers] == [403] * 3
            if not path.endswith((".json", ".csv")):  # the envelope of data has an id of its own in each answer
                assert len({(one.data, str(sorted(one.headers))) for one in answers}) == 1


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "same-origin"])
def test_l10_a_link_that_is_followed_is_answered(shop: Shop, visitor: Visitor, site: str) -> None:
    assert visitor.get(url_of(shop, "cust_a"), headers={"Sec-Fetch-Site": site, **FOLLOWED}).status_code == 200


@pytest.mark.parametrize("path", ["/unlock", "/close", "/sessions/end"])
def test_l10_m06_a_form_of_another_site_is_refused_before_it_is_read(shop: Shop, visitor: Visitor, path: str) -> None:
    answer = visitor.post(f"{url_of(shop, 'cust_a')}{path}", headers={"Sec-Fetch-Site": "same-site", **FOLLOWED})
    assert (answer.status_code, answer.data) == (403, b"Forbidden\n")


def test_l10_static_files_and_the_public_log_are_not_concerned(shop: Shop, visitor: Visitor) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    assert visitor.get(f"{shop.hosts[0]}/log/nothing/checkpoint", headers=headers).status_code == 404
