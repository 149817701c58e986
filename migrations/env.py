"""Runs migrations in the transaction of `lumbar db upgrade`, or on the configured database."""

from alembic import context
from sqlalchemy import Connection

from db.database import Database
from db.models import Table
from db.schema import changing
from lumbar.settings import Settings


def migrate(connection: Connection) -> None:
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
    with changing(Database.connect(Settings.load().effective_database_url)) as connection:
        migrate(connection)
