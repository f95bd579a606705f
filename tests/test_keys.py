"""The key ring: what it derives is fixed for ever, and what it seals opens in one place only."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_record.errors import ConfigurationError, UnavailableError
from shared_record.keys import CODE_ALPHABET, KeyRing, handle_digest

RING = KeyRing("k2", {"k1": bytes(range(32)), "k2": bytes(range(32, 64))})
TENANT, CUSTOMER = UUID("00112233-4455-6677-8899-aabbccddeeff"), UUID("ffeeddcc-bbaa-9988-7766-554433221100")
BIG = 2**63

VECTORS = (
    # kid, tenant, customer, version, handle, code
    ("k1", TENANT, CUSTOMER, 1, "avkjhb4y3zds4hj8vxv41pefy7", "WGPSR5"),
    ("k1", TENANT, CUSTOMER, 2, "209q03cdyyy88r4vzn5w485ypf", "M4T9ZN"),
    ("k1", CUSTOMER, TENANT, 1, "57kj5z7en2mrzg1rsacnxm81ev", "GJZA3C"),
    ("k2", TENANT, CUSTOMER, 1, "edk6yqve4tne0zfw6tz8chthtr", "GRJHTG"),
    ("k2", TENANT, CUSTOMER, BIG, "cgetqwm9sm8yzsrawz44grqrq9", "H635XH"),
    ("k1", UUID(int=0), UUID(int=0), 0, "5nvtwbhq3bvh964js8dtc57r1c", "RWJKJN"),
)
"""A change of any of these would kill every link and code that is printed on an invoice."""


def capability(kid: str, purpose: str, tenant: UUID, customer: UUID, version: int) -> int:
    """The derivation as the design words it, written without the code under test."""
    message = f"shared-record/v1/{purpose}\0".encode("ascii")
    message += int(tenant).to_bytes(16, "big") + int(customer).to_bytes(16, "big") + version.to_bytes(8, "big")
    return int(hmac.new(RING.roots[kid], message, hashlib.sha256).hexdigest(), 16)


def expected_handle(number: int) -> str:
    bits = f"{number:0256b}"[:130]
    return "".join("0123456789abcdefghjkmnpqrstvwxyz"[int(bits[i : i + 5], 2)] for i in range(0, 130, 5))


def expected_code(number: int) -> str:
    number %= 729_000_000
    return "".join("23456789ABCDEFGHJKMNPQRSTVWXYZ"[number // 30**place % 30] for place in (5, 4, 3, 2, 1, 0))


@pytest.mark.parametrize(("kid", "tenant", "customer", "version", "handle", "code"), VECTORS)
def test_committed_vectors(kid: str, tenant: UUID, customer: UUID, version: int, handle: str, code: str) -> None:
    assert RING.handle(kid, tenant, customer, version) == handle
    assert RING.access_code(kid, tenant, customer, version) == code
    assert expected_handle(capability(kid, "handle", tenant, customer, version)) == handle
    assert expected_code(capability(kid, "code", tenant, customer, version)) == code


@given(st.sampled_from(["k1", "k2"]), st.uuids(), st.uuids(), st.integers(0, 2**64 - 1))
def test_an_independent_implementation_agrees(kid: str, tenant: UUID, customer: UUID, version: int) -> None:
    place = (tenant, customer, version)
    assert RING.handle(kid, *place) == expected_handle(capability(kid, "handle", *place))
    assert RING.access_code(kid, *place) == expected_code(capability(kid, "code", *place))


def test_every_input_changes_both() -> None:
    base = ("k1", TENANT, CUSTOMER, 1)
    others = [("k2", *base[1:]), ("k1", CUSTOMER, TENANT, 1), (*base[:2], TENANT, 1), (*base[:3], 2)]
    for derive in (RING.handle, RING.access_code):
        assert len({derive(*place) for place in [base, *others]}) == 5


def test_l01_handles_are_26_characters_of_an_alphabet_without_lookalikes_and_do_not_repeat() -> None:
    handles = [RING.handle("k1", TENANT, CUSTOMER, version) for version in range(5_000)]
    assert len(set(handles)) == len(handles)
    assert {len(handle) for handle in handles} == {26}
    assert set("".join(handles)) == set("0123456789abcdefghjkmnpqrstvwxyz")
    for position in (0, 12, 25):  # each digit is even: 5,000 draws of 32, chi-squared far below its 1e-9 quantile
        counts = Counter(handle[position] for handle in handles)
        assert sum((counts[c] - 156.25) ** 2 / 156.25 for c in set("".join(handles))) < 110


def test_codes_are_six_characters_of_an_even_alphabet() -> None:
    codes = [RING.access_code("k1", TENANT, CUSTOMER, version) for version in range(5_000)]
    assert len(CODE_ALPHABET) == len(set(CODE_ALPHABET)) == 30
    assert not set(CODE_ALPHABET) & set("01OILUoilu")
    assert {len(code) for code in codes} == {6}
    assert len(set(codes)) > 4_995
    for position in range(6):
        counts = Counter(code[position] for code in codes)
        assert set(counts) == set(CODE_ALPHABET)
        assert sum((counts[c] - 500 / 3) ** 2 / (500 / 3) for c in CODE_ALPHABET) < 110


def test_a_small_number_keeps_its_leading_digits() -> None:
    assert expected_code(0) == "222222"
    assert expected_code(29) == "22222Z"


def test_rotation_an_older_version_keeps_its_key() -> None:
    old = KeyRing("k1", {"k1": RING.roots["k1"]})
    assert RING.handle("k1", TENANT, CUSTOMER, 1) == old.handle("k1", TENANT, CUSTOMER, 1)
    assert RING.access_code("k1", TENANT, CUSTOMER, 1) == old.access_code("k1", TENANT, CUSTOMER, 1)
    sealed = old.seal(b"secret", tenant=TENANT, place="t.c/1")
    assert RING.open(sealed, tenant=TENANT, place="t.c/1") == b"secret"
    fresh = RING.seal(b"secret", tenant=TENANT, place="t.c/1")
    assert fresh.startswith(b"k2\0")
    for call in (
        lambda: old.open(fresh, tenant=TENANT, place="t.c/1"),
        lambda: old.handle("k2", TENANT, CUSTOMER, 1),
        lambda: old.subkey("k2", "csrf"),
    ):
        with pytest.raises(UnavailableError, match="no key 'k2'"):
            call()


@given(st.binary(max_size=100))
def test_what_is_sealed_opens_and_is_never_sealed_alike(plaintext: bytes) -> None:
    one, two = (RING.seal(plaintext, tenant=TENANT, place="p") for _ in range(2))
    assert one != two
    assert RING.open(one, tenant=TENANT, place="p") == plaintext
    if len(plaintext) > 3:
        assert plaintext not in one


def test_z05_what_is_sealed_opens_for_no_other_tenant_row_or_column() -> None:
    place = f"customer.sealed_key/{CUSTOMER}"
    sealed = RING.seal(b"x" * 32, tenant=TENANT, place=place)
    for tenant, other in ((CUSTOMER, place), (TENANT, f"customer.sealed_key/{TENANT}"), (TENANT, f"tenant.{place}")):
        with pytest.raises(UnavailableError) as caught:
            RING.open(sealed, tenant=tenant, place=other)
        assert "x" * 8 not in str(caught.value)


@given(st.data())
def test_z05_a_changed_or_cut_seal_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(RING.seal(b"secret", tenant=TENANT, place="p"))
    if data.draw(st.booleans()):
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del sealed[data.draw(st.integers(0, len(sealed) - 1)) :]
    with pytest.raises(UnavailableError):
        RING.open(bytes(sealed), tenant=TENANT, place="p")


def test_subkeys_differ_by_purpose_and_key() -> None:
    assert len({RING.subkey(kid, purpose) for kid in RING.roots for purpose in ("seal", "csrf", "log")}) == 6
    assert RING.subkey("k1", "csrf") not in RING.roots.values()


def test_a_digest_is_all_that_is_kept_of_a_handle() -> None:
    handle = RING.handle("k1", TENANT, CUSTOMER, 1)
    assert handle_digest(handle) == hashlib.sha256(handle.encode()).digest()


def test_the_file_is_private_round_trips_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    before = os.umask(0)
    try:
        RING.save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert KeyRing.load(path) == RING
    bytes_before = path.read_bytes()
    with pytest.raises(FileExistsError):
        KeyRing.generate().save(path)
    assert path.read_bytes() == bytes_before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o660, 0o601])
def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    RING.save(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        KeyRing.load(path)


KEY = "A" * 43 + "="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        "null",
        '{"active": "k1"}',
        '{"active": "k1", "keys": []}',
        '{"active": "k1", "keys": {}}',
        json.dumps({"active": "k2", "keys": {"k1": KEY}}),
        json.dumps({"active": "k1", "keys": {"k1": "AAAA"}}),
        json.dumps({"active": "k1", "keys": {"k1": KEY, "k0": KEY[:-4] + "\n" + KEY[-4:]}}),
        json.dumps({"active": "k1", "keys": {"k1": 5}}),
        json.dumps({"keys": {"k1": KEY}}),
        json.dumps({"active": ["k1"], "keys": {"k1": KEY}}),
    ],
)
def test_a_file_that_is_no_key_ring_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="is not a key ring"):
        KeyRing.load(path)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="shared-record migrate"):
        KeyRing.load(tmp_path / "keys.json")


def test_generated_rings_differ_and_show_no_key() -> None:
    one, two = KeyRing.generate(), KeyRing.generate()
    assert one.roots != two.roots
    assert len(one.roots[one.active]) == 32
    assert repr(one) == "KeyRing(active='k1')"
