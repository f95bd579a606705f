"""Transactions on SQLite and PostgreSQL with one set of rules.

``read`` is a deferred transaction, ``write`` takes the write lock at once on SQLite (``BEGIN IMMEDIATE``), so that a
transaction never fails half-way for want of it. Both are bound to a tenant ``Scope``.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg import OperationalError
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import QueuePool

from shared_record.db.prepared import send
from shared_record.db.scope import Scope, check_statement

APP_ROLE = "sr_app"
CACHE_KIB = 32 * 1024
"""Pages of SQLite that one connection keeps: a checkpoint over many customers goes through many of them twice."""
BUSY_TIMEOUT_MS = 5_000


class Database:
    """One database. Thread-safe; opens no connection until used."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.url = url
        self.is_postgresql = make_url(url).get_backend_name() == "postgresql"
        # Values never stand in the text of an error, which may be logged.
        options: dict[str, Any] = {
            "hide_parameters": True,
            "pool_size": pool_size,
            "max_overflow": pool_size,
            "pool_timeout": 10,
        }
        if not self.is_postgresql:
            options["poolclass"] = QueuePool
        self.engine: Engine = create_engine(url, **options)
        event.listen(self.engine, "connect", _as_app_role if self.is_postgresql else _prepare_sqlite)
        if self.is_postgresql:
            event.listen(self.engine, "checkout", _refuse_closed)
        else:
            event.listen(self.engine, "begin", _begin_sqlite)
        event.listen(self.engine, "before_execute", _check)

    @contextmanager
    def read(self, scope: Scope | None, *, snapshot: bool = False) -> Iterator[Connection]:
        """Open a transaction for reading. ``snapshot``: every statement in it sees one state of the database."""
        level = {"isolation_level": "REPEATABLE READ"} if snapshot and self.is_postgresql else {}
        with self._begin(scope, **level) as connection:
            yield connection

    @contextmanager
    def read_beside(self, connection: Connection, scope: Scope) -> Iterator[Connection]:
        """Open another transaction that sees the state that ``connection`` sees, on PostgreSQL, from a snapshot."""
        name = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        level = {"isolation_level": "REPEATABLE READ"}
        with self.engine.connect().execution_options(sr_scope=scope, **level) as other, other.begin():
            other.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{name}'")  # before anything else is read in it
            self._announce(other, scope)
            yield other

    @contextmanager
    def look_up(self, scope: Scope | None = None) -> Iterator[Connection]:
        """Open a connection for one statement by ``db.prepared``, without a transaction around it where none is needed:
        on PostgreSQL it is in a transaction that the tenant is announced for.
        """
        if scope is not None and self.is_postgresql:
            with self.read(scope) as connection:
                yield connection
            return
        level = {"isolation_level": "AUTOCOMMIT"} if self.is_postgresql else {}
        with self.engine.connect().execution_options(sr_scope=scope, **level) as connection:
            yield connection

    @contextmanager
    def write(self, scope: Scope | None) -> Iterator[Connection]:
        """Open a transaction for writing; commits at the end, rolls back when the block raises."""
        with self._begin(scope, sr_write=True) as connection:
            yield connection

    @contextmanager
    def _begin(self, scope: Scope | None, **options: Any) -> Iterator[Connection]:
        with self.engine.connect().execution_options(sr_scope=scope, **options) as connection, connection.begin():
            self._announce(connection, scope)
            yield connection

    @contextmanager
    def rescope(self, connection: Connection, scope: Scope) -> Iterator[Connection]:
        """Work for another tenant within the same transaction, e.g. to apply several tenants or none."""
        before: Scope | None = connection.get_execution_options().get("sr_scope")
        connection.execution_options(sr_scope=scope)
        self._announce(connection, scope)
        try:
            yield connection
        except BaseException:
            connection.execution_options(sr_scope=before)
            with suppress(DBAPIError):  # a transaction that failed forgets the setting when it is rolled back
                self._announce(connection, before)
            raise
        connection.execution_options(sr_scope=before)
        self._announce(connection, before)

    def _announce(self, connection: Connection, scope: Scope | None) -> None:
        """Tell PostgreSQL's row-level security whose rows this transaction may see."""
        if self.is_postgresql:
            send(
                connection,
                "SELECT set_config('sr.plane', %s, true), set_config('sr.config', %s, true)",
                (str(scope.plane), str(scope.config)) if scope else ("", ""),
            ).close()

    def dispose(self) -> None:
        """Close pooled connections."""
        self.engine.dispose()


def _check(_connection: Connection, statement: Any, many: Any, one: Any, options: Any) -> None:
    check_statement(
        statement,
        many or ([one] if one else []),
        options.get("sr_scope"),
        reviewed=bool(options.get("sr_reviewed")),
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not guessed by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "trusted_schema=OFF",
        f"cache_size=-{CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("sr_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that the server has closed meanwhile.

    Nothing comes in on an idle connection but its end, so a look at the socket tells, without asking the server.
    """
    poll = select.poll()
    with suppress(OperationalError):  # raised where the driver knows already that it is closed
        poll.register(connection.fileno(), select.POLLIN)
        if not poll.poll(0):
            return
    raise DisconnectionError("the server closed this connection")


def _as_app_role(connection: Any, _record: Any) -> None:
    """Give up whatever rights the login has beyond the application's own role, under which row-level security holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        if cursor.fetchone()[0] != APP_ROLE:
            cursor.execute(f"SET ROLE {APP_ROLE}")
        # A plan made while a table was small must not be kept while it grows by millions of rows.
        cursor.execute("SET plan_cache_mode = force_custom_plan")
    connection.commit()
