"""Every mistake in a tenant file is named with its line and with what to write instead."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from shared_record.manifest.check import Checked, CheckedHost, Known, check_file, check_files, find_files
from shared_record.manifest.lines import key_lines, line_of
from shared_record.manifest.problems import Problem
from shared_record.plugin import MethodSettings

REPOSITORY = Path(__file__).parents[2]


class Code(MethodSettings):
    """Settings of a method, as a plugin declares them."""

    digits: int = Field(6, ge=6, le=12)
    label: Literal["code", "pin"] = "code"


KNOWN = Known(
    themes=["broadsheet", "default", "nocturne"],
    methods={"access_code": Code, "email_code": MethodSettings},
    formats=["csv", "json"],
    platform_hosts=["app.example.com"],
    anchors={"notary": Code},
)
VKEY = "witness.example/w1+e75f6532+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
WITNESS = f'[[witnesses]]\nurl = "https://witness.example/"\nvkey = "{VKEY}"\n'
ANCHOR = '[[anchors]]\nanchor = "notary"\nsettings = { digits = 8 }\n'
WHOLE = """\
name = "Acme"
hosts = [
  "usage.acme.example",            # primary
  { host = "old.acme.example", role = "alias" },
]
theme = "nocturne"
policy = "OPEN"
unit = "kWh"
zone = "Europe/Helsinki"
contact = "billing@acme.example"
hide_amounts = true
export_formats = ["json"]
checkpoint_seconds = 30
retention_days = 30

[[methods]]
method = "access_code"
[methods.settings]
digits = 8

[[methods]]
method = "email_code"
"""
TEXT_WANTED = "Put it in double quotes."


@pytest.fixture
def check(tmp_path: Path):
    def run(text: str | bytes, name: str = "acme.toml") -> Checked | list[Problem]:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return check_file(path, KNOWN)

    return run


def test_a_whole_file_is_read(check) -> None:
    found = check(WHOLE)
    assert isinstance(found, Checked), found
    assert found.slug == "acme"
    assert found.settings == {
        "name": "Acme",
        "theme": "nocturne",
        "policy": "OPEN",
        "unit": "kWh",
        "zone": "Europe/Helsinki",
        "contact": "billing@acme.example",
        "hide_amounts": True,
        "export_formats": ["json"],
        "checkpoint_seconds": 30,
        "retention_days": 30,
    }
    assert found.hosts == (
        CheckedHost("usage.acme.example", "usage.acme.example", "serving", True, 3),
        CheckedHost("old.acme.example", "old.acme.example", "alias", False, 4),
    )
    assert found.methods == (("access_code", {"digits": 8}), ("email_code", {}))


def test_a_name_is_enough_and_nothing_else_is_managed(check) -> None:
    found = check('name = "Acme"')
    assert isinstance(found, Checked)
    assert (found.settings, found.hosts, found.methods) == ({"name": "Acme"}, (), ())


def test_witnesses_and_anchors_are_read(check) -> None:
    found = check(f'name = "A"\nwitness_quorum = 1\nanchor_seconds = 3600\n{WITNESS}{ANCHOR}')
    assert isinstance(found, Checked), found
    assert found.settings == {
        "name": "A",
        "witness_quorum": 1,
        "anchor_seconds": 3600,
        "witnesses": [{"url": "https://witness.example/", "vkey": VKEY}],
        "anchors": [{"anchor": "notary", "settings": {"digits": 8}}],
    }


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (f"witness_quorum = 2\n{WITNESS}", 2, "witness_quorum", "more witnesses than the 1 there are"),
        (WITNESS.replace("https", "ftp"), 3, "witnesses[0].url", "is no address"),
        (WITNESS.replace("e75f", "e75e"), 4, "witnesses[0].vkey", "does not belong to this key"),
        (f'{WITNESS}vkay = ""\n', 5, "witnesses[0].vkay", "no such key"),
        (WITNESS + WITNESS, 7, "witnesses[1].vkey", '"witness.example/w1" is named twice'),
        (ANCHOR.replace("notary", "notarry"), 3, "anchors[0].anchor", 'no checkpoint anchor "notarry"'),
        (ANCHOR + ANCHOR, 6, "anchors[1].anchor", "named twice"),
        (ANCHOR.replace("8", "99"), 4, "anchors[0].settings.digits", "less than or equal to 12"),
        (ANCHOR.replace("digits", "token"), 4, "anchors[0].settings.token", "no secrets"),
        ("anchor_seconds = 1\n", 2, "anchor_seconds", "greater than or equal to 60"),
    ],
)
def test_mistakes_in_witnesses_and_anchors(check, text: str, line: int, key: str, message: str) -> None:
    found = check(f'name = "A"\n{text}')
    assert isinstance(found, list)
    assert [(one.line, one.key) for one in found] == [(line, key)]
    assert message in found[0].message


def test_an_international_host_is_kept_in_both_forms(check) -> None:
    found = check('name = "A"\nhosts = ["Bücher.example", {host = "x.example", primary = true}]')
    assert isinstance(found, Checked)
    assert [(h.host, h.display, h.primary) for h in found.hosts] == [
        ("xn--bcher-kva.example", "bücher.example", False),
        ("x.example", "x.example", True),
    ]


# text, line, key, message, suggestion
BROKEN = [
    ('name = "A"\n\ntheme = "nocturn"', 3, "theme", 'there is no theme "nocturn".', 'Did you mean "nocturne"?'),
    (
        'name = "A"\ntheme = "zzz"',
        2,
        "theme",
        'there is no theme "zzz".',
        "Known themes: broadsheet, default, nocturne.",
    ),
    ('name = "A"\npolcy = "OPEN"', 2, "polcy", "there is no such key.", 'Did you mean "policy"?'),
    ('name = "A"\npolicy = "two tier"', 2, "policy", '"two tier" is none of its values.', 'Did you mean "TWO_TIER"?'),
    ('name = "A"\npolicy = 2', 2, "policy", "must be a text.", "Write one of: TWO_TIER, GATED, OPEN."),
    ('name = "A"\nretention_days = 14', 2, "retention_days", "is none of its values.", "Write one of: 7, 30, 90."),
    ('name = "A"\nretention_days = true', 2, "retention_days", "is none of its values.", "Write one of: 7, 30, 90."),
    (
        'name = "A"\nzone = "europe/helsinky"',
        2,
        "zone",
        'there is no time zone "europe/helsinky".',
        'Did you mean "Europe/Helsinki"?',
    ),
    ('theme = "default"', 1, "name", "is required and missing.", 'Add name = "Acme".'),
    ("name = 7", 1, "name", "must be a text.", TEXT_WANTED),
    ('name = ""', 1, "name", "is empty.", "Write at least one character, or remove the line."),
    (f'name = "A"\nunit = "{"x" * 65}"', 2, "unit", "is longer than 64 characters.", "Shorten it."),
    (
        'name = "A\\nB"',
        1,
        "name",
        "holds a character that is not allowed.",
        "Write one line without control characters.",
    ),
    (
        'name = "A"\nlanguage = "fr"',
        2,
        "language",
        '"fr" is none of its values.',
        "Known values: ar, de, en, es.",
    ),
    (
        'name = "A"\nhide_amounts = "yes"',
        2,
        "hide_amounts",
        "must be true or false.",
        "Write true or false, without quotes.",
    ),
    (
        'name = "A"\ncheckpoint_seconds = 0',
        2,
        "checkpoint_seconds",
        "should be greater than or equal to 1.",
        "Change the value, or remove the line to use the default.",
    ),
    (
        'name = "A"\ncheckpoint_seconds = "10"',
        2,
        "checkpoint_seconds",
        "must be a whole number.",
        "Write digits only, without quotes.",
    ),
    (
        'name = "A"\nexport_formats = [\n  "csv",\n  "jsn",\n]',
        4,
        "export_formats[1]",
        'there is no export format "jsn".',
        'Did you mean "json"?',
    ),
    ('name = "A"\nexport_formats = "csv"', 2, "export_formats", "must be a list.", "Put it in square brackets."),
    (
        'name = "A"\nexport_formats = ["csv", "csv"]',
        2,
        "export_formats[1]",
        '"csv" is named twice.',
        "Keep one of the two.",
    ),
    (
        'name = "A"\nhosts = [\n  "https://usage.acme.example/",\n]',
        3,
        "hosts[0].host",
        '"https://usage.acme.example/" is not a usable host name: not valid under IDNA 2008.',
        'Did you mean "usage.acme.example"?',
    ),
    (
        'name = "A"\nhosts = ["127.0.0.1"]',
        2,
        "hosts[0].host",
        '"127.0.0.1" is not a usable host name: an IP address.',
        'Write a bare host name, e.g. "usage.acme.example".',
    ),
    (
        'name = "A"\nhosts = ["app.example.com"]',
        2,
        "hosts[0].host",
        '"app.example.com" is a host of the platform.',
        "Name a host of the tenant's own.",
    ),
    (
        'name = "A"\nhosts = [\n  "a.example",\n  "A.example",\n]',
        4,
        "hosts[1]",
        '"a.example" is named twice, first in line 3.',
        "Keep one of the two.",
    ),
    (
        'name = "A"\nhosts = [5]',
        2,
        "hosts[0]",
        "must be a host name or a table.",
        'Write "usage.acme.example", or { host = "usage.acme.example" }.',
    ),
    (
        'name = "A"\n[[hosts]]\nhost = "a.example"\nprimary = true\n[[hosts]]\nhost = "b.example"\nprimary = true',
        5,
        "hosts[1]",
        "there is a second primary host.",
        "Set primary = true for one host only.",
    ),
    (
        'name = "A"\n[[hosts]]\nhost = "a.example"\nrole = "alias"',
        2,
        "hosts",
        "no host serves, so an alias leads nowhere.",
        'Give one of them role = "serving".',
    ),
    (
        'name = "A"\n[[hosts]]\nhost = "a.example"\n[[hosts]]\nhost = "b.example"\nrole = "alias"\nprimary = true',
        7,
        "hosts[1].primary",
        "an alias cannot be the primary host.",
        'Take out role, or write "serving".',
    ),
    (
        'name = "A"\n[[hosts]]\nhost = "a.example"\nrole = "serve"',
        4,
        "hosts[0].role",
        '"serve" is none of its values.',
        'Did you mean "serving"?',
    ),
    (
        'name = "A"\nhosts = [{ hots = "a.example", host = "a.example" }]',
        2,
        "hosts[0].hots",
        "there is no such key.",
        'Did you mean "host"?',
    ),
    (
        'name = "A"\n[[methods]]\nmethod = "acess_code"',
        3,
        "methods[0].method",
        'there is no step-up method "acess_code".',
        'Did you mean "access_code"?',
    ),
    (
        'name = "A"\n[[methods]]\nsettings = {}',
        2,
        "methods[0].method",
        "is required and missing.",
        'Add method = "access_code".',
    ),
    (
        'name = "A"\n[[methods]]\nmethod = "access_code"\n[methods.settings]\n# length\ndigts = 8',
        6,
        "methods[0].settings.digts",
        "there is no such key.",
        'Did you mean "digits"?',
    ),
    (
        'name = "A"\n[[methods]]\nmethod = "access_code"\n[methods.settings]\nlabel = "pim"',
        5,
        "methods[0].settings.label",
        '"pim" is none of its values.',
        'Did you mean "pin"?',
    ),
    (
        'name = "A"\n[[methods]]\nmethod = "email_code"\n[[methods]]\nmethod = "email_code"',
        5,
        "methods[1].method",
        '"email_code" is named twice.',
        "Keep one of the two.",
    ),
    (
        'name = "A"\n[[methods]]\nmethod = "email_code"\nsettings.password = "hunter2"',
        4,
        "methods[0].settings.password",
        "there are no secrets in these files.",
        "Remove the line; if this file was ever shared, replace the secret too.",
    ),
    (
        'name = "A"\nAPI_KEY = "x"',
        2,
        "API_KEY",
        "there are no secrets in these files.",
        "Remove the line; if this file was ever shared, replace the secret too.",
    ),
    (
        'name = "A"\ntheme = default\n',
        2,
        "",
        "is not TOML: invalid value.",
        "Put texts in double quotes; write true or false and numbers without quotes.",
    ),
    (
        'name = "A"\n\nhosts = [\n  "a.example"\n',
        4,
        "",
        "is not TOML: unclosed array.",
        "Look for a quote or bracket that is not closed.",
    ),
    ('name = "A"\nname = "B"', 2, "", "is not TOML: cannot overwrite a value.", "Keep one of the two."),
    (
        'name "A"',
        1,
        "",
        "is not TOML: expected '=' after a key in a key/value pair.",
        'A line reads: key = "value".',
    ),
    (b'name = "A"\nunit = "\xff"', 2, "", "is not UTF-8.", "Save the file as UTF-8."),
]


@pytest.mark.parametrize(("text", "line", "key", "message", "suggestion"), BROKEN)
def test_each_mistake_is_named(check, tmp_path, text, line, key, message, suggestion) -> None:
    problems = check(text)
    assert problems == [Problem(str(tmp_path / "acme.toml"), line, key, message, suggestion)]


def test_all_problems_are_shown_at_once_in_the_order_of_the_file(check) -> None:
    problems = check('theme = "x"\nname = 1\n\nhosts = ["a b", "ok.example"]\npolcy = "OPEN"\nzone = "Mars"')
    assert [problem.line for problem in problems] == [1, 2, 4, 5, 6]


def test_a_problem_reads_as_compilers_print_them() -> None:
    problem = Problem("tenants/acme.toml", 12, "theme", 'there is no theme "nocturn".', 'Did you mean "nocturne"?')
    assert str(problem) == 'tenants/acme.toml:12: theme: there is no theme "nocturn". Did you mean "nocturne"?'


@pytest.mark.parametrize(
    "name", ["client_secret", "password", "accessToken", "X-Api-Key", "smtp_passwords", "private_key", "token"]
)
def test_keys_named_like_secrets_are_refused(check, name: str) -> None:
    problems = check(f'name = "A"\n"{name}" = "x"')
    assert [problem.message for problem in problems] == ["there are no secrets in these files."]


@pytest.mark.parametrize("name", ["token_url", "secret_ref", "monkey", "tokenizer"])
def test_keys_that_only_sound_so_are_not(check, name: str) -> None:
    problems = check(f'name = "A"\n{name} = "x"')
    assert [problem.message for problem in problems] == ["there is no such key."]


@pytest.mark.parametrize(
    "name", ["Acme.toml", "a.toml", "9lives.toml", "acme_.toml", "acme~test.toml", f"a{'b' * 58}.toml"]
)
def test_a_file_name_must_be_a_slug(check, name: str) -> None:
    (problem,) = check('name = "A"', name)
    assert problem.line == 0
    assert "cannot be a tenant's slug" in problem.message


def test_d06_a_host_belongs_to_one_file(tmp_path: Path) -> None:
    for slug in ("acme", "other"):
        (tmp_path / f"{slug}.toml").write_text(f'name = "{slug}"\nhosts = [\n"{slug}.example",\n"shared.example"]')
    files, missing = find_files([tmp_path, tmp_path / "acme.toml"])
    assert missing == []
    checked, problems = check_files(files, KNOWN)
    assert [one.slug for one in checked] == ["acme", "other"]
    first = tmp_path / "acme.toml"
    assert [(p.file, p.line, p.message) for p in problems] == [
        (str(tmp_path / "other.toml"), 4, f'"shared.example" is also a host of {first}:4.')
    ]


def test_a_tenant_belongs_to_one_file(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "acme.toml").write_text('name = "A"\nhosts = ["a.example"]')
    files, _ = find_files([tmp_path / "one", tmp_path / "two"])
    _, problems = check_files(files, KNOWN)
    assert [problem.suggestion for problem in problems] == ["Keep one file."]


def test_paths_that_lead_nowhere_are_problems(tmp_path: Path) -> None:
    files, problems = find_files([tmp_path, tmp_path / "absent.toml"])
    assert files == []
    assert [problem.message for problem in problems] == ["holds no tenant file.", "there is no such file or folder."]


def test_the_files_of_this_repository_are_right() -> None:
    files, _ = find_files([REPOSITORY / "tenants"])
    known = Known(
        ["default", "nocturne", "broadsheet"],
        {"access_code": MethodSettings, "email_otp": MethodSettings},
        ["bundle", "csv", "json", "jsonl", "pdf", "xlsx"],
    )
    checked, problems = check_files(files, known)
    assert problems == []
    assert [one.settings["policy"] for one in checked] == ["TWO_TIER", "GATED", "OPEN"]


LINED = '''\
# comment [x]
name = "A # [b]" # y
"quo.ted" = 'z\\'
a.b . "c d" = 1
multi = """
x = 1
\\""" "quoted"""""
raw = \'\'\'
[no]\'\'\'
hosts = [ # ]
  "one",
  {host = "two", role = "alias"}, # ,
  [1, 2],
]
when = 1979-05-27T07:32:00Z
[t.u]
v = true
[[methods]]
method = "x"
[methods.settings]
y = 1
[[methods]]
[[methods.sub]]
k = {}
e = []
'''


def test_every_key_has_its_line() -> None:
    lines = key_lines(LINED)
    assert {path: lines[path] for path in _paths(tomllib.loads(LINED))} == {
        ("name",): 2,
        ("quo.ted",): 3,
        ("a",): 4,
        ("a", "b"): 4,
        ("a", "b", "c d"): 4,
        ("multi",): 5,
        ("raw",): 8,
        ("hosts",): 10,
        ("hosts", 0): 11,
        ("hosts", 1): 12,
        ("hosts", 1, "host"): 12,
        ("hosts", 1, "role"): 12,
        ("hosts", 2): 13,
        ("hosts", 2, 0): 13,
        ("hosts", 2, 1): 13,
        ("when",): 15,
        ("t",): 16,
        ("t", "u"): 16,
        ("t", "u", "v"): 17,
        ("methods",): 18,
        ("methods", 0): 18,
        ("methods", 0, "method"): 19,
        ("methods", 0, "settings"): 20,
        ("methods", 0, "settings", "y"): 21,
        ("methods", 1): 22,
        ("methods", 1, "sub"): 23,
        ("methods", 1, "sub", 0): 23,
        ("methods", 1, "sub", 0, "k"): 24,
        ("methods", 1, "sub", 0, "e"): 25,
    }
    assert line_of(lines, ("hosts", 1, "primary")) == 12
    assert line_of(lines, ("absent",)) == 1


def _paths(value: object, path: tuple[str | int, ...] = ()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))
