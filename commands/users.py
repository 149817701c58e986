"""`lumbar users`: who may sign in to the page."""

import getpass
import os
import sys
from typing import Annotated

import typer

from commands.output import AsFormat, Format, print_records
from db import accounts
from db.context import SiteContext
from db.models import UserRole
from lumbar.errors import WrongSetting
from lumbar.settings import Settings

app = typer.Typer(help="The people who may sign in to the page.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name to sign in with")]
COLUMNS = ("name", "role", "created_at", "disabled_at")


@app.callback()
def _group() -> None:
    """The people who may sign in to the page."""


@app.command(epilog="Example: lumbar users add anna --role reader")
def add(
    name: Name,
    role: Annotated[
        UserRole,
        typer.Option(help="viewer: sees; reader: also reviews; operator: runs; admin: all"),
    ],
) -> None:
    """Adds somebody; the password is asked for, or read from standard input."""
    site = SiteContext.open(Settings.load())
    password = _password()
    with site.database.transaction() as session:
        accounts.add_user(session, name, password, role, by_command_line())
    typer.echo(f"{name} may sign in as {role}.")


@app.command(epilog="Example: lumbar users password anna")
def password(name: Name) -> None:
    """Sets a new password; it is asked for, or read from standard input. Browsers have to sign in again."""
    site = SiteContext.open(Settings.load())
    new = _password()
    with site.database.transaction() as session:
        accounts.set_password(session, accounts.user_named(session, name), new, by_command_line())
    typer.echo(f"The password of {name} is set.")


@app.command(epilog="Example: lumbar users role anna operator")
def role(name: Name, role: Annotated[UserRole, typer.Argument(help="The new role")]) -> None:
    """Gives somebody another role."""
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        accounts.set_role(session, accounts.user_named(session, name), role, by_command_line())
    typer.echo(f"{name} is {role} now.")


@app.command(epilog="Example: lumbar users disable anna")
def disable(
    name: Name, undo: Annotated[bool, typer.Option("--undo", help="May sign in again")] = False
) -> None:
    """Ends somebody's access at once, in browsers and for tokens; nothing that they did is removed."""
    site = SiteContext.open(Settings.load())
    with site.database.transaction() as session:
        accounts.set_disabled(
            session, accounts.user_named(session, name), not undo, by_command_line()
        )
    typer.echo(f"{name} may {'' if undo else 'not '}sign in.")


@app.command("list", epilog="Example: lumbar users list --format json")
def list_(form: AsFormat = Format.TABLE) -> None:
    """Lists who may sign in, and who no more."""
    site = SiteContext.open(Settings.load())
    with site.database.reading() as session:
        people = accounts.users(session)
    records = [
        {
            "name": user.name,
            "role": user.role,
            "created_at": user.created_at.isoformat(timespec="seconds"),
            "disabled_at": user.disabled_at.isoformat(timespec="seconds")
            if user.disabled_at
            else None,
        }
        for user in people
    ]
    print_records(records, COLUMNS, form)


def by_command_line() -> str:
    """Who did it, for the audit trail; a container's user may have no name."""
    return f"command line, user {os.getuid()}"


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise WrongSetting("the two are not the same; nothing was changed")
    return first
