"""API tokens: programs' credentials. They are random, so only their SHA-256 is stored."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import audit
from db.actors import Actor
from db.audit import Participant
from db.models import ApiToken, Permission, User
from db.sessions import digest
from db.types import read_clock
from lumbar.errors import NotFound, Permanent

TOKEN_PREFIX = "lumbar_"  # noqa: S105 - secret scanners recognise it


def new_token(
    session: Session,
    user: User,
    name: str,
    scopes: Collection[Permission],
    days: float,
    actor: Participant,
) -> str:
    """Creates a program's token and returns it; it cannot be shown again.

    Raises:
        Permanent: it has no scope, or one that its user may not have; or its name is not valid.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise Permanent("state the token's purpose in 1 to 64 printable characters")
    if not scopes or not set(scopes) <= user.role.permissions:
        raise Permanent(
            f"a token of {user.name} may have: {', '.join(sorted(user.role.permissions))}"
        )
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    ends = read_clock(session) + timedelta(days=days)
    row = ApiToken(
        name=name,
        token_sha256=digest(token),
        user_id=user.id,
        scopes=",".join(sorted(scopes)),
        expires_at=ends,
    )
    session.add(row)
    session.flush()
    audit.note(session, "token.made", actor, token=row.id, user=user.name)
    return token


def by_token(session: Session, token: str, address: str = "") -> Actor | None:
    """The actor a token stands for; None if it is unknown, revoked or expired.

    Its permissions are those of its scopes that its user has now.
    """
    row = session.scalar(select(ApiToken).where(ApiToken.token_sha256 == digest(token)))
    if row is None or row.revoked_at is not None or row.user.disabled_at is not None:
        return None
    if row.expires_at is not None and row.expires_at < read_clock(session):
        return None
    scopes = {Permission(scope) for scope in row.scopes.split(",")}
    user = row.user
    return Actor(
        user.id,
        _name_of(row),
        user.role,
        user.role.permissions & scopes,
        address=address,
        token_id=row.id,
    )


@dataclass(frozen=True)
class RefusedToken:
    """Why a token is refused, and whose it is; nobody's if it is not known."""

    name: str  # as of an ``Actor``
    detail: dict[str, object]


def refused_token(session: Session, token: str) -> RefusedToken:
    """What the audit trail says of a token for which ``by_token`` has found nobody."""
    row = session.scalar(select(ApiToken).where(ApiToken.token_sha256 == digest(token)))
    if row is None:
        return RefusedToken("", {"why": "no such token"})
    if row.revoked_at is not None:
        why = "revoked"
    else:
        why = "its user is disabled" if row.user.disabled_at is not None else "expired"
    return RefusedToken(_name_of(row), {"why": why, "token": row.id})


def tokens(session: Session, user_id: int | None = None) -> list[ApiToken]:
    """The tokens of one user, or of all users, including revoked and expired ones."""
    statement = select(ApiToken).order_by(ApiToken.id)
    return list(
        session.scalars(
            statement if user_id is None else statement.where(ApiToken.user_id == user_id)
        )
    )


def revoke_token(
    session: Session, token_id: int, actor: Participant, user_id: int | None = None
) -> None:
    """Revokes a token.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    token = session.get(ApiToken, token_id)
    if token is None or user_id not in (None, token.user_id):
        raise NotFound(f"there is no token {token_id}")
    audit.note(session, "token.revoked", actor, token=token.id)  # first: it may be the actor's
    token.revoked_at = token.revoked_at or read_clock(session)


def revoke_all(session: Session, user: User, actor: Participant) -> None:
    """Revokes all tokens of a user."""
    valid = (ApiToken.user_id == user.id, ApiToken.revoked_at.is_(None))
    for token_id in session.scalars(select(ApiToken.id).where(*valid).with_for_update()).all():
        audit.note(session, "token.revoked", actor, token=token_id)
    session.execute(update(ApiToken).where(*valid).values(revoked_at=read_clock(session)))


def _name_of(token: ApiToken) -> str:
    return f"{token.user.name} ({token.name})"[:64]
