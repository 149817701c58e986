"""Users, browser sessions and API tokens.

Passwords are stored as Argon2id hashes (RFC 9106). Cookies and tokens are random, so only their
SHA-256 is stored.
"""

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from db import audit
from db.audit import Participant
from db.models import ApiToken, Permission, SignInFailure, User, UserRole, WebSession
from db.types import db_now, read_clock
from lumbar.errors import NotFound, Permanent

MIN_PASSWORD, MAX_PASSWORD = 12, 1024
IDLE_TIMEOUT = timedelta(hours=1)  # after which a browser has to sign in again
MAX_SESSION = timedelta(hours=12)
USE_RECORDED_EVERY = timedelta(minutes=1)
# refused attempts of one name or address, and the seconds for which they count
MAX_FAILURES, FAILURE_WINDOW_S = 10, 600.0
CLOCK_STEP_S = 60.0  # by which a clock that is kept right may be set back
SESSIONS_KEPT = 100  # of one user; ended ones among them are forgotten by count, not by the clock
TOKEN_PREFIX = "lumbar_"  # noqa: S105 - secret scanners recognise it

_hasher = PasswordHasher()
_NAME = re.compile(r"(?=.*\w)[\w.@+-]+( [\w.@+-]+)*")


class SignInRefused(Permanent):
    """Signing in failed; the message does not say why."""


class WrongPassword(Permanent):
    """The current password, which a change of it needs, is wrong."""


class TooManyAttempts(Permanent):
    """Too many refused attempts for this name or from this address."""


@dataclass(frozen=True)
class Actor:
    """Who makes a request, and what they may do.

    ``csrf_token`` belongs to a browser's session; it is None for a program's token.
    """

    user_id: int
    name: str
    role: UserRole
    permissions: frozenset[Permission]
    csrf_token: str | None = None
    address: str = ""  # of the request

    @property
    def participant(self) -> Participant:
        """As the audit trail names them."""
        return Participant(self.name, self.address)

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions


@dataclass(frozen=True)
class SignedIn:
    """A new session, and the browser's cookie."""

    cookie: str
    user: str


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


def add_user(
    session: Session, name: str, password: str, role: UserRole, actor: Participant
) -> User:
    """Adds a user.

    Raises:
        Permanent: the name is taken or not valid, or the password is too short or too long.
    """
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise Permanent(
            "a user name has 1 to 64 characters: letters, digits, . _ @ + - and single inner spaces"
        )
    if session.scalar(select(User.id).where(User.name == name)) is not None:
        raise Permanent(f"there is a user {name!r} already")
    user = User(name=name, password_hash=_hash(password), role=role)
    session.add(user)
    session.flush()
    audit.note(session, "user.added", actor, user=user.name, role=role)
    return user


def set_password(session: Session, user: User, password: str, actor: Participant) -> None:
    """Sets a password and ends the user's sessions.

    Raises:
        Permanent: the password is too short or too long.
    """
    user.password_hash = _hash(password)
    _sign_out_everywhere(session, user)
    audit.note(session, "user.password_set", actor, user=user.name)


def change_password(
    session: Session, user: User, current: str, password: str, actor: Participant
) -> None:
    """As ``set_password``, by the user, who must give the current password.

    Raises:
        WrongPassword: the current password is wrong.
        Permanent: the new one is too short or too long.
    """
    if not _matches(user.password_hash, current):
        raise WrongPassword("the current password is wrong; nothing was changed")
    set_password(session, user, password, actor)


def set_role(session: Session, user: User, role: UserRole, actor: Participant) -> None:
    user.role = role
    audit.note(session, "user.role_set", actor, user=user.name, role=role)


def set_disabled(session: Session, user: User, disabled: bool, actor: Participant) -> None:
    """Ends the user's access at once, or restores it."""
    user.disabled_at = read_clock(session) if disabled else None
    if disabled:
        _sign_out_everywhere(session, user)
    audit.note(session, "user.disabled" if disabled else "user.enabled", actor, user=user.name)


def sign_in(session: Session, name: str, password: str, address: str) -> SignedIn:
    """Opens a session.

    The caller must commit even if this raises: a refused attempt is recorded in the same
    transaction.

    Raises:
        SignInRefused: there is no such user, the password is wrong, or the user is disabled.
        TooManyAttempts: too many attempts were refused for this name or from this address.
    """
    identities = [
        sha256(text.encode()).hexdigest() for text in (f"name {name}", f"address {address}")
    ]
    # one from the future does not count: the clock was ahead
    recent = SignInFailure.happened_at.between(db_now(-FAILURE_WINDOW_S), db_now(CLOCK_STEP_S))
    failures = select(SignInFailure.who).where(SignInFailure.who.in_(identities), recent)
    count = session.scalar(
        select(func.count())
        .select_from(failures.subquery())
        .group_by("who")
        .order_by(func.count().desc())
        .limit(1)
    )
    if (count or 0) >= MAX_FAILURES:
        raise TooManyAttempts(
            f"too many attempts; try again in {FAILURE_WINDOW_S / 60:.0f} minutes"
        )
    user = session.scalar(select(User).where(User.name == name, User.disabled_at.is_(None)))
    if not _matches(user.password_hash if user else _placeholder_hash(), password) or user is None:
        session.add_all(SignInFailure(who=identity) for identity in identities)
        session.execute(delete(SignInFailure).where(~recent))
        raise SignInRefused("the name or the password is wrong")
    if _hasher.check_needs_rehash(user.password_hash):
        user.password_hash = _hasher.hash(password)
    session.execute(delete(SignInFailure).where(SignInFailure.who == identities[0]))
    cookie = secrets.token_urlsafe(32)
    session.add(
        WebSession(
            token_sha256=_digest(cookie), user_id=user.id, csrf_token=secrets.token_urlsafe(32)
        )
    )
    session.flush()
    _forget_old_sessions(session, user)
    audit.note(session, "sign_in.done", Participant(user.name, address), user=user.name)
    return SignedIn(cookie, user.name)


def by_cookie(session: Session, cookie: str, address: str = "") -> Actor | None:
    """The user who is signed in with this cookie; None if the session is unknown or has ended.

    One from further ahead than a session may last has ended, too: the clock was ahead.
    """
    web_session = session.scalar(
        select(WebSession).where(WebSession.token_sha256 == _digest(cookie))
    )
    now = read_clock(session)
    if web_session is None or web_session.user.disabled_at is not None:
        return None
    idle, age = abs(now - web_session.last_used_at), abs(now - web_session.created_at)
    if idle > IDLE_TIMEOUT or age > MAX_SESSION:
        return None
    user = web_session.user
    return Actor(
        user.id, user.name, user.role, user.role.permissions, web_session.csrf_token, address
    )


def record_use(session: Session, cookie: str) -> None:
    """Records that a session is in use, at most once a minute."""
    now = read_clock(session)
    just_now = WebSession.last_used_at.between(now - USE_RECORDED_EVERY, now)
    session.execute(
        update(WebSession)
        .where(WebSession.token_sha256 == _digest(cookie), ~just_now)
        .values(last_used_at=now)
    )


def sign_out(session: Session, cookie: str, actor: Participant) -> None:
    session.execute(delete(WebSession).where(WebSession.token_sha256 == _digest(cookie)))
    audit.note(session, "sign_out", actor)


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
        token_sha256=_digest(token),
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
    row = session.scalar(select(ApiToken).where(ApiToken.token_sha256 == _digest(token)))
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
    )


def _name_of(token: ApiToken) -> str:
    return f"{token.user.name} ({token.name})"[:64]


@dataclass(frozen=True)
class RefusedToken:
    """Why a token is refused, and whose it is; nobody's if it is not known."""

    name: str  # as of an ``Actor``
    detail: dict[str, object]


def refused_token(session: Session, token: str) -> RefusedToken:
    """What the audit trail says of a token for which ``by_token`` has found nobody."""
    row = session.scalar(select(ApiToken).where(ApiToken.token_sha256 == _digest(token)))
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
    token.revoked_at = token.revoked_at or read_clock(session)
    audit.note(session, "token.revoked", actor, token=token.id)


def _hash(password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Permanent(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return _hasher.hash(password)


@cache
def _placeholder_hash() -> str:
    """The hash that a password is checked against if there is no such user.

    Without it, the response time would show whether the name exists.
    """
    return _hasher.hash(secrets.token_hex())


def _matches(password_hash: str, password: str) -> bool:
    try:
        return len(password) <= MAX_PASSWORD and _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _forget_old_sessions(session: Session, user: User) -> None:
    newest = (
        select(WebSession.id)
        .where(WebSession.user_id == user.id)
        .order_by(WebSession.id.desc())
        .limit(SESSIONS_KEPT)
    )
    session.execute(
        delete(WebSession)
        .where(WebSession.user_id == user.id, WebSession.id.not_in(newest))
        .execution_options(synchronize_session=False)
    )


def _sign_out_everywhere(session: Session, user: User) -> None:
    session.execute(delete(WebSession).where(WebSession.user_id == user.id))
