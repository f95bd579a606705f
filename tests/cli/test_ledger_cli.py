"""``shared-record ledger`` as an operator meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from shared_record.cli import cli
from shared_record.cli.context import Installation
from shared_record.db.schema import audit_event, log
from shared_record.ledger.checkpoints import LogHaltedError
from shared_record.settings import Settings
from shared_record.worker import Worker
from world import Shop

ORIGIN = "localhost/log/acme"


@pytest.fixture
def installed(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop as the installation that the command line opens."""
    installation = Installation(Settings(lock_dir=tmp_path / "locks"), shop.clock)
    vars(installation).update(db=shop.db, keys=shop.keys)
    monkeypatch.setattr("shared_record.cli.ledger.open_installation", lambda: installation)
    return shop


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["ledger", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_audit_of_a_sound_installation(installed: Shop) -> None:
    installed.record("cust_a", "1", "2")
    installed.checkpoint()
    result = run("audit")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "acme: all of it agrees. Deltas 2, periods 1, epochs 1, checkpoints 1, heads 1, statements 0.",
        "acme~test: all of it agrees. Deltas 0, periods 0, epochs 0, checkpoints 0, heads 0, statements 0.",
    ]
    assert result.stderr == ""
    form = json.loads(run("audit", "--tenant", "acme", "--sample", "1", "--json").stdout)
    assert (form["ok"], len(form["logs"]), form["logs"][0]["sampled"]) == (True, 1, True)
    assert form["logs"][0]["checked"]["deltas"] == 2


def test_audit_names_what_is_wrong_and_exits_4(installed: Shop) -> None:
    installed.record("cust_a", "1", "2")
    installed.checkpoint()
    with installed.db.write(installed.scope) as connection:
        connection.execute(log.update().where(log.c.tenant_id == installed.scope.plane).values(frontier=b"x" * 32))
    result = run("audit", "--tenant", "acme")
    assert result.exit_code == 4
    assert result.stdout.startswith(
        "acme: the log's frontier differs from its epochs\nacme: wrong in 1 place. Deltas 2, periods 1,"
    )
    result = run("audit", "--json")
    assert result.exit_code == 4
    form = json.loads(result.stdout)
    assert [(each["tenant"], each["ok"]) for each in form["logs"]] == [("acme", False), ("acme~test", True)]
    assert form["logs"][0]["findings"] == [{"place": "log", "problem": "the log's frontier differs from its epochs"}]


def test_an_unknown_tenant_is_named(installed: Shop) -> None:
    result = run("audit", "--tenant", "amce")
    assert result.exit_code == 1
    assert "there is no tenant 'amce'" in result.stderr


def test_status_says_what_waits_and_what_to_do(installed: Shop) -> None:
    assert "behind      0 periods" in run("status", "--tenant", "acme").stdout
    installed.record("cust_a", "1")
    waiting = json.loads(run("status", "--tenant", "acme", "--json").stdout)["logs"][0]
    assert (waiting["size"], waiting["periodsBehind"], waiting["newestCheckpointAt"]) == (0, 1, None)
    assert "shared-record worker" in waiting["advice"]
    installed.checkpoint()
    text = run("status", "--tenant", "acme").stdout
    assert text.splitlines() == [
        f"acme  {ORIGIN}",
        "  size        1",
        "  checkpoint  2026-11-22 12:10:00 UTC",
        "  behind      0 periods",
        "  lock store  agrees",
        "  lease       test, until 12:15:00 UTC",
    ]


def test_a_halted_log_is_resumed_only_when_the_lock_store_agrees_again(installed: Shop) -> None:
    installed.record("cust_a", "1")
    installed.checkpoint()
    newest = installed.locks.read(ORIGIN)
    assert newest is not None
    ahead = newest.replace("\n1\n", "\n9\n")
    installed.locks.swap(ORIGIN, newest, ahead)
    installed.record("cust_a", "2")
    with pytest.raises(LogHaltedError):
        installed.checkpoint()
    status = run("status", "--tenant", "acme").stdout
    assert "HALTED      The lock store holds a checkpoint of size 9" in status
    assert "1 to be finished" in status
    assert "to do       The database was restored from an older state." in status
    refused = run("resume", "--tenant", "acme")
    assert refused.exit_code == 7
    assert "acme stays halted. The lock store holds size 9" in refused.stderr
    installed.locks.swap(ORIGIN, ahead, newest)
    assert "Run: shared-record ledger resume --tenant acme" in run("status", "--tenant", "acme").stdout
    assert run("resume", "--tenant", "acme").exit_code == 0
    assert installed.checkpoint() == 3  # the half-done one first
    assert run("resume", "--tenant", "acme").stdout == "acme: the log is not halted.\n"
    with installed.db.read(installed.scope) as connection:
        query = select(audit_event.c.actor).where(
            audit_event.c.tenant_id == installed.scope.plane, audit_event.c.event == "ledger.resumed"
        )
        assert connection.execute(query).scalars().all() == ["cli"]
    assert run("audit", "--tenant", "acme").exit_code == 0


def test_a_lock_store_that_cannot_be_read_is_said(installed: Shop, tmp_path: Path) -> None:
    installed.record("cust_a", "1")
    installed.checkpoint()
    (file,) = (tmp_path / "locks").glob("*.checkpoint")
    file.unlink()
    file.mkdir()
    text = run("status", "--tenant", "acme").stdout
    assert "lock store  The lock store cannot be read" in text
    assert "to do       Make the lock store reachable again" in text
    with installed.db.write(installed.scope) as connection:
        connection.execute(log.update().where(log.c.tenant_id == installed.scope.plane).values(halted="by hand"))
    assert run("resume", "--tenant", "acme").exit_code == 75


# --- A new origin ----------------------------------------------------------------------------------------------------


def test_a_new_origin_is_declared_only_on_purpose(installed: Shop) -> None:
    installed.record("cust_a", "1")
    installed.checkpoint()
    installed.clock.advance(minutes=10)
    assert run("new-origin", "--tenant", "acme", "--yes").exit_code == 2  # no reason
    assert run("new-origin", "--tenant", "acme", "--reason", " ", "--yes").exit_code == 2
    refused = run("new-origin", "--tenant", "acme", "--reason", "key lost")
    assert refused.exit_code == 2
    assert "nothing was declared: add --yes" in refused.stderr
    assert f"acme  {ORIGIN}\n" in run("status", "--tenant", "acme").stdout
    done = json.loads(
        run("new-origin", "--tenant", "acme", "--reason", "key lost", "--new-key", "--yes", "--json").stdout
    )
    assert (done["formerOrigin"], done["origin"], done["lastSize"]) == (ORIGIN, f"{ORIGIN}/2", 1)
    with installed.db.read(installed.scope) as connection:
        query = select(audit_event.c.actor, audit_event.c.detail).where(
            audit_event.c.tenant_id == installed.scope.plane, audit_event.c.event == "ledger.new_origin"
        )
        (event,) = connection.execute(query).all()
    assert (event.actor, event.detail["reason"], event.detail["newKey"]) == ("cli", "key lost", True)
    assert installed.checkpoint() == 1
    text = run("status", "--tenant", "acme").stdout
    assert text.startswith(f"acme  {ORIGIN}/2\n  size        1\n")
    assert f"  before      {ORIGIN}\n" in text
    assert run("audit", "--tenant", "acme").exit_code == 0


def test_a_new_origin_waits_for_a_worker_and_needs_the_lock_store(installed: Shop, tmp_path: Path) -> None:
    installed.record("cust_a", "1")
    installed.checkpoint()  # its lease runs on
    arguments = ("new-origin", "--tenant", "acme", "--reason", "x", "--yes")
    busy = run(*arguments)
    assert (busy.exit_code, "a worker is at work" in busy.stderr) == (7, True)
    installed.clock.advance(minutes=10)
    (file,) = (tmp_path / "locks").glob("*.checkpoint")
    file.unlink()
    file.mkdir()
    assert run(*arguments).exit_code == 75
    assert json.loads(run("status", "--tenant", "acme", "--json").stdout)["logs"][0]["formerOrigins"] == []


def test_status_shows_the_last_audit(installed: Shop) -> None:
    installed.record("cust_a", "1")
    installed.checkpoint()
    worker = Worker(installed.db, installed.keys, installed.clock, installed.locks, 10)
    installed.clock.advance(days=1)
    worker.audit_once()
    assert "  audit       2026-11-23 12:10:00 UTC; ok\n" in run("status", "--tenant", "acme").stdout
    with installed.db.write(installed.scope) as connection:
        connection.execute(log.update().where(log.c.tenant_id == installed.scope.plane).values(frontier=b"x" * 32))
    installed.clock.advance(days=1)
    worker.audit_once()
    text = run("status", "--tenant", "acme").stdout
    assert "wrong: the log's frontier differs from its epochs" in text
    assert "HALTED" in text
    form = json.loads(run("status", "--tenant", "acme", "--json").stdout)["logs"][0]
    assert (form["audit"]["findings"], form["audit"]["first"]) == (1, "the log's frontier differs from its epochs")
