"""``shared-record ledger``: check what is stored, see where each log stands, go on after a halt."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import click

from shared_record.access import audit as trail
from shared_record.cli.context import (
    Installation,
    emit,
    is_terminal,
    json_option,
    note,
    open_installation,
    tenant_option,
)
from shared_record.clock import rfc3339
from shared_record.db import leases, lookup
from shared_record.db.lookup import TenantRow
from shared_record.errors import ConflictError, InvalidInputError, UnavailableError
from shared_record.ledger.audit import Finding, audit
from shared_record.ledger.audit_reading import Tally
from shared_record.ledger.locks import LockStore, open_lock_store
from shared_record.ledger.logs import SEQUENCER
from shared_record.ledger.new_origin import NewOrigin, declare_origin, size_of
from shared_record.ledger.status import LogStatus, StoreState, clear_halt, compare_with_store, read_status

ACTOR = "cli"
DIFFERS = 4
MAX_FINDINGS = 1_000
LEASE = timedelta(minutes=1)
QUIET = timedelta(minutes=5)
"""How long new deltas may wait for a checkpoint before nobody seems to be making one."""

ADVICE = {
    StoreState.AHEAD: "The database was restored from an older state. Restore the newer one (a replica, or the backup"
    " made last), then run: shared-record ledger resume --tenant {slug}\n"
    "              If nothing newer is left: shared-record ledger new-origin --tenant {slug} --reason TEXT",
    StoreState.BEHIND: "The lock store was replaced or restored from an older copy. Put its newest state back"
    " (SHARED_RECORD_LOCK_DIR); nothing is signed until then.",
    StoreState.DIFFERS: "Stop the workers and keep both copies. Find out which of the two checkpoints was published,"
    " and restore the other side to it. Nothing is signed until then.",
    StoreState.UNREACHABLE: "Make the lock store reachable again (SHARED_RECORD_LOCK_DIR). Nothing is signed until"
    " then; usage is recorded as before.",
}
_one_tenant = click.option("--tenant", metavar="SLUG", help="Only this tenant (SLUG~test: its test data).")


@click.group()
def ledger() -> None:
    """The ledger: check everything that is stored, see where each log stands, go on after a halt."""


@ledger.command(
    "audit",
    epilog="""\b
Examples:
  shared-record ledger audit
  shared-record ledger audit --tenant acme --sample 200

\b
Exit status: 0 all of it agrees, 4 something is wrong.""",
)
@_one_tenant
@click.option("--sample", type=click.IntRange(min=0), metavar="N", help="Look into N random periods, not all of them.")
@json_option
def audit_command(tenant: str | None, sample: int | None, as_json: bool) -> None:
    """Work out everything anew from the stored entries and compare: each delta, tree, head, epoch and signature.

    It changes nothing and can run at any time. In each place the first thing that is wrong is named.
    """
    installation = open_installation()
    locks = _lock_store(installation)
    results = []
    bad = False
    for row in _planes(installation, tenant):
        tally = Tally()
        found: list[Finding] = []
        with _progress(row.slug, tally):
            for finding in audit(installation.db, installation.keys, locks, row.scope, sample=sample, tally=tally):
                found.append(finding)
                if not as_json:
                    _below_progress(f"{row.slug}: {_printable(finding.problem)}")
                if len(found) == MAX_FINDINGS:
                    break
        bad = bad or bool(found)
        if as_json:
            results.append(_audit_data(row, tally, found, sample))
        else:
            click.echo(_audit_text(row, tally, found, sample))
    if as_json:
        emit({"ok": not bad, "logs": results}, as_json=True, text="")
    sys.exit(DIFFERS if bad else 0)


@ledger.command(epilog="Example:  shared-record ledger status --tenant acme")
@_one_tenant
@json_option
def status(tenant: str | None, as_json: bool) -> None:
    """Show each log: its size, its newest checkpoint, what waits, whether the lock store agrees, and what to do."""
    installation = open_installation()
    locks = _lock_store(installation)
    now = installation.clock.now()
    found = [(row, read_status(installation.db, locks, row.scope)) for row in _planes(installation, tenant)]
    data = [_status_data(row, state, now) for row, state in found]
    text = "\n\n".join(_status_text(row, state, now) for row, state in found)
    emit({"logs": data}, as_json=as_json, text=text or "No tenants yet. Run: shared-record tenants apply")


@ledger.command(epilog="Example:  shared-record ledger resume --tenant acme")
@tenant_option
@json_option
def resume(tenant: str, as_json: bool) -> None:
    """Let a halted log be signed again, once database and lock store agree; otherwise say why not (exit status 7)."""
    installation = open_installation()
    row = installation.tenant(tenant)
    locks = _lock_store(installation)
    state = read_status(installation.db, locks, row.scope)
    if state.halted is None:
        emit({"tenant": row.slug, "resumed": False}, as_json=as_json, text=f"{row.slug}: the log is not halted.")
        return
    _require_agreement(installation, locks, row)
    with installation.db.write(row.scope) as connection:
        resumed = clear_halt(connection, row.scope, state.halted)
        if resumed:
            detail = {"reason": state.halted}
            trail.record(connection, row.scope, installation.clock, "ledger.resumed", actor=ACTOR, detail=detail)
    if not resumed:
        raise ConflictError(f"{row.slug}: the log was halted again meanwhile. Run: shared-record ledger status")
    text = f"{row.slug}: database and lock store agree; the worker goes on at its next turn."
    emit({"tenant": row.slug, "resumed": True}, as_json=as_json, text=text)


@ledger.command(
    "new-origin",
    epilog="""\b
Examples:
  shared-record ledger new-origin --tenant acme --reason "restored from the backup of 21 November"
  shared-record ledger new-origin --tenant acme --reason "signing key lost" --new-key --yes""",
)
@tenant_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail, not published.")
@click.option("--new-key", is_flag=True, help="Sign with a fresh key: the former one is lost, or known to others.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def new_origin(tenant: str, reason: str, new_key: bool, yes: bool, as_json: bool) -> None:
    """Let a log begin anew under its next origin, where it cannot go on as it was. It cannot be undone.

    All that is recorded stays, and the first checkpoint of the new origin covers it. That checkpoint carries the last
    one of the former origin as the lock store knows it: a declared break. What was signed before stays valid, and
    periods that were closed before are still proved by the former origin.
    """
    installation = open_installation()
    row = installation.tenant(tenant)
    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    if not yes:
        if not is_terminal():
            raise InvalidInputError("nothing was declared: add --yes where nobody can be asked.")
        note(f"Everyone who checks {row.slug} will see that its log was broken off. Restoring a newer state avoids it.")
        click.confirm("Declare a new origin?", abort=True, err=True)
    done = _declare(installation, row, reason.strip(), new_key=new_key)
    keys = [str(key) for key in done.vkeys]
    data = {
        "tenant": row.slug,
        "formerOrigin": done.former,
        "origin": done.origin,
        "lastSize": size_of(done.last),
        "abandonedCheckpoints": done.abandoned,
        "vkeys": keys,
    }
    text = (
        f"{row.slug}: the log goes on as {done.origin}; of {done.former} it carries over size {size_of(done.last)}.\n"
        f"Tell customers and auditors the new key:\n{chr(10).join(f'  {key}' for key in keys)}"
    )
    emit(data, as_json=as_json, text=text)


def _declare(installation: Installation, row: TenantRow, reason: str, *, new_key: bool) -> NewOrigin:
    """Declare a new origin under the sequencer's lease, in one transaction with its trace in the audit trail."""
    db, clock = installation.db, installation.clock
    locks = _lock_store(installation)
    lease = leases.acquire(db, clock, row.scope, SEQUENCER, ACTOR, LEASE)
    if lease is None:
        raise ConflictError(f"{row.slug}: a worker is at work on this log. Stop the workers, or try again in a minute.")
    try:
        with db.write(row.scope) as connection:
            done = declare_origin(connection, installation.keys, clock, locks, lease, reason=reason, new_key=new_key)
            detail = {
                "former": done.former,
                "origin": done.origin,
                "reason": reason,
                "lastSize": size_of(done.last),
                "newKey": new_key,
            }
            trail.record(connection, row.scope, clock, "ledger.new_origin", actor=ACTOR, detail=detail)
    except OSError as error:
        raise UnavailableError(f"{row.slug}: the lock store cannot be read: {error}.") from error
    finally:
        leases.release(db, lease, clock.now())
    return done


def _require_agreement(installation: Installation, locks: LockStore, row: TenantRow) -> None:
    store = compare_with_store(installation.db, locks, row.scope)
    if store.problem is None:
        return
    message = f"{row.slug} stays halted. {store.problem} {ADVICE[store.state].format(slug=row.slug)}"
    raise UnavailableError(message) if store.state is StoreState.UNREACHABLE else ConflictError(message)


def _lock_store(installation: Installation) -> LockStore:
    return open_lock_store(installation.settings)


def _planes(installation: Installation, slug: str | None) -> list[TenantRow]:
    return lookup.list_tenants(installation.db) if slug is None else [installation.tenant(slug)]


# --- Audit -----------------------------------------------------------------------------------------------------------


def _audit_data(row: TenantRow, tally: Tally, found: list[Finding], sample: int | None) -> dict[str, Any]:
    return {
        "tenant": row.slug,
        "ok": not found,
        "sampled": sample is not None,
        "checked": asdict(tally),
        "findings": [finding._asdict() for finding in found],
    }


def _audit_text(row: TenantRow, tally: Tally, found: list[Finding], sample: int | None) -> str:
    looked_at = (
        f"Deltas {tally.deltas:,}, {'sampled ' if sample is not None else ''}periods {tally.trees:,}, epochs"
        f" {tally.epochs:,}, checkpoints {tally.checkpoints:,}, heads {tally.customers:,}, statements"
        f" {tally.statements:,}."
    )
    if not found:
        return f"{row.slug}: all of it agrees. {looked_at}"
    more = " or more" if len(found) == MAX_FINDINGS else ""
    places = "place" if len(found) == 1 else "places"
    return f"{row.slug}: wrong in {len(found)}{more} {places}. {looked_at}"


@contextmanager
def _progress(slug: str, tally: Tally) -> Iterator[None]:
    """Show on a terminal how far the audit is."""
    if not is_terminal():
        yield
        return
    done = threading.Event()

    def show() -> None:
        while not done.wait(0.5):
            line = f"{slug}: {tally.epochs:,} epochs, {tally.trees:,} periods, {tally.deltas:,} deltas"
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        click.echo("\r\x1b[K", nl=False, err=True)


def _below_progress(line: str) -> None:
    if is_terminal():
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(line)


def _printable(text: str) -> str:
    """Return stored text, which may be damaged, so that a terminal takes it as text."""
    return "".join(c if c.isprintable() else "?" for c in text)


# --- Status ----------------------------------------------------------------------------------------------------------


def _advice(row: TenantRow, state: LogStatus, now: datetime) -> str | None:
    """Return what the operator should do about a log, or ``None``."""
    if state.store.state is not StoreState.AGREES:
        return ADVICE[state.store.state].format(slug=row.slug)
    if state.audit_findings:
        mend = f" Mend it, then run: shared-record ledger resume --tenant {row.slug}" if state.halted else ""
        return f"Something that is stored is wrong. Run: shared-record ledger audit --tenant {row.slug}.{mend}"
    if state.halted is not None:
        return f"Database and lock store agree again. Run: shared-record ledger resume --tenant {row.slug}"
    if state.failures:
        return f"The last {state.failures} attempts failed; the worker tries again by itself: {state.last_error}"
    waiting = state.behind or state.unfinished
    if waiting and state.holder is None and (state.newest_at is None or now - state.newest_at > QUIET):
        return "Deltas wait and nobody makes a checkpoint. Is the worker running?  shared-record worker"
    return None


def _status_data(row: TenantRow, state: LogStatus, now: datetime) -> dict[str, Any]:
    return {
        "tenant": row.slug,
        "origin": state.origin,
        "size": state.size,
        "newestCheckpointAt": rfc3339(state.newest_at) if state.newest_at else None,
        "unfinishedCheckpoints": state.unfinished,
        "periodsBehind": state.behind,
        "halted": state.halted,
        "lockStore": {"state": state.store.state.value, "problem": state.store.problem},
        "lease": {"holder": state.holder, "until": rfc3339(state.lease_until) if state.lease_until else None},
        "formerOrigins": list(state.former),
        "audit": {
            "at": rfc3339(state.audited_at) if state.audited_at else None,
            "findings": state.audit_findings,
            "first": state.audit_problem,
        },
        "failures": state.failures,
        "lastError": state.last_error,
        "advice": _advice(row, state, now),
    }


def _status_text(row: TenantRow, state: LogStatus, now: datetime) -> str:
    newest = f"{state.newest_at:%Y-%m-%d %H:%M:%S} UTC" if state.newest_at else "none yet"
    lines = [
        f"{row.slug}  {state.origin}",
        f"  size        {state.size:,}",
        f"  checkpoint  {newest}" + (f"; {state.unfinished} to be finished" if state.unfinished else ""),
        f"  behind      {state.behind:,} periods",
        f"  lock store  {state.store.problem or 'agrees'}",
    ]
    lines += [f"  before      {origin}" for origin in state.former]
    if state.audited_at is not None:
        found = (
            f"{state.audit_findings:,} wrong: {_printable(state.audit_problem or '')}" if state.audit_findings else "ok"
        )
        lines.append(f"  audit       {state.audited_at:%Y-%m-%d %H:%M:%S} UTC; {found}")
    if state.holder is not None:
        until = f", until {state.lease_until:%H:%M:%S} UTC" if state.lease_until else ""
        lines.append(f"  lease       {state.holder}{until}")
    if state.halted is not None:
        lines.append(f"  HALTED      {state.halted}")
    advice = _advice(row, state, now)
    if advice is not None:
        lines.append(f"  to do       {advice}")
    return "\n".join(lines)
