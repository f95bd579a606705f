"""Time-stamps, asked of a real authority (``openssl ts``) over HTTP, and judged offline from a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from shared_record_anchor_rfc3161 import Rfc3161, Rfc3161Settings

from shared_record.ledger.outbound import post
from shared_record.plugin import AnchorContext
from tsa import Authority, serve_authority

NOTE = "log.example/1\n1\nAAAA\n\n— log.example/1 AAAAAAAA\n".encode()
DIGEST = hashlib.sha256(NOTE).digest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with serve_authority(tmp_path_factory.mktemp("tsa") / "one") as found:
        yield found


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with serve_authority(tmp_path_factory.mktemp("tsa") / "two", "Other TSA") as found:
        yield found


def context(authority: Authority, **changes: object) -> AnchorContext:
    settings = Rfc3161Settings.model_validate({"url": authority.url, "roots": str(authority.roots)} | changes)
    return AnchorContext(settings, datetime.now(UTC), post)


def test_a_token_is_asked_for_verified_and_says_by_whom_and_when(authority: Authority) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    proof = Rfc3161().anchor(DIGEST, NOTE, context(authority))
    assert proof.kind == "rfc3161"
    assert before <= proof.at <= datetime.now(UTC) + timedelta(seconds=1)
    moment = proof.at.isoformat(timespec="seconds").replace("+00:00", "Z")
    assert (
        Rfc3161().verify(proof.proof, DIGEST, authority.roots.read_bytes()) == f"time-stamped by Test TSA at {moment}"
    )
    assert DIGEST in authority.queries[-1]
    assert NOTE not in authority.queries[-1]


def test_openssl_accepts_what_is_stored(authority: Authority, tmp_path: Path) -> None:
    proof = Rfc3161().anchor(DIGEST, NOTE, context(authority))
    (tmp_path / "proof.tsr").write_bytes(proof.proof)
    stored = str(tmp_path / "proof.tsr")
    authority.openssl("ts", "-verify", "-digest", DIGEST.hex(), "-in", stored, "-CAfile", "ca.pem")


def test_another_digest_root_or_a_changed_byte_is_false(authority: Authority, stranger: Authority) -> None:
    proof = Rfc3161().anchor(DIGEST, NOTE, context(authority)).proof
    roots = authority.roots.read_bytes()
    with pytest.raises(ValueError, match="does not hold"):
        Rfc3161().verify(proof, bytes(32), roots)
    with pytest.raises(ValueError, match="does not hold"):
        Rfc3161().verify(proof, DIGEST, stranger.roots.read_bytes())
    for place in (len(proof) - 1, len(proof) // 2, 0):
        damaged = bytearray(proof)
        damaged[place] ^= 1
        with pytest.raises(ValueError, match="does not hold"):
            Rfc3161().verify(bytes(damaged), DIGEST, roots)
    with pytest.raises(LookupError, match="root certificate"):
        Rfc3161().verify(proof, DIGEST, b"")
    with pytest.raises(ValueError):
        Rfc3161().verify(proof, DIGEST, b"no certificate")


def test_what_an_authority_may_answer_instead_is_refused(authority: Authority, stranger: Authority) -> None:
    old = Rfc3161().anchor(DIGEST, NOTE, context(authority)).proof
    try:
        for answer, error in [
            ((200, {}, b""), "does not hold"),
            ((200, {}, b"\x30" * 40), "does not hold"),
            ((200, {}, old), "Nonce"),  # an earlier answer, played again
            ((500, {}, b""), "answered 500"),
            ((302, {"Location": stranger.url}, b""), "answered 302"),
            ((200, {}, bytes(1_000_001)), "longer than"),
            ((200, {"Content-Length": "9"}, b"x"), "timed out|end"),
        ]:
            authority.broken = answer
            with pytest.raises((ValueError, OSError), match=error):
                Rfc3161().anchor(DIGEST, NOTE, context(authority, timeout=1))
    finally:
        authority.broken = None
    assert stranger.queries == []
    with pytest.raises(ValueError, match="does not hold"):
        Rfc3161().anchor(DIGEST, NOTE, context(stranger, roots=str(authority.roots)))


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_proxies_of_the_environment_are_not_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    assert Rfc3161().anchor(DIGEST, NOTE, context(authority))


@pytest.mark.parametrize(
    "url", ["ftp://tsa.example", "tsa.example", "http://tsa.example/\nHost: x", "file:///etc/hosts"]
)
def test_addresses_are_http_ones(authority: Authority, url: str) -> None:
    with pytest.raises(ValidationError):
        context(authority, url=url)
