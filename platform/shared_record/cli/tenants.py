"""``shared-record tenants``: tenants as code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from shared_record.cli.context import Installation, emit, json_option, note, open_installation
from shared_record.db import lookup
from shared_record.errors import ConflictError
from shared_record.hooks.loader import load_plugins
from shared_record.manifest.apply import apply_tenants, plan_tenants
from shared_record.manifest.check import Checked, Known, check_files, find_files
from shared_record.manifest.plan import Change, Kind, Plan
from shared_record.manifest.problems import Problem
from shared_record.manifest.state import list_hosts
from shared_record.settings import load_settings
from shared_record.tenancy.tenants import read_tenant
from shared_record.theming.loader import load_themes

EXIT_PROBLEMS = 2
EXIT_CONFLICT = 7

_paths = click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")


@click.group()
def tenants() -> None:
    """Declare tenants in files: check them, apply them, list what is there.

    A file tenants/<slug>.toml declares one tenant: name, hosts, theme, policy, step-up methods with their settings,
    export formats, unit label, time zone. PATH is a file or a folder of files; without one, ./tenants is meant.

    The database is the truth. `apply` changes only what was changed in the file since it was last applied. What was
    changed elsewhere is shown as drift and kept.
    """


@tenants.command(epilog="Example:  shared-record tenants check tenants/acme.toml")
@_paths
@json_option
@click.pass_context
def check(ctx: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Check tenant files without touching the database.

    Each problem names file, line and what to write instead. Exit codes: 0 no problem, 2 problems.
    """
    checked = _check_or_exit(ctx, paths, load_settings().platform_hosts, as_json=as_json)
    files = [one.file for one in checked]
    text = "\n".join([*(f"{file}: ok" for file in files), f"{_count(len(files), 'file')}, no problems."])
    emit({"ok": True, "files": files, "problems": []}, as_json=as_json, text=text)


@tenants.command(
    epilog="""\b
Examples:
  shared-record tenants apply --dry-run
  shared-record tenants apply tenants/acme.toml
  shared-record tenants apply --force     make the database say what the files say
"""
)
@_paths
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite what was changed elsewhere, too.")
@json_option
@click.pass_context
def apply(ctx: click.Context, paths: tuple[Path, ...], dry_run: bool, force: bool, as_json: bool) -> None:
    """Apply tenant files, all in one transaction.

    Shows what changes (+ new, ~ changed, - removed, ! drift). A second run changes nothing. A host that is taken out of
    a file is released, a step-up method is disabled; sessions that relied on either end at once.

    Exit codes: 0 applied, 2 problems in a file, 7 a host belongs to another tenant. With 2 and 7 nothing is written.
    """
    installation = open_installation()
    checked = _check_or_exit(ctx, paths, installation.settings.platform_hosts, as_json=as_json)
    try:
        plans = _carry_out(installation, checked, dry_run=dry_run, force=force)
    except ConflictError as error:
        value = {"ok": False, "error": {"code": error.code, "message": error.message}}
        _fail(ctx, EXIT_CONFLICT, value, f"{error.message} Nothing was applied.", as_json=as_json)
    emit(
        {"ok": True, "applied": not dry_run, "plans": [_plan_as_dict(plan) for plan in plans]},
        as_json=as_json,
        text="\n".join([*(line for plan in plans for line in plan_lines(plan)), _summary(plans, dry_run=dry_run)]),
    )


@tenants.command("list", epilog="Example:  shared-record tenants list --json")
@json_option
def list_(as_json: bool) -> None:
    """List the tenants of this installation, with policy, theme and hosts; the primary host comes first."""
    rows = _list_rows(open_installation())
    if not rows:
        emit({"tenants": []}, as_json=as_json, text="No tenants yet. Run: shared-record tenants apply")
        return
    text = _table(("SLUG", "NAME", "POLICY", "THEME", "PRIMARY HOST", "HOSTS"), map(_cells, rows))
    emit({"tenants": rows}, as_json=as_json, text=text)


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan as a compact diff, one line per key that changes or differs."""
    shown = [change for change in plan.changes if change.kind is not Kind.UNCHANGED]
    head = "new tenant" if plan.is_new else _count(len(plan.effective), "change")
    return [f"{plan.slug}: {head}", *(f"  {_change_line(change)}" for change in shown)]


def _change_line(change: Change) -> str:
    before, after = _show(change.before), _show(change.after)
    match change:
        case Change(kind=Kind.DRIFT_KEPT):
            return f"! {change.key}: the database has {before}, the file {after}; kept; use --force to overwrite"
        case Change(before=None):
            line = f"+ {change.key}: {after}"
        case Change(after=None):
            line = f"- {change.key}: {before}"
        case _:
            line = f"~ {change.key}: {before} -> {after}"
    return line + (" (drift overwritten)" if change.kind is Kind.DRIFT_OVERRIDDEN else "")


def _show(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _summary(plans: list[Plan], *, dry_run: bool) -> str:
    changed = sum(not plan.is_empty for plan in plans)
    drifted = sum(bool(plan.drift) for plan in plans)
    drift = f" Drift in {_count(drifted, 'tenant')}, kept." if drifted else ""
    if not changed:
        return f"No changes.{drift}"
    count = _count(changed, "tenant")
    return (f"Dry run: {count} would change." if dry_run else f"Applied {count}.") + drift


def _carry_out(installation: Installation, checked: list[Checked], *, dry_run: bool, force: bool) -> list[Plan]:
    if dry_run:
        return plan_tenants(installation.db, checked, force)
    return apply_tenants(installation.db, installation.keys, installation.clock, installation.settings, checked, force)


def _check_or_exit(
    ctx: click.Context, paths: tuple[Path, ...], platform_hosts: tuple[str, ...], *, as_json: bool
) -> list[Checked]:
    files, missing = find_files(paths or (Path("tenants"),))
    checked, problems = check_files(files, _known(platform_hosts))
    problems = [*missing, *problems]
    if problems:
        _fail(ctx, EXIT_PROBLEMS, _problems_as_dict(files, problems), "\n".join(map(str, problems)), as_json=as_json)
    return checked


def _known(platform_hosts: tuple[str, ...]) -> Known:
    plugins = load_plugins()
    themes = load_themes(plugins.theme_roots)
    return Known(
        themes=themes.sound.keys(),
        methods={slug: method.settings_model for slug, method in plugins.step_up_methods.items()},
        formats=plugins.export_formats.keys(),
        platform_hosts=platform_hosts,
        anchors={slug: anchor.settings_model for slug, anchor in plugins.checkpoint_anchors.items()},
        broken_themes={slug: [str(one) for one in reasons] for slug, reasons in themes.broken.items()},
    )


def _fail(ctx: click.Context, code: int, value: dict[str, Any], text: str, *, as_json: bool) -> NoReturn:
    if as_json:
        emit(value, as_json=True, text="")
    else:
        note(text)
    ctx.exit(code)


def _problems_as_dict(files: list[Path], problems: list[Problem]) -> dict[str, Any]:
    return {"ok": False, "files": list(map(str, files)), "problems": [problem.as_dict() for problem in problems]}


def _plan_as_dict(plan: Plan) -> dict[str, Any]:
    changes = [
        {"key": change.key, "before": change.before, "after": change.after, "kind": change.kind.value}
        for change in plan.changes
        if change.kind is not Kind.UNCHANGED
    ]
    return {"tenant": plan.slug, "new": plan.is_new, "changes": changes}


def _list_rows(installation: Installation) -> list[dict[str, Any]]:
    rows = []
    for row in lookup.list_tenants(installation.db):
        if row.config_of is not None:
            continue
        with installation.db.read(row.scope) as connection:
            settings, hosts = read_tenant(connection, row.scope), list_hosts(connection, row.scope)
        rows.append(
            {
                "slug": row.slug,
                "name": settings.name,
                "policy": settings.policy.value,
                "theme": settings.theme,
                "state": settings.state,
                "primaryHost": next((host.host for host in hosts if host.is_primary), None),
                "hosts": [{"host": host.host, "display": host.display, "role": host.role} for host in hosts],
            }
        )
    return rows


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a tenant as cells; a host's role is named unless it is the usual one."""
    hosts = (host["host"] + ("" if host["role"] == "serving" else f" ({host['role']})") for host in row["hosts"])
    return (row["slug"], row["name"], row["policy"], row["theme"], row["primaryHost"] or "-", ", ".join(hosts) or "-")


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
