"""`lumbar users`: who may sign in to the web page."""

import getpass
import os
import sys
from collections.abc import Callable
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
Yes = Annotated[
    bool, typer.Option("--yes", help="Do not ask, even about the last enabled administrator")
]
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
    from db import accounts, passwords

    site = SiteContext.open(Settings.load())
    password_hash = passwords.new_hash(_password(), name)
    with site.database.transaction() as session:
        accounts.add_user(session, name, password_hash, role, by_command_line())
    typer.echo(f"{name} may sign in as {role}.")


@app.command(epilog="Example: lumbar users password anna")
def password(
    name: Name,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Do not revoke the user's API tokens")
    ] = False,
) -> None:
    """Sets a new password, ends the user's sessions and revokes their API tokens.

    Prompts for the password, or reads it from standard input.
    """
    from db import accounts, passwords

    site = SiteContext.open(Settings.load())
    new = passwords.new_hash(_password(), name)
    with site.database.transaction() as session:
        user = accounts.locked(session, name)
        accounts.set_password(session, user, new, by_command_line(), keep_tokens=keep_tokens)
    typer.echo(f"The password of {name} is set.")


@app.command(epilog="Example: lumbar users role anna operator")
def role(
    name: Name, role: Annotated[UserRole, typer.Argument(help="The new role")], yes: Yes = False
) -> None:
    """Changes a user's role; asks before the last enabled administrator becomes something else."""
    from db import accounts

    def change(even_last: bool) -> None:
        with site.database.transaction() as session:
            user = accounts.locked(session, name)
            accounts.set_role(session, user, role, by_command_line(), even_last=even_last)

    site = SiteContext.open(Settings.load())
    _even_if_last(change, yes)
    typer.echo(f"{name} has the role {role}.")


@app.command(epilog="Example: lumbar users disable anna")
def disable(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Enable the user again")] = False,
    yes: Yes = False,
) -> None:
    """Disables a user at once, sessions and tokens included; nothing the user did is removed.

    Asks before it disables the last enabled administrator.
    """
    from db import accounts

    def change(even_last: bool) -> None:
        with site.database.transaction() as session:
            user = accounts.locked(session, name)
            accounts.set_disabled(session, user, not undo, by_command_line(), even_last=even_last)

    site = SiteContext.open(Settings.load())
    _even_if_last(change, yes)
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


def _even_if_last(change: Callable[[bool], None], yes: bool) -> None:
    """Makes a change after which there may be no administrator only if that is wanted.

    Raises:
        LastAdministrator: it is not, or nobody can be asked.
    """
    from db.accounts import LastAdministrator

    try:
        change(yes)
    except LastAdministrator as error:
        if not sys.stdin.isatty():
            raise LastAdministrator(f"{error}; --yes does it all the same") from error
        typer.confirm(f"{error}. Do it all the same?", abort=True)
        change(True)


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Repeat the password: ") != password:
        raise WrongSetting("the passwords differ; nothing was changed")
    return password
