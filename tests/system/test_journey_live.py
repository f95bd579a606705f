"""The main job over real sockets, while server and worker run: record, open, step up, check; and what must not work."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from http.client import HTTPMessage
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo_server import Answer, Browser, Demo, Person, wait_for
from shared_record.cli.seed import PROFILES
from shared_record.clock import period_of

pytestmark = pytest.mark.xdist_group("demo")

STATES = ["QUEUED", "PROCESSING", "VERIFIED"]
WORDS = {"recording", "recorded", "verified"}


# --- Recording and reading -------------------------------------------------------------------------------------------


def test_a_delta_is_on_the_page_at_once_and_becomes_verified(demo: Demo) -> None:
    person = demo.new_customer("acme", "live-states", "41")
    answer = demo.emit("acme", person.customer_id, "1.125", referenceId="live-1")
    page = Browser(demo).get(person.url)
    for text in ("Recorded this period", "42.125", "2 records this cycle", "API credits"):
        assert text in page.text
    assert "Set-Cookie" not in page.headers
    assert "system test" not in page.text  # a reason belongs to the inner tier
    seen = demo.wait_verified("acme", answer["recordId"])
    assert seen == [state for state in STATES if state in seen]
    again = demo.emit("acme", person.customer_id, "1.125", referenceId="live-1")
    assert again == answer
    assert re.search(r"Verified through\s+<time", Browser(demo).get(person.url).text)


def test_states_are_passed_in_order_and_a_row_of_each_looks_the_same(demo: Demo) -> None:
    person = demo.new_customer("copperline", "live-rows")
    shapes: dict[str, set[str]] = {}

    def all_three() -> bool:
        demo.emit("copperline", person.customer_id, "2")
        table = Browser(demo).get(person.url).text.partition("Recent records")[2]
        for row in re.findall(r"<tr.*?</tr>", table.partition("<tbody")[2], re.DOTALL):
            [word] = WORDS & set(re.findall(r">(\w+)<", row))
            shape = re.sub(r'datetime="[^"]+"', "", re.sub(r">[^<]+<", "><", row))
            shapes.setdefault(word, set()).add(shape)
        return set(shapes) == WORDS

    wait_for("rows of all three states", all_three, 40)
    assert len(set.union(*shapes.values())) == 1


# --- Step-up and what ends it ----------------------------------------------------------------------------------------


def test_each_event_of_the_command_line_ends_live_sessions_at_once(demo: Demo) -> None:
    person = demo.new_customer("acme", "live-events")
    of = (person.customer_id, "--tenant", "acme")
    browsers = _unlocked(demo, person)

    fresh = demo.cli_json("code", "rotate", *of)["access_code"]
    _have_ended(browsers, person.url, 303)
    assert Browser(demo).unlock(person.url, person.code).status == 403
    person = Person(person.customer_id, person.url, fresh)

    for policy in ("GATED", "INHERIT"):
        browsers = _unlocked(demo, person)
        assert demo.cli_json("policy", "set", policy, "--customer", *of)["changed"]
        _have_ended(browsers, person.url, 303)

    browsers = _unlocked(demo, person)
    other_host = demo.tenant("acme")["hosts"][1]
    moved = demo.cli_json("customer", "move-host", person.customer_id, other_host, "--tenant", "acme")["url"]
    assert urlsplit(moved).hostname == other_host
    for browser in browsers:
        away = browser.get(person.url + "/activity")
        assert (away.status, away.location) == (302, moved + "/activity")
        # S03: carried over by hand, the cookie of the former host opens nothing.
        browser.jars[urlsplit(moved).netloc] = dict(browser.jars[urlsplit(person.url).netloc])
    _have_ended(browsers, moved, 303)

    browsers = _unlocked(demo, Person(person.customer_id, moved, fresh))
    reissued = demo.cli_json("link", "reissue", *of)["url"]
    assert reissued != moved
    _have_ended(browsers, moved, 404)
    assert Browser(demo).get(moved).status == 404

    browsers = _unlocked(demo, Person(person.customer_id, reissued, fresh))
    assert demo.cli_json("link", "revoke", *of)["revoked_at"]
    _have_ended(browsers, reissued, 404)
    issued = demo.cli_json("link", "issue", *of)["url"]
    assert Browser(demo).get(issued).status == 200
    assert Browser(demo).get(reissued).status == 404


def test_the_policy_of_a_tenant_holds_from_the_next_request_on(demo: Demo) -> None:
    person = demo.new_customer("acme", "live-policy", "1234")
    browsers = _unlocked(demo, person)
    try:
        demo.cli("policy", "set", "GATED", "--tenant", "acme")
        _have_ended(browsers, person.url, 303)
        assert "1,234" not in Browser(demo).get(person.url).text
        demo.cli("policy", "set", "OPEN", "--tenant", "acme")
        assert Browser(demo).get(person.url + "/activity").status == 200
    finally:
        demo.cli("policy", "set", "TWO_TIER", "--tenant", "acme")
    assert "1,234" in Browser(demo).get(person.url).text
    assert Browser(demo).get(person.url + "/activity").status == 303


def test_a_wrong_code_opens_nothing_and_a_session_opens_one_record_on_one_host(demo: Demo) -> None:
    one, other = demo.seeded("acme", 0), demo.seeded("acme", 1)
    browser = Browser(demo)
    refused = browser.unlock(one.url, "WRONG2")
    assert (refused.status, refused.headers.get("Set-Cookie")) == (403, None)
    assert browser.get(one.url + "/activity").status == 303
    assert browser.get(one.url + "/activity.json").status == 401
    assert browser.unlock(one.url, one.code.lower()[:3] + "-" + one.code[3:]).status == 303
    assert browser.get(one.url + "/activity").status == 200
    assert browser.get(other.url + "/activity").status == 303  # S04
    foreign = demo.seeded("borealis").url
    browser.jars[urlsplit(foreign).netloc] = dict(browser.jars[urlsplit(one.url).netloc])
    assert browser.get(foreign + "/activity").status == 303  # S02


def test_s01_a_session_id_of_the_clients_choice_is_never_adopted(demo: Demo) -> None:
    person = demo.seeded("borealis", 1)
    browser = Browser(demo)
    browser.unlock(person.url, person.code)
    jar = browser.jars[urlsplit(person.url).netloc]
    [name] = [name for name in jar if not name.startswith(("sr-pre", "sr-dv-"))]
    planted = Browser(demo)
    planted.jars[urlsplit(person.url).netloc] = {name: "A" * len(jar[name])}
    assert planted.get(person.url + "/activity").status == 303
    assert planted.unlock(person.url, person.code).status == 303
    assert planted.jars[urlsplit(person.url).netloc][name] not in ("A" * len(jar[name]), jar[name])


def _unlocked(demo: Demo, person: Person) -> list[Browser]:
    """Return two browsers with a session each."""
    browsers = [Browser(demo), Browser(demo)]
    for browser in browsers:
        assert browser.unlock(person.url, person.code).status == 303
        assert browser.get(person.url + "/activity").status == 200
    return browsers


def _have_ended(browsers: list[Browser], url: str, status: int) -> None:
    for browser in browsers:
        for path in ("/activity", "/export/file?format=json", "/periods"):
            assert browser.get(url + path).status == status, path


# --- Hosts and paths -------------------------------------------------------------------------------------------------

HOST_LINES: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "unknown": (421, (b"Host: evil.example",)),
    "unknown with port": (421, (b"Host: evil.example:%PORT",)),
    "parent of a branded host": (421, (b"Host: copperline.localhost:%PORT",)),
    "below a branded host": (421, (b"Host: a.%HOST:%PORT",)),
    "suffix of a branded host": (421, (b"Host: evil%HOST:%PORT",)),
    "branded host as a prefix": (421, (b"Host: %HOST.evil.example",)),
    "below the platform host": (421, (b"Host: app.localhost:%PORT",)),
    "IPv4": (421, (b"Host: 127.0.0.1:%PORT",)),
    "IPv4, short": (421, (b"Host: 127.1",)),
    "IPv4, hexadecimal": (421, (b"Host: 0x7f000001",)),
    "IPv4, decimal": (421, (b"Host: 2130706433",)),
    "IPv6": (421, (b"Host: [::1]:%PORT",)),
    "another port": (421, (b"Host: %HOST:443",)),
    "another port, high": (421, (b"Host: %HOST:65535",)),
    "cloud metadata": (421, (b"Host: 169.254.169.254",)),
    "forwarded host": (421, (b"Host: evil.example", b"X-Forwarded-Host: %HOST:%PORT")),
    "forwarded": (421, (b"Host: evil.example", b"Forwarded: host=%HOST:%PORT")),
    "original url": (421, (b"Host: evil.example", b"X-Original-Host: %HOST", b"X-Host: %HOST")),
    "none": (400, ()),
    "empty": (400, (b"Host:",)),
    "blank": (400, (b"Host:   ",)),
    "twice, the same": (400, (b"Host: %HOST:%PORT", b"Host: %HOST:%PORT")),
    "twice, unknown first": (400, (b"Host: evil.example", b"Host: %HOST:%PORT")),
    "twice, unknown last": (400, (b"Host: %HOST:%PORT", b"Host: evil.example")),
    "space before the colon": (400, (b"Host : %HOST:%PORT",)),
    "folded": (400, (b"Host:", b" %HOST:%PORT")),
    "folded, unknown first": (400, (b"Host: evil.example", b"\t%HOST:%PORT")),
    "comma": (400, (b"Host: %HOST:%PORT,evil.example",)),
    "userinfo": (400, (b"Host: user@%HOST:%PORT",)),
    "slash": (400, (b"Host: %HOST:%PORT/c",)),
    "query": (400, (b"Host: %HOST:%PORT?x",)),
    "fragment": (400, (b"Host: %HOST:%PORT#x",)),
    "backslash": (400, (b"Host: %HOST\\evil",)),
    "percent": (400, (b"Host: %25HOST",)),
    "underscore": (400, (b"Host: _dmarc.%HOST",)),
    "quote": (400, (b'Host: "%HOST"',)),
    "NUL": (400, (b"Host: %HOST\0",)),
    "UTF-8": (400, ("Host: müller.example".encode(),)),
    "not UTF-8": (400, (b"Host: \xff\xfe",)),
    "full-width": (400, ("Host: ｌｏｃａｌｈｏｓｔ".encode(),)),
    "empty label": (400, (b"Host: usage..acme.localhost",)),
    "leading dot": (400, (b"Host: .%HOST",)),
    "trailing dot": (400, (b"Host: %HOST.:%PORT",)),
    "leading hyphen": (400, (b"Host: -a.example",)),
    "long label": (400, (b"Host: " + b"a" * 64 + b".example",)),
    "long name": (400, (b"Host: " + b"a." * 200 + b"localhost",)),
    "very long name": (400, (b"Host: " + b"a" * 60_000,)),
    "port not a number": (400, (b"Host: %HOST:abc",)),
    "port too high": (400, (b"Host: %HOST:99999",)),
    "port empty": (400, (b"Host: %HOST:",)),
    "port signed": (400, (b"Host: %HOST:+80",)),
    "open bracket": (400, (b"Host: [::1",)),
    "template": (400, (b"Host: {{7*7}}",)),
    "wildcard": (400, (b"Host: *.localhost",)),
}


def test_h01_to_h06_no_other_host_line_reaches_a_tenant(demo: Demo) -> None:
    person = demo.seeded("copperline")
    host = urlsplit(person.url).hostname or ""
    known = _send(demo, b"/", b"Host: " + host.encode())  # without a port: the port of the listener is not needed
    assert known.status == 404
    for spelling in (f"Host: {host.upper()}:{demo.port}", f"host:{host}:{demo.port}", f"HOST: \t{host}  "):
        assert _send(demo, _path(person), spelling.encode()).status == 200
    bodies: dict[int, set[bytes]] = {400: set(), 421: set()}
    headers: set[tuple[str, ...]] = set()
    for name, (status, lines) in HOST_LINES.items():
        filled = [line.replace(b"%PORT", str(demo.port).encode()).replace(b"%HOST", host.encode()) for line in lines]
        answer = _send(demo, _path(person), *filled)
        assert answer.status == status, name
        bodies[status].add(answer.body)
        if status == 421:
            headers.add(tuple(f"{key}: {value}" for key, value in answer.headers.items() if key.lower() != "date"))
        assert not {"set-cookie", "location"} & {key.lower() for key in answer.headers}, name
    assert bodies[421] == {b"Misdirected Request\n"}
    assert bodies[400] <= {b"Bad Request\n", b""}  # empty where the HTTP server itself refuses
    assert len(headers) == 1


def test_h02_h04_old_and_absolute_requests_get_no_other_tenants_data(demo: Demo) -> None:
    person, other = demo.seeded("copperline"), demo.seeded("acme")
    host, other_host = (urlsplit(one.url).netloc.encode() for one in (person, other))
    assert _send(demo, _path(person), version=b"1.0").status == 400
    for target in (person.url.encode(), b"https://" + host + _path(person)):
        assert _send(demo, target, b"Host: " + other_host).status in (400, 404, 421)
        assert _send(demo, target, b"Host: evil.example").status in (400, 421)
    assert _send(demo, person.url.encode(), b"Host: " + host).status == 200
    for target in (b"http://evil.example" + _path(person), b"http://user@" + other_host + _path(person)):
        answer = _send(demo, target, b"Host: " + other_host)
        assert answer.status in (400, 404, 421)


def test_the_vendor_api_exists_on_the_platform_host_alone(demo: Demo) -> None:
    body = {"customerId": "live-api", "delta": 1, "reason": "system test"}
    headers = {"X-Api-Key": demo.tenant("acme")["api_key"]}
    for host in demo.tenant("acme")["hosts"]:
        url = f"http://{host}:{demo.port}/api/v1/balance/delta"
        assert demo.http("POST", url, json_body=body, headers=headers).status == 404
    path = urlsplit(demo.seeded("acme").url).path
    assert demo.http("GET", f"http://localhost:{demo.port}{path}").location == demo.seeded("acme").url


FRAMES = {
    "length and chunked": (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    "xchunked": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked, obfuscated": (b"Transfer-Encoding : chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n"),
    "two lengths": (b"Content-Length: 4\r\nContent-Length: 6\r\n", b"abcdef"),
    "signed length": (b"Content-Length: +4\r\n", b"abcd"),
    "huge length": (b"Content-Length: 99999999999999999999\r\n", b"abcd"),
    "broken chunk": (b"Transfer-Encoding: chunked\r\n", b"zz\r\nabc\r\n0\r\n\r\n"),
}


def test_h12_odd_frames_are_refused_and_never_an_error_of_ours(demo: Demo) -> None:
    person = demo.seeded("acme")
    host = urlsplit(person.url).netloc.encode()
    for name, (headers, body) in FRAMES.items():
        head = b"POST " + _path(person) + b"/unlock HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n"
        received = demo.raw(head + headers + b"\r\n" + body)
        statuses = re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", received)
        assert len(statuses) <= 1, name
        assert all(status in (b"400", b"403", b"413", b"501") for status in statuses), (name, statuses)
    for data in (b"\x16\x03\x01\0\xa5\x01\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 99):
        assert b" 50" not in demo.raw(data)[:14]
    assert Browser(demo).get(person.url).status == 200


# Bare ``%H`` is a customer's path. Few of these may be unknown links: those are counted against the client's network.
PATHS = (
    *(b"/%00", b"/c/%00", b"%H%00", b"%H/activity%00", b"/static/%00/x", b"/static/theme/%00/x.css", b"/c/%ff%fe"),
    *(b"/c/%2f..%2f", b"/c/%2e%2e/%2e%2e/etc/passwd", b"%H/..", b"%H/../../etc/passwd", b"%H/%2e%2e%2fkeys.json"),
    *(b"/static/../keys.json", b"/static/%2e%2e/keys.json", b"/static/x/%2e%2e%2fkeys.json", b"/static//etc/passwd"),
    *(b"//evil.example/x", b"/%5cevil.example", b"/;x", b"%H;x", b"/a" * 4000, b"/%C0%AE", b"/%F0%9F%92%A9", b"*"),
    *(b"/c/\xff\xfe", b"no-slash", b"/%", b"/%zz", b"%H/activity/", b"%H//activity", b"/healthz/ready"),
)
QUERIES = (
    *(b"activity?after=%00", b"activity?after=2026-11.-1", b"activity?after=x.1", b"activity?before=9999-99.1"),
    *(b"activity?period=%ff", b"activity?period=0000-01", b"activity?period=9999-12", b"activity?period=2026-13"),
    *(b"activity?from=9999-12-31", b"activity?to=9999-12-31", b"activity?from=0001-01-01", b"activity?from=%00"),
    *(b"activity?reference=%00", b"activity?reference=%F0%9F%92%A9", b"activity?reference=" + b"x" * 300),
    *(b"activity?limit=-1", b"activity?limit=99999999999999999999", b"activity?limit=%00", b"activity?late=%00"),
    *(b"activity.json?period=%ff", b"activity.json?to=x", b"activity.csv?from=x", b"activity.csv?after=9999-12.1"),
    *(b"compare?a=%00&b=%00", b"compare?a=2026-11", b"export/file", b"export/file?format=%00"),
    *(b"export/file?format=json&period=%00", b"export/file?format=json&period=9999-99", b"unlock?next=%00&method=%00"),
)


def test_h13_odd_paths_and_queries_are_never_an_error_of_ours(demo: Demo) -> None:
    person = demo.seeded("copperline")  # OPEN: the inner pages read the query
    host = b"Host: " + urlsplit(person.url).netloc.encode()
    for target in PATHS:
        answer = _send(demo, target.replace(b"%H", _path(person)), host)
        assert answer.status in (200, 400, 404, 414), target
        assert b"keys.json" not in answer.body
        assert b"root:" not in answer.body
    for query in QUERIES:
        answer = _send(demo, _path(person) + b"/" + query, host)
        assert answer.status in (200, 400, 404), query
    for method in (b"PUT", b"DELETE", b"TRACE", b"BREW", b"OPTIONS"):
        assert _send(demo, _path(person), host, method=method).status in (200, 400, 404, 405), method


def _path(person: Person) -> bytes:
    return urlsplit(person.url).path.encode()


def _send(demo: Demo, target: bytes, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> Answer:
    """Send a request line and header lines as they are."""
    head = [method + b" " + target + b" HTTP/" + version, *lines, b"Connection: close"]
    received = demo.raw(b"\r\n".join([*head, b"", b""]))
    return _parse(received)


def _parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    headers = BytesHeaderParser(_class=HTTPMessage).parsebytes(fields + b"\r\n\r\n")
    return Answer(int(line.split()[1]), headers, body)


# --- Looking changes nothing -----------------------------------------------------------------------------------------

AGENTS = (
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "facebookexternalhit/1.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "WhatsApp/2.23.20.0",
    "Twitterbot/1.0",
    "Mozilla/5.0 (Windows NT 10.0) BitdefenderScan",
    "curl/8.5.0",
    "",
)


def test_l05_looking_at_links_writes_nothing(demo: Demo) -> None:
    behind = "SELECT count(*) FROM period_tree WHERE psize < size"
    wait_for("everything verified", lambda: demo.rows(behind) == [(0,)], 40)
    before = _fingerprint(demo)
    for slug in PROFILES:
        person = demo.seeded(slug, 2)
        for agent in AGENTS:
            for method in ("GET", "HEAD"):
                answer = Browser(demo).send(method, person.url, headers={"User-Agent": agent, "Purpose": "prefetch"})
                assert answer.status == 200
                assert "noindex" in answer.headers["X-Robots-Tag"]
        for path in (".json", "/unlock", "/activity", "/activity.json", "/periods", "/compare", "/export", "/close"):
            for method in ("GET", "HEAD"):
                assert Browser(demo).send(method, person.url + path).status in (200, 303, 401, 404, 405)
    assert _fingerprint(demo) == before


def _fingerprint(demo: Demo) -> dict[str, tuple[int, str]]:
    """Return rows and content hash of every table."""
    found = {}
    for (table,) in demo.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        rows = sorted(map(repr, demo.rows(f'SELECT * FROM "{table}"')))
        found[table] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    return found


# --- Checking a number -----------------------------------------------------------------------------------------------


def test_a_downloaded_export_is_checked_offline_with_three_outcomes(demo: Demo, tmp_path: Path) -> None:
    person = demo.seeded("acme", 1)
    browser = Browser(demo)
    browser.unlock(person.url, person.code)
    download = browser.get(f"{person.url}/export/file?format=json&period={period_of(datetime.now(UTC))}")
    assert download.status == 200
    assert "attachment" in download.headers["Content-Disposition"]
    assert len(download.body) == int(download.headers["Content-Length"])
    file = tmp_path / "record.json"

    file.write_bytes(download.body)
    good = demo.cli("verify", str(file), "--require-covered", check=False)
    assert (good.returncode, good.stderr) == (0, ""), good.stdout
    assert "Matches." in good.stdout
    assert "310 rows" in good.stdout

    changed, record_id = _with_one_digit_changed(download.body, 200)
    file.write_bytes(changed)
    bad = demo.cli("verify", str(file), "--json", check=False)
    assert bad.returncode == 4
    outcome = json.loads(bad.stdout)
    assert (outcome["result"], outcome["rows"]) == ("does not match", 199)
    assert outcome["reason"].startswith("record 200: "), record_id

    file.write_bytes(b"\x89PNG not a record")
    rubbish = demo.cli("verify", str(file), check=False)
    assert rubbish.returncode == 5
    assert "Could not be checked (because " in rubbish.stdout
    assert demo.cli("verify", str(tmp_path / "absent.json"), check=False).returncode == 5


def _with_one_digit_changed(document: bytes, row: int) -> tuple[bytes, str]:
    """Change the last digit of the amount in one row (counted from 1); return the file and the record's id."""
    entry = json.loads(document)["rows"][row - 1]["entry"]
    lines = document.splitlines(keepends=True)
    [at] = [index for index, line in enumerate(lines) if entry["id"].encode() in line]
    amount = f'"qty":"{entry["qty"]}"'.encode()
    assert lines[at].count(amount) == 1
    digit = b"%d" % ((int(entry["qty"][-1]) + 1) % 10)
    lines[at] = lines[at].replace(amount, amount[:-2] + digit + b'"')
    return b"".join(lines), entry["id"]
