"""`lumbar db`: the database schema."""

import typer

from db import schema
from db.database import Database
from lumbar.settings import Settings

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The database."""


@app.command(
    epilog="Example: "
    "LUMBAR_DATABASE_URL=postgresql+psycopg://lumbar@localhost/lumbar lumbar db upgrade"
)
def upgrade() -> None:
    """Upgrades the database to this version's schema; a missing one is created."""
    database = Database.connect(Settings.load().effective_database_url)
    revision = schema.upgrade(database)
    typer.echo(f"The database is at revision {revision}.")
