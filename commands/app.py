"""All commands in one application."""

import typer

from commands import (
    analyse,
    database,
    demo,
    destinations,
    jobs,
    phantom,
    query,
    send,
    services,
    train,
    users,
)
from lumbar.spine.provenance import RESEARCH_USE_ONLY

app = typer.Typer(
    name="lumbar",
    help=f"Reads lumbar-spine MR studies as they arrive and puts severe ones first. {RESEARCH_USE_ONLY}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
for group in (services.app, analyse.app, query.app, phantom.app, train.app, send.app, demo.app):
    app.registered_commands += group.registered_commands
app.add_typer(database.app, name="db")
app.add_typer(destinations.app, name="destinations")
app.add_typer(jobs.app, name="jobs")
app.add_typer(users.app, name="users")
