"""What must not drift: the layout, who imports whom, who reads the request's host, and what stays out of the tree."""

from __future__ import annotations

import ast
import platform
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import Numeric

from shared_record.db.schema import metadata
from shared_record.db.types import Amount

ROOT = Path(__file__).parents[2]
CORE = ROOT / "platform" / "shared_record"
PLUGINS = sorted((ROOT / "plugins").glob("*/src/*/"))
MODULES = sorted(CORE.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Yield each module that a file imports, and each name imported from one."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- Layout ----------------------------------------------------------------------------------------------------------


def test_platform_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "platform").iterdir() if path.name != "__pycache__"] == ["shared_record"]
    assert Path(platform.__file__).is_relative_to(sysconfig.get_path("stdlib"))
    assert platform.python_version()


def test_the_top_level_is_the_agreed_one() -> None:
    agreed = {"platform", "plugins", "tenants", "themes", "migrations", "tests", "deploy", "docs", "benchmarks", ".ci"}
    files = {"pyproject.toml", "uv.lock", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    files |= {".gitignore", ".dockerignore", ".gitattributes", ".python-version"}
    assert {path.parts[0] for path in tracked()} <= agreed | files


# --- Imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_imports_of_the_core_only_its_plugin_module(folder: Path) -> None:
    others = {path.name for path in PLUGINS} - {folder.name}
    for path in folder.rglob("*.py"):
        for name in imported(path):
            top = name.partition(".")[0]
            assert top not in others, f"{name_of(path)}: {name}"
            assert top != "shared_record" or f"{name}.".startswith("shared_record.plugin."), f"{name_of(path)}: {name}"


def test_the_core_imports_no_plugin() -> None:
    plugins = {path.name for path in PLUGINS}
    assert len(plugins) >= 4
    found = [f"{name_of(path)}: {name}" for path in MODULES for name in imported(path) if name.split(".")[0] in plugins]
    assert found == []


def test_only_the_web_layer_knows_flask_and_wsgi() -> None:
    web = {"flask", "werkzeug", "wsgiref"}
    allowed = (CORE / "web", CORE / "app.py", CORE / "hosts" / "gate.py")
    found = [
        f"{name_of(path)}: {name}"
        for path in MODULES
        if not any(path.is_relative_to(one) for one in allowed)
        for name in imported(path)
        if name.partition(".")[0] in web
    ]
    assert found == []


# --- The request's host ----------------------------------------------------------------------------------------------

_OF_THE_HOST = {"host", "host_url", "url_root", "base_url", "url", "root_url", "server", "trusted_hosts"}


def test_no_module_but_hosts_reads_the_requests_host() -> None:
    found = []
    for path in MODULES:
        if path.is_relative_to(CORE / "hosts"):
            continue
        for node in ast.walk(parsed(path)):
            is_read = (
                isinstance(node, ast.Attribute)
                and node.attr in _OF_THE_HOST
                and isinstance(node.value, ast.Name)
                and node.value.id in ("request", "asked")
            )
            is_raw = isinstance(node, ast.Constant) and node.value in ("HTTP_HOST", "SERVER_NAME", "Host")
            is_external = isinstance(node, ast.keyword) and node.arg == "_external"
            if path.is_relative_to(CORE / "cli") and is_raw:
                continue  # the demo asks its own server whether it is ready
            if is_read or is_raw or is_external:
                found.append(f"{name_of(path)}:{getattr(node, 'lineno', '?')}")
    assert found == []


# --- Amounts ---------------------------------------------------------------------------------------------------------


def amount_columns() -> set[str]:
    return {
        column.name
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, Amount | Numeric)
    }


def test_sql_neither_adds_nor_sorts_amounts() -> None:
    amounts = amount_columns()
    assert {"qty", "total"} <= amounts
    found = []
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            where = f"{name_of(path)}:{node.lineno}"
            if node.func.attr in ("sum", "avg") and ast.unparse(node.func.value).rpartition(".")[2] == "func":
                found.append(where)
            if node.func.attr in ("order_by", "group_by", "max", "min") and _columns(node) & amounts:
                found.append(where)
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.lower()
                if "select " in text and re.search(r"\b(sum|avg) ?\(|order by [a-z.]*\b(qty|p?total)\b", text):
                    found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []


def _columns(call: ast.Call) -> set[str]:
    """Return the columns, written ``table.c.name``, in the arguments of a call."""
    return {
        node.attr
        for argument in call.args
        for node in ast.walk(argument)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "c"
    }


def test_the_ledger_has_no_floating_point() -> None:
    allowed = {"format_double", "_number"}  # RFC 8785 prints the doubles of metadata; no amount passes there
    found = []
    for path in sorted((CORE / "ledger").glob("*.py")):
        excused = {
            inner
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.FunctionDef) and node.name in allowed
            for inner in ast.walk(node)
        }
        for node in ast.walk(parsed(path)):
            is_float = isinstance(node, ast.Constant) and isinstance(node.value, float)
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
            if (is_float or is_call) and node not in excused:
                found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []


# --- What stays out of the tree --------------------------------------------------------------------------------------


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files under version control, relative to the root; outside a checkout there is nothing to say."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("NOT RUN: there is no git")
    if done.returncode != 0:
        pytest.skip("NOT RUN: this is not a git checkout")
    return tuple(Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


DENIED = {
    "a path of one machine": r"/(?:work|root|Users)/[a-z]|/home/(?!app\b|user\b)[a-z]",
    "a package registry of one machine": r"https?://[^\s\"'/]*(?:nexus|artifactory|devpi|registry|pypi|proxy)[^\s\"'/]*",
    "how the text was made": r"(?i)\b(?:chatgpt|copilot|claude|anthropic|openai|gpt-\d|language model|prompt engineer)",
    "a conflict": r"^(?:<{7} |>{7} )",
}
ALLOWED = re.compile(r"https?://(?:files\.)?(?:pypi\.org|pypi\.python\.org|pythonhosted\.org)")


@pytest.mark.parametrize("what", DENIED)
def test_the_tree_holds_nothing_of_the_machine_it_was_made_on(what: str) -> None:
    pattern = re.compile(DENIED[what], re.MULTILINE)
    found = []
    for path in tracked():
        if ROOT / path == Path(__file__):
            continue
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for match in pattern.finditer(text):
            if not ALLOWED.match(match[0]):
                found.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}")
    assert found == []


def test_the_lock_file_names_the_public_index_alone() -> None:
    text = (ROOT / "uv.lock").read_text()
    assert set(re.findall(r'registry = "([^"]+)"', text)) == {"https://pypi.org/simple"}
    assert set(re.findall(r'url = "https?://([^/"]+)/', text)) == {"files.pythonhosted.org"}
