"""What CLI commands share: settings from the environment, the opened installation, output in text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from shared_record.clock import Clock, SystemClock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.db.lookup import TenantRow
from shared_record.errors import ConfigurationError, NotFoundError
from shared_record.keys import KeyRing
from shared_record.settings import Settings, load_settings


@dataclass(frozen=True)
class Installation:
    """The installation that the environment names. Nothing is opened until it is used."""

    settings: Settings
    clock: Clock

    @cached_property
    def db(self) -> Database:
        """The database; one that was never migrated is an error that says what to run."""
        if not self.settings.database_url and not self.settings.sqlite_path.exists():
            raise ConfigurationError(
                f"no database at {self.settings.sqlite_path}. Run `shared-record migrate`, or set"
                " SHARED_RECORD_DATA_DIR or SHARED_RECORD_DATABASE_URL to the installation you mean."
            )
        database = Database(self.settings.sqlalchemy_url)
        if context := click.get_current_context(silent=True):
            context.call_on_close(database.dispose)
        return database

    @cached_property
    def keys(self) -> KeyRing:
        """The key ring."""
        return KeyRing.load(self.settings.keys_path)

    def tenant(self, slug: str) -> TenantRow:
        """Return the tenant with this slug, or raise ``NotFoundError`` naming those that exist."""
        found = lookup.find_tenant(self.db, slug)
        if found is None:
            live = [row.slug for row in lookup.list_tenants(self.db) if row.config_of is None]
            slugs = ", ".join(live) or "none yet"
            raise NotFoundError(f"there is no tenant {slug!r}. Tenants here: {slugs}.")
        return found


def open_installation(**overrides: Any) -> Installation:
    """Return the installation of the current environment, with options of the command line on top."""
    return Installation(load_settings(**overrides), SystemClock())


def local_log_keys() -> dict[str, list[str]]:
    """Return the verifier keys of the logs in the local data directory, by origin; empty where there is none."""
    try:
        installation = open_installation()
        return lookup.list_all_log_keys(installation.db)
    except (ConfigurationError, SQLAlchemyError):
        return {}


def emit(value: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print a result to stdout: one JSON object, or the text."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


def note(text: str) -> None:
    """Print progress or advice to stderr."""
    click.echo(text, err=True)


def is_terminal() -> bool:
    """Tell whether progress may be drawn."""
    return sys.stderr.isatty()


tenant_option = click.option("--tenant", required=True, metavar="SLUG", help="The tenant, by its slug.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
