"""``shared-record tenants`` as an operator meets it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shared_record.cli.context import Installation
from shared_record.cli.tenants import tenants
from shared_record.clock import SteppedClock
from shared_record.db.engine import Database
from shared_record.db.lookup import find_tenant
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.settings import Settings
from shared_record.tenancy.tenants import update_tenant

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of the repository's tenants."""
    (tmp_path / "tenants").mkdir()
    for path in (REPOSITORY / "tenants").glob("*.toml"):
        (tmp_path / "tenants" / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tenants"


@pytest.fixture
def installed(folder: Path, db: Database, keys: KeyRing, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a migrated installation."""
    installation = Installation(Settings(), clock)
    vars(installation).update(db=db, keys=keys)
    monkeypatch.setattr("shared_record.cli.tenants.open_installation", lambda: installation)
    return folder


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(tenants, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_check_needs_no_database(folder: Path) -> None:
    result = run("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "tenants/acme.toml: ok",
        "tenants/borealis.toml: ok",
        "tenants/copperline.toml: ok",
        "3 files, no problems.",
    ]


def test_check_prints_each_problem_and_exits_2(folder: Path) -> None:
    (folder / "acme.toml").write_text('name = "Acme"\n\ntheme = "nocturn"\n')
    result = run("check", "tenants/acme.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == 'tenants/acme.toml:3: theme: there is no theme "nocturn". Did you mean "nocturne"?\n'
    result = run("check", "--json", "tenants/acme.toml")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "ok": False,
        "files": ["tenants/acme.toml"],
        "problems": [
            {
                "file": "tenants/acme.toml",
                "line": 3,
                "key": "theme",
                "message": 'there is no theme "nocturn".',
                "suggestion": 'Did you mean "nocturne"?',
            }
        ],
    }


def test_a_theme_without_contrast_cannot_be_published(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check and apply say why, and write nothing; tenants with other themes are not concerned."""
    faint = installed.parent / "more" / "faint"
    shutil.copytree(REPOSITORY / "themes" / "default", faint)
    tokens = (faint / "tokens.toml").read_text()
    (faint / "tokens.toml").write_text(tokens.replace('muted = "#5b6462"', 'muted = "#bbbbbb"'))
    plugins = load_plugins()
    plugins = replace(plugins, theme_roots=[*plugins.theme_roots, faint.parent])
    monkeypatch.setattr("shared_record.cli.tenants.load_plugins", lambda: plugins)
    text = (installed / "borealis.toml").read_text()
    (installed / "borealis.toml").write_text(text.replace('theme = "nocturne"', 'theme = "faint"'))
    for command in ("check", "apply"):
        result = run(command)
        assert result.exit_code == 2
        assert 'theme: the theme "faint" cannot be used: ' in result.stderr
        assert "light.muted: found contrast 1.8" in result.stderr
        assert "expected at least 4.5; #" in result.stderr
    assert run("list").stdout == "No tenants yet. Run: shared-record tenants apply\n"
    assert run("apply", "tenants/acme.toml").exit_code == 0


def test_check_of_nothing_is_a_problem(folder: Path) -> None:
    result = run("check", "absent")
    assert result.exit_code == 2
    assert result.stderr.startswith("absent: there is no such file or folder.")


def test_a_problem_in_one_file_keeps_all_from_being_applied(installed: Path) -> None:
    (installed / "borealis.toml").write_text('nam = "Borealis"')
    assert run("apply").exit_code == 2
    assert run("list").stdout == "No tenants yet. Run: shared-record tenants apply\n"


def test_apply_shows_the_plan_then_nothing(installed: Path) -> None:
    dry = run("apply", "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.splitlines()[-1] == "Dry run: 3 tenants would change."
    first = run("apply")
    lines = first.stdout.splitlines()
    assert lines[:2] == ["acme: new tenant", '  + name: "Acme"']
    assert '  + hosts.usage.acme.localhost: "serving"' in lines
    assert lines[-1] == "Applied 3 tenants."
    assert dry.stdout.splitlines()[:-1] == lines[:-1]
    assert run("apply").stdout.splitlines() == [
        "acme: no changes",
        "borealis: no changes",
        "copperline: no changes",
        "No changes.",
    ]


def test_drift_shows_both_values_and_force_overwrites_it(installed: Path, db: Database) -> None:
    run("apply", "tenants/acme.toml")
    row = find_tenant(db, "acme")
    assert row is not None
    with db.write(row.scope) as connection:
        update_tenant(connection, row.scope, {"theme": "nocturne"})
    kept = run("apply", "tenants/acme.toml")
    assert kept.stdout.splitlines() == [
        "acme: no changes",
        '  ! theme: the database has "nocturne", the file "default"; kept; use --force to overwrite',
        "No changes. Drift in 1 tenant, kept.",
    ]
    change = {"key": "theme", "before": "nocturne", "after": "default", "kind": "drift-overridden"}
    assert json.loads(run("apply", "--force", "--json", "tenants/acme.toml").stdout) == {
        "ok": True,
        "applied": True,
        "plans": [{"tenant": "acme", "new": False, "changes": [change]}],
    }


def test_changes_are_a_compact_diff(installed: Path) -> None:
    path = installed / "acme.toml"
    run("apply", "tenants/acme.toml")
    text = (
        path.read_text().replace('  "record.acme.localhost",\n', "").replace('unit = "API credits"', 'unit = "calls"')
    )
    path.write_text(text.replace("hosts = [", 'contact = "help@acme.example"\nhosts = ['))
    assert run("apply", "tenants/acme.toml").stdout.splitlines() == [
        "acme: 3 changes",
        '  ~ unit: "API credits" -> "calls"',
        '  ~ contact: "" -> "help@acme.example"',
        '  - hosts.record.acme.localhost: "serving"',
        "Applied 1 tenant.",
    ]


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_a_host_in_use_is_a_conflict(installed: Path, option: tuple[str, ...]) -> None:
    run("apply", "tenants/acme.toml")
    (installed / "other.toml").write_text('name = "Other"\nhosts = ["usage.acme.localhost"]')
    result = run("apply", "tenants/other.toml", *option)
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr == (
        "tenants/other.toml: the host usage.acme.localhost is in use by another tenant. Nothing was applied.\n"
    )
    assert json.loads(run("apply", "tenants/other.toml", "--json", *option).stdout)["error"]["code"] == "CONFLICT"


def test_list_shows_each_tenant_once_with_its_hosts(installed: Path) -> None:
    run("apply")
    assert run("list").stdout.splitlines() == [
        "SLUG        NAME             POLICY    THEME       PRIMARY HOST                   HOSTS",
        "acme        Acme             TWO_TIER  default     usage.acme.localhost           "
        "usage.acme.localhost, record.acme.localhost",
        "borealis    Borealis Energy  GATED     nocturne    energy.borealis.localhost      energy.borealis.localhost",
        "copperline  Copperline       OPEN      broadsheet  messages.copperline.localhost  "
        "messages.copperline.localhost",
    ]
    rows = json.loads(run("list", "--json").stdout)["tenants"]
    assert [row["primaryHost"] for row in rows][:1] == ["usage.acme.localhost"]
    assert rows[1]["policy"] == "GATED"


@pytest.mark.parametrize("command", ["check", "apply", "list"])
def test_help_has_an_example(command: str) -> None:
    assert f"shared-record tenants {command}" in run(command, "--help").stdout
