from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import pytest

import shared_record.web
from shared_record.theming.loader import environment, load_themes
from shared_record.web.record import pages
from shared_record.web.record import samples as sample_pages
from shared_record.web.record.format import AmountCell

WEB = Path(shared_record.web.__file__).parent
CORE = WEB / "record" / "templates"
THEMES = load_themes([Path(__file__).parents[2] / "themes"]).sound
ENVIRONMENTS = {slug: environment(CORE, theme) for slug, theme in THEMES.items()}
PAGES = sample_pages.all_pages()
HOSTILE = "<script>alert(1)</script>\"'><img src=x>{{ 7*7 }}"
FOOTER = re.compile(
    r"<footer>\s*<p>Recorded by <bdi>Acme Cloud</bdi>\. Can be checked independently\.\s*"
    r"This page comes from <bdi>usage\.acme\.example</bdi>\.</p>"
)


def render(page: sample_pages.Page, theme: str = "default") -> str:
    return ENVIRONMENTS[theme].get_template(page.template).render(page=page, shell=page.shell)


class Outline(HTMLParser):
    """Counts what every page must have, and checks that tags nest."""

    VOID: ClassVar = {"meta", "link", "input", "br", "img"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_renders_in_every_theme(name, theme):
    page = PAGES[name]
    html = render(page, theme)
    outline = Outline(re.sub(r"<svg.*?</svg>", "", html, flags=re.S))  # a drawing has titles of its own
    assert [len(outline.all(tag)) for tag in ("html", "title", "h1", "main")] == [1, 1, 1, 1]
    assert outline.all("html")[0]["lang"] == "en"
    scripts = outline.all("script")
    assert len(scripts) == (2 if name.startswith("verify") else 0)
    assert all(one["nonce"] == "nonce-sample" and (one["src"] or "").startswith("/static/") for one in scripts)
    assert not outline.all("style")
    assert not [tag for tag, attributes in outline.tags if any(a == "style" or a[:2] == "on" for a in attributes)]
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for label in outline.all("label"):
        assert label["for"] in ids
    if page.shell is not None:
        assert FOOTER.search(html)


def test_every_template_has_a_sample() -> None:
    """What has none is neither checked in every theme nor seen by whoever writes one."""
    frames = {"base.html", "bare.html"}
    assert {page.template for page in PAGES.values()} == {path.name for path in CORE.glob("*.html")} - frames


@pytest.mark.parametrize("name", PAGES)
def test_post_forms_carry_the_csrf_token(name):
    html = render(PAGES[name])
    forms = re.findall(r'<form[^>]*method="post".*?</form>', html, re.S)
    # Anybody may choose a language, and that changes nothing but a cookie.
    forms = [form for form in forms if 'action="/language"' not in form]
    assert all('<input type="hidden" name="csrf_token" value="csrf-sample">' in form for form in forms)
    assert bool(forms) == (
        PAGES[name].shell is not None
        and (PAGES[name].shell.open_until is not None or name in ("unlock", "unlock_sent", "unlock_wrong"))
    )


def test_rows_look_the_same_in_all_three_states():
    for page in (sample_pages.landing(), sample_pages.activity()):
        (row, *_) = page.rows if isinstance(page, pages.Activity) else page.recent
        seen = set()
        for state in sample_pages.STATES:
            rows = (replace(row, state=state),)
            if isinstance(page, pages.Activity):
                html = render(replace(page, rows=rows))
            else:
                html = render(replace(page, recent=rows))
            assert html.count(f">{state}<") == 1
            seen.add(html.replace(f">{state}<", ">state<"))
        assert len(seen) == 1


@pytest.mark.parametrize("theme", THEMES)
def test_t03_hostile_text_stays_text(theme):
    shell = sample_pages.shell(vendor=HOSTILE, contact=pages.Contact(HOSTILE, "mailto:a@b.example"))
    row = replace(sample_pages.rows(1)[0], reference=HOSTILE, reason=HOSTILE, state=HOSTILE)
    unlock = sample_pages.unlock(wrong=True)
    hostile = (
        sample_pages.landing(shell=shell, total=pages.Total("1", HOSTILE), recent=(row,)),
        replace(sample_pages.activity(), shell=shell, rows=(row,), filter=pages.ActivityFilter(reference=HOSTILE)),
        replace(unlock, shell=shell, next=HOSTILE, errors=(pages.FormError(HOSTILE),)),
        replace(sample_pages.unlock(chooser=True), methods=(pages.Option(HOSTILE, HOSTILE, hint=HOSTILE),)),
        pages.Problem(sample_pages.ASSETS, HOSTILE, HOSTILE, HOSTILE, shell),
    )
    for page in hostile:
        html = render(page, theme)
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert "<img" not in html
        assert "49" not in re.sub(r"[^{}\d]", " ", html).split()
        Outline(html)


def test_a_contact_is_reached_by_harmless_schemes_only():
    with pytest.raises(ValueError, match="contact"):
        pages.Contact("Ask", "javascript:alert(1)")


def test_the_amount_cell_holds_the_plain_number():
    rows = (replace(sample_pages.rows(1)[0], amount=AmountCell("2.00", "0000")),)
    assert '<td role="cell" class="amount" data-pad="0000">2.00</td>' in render(sample_pages.landing(recent=rows))


def test_a_filter_that_is_not_understood_says_so_beside_its_field():
    html = render(PAGES["activity_wrong"])
    assert '<p class="error" id="from-error">Enter a day such as 2026-11-22.</p>' in html
    assert 'value="" aria-invalid="true" aria-describedby="from-error">' in html
    assert html.count("aria-invalid") == 1
    names = render(replace(PAGES["activity_wrong"], dimensions=("region",)))
    assert 'autocapitalize="none" aria-describedby="dimension-hint">' in names


def test_who_has_no_code_is_told_what_to_do():
    printed, sent = (" ".join(render(PAGES[name]).split()) for name in ("unlock", "unlock_sent"))
    assert "printed next to the link on each invoice. You can use another method now. <bdi>Acme Cloud</bdi>" in printed
    assert "Look in the folder for unwanted mail too. You can use another method now." in sent
    assert "I do not have the code" not in sent


def test_what_the_vendor_wrote_is_not_set_in_capitals():
    """The style begins lines of our own with a capital; a reference or a reason stays as it came."""
    html = render(PAGES["record"])
    assert '<p class="given"><bdi>INV-20389</bdi></p>' in html
    assert '<p class="given" dir="auto">Reversal of INV-20388</p>' in html


def test_landing_wording():
    html = " ".join(re.sub(r"<[^>]+>", "", render(sample_pages.landing())).split())
    for text in (
        "Acme Cloud usage record",
        "Recorded this period 12,480.50 API credits 1 to 30 November 2026 (UTC). As of 22 November 2026, 09:41 UTC. "
        "318 records this cycle Verified through 21 November 2026 What this means",
        "Later records are included in the next one, planned for 23 November 2026, 00:10 UTC.",
        "These open with the access code on your invoice, or another method.",
    ):
        assert text in html


def test_landing_by_session_and_policy():
    assert "These open with" not in render(PAGES["landing_open"])
    assert 'Open until <time datetime="2026-11-22T17:41:00Z">17:41 UTC</time> in this browser.' in render(
        PAGES["landing_open"]
    )
    everyone = render(PAGES["landing_all"])
    assert "Anyone with this link can see the whole record." in everyone
    assert "Test data" in everyone
    assert "These open with" not in everyone


def test_landing_without_records_or_amounts():
    empty = render(PAGES["landing_empty"])
    assert "Nothing recorded yet this period." in empty
    assert "No checkpoint yet." in empty
    assert "<table" not in empty
    hidden = tuple(replace(row, amount=None) for row in sample_pages.rows(5))
    without = render(sample_pages.landing(recent=hidden))
    assert "<table" in without
    assert 'class="amount"' not in without


def test_outer_pages_show_no_references():
    rows = sample_pages.rows(5, inner=True)
    assert "INV-" not in render(sample_pages.landing(recent=rows))


def test_a_gated_landing_tells_no_figures():
    html = render(PAGES["gated"])
    assert "This record opens with a code or sign-in." in html
    assert sample_pages.BASE + "/unlock" in html
    assert "/periods" not in html
    assert not re.search(r"\d", html.split("<main")[1].replace(sample_pages.BASE, "").replace("h1", ""))


def test_wrong_answers_are_told_at_the_top_and_at_the_field():
    html = render(PAGES["unlock_wrong"])
    assert "<title>Error: " in html
    assert '<a href="#field-code">That code does not match this record.' in html
    assert 'aria-describedby="field-code-hint field-code-error" aria-invalid="true"' in html


def test_not_found_is_nobodys_page():
    bodies = {render(PAGES["not_found"], theme) for theme in THEMES}
    assert len(bodies) == 1
    (html,) = bodies
    assert "Acme" not in html
    assert "theme" not in html
    assert "Use the link on your most recent invoice, or contact the vendor that sent it." in html


def test_static_files_are_first_party():
    css = (WEB / "static" / "record.css").read_text()
    assert "url(" not in css
    assert "@import" not in css
    assert "!important" not in css
    assert (WEB / "static" / "favicon.svg").read_text().startswith("<svg")
