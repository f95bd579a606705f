"""Exports of a long period, against what the database and another program give of the same rows."""

from __future__ import annotations

import csv
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import Limit, Result, alternate, scaled, seconds
from stage import CUSTOMER, multiply, shop_on_postgresql, temporary_folder

from servers import free_port
from shared_record.clock import period_of
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins
from world import Shop

ROWS = 1_000_000
ROUNDS = 3
# The columns of the CSV format, as they lie in the database; unit and state are the same in all rows.
COPY = """COPY (
    SELECT l.record_id, l.seq, l.rx, l.at, l.qty, 'API credits'::text, l.total, 'recording'::text, d.reference,
        d.reason, l.adjusts, l.hash
    FROM leaf l LEFT JOIN delta_detail d ON d.tenant_id = l.tenant_id AND d.tree_id = l.tree_id AND d.seq = l.seq
    WHERE l.tenant_id = %s AND l.tree_id = %s ORDER BY l.seq
) TO STDOUT (FORMAT csv, HEADER)"""
DATASETTE = "datasette==0.65.1"


def export_csv(scale: float) -> Result:
    """Write a period as CSV from PostgreSQL, against ``COPY`` of the same columns by the driver."""
    count = scaled(ROWS, scale, least=1_000)
    with temporary_folder() as folder, shop_on_postgresql(folder) as shop:
        tree = multiply(shop, count)
        analyse(shop)
        rounds = alternate(
            lambda: seconds(lambda: ours(shop, folder / "ours.csv")),
            lambda: seconds(lambda: copied(shop, tree, folder / "copied.csv")),
            ROUNDS,
        )
        check(folder, count)
    return Result(
        "export-csv",
        rounds.measured,
        rounds.reference,
        rounds.ratio,
        Limit("≤", 1.5),
        "s",
        f"a period of {count:,} deltas as CSV to a file, from PostgreSQL; COPY … TO STDOUT of its columns by psycopg",
    )


def export_csv_datasette(scale: float) -> Result:
    """Write a period as CSV from PostgreSQL, against Datasette's streaming CSV of a table with the same cells."""
    count = scaled(ROWS, scale, least=1_000)
    with temporary_folder() as folder, shop_on_postgresql(folder) as shop:
        multiply(shop, count)
        analyse(shop)
        measured = seconds(lambda: ours(shop, folder / "ours.csv"))
        tabulate(folder / "ours.csv", folder / "rows.db")
        with datasette(folder) as url:
            reference = seconds(lambda: download(f"{url}/rows/rows.csv?_stream=on&_size=max", folder / "theirs.csv"))
        check_lines(folder / "theirs.csv", count + 2)
    return Result(
        "export-csv-datasette",
        measured,
        reference,
        measured / reference,
        None,
        "s",
        f"the same file of {count:,} deltas; Datasette's streaming CSV of its cells, from a table in SQLite over HTTP",
    )


def ours(shop: Shop, target: Path) -> None:
    """Write the CSV export to a file."""
    who, kind = shop.link(CUSTOMER).customer_id, load_plugins().export_formats["csv"]
    with target.open("wb") as out:
        build_export(shop.db, shop.keys, shop.clock, shop.scope, who, period_of(shop.clock.now()), kind, out)


def copied(shop: Shop, tree: str, target: Path) -> None:
    """Write what PostgreSQL makes of the same columns to a file."""
    with shop.db.read(shop.scope) as connection, target.open("wb") as out:
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(COPY, (shop.scope.plane, tree)) as blocks:
            for block in blocks:
                out.write(block)


def analyse(shop: Shop) -> None:
    """Have PostgreSQL know its tables, as it does when it has run for a while."""
    with shop.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("RESET ROLE")
        connection.exec_driver_sql("VACUUM ANALYZE leaf, delta_detail")
        connection.exec_driver_sql("SET ROLE sr_app")


def check(folder: Path, count: int) -> None:
    """Raise unless both files hold every row: ours has a header and a last line, the other one a header."""
    check_lines(folder / "ours.csv", count + 2)
    check_lines(folder / "copied.csv", count + 1)


def check_lines(path: Path, lines: int) -> None:
    """Raise unless a file has so many lines."""
    with path.open("rb") as source:
        found = sum(block.count(b"\n") for block in iter(lambda: source.read(1 << 20), b""))
    if found != lines:
        raise RuntimeError(f"{path.name} has {found} lines, expected {lines}")


def tabulate(source: Path, target: Path) -> None:
    """Put the lines of a CSV file into a table with a key, as text."""
    with source.open(newline="", encoding="utf-8") as lines, sqlite3.connect(target) as connection:
        rows = csv.reader(lines)
        names = next(rows)
        columns = ", ".join(f'"{name}" TEXT' for name in names)
        connection.execute(f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {columns})")
        marks = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO rows ({', '.join(names)}) VALUES ({marks})", rows)


@contextmanager
def datasette(folder: Path) -> Iterator[str]:
    """Serve ``rows.db`` with Datasette from an environment of its own, which is gone afterwards."""
    home = folder / "venv"
    venv.create(home, with_pip=shutil.which("uv") is None)
    python = home / "bin" / "python"
    pip = ["uv", "pip", "install", "--python", python] if shutil.which("uv") else [python, "-m", "pip", "install"]
    # Datasette 0.65 asks for pkg_resources, which newer setuptools does not have.
    subprocess.run([*pip, "--quiet", DATASETTE, "setuptools<81"], check=True, stdout=sys.stderr)
    port = free_port()
    settings = ["--setting", "max_csv_mb", "0", "--setting", "max_returned_rows", "10000"]
    settings += ["--setting", "sql_time_limit_ms", "600000"]
    command = [home / "bin" / "datasette", "serve", folder / "rows.db", "--port", str(port), *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/-/versions.json")
            yield url
        finally:
            process.send_signal(signal.SIGINT)


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} does not answer")


def download(url: str, target: Path) -> None:
    """Write an answer to a file."""
    with urllib.request.urlopen(url, timeout=3600) as answer, target.open("wb") as out:
        shutil.copyfileobj(answer, out, 1 << 20)
