"""Who may sign in, and what signed in means: passwords, a browser's session, a program's token.

Passwords are kept as Argon2id hashes (RFC 9106); of cookies and tokens, which are random, only their SHA-256.
"""

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from db import audit
from db.models import ApiToken, Permission, SignInFailure, User, UserRole, WebSession
from db.types import db_now
from lumbar.errors import NotFound, Permanent

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024
IDLE = timedelta(hours=1)  # after which a browser has to sign in again
LONGEST = timedelta(hours=12)
NOTED_EVERY = timedelta(minutes=1)
FAILURES, WITHIN_S = (
    10,
    600.0,
)  # refused attempts of one name or address, and for how many seconds they count
TOKEN_STARTS = "lumbar_"  # noqa: S105 - so that secret scanners know one

_hasher = PasswordHasher()
_NAME = re.compile(r"(?=.*\w)[\w.@+-]+( [\w.@+-]+)*")


class Refused(Permanent):
    """Signing in failed; why is not told."""


class TooManyAttempts(Permanent):
    """Too many refused attempts of this name or address."""


@dataclass(frozen=True)
class Actor:
    """Who asks, and what they may do. ``csrf_token`` is of a browser's session, None of a program's token."""

    user_id: int
    name: str
    role: UserRole
    permissions: frozenset[Permission]
    csrf_token: str | None = None

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions


@dataclass(frozen=True)
class SignedIn:
    """A new session: what the browser keeps."""

    cookie: str
    user: str


def anybody(session: Session) -> bool:
    """Whether there is a user at all; until then nobody but this machine may ask for a page."""
    return session.scalar(select(User.id).limit(1)) is not None


def users(session: Session) -> list[User]:
    """All, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def user_named(session: Session, name: str) -> User:
    """Raises Permanent where there is none."""
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"there is no user {name!r}; `lumbar users list` names those there are")
    return user


def add_user(session: Session, name: str, password: str, role: UserRole, actor: str) -> User:
    """Raises Permanent: the name is taken or no name, the password too short."""
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise Permanent(
            "a user's name has 1 to 64 letters, digits and . _ @ + -, and single spaces between them"
        )
    if session.scalar(select(User.id).where(User.name == name)) is not None:
        raise Permanent(f"there is a user {name!r} already")
    user = User(name=name, password_hash=_hashed(password), role=role)
    session.add(user)
    session.flush()
    audit.note(session, "user.added", actor, user=user.id, role=role)
    return user


def set_password(session: Session, user: User, password: str, actor: str) -> None:
    """Ends the user's sessions. Raises Permanent: the password is too short."""
    user.password_hash = _hashed(password)
    _sign_out_everywhere(session, user)
    audit.note(session, "user.password_set", actor, user=user.id)


def change_password(session: Session, user: User, current: str, password: str) -> None:
    """As ``set_password``, by the user. Raises Permanent also where the current one is wrong."""
    if not _right(user.password_hash, current):
        raise Permanent("the password that you have now is another; nothing was changed")
    set_password(session, user, password, user.name)


def set_role(session: Session, user: User, role: UserRole, actor: str) -> None:
    user.role = role
    audit.note(session, "user.role_set", actor, user=user.id, role=role)


def set_disabled(session: Session, user: User, disabled: bool, actor: str) -> None:
    """Ends the user's access at once, or gives it back."""
    user.disabled_at = datetime.now(UTC) if disabled else None
    if disabled:
        _sign_out_everywhere(session, user)
    audit.note(session, "user.disabled" if disabled else "user.enabled", actor, user=user.id)


def sign_in(session: Session, name: str, password: str, address: str) -> SignedIn:
    """Opens a session.

    The caller commits in any case: a refused attempt is noted in the same transaction.

    Raises:
        Refused: no such user, a wrong password, or disabled. TooManyAttempts: of this name or from this address.
    """
    who = [sha256(text.encode()).hexdigest() for text in (f"name {name}", f"address {address}")]
    since = db_now(-WITHIN_S)
    counted = select(SignInFailure.who).where(
        SignInFailure.who.in_(who), SignInFailure.happened_at > since
    )
    most = session.scalar(
        select(func.count())
        .select_from(counted.subquery())
        .group_by("who")
        .order_by(func.count().desc())
        .limit(1)
    )
    if (most or 0) >= FAILURES:
        raise TooManyAttempts(f"too many attempts; try again in {WITHIN_S / 60:.0f} minutes")
    user = session.scalar(select(User).where(User.name == name, User.disabled_at.is_(None)))
    if not _right(user.password_hash if user else _nobodys_hash(), password) or user is None:
        session.add_all(SignInFailure(who=one) for one in who)
        session.execute(delete(SignInFailure).where(SignInFailure.happened_at < since))
        audit.note(session, "sign_in.refused", address)
        raise Refused("the name or the password is wrong")
    if _hasher.check_needs_rehash(user.password_hash):
        user.password_hash = _hasher.hash(password)
    session.execute(delete(SignInFailure).where(SignInFailure.who == who[0]))
    session.execute(delete(WebSession).where(WebSession.created_at < datetime.now(UTC) - LONGEST))
    cookie = secrets.token_urlsafe(32)
    session.add(
        WebSession(
            token_sha256=_digest(cookie), user_id=user.id, csrf_token=secrets.token_urlsafe(32)
        )
    )
    audit.note(session, "sign_in.done", user.name, user=user.id)
    return SignedIn(cookie, user.name)


def by_cookie(session: Session, cookie: str) -> Actor | None:
    """Who is signed in with this cookie, for as long as it is good."""
    found = session.scalar(select(WebSession).where(WebSession.token_sha256 == _digest(cookie)))
    now = datetime.now(UTC)
    if found is None or found.user.disabled_at is not None:
        return None
    if now - found.last_used_at > IDLE or now - found.created_at > LONGEST:
        return None
    user = found.user
    return Actor(user.id, user.name, user.role, user.role.permissions, found.csrf_token)


def used(session: Session, cookie: str) -> None:
    """Notes that a session is in use, at most once a minute."""
    session.execute(
        update(WebSession)
        .where(WebSession.token_sha256 == _digest(cookie))
        .where(WebSession.last_used_at < datetime.now(UTC) - NOTED_EVERY)
        .values(last_used_at=datetime.now(UTC))
    )


def sign_out(session: Session, cookie: str, actor: str) -> None:
    session.execute(delete(WebSession).where(WebSession.token_sha256 == _digest(cookie)))
    audit.note(session, "sign_out", actor)


def new_token(
    session: Session, user: User, name: str, scopes: Collection[Permission], days: float, actor: str
) -> str:
    """A program's token, told this once. Raises Permanent: it would allow more than its user may, or no name."""
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise Permanent("a token's name has 1 to 64 characters: what it is for")
    if not scopes or not set(scopes) <= user.role.permissions:
        raise Permanent(
            f"a token of {user.name} may have: {', '.join(sorted(user.role.permissions))}"
        )
    token = TOKEN_STARTS + secrets.token_urlsafe(32)
    ends = datetime.now(UTC) + timedelta(days=days)
    row = ApiToken(
        name=name,
        token_sha256=_digest(token),
        user_id=user.id,
        scopes=",".join(sorted(scopes)),
        expires_at=ends,
    )
    session.add(row)
    session.flush()
    audit.note(session, "token.made", actor, token=row.id, user=user.id)
    return token


def by_token(session: Session, token: str) -> Actor | None:
    """Who a token stands for; it allows what it was made for, and no more than its user may now."""
    found = session.scalar(select(ApiToken).where(ApiToken.token_sha256 == _digest(token)))
    if found is None or found.revoked_at is not None or found.user.disabled_at is not None:
        return None
    if found.expires_at is not None and found.expires_at < datetime.now(UTC):
        return None
    scopes = {Permission(scope) for scope in found.scopes.split(",")}
    user = found.user
    return Actor(
        user.id, f"{user.name} ({found.name})"[:64], user.role, user.role.permissions & scopes
    )


def tokens(session: Session, user_id: int | None = None) -> list[ApiToken]:
    """A user's, or everybody's; also those that are no good any more."""
    asked = select(ApiToken).order_by(ApiToken.id)
    return list(
        session.scalars(asked if user_id is None else asked.where(ApiToken.user_id == user_id))
    )


def revoke_token(session: Session, token_id: int, actor: str, user_id: int | None = None) -> None:
    """Raises Permanent where there is none, or it is not the user's."""
    token = session.get(ApiToken, token_id)
    if token is None or user_id not in (None, token.user_id):
        raise NotFound(f"there is no token {token_id}")
    token.revoked_at = token.revoked_at or datetime.now(UTC)
    audit.note(session, "token.revoked", actor, token=token.id)


def _hashed(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Permanent(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return _hasher.hash(password)


@cache
def _nobodys_hash() -> str:
    """What a password is held against where the name is nobody's: no clock tells the two apart."""
    return _hasher.hash(secrets.token_hex())


def _right(password_hash: str, password: str) -> bool:
    try:
        return len(password) <= LONGEST_PASSWORD and _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _sign_out_everywhere(session: Session, user: User) -> None:
    session.execute(delete(WebSession).where(WebSession.user_id == user.id))
