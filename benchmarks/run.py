"""Run the benchmarks: ``uv run benchmarks/run.py [NAME…] [--json FILE] [--scale 1.0] [--list]``.

Each compares this program with something plain measured in the same run, and states the limit of their ratio.
Absolute figures say more about the machine than about the program.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from measure import Result

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = {
    "intake": "bench_intake:intake",
    "intake-http": "bench_intake_http:intake_http",
    "single-http": "bench_intake_http:single_http",
    "landing-server": "bench_landing_server:landing_server",
    "checkpoint": "bench_checkpoint:checkpoint",
    "checkpoint-10k": "bench_checkpoint:checkpoint_10k",
    "checkpoint-100k": "bench_checkpoint:checkpoint_100k",
    "checkpoint-postgresql": "bench_checkpoint:checkpoint_postgresql",
    "inclusion-proof": "bench_proof:inclusion_proof",
    "pymerkle-append": "bench_proof:pymerkle_append",
    "pymerkle-prove": "bench_proof:pymerkle_prove",
    "landing-history": "bench_pages:landing_history",
    "period-history": "bench_pages:period_history",
    "landing-hosts": "bench_pages:landing_hosts",
    "period-hosts": "bench_pages:period_hosts",
    "derive-history": "bench_derive:derive_history",
    "pdf-receipt": "bench_pdf:pdf_receipt",
    "host-lookup": "bench_hosts:host_lookup",
    "session-check": "bench_access:session_check",
    "wrong-codes": "bench_access:wrong_codes",
    "verify-py": "bench_verify:verify_py",
    "verify-page": "bench_verify:verify_page",
    "webhook-delivery": "bench_webhooks:webhook_delivery",
    "export-csv": "bench_export:export_csv",
    "export-csv-datasette": "bench_export:export_csv_datasette",
}
"""Name -> where its function is; modules are imported when they are run."""
HEADINGS = ("benchmark", "ours", "reference", "unit", "ratio", "limit", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 0 if every limit held, else 1."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(BENCHMARKS))
        return 0
    results = []
    for name in options.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        results.append(find(name)(options.scale))
    print(table(results))
    if options.json:
        Path(options.json).write_text(json.dumps(document(results, options.scale), ensure_ascii=False, indent=1) + "\n")
    return 0 if all(result.held for result in results) else 1


def find(name: str) -> Callable[[float], Result]:
    """Return the function of a benchmark."""
    tests = str(ROOT / "tests")  # servers and the small installation are those of the tests
    if tests not in sys.path:
        sys.path.append(tests)
    module, _, function = BENCHMARKS[name].partition(":")
    found: Callable[[float], Result] = getattr(importlib.import_module(module), function)
    return found


def table(results: Sequence[Result]) -> str:
    """Return the results as aligned text, with what each compares below."""
    rows = [
        (
            result.name,
            figure(result.measured),
            figure(result.reference),
            result.unit,
            f"{result.ratio:.2f}",
            str(result.limit or "-"),
            "reported" if result.limit is None else "held" if result.held else "not held",
        )
        for result in results
    ]
    widths = [max(len(row[i]) for row in (HEADINGS, *rows)) for i in range(len(HEADINGS))]
    right = {1, 2, 4}
    lines = [
        "  ".join(cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in (HEADINGS, *rows))
    ]
    notes = [f"{result.name}: {result.note}." for result in results]
    return "\n".join([*(line.rstrip() for line in lines), "", *notes])


def figure(value: float) -> str:
    """Write a number with three or more significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def document(results: Sequence[Result], scale: float) -> dict[str, object]:
    """Return everything a later reader needs to judge the figures."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "scale": scale,
        "results": [
            asdict(result) | {"limit": str(result.limit) if result.limit else None, "held": result.held}
            for result in results
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure this program against plain references, in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, []], help="which; default: all")
    parser.add_argument("--json", metavar="FILE", help="also write the results, with date, commit and machine")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink counts and durations, e.g. 0.1")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
