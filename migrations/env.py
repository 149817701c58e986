"""Runs migrations on the connection of `lumbar db upgrade`, or on the configured database."""

from alembic import context
from sqlalchemy import Connection, text

from db.database import Database
from db.models import Table
from lumbar.settings import Settings


def migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Fail rather than block the receivers while waiting for a lock.
        connection.execute(text("SET lock_timeout = '10s'"))
        # Creating an index on a large table may take long.
        connection.execute(text("SET statement_timeout = 0"))
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


caller_connection = context.config.attributes.get("connection")
if caller_connection is not None:
    migrate(caller_connection)
else:
    with Database.connect(Settings.load().effective_database_url).engine.connect() as connection:
        migrate(connection)
