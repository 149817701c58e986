"""`lumbar users`: who may sign in to the web page."""

import getpass
import os
import sys
from typing import Annotated

import typer

from commands.output import AsFormat, Format, print_records
from db import audit
from db.audit import Participant, on_this_host
from db.context import SiteContext
from db.models import UserRole
from lumbar.errors import Transient, WrongSetting
from lumbar.log import get_logger
from lumbar.settings import Settings

log = get_logger()

app = typer.Typer(help="Users of the web page.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The user's name")]
COLUMNS = ("name", "role", "created_at", "disabled_at")


@app.callback()
def _group() -> None:
    """Users of the web page."""


@app.command(epilog="Example: lumbar users add anna --role reader")
def add(
    name: Name,
    role: Annotated[
        UserRole,
        typer.Option(
            help="viewer: view; reader: view, review; operator: view, operate; admin: all"
        ),
    ],
) -> None:
    """Adds a user; prompts for the password, or reads it from standard input."""
    from db import accounts

    site = SiteContext.open(Settings.load())
    password = _password()
    with site.database.transaction() as session:
        accounts.add_user(session, name, password, role, by_command_line())
    typer.echo(f"{name} may sign in as {role}.")


@app.command(epilog="Example: lumbar users password anna")
def password(name: Name) -> None:
    """Sets a new password and ends the user's sessions.

    Prompts for the password, or reads it from standard input.
    """
    from db import accounts

    site = SiteContext.open(Settings.load())
    new = _password()
    with site.database.transaction() as session:
        accounts.set_password(session, accounts.user_named(session, name), new, by_command_line())
    typer.echo(f"The password of {name} is set.")


@app.command(epilog="Example: lumbar users role anna operator")
def role(name: Name, role: Annotated[UserRole, typer.Argument(help="The new role")]) -> None:
    """Changes a user's role."""
    from db import accounts

    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        accounts.set_role(session, accounts.user_named(session, name), role, by_command_line())
    typer.echo(f"{name} has the role {role}.")


@app.command(epilog="Example: lumbar users disable anna")
def disable(
    name: Name, undo: Annotated[bool, typer.Option("--undo", help="Enable the user again")] = False
) -> None:
    """Disables a user at once, sessions and tokens included; nothing the user did is removed."""
    from db import accounts

    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        accounts.set_disabled(
            session, accounts.user_named(session, name), not undo, by_command_line()
        )
    typer.echo(f"{name} may {'' if undo else 'not '}sign in.")


@app.command("list", epilog="Example: lumbar users list --format json")
def list_(form: AsFormat = Format.TABLE) -> None:
    """Lists all users, disabled ones too."""
    from db import accounts

    site = SiteContext.open(Settings.load())
    record_visit(site, "users.seen")
    with site.database.reading() as session:
        rows = accounts.users(session)
    records = [
        {
            "name": user.name,
            "role": user.role,
            "created_at": user.created_at.isoformat(timespec="seconds"),
            "disabled_at": user.disabled_at.isoformat(timespec="seconds")
            if user.disabled_at
            else None,
        }
        for user in rows
    ]
    print_records(records, COLUMNS, form)


def by_command_line() -> Participant:
    """Who works here: the user's number, as a container's user may have no name."""
    return on_this_host(f"command line, user {os.getuid()}")


def record_view(site: SiteContext, event: str, study_id: int | None = None) -> None:
    """Records that patients' data are about to be shown.

    Raises:
        Transient: it cannot be recorded; then nothing may be shown.
    """
    with site.database.transaction() as session:
        audit.note(session, event, by_command_line(), study_id=study_id)


def record_visit(site: SiteContext, event: str) -> None:
    """The same for what names no patient: it is shown though the disk may be full."""
    try:
        record_view(site, event)
    except Transient as error:
        log.warning("audit.not_written", lines=1, why=str(error))


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Repeat the password: ") != password:
        raise WrongSetting("the passwords differ; nothing was changed")
    return password
