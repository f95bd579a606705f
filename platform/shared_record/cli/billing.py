"""``shared-record bundle`` and ``readiness``: what goes on invoices, and whether it can."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

import click

from shared_record.access import links
from shared_record.cli.address import as_served
from shared_record.cli.context import Installation, emit, json_option, note, open_installation, tenant_option
from shared_record.cli.link import ACTOR
from shared_record.clock import period_bounds, period_of
from shared_record.db.scope import Scope
from shared_record.errors import InvalidInputError
from shared_record.hooks.loader import load_plugins
from shared_record.invoicing.bundle import InvoiceBundle, as_data, build_all, build_bundle
from shared_record.invoicing.package import render_page, write_archive
from shared_record.invoicing.texts import LOCALES
from shared_record.tenancy.tenants import TEST_SUFFIX

NOT_READY = 3
"""Exit code of ``readiness --fail-on blockers``."""

period_option = click.option("--period", metavar="YYYY-MM", help="The UTC month.  [default: the one before this]")
test_option = click.option("--test", is_flag=True, help="The test plane, whose data never meets live data.")


@dataclass(frozen=True)
class _Invoicing:
    """One run: where bundles come from."""

    installation: Installation
    scope: Scope
    period: str
    actor: str | None

    def one(self, customer: str) -> InvoiceBundle:
        here = self.installation
        return build_bundle(
            here.db, here.keys, here.clock, self.scope, customer, self.period, self.url, actor=self.actor
        )

    def all(self) -> Iterator[InvoiceBundle]:
        here = self.installation
        return build_all(here.db, here.keys, here.clock, self.scope, self.period, self.url, actor=self.actor)

    def url(self, host: str | None, path: str) -> str:
        settings = as_served(self.installation.db, self.installation.settings)
        return settings.url_for_host(host or settings.platform_hosts[0], path)


@click.command(
    epilog="""\b
Examples:
  shared-record bundle cust_northwind --tenant acme --period 2026-10
  shared-record bundle cust_northwind --tenant acme --period 2026-10 --reveal-code --format html --output invoice.html
  shared-record bundle --all --tenant acme --period 2026-10 --format zip --output bundles/"""
)
@click.argument("customer", required=False)
@tenant_option
@test_option
@period_option
@click.option("--all", "everyone", is_flag=True, help="Every customer with records in the period; into a folder.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["json", "zip", "html"]),
    default="json",
    show_default=True,
    help="What to write.",
)
@click.option("--locale", type=click.Choice(LOCALES), default="en", show_default=True, help="Language of the page.")
@click.option("--reveal-code", is_flag=True, help="With the access code. Each reveal is audited.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File, or folder with --all.  [default: stdout for json]"
)
@json_option
def bundle(
    customer: str | None,
    tenant: str,
    test: bool,
    period: str | None,
    everyone: bool,
    kind: str,
    locale: str,
    reveal_code: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print what the invoice of CUSTOMER for a period says about the record: totals, link, code, proof, text, QR."""
    if everyone == bool(customer):
        raise click.UsageError("name one CUSTOMER, or give --all.")
    run = _open(tenant, period, test=test, reveal=reveal_code)
    if customer and kind == "json" and output is None:
        click.echo(json.dumps(as_data(run.one(customer)), ensure_ascii=False, indent=None if as_json else 2))
        return
    folder = output if output and everyone else Path()
    folder.mkdir(parents=True, exist_ok=True)
    written: list[dict[str, object]] = []
    for one in run.all() if everyone else [run.one(str(customer))]:
        name = f"invoice-{_file_name(one.customer_id)}-{run.period}.{kind}"
        target = output if output and not everyone else folder / name
        _write(target, _writer(run, one, kind, locale))
        written.append({"customer_id": one.customer_id, "file": str(target), "ready": one.ready})
        if everyone:
            note(f"{len(written)}: {target}")
    emit({"files": written}, as_json=as_json, text="\n".join(str(one["file"]) for one in written) or "No records.")


@click.command(
    epilog="""\b
Examples:
  shared-record readiness --tenant acme --period 2026-10
  shared-record readiness --tenant acme --period 2026-10 --fail-on blockers && ./send-invoices"""
)
@tenant_option
@test_option
@period_option
@click.option("--fail-on", type=click.Choice(["blockers"]), help="Exit with 3 if any customer is not ready.")
@json_option
def readiness(tenant: str, test: bool, period: str | None, fail_on: str | None, as_json: bool) -> None:
    """Say for every customer with records in a period whether its invoice can go out, and what blocks the rest."""
    run = _open(tenant, period, test=test, reveal=False)
    found = list(run.all())
    rows = [
        {
            "customer_id": one.customer_id,
            "ready": one.ready,
            "records": one.records,
            "verified": one.verified_records,
            "total": one.total,
            "unit": one.unit,
            "blockers": as_data(one)["blockers"],
        }
        for one in found
    ]
    ready = sum(one.ready for one in found)
    lines = [f"{ready} of {len(found)} ready for {run.period}."]
    for one in found:
        lines.append(f"{one.customer_id}: {'ready' if one.ready else 'not ready'}, {one.records} records")
        lines += [f"  {blocker.code}: {blocker.message} {blocker.action}" for blocker in one.blockers]
    emit(
        {"tenant": tenant, "period": run.period, "ready": ready, "customers": rows},
        as_json=as_json,
        text="\n".join(lines) if found else f"Nothing is recorded in {run.period}.",
    )
    if fail_on and ready < len(found):
        raise SystemExit(NOT_READY)


def _open(tenant: str, period: str | None, *, test: bool, reveal: bool) -> _Invoicing:
    installation = open_installation()
    if period is None:
        this_month, _ = period_bounds(period_of(installation.clock.now()))
        period = period_of(this_month - timedelta(days=1))
    try:
        period_bounds(period)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None
    scope = installation.tenant(tenant + TEST_SUFFIX if test else tenant).scope
    return _Invoicing(installation, scope, period, ACTOR if reveal else None)


def _writer(run: _Invoicing, one: InvoiceBundle, kind: str, locale: str) -> Callable[[IO[bytes]], None]:
    if kind == "json":
        return lambda out: _send(out, json.dumps(as_data(one), ensure_ascii=False, indent=2) + "\n")
    if kind == "html":
        return lambda out: _send(out, render_page(one, locale))
    here = run.installation
    with here.db.read(run.scope) as connection:
        who = links.show_link(connection, here.keys, run.scope, one.customer_id).customer_id
    formats = load_plugins().export_formats
    return lambda out: write_archive(here.db, here.keys, here.clock, run.scope, who, one, formats, out)


def _send(out: IO[bytes], text: str) -> None:
    out.write(text.encode())


def _write(target: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file complete or not at all."""
    draft = target.with_name(target.name + ".part")
    try:
        with draft.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _file_name(customer_id: str) -> str:
    """Return a customer id as part of a file name: a colon, which not every system takes, as in a URL."""
    return customer_id.replace(":", "%3A")
