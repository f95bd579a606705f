"""``serve``, ``worker`` and ``migrate``: the parts of a running installation."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from shared_record import log
from shared_record.cli.address import note_address
from shared_record.cli.context import note
from shared_record.cli.export import furnishing
from shared_record.clock import SystemClock
from shared_record.db import lookup
from shared_record.db import migrate as migrations
from shared_record.db.engine import Database
from shared_record.delivery.deliver import Deliverer
from shared_record.delivery.egress import Egress
from shared_record.delivery.mail import open_post
from shared_record.delivery.mailer import Mailer
from shared_record.errors import ConfigurationError
from shared_record.exports.building import Builder
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.ledger.announce import expand
from shared_record.ledger.locks import open_lock_store
from shared_record.settings import PREFIX, Settings, load_settings
from shared_record.worker import Worker

Command = TypeVar("Command", bound=Callable[..., Any])


def installation_options(command: Command) -> Command:
    """Add the options that say which installation is meant; each stands above the environment."""
    options = (
        click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of keys and SQLite database."),
        click.option("--database-url", metavar="URL", help="postgresql://… instead of SQLite in the data directory."),
        click.option("--redis-url", metavar="URL", help="redis://… for limits shared by several web processes."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def export_settings(**options: Any) -> Settings:
    """Put options into the environment, where child processes find them too, and return the settings."""
    for name, value in options.items():
        if value is not None:
            os.environ[PREFIX + name.upper()] = str(value)
    return load_settings()


def prepare(settings: Settings) -> tuple[str | None, str]:
    """Make the key ring where there is none and migrate the database; return the revisions before and after."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    revisions = migrations.upgrade(settings.owner_url)
    if not settings.keys_path.exists():
        _require_no_tenants(settings)
        KeyRing.generate().save(settings.keys_path)
    return revisions


def _require_no_tenants(settings: Settings) -> None:
    """Refuse to make a key ring beside data that another one made: it would open nothing and hide the loss."""
    db = Database(settings.sqlalchemy_url)
    try:
        tenants = lookup.list_tenants(db)
    finally:
        db.dispose()
    if tenants:
        raise ConfigurationError(
            f"the database has tenants, but {settings.keys_path} is missing. Restore the key ring that belongs to it:"
            " without it no access code works and nothing sealed can be opened."
        )


@click.command(epilog="Example:  shared-record migrate --data-dir /var/lib/shared-record")
@installation_options
def migrate(**options: Any) -> None:
    """Create or upgrade the database, and make the key ring where there is none.

    Safe to run again at any time: it does nothing when there is nothing to do. The key ring (keys.json, mode 0600)
    opens every link and code: keep a copy of it apart from the database's backups.
    """
    settings = export_settings(**options)
    before, after = prepare(settings)
    click.echo(f"The database is at revision {after}" + ("." if before == after else f" (was: {before or 'empty'})."))


@click.command(
    epilog="""\b
Examples:
  shared-record serve --port 8000
  SHARED_RECORD_PUBLIC_SCHEME=https SHARED_RECORD_PLATFORM_HOSTS=records.example shared-record serve --host 0.0.0.0"""
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 8000]")
@installation_options
@click.option("--supervised", is_flag=True, hidden=True)
def serve(supervised: bool, **options: Any) -> None:
    """Run the web server until Ctrl-C or SIGTERM; requests under way are finished first."""
    from granian.constants import Interfaces
    from granian.http import HTTP1Settings
    from granian.server import Server

    settings = export_settings(**options)
    _require_migrated(settings)
    db = Database(settings.sqlalchemy_url)
    note_address(db, settings)
    db.dispose()
    server = Server(
        "shared_record.app:create_app",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.web_processes,
        blocking_threads=settings.web_threads,
        backpressure=settings.web_threads * 8,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        websockets=False,
        workers_kill_timeout=10,
        respawn_failed_workers=True,
        log_access=False,
    )
    if supervised:
        _follow_parent()
    server.serve()


@click.command(epilog="Example:  shared-record worker --database-url postgresql://app@db/records")
@installation_options
@click.option("--supervised", is_flag=True, hidden=True)
def worker(supervised: bool, **options: Any) -> None:
    """Integrate new deltas, publish checkpoints, close periods, deliver webhooks and mail until Ctrl-C or SIGTERM.

    Any number may run.
    """
    settings = export_settings(**options)
    _require_migrated(settings)
    log.configure(settings.log_level)
    if supervised:
        _follow_parent()
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    db = Database(settings.sqlalchemy_url)
    locks = open_lock_store(settings)
    keys, plugins = KeyRing.load(settings.keys_path), load_plugins()
    loop = Worker(db, keys, SystemClock(), locks, settings.checkpoint_seconds, plugins.checkpoint_anchors)
    furnish = furnishing(db, keys, settings, plugins)
    loop.exports = Builder(db, keys, loop.clock, plugins.export_formats, settings.exports_path, furnish)
    # Deliveries have a thread, and connections to the database, of their own: checkpoints never wait for a receiver.
    outgoing = Database(settings.sqlalchemy_url)
    deliverer = Deliverer(outgoing, keys, loop.clock, Egress(settings.egress_allow), expand, loop.note_disabled)
    sending = [threading.Thread(target=deliverer.run, args=(stop,), name="deliveries")]
    if post := open_post(settings):
        mailer = Mailer(outgoing, loop.keys, loop.clock, post)
        sending.append(threading.Thread(target=mailer.run, args=(stop,), name="mail"))
    note(f"{loop.name} runs.")
    for thread in sending:
        thread.start()
    try:
        loop.run(stop)
    finally:
        stop.set()
        for thread in sending:
            thread.join()
        for database in (db, outgoing):
            database.dispose()


def _follow_parent() -> None:
    """End this process as by SIGTERM once its supervisor is gone: a killed demo must leave nothing running."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _require_migrated(settings: Settings) -> None:
    if not settings.database_url and not settings.sqlite_path.exists():
        raise ConfigurationError(f"no database in {settings.data_dir}. Run: shared-record migrate")
    db = Database(settings.sqlalchemy_url)
    try:
        current, head = migrations.current_revision(db.engine), migrations.head_revision()
    finally:
        db.dispose()
    if current != head:
        raise ConfigurationError(
            f"the database is at revision {current or 'none'}, this version needs {head}. Run: shared-record migrate"
        )
