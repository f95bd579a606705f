"""The way in, in a browser: forms of one and two steps, the chooser, other sites, and what GET leaves alone."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from html import unescape

import pytest
from shared_record_access_code import AccessCode
from shared_record_example_totp import TotpDevice
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from client import Visitor, url_of
from shared_record.app import create_app
from shared_record.db.schema import challenge, metadata
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.plugin import StepUpContext, StepUpMethod, Verdict
from shared_record.settings import Settings
from shared_record.tenancy.methods import put_methods
from stepup_methods import LISTED, Elsewhere, MailedCode, Post
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Hangs(AccessCode):
    """A method that never answers."""

    slug = "hangs"
    title = "Hangs"
    deadline = 0.05
    release = threading.Event()

    def verify(self, ctx: StepUpContext, answer: Mapping[str, str]) -> Verdict:
        self.release.wait(5)
        return super().verify(ctx, answer)


METHODS: dict[str, type[StepUpMethod]] = {
    one.slug: one for one in (AccessCode, MailedCode, Elsewhere, TotpDevice, Hangs)
}


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def visitor(shop: Shop, post: Post, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    shop.record("cust_a", "1")
    shop.record("cust_b", "1")
    monkeypatch.setattr("shared_record.app.open_post", lambda settings: True)
    monkeypatch.setattr("shared_record.app.mail_sink", lambda keys, clock: post)
    real = load_plugins()
    plugins = Plugins(METHODS, real.export_formats, real.theme_roots)
    return Visitor(create_app(Settings(port=8000), keys=shop.keys, db=shop.db, clock=shop.clock, plugins=plugins))


def offer(shop: Shop, *slugs: str) -> None:
    with shop.db.write(shop.scope) as connection:
        put_methods(connection, shop.scope, [(slug, {}) for slug in slugs])


def hidden(page: TestResponse) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    return {name: unescape(value) for name, value in found}


def fill(visitor: Visitor, url: str, page: TestResponse, **fields: str) -> TestResponse:
    return visitor.post(f"{url}/unlock", data=hidden(page) | fields)


def everything(shop: Shop) -> dict[str, int]:
    with shop.db.read(shop.scope) as connection:
        return {
            table.name: connection.execute(
                select(func.count()).select_from(table), execution_options={"sr_reviewed": True}
            ).scalar_one()
            for table in metadata.sorted_tables
        }


def test_the_chooser_lists_the_methods_in_the_tenants_order_and_each_choice(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "elsewhere", "access_code", "mailed_code")
    url = url_of(shop, "cust_a")
    page = visitor.get(f"{url}/unlock?next=/c/x/activity")
    assert re.findall(r'name="method" value="([^"]+)"', page.text) == [
        "elsewhere:one",
        "elsewhere:two",
        "access_code",
        "mailed_code",
    ]
    form = visitor.get(f"{url}/unlock?method=access_code")
    assert 'name="field-code"' in form.text
    assert "Use another method" in form.text


def test_a_wrong_code_tells_the_tries_that_are_left_and_when_the_next_is_possible(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "access_code", "mailed_code")
    url = url_of(shop, "cust_a")
    page = visitor.get(f"{url}/unlock?method=access_code")
    told = []
    for code in ("AB", "WRONG2", "WRONG3", "WRONG4", "WRONG5", "WRONG6"):
        page = fill(visitor, url, page, **{"field-code": code})
        told.append(unescape(page.text))
    assert "The access code has six letters and numbers. 4 tries left before a wait." in told[0]
    assert "Check your most recent invoice. 3 tries left before a wait." in told[1]
    assert "1 try left before a wait." in told[3]
    assert "There is a wait before the next try." in told[4]
    assert page.status_code == 429
    again = shop.clock.now() + timedelta(seconds=int(page.headers["Retry-After"]) + 59)
    assert f"You can try again after {again:%H:%M} UTC. You can use another method now." in told[5]


def led_to(shop: Shop, visitor: Visitor, path: str) -> tuple[int, str]:
    """Ask for a page of a record, give the code, and return where that leads."""
    offer(shop, "access_code")
    url = url_of(shop, "cust_a")
    page = visitor.get(f"{url}/unlock?next={shop.link('cust_a').path}{path}")
    opened = fill(visitor, url, page, **{"field-code": shop.code("cust_a")})
    return opened.status_code, opened.headers["Location"]


@pytest.mark.parametrize(
    "path", ["/timeline", "/receipts", "/reconcile", "/periods/2026-11", "/periods/2026-11/verify", "/activity/rec_1"]
)
def test_what_was_asked_for_opens_after_the_code(shop: Shop, visitor: Visitor, path: str) -> None:
    assert led_to(shop, visitor, path) == (303, shop.link("cust_a").path + path)


@pytest.mark.parametrize("path", ["/activity/../../x", "/activity/a/b", "/periods/2026-1", "/sessions/end", "/close"])
def test_nothing_else_opens_after_the_code(shop: Shop, visitor: Visitor, path: str) -> None:
    assert led_to(shop, visitor, path) == (303, shop.link("cust_a").path)


def test_two_steps_in_a_browser(shop: Shop, visitor: Visitor, post: Post) -> None:
    offer(shop, "mailed_code")
    url = url_of(shop, "cust_a")
    path = "/c/" + url.partition("/c/")[2]
    page = visitor.get(f"{url}/unlock?next={path}/activity")
    refused = fill(visitor, url, page, **{"field-address": "nobody"})
    assert refused.status_code == 403
    assert "Enter an address." in refused.text
    page = fill(visitor, url, page, **{"field-address": LISTED})
    assert page.status_code == 200
    assert hidden(page)["challenge"]
    assert "If the address is listed" in page.text
    again = fill(visitor, url, page, again="1")
    assert (again.status_code, hidden(again)["challenge"]) == (200, hidden(page)["challenge"])
    wrong = fill(visitor, url, page, **{"field-code": "1"})
    assert wrong.status_code == 403
    assert hidden(wrong)["challenge"] == hidden(page)["challenge"]
    opened = fill(visitor, url, wrong, **{"field-code": post.mails[0].body})
    assert (opened.status_code, opened.headers["Location"]) == (303, f"{path}/activity")
    assert visitor.get(f"{url}/activity").status_code == 200


def test_o02_who_is_listed_shows_in_no_byte(shop: Shop, visitor: Visitor, post: Post) -> None:
    offer(shop, "mailed_code")
    url = url_of(shop, "cust_a")
    page, texts = visitor.get(f"{url}/unlock"), []
    for address in (LISTED, "eve@elsewhere.example"):
        asked = fill(visitor, url, page, **{"field-address": address})
        texts.append((asked.status_code, asked.text.replace(hidden(asked)["challenge"], "TICKET")))
    assert texts[0] == texts[1]
    assert LISTED not in texts[0][1]
    assert [mail.to for mail in post.mails] == [LISTED, None]


def test_another_site_and_back(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "elsewhere")
    url = url_of(shop, "cust_a")
    host, path = shop.hosts[0], "/c/" + url.partition("/c/")[2]
    page = visitor.get(f"{url}/unlock?method=elsewhere:two&next={path}/periods")
    left = fill(visitor, url, page)
    assert left.status_code == 200
    assert "form-action 'self'" in left.headers["Content-Security-Policy"]
    target = re.search(r'<meta http-equiv="refresh" content="0;url=([^"]+)"', left.text)
    assert target
    ticket = re.search(r"state=([\w-]{43})&", unescape(target[1]))
    assert ticket
    back = f"{host}/auth/elsewhere/two?state={ticket[1]}&code=good"
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    stranger = Visitor(visitor.application)
    for wrong in (
        stranger.get(back, headers=cross),
        visitor.get(back.replace("/two", "/one")),
        visitor.get(back.replace("/elsewhere/", "/mailed_code/")),
        visitor.get(back.replace(ticket[1], "x" * 43)),
        visitor.get(f"{host}/auth/elsewhere/two"),
        visitor.get(back + f"&state={ticket[1]}"),
        visitor.request("HEAD", back),
    ):
        assert wrong.status_code == 400
        assert not wrong.headers.getlist("Set-Cookie")
    opened = visitor.get(back, headers=cross)
    assert (opened.status_code, opened.headers["Location"]) == (303, f"{path}/periods")
    assert visitor.get(f"{url}/periods").status_code == 200
    assert visitor.get(back, headers=cross).status_code == 400


def test_i07_a_challenge_of_one_host_is_nothing_on_another(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "elsewhere")
    url = url_of(shop, "cust_a")
    left = fill(visitor, url, visitor.get(f"{url}/unlock?method=elsewhere:one"))
    ticket = re.search(r"state=([\w-]{43})", left.text)
    assert ticket
    visitor.jars[shop.hosts[1]] = dict(visitor.jars[shop.hosts[0]])
    visitor.jars["localhost"] = dict(visitor.jars[shop.hosts[0]])
    for host in (shop.hosts[1], "localhost"):
        assert visitor.get(f"{host}/auth/elsewhere/one?state={ticket[1]}&code=good").status_code == 400
    assert visitor.get(f"{shop.hosts[0]}/auth/elsewhere/one?state={ticket[1]}&code=good").status_code == 303


def test_a_refusal_from_another_site_is_told_and_counts_once(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "elsewhere")
    url = url_of(shop, "cust_a")
    left = fill(visitor, url, visitor.get(f"{url}/unlock?method=elsewhere:one"))
    ticket = re.search(r"state=([\w-]{43})", left.text)
    assert ticket
    back = f"{shop.hosts[0]}/auth/elsewhere/one?state={ticket[1]}&code="
    refused = visitor.get(back + "bad&error_description=<script>")
    assert refused.status_code == 403
    assert "script&gt;" not in refused.text
    assert "This answer was not recognised." in refused.text
    assert hidden(refused)["method"] == "elsewhere:one"  # the form to start again
    assert visitor.get(back + "good").status_code == 400


def test_l05_get_and_head_write_and_send_nothing(shop: Shop, visitor: Visitor, post: Post) -> None:
    offer(shop, "mailed_code", "elsewhere", "access_code")
    url = url_of(shop, "cust_a")
    before = everything(shop)
    for path in ("", "?method=mailed_code", "?method=elsewhere:one", "?method=access_code&code=K7M4QX", "?again=1"):
        for method in ("GET", "HEAD"):
            visitor.request(method, f"{url}/unlock{path}")
    visitor.get(f"{shop.hosts[0]}/auth/elsewhere/one?state={'x' * 43}&code=good")
    assert everything(shop) == before
    assert post.mails == []


def test_n01_a_method_that_hangs_is_unavailable_by_itself(shop: Shop, visitor: Visitor) -> None:
    offer(shop, "hangs", "access_code")
    url = url_of(shop, "cust_a")
    page = visitor.get(f"{url}/unlock?method=hangs")
    statuses = [fill(visitor, url, page, **{"field-code": "x"}).status_code for _ in range(5)]
    assert statuses == [403] * 5
    out = fill(visitor, url, page, **{"field-code": shop.code("cust_a")})
    assert out.status_code == 503
    assert "does not work at the moment" in out.text
    form = visitor.get(f"{url}/unlock")
    assert hidden(form)["method"] == "access_code"
    assert visitor.get(url).status_code == 200
    Hangs.release.set()


def test_the_json_call_in_two_steps_sets_one_cookie_each(shop: Shop, visitor: Visitor, post: Post) -> None:
    offer(shop, "mailed_code", "access_code")
    host, _, handle = url_of(shop, "cust_a").partition("/c/")
    url = f"{host}/api/v1/c/{handle}/access/verify"
    begun = visitor.post(url, json={"factor": "MAILED_CODE", "value": LISTED})
    assert begun.status_code == 202
    assert [line.partition("=")[0] for line in begun.headers.getlist("Set-Cookie")] == ["sr-pre"]
    ticket = begun.json["data"]["challenge"]
    assert begun.json["data"]["expiresAt"]
    answer = {"factor": "MAILED_CODE", "challenge": ticket, "value": post.mails[0].body}
    assert Visitor(visitor.application).post(url, json=answer).json["error"]["code"] == "CHALLENGE_OVER"
    opened = visitor.post(url, json=answer)
    assert opened.status_code == 200
    (cookie,) = opened.headers.getlist("Set-Cookie")
    assert re.match(r"sr-[0-9a-f]{8}=", cookie)
    assert visitor.get(f"{host}/c/{handle}/activity").status_code == 200


def test_the_json_call_of_vendor_clients_stays_as_it_was(shop: Shop, visitor: Visitor) -> None:
    host, _, handle = url_of(shop, "cust_a").partition("/c/")
    url = f"{host}/api/v1/c/{handle}/access/verify"
    wrong = visitor.post(url, json={"factor": "ACCESS_HINT", "value": "WRONG2"})
    assert (wrong.status_code, wrong.json["error"]["code"]) == (403, "ACCESS_CODE_INVALID")
    assert not wrong.headers.getlist("Set-Cookie")
    right = visitor.post(url, json={"factor": "ACCESS_HINT", "value": shop.code("cust_a")})
    assert (right.status_code, len(right.headers.getlist("Set-Cookie"))) == (200, 1)
    unknown = visitor.post(url, json={"factor": "ACCESS_HINT", "value": "x", "challenge": "y"})
    assert unknown.json["error"]["code"] == "CHALLENGE_OVER"


def test_g08_a_form_that_is_too_much_is_not_read(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.get(f"{url}/unlock")
    boundary = "--x\r\nContent-Disposition: form-data; name=f\r\n\r\n1\r\n"
    bodies = (
        ("multipart/form-data; boundary=x", boundary * 1_000 + "--x--\r\n"),
        ("multipart/form-data; boundary=x", boundary.replace("1", "1" * 600_000) + "--x--\r\n"),
        ("application/x-www-form-urlencoded", "field-code=" + "A" * 2_000_000),
    )
    for kind, body in bodies:
        answer = visitor.post(f"{url}/unlock", data=body, headers={"Content-Type": kind})
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (413, None), kind


def test_a12_a_code_in_the_query_is_ignored(shop: Shop, visitor: Visitor) -> None:
    url, code = url_of(shop, "cust_a"), shop.code("cust_a")
    page = visitor.get(f"{url}/unlock?code={code}&field-code={code}")
    assert code not in page.text
    assert fill(visitor, f"{url}", page).status_code == 403
    assert everything(shop)[challenge.name] == 0
