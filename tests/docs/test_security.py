"""``docs/security.md`` says of every abuse case where it is tested, and what it says is so."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
COUNTS = {"H": 15, "L": 10, "S": 15, "A": 13, "O": 10, "I": 15, "P": 5}
COUNTS |= {"X": 7, "G": 15, "D": 7, "W": 6, "T": 8, "N": 6, "M": 8, "Z": 9}
CASES = [f"{letter}{number:02}" for letter, count in COUNTS.items() for number in range(1, count + 1)]
_NAME = re.compile(r"^ *def test_((?:[a-z][0-9]{2}_(?:to_)?)+)", re.MULTILINE)


@cache
def files_by_case() -> dict[str, set[str]]:
    """Return the files, as the page names them, that hold tests whose names begin with each case."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]:
        for prefix in _NAME.findall(path.read_text(encoding="utf-8")):
            for case in cases_of(prefix):
                found[case].add(short(path))
    return found


def cases_of(prefix: str) -> set[str]:
    """Return the cases that the beginning of a name stands for: ``h01_to_h03_`` is three of them."""
    names = set(re.findall(r"[a-z][0-9]{2}", prefix))
    for letter, first, last in re.findall(r"([a-z])([0-9]{2})_to_[a-z]([0-9]{2})", prefix):
        names |= {f"{letter}{number:02}" for number in range(int(first), int(last) + 1)}
    return {name.upper() for name in names}


def short(path: Path) -> str:
    """Return what the page calls a file: ``hosts/gate`` for ``tests/hosts/test_gate.py``."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "plugins":
        return f"plugins/{parts[1]}"
    return "/".join([*parts[1:-1], path.stem.removeprefix("test_")])


@cache
def rows() -> list[tuple[str, str]]:
    """Return (case, where it is tested or why not) as the page has them."""
    return re.findall(r"^\| ([A-Z][0-9]{2}) \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_case_has_one_row_in_order() -> None:
    assert [case for case, _ in rows()] == CASES


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_tested_where_the_page_says_so(case: str) -> None:
    where = dict(rows())[case]
    named = set(re.findall(r"`([a-z0-9_/]+)`", where))
    if where.startswith("none: "):
        assert not files_by_case()[case], f"{case} has a test; name it in docs/security.md"
        assert len(where) > len("none: ")
    else:
        assert named, case
        assert named <= files_by_case()[case], f"{case}: no test of this number in {named - files_by_case()[case]}"


def test_names_of_tests_are_read_as_they_are_meant() -> None:
    assert cases_of("h01_to_h03_s05_") == {"H01", "H02", "H03", "S05"}
    assert short(ROOT / "tests/hosts/test_gate.py") == "hosts/gate"
    assert short(ROOT / "tests/test_log.py") == "log"
