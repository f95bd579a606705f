"""``shared-record demo``: a whole installation in one command, with demo tenants and two months of usage."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from shared_record.access import apikeys, links
from shared_record.bundled import bundled_folder
from shared_record.cli.context import is_terminal, note
from shared_record.cli.run import export_settings, installation_options, prepare
from shared_record.cli.seed import count_deltas, email_of, seed_tenant
from shared_record.clock import Clock, SystemClock
from shared_record.db import lookup
from shared_record.db.engine import Database
from shared_record.errors import ConfigurationError, InvalidInputError, UnavailableError
from shared_record.hooks.loader import load_plugins
from shared_record.keys import KeyRing
from shared_record.ledger.locks import open_lock_store
from shared_record.manifest.apply import apply_tenants
from shared_record.manifest.check import Known, check_files, find_files
from shared_record.manifest.state import list_hosts
from shared_record.settings import PREFIX, Settings
from shared_record.tenancy.tenants import TEST_SUFFIX, read_tenant
from shared_record.theming.loader import load_themes

ACTOR = "cli:demo"
CHECKPOINT_SECONDS = 2
READY_SECONDS = 60
STOP_SECONDS = 15


@click.command(
    epilog="""\b
Examples:
  shared-record demo
  shared-record demo --port 8080 --data-dir /tmp/try --fresh
  shared-record demo --database-url postgresql://postgres@127.0.0.1/demo --ready-file ready.json"""
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 8000]")
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@installation_options
@click.option("--ready-file", type=click.Path(path_type=Path), help="Write links, codes and keys here when ready.")
@click.option("--fresh", is_flag=True, help="Throw the data directory away first.")
@click.option("--no-seed", is_flag=True, help="Start without usage.")
def demo(ready_file: Path | None, fresh: bool, no_seed: bool, **options: Any) -> None:
    """Set up and run a demo installation: keys, database, three tenants, two months of usage, server and worker.

    The first start takes some seconds; a later one reuses the data directory. Ctrl-C ends everything.
    """
    os.environ.setdefault(f"{PREFIX}CHECKPOINT_SECONDS", str(CHECKPOINT_SECONDS))
    settings = export_settings(**options)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    _require_free_port(settings)
    if fresh:
        _throw_away(settings)
    prepare(settings)
    db = Database(settings.sqlalchemy_url)
    try:
        card = _set_up(settings, db, seed=not no_seed)
    finally:
        db.dispose()
    with _children(settings) as children:
        _wait_until_ready(settings, children)
        if ready_file is not None:
            _write_private(ready_file, card)
        _print_card(card)
        _wait_for_end(children)


# --- Set-up ----------------------------------------------------------------------------------------------------------


def _set_up(settings: Settings, db: Database, *, seed: bool) -> dict[str, Any]:
    """Apply the demo tenants, make their keys, seed usage; return the card. Interrupted, it is simply run again."""
    keys, clock = KeyRing.load(settings.keys_path), SystemClock()
    slugs = _apply_tenants(settings, db, keys, clock)
    path = settings.data_dir / "demo.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"api_keys": {}, "seeded": {}}
    for slug in slugs:
        for plane, suffix in (("api_keys", ""), ("test_api_keys", TEST_SUFFIX)):
            made = state.setdefault(plane, {})
            if slug not in made:
                made[slug] = _make_key(db, clock, slug + suffix)
                _write_private(path, state)
    missing = [slug for slug in slugs if not state["seeded"].get(slug)]
    if seed and missing:
        state.setdefault("until", clock.now().isoformat())
        _write_private(path, state)
        _seed(settings, db, keys, missing, datetime.fromisoformat(state["until"]))
        state["seeded"] |= dict.fromkeys(missing, True)
    card = _card(settings, db, keys, clock, state)
    _write_private(path, state | {"card": card})
    return card


def _apply_tenants(settings: Settings, db: Database, keys: KeyRing, clock: Clock) -> list[str]:
    plugins = load_plugins()
    known = Known(
        themes=frozenset(load_themes(plugins.theme_roots).sound),
        methods={slug: kind.settings_model for slug, kind in plugins.step_up_methods.items()},
        formats=frozenset(plugins.export_formats),
        platform_hosts=settings.platform_hosts,
    )
    files, problems = find_files([bundled_folder("tenants")])
    checked, more = check_files(files, known)
    if problems or more:
        raise ConfigurationError("\n".join(str(problem) for problem in [*problems, *more]))
    apply_tenants(db, keys, clock, settings, checked)
    return [one.slug for one in checked]


def _make_key(db: Database, clock: Clock, slug: str) -> str:
    tenant = lookup.find_tenant(db, slug)
    assert tenant is not None  # just applied
    with db.write(tenant.scope) as connection:
        return apikeys.create_key(connection, clock, tenant.scope, name="demo", actor=ACTOR)


def _seed(settings: Settings, db: Database, keys: KeyRing, slugs: list[str], until: datetime) -> None:
    locks = open_lock_store(settings)
    total = count_deltas(slugs)
    bar = click.progressbar(
        length=total, label="Recording two months of usage", file=sys.stderr, hidden=not is_terminal()
    )
    if not is_terminal():
        note(f"Recording two months of usage: {total:,} deltas.")
    with bar:
        for slug in slugs:
            tenant = lookup.find_tenant(db, slug)
            assert tenant is not None  # just applied
            seed_tenant(db, keys, locks, tenant, until, bar.update)


def _card(settings: Settings, db: Database, keys: KeyRing, clock: Clock, state: dict[str, Any]) -> dict[str, Any]:
    """Return what a person or a script needs to try the demo."""
    tenants = []
    for slug, api_key in state["api_keys"].items():
        tenant = lookup.find_tenant(db, slug)
        if tenant is None:
            continue
        scope = tenant.scope
        with db.write(scope) as connection:
            chosen = read_tenant(connection, scope)
            hosts = [one.host for one in list_hosts(connection, scope)]
            customers = [
                {
                    "customer_id": found.external_id,
                    "url": settings.url_for_host(found.host or settings.platform_hosts[0], found.path),
                    "access_code": links.reveal_code(connection, keys, clock, scope, found.external_id, ACTOR),
                }
                for found in links.list_links(connection, keys, scope)
                if found.path is not None
            ]
        tenants.append(
            {
                "slug": slug,
                "hosts": hosts,
                "theme": chosen.theme,
                "policy": chosen.policy.value,
                "api_key": api_key,
                "test_api_key": state["test_api_keys"][slug],
                "customers": customers,
            }
        )
    return {"platform": {"url": settings.url_for_host(settings.platform_hosts[0])}, "tenants": tenants}


def _throw_away(settings: Settings) -> None:
    """Delete a data directory, but only one that this program made."""
    if settings.database_url:
        raise InvalidInputError("--fresh is for the data directory. Make an empty database for --database-url instead.")
    if not settings.data_dir.exists():
        return
    if any(settings.data_dir.iterdir()) and not settings.keys_path.exists():
        raise InvalidInputError(f"{settings.data_dir} holds no keys.json, so it is not a data directory; left alone.")
    shutil.rmtree(settings.data_dir)


def _write_private(path: Path, document: dict[str, Any]) -> None:
    """Write JSON whole or not at all, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


# --- Running ---------------------------------------------------------------------------------------------------------


@contextmanager
def _children(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run web server and worker as children; end them with the block, whatever ends it."""
    log = _log_file(settings)
    children: list[subprocess.Popen[bytes]] = []

    def stop(*_: object) -> None:
        # Once is enough: a second Ctrl-C, or one that a parent passes on as well, must not cut the ending short.
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        for command in ("serve", "worker"):
            line = [sys.executable, "-m", "shared_record", command, "--supervised"]
            # The worker's output is the mails it would send: they belong before the eyes of who tries the demo.
            out = None if command == "worker" else subprocess.DEVNULL
            # A session of their own: Ctrl-C reaches the supervisor alone, which then ends them in order.
            child = subprocess.Popen(line, start_new_session=True, stdout=out, stderr=log)  # noqa: S603  our own command
            children.append(child)
        yield children
    except KeyboardInterrupt:
        note("\nStopping.")
    finally:
        _end(children)
        for name, handler in before.items():
            signal.signal(name, handler)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    limit = time.monotonic() + STOP_SECONDS
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.1, limit - time.monotonic()))
        # Its group is its own; this reaches also what a child that was killed has left behind, the web processes.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _log_file(settings: Settings) -> Any:
    return os.open(settings.data_dir / "demo.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _wait_until_ready(settings: Settings, children: list[subprocess.Popen[bytes]]) -> None:
    limit = time.monotonic() + READY_SECONDS
    while time.monotonic() < limit:
        _require_alive(settings, children)
        connection = http.client.HTTPConnection(_reachable(settings.host), settings.port, timeout=2)
        try:
            connection.request("GET", "/healthz/ready", headers={"Host": settings.platform_hosts[0]})
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise UnavailableError(f"the server was not ready within {READY_SECONDS} s. See {settings.data_dir / 'demo.log'}")


def _wait_for_end(children: list[subprocess.Popen[bytes]]) -> None:
    while all(child.poll() is None for child in children):
        time.sleep(0.5)
    raise UnavailableError("a part of the demo ended by itself.")


def _require_alive(settings: Settings, children: list[subprocess.Popen[bytes]]) -> None:
    if any(child.poll() is not None for child in children):
        raise UnavailableError(f"a part of the demo could not start. See {settings.data_dir / 'demo.log'}")


def _require_free_port(settings: Settings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise UnavailableError(
                f"port {settings.port} on {settings.host} cannot be used: {error.strerror}. Choose another with --port."
            ) from error


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  translated, not bound


def _print_card(card: dict[str, Any]) -> None:
    lines = ["", "Shared Record is running. Open a link as a customer would:", ""]
    for tenant in card["tenants"]:
        lines.append(f"{tenant['slug']}  {tenant['policy']}, theme {tenant['theme']}")
        for one in tenant["customers"]:
            lines.append(f"  {one['url']}  code {one['access_code']}")
            if address := email_of(tenant["slug"], one["customer_id"]):
                lines.append(f"    or a code by e-mail to {address}, which appears below")
        lines += [f"  API key  {tenant['api_key']}", f"  test data  {tenant['test_api_key']}", ""]
    lines += [f"Platform  {card['platform']['url']}  (API at /api/v1)", "Stop      Ctrl-C", ""]
    click.echo("\n".join(lines))
