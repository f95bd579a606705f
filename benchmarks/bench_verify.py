"""The verifiers that travel with a bundle, against hashing the bundle's lines."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from measure import Limit, Result, alternate, scaled, seconds
from sqlalchemy import bindparam, select
from stage import fill, shop_on_sqlite, temporary_folder

from shared_record.db.schema import period_tree
from shared_record.exports.service import build_export
from shared_record.ledger.checkpoints import make_checkpoint
from world import Shop

ENTRIES = 1_000_000
IN_PAGE = 100_000
ROUNDS = 3
SECONDS_IN_PAGE = 5.0
CHROMIUM = Path(os.environ.get("SR_TEST_CHROMIUM", "/usr/bin/chromium"))

_T = bindparam("t")


def verify_py(scale: float) -> Result:
    """Run ``verify.py`` on a bundle, as a customer would; against SHA-256 of each line of its two files of rows."""
    entries = scaled(ENTRIES, scale, least=300)
    with temporary_folder() as folder:
        bundle = _bundle(folder, entries)
        with zipfile.ZipFile(bundle) as archive:
            archive.extract("verify.py", folder)
            lines = b"".join(archive.read(name) for name in ("entries.jsonl", "details.jsonl")).split(b"\n")
        command = [sys.executable, "-I", str(folder / "verify.py"), str(bundle)]

        def ours() -> float:
            return seconds(lambda: subprocess.run(command, check=True, capture_output=True))

        rounds = alternate(ours, lambda: seconds(lambda: _hash(lines)), ROUNDS)
    return Result(
        "verify-py",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≤", 12),
        "s",
        f"a bundle of {entries:,} entries, checked by its own verify.py as a program; SHA-256 of its "
        f"{len(lines) - 1:,} lines of entries and details, one by one",
    )


def verify_page(scale: float) -> Result:
    """Check a bundle in the page, in Chromium; against five seconds for 100,000 entries."""
    entries = scaled(IN_PAGE, scale, least=300)
    with temporary_folder() as folder:
        bundle = _bundle(folder, entries)
        with zipfile.ZipFile(bundle) as archive:
            page = Path(archive.extract("verify.html", folder))
        rounds = _in_chromium(page, bundle)
    allowed = SECONDS_IN_PAGE * entries / IN_PAGE
    return Result(
        "verify-page",
        rounds,
        allowed,
        rounds / allowed,
        Limit("≤", 1),
        "s",
        f"a bundle of {entries:,} entries, checked by its own verify.html in Chromium from disk; "
        f"{SECONDS_IN_PAGE:g} s for {IN_PAGE:,}",
    )


def _in_chromium(page: Path, bundle: Path) -> float:
    """Return the seconds that the quickest of the rounds took, the browser's start not counted."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto(page.as_uri())
        opened.evaluate(
            "(data) => { window.given = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)); }", _base64(bundle)
        )
        for _ in range(ROUNDS):
            start = time.perf_counter()
            found = opened.evaluate("async () => (await sharedRecord.check(new Blob([window.given]), [])).result")
            times.append(time.perf_counter() - start)
            if found != "matches":
                raise RuntimeError(f"the page says {found}")
        browser.close()
    return sorted(times)[len(times) // 2]


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _bundle(folder: Path, entries: int) -> Path:
    """Make a real bundle: a ledger of one customer, its checkpoint, its export."""
    from shared_record_export_bundle import Bundle

    path = folder / "bundle.zip"
    with shop_on_sqlite(folder) as shop, path.open("wb") as out:
        fill(shop, entries)
        make_checkpoint(shop.db, shop.keys, shop.clock, shop.locks, shop.lease())
        _export(shop, Bundle, out)
    return path


def _export(shop: Shop, kind: type, out: io.BufferedWriter) -> None:
    wanted = select(period_tree.c.customer_id, period_tree.c.period).where(period_tree.c.tenant_id == _T)
    with shop.db.read(shop.scope) as connection:
        tree = connection.execute(wanted, {"t": shop.scope.plane}).one()
    build_export(shop.db, shop.keys, shop.clock, shop.scope, tree.customer_id, tree.period, kind, out)


def _hash(lines: list[bytes]) -> None:
    sha256 = hashlib.sha256
    for line in lines:
        sha256(line).digest()
