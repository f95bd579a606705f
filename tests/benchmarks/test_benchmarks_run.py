"""The benchmarks run and return sane results. What they measure is not judged here: tests share the machine."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = 0.0005


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_on_path():
    sys.path.append(str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def names():
    source = (BENCHMARKS / "run.py").read_text()
    return [line.split('"')[1] for line in source.splitlines() if ":" in line and '": "bench_' in line]


@pytest.mark.parametrize("name", names())
def test_each_benchmark_yields_a_sane_result(name, soak):
    if name == "export-csv-datasette" and not soak:
        pytest.skip("it installs the other program from the package index")
    result = importlib.import_module("run").find(name)(TINY)
    assert result.name == name
    assert result.measured > 0
    assert result.reference > 0
    assert result.ratio > 0
    assert result.limit is None or result.limit.sign in "≥≤"
    assert result.unit
    assert result.note
    assert isinstance(result.held, bool)


def test_the_names_above_are_all_there_are(capsys):
    run = importlib.import_module("run")
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == names() == list(run.BENCHMARKS)


def test_results_are_printed_aligned_and_written_with_what_a_reader_needs(tmp_path, monkeypatch, capsys):
    run, measure = importlib.import_module("run"), importlib.import_module("measure")
    results = {
        "intake": measure.Result("intake", 3000.0, 10_000.0, 0.3, measure.Limit("≥", 0.25), "deltas/s", "one"),
        "checkpoint": measure.Result("checkpoint", 9.0, 1.0, 9.0, measure.Limit("≤", 6), "s", "two"),
        "pymerkle-append": measure.Result("pymerkle-append", 2.0, 1.0, 2.0, None, "leaves/s", "three"),
    }
    monkeypatch.setattr(run, "find", lambda name: lambda scale: results[name])
    target = tmp_path / "out.json"
    assert run.main([*results, "--json", str(target), "--scale", "0.5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["benchmark", "ours", "reference", "unit", "ratio", "limit"]
    assert lines[1].split() == ["intake", "3,000", "10,000", "deltas/s", "0.30", "≥", "0.25", "held"]
    assert lines[2].split() == ["checkpoint", "9", "1", "s", "9.00", "≤", "6", "not", "held"]
    assert lines[3].split() == ["pymerkle-append", "2", "1", "leaves/s", "2.00", "-", "reported"]
    assert {line.index("≥" if "≥" in line else "≤") for line in lines[1:3]} == {lines[0].index("limit")}
    written = json.loads(target.read_text())
    assert {"date", "commit", "python", "cpus", "scale", "results"} == set(written)
    assert written["scale"] == 0.5
    assert [(row["name"], row["held"], row["limit"]) for row in written["results"]] == [
        ("intake", True, "≥ 0.25"),
        ("checkpoint", False, "≤ 6"),
        ("pymerkle-append", True, None),
    ]


@pytest.mark.parametrize(
    ("sign", "value", "ratio", "held"), [("≥", 2, 2, True), ("≥", 2, 1.9, False), ("≤", 2, 2.1, False)]
)
def test_a_limit_includes_its_own_value(sign, value, ratio, held):
    assert importlib.import_module("measure").Limit(sign, value).holds(ratio) is held
