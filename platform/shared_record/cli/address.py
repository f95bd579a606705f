"""Where this installation is served: noted by ``serve``, so that other commands print links that open."""

from __future__ import annotations

import os
from dataclasses import replace

from sqlalchemy import select, update

from shared_record.db.engine import Database
from shared_record.db.schema import installation
from shared_record.settings import PREFIX, Settings

_NAMES = ("public_port", "public_tls")
_READ = select(installation.c.name, installation.c.value).where(installation.c.name.in_(_NAMES))
_GIVEN_BY = ("PORT", "PUBLIC_PORT", "PUBLIC_SCHEME")


def note_address(db: Database, settings: Settings) -> None:
    """Write down the scheme and port that customers see."""
    values = {"public_port": settings.visible_port, "public_tls": int(settings.public_scheme == "https")}
    with db.write(None) as connection:
        known = {row.name: row.value for row in connection.execute(_READ)}
        for name, value in values.items():
            if name not in known:
                connection.execute(installation.insert(), {"name": name, "value": value})
            elif known[name] != value:
                connection.execute(update(installation).where(installation.c.name == name).values(value=value))


def as_served(db: Database, settings: Settings) -> Settings:
    """Return ``settings`` with the scheme and port last served, unless the environment says something else."""
    if any(PREFIX + name in os.environ for name in _GIVEN_BY):
        return settings
    with db.read(None) as connection:
        known = {row.name: row.value for row in connection.execute(_READ)}
    if len(known) < len(_NAMES):
        return settings
    return replace(settings, public_port=known["public_port"], public_scheme="https" if known["public_tls"] else "http")
