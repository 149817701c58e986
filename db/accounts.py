"""Users: their names, roles and passwords, and whether they may sign in."""

import re
from collections.abc import Collection

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from db import api_tokens, audit, sessions
from db.audit import Participant
from db.models import KnownBrowser, User, UserRole
from db.passwords import PasswordHash
from db.types import read_clock
from lumbar.errors import NotFound, Permanent

_NAME = re.compile(r"(?=.*\w)[\w.@+-]+( [\w.@+-]+)*")


class LastAdministrator(Permanent):
    """Nobody would be left who may administer users."""


def has_users(session: Session) -> bool:
    """Whether there is any user; until then the page is served to this machine only."""
    return session.scalar(select(User.id).limit(1)) is not None


def users(session: Session) -> list[User]:
    """All users, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def known_name(session: Session, name: str) -> str:
    """The name if a user has it, else nothing: people type passwords where names belong."""
    return session.scalar(select(User.name).where(User.name == name)) or ""


def user_named(session: Session, name: str) -> User:
    """The user with this name.

    Raises:
        NotFound: there is none.
    """
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"there is no user {name!r}; `lumbar users list` shows all users")
    return user


def locked(session: Session, name: str, others: Collection[int] = ()) -> User:
    """The user with this name, to be changed in this transaction, which first waits for others.

    All administrators are locked, too, so that each change of users sees those before it, and
    ``others``: the ids of further users whose rows it will lock.

    Raises:
        NotFound: there is none.
    """
    session.execute(
        select(User.id)
        .where(or_(User.name == name, User.role == UserRole.ADMIN, User.id.in_(others)))
        .order_by(User.id)
        .with_for_update()
    )
    user = user_named(session, name)
    session.refresh(user)
    return user


def add_user(
    session: Session, name: str, password_hash: PasswordHash, role: UserRole, actor: Participant
) -> User:
    """Adds a user.

    Raises:
        Permanent: the name is taken or not valid.
    """
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise Permanent(
            "a user name has 1 to 64 characters: letters, digits, . _ @ + - and single inner spaces"
        )
    if session.scalar(select(User.id).where(User.name == name)) is not None:
        raise Permanent(f"there is a user {name!r} already")
    user = User(name=name, password_hash=password_hash, role=role)
    session.add(user)
    session.flush()
    audit.note(session, "user.added", actor, user=user.name, role=role)
    return user


def set_password(
    session: Session,
    user: User,
    password_hash: PasswordHash,
    actor: Participant,
    *,
    keep_tokens: bool,
) -> None:
    """Sets a password; whoever knew the old one is out.

    The user's sessions end, their browsers are not known any more, and their tokens are revoked
    unless ``keep_tokens``.
    """
    audit.note(session, "user.password_set", actor, user=user.name)
    user.password_hash = password_hash
    if not keep_tokens:
        api_tokens.revoke_all(session, user, actor)
    _sign_out_everywhere(session, user)  # last: it may end the session by which the actor is known


def set_role(
    session: Session, user: User, role: UserRole, actor: Participant, *, even_last: bool = False
) -> None:
    """Changes the role of a ``locked`` user.

    Raises:
        LastAdministrator: no enabled administrator would be left, and it is not ``even_last``.
    """
    if role is not UserRole.ADMIN and not even_last:
        _require_another_administrator(session, user)
    user.role = role
    audit.note(session, "user.role_set", actor, user=user.name, role=role)


def set_disabled(
    session: Session, user: User, disabled: bool, actor: Participant, *, even_last: bool = False
) -> None:
    """Ends the access of a ``locked`` user at once, or restores it.

    Raises:
        LastAdministrator: no enabled administrator would be left, and it is not ``even_last``.
    """
    if disabled and not even_last:
        _require_another_administrator(session, user)
    user.disabled_at = read_clock(session) if disabled else None
    if disabled:
        _sign_out_everywhere(session, user)
    audit.note(session, "user.disabled" if disabled else "user.enabled", actor, user=user.name)


def _require_another_administrator(session: Session, user: User) -> None:
    if user.role is not UserRole.ADMIN or user.disabled_at is not None:
        return
    enabled = select(User.id).where(User.role == UserRole.ADMIN, User.disabled_at.is_(None))
    if session.scalar(enabled.where(User.id != user.id).limit(1)) is None:
        raise LastAdministrator(
            f"{user.name} is the last enabled administrator: nobody could change users on the page"
        )


def _sign_out_everywhere(session: Session, user: User) -> None:
    sessions.end_all(session, user)
    session.execute(delete(KnownBrowser).where(KnownBrowser.user_id == user.id))
