"""Sample view models of every customer page: for ``theme preview``, ``theme check`` and tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from shared_record.plugin import Field
from shared_record.web.record import format as fmt
from shared_record.web.record import pages
from shared_record.web.record.detail_samples import detail_pages
from shared_record.web.record.more_samples import more_pages, sheet
from shared_record.web.render import Page

NOW = datetime(2026, 11, 22, 9, 41, tzinfo=UTC)
BASE = "/c/9f2k7m4qxw3t8bz6ch1rnd5jpv"
ASSETS = pages.Assets(core_css="/static/record.css", favicon="/static/favicon.svg")
STATES = ("recording", "recorded", "verified")
AMOUNTS = ("128.5", "1204", "-36.25", "96.125", "0.75", "12.5", "310", "4.2", "1980.4", "75")
REASONS = ("API calls", "Batch import, eu-west", "Reversal of INV-20388", "", "Nightly export", "API calls")


def shell(**changes: object) -> pages.Shell:
    """Return what the sample pages have in common."""
    plain = pages.Shell(
        vendor="Acme Cloud",
        host="usage.acme.example",
        base=BASE,
        assets=ASSETS,
        theme_css="/static/theme.css",
        contact=pages.Contact("billing@acme.example", "mailto:billing@acme.example"),
        csrf_token="csrf-sample",  # noqa: S106
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def open_shell() -> pages.Shell:
    """Return the same with an open session."""
    return shell(open_until=fmt.Moment(fmt.format_clock(NOW + timedelta(hours=8)), "2026-11-22T17:41:00Z"))


def rows(count: int, *, inner: bool = True, amounts: tuple[str, ...] = AMOUNTS) -> tuple[pages.RowView, ...]:
    """Return ``count`` records, the newest first, in all three states."""
    texts = tuple(amounts[index % len(amounts)] for index in range(count))
    made = []
    for index, cell in enumerate(fmt.amount_cells(texts)):
        at = NOW - timedelta(hours=7 * index, minutes=13 * index + 4)
        made.append(
            pages.RowView(
                record_id=f"rec_{index:04d}",
                recorded=fmt.row_moment(at),
                used=fmt.row_moment(at - timedelta(minutes=index * 31)) if inner and index % 4 != 3 else None,
                amount=cell,
                state=STATES[min(index, 2)],
                reference=f"INV-{20391 - index}" if inner else None,
                reason=(REASONS[index % len(REASONS)] or None) if inner else None,
            )
        )
    return tuple(made)


def landing(amount: str = "12480.5", **changes: object) -> pages.Landing:
    """Return the page behind the link."""
    plain = pages.Landing(
        shell=shell(),
        total=pages.Total(fmt.format_total(amount), "API credits"),
        boundaries=fmt.format_boundaries(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        as_of=fmt.moment(NOW),
        records=fmt.format_records(318),
        verified_through=fmt.day(NOW - timedelta(days=1)),
        next_checkpoint=fmt.moment(datetime(2026, 11, 23, 0, 10, tzinfo=UTC)),
        recent=rows(5, inner=False),
        sheet=sheet(BASE),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def empty_landing() -> pages.Landing:
    """Return the landing page of a period without records."""
    previous = "October 2026: 11,902.25 API credits"
    return replace(landing(), total=None, verified_through=None, recent=(), previous=previous)


CODE = pages.FieldView(
    Field(
        name="code",
        label="Access code",
        hint="Six letters and numbers printed next to the link on your invoice, for example K7M-4QX. "
        "Capitals and dashes do not matter.",
        autocapitalize="characters",
        max_length=20,
    )
)
METHODS = (
    pages.Option("access_code", "Access code from your invoice", selected=True),
    pages.Option("email-code", "Code by email", hint="A code is sent to an address on the list for this record."),
    pages.Option("sso", "Sign in with Example ID"),
)


def unlock(*, wrong: bool = False, chooser: bool = False) -> pages.Unlock:
    """Return the step-up: the code's form, a wrong code, or the chooser."""
    if chooser:
        return pages.Unlock(shell=shell(), methods=METHODS, next=BASE + "/periods")
    text = "That code does not match this record. Check your most recent invoice. 4 tries left before a wait."
    view = replace(CODE, value="K7M4QY", error=text) if wrong else CODE
    form = pages.MethodForm("access_code", "Access code from your invoice", (view,))
    errors = (pages.FormError(text, view.name),) if wrong else ()
    return pages.Unlock(shell=shell(), methods=METHODS, method=form, next=BASE + "/periods", errors=errors)


def unlock_sent() -> pages.Unlock:
    """Return the form for a code that was just sent."""
    code = pages.FieldView(
        Field(name="code", label="Code from the email", hint="Eight digits. Blanks and dashes do not matter.")
    )
    text = "If this address is on the list for this record, a code is on its way. It works for 15 minutes."
    form = pages.MethodForm("email-code", "Code by email", (code,), text, challenge="ticket", again="Send again")
    return pages.Unlock(shell=shell(), methods=METHODS, method=form, next=BASE + "/periods")


PERIODS = (
    pages.Option("2026-11", "November 2026 (in progress)", selected=True),
    pages.Option("2026-10", "October 2026"),
    pages.Option("2026-09", "September 2026"),
)


def activity(*, filtered: bool = False) -> pages.Activity:
    """Return a page of records, or one whose filters find none."""
    return pages.Activity(
        shell=open_shell(),
        heading="Activity in November 2026",
        periods=PERIODS,
        filter=pages.ActivityFilter(reference="INV-2", late=True) if filtered else pages.ActivityFilter(),
        rows=() if filtered else rows(10),
        records=fmt.format_records(318),
        net=fmt.amount_cell("12480.5", 3),
        unit="API credits",
        zone="UTC",
        as_of=fmt.moment(NOW),
        json_url=BASE + "/activity.json",
        csv_url=BASE + "/activity.csv",
        newer_url=BASE + "/activity?before=rec_0000",
        older_url=BASE + "/activity?after=rec_0009",
    )


def activity_wrong() -> pages.Activity:
    """Return the same where a filter cannot be understood."""
    errors = (pages.FormError("Enter a day such as 2026-11-22.", "from"),)
    return replace(activity(filtered=True), filter=pages.ActivityFilter(reference="INV-2"), errors=errors)


def periods() -> pages.Periods:
    """Return four periods, one of them open."""
    months = ("2026-11", "2026-10", "2026-09", "2026-08")
    totals = fmt.amount_cells(("12480.5", "11902.25", "9877", "10443.125"))
    counts = (318, 1204, 297, 301)
    return pages.Periods(
        shell=open_shell(),
        unit="API credits",
        rows=tuple(
            pages.PeriodRow(
                name=fmt.format_month(month),
                url=f"{BASE}/periods/{month}",
                activity_url=f"{BASE}/activity?period={month}",
                total=total,
                records=fmt.format_count(count),
                noun=fmt.records_noun(count),
                verified_through=("21 Nov 2026", "31 Oct 2026", "30 Sept 2026", "31 Aug 2026")[index],
                receipt_url="" if index == 0 else f"/receipt/chk_{index}",
                in_progress=index == 0,
            )
            for index, (month, total, count) in enumerate(zip(months, totals, counts, strict=True))
        ),
    )


def compare(second: str = "12480.5", first: str = "11902.25", difference: str = "578.25") -> pages.Compare:
    """Return two periods and their difference."""
    column = fmt.column_fraction((second, first, difference))
    totals = [fmt.amount_cell(amount, column) for amount in (second, first)]
    return pages.Compare(
        shell=open_shell(),
        first=(PERIODS[1], PERIODS[2]),
        second=PERIODS,
        unit="API credits",
        lines=(
            pages.CompareRow("November 2026", totals[0], "318", "records"),
            pages.CompareRow("October 2026", totals[1], "1,204", "records"),
        ),
        difference=pages.CompareRow(
            "Difference (second minus first)",
            fmt.amount_cell(difference, column, signed=True),
            fmt.format_amount("-886", signed=True),
            "records",
        ),
        note="November 2026 is in progress.",
    )


def export() -> pages.Export:
    """Return the choice of period and format."""
    return pages.Export(
        shell=open_shell(),
        periods=(
            pages.Option("2026-11", "November 2026, 318 records", selected=True),
            pages.Option("2026-10", "October 2026, 1,204 records"),
        ),
        formats=(
            pages.Option("csv", "CSV", selected=True, hint="For spreadsheets. Amounts are exact."),
            pages.Option("json", "JSON", hint="With the proofs, for checking independently."),
        ),
        as_of=fmt.moment(NOW),
    )


def prepared(state: str = "preparing") -> pages.Prepared:
    """Return the page of a large file, on its way or ready."""
    page = pages.Prepared(
        shell=open_shell(),
        state=state,
        period=pages.Option("2026-11", "November 2026"),
        format=pages.Option("csv", "CSV"),
        rows="1.2 million records",
        url=f"{BASE}/export/file?period=2026-11&format=csv",
        again_url=f"{BASE}/export/prepared?period=2026-11&format=csv",
        written=340_000,
        of=1_204_118,
        progress="340,000 of 1,204,118 records so far.",
    )
    if state != "ready":
        return page
    return replace(
        page,
        records="1,204,118 records",
        size="214 MB",
        total=pages.Total("12,480.50", "API credits"),
        digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        until=fmt.moment(NOW + timedelta(days=1)),
        later="18 records",
    )


TOO_MANY = "Many requests came from this connection. Try again after 09:46 UTC."
FAULT = "Viewing a page does not change the record."


def verify(**changes: object) -> pages.Verify:
    """Return the page of checks."""
    plain = pages.Verify(
        shell=open_shell(),
        files=pages.VerifierFiles("/static/verify.js", "/static/check.js", "/static/verify.py", "/static/verify.html"),
        nonce="nonce-sample",
        period="2026-11",
        figures_url=BASE + ".json",
        log_url="/log/t_0123456789abcdef",
        api_url="/api/v1" + BASE,
        proof_url=BASE + "/proof.tlog-proof?period=2026-11",
        proof_name="proof-2026-11.tlog-proof",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def access_log(*, used: bool = True) -> pages.AccessLog:
    """Return devices and facts, or those of a link that nobody used."""
    device = pages.DeviceRow(fmt.moment(NOW - timedelta(hours=1)), fmt.moment(NOW), "Access code", is_this=True)
    other = replace(device, method="Code by email", hint="k…@northwind.example", is_this=False)
    facts = (
        pages.Fact(fmt.moment(NOW), "File downloaded: November 2026, csv."),
        pages.Fact(fmt.moment(NOW - timedelta(hours=1)), "Opened: Access code."),
        pages.Fact(fmt.moment(NOW - timedelta(days=3)), "Viewed 12 times with the link alone, 09:00 to 10:00 UTC."),
    )
    return pages.AccessLog(open_shell(), (device, other) if used else (device,), "UTC", facts if used else ())


def all_pages() -> dict[str, Page]:
    """Every page in the states worth looking at, by a short name."""
    return {
        "landing": landing(),
        "landing_open": landing(shell=open_shell()),
        "landing_all": landing(shell=shell(open_to_all=True, test_data=True, report="https://records.example/report")),
        "landing_long": landing("12345678901234567890.123456789012345678901234"),
        "landing_medium": landing("123456789.1234", recent=rows(5, inner=False, amounts=("1.123456", "20", "-3000.5"))),
        "landing_empty": empty_landing(),
        "gated": pages.Gated(shell=shell()),
        "unlock": unlock(),
        "unlock_wrong": unlock(wrong=True),
        "unlock_chooser": unlock(chooser=True),
        "unlock_sent": unlock_sent(),
        "leave": pages.Leave(shell(), "Sign in with Example ID", "https://id.example/authorize?state=x&y=1"),
        "activity": activity(),
        "activity_filtered": activity(filtered=True),
        "activity_wrong": activity_wrong(),
        "periods": periods(),
        "compare": compare(),
        "compare_wide": compare("123456789.123456", "123456788.023456", "1.1"),
        "export": export(),
        "export_preparing": prepared(),
        "export_ready": prepared("ready"),
        "export_failed": prepared("failed"),
        "verify": verify(),
        "verify_outer": verify(shell=shell(), api_url="", proof_url="", proof_name="", unlock_url=BASE + "/unlock"),
        "verify_gated": verify(shell=shell(), log_url="", api_url="", proof_url="", proof_name=""),
        "access_log": access_log(),
        "access_log_new": access_log(used=False),
        **detail_pages(open_shell()),
        **more_pages(open_shell()),
        "problem": pages.Problem(ASSETS, "Try again in a few minutes", TOO_MANY, shell=shell()),
        "problem_here": pages.Problem(
            ASSETS, "There is no such period here", "Nothing is recorded in it.", shell=open_shell()
        ),
        "problem_bare": pages.Problem(ASSETS, "This page could not be shown", FAULT, reference="7C4F-19"),
        "not_found": pages.NotFound(ASSETS),
    }
