"""``audit tail|export|verify`` and ``policy explain``: what an operator and an auditor see."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from cli.test_commands import Run, installation, run  # noqa: F401  fixtures
from shared_record.access import chain
from shared_record.db.engine import Database
from shared_record.db.lookup import find_tenant
from shared_record.settings import Settings


@pytest.fixture
def folder(installation: Path, run: Run) -> Path:  # noqa: F811
    """The installation, with some changes and all of them sealed."""
    for _ in range(3):
        assert run("code", "rotate", "cust_a", "--tenant", "acme").exit_code == 0
    assert run("policy", "set", "GATED", "--tenant", "acme", "--customer", "cust_a").exit_code == 0
    assert run("policy", "set", "INHERIT", "--tenant", "acme", "--customer", "cust_a").exit_code == 0
    db = Database(Settings(data_dir=installation).sqlalchemy_url)
    tenant = find_tenant(db, "acme")
    assert tenant is not None
    chain.seal(db, tenant.scope)
    db.dispose()
    return installation


def test_tail_shows_the_newest_rows_last(folder: Path, run: Run) -> None:  # noqa: F811
    lines = run("audit", "tail", "--tenant", "acme", "--lines", "2").stdout.splitlines()
    assert len(lines) == 2
    assert all("policy.changed  by cli customer=" in line for line in lines)
    assert lines[1].endswith('policy="INHERIT"')
    events = json.loads(run("audit", "tail", "--tenant", "acme", "--lines", "5", "--json").stdout)["events"]
    assert [one["event"] for one in events] == ["code.rotated"] * 3 + ["policy.changed"] * 2
    assert [one["position"] for one in events] == sorted(one["position"] for one in events)


def test_export_verifies_anywhere_and_a_changed_file_does_not(folder: Path, run: Run, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "acme.jsonl"
    assert run("audit", "export", "--tenant", "acme", "--output", str(file)).exit_code == 0
    assert run("audit", "export", "--tenant", "acme").stdout == file.read_text()
    good = run("audit", "verify", "--file", str(file), "--json")
    assert good.exit_code == 0
    head = json.loads(good.stdout)["head"]
    assert head == json.loads(run("audit", "verify", "--tenant", "acme", "--json").stdout)["head"]
    lines = file.read_text().splitlines()
    for forged in (lines[:-1], lines[1:], [*lines[:2], lines[2].replace("cli", "bob"), *lines[3:]], lines[::-1]):
        other = tmp_path / "forged.jsonl"
        other.write_text("\n".join(forged) + "\n")
        assert run("audit", "verify", "--file", str(other), "--head", head).exit_code == 4
    file.write_text("not a line\n")
    assert run("audit", "verify", "--file", str(file)).exit_code == 2


def test_verify_says_up_to_where_the_chain_is_sealed(folder: Path, run: Run) -> None:  # noqa: F811
    found = json.loads(run("audit", "verify", "--tenant", "acme", "--json").stdout)
    assert (found["holds"], found["unsealed"], found["problems"]) == (True, 0, [])
    run("code", "rotate", "cust_a", "--tenant", "acme")
    text = run("audit", "verify", "--tenant", "acme", "--head", found["head"])
    assert text.exit_code == 0
    assert f"Sealed up to row {found['position']}; the chain holds. 1 newer rows are not sealed yet." in text.stdout


def test_a_row_changed_behind_the_program_is_found(folder: Path, run: Run) -> None:  # noqa: F811
    path = Settings(data_dir=folder).sqlite_path
    with sqlite3.connect(path) as connection:
        trigger = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_event_sealed_once'").fetchone()
        connection.execute("DROP TRIGGER audit_event_sealed_once")
        before = connection.execute("SELECT rowid, actor FROM audit_event WHERE position = 2").fetchone()
        connection.execute("UPDATE audit_event SET actor = 'nobody' WHERE rowid = ?", (before[0],))
    connection.close()
    result = run("audit", "verify", "--tenant", "acme")
    assert result.exit_code == 4
    assert "The chain holds up to row 1 and not beyond." in result.stdout
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE audit_event SET actor = ? WHERE rowid = ?", before[::-1])
        connection.execute(trigger[0])
    connection.close()
    assert run("audit", "verify", "--tenant", "acme").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [[], ["--tenant", "acme", "--file", __file__], ["--tenant", "acme", "--head", "nothing"]]
)
def test_verify_is_told_what_to_look_at(run: Run, arguments: list[str]) -> None:  # noqa: F811
    assert run("audit", "verify", *arguments).exit_code == 2


# --- Who sees what ---------------------------------------------------------------------------------------------------


def explained(run: Run, policy: str) -> dict[str, set[str]]:  # noqa: F811
    assert run("policy", "set", policy, "--tenant", "acme", "--customer", "cust_a").exit_code == 0
    found = json.loads(run("policy", "explain", "cust_a", "--tenant", "acme", "--json").stdout)
    assert found["own_policy"] == policy
    assert all(one["shows"] for rows in found["tiers"].values() for one in rows)
    return {name: {f"{one['method']} {one['path']}" for one in rows} for name, rows in found["tiers"].items()}


def test_explain_follows_the_policy_and_an_override(run: Run) -> None:  # noqa: F811
    two, gated, everything = (explained(run, name) for name in ("TWO_TIER", "GATED", "OPEN"))
    assert explained(run, "INHERIT") in (two, gated, everything)
    assert {"GET /c/{handle}", "GET /c/{handle}.json"} <= two["outer"]
    assert {"GET /c/{handle}/activity", "GET /c/{handle}/export/file"} <= two["inner"]
    assert gated["outer"] == set()
    log = {"GET /c/{handle}/access-log", "GET /c/{handle}/access-log.json"}
    assert everything["inner"] == log
    assert all(log <= one["inner"] for one in (two, gated))
    assert two["outer"] | two["inner"] == gated["inner"] == everything["outer"] | everything["inner"]


def test_explain_is_readable(run: Run) -> None:  # noqa: F811
    text = run("policy", "explain", "cust_a", "--tenant", "acme").stdout
    assert "Outer tier: whoever has the link, or the id of a receipt, sees" in text
    assert "Inner tier: after a step-up (access_code" in text
    assert run("policy", "explain", "nobody", "--tenant", "acme").exit_code == 1
