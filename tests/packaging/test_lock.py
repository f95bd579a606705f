"""What is installed is what was locked: every file by its hash, from one index, and nothing else at run time."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
INDEX = {"registry": "https://pypi.org/simple"}


def test_n06_every_file_of_every_dependency_is_locked_by_its_hash() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    ours = [one for one in packages if one["source"] != INDEX]
    assert {"editable": "."} in [one["source"] for one in ours]
    for one in ours:
        assert set(one["source"]) <= {"editable", "virtual"}, one["name"]
        assert not one.get("wheels")
    for one in packages:
        if one["source"] == INDEX:
            files = [*one.get("wheels", ()), *([one["sdist"]] if "sdist" in one else [])]
            assert files, one["name"]
            for file in files:
                assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), file["url"]
                assert file["url"].startswith("https://files.pythonhosted.org/"), file["url"]


def test_n06_the_image_is_built_from_the_lock() -> None:
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    assert "uv export --locked" in text
    installs = re.findall(r"uv pip install (.+?) \\\n", text)
    assert [line.split()[0] for line in installs] == ["--require-hashes", "--no-deps"]
