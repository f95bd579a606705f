"""``record import`` on both engines: what it records, that a second run adds nothing, and where it stops."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from shared_record.cli import record as record_module
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.schema import delta_detail, leaf, period_tree
from shared_record.errors import InvalidInputError
from shared_record.keys import KeyRing
from world import Shop, open_shop

REAL = Path(os.environ.get("SR_TEST_DATA") or Path(__file__).parents[3] / "shared/data") / "llm-inference-2023/conv.csv"
MAPS = (
    *("--map", "delta=ContextTokens+GeneratedTokens"),
    *("--map", "reason='inference'"),
    *("--map", "occurredAt=TIMESTAMP", "--assume-utc"),
)
Run = Callable[..., Result]


@pytest.fixture
def shop(db: Database, keys: KeyRing, clock: SteppedClock, tmp_path: Path) -> Shop:
    return open_shop(db, keys, clock, tmp_path)


@pytest.fixture
def run(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``record import`` against the shop's database."""
    monkeypatch.setenv("SHARED_RECORD_DATABASE_URL", shop.db.url)
    monkeypatch.setenv("SHARED_RECORD_DATA_DIR", str(tmp_path))
    shop.keys.save(tmp_path / "keys.json")
    opened = []

    def open_here() -> object:
        opened.append(original())
        return opened[-1]

    original = record_module.open_installation
    monkeypatch.setattr(record_module, "open_installation", open_here)

    def invoke(file: Path | str, *options: str, stdin: bytes | None = None) -> Result:
        arguments = ["import", str(file), "--tenant", "acme", "--customer", "c-17", *options]
        return CliRunner().invoke(record_module.record, arguments, input=stdin)

    yield invoke
    for installation in opened:
        installation.db.dispose()


def recorded(shop: Shop) -> tuple[int, str]:
    """Return count and total of everything recorded."""
    with shop.db.read(shop.scope) as connection:
        query = select(period_tree.c.size, period_tree.c.total).where(period_tree.c.tenant_id == shop.scope.plane)
        rows = list(connection.execute(query))
    assert len(rows) <= 1
    return (rows[0].size, rows[0].total) if rows else (0, "0")


def stopped(result: Result) -> str:
    assert isinstance(result.exception, InvalidInputError), result.output
    return result.exception.message


def make_csv(path: Path, rows: int, *, bad: int = 0) -> Path:
    lines = [f"2023-11-16 18:15:46.6805900,{n},{'x' if n == bad else 1}" for n in range(1, rows + 1)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines, ""]))
    return path


def test_imports_once(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = make_csv(tmp_path / "usage.csv", 250)
    result = run(file, *MAPS)
    assert (result.exit_code, recorded(shop)) == (0, (250, "31625")), result.output
    assert result.stdout == (
        "Rows read         250\nRecorded          250\nAlready recorded  0\nTotal added       31,625\n"
    )
    again = run(file, *MAPS, "--json", "--batch", "7")
    assert json.loads(again.stdout) == {
        "dryRun": False,
        "rows": 250,
        "recorded": 0,
        "alreadyRecorded": 250,
        "skippedZero": 0,
        "totalAdded": "0",
        "totalInFile": "31625",
    }
    make_csv(file, 260)
    assert json.loads(run(file, *MAPS, "--json").stdout)["recorded"] == 10
    with shop.db.read(shop.scope) as connection:
        at = connection.execute(select(leaf.c.at).where(leaf.c.tenant_id == shop.scope.plane)).scalars().first()
    assert at == "2023-11-16T18:15:46.68059Z"


def test_reads_standard_input(run: Run, shop: Shop, tmp_path: Path) -> None:
    data = make_csv(tmp_path / "usage.csv", 3).read_bytes()
    assert run("-", *MAPS, stdin=data).exit_code == 0
    assert recorded(shop) == (3, "9")


def test_a_dry_run_records_nothing(run: Run, shop: Shop, tmp_path: Path) -> None:
    result = run(make_csv(tmp_path / "usage.csv", 250), *MAPS, "--dry-run")
    assert result.exit_code == 0
    assert "Total in file     31,625" in result.stdout
    assert "nothing was recorded" in result.stdout
    assert recorded(shop) == (0, "0")
    bad = make_csv(tmp_path / "usage.csv", 250, bad=180)
    assert "line 181, column GeneratedTokens" in stopped(run(bad, *MAPS, "--dry-run"))


def test_stops_at_a_bad_row_and_continues_there(run: Run, shop: Shop, tmp_path: Path) -> None:
    message = stopped(run(make_csv(tmp_path / "usage.csv", 250, bad=180), *MAPS))
    assert message == (
        f"{tmp_path}/usage.csv, line 181, column GeneratedTokens: expected a decimal number like 12 or -0.5, found 'x'."
        " 100 rows were recorded now. Correct the row and run the same command again: it continues where it stopped."
    )
    assert recorded(shop)[0] == 100  # nothing of the second batch
    result = run(make_csv(tmp_path / "usage.csv", 250), *MAPS, "--json")
    assert json.loads(result.stdout).items() >= {"recorded": 150, "alreadyRecorded": 100}.items()
    assert recorded(shop) == (250, "31625")


def test_a_run_that_was_killed_is_continued(
    run: Run, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_csv(tmp_path / "usage.csv", 250)
    original, calls = record_module.record_deltas, []

    def killed_after_two(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(record_module, "record_deltas", killed_after_two)
    assert run(file, *MAPS).exit_code != 0
    assert recorded(shop)[0] == 200
    assert run(file, *MAPS).exit_code == 0
    assert recorded(shop) == (250, "31625")


def test_other_maps_over_the_same_file_are_not_a_second_recording(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = make_csv(tmp_path / "usage.csv", 5)
    run(file, *MAPS)
    message = stopped(run(file, "--map", "delta=ContextTokens", "--map", "reason='inference'"))
    assert "line 2: " in message
    assert "already recorded" in message
    assert "with other maps?" in message
    assert recorded(shop)[0] == 5


def test_rows_of_zero(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_text("n\n1\n0\n2\n")
    maps = ("--map", "delta=n", "--map", "reason='x'")
    assert "line 3, column n: " in (message := stopped(run(file, *maps)))
    assert "--skip-zero" in message
    assert recorded(shop)[0] == 0
    result = run(file, *maps, "--skip-zero")
    assert "Rows read         3\nRecorded          2\n" in result.stdout
    assert "Skipped (zero)    1" in result.stdout


def test_fields_have_the_limits_of_the_api(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_text(f"n,why,at\n1,{'w' * 501},2026-11-22T09:00:00Z\n")
    message = stopped(run(file, "--map", "delta=n", "--map", "reason=why"))
    assert "line 2, column why: This has at most 500 characters." in message
    file.write_text("n,why,at\n1,w,2999-01-01T00:00:00Z\n")
    message = stopped(run(file, "--map", "delta=n", "--map", "reason=why", "--map", "occurredAt=at"))
    assert "line 2, column at: This time is more than an hour ahead" in message
    assert recorded(shop)[0] == 0


def test_mapped_references_and_metadata_are_recorded(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = make_csv(tmp_path / "usage.csv", 2)
    extra = ("--map", "referenceId='conv-{row}'", "--map", "metadata.model='m'", "--map", "metadata.in=ContextTokens")
    assert run(file, *MAPS, *extra).exit_code == 0
    with shop.db.read(shop.scope) as connection:
        query = select(delta_detail).where(delta_detail.c.tenant_id == shop.scope.plane).order_by(delta_detail.c.seq)
        rows = [(row.reference, row.metadata, row.reason) for row in connection.execute(query)]
    assert rows == [
        ("conv-1", '{"in":"1","model":"m"}', "inference"),
        ("conv-2", '{"in":"2","model":"m"}', "inference"),
    ]


def test_progress_goes_to_a_terminal_only(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = make_csv(tmp_path / "usage.csv", 250)
    assert run(file, *MAPS).stderr == ""
    bars = []
    original = click.progressbar

    def watch(*arguments: object, **options: object) -> object:
        bars.append(original(*arguments, **options))  # type: ignore[call-overload]
        return bars[-1]

    monkeypatch.setattr(record_module, "is_terminal", lambda: True)
    monkeypatch.setattr(click, "progressbar", watch)
    run(file, *MAPS, "--json")
    assert [(bar.pos, bar.length) for bar in bars] == [(file.stat().st_size, file.stat().st_size)]


@pytest.mark.skipif(not REAL.exists(), reason="the real usage file is not on this machine")
def test_the_real_file(run: Run, shop: Shop) -> None:
    result = run(REAL, *MAPS, "--json")
    assert json.loads(result.stdout)["totalAdded"] == "26450535"
    assert recorded(shop) == (19_366, "26450535")
    assert json.loads(run(REAL, *MAPS, "--json").stdout)["recorded"] == 0
    assert recorded(shop) == (19_366, "26450535")
