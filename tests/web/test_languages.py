"""Which language a page speaks, how its reader chooses another one, and that no text of a page is left in English."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from babel import Locale
from werkzeug.test import TestResponse

from client import Visitor, serve, url_of
from pseudo import left_out, speak_pseudo
from shared_record.access import links
from shared_record.languages import LANGUAGES
from shared_record.tenancy.customers import set_language
from shared_record.tenancy.tenants import update_tenant
from shared_record.web.render import static_files
from shared_record.web.script_texts import texts_in
from world import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PERIODS = {"en": "All periods", "de": "Alle Zeiträume", "es": "Todos los periodos", "ar": "كل الفترات"}
COOKIE = "sr-language"


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    shop.record("cust_a", "12480.5", "-36.25")
    shop.checkpoint()
    return Visitor(serve(shop))


def language_of(page: TestResponse) -> str:
    (tag, way) = re.findall(r'<html lang="([^"]+)" dir="([^"]+)">', page.text)[0]
    assert way == ("rtl" if tag == "ar" else "ltr")
    assert page.headers["Content-Language"] == tag
    assert page.headers["Vary"] == "Accept-Language, Cookie"
    return str(tag)


def tenant_speaks(shop: Shop, language: str | None) -> None:
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"language": language})


def customer_speaks(shop: Shop, customer: str, language: str | None) -> None:
    with shop.db.write(shop.scope) as connection:
        set_language(connection, shop.scope, customer, language)


def choose(visitor: Visitor, host: str, language: str, back: str = "/", **options: Any) -> TestResponse:
    return visitor.post(f"{host}/language", data={"language": language, "back": back}, **options)


# --- Which one -------------------------------------------------------------------------------------------------------


def test_the_readers_choice_comes_before_the_customer_the_tenant_and_the_browser(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    assert language_of(visitor.get(url)) == "en"
    asking = {"Accept-Language": "fr, es-MX;q=0.8, de;q=0.5"}
    assert language_of(visitor.get(url, headers=asking)) == "es"
    tenant_speaks(shop, "de")
    assert language_of(visitor.get(url, headers=asking)) == "de"
    customer_speaks(shop, "cust_a", "ar")
    assert language_of(visitor.get(url, headers=asking)) == "ar"
    assert choose(visitor, shop.hosts[0], "en").status_code == 303
    assert language_of(visitor.get(url)) == "en"
    customer_speaks(shop, "cust_a", None)
    assert language_of(Visitor(visitor.application).get(url)) == "de"


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_numbers_dates_and_plurals_are_those_of_the_language(shop: Shop, visitor: Visitor, language: str) -> None:
    choose(visitor, shop.hosts[0], language)
    page = visitor.get(url_of(shop, "cust_a")).text
    figures = {
        "en": ("12,444.25", "1 to 30 November 2026 (UTC)", "2 records this cycle"),
        "de": ("12.444,25", "1. bis 30. November 2026 (UTC)", "2 Einträge in diesem Zeitraum"),
        "es": ("12.444,25", "del 1 al 30 de noviembre de 2026 (UTC)", "2 registros en este ciclo"),
        "ar": ("12,444.25", "1 إلى 30 نوفمبر 2026 (UTC)", "سجلان في هذه الدورة"),
    }
    for text in (*figures[language], PERIODS[language]):
        assert text in page


def test_every_page_offers_every_language_by_its_own_name(shop: Shop, visitor: Visitor) -> None:
    page = visitor.get(url_of(shop, "cust_a") + "/unlock?next=/c/x").text
    for tag, name in LANGUAGES.items():
        current = ' aria-current="true"' if tag == "en" else ""
        assert f'name="language" value="{tag}" lang="{tag}"{current}>{name}</button>' in page


def test_a_page_without_a_record_speaks_what_was_chosen_or_what_the_browser_asks_for(
    shop: Shop, visitor: Visitor
) -> None:
    tenant_speaks(shop, "es")
    for path in ("/c/unknown", "/nothing", "/receipt/unknown"):
        url = f"{shop.hosts[0]}{path}"
        assert language_of(visitor.get(url)) == "en"
        assert language_of(visitor.get(url, headers={"Accept-Language": "de-AT"})) == "de"
    choose(visitor, shop.hosts[0], "ar")
    assert language_of(visitor.get(f"{shop.hosts[0]}/c/unknown")) == "ar"


def test_unknown_revoked_and_foreign_links_answer_alike_in_each_language(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_b", "1")
    customer_speaks(shop, "cust_b", "es")
    revoked = url_of(shop, "cust_b")
    with shop.db.write(shop.scope) as connection:
        links.revoke_link(connection, shop.keys, shop.clock, shop.scope, "cust_b", "test")
    choose(visitor, shop.hosts[0], "de")
    answers = {visitor.get(url).data for url in (revoked, f"{shop.hosts[0]}/c/{'0' * 26}", f"{shop.hosts[0]}/c/x")}
    assert len(answers) == 1
    assert "Dieser Link ist hier nicht in Gebrauch." in answers.pop().decode()


def test_one_request_does_not_speak_for_the_next(shop: Shop, visitor: Visitor) -> None:
    shop.record("cust_b", "1")
    customer_speaks(shop, "cust_a", "de")
    for _ in range(2):
        assert language_of(visitor.get(url_of(shop, "cust_a"))) == "de"
        assert language_of(visitor.get(url_of(shop, "cust_b"))) == "en"
        assert language_of(visitor.get(f"{shop.hosts[0]}/c/unknown")) == "en"


def test_what_programs_read_is_in_english(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    plain = Visitor(visitor.application)
    customer_speaks(shop, "cust_a", "ar")
    choose(visitor, shop.hosts[0], "de")
    for path in (f"{url}.json", f"{url}/activity.json", f"{url}/activity.csv", f"{shop.hosts[0]}/api/v1/c/x"):
        answer = visitor.get(path, headers={"Accept-Language": "es"})
        again = plain.get(path)
        assert (answer.status_code, answer.headers.get("Content-Language")) == (again.status_code, None)
        assert answer.json["error"]["message"] == again.json["error"]["message"] if answer.status_code >= 400 else True


def test_the_way_in_and_its_reasons_are_in_the_language(shop: Shop, visitor: Visitor) -> None:
    customer_speaks(shop, "cust_a", "de")
    url = url_of(shop, "cust_a")
    form = visitor.get(f"{url}/unlock").text
    assert "Zugangscode" in form
    assert "Six letters" not in form
    answer = visitor.unlock(url, "AAAAAA")
    assert "Dieser Code passt nicht zu dieser Aufzeichnung." in answer.text
    assert language_of(answer) == "de"
    assert visitor.unlock(url, shop.code("cust_a"), "/periods").status_code == 303


def test_a_page_that_says_what_went_wrong_speaks_the_language_of_the_link(
    shop: Shop, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not known yet whose link that is, or cannot be, it speaks what the browser asks for."""
    customer_speaks(shop, "cust_a", "de")
    url, spanish = url_of(shop, "cust_a"), {"Accept-Language": "es"}
    assert language_of(visitor.post(f"{url}/unlock", data={}, headers=spanish)) == "de"
    assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    for path in ("/close", "/sessions/end", "/export"):
        refused = visitor.post(url + path, data={"csrf_token": "x"}, headers=spanish)
        assert (refused.status_code, language_of(refused)) == (403, "de")
        assert "Dieses Formular ist nicht mehr aktuell" in refused.text
    assert language_of(visitor.get(f"{url}/periods/2026-13", headers=spanish)) == "de"
    assert language_of(visitor.get(f"{shop.hosts[0]}/auth/sso/x?state=y", headers=spanish)) == "es"
    monkeypatch.setattr("shared_record.web.record.views.shell", lambda *_, **__: 1 / 0)
    failed = visitor.get(url, headers=spanish)
    assert (failed.status_code, language_of(failed)) == (500, "de")


@pytest.mark.parametrize("language", LANGUAGES)
def test_scripts_get_their_texts_from_the_page(shop: Shop, visitor: Visitor, language: str) -> None:
    customer_speaks(shop, "cust_a", language)
    page = visitor.get(url_of(shop, "cust_a") + "/verify").text
    (given,) = re.findall(r'id="texts" hidden data-texts="([^"]*)"', page)
    texts = json.loads(unescape(given))
    if language == "en":
        assert texts == {}
        return
    for name in ("verify.js", "check.js"):
        for text in texts_in(static_files()[name].data.decode()):
            found = texts[text if isinstance(text, str) else text[0]]
            assert found != text
            assert isinstance(text, str) or set(found) == set(Locale.parse(language).plural_form.tags) | {"other"}
    assert texts["Because: {reason}."].endswith(": {reason}.")


def test_every_text_of_a_script_is_found(database_url: str) -> None:
    source = """t("One {a} \\"quoted\\".", { a }) + tn("{count} record", "{count} records", n) + not("x") + t("Two")"""
    assert texts_in(source) == ['One {a} "quoted".', ("{count} record", "{count} records"), "Two"]


# --- The choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_of_this_host_alone_and_says_nothing_but_the_language(shop: Shop, scheme: str) -> None:
    shop.record("cust_a", "1")
    visitor = Visitor(serve(shop, public_scheme=scheme))
    answer = choose(visitor, shop.hosts[0], "de", shop.link("cust_a").path)
    assert (answer.status_code, answer.location) == (303, shop.link("cust_a").path)
    (line,) = answer.headers.getlist("Set-Cookie")
    name = f"__Host-{COOKIE}" if scheme == "https" else COOKIE
    assert line.startswith(f"{name}=de; ")
    assert "Domain" not in line
    assert all(part in line for part in ("Path=/", "SameSite=Lax", "HttpOnly", "Max-Age=31536000"))
    assert ("Secure" in line) == (scheme == "https")


def test_choosing_leads_back_to_the_same_page(shop: Shop, visitor: Visitor) -> None:
    url = url_of(shop, "cust_a")
    visitor.unlock(url, shop.code("cust_a"))
    for path in (f"{shop.link('cust_a').path}/activity?period=2026-11&reference=a%26b", f"{shop.link('cust_a').path}"):
        page = visitor.get(f"{shop.hosts[0]}{path}").text
        (back,) = re.findall(r'name="back" value="([^"]+)"', page)
        answer = choose(visitor, shop.hosts[0], "es", back.replace("&amp;", "&"))
        assert answer.location == path
    page = visitor.unlock(url, "wrong!", "/c/x").text
    (back,) = re.findall(r'name="back" value="([^"]+)"', page)
    assert back.startswith(f"{shop.link('cust_a').path}/unlock?next=")


@pytest.mark.parametrize(
    "back", ["//evil.example/", "https://evil.example/", "/\\evil.example", "evil", "", "/a\r\nSet-Cookie: x=1", "/ä"]
)
def test_choosing_never_leads_to_another_site(shop: Shop, visitor: Visitor, back: str) -> None:
    answer = choose(visitor, shop.hosts[0], "de", back)
    assert (answer.status_code, answer.location) == (303, "/")
    assert len(answer.headers.getlist("Set-Cookie")) == 1


def test_only_a_page_of_ours_and_a_language_of_ours_is_taken(shop: Shop, visitor: Visitor) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        answer = choose(visitor, shop.hosts[0], "de", headers=headers)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (403, False)
    for language in ("xx", "", "de; Domain=example.com", "../de"):
        answer = choose(visitor, shop.hosts[0], language)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (400, False)
    assert visitor.get(f"{shop.hosts[0]}/language").status_code in (404, 405)
    headers = {"Cookie": f"{COOKIE}=../../etc"}
    assert language_of(visitor.get(url_of(shop, "cust_a"), headers=headers)) == "en"


# --- The pseudo-language ---------------------------------------------------------------------------------------------

DATA = re.compile(
    r"Acme(?! usage)|API credits|billing@acme\.example|usage\.acme\.localhost(?::8000)?|localhost/log/\w+"
    r"|(?:\d{1,2} )?(?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November"
    r"|December|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)(?: \d{4})?"
    r"|https?://\S+|/receipt/\S+|/c/\S+|UTC|chk_\w+|rec_\w+|0x\w+|api calls|ref-\w+|usage|eu|us|region|cust_\w"
    r"|[\w.-]+\.(?:csv|tlog-proof)"
    r"|English|Deutsch|Español|العربية"
)
"""What a page shows of its tenant, its record and its address: no text of ours."""


_FILE = re.compile(r"\.(?:pdf|json|csv|ics|tlog-proof)$|/export/file$")


def crawl(visitor: Visitor, start: str) -> Iterator[tuple[str, TestResponse]]:
    """Yield each page that is reached from ``start`` by links of its own host, once per path and set of parameters."""
    host = start.partition("/")[0]
    waiting, known = [f"/{start.partition('/')[2]}"], set()
    while waiting:
        path = waiting.pop(0)
        parts = urlsplit(path)
        name = (re.sub(r"[0-9a-f]{64}|[0-9]+", "#", parts.path), tuple(sorted(re.findall(r"(\w+)=", parts.query))))
        if name in known:
            continue
        known.add(name)
        page = visitor.get(f"{host}{path}")
        if page.status_code == 303:
            waiting.append(page.location)
        if page.status_code == 303 or page.mimetype != "text/html":
            continue
        yield path, page
        for link in re.findall(r'<a [^>]*href="([^"#]+)', page.text):
            target = urljoin(path, link.replace("&amp;", "&"))
            if target.startswith(("/c/", "/receipt/")) and not _FILE.search(target.partition("?")[0]):
                waiting.append(target)


def unnamed(page: str) -> list[str]:
    """Return what a page says outside of brackets, without its data."""
    return [text for text in left_out(page) if re.search(r"[^\W\d_]", DATA.sub("", text))]


@pytest.mark.parametrize("policy", ["TWO_TIER", "GATED", "OPEN"])
def test_no_text_of_a_page_is_left_in_english(shop: Shop, policy: str) -> None:
    language = speak_pseudo()
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"policy": policy, "language": language, "breakdowns": ["region"]})
    shop.clock.advance(days=-40)
    shop.record("cust_a", "12480.5", "3", reason="api calls")
    shop.clock.advance(days=40)
    shop.close()
    for amount, fields in (
        ("5", {"reference_id": "ref-1", "metadata": '{"region":"eu"}', "occurred_at": "2026-11-20T10:00:00Z"}),
        ("-36.25", {"adjusts_reference": "ref-1"}),
    ):
        shop.record("cust_a", amount, reason="api calls", **fields)
    shop.checkpoint()
    shop.checkpoint()
    visitor, url = Visitor(serve(shop)), url_of(shop, "cust_a")
    seen = dict(crawl(visitor, url))
    if policy != "OPEN":
        wrong = visitor.unlock(url, "AAAAAA")
        seen["wrong code"] = wrong
        assert visitor.unlock(url, shop.code("cust_a")).status_code == 303
    base = shop.link("cust_a").path
    for path in ("", "/activity?from=x&to=2026-99-99&period=x", "/compare?a=x&b=y", "/export", "/verify", "/unlock"):
        seen |= dict(crawl(visitor, f"{shop.hosts[0]}{base}{path}"))
    seen["unknown"] = visitor.get(f"{shop.hosts[0]}/c/unknown", headers={"Cookie": f"{COOKIE}={language}"})
    assert len(seen) >= 10
    assert {path: found for path, page in seen.items() if (found := unnamed(page.text))} == {}
    assert [path for path, page in seen.items() if "⟦" not in page.text] == []


def test_a_text_that_nobody_translated_would_be_found(database_url: str) -> None:
    assert left_out('<p>⟦Shöwn⟧ plain <b title="read out">⟦x⟧</b></p><script>no</script>') == ["plain", "read out"]
