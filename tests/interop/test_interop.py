"""Other people's verifiers accept what we write, and refuse it once it is changed.

What downloads runs with ``SR_TEST_INTEROP=1`` or ``SR_TEST_REQUIRE_ALL=1``; under the latter uv, node and npm must be
there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymerkle import InmemoryTree

from shared_record.ledger import merkle
from shared_record.ledger.entry import epoch_text
from shared_record.ledger.note import VerifierKey, checkpoint_body, sign_note

ORIGIN = "records.example/log/t_0123456789abcdef"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIZES = (1, 2, 3, 7, 8, 13)
REQUIRED = os.environ.get("SR_TEST_REQUIRE_ALL") == "1"
DOWNLOADS = REQUIRED or os.environ.get("SR_TEST_INTEROP") == "1"

needs_downloads = pytest.mark.skipif(not DOWNLOADS, reason="downloads another verifier: set SR_TEST_INTEROP=1")


def epochs(count: int) -> list[str]:
    texts: list[str] = []
    for n in range(count):
        before = merkle.leaf_hash(texts[-1].encode()) if texts else b""
        root = merkle.leaf_hash(b"slot tree %d" % n)
        texts.append(epoch_text(epoch=n, prev=before, root=root, slots=4, ts=datetime(2026, 11, 22, 9, n, tzinfo=UTC)))
    return texts


def proofs() -> list[dict[str, Any]]:
    """Return a checkpoint and an inclusion proof for each leaf of some trees, as JSON with base64."""
    made = []
    vkey = VerifierKey.of(ORIGIN, KEY)
    public = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for size in SIZES:
        texts = epochs(size)
        hashes = [merkle.leaf_hash(text.encode()) for text in texts]
        note = sign_note(checkpoint_body(ORIGIN, size, merkle.root(hashes)), ORIGIN, KEY)
        made += [
            {
                "note": note,
                "leaf": b64(text.encode()),
                "index": index,
                "size": size,
                "root": b64(merkle.root(hashes)),
                "path": [b64(node) for node in merkle.inclusion_path(hashes, index)],
                "keyId": b64(vkey.id),
                "publicKey": b64(public),
            }
            for index, text in enumerate(texts)
        ]
    return made


def spoiled(proof: dict[str, Any]) -> list[dict[str, Any]]:
    """Return ``proof`` with one part changed at a time: leaf, path, size in the note, signature."""
    leaf = bytearray(base64.b64decode(proof["leaf"]))
    leaf[5] ^= 1
    changed = [proof | {"leaf": b64(bytes(leaf))}]
    if proof["path"]:
        changed.append(proof | {"path": [b64(bytes(32)), *proof["path"][1:]]})
        changed.append(proof | {"path": proof["path"][1:]})
    body, _, signature = proof["note"].partition("\n\n")
    changed.append(proof | {"note": body.replace("records.", "rekords.") + "\n\n" + signature})
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(f"{body}\n".encode())
    forged = base64.b64encode(VerifierKey.of(ORIGIN, KEY).id + other).decode()
    changed.append(proof | {"note": f"{body}\n\n— {ORIGIN} {forged}\n"})
    return changed


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def run(command: list[str], folder: Path, text: str | None = None) -> str:
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def judge(command: list[str], folder: Path) -> None:
    """Have another program judge our proofs, and our proofs spoiled."""
    good = proofs()
    bad = [changed for proof in good for changed in spoiled(proof)]
    verdicts = json.loads(run(command, folder, json.dumps(good + bad)))
    assert verdicts[: len(good)] == [True] * len(good)
    assert verdicts[len(good) :] == [False] * len(bad)


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        if REQUIRED:
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


# --- pymerkle: always -------------------------------------------------------------------------------------------------


def test_pymerkle_has_the_same_roots_and_paths() -> None:
    tree = InmemoryTree(algorithm="sha256")
    assert tree.get_root(0) == merkle.root([])
    hashes: list[bytes] = []
    for size in range(1, 150):
        data = b"entry %d" % size
        tree.append_entry(data)
        hashes.append(merkle.leaf_hash(data))
        assert tree.get_leaf(size) == hashes[-1]
        assert tree.get_root() == merkle.root(hashes)
        for index in {0, size // 2, size - 1}:
            theirs = tree.prove_inclusion(index + 1, size)
            path = merkle.inclusion_path(hashes, index)
            # Theirs begins with the leaf itself.
            assert theirs.path[1:] == path
            assert merkle.verify_inclusion(theirs.path[0], index, size, theirs.path[1:], tree.get_root())


# --- sigstore-python: downloads ---------------------------------------------------------------------------------------

SIGSTORE_PYTHON = """
    import base64, json, sys
    from types import SimpleNamespace as Bag
    from sigstore._internal.merkle import verify_merkle_inclusion
    from sigstore._internal.rekor.checkpoint import verify_checkpoint
    from sigstore._internal.trust import Keyring
    from sigstore.errors import VerificationError
    from sigstore_models.common.v1 import PublicKey, PublicKeyDetails

    def accepts(proof):
        raw = {name: base64.b64decode(proof[name]) for name in ("leaf", "root", "keyId")}
        part = Bag(
            log_index=proof["index"], tree_size=proof["size"], root_hash=raw["root"],
            hashes=[base64.b64decode(node) for node in proof["path"]], checkpoint=Bag(envelope=proof["note"]),
        )
        inner = Bag(inclusion_proof=part, canonicalized_body=raw["leaf"], log_id=Bag(key_id=raw["keyId"]))
        key = PublicKey(raw_bytes=proof["publicKey"], key_details=PublicKeyDetails.PKIX_ED25519)
        try:
            verify_merkle_inclusion(Bag(_inner=inner))
            verify_checkpoint(Keyring([key]), Bag(_inner=inner))
        except VerificationError:
            return False
        return True

    print(json.dumps([accepts(proof) for proof in json.load(sys.stdin)]))
"""


@needs_downloads
def test_sigstore_python_accepts_checkpoint_and_inclusion(tmp_path: Path) -> None:
    uv = program("uv")
    run([uv, "venv", "--quiet", "--python", sys.executable, "venv"], tmp_path)
    python = str(tmp_path / "venv/bin/python")
    run([uv, "pip", "install", "--quiet", "--python", python, "sigstore>=4.5,<5"], tmp_path)
    judge([python, "-c", textwrap.dedent(SIGSTORE_PYTHON)], tmp_path)


# --- @sigstore/verify: downloads --------------------------------------------------------------------------------------

SIGSTORE_NODE = """
    const { crypto } = require('@sigstore/core');
    const folder = require('path').join(process.cwd(), 'node_modules/@sigstore/verify/dist');
    const { verifyCheckpoint } = require(folder + '/tlog/checkpoint.js');
    const { verifyMerkleInclusion } = require(folder + '/tlog/merkle.js');
    const { VerificationError } = require(folder + '/error.js');
    const raw = (text) => Buffer.from(text, 'base64');

    function accepts(proof) {
      const entry = {
        canonicalizedBody: raw(proof.leaf),
        inclusionProof: {
          logIndex: String(proof.index), treeSize: String(proof.size), rootHash: raw(proof.root),
          hashes: proof.path.map(raw), checkpoint: { envelope: proof.note },
        },
      };
      const name = proof.note.slice(proof.note.indexOf('\\u2014')).split(' ')[1];
      const log = {
        logID: raw(proof.keyId), baseURL: 'https://' + name,
        publicKey: crypto.createPublicKey(raw(proof.publicKey), 'spki'),
      };
      try {
        verifyMerkleInclusion(entry, verifyCheckpoint(entry, [log]));
      } catch (error) {
        if (error instanceof VerificationError) return false;
        throw error;
      }
      return true;
    }

    console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8')).map(accepts)));
"""


@needs_downloads
def test_sigstore_for_node_accepts_checkpoint_and_inclusion(tmp_path: Path) -> None:
    node, npm = program("node"), program("npm")
    (tmp_path / "package.json").write_text('{"name": "interop", "private": true}')
    run([npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "@sigstore/verify@3"], tmp_path)
    script = tmp_path / "judge.cjs"
    script.write_text(textwrap.dedent(SIGSTORE_NODE))
    judge([node, str(script)], tmp_path)


# --- golang.org/x/mod/sumdb: where Debian's packages are --------------------------------------------------------------

GO = """
    package main

    import (
        "encoding/base64"
        "encoding/json"
        "os"
        "strings"

        "golang.org/x/mod/sumdb/note"
        "golang.org/x/mod/sumdb/tlog"
    )

    type proof struct {
        Note, Leaf, Vkey string
        Index, Size      int64
        Path             []string
    }

    func hash(text string) (h tlog.Hash) {
        data, _ := base64.StdEncoding.DecodeString(text)
        copy(h[:], data)
        return
    }

    func accepts(p proof) bool {
        verifier, err := note.NewVerifier(p.Vkey)
        if err != nil {
            panic(err)
        }
        signed, err := note.Open([]byte(p.Note), note.VerifierList(verifier))
        if err != nil {
            return false
        }
        var path tlog.RecordProof
        for _, node := range p.Path {
            path = append(path, hash(node))
        }
        leaf, _ := base64.StdEncoding.DecodeString(p.Leaf)
        root := hash(strings.Split(signed.Text, "\\n")[2])
        return tlog.CheckRecord(path, p.Size, root, p.Index, tlog.RecordHash(leaf)) == nil
    }

    func main() {
        var proofs []proof
        if err := json.NewDecoder(os.Stdin).Decode(&proofs); err != nil {
            panic(err)
        }
        verdicts := []bool{}
        for _, p := range proofs {
            verdicts = append(verdicts, accepts(p))
        }
        json.NewEncoder(os.Stdout).Encode(verdicts)
    }
"""


def test_golang_x_mod_accepts_checkpoint_and_inclusion(tmp_path: Path) -> None:
    """Debian's ``golang-go`` and ``golang-golang-x-mod-dev``: nothing is downloaded."""
    if shutil.which("go") is None or not Path("/usr/share/gocode/src/golang.org/x/mod/sumdb").is_dir():
        pytest.skip("golang-go and golang-golang-x-mod-dev are not installed")
    (tmp_path / "judge.go").write_text(textwrap.dedent(GO))
    settings = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(tmp_path / "cache")}
    build = subprocess.run(
        ["go", "build", "-o", "judge", "judge.go"],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    vkey = str(VerifierKey.of(ORIGIN, KEY))
    good = [proof | {"vkey": vkey} for proof in proofs()]
    bad = [changed for proof in good for changed in spoiled(proof)]
    verdicts = json.loads(run([str(tmp_path / "judge")], tmp_path, json.dumps(good + bad)))
    assert verdicts == [True] * len(good) + [False] * len(bad)
