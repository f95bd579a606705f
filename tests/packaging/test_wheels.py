"""The wheels alone: built from the workspace, installed into a clean environment, run from another directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from demo_server import Demo

ROOT = Path(__file__).parents[2]
PLUGINS = {path.name for path in (ROOT / "plugins").glob("*/src/*/")}
CORE = (
    "shared_record/_bundled/migrations/env.py",
    "shared_record/_bundled/tenants/acme.toml",
    "shared_record/web/record/templates/landing.html",
    "shared_record/web/record/templates/partials/cells.html",
    "shared_record/web/static/record.css",
    "shared_record/web/static/favicon.svg",
)
THEMES = ("default/theme.toml", "default/tokens.toml")


@pytest.fixture(scope="module")
def uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        reason = "NOT RUN: uv is neither on PATH nor beside this Python"
        if os.environ.get("SR_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def wheels(uv: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every wheel of the workspace, by package."""
    folder = tmp_path_factory.mktemp("wheels")
    _run([uv, "build", "--all-packages", "--wheel", "--quiet", "--out-dir", folder], ROOT)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


def test_wheels_carry_what_they_need_besides_code(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"shared_record"} | PLUGINS
    for package, wheel in wheels.items():
        names = zipfile.ZipFile(wheel).namelist()
        assert f"{package}/py.typed" in names
        assert len(names) == len(set(names))
        assert {name.partition("/")[0].partition("-")[0] for name in names} == {package}
        assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    core = set(zipfile.ZipFile(wheels["shared_record"]).namelist())
    assert core >= set(CORE)
    assert core >= {f"shared_record/{name}" for name in _files(ROOT / "platform/shared_record")}
    for folder in ("migrations", "tenants"):
        assert core >= {f"shared_record/_bundled/{folder}/{name}" for name in _files(ROOT / folder)}
    themes = set(zipfile.ZipFile(wheels["shared_record_themes_builtin"]).namelist())
    assert set(THEMES) <= _files(ROOT / "themes")
    assert themes >= {f"shared_record_themes_builtin/themes/{name}" for name in _files(ROOT / "themes")}


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_an_installed_copy_runs_the_demo_from_any_directory(uv: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    _run([uv, "venv", "--quiet", "--python", sys.executable, venv], tmp_path)
    # The versions of the lock file; the project's own packages by path, so that no index is asked for their names.
    versions = tmp_path / "versions.txt"
    export = [uv, "export", "--frozen", "--quiet", "--no-emit-workspace", "--no-hashes", "--no-dev", "-o", versions]
    _run(export, ROOT)
    core = f"shared-record[standard] @ {wheels['shared_record'].as_uri()}"
    plugins = [path for package, path in wheels.items() if package != "shared_record"]
    python = venv / "bin" / "python"
    _run([uv, "pip", "install", "--quiet", "--python", python, "-c", versions, core, *plugins], tmp_path)

    demo = Demo(tmp_path / "elsewhere", python=str(python))
    with demo.running("--no-seed"):
        assert {tenant["theme"] for tenant in demo.ready["tenants"]} == {"default", "nocturne", "broadsheet"}
        demo.emit("acme", "cust_wheel", "12.5")
        url = demo.cli_json("link", "show", "cust_wheel", "--tenant", "acme")["url"]
        page = demo.http("GET", url)
        assert page.status == 200
        assert "12.5" in page.text
        sheet = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
        assert demo.http("GET", url.partition("/c/")[0] + sheet).status == 200


def _run(line: list[str | Path], folder: Path) -> None:
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
