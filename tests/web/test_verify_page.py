"""The page that checks in the browser: which code it runs, what it may load, and what it tells to whom."""

from __future__ import annotations

import gzip
import re
from urllib.parse import quote_plus

import pytest

from client import Visitor, serve, url_of
from shared_record.db import leases
from shared_record.ledger.new_origin import declare_origin
from shared_record.plugin import standalone_verifiers
from shared_record.web.headers import CONTENT_SECURITY_POLICY, IMMUTABLE
from shared_record.web.render import static_files
from web.test_proof_endpoints import log_of, set_policy
from world import Shop


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    shop.record("cust_a", "12480.5")
    shop.checkpoint()
    return Visitor(serve(shop))


def test_it_runs_the_very_code_that_is_in_each_bundle(shop: Shop, visitor: Visitor) -> None:
    page = visitor.get(url_of(shop, "cust_a") + "/verify")
    scripts = re.findall(r'<script nonce="([^"]+)" src="([^"]+)" defer></script>', page.text)
    assert page.text.count("<script") == len(scripts) == 3
    every, verifier, live = (visitor.get(f"{shop.hosts[0]}{url}") for _, url in scripts)
    assert b"<script>" + verifier.data + b"</script>" in standalone_verifiers()["verify.html"]
    for script in (every, verifier, live):
        assert script.content_type == "text/javascript; charset=utf-8"
        assert script.headers["Cache-Control"] == IMMUTABLE
    assert len(gzip.compress(every.data)) + len(gzip.compress(live.data)) <= 15_000
    assert len(gzip.compress(verifier.data)) <= 40_000
    for name in ("verify.py", "verify.html"):
        (url,) = re.findall(rf'href="(/static/[0-9a-f]+/{re.escape(name)})" download', page.text)
        file = visitor.get(f"{shop.hosts[0]}{url}")
        assert file.data == standalone_verifiers()[name]
        assert file.headers["Content-Disposition"] == "attachment"


def test_its_policy_lets_its_scripts_run_and_nothing_else(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a") + "/verify"
    nonces = set()
    for _ in range(2):
        page = visitor.get(url)
        policy = page.headers["Content-Security-Policy"]
        base, _, scripts = policy.rpartition("; script-src ")
        assert base == CONTENT_SECURITY_POLICY
        (nonce,) = re.findall(r"'nonce-([A-Za-z0-9_-]{22})'", scripts)
        assert scripts == f"'nonce-{nonce}'"
        assert set(re.findall('nonce="([^"]+)"', page.text)) == {nonce}
        assert "no-store" in page.headers["Cache-Control"]
        nonces.add(nonce)
    assert len(nonces) == 2
    assert "script-src" not in visitor.get(url_of(shop, "cust_a") + "/unlock").headers["Content-Security-Policy"]


def test_the_page_has_every_place_that_the_verifier_fills(shop: Shop, visitor: Visitor) -> None:
    page = visitor.get(url_of(shop, "cust_a") + "/verify").text
    code = static_files()["verify.js"].data.decode() + static_files()["check.js"].data.decode()
    wanted = set(re.findall(r'\$\("([a-z-]+)"\)', code)) | {"reason", "key", "unchecked", "checked", "live-print"}
    assert wanted <= set(re.findall(r' id="([^"]+)"', page))


@pytest.mark.parametrize("policy", ["TWO_TIER", "GATED", "OPEN"])
def test_each_tier_checks_what_it_may_see(shop: Shop, visitor: Visitor, policy: str) -> None:
    set_policy(shop, policy)
    url = url_of(shop, "cust_a")
    places = {
        "log": f'data-log="/{log_of(shop)}"',
        "api": f'data-api="/api/v1{shop.link("cust_a").path}"',
        "proof": "/proof.tlog-proof",
    }
    text = visitor.get(f"{url}/verify").text
    shown = {name: place in text for name, place in places.items()}
    assert shown == {"log": policy != "GATED", "api": policy == "OPEN", "proof": policy == "OPEN"}
    target = f"{shop.link('cust_a').path}/verify"
    assert visitor.unlock(url, shop.code("cust_a"), target).headers["Location"].endswith(target)
    text = visitor.get(f"{url}/verify").text
    assert all(place in text for place in places.values())
    assert "python3 verify.py --policy log.policy proof-2026-11.tlog-proof" in text
    assert "12480" not in text


def test_each_period_has_its_own(shop: Shop, visitor: Visitor) -> None:
    """The page of a period leads to the check of that period, not of the current one."""
    shop.clock.advance(days=40)
    shop.record("cust_a", "3")
    shop.close()
    shop.checkpoint()
    url, base = url_of(shop, "cust_a"), shop.link("cust_a").path
    assert f"next={quote_plus(f'{base}/periods/2026-11/verify')}" in visitor.get(f"{url}/periods/2026-11/verify").text
    visitor.unlock(url, shop.code("cust_a"))
    assert f'href="{base}/periods/2026-11/verify"' in visitor.get(f"{url}/periods/2026-11").text
    page = visitor.get(f"{url}/periods/2026-11/verify").text
    assert f'data-period="2026-11" data-figures="{base}/periods/2026-11.json"' in page
    assert "Check this record: November 2026" in page
    assert "proof-2026-11.tlog-proof" in page
    assert f'data-period="2027-01" data-figures="{base}.json"' in visitor.get(f"{url}/verify").text
    for name in ("2026-13", "9999-12", "x", "chk_0"):
        assert visitor.get(f"{url}/periods/{name}/verify").status_code == 404


def test_the_current_origin_of_the_log_is_checked(shop: Shop, visitor: Visitor) -> None:
    lease = shop.lease()
    with shop.db.write(shop.scope) as connection:
        declare_origin(connection, shop.keys, shop.clock, shop.locks, lease, reason="a test", new_key=True)
    leases.release(shop.db, lease, shop.clock.now())
    shop.record("cust_a", "1")
    shop.checkpoint()
    second = f"{log_of(shop)}/2"
    assert f'data-log="/{second}"' in visitor.get(f"{url_of(shop, 'cust_a')}/verify").text
    for path, origin in ((second, "localhost/log/acme/2"), (log_of(shop), "localhost/log/acme")):
        assert visitor.get(f"{shop.hosts[0]}/{path}/consistency?from=1").json["origin"] == origin


def test_an_unknown_link_has_no_such_page(shop: Shop, visitor: Visitor) -> None:
    assert visitor.get(f"{shop.hosts[0]}/c/{'0' * 26}/verify").status_code == 404
