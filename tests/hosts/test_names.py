"""Host names: the corpus of security.md H01 to H07, and properties."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared_record.errors import InvalidInputError
from shared_record.hosts.names import HostError, claim_host, normalise_host

PORTS = frozenset({443, 8000})
LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])

ACCEPTED = [
    ("usage.acme.example", "usage.acme.example"),
    ("localhost", "localhost"),
    ("ACME.Example", "acme.example"),
    (b"ACME.Example", "acme.example"),
    ("acme.example:443", "acme.example"),
    ("acme.example:8000", "acme.example"),
    ("xn--fa-hia.example", "xn--fa-hia.example"),
    ("xn--not-punycode-at-all.example", "xn--not-punycode-at-all.example"),
    ("a-b--c.example", "a-b--c.example"),
    ("1.example", "1.example"),
    ("127.0.0.1.example", "127.0.0.1.example"),
    ("0x7f.example", "0x7f.example"),
    ("1e100.net", "1e100.net"),
    ("a.1b", "a.1b"),
    ("a.0xg", "a.0xg"),
    ("a" * 63, "a" * 63),
    (LONGEST, LONGEST),
]
MISDIRECTED = [
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0.0.0x1",
    "0177.0.0.1",
    "999.999.999.999",
    "1.2.3.4.5",
    "acme.example.1",
    "0x",
    "[::1]",
    "[::1]:443",
    "[::ffff:127.0.0.1]",
    "[2001:DB8::1]",
    "acme.example:80",
    "acme.example:8443",
    "acme.example:65535",
]
MALFORMED = [
    "",
    b"",
    " ",
    ".",
    ":",
    ":443",
    "acme.example.",
    "acme.example.:443",
    ".acme.example",
    "acme..example",
    "127.0.0.1.",
    "-acme.example",
    "acme-.example",
    "ac_me.example",
    "acme.example,acme.example",
    "acme.example, evil.example",
    "acme.example evil.example",
    " acme.example",
    "acme.example ",
    "acme.example\n",
    "acme.example\r\nX: y",
    "acme\t.example",
    "acme.example\0",
    "acme\x7f.example",
    "user@acme.example",
    "user:pass@acme.example",
    "acme.example/",
    "http://acme.example",
    "acme.example?x",
    "acme.example#x",
    "acme\\.example",
    "acme%2eexample",
    "*.example",
    "acme.example:",
    "acme.example:abc",
    "acme.example:0",
    "acme.example:0443",
    "acme.example:65536",
    "acme.example:99999",
    "acme.example:-1",
    "acme.example:+443",
    "acme.example:443:443",
    "acme.example:443\n",
    "acme.example:４４３",
    "acme.example: 443",
    "[::1",
    "::1",
    "[]",
    "[::1]x",
    "[::1]443",
    "[::1]:",
    "[::1]:99999",
    "[fe80::1%25eth0]",
    "[v1.x]",
    "[acme.example]",
    "faß.example",
    "faß.example".encode(),
    "faß.example".encode("latin-1"),
    "аcme.example",
    "acme。example",
    "a" * 64,
    "e" + LONGEST,
]


@pytest.mark.parametrize(("raw", "name"), ACCEPTED)
def test_h05_h06_a_host_is_lower_case_without_its_port(raw: str | bytes, name: str) -> None:
    assert normalise_host(raw, PORTS) == name


@pytest.mark.parametrize("raw", MISDIRECTED)
def test_h01_h05_addresses_and_other_ports_are_misdirected(raw: str) -> None:
    with pytest.raises(HostError) as caught:
        normalise_host(raw, PORTS)
    assert caught.value.kind == "misdirected"


@pytest.mark.parametrize("raw", MALFORMED)
def test_h02_h05_h06_h07_anything_else_is_malformed(raw: str | bytes) -> None:
    with pytest.raises(HostError) as caught:
        normalise_host(raw, PORTS)
    assert caught.value.kind == "malformed"


label = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?", fullmatch=True)
last_label = st.from_regex(r"[A-Za-z]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?", fullmatch=True)
names = st.builds(lambda labels, last: ".".join([*labels, last]), st.lists(label, max_size=4), last_label)


@given(names)
def test_h06_normalising_twice_is_normalising_once(raw: str) -> None:
    name = normalise_host(raw, ())
    assert name == raw.lower() == normalise_host(name, ()) == normalise_host(raw.encode(), ())


@given(names, st.integers(-1, 100_000))
def test_h05_a_port_is_stripped_misdirected_or_malformed(raw: str, port: int) -> None:
    try:
        outcome = normalise_host(f"{raw}:{port}", PORTS)
    except HostError as error:
        outcome = error.kind
    expected = raw.lower() if port in PORTS else "misdirected" if 1 <= port <= 65535 else "malformed"
    assert outcome == expected


@given(st.text(max_size=300) | st.binary(max_size=300) | st.text("aA1.-:[]x0%", max_size=30))
def test_h02_whatever_comes_is_a_plain_name_or_a_host_error(raw: str | bytes) -> None:
    try:
        name = normalise_host(raw, PORTS)
    except HostError:
        return
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert normalise_host(name, ()) == name


def test_an_error_never_quotes_its_input_and_is_invalid_input() -> None:
    with pytest.raises(InvalidInputError) as caught:
        normalise_host("se_cret.example", ())
    assert "se_cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        ("Usage.ACME.example", ("usage.acme.example", "usage.acme.example")),
        ("faß.example", ("xn--fa-hia.example", "faß.example")),
        ("xn--fa-hia.example", ("xn--fa-hia.example", "faß.example")),
        ("fass.example", ("fass.example", "fass.example")),
        ("BÜCHER.example", ("xn--bcher-kva.example", "bücher.example")),
        ("bu\N{COMBINING DIAERESIS}cher.example", ("xn--bcher-kva.example", "bücher.example")),
        ("βόλος.example", ("xn--nxasmm1c.example", "βόλος.example")),
        ("例え。テスト", ("xn--r8jz45g.xn--zckzah", "例え.テスト")),
        ("ａｃｍｅ.example", ("acme.example", "acme.example")),
        ("ac\N{SOFT HYPHEN}me.example", ("acme.example", "acme.example")),
        ("क्\N{ZERO WIDTH JOINER}ष.example", ("xn--11b2ezcw70k.example", "क्\N{ZERO WIDTH JOINER}ष.example")),
    ],
)
def test_h07_claims_follow_idna_2008_without_transition(text: str, claimed: tuple[str, str]) -> None:
    assert claim_host(text) == claimed


def test_h07_the_standard_codec_is_not_what_claims_use() -> None:
    assert "faß.example".encode("idna") == b"fass.example"
    assert claim_host("faß.example")[0] != claim_host("fass.example")[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " acme.example",
        "acme.example.",
        "acme.example。",
        "acme.example:443",
        "ac_me.example",
        "https://acme.example",
        "＠acme.example",
        "acme／evil.example",
        "１２７.0.0.1",
        "127。1",
        "[::1]",
        "☃.example",
        "ab--cd.example",
        "xn--.example",
        "xn--a.example",
        "xn---bbk.example",
        "xn--FASS-.example",
        "a\N{ZERO WIDTH JOINER}b.example",
        "\N{COMBINING DIAERESIS}a.example",
        "אa.example",
        "\ud800.example",
        "ü" * 64,
        "a." * 5_000,
    ],
)
def test_h07_claims_that_are_no_host_name_are_refused(text: str) -> None:
    with pytest.raises(HostError):
        claim_host(text)


@pytest.mark.parametrize("text", ["*", "*.acme.example", "*acme.example", ".acme.example", "acme.*", "acme..example"])
def test_d04_a_claim_is_one_exact_name(text: str) -> None:
    with pytest.raises(HostError):
        claim_host(text)


@pytest.mark.parametrize("raw", [raw for raw in MALFORMED + MISDIRECTED if isinstance(raw, str) and raw.isascii()])
def test_no_claim_is_accepted_that_no_request_could_name(raw: str) -> None:
    with pytest.raises(HostError):
        claim_host(raw)


@settings(max_examples=200)
@given(names | st.text(max_size=40) | st.text("aßüşйλ例.-", min_size=1, max_size=20))
@example("İ.example")
def test_h07_both_forms_of_a_claim_claim_the_same_again(text: str) -> None:
    try:
        name, display = claim_host(text)
    except HostError:
        return
    assert normalise_host(name, ()) == name
    assert claim_host(name) == claim_host(display) == (name, display)
