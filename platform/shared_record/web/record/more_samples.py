"""Sample view models of receipts, files that are prepared, and the comparison with an own file (see ``samples``)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from shared_record.web.record import format as fmt
from shared_record.web.record.pages import Closed, Option, Prepared, ReceiptPage, Sheet, Shell, Total
from shared_record.web.record.reconcile import Marks, Reconcile
from shared_record.web.record.sheet import qr_code

NOW = datetime(2026, 11, 22, 9, 41, tzinfo=UTC)
ORIGIN = "https://usage.acme.example"
RECEIPT = "chk_7m4qxw3t8bz6ch1rnd5jpv9f2k"


def sheet(path: str) -> Sheet:
    """Return the foot of a page on paper."""
    return Sheet(fmt.moment(NOW), ORIGIN, ORIGIN + path, qr_code(ORIGIN + path), "UTC", "UTC")


def more_pages(shell: Shell) -> dict[str, ReceiptPage | Prepared | Reconcile | Closed]:
    """Return each of these pages by a short name, in the frame of ``shell``."""
    waiting = Prepared(
        shell,
        "preparing",
        Option("2026-11", "November 2026"),
        Option("csv", "CSV"),
        "1,204,318 records",
        f"{shell.base}/export/file?period=2026-11&format=csv",
        f"{shell.base}/export/prepared?period=2026-11&format=csv",
        written=481_727,
        of=1_204_318,
        progress="40 %",
    )
    ready = replace(
        waiting,
        state="ready",
        records="1,204,318",
        size="112.4 MB",
        total=Total("12,480.50", "API credits"),
        digest=sha256(b"sample").hexdigest(),
        until=fmt.moment(NOW + timedelta(days=1)),
        later="12 records",
    )
    months = (Option("2026-11", "November 2026", selected=True), Option("2026-10", "October 2026"))
    return {
        "receipt": _receipt(shell),
        "receipt_outer": replace(
            _receipt(shell), total=None, pdf_url="", proof_url="", verifier_url="", later_url=f"/receipt/{RECEIPT}"
        ),
        "prepared": waiting,
        "prepared_ready": ready,
        "prepared_missing": replace(waiting, state="missing"),
        "prepared_failed": replace(waiting, state="failed"),
        "reconcile": Reconcile(
            shell,
            "reconcile.js",
            months,
            "2026-11",
            "November 2026",
            "318 records, 12,480.50 API credits",
            Marks("-", ",", "."),
            f"{shell.base}/activity.json?period=2026-11",
            f"{shell.base}/export/file?period=2026-11&format=csv",
            "usage-2026-11.csv",
        ),
        "reconcile_none": Reconcile(shell, "reconcile.js", ()),
        "closed": Closed(replace(shell, open_until=None), "https://id.example/end-session"),
    }


def _receipt(shell: Shell) -> ReceiptPage:
    root = sha256(b"receipt").hexdigest()
    return ReceiptPage(
        shell=replace(shell, base="", open_until=None, csrf_token=""),
        id=RECEIPT,
        heading="Receipt for October 2026",
        label="Recorded in this period",
        total=Total("11,902.25", "API credits"),
        boundaries=fmt.format_boundaries(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
        records=fmt.format_records(1204),
        issued=fmt.moment(datetime(2026, 11, 1, 0, 10, tzinfo=UTC)),
        root=" ".join(root[at : at + 8] for at in range(0, 64, 8)),
        json_url=f"/receipt/{RECEIPT}.json",
        checkpoint=fmt.moment(datetime(2026, 11, 1, 0, 10, tzinfo=UTC)),
        log_origin="app.example.com/log/t_0123456789abcdef",
        log_size="4,318",
        proof_url=f"/receipt/{RECEIPT}.tlog-proof",
        verifier_url="/static/verify.html",
        pdf_url=f"/receipt/{RECEIPT}.pdf",
        sheet=sheet(f"/receipt/{RECEIPT}"),
    )
