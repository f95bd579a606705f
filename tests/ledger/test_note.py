from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared_record.ledger import note
from shared_record.ledger.merkle import EMPTY_ROOT

# The example of golang.org/x/mod/sumdb/note, from which C2SP signed-note comes.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_BODY = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    f"{GO_BODY}\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# RFC 8032, section 7.1, test 1.
RFC_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
RFC_SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465"
    "5141438e7a100b"
)
ORIGIN = "app.example/log/t1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
VKEY = note.VerifierKey.of(ORIGIN, KEY)
BODY = note.checkpoint_body(ORIGIN, 3, b"\7" * 32)
SIGNED = note.sign_note(BODY, ORIGIN, KEY)


def test_the_go_example() -> None:
    key = note.VerifierKey.parse(GO_KEY)
    assert str(key) == GO_KEY
    assert note.open_note(GO_NOTE, [key]) == GO_BODY
    with pytest.raises(ValueError, match="wrong"):
        note.open_note(GO_NOTE.replace("answer", "Answer"), [key])


def test_rfc_8032_test_1() -> None:
    key = note.VerifierKey.of("rfc8032", Ed25519PrivateKey.from_private_bytes(RFC_SEED))
    assert key.public_key == RFC_PUBLIC
    assert key.verify("", RFC_SIGNATURE)
    assert not key.verify("x", RFC_SIGNATURE)
    assert not key.verify("", RFC_SIGNATURE[:-1])


def test_sign_and_open() -> None:
    assert note.sign_note(BODY, ORIGIN, KEY) == SIGNED
    assert note.open_note(SIGNED, [VKEY]) == BODY
    assert note.parse_checkpoint(BODY) == note.Checkpoint(ORIGIN, 3, b"\7" * 32)


def test_unknown_signatures_are_ignored_and_bad_known_ones_refuse() -> None:
    both = SIGNED + note.sign_note(BODY, "witness.example/w", OTHER).rsplit("\n\n", 1)[1]
    assert note.open_note(both, [VKEY]) == BODY
    witness = note.VerifierKey.of("witness.example/w", OTHER)
    assert note.open_note(both, [VKEY, witness]) == BODY
    with pytest.raises(ValueError, match="no signature by a known key"):
        note.open_note(SIGNED, [witness])
    with pytest.raises(ValueError, match="no signature by a known key"):
        note.open_note(SIGNED, [])
    forged = f"— {ORIGIN} {note.b64encode(VKEY.id + bytes(64))}\n"
    with pytest.raises(ValueError, match="wrong"):
        note.open_note(SIGNED + forged, [VKEY])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        BODY,
        SIGNED[:-1],
        SIGNED + "\n",
        SIGNED.replace("\n\n", "\n"),
        SIGNED.replace("— ", "- "),
        SIGNED.replace("— ", "—  "),
        SIGNED[:-2] + "\n",
        SIGNED.replace(ORIGIN + " ", " "),
        SIGNED.replace("\n", "\r\n"),
        SIGNED + "\ud800\n",
        f"{BODY}\n— {ORIGIN} AAAA\n",
        f"{BODY}\n" + SIGNED.rsplit("\n\n", 1)[1] * (note.MAX_SIGNATURES + 1),
        "x" * note.MAX_NOTE + SIGNED,
    ],
)
def test_malformed_notes(text: str) -> None:
    with pytest.raises(ValueError):
        note.open_note(text, [VKEY])


@given(st.data())
def test_any_changed_character_of_a_note_is_noticed(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(SIGNED) - 1))
    new = data.draw(st.characters(exclude_characters=SIGNED[position]))
    with pytest.raises(ValueError):
        note.open_note(SIGNED[:position] + new + SIGNED[position + 1 :], [VKEY])


def test_base64_has_one_spelling() -> None:
    assert note.b64decode("AQ==") == b"\1"
    for text in ("AR==", "AQ", "AQ=", "AQ==\n", " AQ==", "A-_=", "é"):
        with pytest.raises(ValueError, match="base64"):
            note.b64decode(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("c74f20a3", "C74F20A3"),
        GO_KEY.replace("+ARpc", "+Ahpc"),
        GO_KEY[:-4],
        GO_KEY + "\n",
        GO_KEY.replace("Peter", "Peter "),
        GO_KEY.replace("PeterNeumann", ""),
        "a+00000000+",
    ],
)
def test_malformed_verifier_keys(text: str) -> None:
    with pytest.raises(ValueError):
        note.VerifierKey.parse(text)


@given(st.binary(min_size=32, max_size=32))
def test_verifier_keys_round_trip_whatever_their_base64_holds(public: bytes) -> None:
    key = note.VerifierKey("example.com/log", public)
    assert note.VerifierKey.parse(str(key)) == key
    assert len(key.fingerprint) == 64


@pytest.mark.parametrize(
    "body",
    [
        "",
        f"{ORIGIN}\n3\n",
        BODY + "extension\n",
        BODY[:-1],
        BODY.replace("\n3\n", "\n03\n"),
        BODY.replace("\n3\n", "\n-3\n"),
        BODY.replace("\n3\n", "\n٣\n"),
        BODY.replace("\n3\n", "\n9223372036854775808\n"),
        BODY.replace("\n3\n", "\n0\n"),
        BODY.replace(ORIGIN, ""),
        BODY.replace(ORIGIN, "a b"),
        f"{ORIGIN}\n3\nAAAA\n",
    ],
)
def test_malformed_checkpoints(body: str) -> None:
    with pytest.raises(ValueError):
        note.parse_checkpoint(body)


def test_an_empty_log_has_the_empty_root() -> None:
    body = note.checkpoint_body(ORIGIN, 0, EMPTY_ROOT)
    assert note.parse_checkpoint(body).size == 0
    with pytest.raises(ValueError, match="empty root"):
        note.checkpoint_body(ORIGIN, 0, bytes(32))


def test_policy() -> None:
    second = note.VerifierKey.of(ORIGIN, OTHER)
    moved = note.VerifierKey.of(f"{ORIGIN}/2", KEY)
    text = (
        f"# known logs\n\n  log\t{VKEY} https://app.example/log/t1\nlog {second}\nlog {moved}\nlog {GO_KEY}\n"
        f"witness w1 {GO_KEY}\ngroup g 1 w1\nquorum g\n"
    )
    policy = note.parse_policy(text)
    assert policy.logs == {
        ORIGIN: [str(VKEY), str(second)],
        f"{ORIGIN}/2": [str(moved)],
        "PeterNeumann": [GO_KEY],
    }
    assert policy.quorum == "g"
    assert note.parse_policy("quorum none\n") == note.Policy({}, None)


@pytest.mark.parametrize(
    "line", ["logs x", "log", "log x", f"log {GO_KEY} a b", f"log {GO_KEY}\nlog {GO_KEY}", "quorum"]
)
def test_malformed_policies(line: str) -> None:
    with pytest.raises(ValueError, match=r"line [12]"):
        note.parse_policy(line)
