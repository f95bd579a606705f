"""A real trace of 19,366 inference calls: imported into the live demo, shown, exported and checked.

The data is not part of the repository: ``conv.csv`` of the Azure LLM inference trace 2023 is looked for beside the
project, in ``../shared/data``, or in the folder named by ``SR_TEST_DATA``.
"""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo_server import Browser, Demo, wait_for
from shared_record.clock import period_of

pytestmark = pytest.mark.xdist_group("demo")

DATA = Path(os.environ.get("SR_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
TRACE = DATA / "llm-inference-2023" / "conv.csv"
ROWS, TOKENS = 19_366, 26_450_535
CUSTOMER = "conv-trace"


@pytest.mark.skipif(not TRACE.exists(), reason=f"NOT RUN: the trace is not at {TRACE}; set SR_TEST_DATA to its folder")
def test_a_real_trace_is_recorded_shown_exported_and_checked(demo: Demo, tmp_path: Path) -> None:
    maps = ["delta=ContextTokens+GeneratedTokens", "reason='inference'", "occurredAt=TIMESTAMP"]
    command = ["record", "import", str(TRACE), "--tenant", "acme", "--customer", CUSTOMER, "--assume-utc"]
    command += [part for one in maps for part in ("--map", one)]
    first = demo.cli_json(*command)
    assert (first["rows"], first["recorded"], first["totalAdded"]) == (ROWS, ROWS, str(TOKENS))
    again = demo.cli_json(*command)
    assert (again["recorded"], again["alreadyRecorded"], again["totalAdded"]) == (0, ROWS, "0")

    of = (CUSTOMER, "--tenant", "acme")
    url, code = demo.cli_json("link", "show", *of)["url"], demo.cli_json("code", "reveal", *of)["access_code"]
    browser = Browser(demo)
    page = browser.get(url).text
    assert "26,450,535" in page
    assert "19,366 records this cycle" in page

    def covered() -> bool:
        figures = browser.get(url + ".json").json()["data"]["asOf"]
        return figures["psize"] == figures["size"] == ROWS

    wait_for("every row verified", covered)
    assert browser.unlock(url, code).status == 303
    export = f"{url}/export/file?period={period_of(datetime.now(UTC))}&format="
    table = list(csv.DictReader(io.StringIO(browser.get(export + "csv").text)))
    last = table.pop()
    assert (last["record_id"], last["sequence_in_period"]) == ("total", str(len(table)))
    assert (len(table), last["running_total"]) == (ROWS, str(TOKENS))
    document = browser.get(export + "json").body
    rows = json.loads(document)["rows"]
    assert len(rows) == ROWS
    assert sum(int(row["entry"]["qty"]) for row in rows) == TOKENS

    file = tmp_path / "conv.json"
    file.write_bytes(document)
    good = demo.cli("verify", str(file), "--require-covered", "--json", check=False)
    outcome = json.loads(good.stdout)
    assert (good.returncode, outcome["result"], outcome["reason"]) == (0, "matches", None)
    assert (outcome["rows"], outcome["covered"], outcome["total"]) == (ROWS, ROWS, str(TOKENS))

    lines = document.splitlines(keepends=True)
    changed = 12_345
    [at] = [index for index, line in enumerate(lines) if rows[changed - 1]["entry"]["id"].encode() in line]
    amount = rows[changed - 1]["entry"]["qty"]
    other = amount[:-1] + str((int(amount[-1]) + 1) % 10)
    lines[at] = lines[at].replace(f'"qty":"{amount}"'.encode(), f'"qty":"{other}"'.encode())
    file.write_bytes(b"".join(lines))
    bad = demo.cli("verify", str(file), "--json", check=False)
    outcome = json.loads(bad.stdout)
    assert (bad.returncode, outcome["result"], outcome["rows"]) == (4, "does not match", changed - 1)
    assert outcome["reason"].startswith(f"record {changed}: ")
