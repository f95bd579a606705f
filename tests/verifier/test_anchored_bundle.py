"""Time-stamps from the worker to a bundle, and what each verifier says of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared_record.cli.verify import verify
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins
from shared_record.ledger.outbound import post
from shared_record.plugin import AnchorContext
from shared_record.tenancy.tenants import update_tenant
from shared_record.verifier.files import check_file
from shared_record.verifier.trust import Result
from shared_record.worker import Worker
from tsa import Authority, serve_authority
from world import Shop


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with serve_authority(tmp_path_factory.mktemp("tsa") / "one") as found:
        yield found


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with serve_authority(tmp_path_factory.mktemp("tsa") / "two", "Other TSA") as found:
        yield found


@pytest.fixture
def bundle(shop: Shop, authority: Authority, tmp_path: Path) -> Path:
    """A bundle with a time-stamp of an earlier checkpoint than its own."""
    settings = {"url": authority.url, "roots": str(authority.roots)}
    with shop.db.write(shop.scope) as connection:
        update_tenant(connection, shop.scope, {"anchors": [{"anchor": "rfc3161", "settings": settings}]})
    worker = Worker(shop.db, shop.keys, shop.clock, shop.locks, 10, load_plugins().checkpoint_anchors)
    for _ in range(2):
        shop.record("cust_a", "1.5")
        shop.clock.advance(seconds=11)
        worker.run_once()
        worker.anchor_once()
    out = io.BytesIO()
    kind = load_plugins().export_formats["bundle"]
    customer = shop.link("cust_a").customer_id
    build_export(shop.db, shop.keys, shop.clock, shop.scope, customer, "2026-11", kind, out)
    path = tmp_path / "bundle.zip"
    path.write_bytes(out.getvalue())
    return path


def run(*arguments: object, home: Path) -> tuple[int, dict[str, object]]:
    environment = {"XDG_CONFIG_HOME": str(home), "SHARED_RECORD_DATA_DIR": str(home)}
    done = CliRunner().invoke(verify, ["--json", *map(str, arguments)], env=environment)
    return done.exit_code, json.loads(done.stdout)


def test_a_bundle_carries_the_proof_and_verify_says_who_stamped_it(
    bundle: Path, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    names = zipfile.ZipFile(bundle).namelist()
    assert {"anchors/1.rfc3161", "known-checkpoints/1.note", "known-checkpoints/2.note"} <= set(names)
    assert check_file(bundle).result is Result.MATCHES
    code, form = run("--trust", authority.roots, bundle, home=tmp_path)
    assert code == 0
    assert any(line.startswith("The checkpoint of size 1 was time-stamped by Test TSA at ") for line in form["checked"])
    code, form = run(bundle, home=tmp_path)
    assert code == 0
    assert any(line.startswith("Not checked: anchors/1.rfc3161") for line in form["notChecked"])
    code, form = run("--trust", stranger.roots, bundle, home=tmp_path)
    assert code == 4
    assert form["reason"].startswith("anchors/1.rfc3161 does not hold")


def test_without_the_plugin_the_proof_is_listed_as_not_checked(
    bundle: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_record.cli.verify.load_plugins", lambda: load_plugins([]))
    code, form = run("--trust", authority.roots, bundle, home=tmp_path)
    assert code == 0
    assert any("no plugin for anchors of the kind rfc3161" in line for line in form["notChecked"])


def test_a_proof_that_was_exchanged_for_another_does_not_match(
    bundle: Path, authority: Authority, tmp_path: Path
) -> None:
    """Whoever makes the bundle can write a manifest to any file; the time-stamp itself says what it is over."""
    anchor = load_plugins().checkpoint_anchors["rfc3161"]
    settings = anchor.settings_model.model_validate({"url": authority.url, "roots": str(authority.roots)})
    other = anchor().anchor(hashlib.sha256(b"x").digest(), b"x", AnchorContext(settings, datetime.now(UTC), post)).proof
    folder = tmp_path / "open"
    zipfile.ZipFile(bundle).extractall(folder)
    text = base64.b64encode(other).decode() + "\n"
    manifest = (folder / "manifest.json").read_text()
    old = hashlib.sha256((folder / "anchors/1.rfc3161").read_bytes()).hexdigest()
    (folder / "anchors/1.rfc3161").write_text(text)
    manifest = manifest.replace(old, hashlib.sha256(text.encode()).hexdigest())
    body = manifest[: manifest.rindex('"sha256":"')]
    (folder / "manifest.json").write_text(f'{body}"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n')
    assert run(folder, home=tmp_path)[0] == 0
    assert run("--trust", authority.roots, folder, home=tmp_path)[0] == 4


def test_the_verifier_in_the_bundle_takes_it_as_it_is(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    zipfile.ZipFile(bundle).extractall(folder)
    done = subprocess.run(
        [sys.executable, folder / "verify.py", bundle], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
