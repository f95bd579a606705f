"""One record never shows in another, in an outer tier, in a cache or in an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

import shared_record
from client import Visitor, serve, url_of
from servers import free_port, valkey
from shared_record.access import links
from shared_record.access.policy import Surface
from shared_record.access.throttle import HANDLE_MISSES
from shared_record.app import SERVING
from shared_record.hosts.resolver import Role, bump_generation
from shared_record.keys import KeyRing
from shared_record.tenancy.policies import Policy
from shared_record.web.tiers import tier_of
from world import Shop, open_shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CANARY = "canary-of-b"


@pytest.fixture
def shop(shop: Shop, tmp_path: Path) -> Shop:
    shop.record("cust_a", "12.25", reason="of-a")
    shop.record("cust_b", "98765.4321", reason=CANARY, reference_id=f"{CANARY}-ref")
    shop.clock.advance(days=20)
    shop.close()
    shop.checkpoint()
    shop.record("cust_a", "3", reason="of-a")
    shop.record("cust_b", "4321.5", reason=CANARY)
    shop.checkpoint()
    return shop


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    return Visitor(serve(shop))


def set_policy(shop: Shop, policy: Policy) -> None:
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, policy, "me")


# --- Tiers -----------------------------------------------------------------------------------------------------------


def routes() -> Iterator[tuple[str, str, Surface]]:
    app = Flask(__name__, static_folder=None)
    for blueprint in SERVING:
        app.register_blueprint(blueprint)
    for rule in app.url_map.iter_rules():
        shown = tier_of(app, rule.endpoint)
        if isinstance(shown, Surface) and "handle" in rule.arguments:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield method, rule.rule.replace("<period>", "2026-11"), shown


OUTER = {Policy.TWO_TIER: {Surface.LANDING}, Policy.GATED: set(), Policy.OPEN: {Surface.LANDING, Surface.DETAIL}}


@pytest.mark.parametrize("policy", Policy)
def test_p01_every_route_opens_to_its_tier_and_no_further(shop: Shop, visitor: Visitor, policy: Policy) -> None:
    set_policy(shop, policy)
    link, seen = shop.link("cust_a"), 0
    for method, rule, surface in routes():
        url = f"{link.host}{rule.replace('<handle>', link.handle or '')}"
        options: dict[str, Any] = {"json": {"first": "2026-11", "second": "2026-12"}} if method == "POST" else {}
        answer = visitor.request(method, url, **options)
        seen += 1
        if surface in OUTER[policy]:
            assert answer.status_code in (200, 400, 404), rule
        elif rule == "/c/<handle>":
            assert answer.status_code == 200  # the way in
            assert "12.25" not in answer.text
        else:
            assert answer.status_code in (303, 401), rule
            assert "of-a" not in answer.text, rule
    assert seen > 20


@pytest.mark.parametrize("policy", Policy)
def test_p05_no_route_of_one_record_shows_anything_of_another(shop: Shop, visitor: Visitor, policy: Policy) -> None:
    set_policy(shop, policy)
    mine = Visitor(visitor.application)
    assert mine.unlock(url_of(shop, "cust_b"), shop.code("cust_b")).status_code == 303
    theirs = mine.get(url_of(shop, "cust_b") + "/activity.json").json["data"]["records"]
    periods = mine.get(f"{shop.hosts[0]}/api/v1{shop.link('cust_b').path}/periods").json["data"]["periods"]
    of_b = {one["recordId"] for one in theirs} | {one["receiptId"] for one in periods} - {None}
    assert len(of_b) >= 2
    assert visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a")).status_code == 303
    link = shop.link("cust_a")
    for method, rule, _ in routes():
        for identifier in ["2026-11", *of_b]:
            path = rule.replace("<handle>", link.handle or "").replace("2026-11", identifier)
            query = f"?a={identifier}&b=2026-12&period={identifier}&reference={CANARY}-ref&format=json"
            body: dict[str, Any] = {"first": identifier, "second": "2026-12"}
            options: dict[str, Any] = {"json": body} if method == "POST" else {}
            answer = visitor.request(method, f"{link.host}{path}{query}", **options)
            text = re.sub(rf'value="{CANARY}-ref"|{CANARY}-ref', "", answer.text)  # a filter shows what was typed
            assert CANARY not in text, (rule, identifier)
            assert "98765" not in text, (rule, identifier)
            assert answer.status_code < 500, (rule, identifier)


def test_l07_the_outer_tier_shows_these_fields_and_no_other(shop: Shop, visitor: Visitor) -> None:
    shown = visitor.get(url_of(shop, "cust_a") + ".json").json["data"]
    assert set(shown) == {
        "vendor",
        "period",
        "boundaries",
        "total",
        "unit",
        "records",
        "verified",
        "verifiedThrough",
        "asOf",
        "recent",
    }
    assert {name for row in shown["recent"] for name in row} == {"recordedAt", "state", "amount"}
    page = visitor.get(url_of(shop, "cust_a")).text
    assert "of-a" not in page + json.dumps(shown)
    assert "cust_a" not in page + json.dumps(shown)


def test_p02_a_gated_link_tells_nothing_by_any_method_header_or_size(shop: Shop, visitor: Visitor) -> None:
    set_policy(shop, Policy.GATED)
    one, other = url_of(shop, "cust_a"), url_of(shop, "cust_b")
    plain = []
    for url in (one, other):
        found = visitor.get(url)
        plain.append(found.text.replace(url.rpartition("/")[2], "HANDLE"))
        assert not {"ETag", "Last-Modified"} & set(found.headers.keys())
        for headers in ({"Range": "bytes=0-10"}, {"If-None-Match": "*"}, {"If-Modified-Since": "Sun, 22 Nov 2026"}):
            again = visitor.get(url, headers=headers)
            assert (again.status_code, again.data) == (200, found.data)
        head = visitor.request("HEAD", url)
        assert (head.status_code, head.data) == (200, b"")
        assert visitor.request("OPTIONS", url).data == b""
    assert plain[0] == plain[1]  # byte for byte, whatever was recorded
    assert "og:" not in plain[0]
    assert not re.search(r"[0-9]+\.[0-9]", plain[0])


@pytest.mark.parametrize("path", ["", "/activity", "/periods", "/export/file?period=2026-12&format=json"])
def test_p04_a_policy_that_changes_while_a_page_is_made_holds_from_the_next_one(
    shop: Shop, visitor: Visitor, path: str
) -> None:
    set_policy(shop, Policy.OPEN)
    url, changed = url_of(shop, "cust_a"), []
    open_page = visitor.get(url + path)
    shop.clock.advance(minutes=1)  # the landing page is made again, not remembered

    def change(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "period_tree" in statement and not changed:  # who may see what was decided before
            changed.append(True)
            set_policy(shop, Policy.GATED)

    event.listen(shop.db.engine, "before_cursor_execute", change)
    try:
        during = visitor.get(url + path)
    finally:
        event.remove(shop.db.engine, "before_cursor_execute", change)
    assert changed
    assert during.status_code == open_page.status_code == 200
    assert len(during.data) == len(open_page.data)  # one policy from the first byte to the last
    after = visitor.get(url + path)
    assert after.status_code == (303 if path else 200)
    assert "of-a" not in after.text


# --- Links, caches, hosts --------------------------------------------------------------------------------------------


def test_l01_a_network_that_guesses_handles_is_stopped(shop: Shop, visitor: Visitor) -> None:
    most = HANDLE_MISSES[0].amount
    answers = [visitor.get(f"{shop.hosts[0]}/c/{number:026}").status_code for number in range(most + 3)]
    assert answers == [404] * most + [429] * 3
    assert visitor.get(url_of(shop, "cust_a")).status_code == 200  # who has a link is not concerned


@pytest.mark.parametrize(
    "suffix", ["/a.css", "/x.js", ".css", "/activity.css", ";a.css", "/activity/a.png", "%2fa.css", "/unlock.css"]
)
def test_h14_a_path_that_looks_like_a_file_is_no_page(shop: Shop, visitor: Visitor, suffix: str) -> None:
    visitor.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    answer = visitor.get(f"{url_of(shop, 'cust_a')}{suffix}")
    assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_h14_a_cache_that_keys_by_path_never_hands_on_a_record(shop: Shop, visitor: Visitor) -> None:
    """A cache in front may keep what says so, and whatever it keeps is the same for everybody."""
    opened, stranger = visitor, Visitor(visitor.application)
    opened.unlock(url_of(shop, "cust_a"), shop.code("cust_a"))
    poison = {"X-Forwarded-Host": "evil.example", "X-Original-URL": "/evil", "X-Forwarded-Prefix": "/evil"}
    page = opened.get(url_of(shop, "cust_a")).text
    for path in {*re.findall(r'(?:href|src)="(/[^"]*)"', page), shop.link("cust_a").path}:
        first = opened.get(f"{shop.hosts[0]}{path}", headers=poison)
        second = stranger.get(f"{shop.hosts[0]}{path}")
        assert "evil" not in first.text + str(first.headers)
        if "no-store" not in first.headers["Cache-Control"]:
            assert first.data == second.data
            assert "Set-Cookie" not in first.headers
        else:
            assert "private" in first.headers["Cache-Control"]


def test_l08_closing_clears_what_the_browser_kept_and_no_page_may_be_kept(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    page = visitor.get(f"{url}/activity")
    assert page.headers["Cache-Control"] == "private, no-store"
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token
    closed = visitor.post(f"{url}/close", data={"csrf_token": token[1]})
    assert closed.headers["Clear-Site-Data"] == '"cache"'
    assert visitor.get(f"{url}/activity").status_code == 303


def test_a_host_that_went_to_another_tenant_is_the_others_in_the_same_second(
    shop: Shop, tmp_path: Path, visitor: Visitor
) -> None:
    from shared_record.db.schema import host

    other = open_shop(shop.db, shop.keys, shop.clock, tmp_path, slug="other", hosts=("usage.other.localhost",))
    other.record("cust_z", "1", reason="of-z")
    name, link = shop.hosts[1], other.link("cust_z")
    resolver = visitor.application._resolver
    resolver._monotonic = lambda: 1e9  # its clock stands still: what it remembers is as good as new
    assert visitor.get(f"{name}/c/{'0' * 26}").status_code == 404  # now it remembers whose host this is
    with shop.db.write(None) as connection:
        for scope, values in ((shop.scope, {"role": "released"}), (other.scope, {"role": "serving"})):
            with shop.db.rescope(connection, scope):
                changed = host.update().where(host.c.tenant_id == scope.config, host.c.host == name)
                if not connection.execute(changed.values(epoch=host.c.epoch + 1, **values)).rowcount:
                    row = {"tenant_id": scope.config, "host": name, "display": name, "is_primary": False}
                    connection.execute(host.insert(), row | {"role": "serving", "created_at": shop.clock.now()})
        bump_generation(connection)
    moved = visitor.get(f"{name}{link.path}")
    assert (moved.status_code, moved.headers.get("Location")) == (302, f"http://{other.hosts[0]}:8000{link.path}")
    assert resolver.resolve(name).config == other.scope.config
    assert visitor.get(f"{name}{shop.link('cust_a').path}").status_code == 404


def test_a_host_whose_epoch_moved_is_forgotten_by_the_page_that_saw_it(shop: Shop, visitor: Visitor) -> None:
    from shared_record.db.schema import host

    resolver = visitor.application._resolver
    resolver._monotonic = lambda: 1e9
    url = url_of(shop, "cust_a")
    assert visitor.get(url).status_code == 200
    before = resolver.resolve(shop.hosts[0]).generation
    with shop.db.write(shop.scope) as connection:
        mine = (host.c.tenant_id == shop.scope.config) & (host.c.host == shop.hosts[0])
        connection.execute(host.update().where(mine).values(epoch=host.c.epoch + 1))
    assert visitor.get(url).status_code == 200
    assert resolver.resolve(shop.hosts[0]).generation == before + 1
    assert resolver.resolve(shop.hosts[0]).role is Role.SERVING


# --- Redis, keys, foreign bytes --------------------------------------------------------------------------------------


def test_s08_a_session_that_was_closed_stays_closed_whatever_redis_forgets(shop: Shop) -> None:
    port = free_port()
    with valkey(port=port) as url:
        visitor = Visitor(serve(shop, redis_url=url))
        link = url_of(shop, "cust_a")
        assert visitor.unlock(link, shop.code("cust_a")).status_code == 303
        page = visitor.get(f"{link}/activity")
    jar = dict(visitor.jars[shop.hosts[0]])
    assert visitor.get(f"{link}/activity").status_code == 200  # Redis is gone, and sessions are none of its business
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token
    assert visitor.post(f"{link}/close", data={"csrf_token": token[1]}).status_code == 303
    visitor.jars[shop.hosts[0]] = jar
    assert visitor.get(f"{link}/activity").status_code == 303
    with valkey(port=port):
        assert visitor.get(f"{link}/activity").status_code == 303


def test_r8_without_redis_records_open_under_the_limits_that_are_left(shop: Shop) -> None:
    visitor = Visitor(serve(shop, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    link = url_of(shop, "cust_a")
    assert visitor.get(link).status_code == 200
    assert visitor.unlock(link, shop.code("cust_a")).status_code == 303
    assert visitor.get(f"{link}/activity").status_code == 200


def test_s14_z06_nothing_unpickles_and_redis_holds_counters_and_messages_alone(database_url: str) -> None:
    modules = sorted(Path(shared_record.__file__).parent.rglob("*.py"))
    unsafe = re.compile(r"^\s*(?:import|from) (?:pickle|shelve|marshal|dill|joblib)\b", re.MULTILINE)
    redis = re.compile(r"^\s*(?:import redis|from redis(?:\.[a-z.]+)? import|from limits)", re.MULTILINE)
    assert not [path.name for path in modules if unsafe.search(path.read_text())]
    using = {path.name for path in modules if redis.search(path.read_text())}
    assert using == {"throttle.py", "news.py", "locks.py"}


def test_z03_forms_that_are_open_survive_a_new_root_key_and_new_ones_use_it(shop: Shop) -> None:
    url, code = url_of(shop, "cust_a"), shop.code("cust_a")
    before = Visitor(serve(shop))
    form = before.get(f"{url}/unlock")
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form.text))
    ring = KeyRing("k2", shop.keys.roots | {"k2": bytes(range(32, 64))})
    shop.keys = ring
    after = Visitor(serve(shop))
    after.jars = before.jars
    assert fields["csrf_token"].startswith("k1.")
    opened = after.post(f"{url}/unlock", data=fields | {"field-code": code})
    assert opened.status_code == 303
    fresh = after.get(f"{url}/activity")
    token = re.search(r'name="csrf_token" value="([^"]+)"', fresh.text)
    assert token
    assert token[1].startswith("k2.")
    for forged in (f"k1.{token[1][3:]}", f"k9.{token[1][3:]}", token[1][3:], ""):
        assert after.post(f"{url}/close", data={"csrf_token": forged}).status_code == 403
    shop.keys = ring.without("k1")  # retired: what it signed is worth nothing now
    late = Visitor(serve(shop))
    late.jars = before.jars
    assert late.post(f"{url}/unlock", data=fields | {"field-code": code}).status_code == 403
