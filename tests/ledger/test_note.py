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
WITNESS = note.WitnessKey.of("witness.example/w1", OTHER)
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
        f"witness w1 {WITNESS}\ngroup g 1 w1\nquorum g\n"
    )
    policy = note.parse_policy(text)
    assert policy.logs == {
        ORIGIN: [str(VKEY), str(second)],
        f"{ORIGIN}/2": [str(moved)],
        "PeterNeumann": [GO_KEY],
    }
    assert policy.quorum == "g"
    assert policy.witnesses == {"w1": WITNESS}
    assert policy.groups == {"g": note.Group(1, ("w1",))}
    assert note.parse_policy("quorum none\n") == note.Policy({}, None)


@pytest.mark.parametrize(
    "line", ["logs x", "log", "log x", f"log {GO_KEY} a b", f"log {GO_KEY}\nlog {GO_KEY}", "quorum"]
)
def test_malformed_policies(line: str) -> None:
    with pytest.raises(ValueError, match=r"line [12]"):
        note.parse_policy(line)


# --- Cosignatures ----------------------------------------------------------------------------------------------------


def test_cosignatures() -> None:
    line = note.cosign(BODY, WITNESS.name, OTHER, 1679315147)
    [found] = note.find_cosignatures(SIGNED + line, [WITNESS])
    assert found == (WITNESS, 1679315147, line)
    assert note.WitnessKey.parse(str(WITNESS)) == WITNESS
    assert note.open_note(SIGNED + line, [VKEY]) == BODY
    assert note.find_cosignatures(SIGNED + line + line, [WITNESS]) == [found]
    assert note.find_cosignatures(SIGNED + line, []) == []
    false = note.cosign(BODY + "x\n", WITNESS.name, OTHER, 1679315147)
    with pytest.raises(ValueError, match=r"cosignature of witness\.example/w1 is wrong"):
        note.find_cosignatures(SIGNED + false, [WITNESS])


def test_a_cosignature_is_of_its_time() -> None:
    line = note.cosign(BODY, WITNESS.name, OTHER, 5)
    data = note.b64decode(line.split(" ")[2][:-1])
    moved = data[:4] + (6).to_bytes(8) + data[12:]
    with pytest.raises(ValueError, match="wrong"):
        note.find_cosignatures(f"{SIGNED}— {WITNESS.name} {note.b64encode(moved)}\n", [WITNESS])


def test_keys_of_logs_and_of_witnesses_are_not_taken_for_each_other() -> None:
    with pytest.raises(ValueError, match="0x04"):
        note.WitnessKey.parse(str(VKEY))
    with pytest.raises(ValueError, match="0x01"):
        note.VerifierKey.parse(str(WITNESS))


QUORUMS = """\
witness a {}
witness b {}
witness c {}
witness d {}
group ab all a b
group cd any c d
group both 2 ab cd
quorum both
"""


def test_quorums_of_groups() -> None:
    keys = [note.WitnessKey.of(f"w/{n}", Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))) for n in range(1, 5)]
    policy = note.parse_policy(QUORUMS.format(*keys))
    a, b, c, d = keys
    assert policy.is_met([a, b, c])
    assert policy.is_met([a, b, d])
    assert not policy.is_met([a, c, d])
    assert not policy.is_met([a, b])
    assert note.parse_policy("quorum none\n").is_met([])


@pytest.mark.parametrize(
    "text",
    [
        f"witness none {WITNESS}",
        f"witness a {VKEY}",
        f"witness a {WITNESS}\nwitness a {WITNESS}",
        f"witness a {WITNESS}\nwitness b {WITNESS}",
        f"witness a {WITNESS}\ngroup g 0 a",
        f"witness a {WITNESS}\ngroup g 2 a",
        f"witness a {WITNESS}\ngroup g 01 a",
        f"witness a {WITNESS}\ngroup g any a a",
        f"witness a {WITNESS}\ngroup g any a\ngroup h any a",
        "group g any a",
        "group g any",
        "quorum g",
    ],
)
def test_malformed_quorums(text: str) -> None:
    with pytest.raises(ValueError, match="line "):
        note.parse_policy(text)
