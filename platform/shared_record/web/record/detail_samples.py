"""Sample view models of the pages of one record and one period, the timeline and the receipts (see ``samples``)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from shared_record.web.record import format as fmt
from shared_record.web.record.chart import draw
from shared_record.web.record.detail_pages import (
    ChainRow,
    FactRow,
    FigureRow,
    FigureTable,
    PeriodPage,
    ReceiptRow,
    ReceiptsPage,
    RecordPage,
    TimelinePage,
    Twins,
)
from shared_record.web.record.more_samples import sheet
from shared_record.web.record.pages import Shell, Total

NOW = datetime(2026, 11, 22, 9, 41, tzinfo=UTC)
DIGEST = sha256(b"sample").hexdigest()
GROUPS = " ".join(DIGEST[i : i + 4] for i in range(0, 64, 4))
UNIT = "API credits"
DAYS = ("820.5", "1204", "-36.25", "0.125", "640.75", "912", "33.5", "1502.25", "77", "410", "1299.5", "5616.125")


def detail_pages(shell: Shell) -> dict[str, RecordPage | PeriodPage | TimelinePage | ReceiptsPage]:
    """Return each of these pages by a short name, in the frame of ``shell``."""
    return {
        "record": _record(shell, corrected=True),
        "record_new": _record(shell, corrected=False),
        "period": _period(shell, DAYS),
        "period_new": _period(shell, DAYS[:1]),
        "timeline": _timeline(shell),
        "receipts": _receipts(shell),
        "receipts_none": ReceiptsPage(shell, UNIT, (), "UTC", _twins(shell, "receipts")),
    }


def _twins(shell: Shell, path: str) -> Twins:
    return Twins(f"{shell.base}/{path}.json", f"{shell.base}/{path}.csv")


def _chain(shell: Shell) -> tuple[ChainRow, ...]:
    amounts = fmt.amount_cells(("36.25", "-36.25", "30"))
    notes = ("", "corrects rec_01", "corrects rec_02")
    return tuple(
        ChainRow(
            fmt.row_moment(NOW - timedelta(days=20 - 6 * index)),
            f"{shell.base}/activity/rec_0{index + 1}",
            f"rec_0{index + 1}",
            note,
            amount,
            is_this=index == 1,
        )
        for index, (note, amount) in enumerate(zip(notes, amounts, strict=True))
    )


def _record(shell: Shell, *, corrected: bool) -> RecordPage:
    chain = _chain(shell) if corrected else ()
    return RecordPage(
        shell=shell,
        record_id="rec_02",
        total=Total(fmt.format_total("-36.25"), UNIT),
        recorded=fmt.moment(NOW),
        state="verified" if corrected else "recording",
        number="204 of November 2026",
        period="November 2026",
        period_url=f"{shell.base}/periods/2026-11",
        running_total=f"{fmt.format_total('12480.5')} {UNIT}",
        digest=DIGEST,
        fingerprint=GROUPS,
        receipt_url=f"/receipt/0x{DIGEST}",
        twins=_twins(shell, "activity/rec_02"),
        used=fmt.moment(NOW - timedelta(hours=2)) if corrected else None,
        reference="INV-20389" if corrected else None,
        reason="Reversal of INV-20388",
        metadata=(("region", "eu-west"), ("model", "large")) if corrected else (),
        checkpoint=fmt.moment(NOW) if corrected else None,
        checkpoint_url="/log/t_0123456789abcdef/checkpoint" if corrected else "",
        corrects="rec_01" if corrected else "",
        corrects_url=f"{shell.base}/activity/rec_01" if corrected else "",
        corrected_by=chain[2:],
        chain=chain,
        chain_net=fmt.amount_cell("30", 2) if corrected else None,
    )


def _period(shell: Shell, days: tuple[str, ...]) -> PeriodPage:
    totals = {f"2026-11-{index + 1:02}": total for index, total in enumerate(days)}
    names = [f"2026-11-{index + 1:02}" for index in range(30)]
    labels = {name: f"{int(name[-2:])} Nov 2026: {fmt.format_total(total)}" for name, total in totals.items()}
    whole = "12479.5"
    rows = _figures([f"{int(name[-2:])} Nov 2026" for name in totals], list(totals.values()), whole)
    regions = _figures(["eu-west", "us-east", "Without a value"], ["9000.25", "3479.25", "0"], whole)
    return PeriodPage(
        shell=shell,
        heading="November 2026",
        in_progress=True,
        total=Total(fmt.format_total(whole), UNIT),
        boundaries=fmt.format_boundaries(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        as_of=fmt.moment(NOW),
        records=fmt.format_records(318),
        activity_url=f"{shell.base}/activity?period=2026-11",
        export_url=f"{shell.base}/export?period=2026-11",
        verify_url=f"{shell.base}/periods/2026-10/verify",
        compare_url=f"{shell.base}/compare?b=2026-11",
        twins=_twins(shell, "periods/2026-11"),
        days=FigureTable("", rows, _whole(whole)),
        verified_through=fmt.day(NOW) if len(days) > 1 else None,
        covered=fmt.format_records(318),
        fingerprint="7F3K-92QM" if len(days) > 1 else "",
        root=DIGEST if len(days) > 1 else "",
        root_groups=GROUPS,
        proof_url=f"{shell.base}/proof.tlog-proof?period=2026-11",
        receipt_url="/receipt/chk_1",
        chart=draw(
            names,
            totals,
            labels,
            first="1 Nov 2026",
            last="30 Nov 2026",
            title="Recorded by day, November 2026",
            description="One bar for each day.",
        )
        if len(days) > 1
        else None,
        breakdowns=(FigureTable("region", regions, _whole(whole), "Show all values", "?all=region"),),
        corrections=_chain(shell)[1:] if len(days) > 1 else (),
        sheet=sheet(f"{shell.base}/periods/2026-11"),
    )


def _figures(names: list[str], totals: list[str], whole: str) -> tuple[FigureRow, ...]:
    fraction = fmt.column_fraction([*totals, whole])
    return tuple(
        FigureRow(name, "26", fmt.amount_cell(total, fraction), f"?day={index}" if index < 20 else "", "records")
        for index, (name, total) in enumerate(zip(names, totals, strict=True))
    )


def _whole(total: str) -> FigureRow:
    return FigureRow("", "318", fmt.amount_cell(total, 3), noun="records")


def _timeline(shell: Shell) -> TimelinePage:
    texts = (
        "The newest checkpoint covers 318 records of November 2026, 12,479.50 API credits.",
        "Correction recorded: -36.25 API credits.",
        "Acme Cloud issued this link.",
        "Receipt issued for October 2026.",
        "October 2026 closed with 1,204 records, 11,902.25 API credits.",
        "November 2026 began with its first record.",
    )
    facts = tuple(
        FactRow(fmt.row_moment(NOW - timedelta(days=4 * index)), text, "" if index == 2 else f"{shell.base}/periods")
        for index, text in enumerate(texts)
    )
    older = f"{shell.base}/timeline?after=x"
    return TimelinePage(shell, facts, "UTC", _twins(shell, "timeline"), older_url=older)


def _receipts(shell: Shell) -> ReceiptsPage:
    cells = fmt.amount_cells(("11902.25", "11890", "9877"))
    names = ("October 2026", "October 2026", "1 to 15 September 2026 (UTC)")
    rows = tuple(
        ReceiptRow(name, f"/receipt/chk_{index}", fmt.row_moment(NOW), "1,204", "records", cell, superseded=index == 1)
        for index, (name, cell) in enumerate(zip(names, cells, strict=True))
    )
    return ReceiptsPage(shell, UNIT, rows, "UTC", _twins(shell, "receipts"), newest_url=f"{shell.base}/receipts")
