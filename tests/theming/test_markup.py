from __future__ import annotations

import pytest

from shared_record.theming.markup import check_partial
from theming.conftest import THEMES

FOOTER_GONE = [
    "<!--",
    "<div hidden>",
    "</main><div hidden>",
    "<template>{{ x }}</template>",
    "<textarea>",
    "{% if no %}</div>{% endif %}<div hidden>",
    "<div hidden>{% if no %}</div>{% endif %}",
    '<div {% if no %}title="{% endif %}hidden></div>',
    "<div hidden {% if no %}>{% endif %}</div>",
    "<div",
    "<div/>",
    '{{ _("<div hidden>") }}',
    "{{ _(shell.vendor) }}",
    '{{ _("%c" % 60) }}',
    "{% set text = _ %}{{ text(shell.vendor) }}",
    '{{ "<div hidden>" | safe }}',
    '{{ "<div hidden>".__class__ }}',
    '{{ "{}".format(1) }}',
    "{% filter safe %}<p>x</p>{% endfilter %}",
    "{% extends 'base.html' %}",
    "{% trans %}<div hidden>{% endtrans %}",
    '{% from "partials/cells.html" import day %}{{ cells.day(x) }}',
]
ACTIVE = [
    "<script>alert(1)</script>",
    "<style>footer { display: none }</style>",
    '<p style="position:fixed">x</p>',
    '<p onclick="alert(1)">x</p>',
    "<p {{ shell.vendor }}>x</p>",
    "<{{ shell.vendor }}>x</p>",
    "<a href={{ shell.vendor }}>x</a>",
    "<a href='{{ shell.vendor }}'>x</a>",
    '<iframe srcdoc="x"></iframe>',
    '<link rel="stylesheet" href="/x.css">',
    "<svg><style>*{}</style></svg>",
    '<meta http-equiv="refresh" content="0">',
]


@pytest.mark.parametrize("source", FOOTER_GONE)
def test_t04_nothing_can_swallow_what_follows_a_partial(source: str) -> None:
    assert check_partial(source)


@pytest.mark.parametrize("source", ACTIVE)
def test_t01_t03_styles_scripts_and_data_as_markup_are_refused(source: str) -> None:
    assert check_partial(source)


@pytest.mark.parametrize(
    "source",
    [
        '{% if at_home %}<h1>{{ shell.vendor }}</h1>{% else %}<p><a href="{{ shell.base }}">x</a></p>{% endif %}',
        '<p><a href="{{ shell.base }}"{% if at_home %} aria-current="page"{% endif %}>x</a><br></p>',
        '{% from "partials/cells.html" import name %}<p>{{ _("By %(x)s", x=name(shell.vendor)) }}</p>',
        '{% for one in page.rows %}<li class="row">{{ loop.index }}{{ one.text | upper }}</li>{% endfor %}',
        '<img src="{{ theme_file("mark.png") }}" width="10" height="10" alt="">',
        "{% macro line(x) %}<p>{{ x }}</p>{% endmacro %}{{ line(shell.vendor) }}",
        "{% trans count=n %}one record{% pluralize %}{{ count }} records{% endtrans %}",
        '{# a comment #}{% include "partials/logo.html" %}',
    ],
)
def test_what_a_masthead_needs_is_allowed(source: str) -> None:
    assert check_partial(source) == []


def test_a_finding_names_what_to_write_instead() -> None:
    assert check_partial("{% if %}") == [
        ("line 1: Expected an expression, got 'end of statement block'", "a Jinja template")
    ]
    assert check_partial("<div>") == [("<div> without its end", "</div> in the same branch")]
    assert check_partial("<!-- note -->") == [("an HTML comment note", "a Jinja comment {# … #}")]


def test_the_partials_of_our_own_themes_pass() -> None:
    found = {path: check_partial(path.read_text()) for path in THEMES.rglob("*.html")}
    assert found
    assert [one for findings in found.values() for one in findings] == []
