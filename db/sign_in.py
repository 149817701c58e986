"""Signing in, and changing one's password: wherever a password is given, attempts are limited.

Each takes three steps: the attempt is counted and committed, the password is looked at outside any
transaction, and what follows is committed, if the user is still the same.
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db import accounts, attempts, audit, passwords, sessions
from db.actors import Actor, NoLongerAllowed
from db.audit import Participant
from db.database import Database
from db.models import KnownBrowser, User
from lumbar.errors import Permanent

BROWSERS_KNOWN = 50  # of one user; the oldest are forgotten


class SignInRefused(Permanent):
    """Signing in failed; the message does not say why."""


class WrongPassword(Permanent):
    """The current password, which a change of it needs, is wrong."""


@dataclass(frozen=True)
class Browser:
    """Where an attempt comes from: its address, what it calls itself, and the cookies it has.

    ``known_cookie`` lasts longer than a session: by it a browser is known in which somebody has
    signed in before.
    """

    address: str
    name: str = ""
    session_cookie: str = ""
    known_cookie: str = ""


@dataclass(frozen=True)
class SignedIn:
    """A new session: the browser's cookies."""

    cookie: str
    known_cookie: str
    user: str


def is_known(session: Session, name: str, browser: Browser) -> bool:
    """Whether the user with this name has signed in from this browser before."""
    return _known(session, name, browser) is not None


def sign_in(database: Database, name: str, password: str, browser: Browser) -> SignedIn:
    """Opens a session.

    Raises:
        SignInRefused: there is no such user, the password is wrong, or the user is disabled.
        TooManyAttempts: no attempt is left for this name and address, or for this browser.
    """
    with database.transaction() as session:
        known = _known(session, name, browser)
        keys = (
            attempts.by_stranger(name, browser.address)
            if known is None
            else attempts.by_known_browser(known)
        )
        attempts.count(session, keys)
    signed_in = _attempt(database, name, password, browser, keys)
    if signed_in is None:
        with database.transaction() as session:
            attempts.forget_old(session)
        raise SignInRefused("the name or the password is wrong")
    return signed_in


def change_password(
    database: Database, actor: Actor, current: str, password: str, *, keep_tokens: bool
) -> None:
    """Changes the actor's own password and ends all of their sessions.

    Raises:
        WrongPassword: the current password is wrong.
        Permanent: the new one is not acceptable.
        TooManyAttempts: no attempt is left for this session.
        NoLongerAllowed: the actor's session has ended, or the password was changed meanwhile.
    """
    if actor.session_id is None:
        raise NoLongerAllowed("a token cannot change a password; sign in with a browser")
    keys = attempts.by_session(actor.session_id)
    with database.transaction() as session:
        attempts.count(session, keys)
        user = session.get_one(User, actor.user_id)
    if not passwords.matches(user.password_hash, current):
        with database.transaction() as session:
            attempts.forget_old(session)
        raise WrongPassword("the current password is wrong; nothing was changed")
    new = passwords.new_hash(password, user.name)
    with database.transaction() as session:
        actor.require(session, alone=True)
        now = session.get_one(User, actor.user_id)
        if now.password_hash != user.password_hash:
            raise NoLongerAllowed("the password was changed meanwhile; sign in again")
        accounts.set_password(session, now, new, actor.participant, keep_tokens=keep_tokens)
        attempts.succeeded(session, keys)


def _attempt(
    database: Database, name: str, password: str, browser: Browser, keys: attempts.Keys
) -> SignedIn | None:
    """Opens a session if the password is right, and still is once that has been found out."""
    for _ in range(2):  # the hash may just be renewed by another sign-in of the same user
        with database.reading() as session:
            user = session.scalar(select(User).where(User.name == name, User.disabled_at.is_(None)))
        tried = user.password_hash if user else passwords.placeholder_hash()
        if not passwords.matches(tried, password) or user is None:
            return None
        renewed = passwords.renewed(tried, password)
        with database.transaction() as session:
            same = (User.id == user.id, User.password_hash == tried, User.disabled_at.is_(None))
            found = session.scalar(select(User).where(*same).with_for_update())
            if found is None:
                continue
            if renewed:
                found.password_hash = renewed
            attempts.succeeded(session, keys)
            return _begin(session, found, browser)
    return None


def _begin(session: Session, user: User, browser: Browser) -> SignedIn:
    cookie = sessions.begin(session, user, browser.address, browser.name, browser.session_cookie)
    known_cookie = _remember(session, user, browser.known_cookie)
    audit.note(session, "sign_in.done", Participant(user.name, browser.address), user=user.name)
    return SignedIn(cookie, known_cookie, user.name)


def _known(session: Session, name: str, browser: Browser) -> int | None:
    if not browser.known_cookie:
        return None
    return session.scalar(
        select(KnownBrowser.id)
        .join(User, User.id == KnownBrowser.user_id)
        .where(
            User.name == name, KnownBrowser.token_sha256 == sessions.digest(browser.known_cookie)
        )
    )


def _remember(session: Session, user: User, cookie: str) -> str:
    """Makes the browser known for this user; returns its cookie.

    Several users of one browser share its cookie, but only one that we have made.
    """
    rows = session.scalars(
        select(KnownBrowser.user_id).where(KnownBrowser.token_sha256 == sessions.digest(cookie))
    ).all()
    if user.id in rows:
        return cookie
    if not rows:
        cookie = secrets.token_urlsafe(32)
    session.add(KnownBrowser(token_sha256=sessions.digest(cookie), user_id=user.id))
    session.flush()
    newest = (
        select(KnownBrowser.id)
        .where(KnownBrowser.user_id == user.id)
        .order_by(KnownBrowser.id.desc())
        .limit(BROWSERS_KNOWN)
    )
    session.execute(
        delete(KnownBrowser)
        .where(KnownBrowser.user_id == user.id, KnownBrowser.id.not_in(newest))
        .execution_options(synchronize_session=False)
    )
    return cookie
