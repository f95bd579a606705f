"""``shared-record export``: one period of a customer as a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import click

from shared_record.access import links
from shared_record.cli.address import as_served
from shared_record.cli.context import emit, is_terminal, json_option, note, open_installation, tenant_option
from shared_record.clock import period_of
from shared_record.db.engine import Database
from shared_record.db.scope import Scope
from shared_record.errors import NotFoundError
from shared_record.exports.look import looks_of
from shared_record.exports.service import Furnishing, build_export
from shared_record.hooks.loader import Plugins, load_plugins
from shared_record.keys import KeyRing
from shared_record.settings import Settings
from shared_record.theming.loader import load_themes


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
    plugins, db, keys = load_plugins(), installation.db, installation.keys
    formats = plugins.export_formats
    if slug not in formats:
        raise NotFoundError(f"there is no export format {slug!r}. Installed: {', '.join(sorted(formats))}.")
    with db.read(scope) as connection:
        who = links.show_link(connection, keys, scope, customer).customer_id
    extra = furnishing(db, keys, installation.settings, plugins)(scope, who)
    month = period or period_of(installation.clock.now())
    draft = (output or Path(f"usage-{month}")).with_suffix(".part")
    try:
        with draft.open("wb") as out:
            built = build_export(
                db, keys, installation.clock, scope, who, month, formats[slug], out, extra, _show_progress
            )
            out.flush()
            os.fsync(out.fileno())
        target = output or Path(built.filename)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    summary = built.summary
    if is_terminal():
        note("")
    emit(
        {"file": str(target)} | built.manifest,
        as_json=as_json,
        text=f"{target}: {summary.rows} rows, total {summary.total}.",
    )


def furnishing(
    db: Database, keys: KeyRing, settings: Settings, plugins: Plugins
) -> Callable[[Scope, UUID], Furnishing]:
    """Return what says of a customer what its documents carry besides figures."""
    looks, served = looks_of(load_themes(plugins.theme_roots).sound), as_served(db, settings)

    def furnish(scope: Scope, customer_id: UUID) -> Furnishing:
        with db.read(scope) as connection:
            link = links.find_link(connection, keys, scope, customer_id)
        url = ""
        if link is not None and link.path:
            url = served.url_for_host(link.host or served.platform_hosts[0], link.path)
        return Furnishing(plugins.export_formats, looks, url)

    return furnish


def _show_progress(rows: int) -> None:
    if is_terminal():
        click.echo(f"\r{rows:,} rows read", err=True, nl=False)
