"""A receipt as PDF through all of this program, against typst alone with the same document."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from unittest import mock

from measure import Limit, Result, alternate, scaled, seconds
from stage import CUSTOMER, PORT, answer, fill, get, shop_on_sqlite, temporary_folder

from client import serve
from shared_record.access import links
from shared_record.clock import period_bounds, period_of
from shared_record.exports import paper
from shared_record.exports.typeset import typeset
from shared_record.ledger.receipts import issue_receipt
from shared_record.tenancy.policies import Policy
from world import Shop

DELTAS = 1_000
ROUNDS = 15
BARE = """
import sys, typst
pdf = typst.compile("main.typ", root=".", pdf_standards=["a-3a", "ua-1"], timestamp=int(sys.argv[1]))
sys.stdout.buffer.write(pdf)
"""


def pdf_receipt(scale: float) -> Result:
    """Ask for a receipt's PDF as a browser does; against a process that only imports typst and compiles the same.

    Both typeset the same files to the same standards, and both start a process for it.
    """
    with ExitStack() as stack:
        shop = stack.enter_context(shop_on_sqlite(stack.enter_context(temporary_folder())))
        fill(shop, DELTAS)
        shop.checkpoint()
        environ = get(f"/receipt/{_issue(shop)}.pdf") | {"HTTP_HOST": f"{shop.hosts[0]}:{PORT}"}
        application = serve(shop)
        files, issued = _captured(lambda: answer(application, environ))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, data in files.items():
            (folder / name).write_bytes(data)
        bare = [sys.executable, "-I", "-c", BARE, str(int(issued.timestamp()))]
        rounds = alternate(
            lambda: seconds(lambda: answer(application, environ)),
            lambda: seconds(lambda: subprocess.run(bare, cwd=folder, capture_output=True, check=True)),
            scaled(ROUNDS, scale, least=3),
        )
    return Result(
        "pdf-receipt",
        rounds.measured * 1000,
        rounds.reference * 1000,
        rounds.ratio,
        Limit("≤", 2.0),
        "ms",
        "GET /receipt/{id}.pdf in-process on SQLite, its child process included; a fresh Python process that imports"
        " typst and compiles the same files",
    )


def _issue(shop: Shop) -> str:
    with shop.db.write(shop.scope) as connection:
        links.set_tenant_policy(connection, shop.clock, shop.scope, Policy.OPEN, "benchmark")
    with shop.db.write(shop.scope) as connection:
        month = period_bounds(period_of(shop.clock.now()))
        receipt = issue_receipt(connection, shop.clock, shop.scope, shop.link(CUSTOMER).customer_id, *month)
    if receipt is None:
        raise RuntimeError("there is nothing to issue a receipt for")
    return receipt.receipt_id


def _captured(ask: Callable[[], object]) -> tuple[dict[str, bytes], datetime]:
    """Return the files that typst was given for one PDF, and its date."""
    seen: list[tuple[dict[str, bytes], datetime]] = []

    def noted(template: str, inputs: Mapping[str, bytes], issued: datetime) -> bytes:
        seen.append(({**inputs, "main.typ": template.encode()}, issued))
        return typeset(template, inputs, issued)

    with mock.patch.object(paper, "typeset", noted):
        ask()
    return seen[0]
