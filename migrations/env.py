"""Alembic environment: the runner (``shared_record.db.migrate``) hands over an open connection."""

from alembic import context

from shared_record.db.migrate import CONFIGURE

connection = context.config.attributes["connection"]
context.configure(connection=connection, **CONFIGURE)
with context.begin_transaction():
    context.run_migrations()
