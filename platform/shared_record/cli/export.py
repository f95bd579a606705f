"""``shared-record export``: one period of a customer as a file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from shared_record.access import links
from shared_record.cli.context import emit, json_option, open_installation, tenant_option
from shared_record.clock import period_of
from shared_record.errors import NotFoundError
from shared_record.exports.service import build_export
from shared_record.hooks.loader import load_plugins


@click.command(
    epilog="""\b
Examples:
  shared-record export cust_northwind --tenant acme --format json
  shared-record export cust_northwind --tenant acme --period 2026-10 --format csv --output october.csv"""
)
@click.argument("customer")
@tenant_option
@click.option("--period", metavar="YYYY-MM", help="The UTC month.  [default: the current one]")
@click.option("--format", "slug", default="json", show_default=True, help="An installed export format.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.  [default: usage-…]"
)
@json_option
def export(customer: str, tenant: str, period: str | None, slug: str, output: Path | None, as_json: bool) -> None:
    """Write one period of CUSTOMER to a file, complete or not at all."""
    installation = open_installation()
    scope = installation.tenant(tenant).scope
    formats = load_plugins().export_formats
    if slug not in formats:
        raise NotFoundError(f"there is no export format {slug!r}. Installed: {', '.join(sorted(formats))}.")
    with installation.db.read(scope) as connection:
        who = links.show_link(connection, installation.keys, scope, customer).customer_id
    month = period or period_of(installation.clock.now())
    draft = (output or Path(f"usage-{month}")).with_suffix(".part")
    try:
        with draft.open("wb") as out:
            built = build_export(
                installation.db, installation.keys, installation.clock, scope, who, month, formats[slug], out
            )
            out.flush()
            os.fsync(out.fileno())
        target = output or Path(built.filename)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    summary = built.summary
    emit(
        {"file": str(target)} | built.manifest,
        as_json=as_json,
        text=f"{target}: {summary.rows} rows, total {summary.total}.",
    )
