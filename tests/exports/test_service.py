"""Exports: one state of the ledger, whatever is recorded meanwhile, and figures that are the ledger's own."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, BinaryIO

import pytest
from shared_record_export_csv import Csv
from shared_record_export_json import Json

from shared_record.clock import period_of
from shared_record.errors import NotFoundError
from shared_record.exports.service import Built, build_export
from shared_record.ledger.intake import Delta
from shared_record.ledger.records import find_period
from shared_record.plugin import ExportFormat, ExportOptions, ExportRow, ExportSummary
from shared_record.verifier.checks import Outcome, Result, check_export
from world import Shop

FORMATS: list[type[ExportFormat]] = [Csv, Json]


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """November closed and covered; December open, with three rows covered and one not yet."""
    shop.record_many(
        [
            Delta("cust_a", "5", "usage", reference_id="r1", metadata='{"a":1}'),
            Delta("cust_a", "-1.25", "=cmd()", occurred_at="2026-10-31T10:00:00Z", adjusts_reference="r1"),
            Delta("cust_b", "9", "usage"),
        ]
    )
    shop.checkpoint()
    shop.clock.advance(days=12)
    shop.close()
    shop.record("cust_a", "0.000000000000000000000001", "12345678901234567890", "1")
    shop.checkpoint()
    shop.record("cust_a", "2")
    return shop


def build(
    shop: Shop, kind: type[ExportFormat], period: str, out: Any = None, name: str = "cust_a"
) -> tuple[Built, bytes]:
    out = io.BytesIO() if out is None else out
    who = shop.link(name).customer_id
    built = build_export(shop.db, shop.keys, shop.clock, shop.scope, who, period, kind, out)
    return built, out.getvalue()


def ledger(shop: Shop, period: str) -> tuple[int, str]:
    with shop.db.read(shop.scope) as connection:
        found = find_period(connection, shop.scope, shop.link("cust_a").customer_id, period)
    assert found is not None
    return found.size, found.total


def verify(data: bytes) -> Outcome:
    return check_export(io.BytesIO(data))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("period", "total"), [("2026-11", "3.75"), ("2026-12", "12345678901234567893.000000000000000000000001")]
)
def test_figures_equal_the_ledgers_over_a_closed_and_an_open_period(
    shop: Shop, kind: type[ExportFormat], period: str, total: str
) -> None:
    built, data = build(shop, kind, period)
    assert (built.summary.rows, built.summary.total) == ledger(shop, period)
    assert built.summary.total == total
    assert (built.length, built.sha256) == (len(data), hashlib.sha256(data).digest())
    assert re.fullmatch(rf"usage-{period}-[0-9a-f]{{8}}\.{kind.extension}", built.filename)
    assert built.manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert (built.manifest["rows"], built.manifest["total"]) == ledger(shop, period)
    assert built.manifest["root"] is not None


def test_the_two_formats_hold_the_same_rows(shop: Shop) -> None:
    _, data = build(shop, Csv, "2026-12")
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    last = rows.pop()
    assert (last["record_id"], last["sequence_in_period"], last["running_total"]) == (
        "total",
        *map(str, ledger(shop, "2026-12")),
    )
    assert [row["state"] for row in rows] == ["verified"] * 3 + ["recording"]
    assert rows[-1]["running_total"] == ledger(shop, "2026-12")[1]
    text = build(shop, Json, "2026-12")[1].decode()
    assert [row["receipt_id"] for row in rows] == re.findall(r'"receiptId":"(0x[0-9a-f]{64})"', text)


@pytest.mark.parametrize(("period", "rows", "covered"), [("2026-11", 2, 2), ("2026-12", 4, 3)])
def test_an_export_verifies_without_asking_anybody(shop: Shop, period: str, rows: int, covered: int) -> None:
    found = verify(build(shop, Json, period)[1])
    assert (found.result, found.reason) == (Result.MATCHES, None)
    assert (found.rows, found.total) == ledger(shop, period)
    assert (found.rows, found.covered, found.period, found.origin) == (rows, covered, period, "localhost/log/acme")


def test_before_the_first_checkpoint_nothing_is_covered(shop: Shop) -> None:
    shop.record("fresh", "1")
    found = verify(build(shop, Json, "2026-12", name="fresh")[1])
    assert (found.covered, found.rows) == (0, 1)
    assert found.result is not Result.DIFFERS


@pytest.mark.parametrize("period", ["2026-11", "2026-12"])
def test_every_changed_digit_of_a_figure_is_found_and_named(shop: Shop, period: str) -> None:
    text = build(shop, Json, period)[1].decode()
    places = [m.start(1) for m in re.finditer(r'"(?:qty|total)":"-?([0-9])', text)]
    assert len(places) > 4
    for place in places:
        changed = text[:place] + str((int(text[place]) + 1) % 10 or 1) + text[place + 1 :]
        if changed == text:
            continue
        found = verify(changed.encode())
        assert found.result is Result.DIFFERS, text[place - 30 : place + 5]
        assert found.reason
    place = text.index('"qty":"') + len('"qty":"')
    found = verify((text[:place] + ("7" if text[place] != "7" else "8") + text[place + 1 :]).encode())
    assert found.reason is not None
    assert "1" in found.reason  # the first row


@pytest.mark.parametrize("kind", FORMATS)
def test_x07_what_is_recorded_while_it_is_written_is_in_the_next_one(shop: Shop, kind: type[ExportFormat]) -> None:
    class Meddling(io.BytesIO):
        """Records and publishes with every piece that is written."""

        def write(self, data: Any) -> int:
            if self.tell() < 4000:
                shop.record("cust_a", "3")
                shop.checkpoint()
            return super().write(data)

    period = period_of(shop.clock.now())
    size, total = ledger(shop, period)
    built, data = build(shop, kind, period, Meddling())
    assert (built.summary.rows, built.summary.total) == (size, total)
    if kind is Json:
        found = verify(data)
        assert (found.result, found.rows, found.covered) == (Result.MATCHES, size, 3)
    assert build(shop, kind, period)[0].summary.rows > size


def test_x07_exports_beside_a_writer_are_whole_every_time(shop: Shop) -> None:
    stop = Event()

    def write() -> int:
        done = 0
        while not stop.is_set() and done < 60:
            shop.record("cust_a", "0.5", "1", "-0.25")
            done += 1
        return done

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            sizes = []
            for turn in range(3):
                data = build(shop, Json, "2026-12")[1]
                found = verify(data)
                assert found.result is Result.MATCHES, found.reason
                assert (found.rows - 4) % 3 == 0  # whole transactions
                sizes.append(found.rows)
                if turn % 2:
                    shop.checkpoint()
        finally:
            stop.set()
        assert writer.result(30) > 0
    assert sizes == sorted(sizes)


class Forgetful(Csv):
    """Leaves out the last row."""

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        return super().write(list(rows)[:-1], out, options)


class Rounding(Csv):
    """Rounds the total."""

    def write(self, rows: Iterable[ExportRow], out: BinaryIO, options: ExportOptions) -> ExportSummary:
        found = super().write(rows, out, options)
        return ExportSummary(found.rows, str(float(found.total)), found.first_id, found.last_id)


@pytest.mark.parametrize("kind", [Forgetful, Rounding])
def test_a_file_that_differs_from_the_ledger_is_refused(shop: Shop, kind: type[ExportFormat]) -> None:
    with pytest.raises(RuntimeError, match=r"the ledger has 4 and 12345678901234567893\.0"):
        build(shop, kind, "2026-12")


def test_a_period_without_records_is_not_found(shop: Shop) -> None:
    for period in ("2026-10", "2027-01", "", "2026-12 ", "../../x", "2026-12\0"):
        out = io.BytesIO()
        with pytest.raises(NotFoundError) as caught:
            build(shop, Json, period, out)
        assert (caught.value.code, out.getvalue()) == ("PERIOD_NOT_FOUND", b"")


def test_another_customers_rows_are_in_no_export(shop: Shop) -> None:
    mine, theirs = (build(shop, Json, "2026-11", name=name)[1] for name in ("cust_a", "cust_b"))
    assert verify(theirs).rows == 1
    ids = re.findall(rb"rec_[0-9a-z]{26}", theirs)
    assert ids
    assert not any(one in mine for one in ids)
    assert b"cust_" not in mine + theirs
