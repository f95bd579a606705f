"""Bring a database to the schema of this version: forward only, one transaction, one runner at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import autogenerate, command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text

from shared_record.bundled import bundled_folder
from shared_record.db.engine import APP_ROLE
from shared_record.db.schema import metadata
from shared_record.errors import ConfigurationError

OWNER_ROLE = "sr_owner"
_LOCK_ID = 0x5352_0001


def _render_item(kind: str, item: Any, _context: Any) -> str | bool:
    return f"{type(item).__name__}()" if kind == "type" and "shared_record" in type(item).__module__ else False


CONFIGURE: dict[str, Any] = {
    "target_metadata": metadata,
    "transaction_per_migration": False,
    "transactional_ddl": True,
    "render_item": _render_item,
}


def upgrade(owner_url: str) -> tuple[str | None, str]:
    """Migrate to the newest revision; return (revision before, revision after).

    On PostgreSQL the roles ``sr_owner`` (owns the tables) and ``sr_app`` (row-level security applies to it) are made
    when the login may make roles; otherwise they must exist and be granted to it.
    """
    with _connection(owner_url) as connection:
        config = _config(connection)
        before = MigrationContext.configure(connection).get_current_revision()
        head = head_revision()
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if before is not None and before not in known:
            raise ConfigurationError(f"the database is at revision {before}, which is newer than this version knows.")
        command.upgrade(config, "head")
        return before, head


def current_revision(engine: Engine) -> str | None:
    """Return the revision the database is at, or ``None`` for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """Return the newest revision of this version."""
    revision = ScriptDirectory.from_config(_config(None)).get_current_head()
    if revision is None:
        raise ConfigurationError(f"no migrations in {bundled_folder('migrations')}")
    return revision


def drift(owner_url: str) -> list[Any]:
    """Return what differs between the migrated database and the schema in code; empty is right."""
    with _connection(owner_url) as connection:
        return list(autogenerate.compare_metadata(MigrationContext.configure(connection, opts=CONFIGURE), metadata))


def new_revision(owner_url: str, message: str) -> None:
    """Write a migration from the difference between the database and the schema in code (for developers)."""
    with _connection(owner_url) as connection:
        command.revision(_config(connection), message=message, autogenerate=True)


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(bundled_folder("migrations")).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connection(owner_url: str) -> Iterator[Connection]:
    engine = create_engine(owner_url)
    postgresql = make_url(owner_url).get_backend_name() == "postgresql"
    if not postgresql:
        event.listen(engine, "connect", _manual_transactions)
        event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        if postgresql:
            with engine.begin() as connection:
                _ensure_roles(connection)
        with engine.begin() as connection:
            if postgresql:
                connection.execute(text(f"SET LOCAL ROLE {OWNER_ROLE}"))
                connection.execute(text("SET LOCAL lock_timeout = '10s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            yield connection
    finally:
        engine.dispose()


def _manual_transactions(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")


def _ensure_roles(connection: Connection) -> None:
    """Make the two roles where they are missing. Roles belong to the cluster, so another runner may be first.

    A login that may not make roles needs none of this where an administrator made and granted them.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
    present = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    right = "SET" if _server_version(connection) >= 160_000 else "MEMBER"
    for role in (OWNER_ROLE, APP_ROLE):
        if role not in present:
            connection.execute(
                text(
                    f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN NOBYPASSRLS;"
                    " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
                )
            )
        member = connection.execute(
            text("SELECT pg_has_role(current_user, :role, :right)"), {"role": role, "right": right}
        ).scalar_one()
        if not member:
            connection.execute(text(f"GRANT {role} TO current_user"))
    for role, rights in ((OWNER_ROLE, ("USAGE", "CREATE")), (APP_ROLE, ("USAGE",))):
        for one in rights:
            allowed = connection.execute(
                text("SELECT has_schema_privilege(:role, 'public', :right)"), {"role": role, "right": one}
            ).scalar_one()
            if not allowed:
                connection.execute(text(f"GRANT {one} ON SCHEMA public TO {role}"))


def _server_version(connection: Connection) -> int:
    return int(connection.execute(text("SHOW server_version_num")).scalar_one())
