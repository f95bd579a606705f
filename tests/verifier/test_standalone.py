"""The two verifiers that travel with the data, against the package's own: the same outcome for the same input."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from playwright.sync_api import Page, expect

from chromium import launched
from shared_record.ledger.receipt import HEADER, Window, build_receipt
from shared_record.plugin import standalone_verifiers
from shared_record.verifier.files import check_file
from verifier.test_bundle import (
    MEMBERS,
    VALID,
    VERIFIERS,
    consistent,
    edited,
    every_changed_byte,
    packed,
    unpacked,
    write,
)
from verifier.test_checks import AMOUNTS, OTHER_VKEY, TRUSTED, VKEY, build
from verifier.test_checks import VALID as EXPORT
from verifier.test_receipts import DELTA, INNER, LATER, OCTOBER, PART, WHOLE, over_periods, receipt_of

FOLDER = Path(__file__).parents[2] / "platform/shared_record/verifier/standalone"
POLICY = f"log {VKEY}\nquorum none\n"
RECEIPT = build_receipt(WHOLE).encode()
FROM_SECOND_ROW = receipt_of(OCTOBER, 1, 3)
PERIODS = over_periods(
    replace(FROM_SECOND_ROW, window=FROM_SECOND_ROW.window and replace(FROM_SECOND_ROW.window, root=None)),
    WHOLE,
    receipt_of(LATER, 0, 1),
).encode()
SECOND = PERIODS.index(HEADER.encode(), 1)
INNER_BARE = replace(INNER, window=INNER.window and replace(INNER.window, root=None))


def load() -> Any:
    spec = importlib.util.spec_from_file_location("standalone_verify", FOLDER / "verify.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


VERIFY = load()
KEYS = VERIFY.policy(POLICY)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    wrong: list[str] = []
    with launched() as browser:
        opened = browser.new_page()
        opened.on("console", lambda message: wrong.append(message.text))
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda request: request.url.startswith("http") and wrong.append(request.url))
        opened.goto((FOLDER / "verify.html").as_uri())
        yield opened
    assert not wrong


def in_page(page: Page, files: list[bytes], policy: str = POLICY) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(
        """async ([files, policy]) => {
            const found = [];
            for (const file of files) {
                const blob = new Blob([Uint8Array.from(atob(file), (c) => c.charCodeAt(0))]);
                found.push(await sharedRecord.check(blob, sharedRecord.policy(policy)));
            }
            return found;
        }""",
        [[base64.b64encode(file).decode() for file in files], policy],
    )
    return found


def by_script(data: bytes, folder: Path, keys: Any = KEYS) -> dict[str, Any]:
    (folder / "given").write_bytes(data)
    found: dict[str, Any] = VERIFY.check(folder / "given", keys)
    return found


@pytest.fixture
def quick_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave verify.py's own Ed25519 to its own test: it takes most of the time of a thousand checks."""

    def verify(public: bytes, message: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except Exception:
            return False
        return True

    monkeypatch.setattr(VERIFY, "ed25519", verify)


# --- The same outcome ------------------------------------------------------------------------------------------------


def zipped(compression: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    return out.getvalue()


def restated(old: bytes, new: bytes) -> bytes:
    """Pack the bundle with another record block, as somebody would who knows how the manifest is made."""
    return consistent(edited("manifest.json", old, new))


MATCHES, DIFFERS, UNKNOWN = "matches", "does not match", "could not be checked"
CASES: dict[str, tuple[bytes, str]] = {
    "bundle": (VALID, MATCHES),
    "bundle, stored": (zipped(zipfile.ZIP_STORED), MATCHES),
    "bundle of 300": (write(build(("1",) * 300, 300))[0], MATCHES),
    "bundle without proof": (write(build(AMOUNTS, 0))[0], UNKNOWN),
    "bundle without rows": (write(build((), 0))[0], UNKNOWN),
    "bundle, details removed": (
        write(build(change=lambda r: r._replace(reference=None, reason=None, metadata_json=None, detail_salt=None)))[0],
        MATCHES,
    ),
    "bundle, another total": (consistent(edited("entries.jsonl", b'"qty":"1000"', b'"qty":"1001"')), DIFFERS),
    "bundle, another time": (consistent(edited("entries.jsonl", b"T08:03", b"T08:04")), DIFFERS),
    "bundle, another reason": (consistent(edited("details.jsonl", b"batch 3", b"batch 4")), DIFFERS),
    "bundle, another head": (consistent(edited("head.json", b"s2-", b"s3-")), DIFFERS),
    "bundle, another epoch": (consistent(edited("epoch.json", b'"epoch":2', b'"epoch":3')), DIFFERS),
    "bundle, foreign key": (consistent(edited("policy", VKEY.encode(), OTHER_VKEY.encode())), DIFFERS),
    "bundle, another note": (consistent(edited("known-checkpoints/3.note", b"\n3\n", b"\n4\n")), DIFFERS),
    "bundle, another note 2": (consistent(edited("known-checkpoints/3.note", b" ", b"  ")), DIFFERS),
    "bundle, digest": (packed(edited("README.txt", b"a", b"b")), DIFFERS),
    "bundle, more files": (packed({**MEMBERS, "more.txt": b""}), DIFFERS),
    "bundle, no entries": (packed({k: v for k, v in MEMBERS.items() if k != "entries.jsonl"}), UNKNOWN),
    "bundle, version": (packed(edited("manifest.json", b"bundle@v1", b"bundle@v2")), UNKNOWN),
    "bundle, manifest": (packed(edited("manifest.json", b'"size":7', b'"size":8')), DIFFERS),
    "bundle, malformed row": (consistent(edited("entries.jsonl", b'"seq":4', b'"seq":04')), UNKNOWN),
    "bundle, not UTF-8": (consistent(edited("entries.jsonl", b"{", b"\xff")), UNKNOWN),
    "bundle, cut": (VALID[: len(VALID) // 2], UNKNOWN),
    "bundle, empty": (packed({}), UNKNOWN),
    "bundle of zeros": (packed({**MEMBERS, "entries.jsonl": bytes(5_000_000)}), UNKNOWN),
    "receipt of a delta": (build_receipt(DELTA).encode(), MATCHES),
    "receipt of a period": (RECEIPT, MATCHES),
    "receipt of its start": (build_receipt(PART).encode(), MATCHES),
    "receipt of a window": (build_receipt(INNER).encode(), MATCHES),
    "receipt, index": (RECEIPT.replace(b"index 2", b"index 1"), DIFFERS),
    "receipt, version": (RECEIPT.replace(b"@v1", b"@v2"), UNKNOWN),
    "receipt, cut": (RECEIPT[:200], UNKNOWN),
    "receipt, other lines": (RECEIPT.replace(b"\n", b"\r\n"), UNKNOWN),
    "receipt, signature": (RECEIPT[:-10] + b"AAAAAA" + RECEIPT[-4:], DIFFERS),
    "receipt, another root": (
        build_receipt(replace(PART, window=PART.window and replace(PART.window, root=b"\1" * 32))).encode(),
        DIFFERS,
    ),
    "receipt, another opening": (
        build_receipt(replace(INNER, window=INNER.window and replace(INNER.window, opening="1"))).encode(),
        DIFFERS,
    ),
    "receipt over three periods": (PERIODS, MATCHES),
    "receipt over three periods, the first alone": (PERIODS[:SECOND], DIFFERS),
    "receipt over three periods, without the first": (PERIODS[SECOND:], DIFFERS),
    "receipt over three periods, cut": (PERIODS[: SECOND + 300], UNKNOWN),
    "receipt over three periods, their order": (PERIODS[SECOND:] + PERIODS[:SECOND], DIFFERS),
    "receipt over periods, rows left out at the end of one": (
        over_periods(receipt_of(OCTOBER, 0, 2), WHOLE).encode(),
        DIFFERS,
    ),
    "receipt over periods, rows left out at the start of one": (
        over_periods(receipt_of(OCTOBER, 0, 3), INNER).encode(),
        DIFFERS,
    ),
    "receipt over the same period twice": (over_periods(WHOLE, WHOLE).encode(), DIFFERS),
    "two receipts in one file": (build_receipt(receipt_of(OCTOBER, 0, 3)).encode() + RECEIPT, DIFFERS),
    "two deltas in one file": (build_receipt(DELTA).encode() * 2, DIFFERS),
    "signed wrong total": (write(build(total_stated="7"))[0], DIFFERS),
    "signed wrong customer": (write(build(head_ref="s2-1123456789abcdef"))[0], DIFFERS),
    "head of an earlier epoch": (write(build(head_epoch=0))[0], MATCHES),
    "head of a later epoch": (write(build(head_epoch=3))[0], DIFFERS),
    "sum of a window without a root": (build_receipt(INNER_BARE).encode(), MATCHES),
    "another log": (write(build(origin="app.example/log/t2"))[0], DIFFERS),
    "a row dropped": (
        consistent(
            {
                name: b"".join(MEMBERS[name].splitlines(True)[1:]) if ".jsonl" in name else MEMBERS[name]
                for name in MEMBERS
            }
        ),
        DIFFERS,
    ),
    "fewer details than entries": (
        consistent({**MEMBERS, "details.jsonl": b"".join(MEMBERS["details.jsonl"].splitlines(True)[:-1])}),
        DIFFERS,
    ),
    "no newline at the end": (consistent({**MEMBERS, "entries.jsonl": MEMBERS["entries.jsonl"][:-1]}), UNKNOWN),
    "another end of a line": (
        consistent({**MEMBERS, "entries.jsonl": MEMBERS["entries.jsonl"][:-1] + b"\v"}),
        UNKNOWN,
    ),
    "another month's bounds": (
        restated(b'"end":"2026-12-01', b'"end":"2026-12-02'),
        UNKNOWN,
    ),
    "another customer in the record block": (restated(b'"s2-0123', b'"s2-1123'), DIFFERS),
    "another number of covered rows": (restated(b'"covered":{"size":5', b'"covered":{"size":4'), DIFFERS),
    "another vendor, which nothing proves": (restated(b"Acme", b"Ecma"), MATCHES),
    "a receipt in a bundle of another spelling": (
        consistent(edited("receipt.tlog-proof", b"index 2", b"index 02")),
        UNKNOWN,
    ),
    "sum from the first row without a root": (
        build_receipt(replace(PART, window=PART.window and replace(PART.window, root=None))).encode(),
        UNKNOWN,
    ),
    "a window that ends before it starts": (
        build_receipt(replace(DELTA, window=Window(4, 3, None, "0", "0", WHOLE.entry))).encode(),
        UNKNOWN,
    ),
    "empty": (b"", UNKNOWN),
    "zeros": (bytes(4_500_000), UNKNOWN),
    "text": (b"hello\n", UNKNOWN),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), UNKNOWN),
}


@pytest.mark.parametrize("name", CASES)
def test_package_and_script_agree(name: str, tmp_path: Path) -> None:
    data, expected = CASES[name]
    outcome = check_file(io.BytesIO(data), TRUSTED)
    found = by_script(data, tmp_path)
    assert (outcome.result.value, found["result"]) == (expected, expected), (outcome.reason, found["reason"])
    assert expected == MATCHES or found["reason"]
    if expected == MATCHES:
        assert (found["rows"], found["total"], found["unit"]) == (outcome.rows, outcome.total, outcome.unit)


@pytest.mark.parametrize("own", [False, True])
def test_the_page_agrees(page: Page, own: bool) -> None:
    """With the browser's Ed25519 and with the page's own."""
    page.evaluate("(use) => { sharedRecord.webCrypto = use; }", not own)
    found = in_page(page, [data for data, _ in CASES.values()])
    page.evaluate("() => { sharedRecord.webCrypto = true; }")
    results = {name: one["result"] for name, one in zip(CASES, found, strict=True)}
    assert results == {name: expected for name, (_, expected) in CASES.items()}
    assert all(one["reason"] or one["result"] == MATCHES for one in found)


def test_without_a_policy_the_file_must_name_its_key(page: Page, tmp_path: Path) -> None:
    for data, expected in ((VALID, MATCHES), (RECEIPT, UNKNOWN)):
        script, (html,) = by_script(data, tmp_path, []), in_page(page, [data], "")
        assert (script["result"], html["result"]) == (expected, expected)
        assert expected == UNKNOWN or script["key"] == html["key"] == "this file"
        assert script["fingerprints"] == html["fingerprints"]


# --- Every byte ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_signatures")
@pytest.mark.parametrize("data", [*(build_receipt(one).encode() for one in (DELTA, WHOLE, INNER_BARE)), PERIODS])
def test_every_changed_byte_of_a_receipt_is_refused(data: bytes, tmp_path: Path) -> None:
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        found = by_script(changed, tmp_path)
        assert found["result"] in (DIFFERS, UNKNOWN), position
        assert found["reason"]


@pytest.mark.usefixtures("quick_signatures")
def test_every_changed_byte_of_a_bundle_is_refused(tmp_path: Path) -> None:
    files = unpacked(write(build(("5", "-1.25", "7"), 2))[0])
    every_changed_byte(files, tmp_path, lambda: VERIFY.check(tmp_path, KEYS)["result"] == MATCHES)


def test_the_page_refuses_changed_bytes(page: Page) -> None:
    changed: list[bytes] = []
    for data in (RECEIPT, build_receipt(DELTA).encode(), PERIODS):
        for position in range(0, len(data), len(data) // 45):
            changed.append(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    for name in MEMBERS.keys() - set(VERIFIERS):
        data = MEMBERS[name]
        for position in range(0, len(data), len(data) // 6):
            mutated = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
            changed.append(packed({**MEMBERS, name: mutated}))
    assert len(changed) > 140
    assert {one["result"] for one in in_page(page, changed)} == {DIFFERS, UNKNOWN}


# --- verify.py -------------------------------------------------------------------------------------------------------

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_own_ed25519(page: Page, public: str, message: str, signature: str) -> None:
    key, text, good = map(bytes.fromhex, (public, message, signature))
    order = 2**252 + 27742317777372353535851937790883648493
    malleable = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    cases = [(key, text, good, True), (key, text + b"x", good, False), (key, text, malleable, False)]
    cases += [(key, text, good[:-1], False), (b"\xff" * 32, text, good, False), (key, text, b"", False)]
    cases += [(key, text, bytes([good[0] ^ 1]) + good[1:], False)]
    for case in cases:
        assert VERIFY.ed25519(*case[:3]) is case[3]
    found = page.evaluate(
        "(cases) => cases.map((parts) => sharedRecord.ed25519(...parts.map((part) => Uint8Array.from(part))))",
        [[list(part) for part in case[:3]] for case in cases],
    )
    assert found == [case[3] for case in cases]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(FOLDER / "verify.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_script_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(VALID)
    (tmp_path / "bad.zip").write_bytes(CASES["bundle, another total"][0])
    (tmp_path / "export.json").write_bytes(EXPORT)
    (tmp_path / "policy").write_text(POLICY)
    done = run(tmp_path / "b.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"compare {hashlib.sha256(VKEY.encode()).hexdigest()} with the vendor's" in done.stdout
    assert "\nMatches\nNot checked: prices" in done.stdout
    done = run("--json", "--policy", tmp_path / "policy", tmp_path / "b.zip")
    form = json.loads(done.stdout)
    assert (form["result"], form["key"], form["rows"]) == ("matches", "the policy file", 7)
    done = run(tmp_path / "bad.zip")
    assert (done.returncode, done.stderr) == (4, "")
    assert "Does not match: record 4: running total is 1003.75" in done.stdout
    done = run(tmp_path / "export.json")
    assert (done.returncode, done.stderr) == (5, "")
    assert "for a JSON export, take the bundle, or use shared-record verify" in done.stdout
    for arguments in (["none"], [str(FOLDER / "verify.html")], ["--policy", "none", str(tmp_path / "b.zip")]):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (5, "")
        assert "Could not be checked: " in done.stdout


def test_large_rubbish_is_refused_quickly(tmp_path: Path) -> None:
    for start in (b"", b"PK", b"c2sp.org/tlog-proof", b'{"format":"shared-record/bundle@v1",\n'):
        with (tmp_path / "large").open("wb") as file:
            file.write(start)
            file.truncate(200_000_000)
        began = time.process_time()
        assert VERIFY.check(tmp_path / "large", KEYS)["result"] == UNKNOWN
        assert check_file(tmp_path / "large", TRUSTED).result.value == UNKNOWN
        assert time.process_time() - began < 5


def test_the_script_can_be_read_in_one_sitting() -> None:
    lines = (FOLDER / "verify.py").read_text().splitlines()
    assert len(lines) <= 249
    assert max(map(len, lines)) <= 120


# --- verify.html -----------------------------------------------------------------------------------------------------


def test_the_page_is_small_and_allows_itself_alone() -> None:
    text = (FOLDER / "verify.html").read_text()
    assert len(gzip.compress(text.encode())) <= 40_000
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text, "the policy in the page does not name its own content"
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text


def test_a_person_uses_the_page(page: Page, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(VALID)
    (tmp_path / "receipt.tlog-proof").write_bytes(RECEIPT)
    (tmp_path / "bad.zip").write_bytes(CASES["bundle, another reason"][0])
    (tmp_path / "export.json").write_bytes(EXPORT)
    (tmp_path / "policy").write_text(POLICY)

    def choose(*names: str) -> str:
        page.evaluate("() => { document.getElementById('result').textContent = ''; document.activeElement.blur(); }")
        page.get_by_label("File to check").set_input_files([str(tmp_path / name) for name in names])
        expect(page.locator("#result")).to_be_focused()
        return page.locator("#found").inner_text()

    assert "It matches" in (text := choose("b.zip"))
    assert "Compare its fingerprint" in text
    assert "Not checked: prices" in text
    text = choose("receipt.tlog-proof", "policy")
    assert "It matches" in text
    assert "fingerprint" not in text
    assert "It could not be checked" in (text := choose("export.json"))
    assert "take the bundle, or use shared-record verify" in text
    text = choose("bad.zip")
    assert "It does not match" in text
    assert "First difference: record 3: reason, reference or metadata" in text
    assert "It could not be checked" in choose("receipt.tlog-proof")
    assert "choose one file to check" in choose("policy")


def test_the_plugin_function_gives_them_verbatim() -> None:
    assert standalone_verifiers() == {name: (FOLDER / name).read_bytes() for name in VERIFIERS}
    assert all(MEMBERS[name] == content for name, content in standalone_verifiers().items())
