"""Downloads: a file that is cut off cannot look complete, and nothing of the request gets into its name."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from client import Visitor, serve, url_of
from shared_record.access import links
from world import Shop


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    shop.record("cust_a", "5", "7.25")
    shop.checkpoint()
    visitor = Visitor(serve(shop))
    assert visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a")).status_code == 303
    return visitor


@pytest.mark.parametrize(("slug", "media_type"), [("csv", "text/csv"), ("json", "application/json")])
def test_x04_x05_a_download_says_its_length_digest_and_name(
    shop: Shop, visitor: Visitor, slug: str, media_type: str
) -> None:
    answer = visitor.get(f"{url_of(shop, 'cust_a')}/export/file?format={slug}&period=2026-11")
    assert answer.status_code == 200
    assert answer.mimetype == media_type
    assert answer.headers["Content-Length"] == str(len(answer.data))
    digest = base64.b64encode(hashlib.sha256(answer.data).digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert re.fullmatch(
        rf'attachment; filename="usage-2026-11-[0-9a-f]{{8}}\.{slug}"', answer.headers["Content-Disposition"]
    )
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; sandbox")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert "Transfer-Encoding" not in answer.headers


def test_the_current_period_is_the_default(shop: Shop, visitor: Visitor) -> None:
    answer = visitor.get(f"{url_of(shop, 'cust_a')}/export/file?format=csv")
    assert "usage-2026-11-" in answer.headers["Content-Disposition"]


NOT_THERE = (
    "",
    "format=",
    "format=xlsx",
    "format=CSV",
    "format=csv%0d%0aX:1",
    "format=csv&period=2026-10",
    "format=csv&period=2026-13",
    "format=csv&period=x%22%0d%0aSet-Cookie:a=b",
    "format=csv&period=../../etc/passwd",
    "format=csv&period=2026-11%00",
    "format=csv&period=%EF%BC%92026-11",
)


def test_x05_an_unknown_format_or_period_is_not_found(shop: Shop, visitor: Visitor) -> None:
    for query in NOT_THERE:
        answer = visitor.get(f"{url_of(shop, 'cust_a')}/export/file?{query}")
        assert answer.status_code == 404, query
        assert not {"Content-Disposition", "Repr-Digest", "X"} & set(answer.headers.keys()), query
        assert "12.25" not in answer.text, query


def test_a_format_the_tenant_did_not_choose_is_not_found(shop: Shop, visitor: Visitor) -> None:
    from shared_record.tenancy.tenants import update_tenant

    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"export_formats": ["json"]})
    url = f"{url_of(shop, 'cust_a')}/export/file"
    assert [visitor.get(f"{url}?format={slug}").status_code for slug in ("csv", "json")] == [404, 200]


def test_x01_s13_without_a_session_there_are_no_bytes(shop: Shop, visitor: Visitor) -> None:
    url = f"{url_of(shop, 'cust_a')}/export/file?format=csv"
    stranger = Visitor(visitor.application).get(url)
    assert (stranger.status_code, b"12.25" in stranger.data) == (303, False)
    with shop.db.write(shop.scope) as connection:
        links.rotate_code(connection, shop.keys, shop.clock, shop.scope, "cust_a", "me")
    assert visitor.get(url).status_code == 303


def test_head_tells_the_length_and_sends_nothing(shop: Shop, visitor: Visitor) -> None:
    url = f"{url_of(shop, 'cust_a')}/export/file?format=csv"
    head, body = visitor.request("HEAD", url), visitor.get(url)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(body.data))
