"""Runs migrations on the connection of `lumbar db upgrade`, or on the configured database."""

from alembic import context
from sqlalchemy import Connection, text

from db.database import Database
from db.models import Table
from lumbar.settings import Settings


def migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Rather fail than block the receivers behind a lock that does not come.
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.execute(
            text("SET statement_timeout = 0")
        )  # a large table's index takes its time
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with Database.connect(Settings.load().effective_database_url).engine.connect() as opened:
        migrate(opened)
